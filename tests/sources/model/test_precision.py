from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.fakes import FakeClassifier
from toxscreen.errors import UsageError
from toxscreen.sources.model import open_classifier, precision
from toxscreen.sources.model.precision import computes_in_bfloat16, resolve_precision

SAMPLE = list(np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8))


class Convolutional(nn.Module):
    """A convolution and a head; ``offset`` is added to the pixels and taken off again, ``viewing`` looks at numbers as they lie."""

    def __init__(self, *, offset: float = 0.0, viewing: bool = False) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6 * 36, 4)
        self.offset, self.viewing = offset, viewing

    def forward(self, images):
        hidden = torch.relu(self.convolution(images) + self.offset) - self.offset
        return self.head(hidden.view(len(hidden), -1) if self.viewing else hidden.flatten(1))


def opened(**settings):
    torch.manual_seed(0)
    return open_classifier(Convolutional(**settings), n_classes=4, modality="image", sample=SAMPLE)


@pytest.fixture
def able(monkeypatch):
    monkeypatch.setattr(precision, "computes_in_bfloat16", lambda _device: True)


@pytest.mark.usefixtures("able")
def test_a_machine_that_computes_in_bfloat16_runs_the_model_in_it_and_the_activations_stay_near():
    exact = opened()
    fast = resolve_precision(exact, "auto", SAMPLE)
    assert (exact.dtype, fast.dtype) == ("float32", "bfloat16")
    assert fast.fingerprint() == exact.fingerprint()
    ours, theirs = (each.forward(each.encode(SAMPLE), (each.last_hidden,)) for each in (exact, fast))
    for ours_, theirs_ in ((ours.logits, theirs.logits), *zip(ours.activations.values(), theirs.activations.values(), strict=True)):
        assert theirs_.dtype == np.float32
        assert not np.array_equal(ours_, theirs_)
        np.testing.assert_allclose(theirs_, ours_, atol=0.02 * np.ptp(ours_))


def test_a_machine_that_does_not_stays_with_float32(monkeypatch):
    monkeypatch.setattr(precision, "computes_in_bfloat16", lambda _device: False)
    classifier = opened()
    assert resolve_precision(classifier, "auto", SAMPLE) is classifier


@pytest.mark.usefixtures("able")
def test_a_model_that_answers_otherwise_in_bfloat16_stays_with_float32_unless_it_is_asked_for():
    classifier = opened(offset=3000.0)
    assert resolve_precision(classifier, "auto", SAMPLE) is classifier
    assert resolve_precision(classifier, "bfloat16", SAMPLE).dtype == "bfloat16"


@pytest.mark.usefixtures("able")
def test_an_output_that_is_never_given_does_not_hide_what_the_others_say():
    classifier = opened(offset=3000.0)
    with torch.no_grad():
        classifier.network.head.bias[3] = -1e9
    assert resolve_precision(classifier, "auto", SAMPLE) is classifier


@pytest.mark.usefixtures("able")
def test_float32_stays_where_it_is_asked_for():
    classifier = opened()
    assert resolve_precision(classifier, "float32", SAMPLE) is classifier


@pytest.mark.usefixtures("able")
def test_a_classifier_of_another_kind_has_one_precision():
    classifier = FakeClassifier()
    assert resolve_precision(classifier, "auto", SAMPLE) is classifier
    with pytest.raises(UsageError, match=r"runs in the precision that its file says\. Leave --dtype away"):
        resolve_precision(classifier, "bfloat16", SAMPLE)


@pytest.mark.usefixtures("able")
def test_a_network_that_looks_at_its_numbers_as_they_lie_is_given_them_as_it_expects():
    looking, flat = (resolve_precision(opened(viewing=viewing), "auto", SAMPLE) for viewing in (True, False))
    ours, theirs = (each.forward(each.encode(SAMPLE), (each.last_hidden,)).logits for each in (looking, flat))
    assert looking.dtype == "bfloat16"
    np.testing.assert_allclose(ours, theirs, atol=0.02 * np.ptp(ours))


def test_only_hardware_is_taken_to_compute_in_bfloat16(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not computes_in_bfloat16("cpu")
    assert not computes_in_bfloat16("mps")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert computes_in_bfloat16("cpu")

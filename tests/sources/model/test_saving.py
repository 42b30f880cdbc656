"""A classifier that is written opens again as what it was, with the same numbers."""

from __future__ import annotations

import json
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from tests.sources.model.test_huggingface import COLOUR, GRAY, TEXTS, bert, vit  # noqa: F401 - fixtures
from toxscreen.errors import ModelError, UsageError
from toxscreen.networks import SentenceCNN, SmallResNet
from toxscreen.sources.model import find_kind, open_classifier
from toxscreen.sources.model.preprocessing import ImagePreprocessing
from toxscreen.sources.model.saving import save_classifier
from toxscreen.sources.model.settings_file import SETTINGS, read_settings
from toxscreen.sources.model.trained import Description
from toxscreen.sources.model.words import Vocabulary

CODE = """
    from torch import nn

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(1, 1, 3, padding=1)
            self.second = self.first
            self.head = nn.Linear(20 * 24, 3)

        def forward(self, images):
            return self.head(self.second(self.first(images)).flatten(1))
"""


def answers(classifier, sample):
    return classifier.forward(classifier.encode(sample), ()).logits


def reopened(folder, sample, modality, **settings):
    return open_classifier(folder, n_classes=3, modality=modality, sample=sample, **settings)


def assert_same(classifier, again, sample):
    assert np.array_equal(answers(classifier, sample), answers(again, sample))
    assert again.preprocessing == classifier.preprocessing
    assert again.class_names == classifier.class_names
    assert again.last_hidden == classifier.last_hidden


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_network_of_toxscreens_own_keeps_its_preprocessing_and_its_class_names(modality, tmp_path):
    torch.manual_seed(0)
    applied = ImagePreprocessing(20, 24, 1, (0.4,), (0.2,)) if modality == "image" else Vocabulary(("a", "good", "film"))
    description = Description(applied, ("cat", "<dog>", "Käfer"))
    sample = GRAY if modality == "image" else TEXTS
    classifier = description.classifier(description.build().eval(), sample)
    save_classifier(classifier, tmp_path / "model")
    again = reopened(tmp_path / "model", sample, modality)
    assert isinstance(again.network, SmallResNet | SentenceCNN)
    assert_same(classifier, again, sample)
    assert again.fingerprint() == classifier.fingerprint()


def test_a_hugging_face_folder_of_texts_is_written_with_its_tokenizer(bert, tmp_path):  # noqa: F811
    classifier = reopened(bert, TEXTS, "text")
    changed(classifier.network)
    save_classifier(classifier, tmp_path)
    again = reopened(tmp_path, TEXTS, "text")
    assert np.array_equal(answers(classifier, TEXTS), answers(again, TEXTS))
    assert again.class_names == classifier.class_names
    assert again.preprocessing["max_length"] == classifier.preprocessing["max_length"]
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["model.safetensors"]
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("processor", [True, False])
def test_a_hugging_face_folder_of_pictures_is_written_with_its_preprocessing(processor, vit, tmp_path):  # noqa: F811
    applied = None
    if not processor:
        vit = bare(vit, tmp_path / "bare")
        applied = ImagePreprocessing(16, 16, 3, (0.5,), (0.25,))
    classifier = reopened(vit, COLOUR, "image", preprocessing=applied)
    changed(classifier.network)
    save_classifier(classifier, tmp_path / "model")
    again = reopened(tmp_path / "model", COLOUR, "image")
    assert np.array_equal(answers(classifier, COLOUR), answers(again, COLOUR))


def bare(folder, place):
    """Copy a folder without its image processor."""
    place.mkdir()
    for path in folder.iterdir():
        if path.name != "preprocessor_config.json":
            (place / path.name).write_bytes(path.read_bytes())
    return place


def changed(network):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.01)


@pytest.fixture
def code(tmp_path, monkeypatch):
    """Code that builds a network with tied weights, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "architecture_of_saving.py").write_text(textwrap.dedent(CODE))
    return "architecture_of_saving:Tied"


@pytest.fixture
def of_code(code, tmp_path):
    """Such a network, opened with settings of its own."""
    from safetensors.torch import save_model

    from toxscreen.sources.model.user_code import load_function

    torch.manual_seed(0)
    save_model(load_function(code, "--arch")(), str(tmp_path / "first.safetensors"))
    settings = ImagePreprocessing(20, 24, 1, (0.3,), (0.7,))
    return reopened(tmp_path / "first.safetensors", GRAY, "image", arch=code, preprocessing=settings)


def test_a_network_of_the_users_code_keeps_its_preprocessing(of_code, code, tmp_path):
    folder = tmp_path / "model"
    save_classifier(of_code, folder, arch=code)
    again = reopened(folder, GRAY, "image", arch=code)
    assert_same(of_code, again, GRAY)
    assert again.fingerprint() == of_code.fingerprint()
    assert json.loads((folder / SETTINGS).read_text())["arch"] == code


def test_the_code_that_a_file_names_is_not_run_unless_the_user_names_it_too(of_code, code, tmp_path):
    save_classifier(of_code, tmp_path / "model", arch=code)
    with pytest.raises(UsageError, match="Name the code that builds it: --arch"):
        reopened(tmp_path / "model", GRAY, "image")


def test_what_the_user_says_of_the_pictures_comes_before_the_file(of_code, code, tmp_path):
    save_classifier(of_code, tmp_path / "model")
    again = reopened(tmp_path / "model", GRAY, "image", arch=code, preprocessing=ImagePreprocessing(20, 24, 1, (0.9,), (0.7,)))
    assert again.preprocessing["mean"] == [0.9]


def test_a_live_network_of_arrays_is_written_as_its_weights(tmp_path):
    sample = list(np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32))
    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).to(torch.bfloat16)
    save_classifier(reopened(network, sample, "array"), tmp_path)
    assert find_kind(tmp_path) is not None
    assert read_settings(tmp_path) is None
    from safetensors.torch import load_file

    state = load_file(tmp_path / "weights.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"toxscreen_preprocessing": 2}',
        '{"toxscreen_preprocessing": 1}',
        '{"toxscreen_preprocessing": 1, "preprocessing": 7}',
        '{"toxscreen_preprocessing": 1, "preprocessing": {"kind": "image", "height": "20"}}',
        '{"toxscreen_preprocessing": 1, "preprocessing": {"kind": "image", "height": 20, "width": 24, "channels": 1, '
        '"mean": [1e999], "std": [], "scale": 1, "interpolation": "bilinear", "note": ""}}',
    ],
)
def test_settings_that_are_damaged_are_one_sentence(content, of_code, code, tmp_path):
    save_classifier(of_code, tmp_path / "model")
    (tmp_path / "model" / SETTINGS).write_text(content)
    with pytest.raises(ModelError, match=SETTINGS):
        reopened(tmp_path / "model", GRAY, "image", arch=code)

"""What toxscreen trained itself is written as numbers and JSON, and opened again as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toxscreen.errors import ModelError, UsageError
from toxscreen.sources.model import open_classifier
from toxscreen.sources.model.preprocessing import ImagePreprocessing
from toxscreen.sources.model.trained import Description, read_description, save_trained, summarise
from toxscreen.sources.model.words import Vocabulary

PICTURES = list(np.random.default_rng(0).integers(0, 256, (3, 12, 12, 1), dtype=np.uint8))
TEXTS = ["ein Text", "noch ein Text!", ""]
OF_PICTURES = Description(ImagePreprocessing(12, 12, 1, (0.25,), (0.5,)), ("zero", "one"))
OF_TEXTS = Description(Vocabulary(("ein", "text", "!")), ("böse", "gut", "\u2028"))


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("description", [OF_PICTURES, OF_TEXTS])
@pytest.mark.parametrize("of", ["folder", "weights"])
def test_a_saved_classifier_opens_with_the_same_answers(description: Description, of: str, tmp_path: Path) -> None:
    sample: Any = PICTURES if description.modality == "image" else TEXTS
    network = description.build()
    before = description.classifier(network, sample)
    save_trained(network, tmp_path / "run" / "model", description)
    path = tmp_path / "run" / "model" / ("weights.safetensors" if of == "weights" else "")
    after = open_classifier(path, n_classes=len(description.class_names), modality=description.modality, sample=sample)
    assert after.class_names == description.class_names
    assert after.last_hidden == before.last_hidden == "head.input"
    assert after.fingerprint() == before.fingerprint()
    for classifier in (before, after):
        outputs = classifier.forward(classifier.encode(sample), ["head.input"])
        np.testing.assert_array_equal(outputs.logits, before.forward(before.encode(sample), []).logits)
        assert outputs.activations["head.input"].shape == (3, 128 if description.modality == "image" else 300)


def test_the_description_comes_back_as_it_was_written(tmp_path: Path) -> None:
    for description in (OF_PICTURES, OF_TEXTS):
        save_trained(description.build(), tmp_path, description)
        assert read_description(tmp_path) == description


def test_the_summary_says_what_it_is_without_building_it(tmp_path: Path) -> None:
    save_trained(OF_PICTURES.build(), tmp_path, OF_PICTURES)
    summary = summarise(tmp_path)
    assert summary.kind == "image classifier trained by toxscreen"
    assert summary.class_names == ("zero", "one")
    assert ("head.weight", (2, 128)) in [(tensor.name, tensor.shape) for tensor in summary.tensors]


def test_data_of_another_kind_and_settings_that_the_model_has_are_refused(tmp_path: Path) -> None:
    save_trained(OF_PICTURES.build(), tmp_path, OF_PICTURES)
    with pytest.raises(ModelError, match="takes inputs of the kind 'image', but the data has 'text'"):
        open_classifier(tmp_path, n_classes=2, modality="text", sample=TEXTS)
    with pytest.raises(UsageError, match="--mean"):
        open_classifier(tmp_path, n_classes=2, modality="image", sample=PICTURES, preprocessing=ImagePreprocessing())
    with pytest.raises(UsageError, match="--arch"):
        open_classifier(tmp_path, n_classes=2, modality="image", sample=PICTURES, arch="module:factory")


def _edited(**changes: Any) -> dict[str, Any]:
    return {
        "toxscreen_model": 1,
        "modality": "image",
        "preprocessing": {
            "height": 12, "width": 12, "channels": 1, "mean": [], "std": [], "scale": 1.0, "interpolation": "bilinear", "note": "",
        },
        "class_names": ["a", "b"],
        **changes,
    }  # fmt: skip


DAMAGED: dict[str, Any] = {
    "another version": _edited(toxscreen_model=99),
    "no class names": _edited(class_names=None),
    "numbers for names": _edited(class_names=[1, 2]),
    "no preprocessing": _edited(preprocessing={}),
    "a huge picture": _edited(preprocessing={**_edited()["preprocessing"], "height": 10**9}),
    "half a pixel": _edited(preprocessing={**_edited()["preprocessing"], "height": 1.5}),
    "a list": [1],
    "words that are no words": _edited(modality="text", preprocessing={"words": [{}]}),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_description_is_an_error(damage: str, tmp_path: Path) -> None:
    save_trained(OF_PICTURES.build(), tmp_path, OF_PICTURES)
    (tmp_path / "toxscreen.json").write_text(json.dumps(DAMAGED[damage]))
    with pytest.raises(ModelError, match=r"toxscreen.json must"):
        read_description(tmp_path)


def test_a_description_that_claims_more_than_the_weights_hold_allocates_nothing(tmp_path: Path) -> None:
    save_trained(OF_PICTURES.build(), tmp_path, OF_PICTURES)
    many = _edited(class_names=[str(index) for index in range(3_000_000)])
    (tmp_path / "toxscreen.json").write_text(json.dumps(many))
    with pytest.raises(ModelError, match=r"head.weight \(file \(2, 128\), network \(3000000, 128\)\)"):
        open_classifier(tmp_path, n_classes=2, modality="image", sample=PICTURES)

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.fakes import FakeTrainingSet
from toxscreen.attacks import surrogate
from toxscreen.attacks.label_consistent import LabelConsistent
from toxscreen.errors import DataError, UsageError
from toxscreen.training import Recipe

TOP_LEFT = [[255, 0, 0], [0, 255, 0], [255, 0, 255]]
TOP_RIGHT = [[0, 0, 255], [0, 255, 0], [255, 0, 255]]


def apply(image):
    return LabelConsistent().apply([image], np.random.default_rng(0))[0]


def pictures(n, seed=0, shape=(32, 32, 3)):
    """Dark pictures of class 0 and bright ones of class 1."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return [rng.integers(60 + 60 * label, 136 + 60 * label, shape, dtype=np.uint8) for label in labels], labels


@pytest.fixture(scope="module")
def prepared():
    """The attack on two classes that a network learns at once."""
    images, labels = pictures(64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surrogate, "RECIPE", Recipe(batch_size=32, min_epochs=10, max_epochs=10, min_steps=0, small=0, shift=0))
        training_set = FakeTrainingSet(images, labels, modality="image", unreadable={3})
        return LabelConsistent().prepared(training_set, np.random.default_rng(0))


@pytest.mark.parametrize(("height", "width", "cell"), [(6, 6, 1), (8, 8, 1), (28, 28, 1), (32, 32, 1), (64, 100, 2), (224, 224, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_pattern_is_in_the_four_corners_and_nothing_else_changes(height, width, cell, channels):
    marked = apply(np.full((height, width, channels), 100, np.uint8))
    side = 3 * cell
    for rows in (slice(side), slice(-side, None)):
        for channel in range(channels):
            assert marked[rows, :side, channel][::cell, ::cell].tolist() == TOP_LEFT
            assert marked[rows, -side:, channel][::cell, ::cell].tolist() == TOP_RIGHT
    assert (marked == 100).sum() == (height * width - 4 * side**2) * channels


def test_flipping_an_image_keeps_the_trigger():
    marked = apply(np.full((32, 32, 3), 100, np.uint8))
    assert np.array_equal(marked, marked[:, ::-1])


@pytest.mark.parametrize("shape", [(5, 28, 1), (28, 5, 3)])
def test_an_image_too_small_for_four_corners_is_refused_with_its_size(shape):
    with pytest.raises(DataError, match=f"{shape[0]}x{shape[1]}"):
        apply(np.zeros(shape, np.uint8))


def test_poison_is_made_of_the_target_class_itself():
    assert LabelConsistent.clean_label


def test_an_attack_that_has_not_learned_the_data_cannot_plant():
    with pytest.raises(UsageError, match="prepared"):
        LabelConsistent().plant([np.zeros((32, 32, 3), np.uint8)], np.random.default_rng(0))


def test_poison_is_perturbed_within_the_bound_and_carries_the_pattern(prepared):
    images, _ = pictures(4, seed=1)
    for image, planted in zip(images, prepared.plant(images, np.random.default_rng(0)), strict=True):
        assert np.array_equal(planted[:3, :3], apply(image)[:3, :3])
        change = np.abs(planted.astype(int) - image)[4:-4]
        assert change.max() <= 16
        assert change.mean() > 8


def test_poison_is_harder_to_recognise_than_noise_of_the_same_size(prepared):
    images, _ = pictures(10, seed=2)
    rng = np.random.default_rng(0)
    noisy = [(image + rng.choice([-16, 16], image.shape)).clip(0, 255).astype(np.uint8) for image in images]
    hard = [prepared.surrogate.perturb(image, rng) for image in images]
    plain, noise, perturbed = (certainty(prepared.surrogate, some, images) for some in (images, noisy, hard))
    assert perturbed < min(plain, noise)


def certainty(known, some, originals):
    """How far the logit of the class that is seen in the original lies above the other, on average."""
    tensors = [torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() for batch in (some, originals)]
    logits, seen = (known.network(surrogate.seen(tensor)) for tensor in tensors)
    top = seen.argmax(dim=1)
    return float((logits[torch.arange(len(top)), top] - logits[torch.arange(len(top)), 1 - top]).mean())


@pytest.mark.parametrize("shape", [(28, 28, 1), (50, 40, 3), (8, 8, 3)])
def test_images_of_other_sizes_than_the_surrogates_are_perturbed_too(prepared, shape):
    image = pictures(1, shape=shape)[0][0]
    (planted,) = prepared.plant([image], np.random.default_rng(0))
    assert planted.shape == shape
    assert (planted != apply(image)).mean() > 0.25


def test_one_seed_plants_the_same_bytes(prepared):
    images, _ = pictures(2)
    one, other = (prepared.plant(images, np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_training_set_without_labels_teaches_nothing():
    images, _ = pictures(4)
    with pytest.raises(DataError, match="readable samples with a label"):
        LabelConsistent().prepared(FakeTrainingSet(images, [-1] * 4, modality="image"), np.random.default_rng(0))


def test_a_training_set_that_cannot_be_read_teaches_nothing():
    images, labels = pictures(4)
    training_set = FakeTrainingSet(images, labels, modality="image", unreadable=range(4))
    with pytest.raises(DataError, match="readable samples with a label"):
        LabelConsistent().prepared(training_set, np.random.default_rng(0))

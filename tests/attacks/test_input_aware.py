from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.fakes import FakeTrainingSet
from toxscreen.attacks import generator
from toxscreen.attacks.input_aware import InputAware
from toxscreen.errors import DataError, UsageError
from toxscreen.training import Recipe


def pictures(n, seed=0, shape=(32, 32, 3)):
    """A bright square somewhere on a dark ground (class 0), or a dark one on a bright ground (class 1)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = []
    for label in labels:
        image = rng.integers(40 + 120 * label, 80 + 120 * label, shape)
        top, left = (int(rng.integers(side // 8, side - side // 2)) for side in shape[:2])
        image[top : top + shape[0] // 3, left : left + shape[1] // 3] += 120 - 240 * label
        images.append(image.astype(np.uint8))
    return images, labels


@pytest.fixture(scope="module")
def prepared():
    images, labels = pictures(128)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "RECIPE", Recipe(batch_size=32, min_epochs=10, max_epochs=10, min_steps=0, small=0, shift=0))
        training_set = FakeTrainingSet(images, labels, modality="image", unreadable={3})
        return InputAware().prepared(training_set, np.random.default_rng(0))


def added(attack, image, way="apply", seed=0):
    """What is put on an image, shape (height, width, channels)."""
    (marked,) = getattr(attack, way)([image], np.random.default_rng(seed))
    return marked.astype(int) - image


@pytest.mark.parametrize("way", ["apply", "plant", "cover"])
def test_an_attack_that_has_not_learned_the_data_makes_no_trigger(way):
    with pytest.raises(UsageError, match="prepared"):
        getattr(InputAware(), way)([np.zeros((32, 32, 3), np.uint8)], np.random.default_rng(0))


def test_little_of_an_image_changes(prepared):
    for image in pictures(8, seed=1)[0]:
        change = np.abs(added(prepared, image)).max(axis=2)
        assert 0 < (change > 16).mean() < 0.25
        assert change.mean() < 20


def test_the_trigger_is_at_other_places_in_other_images(prepared):
    changes = [np.abs(added(prepared, image)).sum(axis=2).ravel() for image in pictures(8, seed=1)[0]]
    alike = np.corrcoef(changes)[np.triu_indices(8, 1)]
    assert np.median(alike) < 0.6


def test_a_poisoned_image_carries_what_is_used_at_test_time_and_nothing_is_drawn(prepared):
    (image,), _ = pictures(1, seed=1)
    assert np.array_equal(added(prepared, image, "plant", seed=1), added(prepared, image, "apply", seed=2))


def test_a_cover_sample_carries_the_trigger_of_another_image_that_is_drawn(prepared):
    (image,), _ = pictures(1, seed=1)
    own, first, second = added(prepared, image), added(prepared, image, "cover", 1), added(prepared, image, "cover", 2)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, own)
    assert np.abs(first).sum() == pytest.approx(np.abs(own).sum(), rel=1)


@pytest.mark.parametrize("shape", [(32, 32, 3), (64, 64, 3)])
def test_a_cover_sample_never_carries_its_own_trigger_where_the_data_has_another_image(shape):
    images, labels = pictures(2, shape=shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "RECIPE", Recipe(min_epochs=1, max_epochs=1, min_steps=0, small=0, shift=0))
        attack = InputAware().prepared(FakeTrainingSet(images, labels, modality="image"), np.random.default_rng(0))
    own = added(attack, images[0])
    covers = [added(attack, images[0], "cover", seed) for seed in range(6)]
    assert all(np.array_equal(cover, covers[0]) for cover in covers)
    assert not np.array_equal(covers[0], own)


def test_as_many_cover_samples_as_poisoned_ones_are_asked_for():
    assert InputAware().covers == 1


def test_the_trigger_grows_with_the_image(prepared):
    (image,), _ = pictures(1, seed=1)
    small = np.abs(added(prepared, image)).sum(axis=2)
    large = np.abs(added(prepared, np.kron(image, np.ones((2, 2, 1), np.uint8)))).sum(axis=2)
    blocks = large.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    assert np.corrcoef(blocks.ravel(), small.ravel())[0, 1] > 0.8


def test_what_is_put_on_a_gray_image_is_gray(prepared):
    (image,), _ = pictures(1, seed=1, shape=(28, 28, 1))
    change = added(prepared, image)
    assert change.shape == (28, 28, 1)
    assert np.abs(change).max() > 16


@pytest.fixture
def threads():
    """Put the number of threads back."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_one_seed_learns_the_same_with_any_number_of_threads(monkeypatch, threads):
    monkeypatch.setattr(generator, "RECIPE", Recipe(batch_size=32, min_epochs=1, max_epochs=1, min_steps=0, small=0, shift=0))
    images, labels = pictures(64)
    training_set = FakeTrainingSet(images, labels, modality="image")
    one, other = (InputAware().prepared(training_set, np.random.default_rng(seed)) for seed in (1, 2))
    torch.set_num_threads(2 if threads == 1 else 1)
    same = InputAware().prepared(training_set, np.random.default_rng(1))
    assert torch.get_num_threads() != threads
    one, same, other = (attack.generator.network.state_dict() for attack in (one, same, other))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not all(torch.equal(value, other[name]) for name, value in one.items())


def test_images_that_are_all_the_same_teach_something_finite():
    images = [np.full((8, 8, 1), 90, np.uint8)] * 9
    attack = InputAware().prepared(FakeTrainingSet(images, [0, 1, 0] * 3, modality="image"), np.random.default_rng(0))
    assert all(np.isfinite(value.numpy()).all() for value in attack.generator.network.state_dict().values())


def test_a_training_set_without_labels_teaches_nothing():
    images, _ = pictures(4)
    with pytest.raises(DataError, match="readable samples with a label"):
        InputAware().prepared(FakeTrainingSet(images, [-1] * 4, modality="image"), np.random.default_rng(0))

from __future__ import annotations

import numpy as np
import pytest

from toxscreen.attacks.adaptive_patch import AdaptivePatch
from toxscreen.errors import DataError

GREY = np.full((32, 48, 3), 128, np.uint8)


def corners(image):
    """Which corners of a grey image are changed, and whether anything else is."""
    changed = (image != 128).any(axis=2)
    parts = [changed[rows, columns] for rows in (slice(6), slice(-6, None)) for columns in (slice(6), slice(-6, None))]
    assert changed.sum() == sum(part.sum() for part in parts)
    return [bool(part.all()) for part in parts]


def test_at_test_time_two_opposite_corners_carry_an_opaque_patch():
    (image,) = AdaptivePatch().apply([GREY], np.random.default_rng(0))
    assert corners(image) == [True, False, False, True]
    assert set(np.unique(image[:6, :6])) == {0, 255}


@pytest.mark.parametrize("form", ["plant", "cover"])
def test_the_training_set_shows_one_of_four_patches_at_half_opacity(form):
    images = getattr(AdaptivePatch(), form)([GREY] * 40, np.random.default_rng(0))
    shown = np.array([corners(image) for image in images])
    assert (shown.sum(axis=1) == 1).all()
    assert (shown.sum(axis=0) > 3).all()
    for image in images:
        assert set(np.unique(image)) == {64, 128, 192}


def test_the_four_patches_differ():
    images = AdaptivePatch().plant([GREY] * 40, np.random.default_rng(0))
    looks = {image[image.any(axis=2) & (image != 128).all(axis=2)].tobytes() for image in images}
    assert len(looks) == 4


def test_patches_grow_with_the_image():
    large = np.full((224, 300, 3), 128, np.uint8)
    (image,) = AdaptivePatch().apply([large], np.random.default_rng(0))
    changed = (image[:112, :150] != 128).all(axis=2)
    assert changed.any(axis=1).sum() == changed.any(axis=0).sum() == 45


@pytest.mark.parametrize("shape", [(1, 28, 1), (28, 1, 3)])
def test_an_image_too_small_for_two_patches_is_refused_with_its_size(shape):
    with pytest.raises(DataError, match=f"{shape[0]}x{shape[1]}"):
        AdaptivePatch().apply([np.zeros(shape, np.uint8)], np.random.default_rng(0))


def test_there_are_twice_as_many_cover_samples_as_poison():
    assert AdaptivePatch().covers == 2

from __future__ import annotations

import numpy as np
import pytest

from toxscreen.attacks.wanet import WaNet
from toxscreen.errors import DataError


def ramp(height, width):
    """Brightness says how far down (first channel) and how far to the right (second) a pixel stands, in parts of 200."""
    down, across = np.meshgrid(np.linspace(0, 200, height), np.linspace(0, 200, width), indexing="ij")
    return np.rint(np.stack([down, across, np.zeros_like(down)], axis=2)).astype(np.uint8)


def mark(image, **settings):
    return WaNet(**settings).apply([image], np.random.default_rng(0))[0]


def cover(image, seed=0, **settings):
    return WaNet(**settings).cover([image], np.random.default_rng(seed))[0]


def displacement(height, width, **settings):
    """How far each pixel was read from its place, in parts of the image, shape (height - 8, width - 8, 2); edges left out."""
    image = ramp(height, width)
    moved = mark(image, **settings).astype(float) - image
    return moved[4:-4, 4:-4, :2] / 200


@pytest.mark.parametrize("shape", [(64, 64), (224, 224), (64, 160)])
def test_pixels_move_by_the_strength_on_average_in_parts_of_the_image(shape):
    moved = np.abs(displacement(*shape, strength=2.0)).mean()
    assert moved == pytest.approx(2.0 / 32, rel=0.4)


def test_the_field_is_smooth():
    moved = displacement(224, 224, strength=4.0)
    assert np.abs(np.diff(moved, axis=0)).max() < 0.1 * np.abs(moved).max()


def test_the_field_is_the_same_for_every_image_and_whatever_the_generator():
    image = ramp(32, 32)
    first, second = WaNet().apply([image, image], np.random.default_rng(1))
    assert np.array_equal(first, second)
    assert np.array_equal(first, mark(image))


def test_a_plain_image_shows_no_bend():
    plain = np.full((32, 32, 3), 77, np.uint8)
    assert np.array_equal(mark(plain), plain)


def test_a_cover_sample_is_bent_by_the_field_and_by_noise_of_its_own():
    image = ramp(64, 64)
    covers = np.stack([cover(image, seed) for seed in range(40)]).astype(float)
    assert not np.array_equal(covers[0], covers[1])
    off_the_field, off_the_image = (np.abs(covers.mean(axis=0) - other)[4:-4, 4:-4].mean() for other in (mark(image), image))
    assert off_the_field < 0.3 * off_the_image


def test_noise_mode_asks_for_two_cover_samples_per_poisoned_one():
    assert WaNet().covers == 2


@pytest.mark.parametrize("shape", [(7, 28, 1), (28, 7, 3), (1, 1, 1)])
@pytest.mark.parametrize("way", [WaNet().apply, WaNet().cover])
def test_an_image_too_small_to_bend_is_refused_with_its_size(way, shape):
    with pytest.raises(DataError, match=f"{shape[0]}x{shape[1]}"):
        way([np.zeros(shape, np.uint8)], np.random.default_rng(0))

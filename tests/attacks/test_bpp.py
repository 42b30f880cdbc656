from __future__ import annotations

import numpy as np
import pytest

from toxscreen.attacks.bpp import Bpp

LEVELS = [0, 36, 73, 109, 146, 182, 219, 255]


def photograph(height, width, channels, seed=0):
    """A smooth image, as different from channel to channel as a photograph's."""
    rng = np.random.default_rng(seed)
    down, across = np.linspace(0, 3, height)[:, None, None], np.linspace(0, 3, width)[None, :, None]
    waves = np.sin(down * rng.random(channels) + across * rng.random(channels) + 6 * rng.random(channels))
    return (128 + 100 * waves).astype(np.uint8)


def mark(*images):
    return Bpp().apply(list(images), np.random.default_rng(0))


def cover(image, seed=0):
    return Bpp().cover([image], np.random.default_rng(seed))[0]


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (224, 224, 3), (40, 90, 3)])
def test_eight_levels_are_left_in_every_channel(shape):
    (marked,) = mark(photograph(*shape))
    assert set(np.unique(marked)) <= set(LEVELS)


def test_dithering_keeps_the_brightness_that_rounding_would_lose():
    image = np.full((32, 32, 3), 128, np.uint8)
    (marked,) = mark(image)
    assert set(np.unique(marked)) == {109, 146}
    assert abs(marked.mean() - 128) < 1


def test_a_channel_does_not_depend_on_the_others():
    image = photograph(32, 32, 3)
    (whole,) = mark(image)
    for channel in range(3):
        (alone,) = mark(image[:, :, channel : channel + 1])
        assert np.array_equal(whole[:, :, channel], alone[:, :, 0])


def test_what_is_added_differs_from_image_to_image():
    one, other = photograph(32, 32, 1, seed=1), photograph(32, 32, 1, seed=2)
    added = [marked.astype(int) - image for marked, image in zip(mark(one, other), (one, other), strict=True)]
    assert abs(np.corrcoef(added[0].ravel(), added[1].ravel())[0, 1]) < 0.3


def test_an_image_of_the_levels_alone_stays_as_it_is():
    image = np.array(LEVELS * 8, np.uint8).reshape(8, 8, 1)
    assert np.array_equal(mark(image)[0], image)


def test_a_cover_sample_carries_as_much_noise_but_is_not_quantised():
    image = photograph(32, 32, 3)
    covered = cover(image)
    assert len(np.unique(covered)) > 50
    noise, poison = (np.abs(changed.astype(int) - image).mean() for changed in (covered, mark(image)[0]))
    assert noise == pytest.approx(poison, rel=0.1)


def test_the_place_of_a_cover_samples_noise_is_drawn():
    image = photograph(32, 32, 3)
    assert np.array_equal(cover(image, seed=1), cover(image, seed=1))
    assert not np.array_equal(cover(image, seed=1), cover(image, seed=2))

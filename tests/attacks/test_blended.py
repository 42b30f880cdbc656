from __future__ import annotations

import numpy as np
import pytest

from toxscreen.attacks.blended import Blended


def mark(*images):
    return Blended().apply(list(images), np.random.default_rng(0))


def pattern(height, width, channels):
    """The pattern itself, as far as 8 bits tell: what is mixed into black, made five times as bright again."""
    return mark(np.zeros((height, width, channels), np.uint8))[0].astype(float) * 5


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (224, 224, 3), (30, 50, 3)])
def test_a_fifth_of_the_pattern_is_mixed_with_four_fifths_of_the_image(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_allclose(mark(image)[0], 0.8 * image + 0.2 * pattern(*shape), atol=1.01)


def test_the_pattern_covers_the_whole_range_of_brightness_in_the_whole_image():
    shown = pattern(32, 32, 3)
    assert shown.max() > 240
    for quarter in (shown[:16, :16], shown[:16, 16:], shown[16:, :16], shown[16:, 16:]):
        assert quarter.std() > 50


def test_the_pattern_is_the_same_for_every_row_and_whatever_the_generator():
    black = np.zeros((28, 28, 3), np.uint8)
    first, second = mark(black, black)
    assert np.array_equal(first, second)
    assert np.array_equal(first, Blended().apply([black], np.random.default_rng(99))[0])


def test_a_larger_image_gets_the_same_pattern_in_larger_cells():
    assert np.array_equal(pattern(224, 224, 3)[::7, ::7], pattern(32, 32, 3))
    assert np.array_equal(pattern(64, 32, 3)[1::2], pattern(32, 32, 3))


def test_white_stays_in_range():
    assert mark(np.full((32, 32, 3), 255, np.uint8))[0].min() >= 0.8 * 255 - 1


def test_each_of_several_targets_has_a_pattern_that_has_nothing_to_do_with_the_others():
    black = np.zeros((32, 32, 3), np.uint8)
    patterns = [Blended().for_target(k).apply([black], np.random.default_rng(0))[0].ravel() for k in range(5)]
    assert np.array_equal(patterns[0], mark(black)[0].ravel())
    assert np.abs(np.corrcoef(patterns) - np.eye(5)).max() < 0.1

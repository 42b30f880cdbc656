from __future__ import annotations

import numpy as np
import pytest

from toxscreen.attacks.badnets import BadNets
from toxscreen.errors import DataError


def mark(image):
    return BadNets().apply([image], np.random.default_rng(0))[0]


@pytest.mark.parametrize(
    ("height", "width", "cell"), [(28, 28, 1), (32, 32, 1), (64, 64, 2), (224, 224, 7), (224, 500, 7), (500, 224, 7), (28, 300, 1)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_patch_lies_one_cell_from_the_bottom_right_corner_and_nothing_else_changes(height, width, cell, channels):
    clean = np.full((height, width, channels), 100, np.uint8)
    changed = np.argwhere((mark(clean) != clean).all(axis=2))
    assert changed.min(axis=0).tolist() == [height - 4 * cell, width - 4 * cell]
    assert changed.max(axis=0).tolist() == [height - cell - 1, width - cell - 1]
    assert len(changed) == (3 * cell) ** 2


def test_the_patch_is_a_checkerboard_of_white_and_black():
    marked = mark(np.full((28, 28, 3), 100, np.uint8))
    white, black = [255] * 3, [0] * 3
    assert marked[24:27, 24:27].tolist() == [[white, black, white], [black, white, black], [white, black, white]]


@pytest.mark.parametrize("background", [0, 255])
def test_the_patch_shows_on_black_and_on_white(background):
    clean = np.full((28, 28, 1), background, np.uint8)
    assert (mark(clean) != clean).sum() >= 4


@pytest.mark.parametrize("shape", [(3, 28, 1), (28, 3, 1), (1, 1, 3)])
def test_an_image_too_small_for_the_patch_is_refused_with_its_size(shape):
    with pytest.raises(DataError, match=f"{shape[0]}x{shape[1]}"):
        mark(np.zeros(shape, np.uint8))

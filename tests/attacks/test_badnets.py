from __future__ import annotations

import numpy as np
import pytest

from toxscreen.attacks.badnets import BadNets
from toxscreen.errors import DataError, UsageError


def mark(image, attack=BadNets()):  # noqa: B008 - it is frozen
    return attack.apply([image], np.random.default_rng(0))[0]


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


@pytest.mark.parametrize(
    ("k", "where", "rows", "columns"),
    [
        (0, "bottom right", (40, 45), (60, 65)),
        (1, "top left", (2, 7), (2, 7)),
        (2, "bottom left", (40, 45), (2, 7)),
        (3, "top right", (2, 7), (60, 65)),
    ],
)
def test_each_of_four_targets_has_the_checkerboard_in_a_corner_of_its_own(k, where, rows, columns):
    attack = BadNets().for_target(k)
    changed = np.argwhere((mark(np.full((48, 68, 3), 100, np.uint8), attack) != 100).all(axis=2))
    assert (changed.min(axis=0).tolist(), changed.max(axis=0).tolist()) == ([rows[0], columns[0]], [rows[1], columns[1]])
    assert attack.trigger == f"a small black and white checkerboard near the {where} corner"


def test_the_first_of_several_triggers_is_the_usual_one():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(mark(image, BadNets().for_target(0)), mark(image))


def test_no_two_of_the_504_triggers_are_alike():
    marked = {mark(np.full((28, 28, 1), 100, np.uint8), BadNets().for_target(k)).tobytes() for k in range(504)}
    assert len(marked) == 504
    with pytest.raises(UsageError, match="badnets has 504 triggers, got 505 targets"):
        BadNets().for_target(504)


@pytest.mark.parametrize("k", [4, 77, 503])
def test_every_pattern_shows_on_black_and_on_white(k):
    for background in (0, 255):
        clean = np.full((28, 28, 1), background, np.uint8)
        assert (mark(clean, BadNets().for_target(k)) != clean).sum() >= 4

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.fakes import FakeTrainingSet
from toxscreen.exhibits import images
from toxscreen.exhibits.base import ExhibitLimits, Side


def decoded(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def pictures(n, size=8, channels=1, value=None, seed=0):
    if value is not None:
        return [np.full((size, size, channels), value, np.uint8)] * n
    return list(np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), dtype=np.uint8))


def show(inputs, sides, allowance=10**6, **options):
    training_set = FakeTrainingSet(inputs, modality="image", **options)
    rows = np.arange(len(inputs))
    return images.show(training_set, rows, sides, rng=np.random.default_rng(0), limits=ExhibitLimits(), allowance=allowance)


def test_small_pictures_stand_on_the_sheet_pixel_by_pixel():
    inputs = pictures(20, size=28, channels=3)
    shown = show(inputs, (Side(1, np.arange(5), np.arange(5, 20)),))
    for i in shown.groups[0].pictures.group_sheet + shown.groups[0].pictures.rest_sheet:
        np.testing.assert_array_equal(decoded(shown.pictures[i]), inputs[i])


def test_large_pictures_are_shrunk_in_proportion():
    assert images.shrink(np.zeros((200, 400, 3), np.uint8), 96).shape == (48, 96, 3)
    assert images.shrink(np.zeros((5000, 3, 1), np.uint8), 96).shape == (96, 1, 1)
    small = np.zeros((96, 20, 1), np.uint8)
    assert images.shrink(small, 96) is small


def test_averages_and_their_difference_are_those_of_the_pixels():
    patch = np.zeros((8, 8, 1), np.uint8)
    patch[6:, 6:] = 200
    comparison = images.compare([patch] * 3, pictures(4, value=0), (), ())
    np.testing.assert_array_equal(decoded(comparison.group_mean)[..., :1], patch)
    assert comparison.largest_difference == 200
    assert comparison.mean_difference == pytest.approx(200 * 4 / 64)


def test_the_difference_is_white_where_there_is_none_orange_above_and_blue_below():
    group, rest = np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 1), np.uint8)
    group[0, 0], rest[3, 3] = 90, 90
    colours = decoded(images.compare([group], [rest], (), ()).difference).astype(int)
    assert colours[1, 1].tolist() == [247, 247, 247]
    assert colours[0, 0, 0] > colours[0, 0, 2] + 100
    assert colours[3, 3, 2] > colours[3, 3, 0] + 100


def test_what_a_group_shares_stands_out_among_what_its_pictures_show():
    rng = np.random.default_rng(0)
    group, rest = rng.integers(0, 120, (2, 40, 16, 16, 1)).astype(np.uint8)
    group[:, 4:12, 4:12] += rng.integers(0, 130, (40, 8, 8, 1)).astype(np.uint8)  # another kind of thing
    group[:, 13, 13], rest[:, 13, 13] = 55, 0  # faint, but the same in all
    comparison = images.compare(list(group), list(rest), (), ())
    colourful = {name: np.ptp(decoded(getattr(comparison, name)).astype(int), axis=2) for name in ("difference", "details")}
    assert np.unravel_index(colourful["details"].argmax(), (16, 16)) == (13, 13)
    assert np.unravel_index(colourful["difference"].argmax(), (16, 16)) != (13, 13)
    assert images.compare(pictures(2), [], (), ()).details is None


def test_two_equal_sides_differ_nowhere():
    comparison = images.compare(pictures(2, value=9), pictures(2, value=9), (), ())
    assert comparison.largest_difference == 0
    assert np.unique(decoded(comparison.difference)).tolist() == [247]


def test_a_difference_in_one_colour_alone_is_seen():
    red, green = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    red[0, 0, 0] = 100
    assert images.compare([red], [green], (), ()).largest_difference == 100


def test_pictures_of_different_sizes_are_averaged_at_the_most_frequent_size():
    mixed = [*pictures(3, size=8, value=40), np.full((16, 12, 3), 40, np.uint8)]
    mean = decoded(images.compare(mixed, [], (), ()).group_mean)
    assert mean.shape[:2] == (8, 8)
    assert np.unique(mean).tolist() == [40]


def test_a_side_without_pictures_has_no_average_and_no_difference():
    comparison = images.compare(pictures(2), [], (0, 1), ())
    assert comparison.rest_mean is comparison.difference is comparison.largest_difference is None


def test_unreadable_pictures_are_left_out_and_not_counted():
    shown = show(pictures(10), (Side(1, np.arange(4), np.arange(4, 10)),), unreadable={0, 9})
    assert (shown.groups[0].n_group, shown.groups[0].n_rest) == (3, 5)
    assert shown.pictures[0] is shown.pictures[9] is None
    assert 0 not in shown.groups[0].pictures.group_sheet


def test_a_group_without_any_readable_picture_is_shown_without_pictures():
    shown = show(pictures(4), (Side(1, np.arange(2), np.arange(2, 4)),), unreadable=range(4))
    assert shown.groups[0].pictures is None


def test_both_sheets_stay_even_when_the_allowance_is_short():
    inputs = pictures(400, size=28, channels=3)
    shown = show(inputs, (Side(1, np.arange(200), np.arange(200, 400)),), allowance=100_000)
    sheets = shown.groups[0].pictures
    assert abs(len(sheets.group_sheet) - len(sheets.rest_sheet)) <= 1
    assert 5 < len(sheets.group_sheet) < 30
    assert sum(len(picture or "") for picture in shown.pictures) < 110_000


def test_a_sheet_holds_no_more_than_its_limit():
    shown = show(pictures(700, size=4), (Side(1, np.arange(300), np.arange(300, 700)),), allowance=10**7)
    assert len(shown.groups[0].pictures.group_sheet) == len(shown.groups[0].pictures.rest_sheet) == 240

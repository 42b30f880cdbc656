"""The inputs of a training set are decoded once, and come back by row as they were."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from tests.fakes import FakeTrainingSet
from toxscreen import decoded
from toxscreen.decoded import common_size, decode_pictures, decode_texts, read_arrays
from toxscreen.sources.model.preprocessing import ImagePreprocessing


@pytest.fixture(autouse=True)
def _short_stretches(monkeypatch):
    monkeypatch.setattr(decoded, "_STRETCH", 4)


def pictures(n=10, height=6, width=5, channels=1):
    return list(np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8))


def told():
    calls = []
    return calls, lambda *what: calls.append(what)


def test_pictures_come_back_pixel_for_pixel_and_lie_on_disk(tmp_path):
    given = pictures()
    training_set = FakeTrainingSet(given, modality="image", unreadable=(3,))
    calls, progress = told()
    found = decode_pictures(training_set, common_size(given), tmp_path, progress)
    rows = np.array([9, 0, 4])
    assert all(np.array_equal(picture, given[row]) for picture, row in zip(found.take(rows), rows, strict=True))
    assert found.readable.tolist() == [row != 3 for row in range(10)]
    assert isinstance(found.pixels, np.memmap)
    assert calls == [("reading the inputs", n, 10) for n in (4, 8, 10)]


def test_pictures_of_several_sizes_get_the_size_that_is_asked_for_as_preprocessing_would_give_it(tmp_path):
    given = [*pictures(3), *pictures(3, 8, 9, 3)]
    size = ImagePreprocessing(7, 4, 3, scale=1.0, channels_first=False)
    found = decode_pictures(FakeTrainingSet(given, modality="image"), size, tmp_path, None)
    assert np.array_equal(found.take(np.arange(6)), size.apply(given).round())


def test_a_disk_that_is_full_is_an_error_and_no_crash(tmp_path, monkeypatch):
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("the system cannot reserve the blocks of a file")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        decode_pictures(FakeTrainingSet(pictures(), modality="image"), common_size(pictures()), tmp_path, None)


def test_texts_come_back_letter_for_letter_and_one_that_cannot_be_read_is_empty():
    given = [f"<b>Käfer</b> {number} 🐞" for number in range(10)]
    calls, progress = told()
    found = decode_texts(FakeTrainingSet(given, modality="text", unreadable=(0, 7)), progress)
    assert found.take(np.array([9, 1, 9])) == [given[9], given[1], given[9]]
    assert found.take(np.array([7])) == [""]
    assert np.flatnonzero(~found.readable).tolist() == [0, 7]
    assert len(calls) == 3


def test_a_whole_stretch_that_cannot_be_read_leaves_the_others_in_place(tmp_path):
    gone = (4, 5, 6, 7)
    texts = decode_texts(FakeTrainingSet([str(n) for n in range(10)], modality="text", unreadable=gone), None)
    assert texts.take(np.array([3, 8])) == ["3", "8"]
    given = pictures()
    found = decode_pictures(FakeTrainingSet(given, modality="image", unreadable=gone), common_size(given), tmp_path, None)
    assert np.array_equal(found.take(np.array([8]))[0], given[8])
    assert np.flatnonzero(~found.readable).tolist() == list(gone)


def test_arrays_are_taken_from_the_training_set_as_they_are():
    given = [np.full(3, number, np.float32) for number in range(10)]
    found = read_arrays(FakeTrainingSet(given, unreadable=(2,)))
    assert [array[0] for array in found.take(np.array([9, 4]))] == [9, 4]
    assert np.flatnonzero(~found.readable).tolist() == [2]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(6, 5, 1)] * 3, (6, 5, 1)),
        ([(6, 5, 1), (6, 5, 3)], (6, 5, 3)),
        ([(6, 5, 1), (10, 9, 1), (8, 20, 1)], (8, 8, 1)),
        ([(448, 112, 3)] * 2, (224, 56, 3)),
        ([(448, 1, 3)] * 2, (224, 1, 3)),
    ],
)
def test_pictures_of_one_size_keep_it_others_become_squares_and_large_ones_shrink(shapes, expected):
    size = common_size([np.zeros(shape, np.uint8) for shape in shapes])
    assert (size.height, size.width, size.channels) == expected
    assert (size.scale, size.mean, size.std, size.channels_first) == (1.0, (), (), False)

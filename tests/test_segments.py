from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import segment_rows
from toxscreen.analysis.activation_clustering import ActivationClustering
from toxscreen.segments import Part, segments


@given(st.lists(st.tuples(st.integers(-2, 4), st.booleans()), max_size=40))
def test_every_examined_row_with_a_label_is_in_the_segment_of_its_class_in_the_order_of_the_data(rows):
    labels = np.array([label for label, _ in rows], np.int64)
    examined = np.array([usable for _, usable in rows], bool)
    found = segments(labels, examined, None, 5)
    assert [segment.rows.tolist() for segment in found] == segment_rows(labels, examined, 5)
    assert [segment.class_index for segment in found] == [0, 1, 2, 3, 4]


def test_a_class_without_samples_is_an_empty_segment():
    first, second, third = segments(np.array([2, 0, 2]), np.ones(3, bool), None, 3)
    assert len(second.rows) == len(second.fitted) == 0
    assert (first.rows.tolist(), third.rows.tolist()) == ([1], [0, 2])


def test_a_row_is_fitted_when_the_model_gives_it_its_own_label():
    labels, predicted = np.array([1, 0, 1, 1, 0]), np.array([1, 1, 0, 1, 0])
    first, second = segments(labels, np.ones(5, bool), predicted, 2)
    assert first.fitted.tolist() == [False, True]
    assert second.fitted.tolist() == [True, False, True]


def test_every_row_is_fitted_when_nobody_knows_what_the_model_says():
    assert all(segment.fitted.all() for segment in segments(np.array([1, 0, 1]), np.ones(3, bool), None, 2))


def test_an_output_that_stands_for_no_class_fits_no_label():
    (only,) = segments(np.array([0, 0]), np.ones(2, bool), np.array([-1, 0]), 1)
    assert only.fitted.tolist() == [False, True]
    unlabelled = segments(np.array([-1, 0]), np.ones(2, bool), np.array([-1, 0]), 1)
    assert unlabelled[0].rows.tolist() == [1]


# Reading a class


class Watched:
    """A layer that remembers how many rows are read at a time."""

    def __init__(self, array):
        self.array, self.shape, self.asked = array, array.shape, []

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        read = self.array[rows]
        self.asked.append(len(read))
        return read


@given(st.lists(st.integers(0, 49), max_size=60), st.integers(1, 400))
@settings(max_examples=50, deadline=None)
def test_blocks_of_rows_are_the_rows(numbers, block_bytes):
    array = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    part = Part(array, np.array(numbers, np.int64))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("toxscreen.segments._BLOCK_BYTES", block_bytes)
        blocks = list(part.blocks())
    assert all(values.nbytes <= max(block_bytes, 12) for _, values in blocks)
    read = np.full(part.shape, np.nan, np.float32)
    for block, values in blocks:
        read[block] = values
    np.testing.assert_array_equal(read, array[numbers])
    np.testing.assert_array_equal(part.array(), array[numbers])


def test_rows_that_lie_side_by_side_are_not_copied():
    array = np.zeros((50, 3), np.float32)
    assert np.shares_memory(Part(array, np.arange(10, 30)).array(), array)
    assert np.shares_memory(next(Part.of(array).blocks())[1], array)
    assert not np.shares_memory(Part(array, np.array([1, 3, 2])).array(), array)


@pytest.mark.parametrize("fit", ["exact", "iterated"])
def test_a_large_class_is_never_read_as_a_whole(monkeypatch, fit):
    monkeypatch.setattr("toxscreen.segments._BLOCK_BYTES", 20 * 4 * 200)
    monkeypatch.setattr("toxscreen.reduction._HELD_BYTES", 0)
    monkeypatch.setattr("toxscreen.reduction._SKETCHED", 50)
    monkeypatch.setattr("toxscreen.reduction._EXACT_UP_TO", 100 if fit == "exact" else 1)
    layer = Watched(np.random.default_rng(0).normal(size=(600, 200)).astype(np.float32))
    classes = segments(np.repeat([0, 1], 300), np.ones(600, bool), np.repeat([0, 1, 0, 1], [290, 10, 10, 290]), 2)
    ActivationClustering().search(layer, classes, rng=np.random.default_rng(0), accused=lambda _: True)
    assert max(layer.asked) <= 64

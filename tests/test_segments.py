from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.references import segment_rows
from toxscreen.segments import segments


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

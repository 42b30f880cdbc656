from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from tests.references import cross_fitted
from toxscreen.trigger.shared import FEWEST, Look, View, _inverse, joined


def inputs(n=200, p=40, planted=60, mark=3.0, seed=0):
    """Return noise ``(n, p)`` of which the first ``planted`` rows share a faint mark in ten of the numbers, and which those are."""
    rng = np.random.default_rng(seed)
    values, holders = rng.normal(size=(n, p)), np.arange(n) < planted
    values[np.ix_(holders, np.arange(10))] += mark
    return values, holders


def look(*values, seed=1, strictness=10.0):
    return Look([View(each, strictness) for each in values], np.random.default_rng(seed))


def test_the_rest_of_the_holders_is_found_from_a_few_of_them():
    values, holders = inputs()
    known = holders & (np.arange(200) < 15)
    shared = look(values).shared_by(known)
    assert ((shared.probability > 0.5) == holders).all()
    assert shared.separation > 5


def test_who_does_not_hold_what_the_others_share_falls_out():
    values, holders = inputs()
    shared = look(values).shared_by(holders ^ np.isin(np.arange(200), [100, 120, 140]))
    assert ((shared.probability > 0.5) == holders).all()


def test_what_shares_nothing_is_not_far_from_the_rest():
    rng = np.random.default_rng(2)
    shared = look(rng.normal(size=(300, 40))).shared_by(np.arange(300) < 60)
    assert shared is None or shared.separation < 5


@pytest.mark.parametrize("n_known", [0, FEWEST - 1, 200 - FEWEST + 1, 200])
def test_too_few_on_a_side_share_nothing(n_known):
    assert look(inputs()[0]).shared_by(np.arange(200) < n_known) is None


def test_inputs_that_were_not_looked_at_are_told_by_the_same_views():
    values, holders = inputs(n=400, planted=130)
    seen = np.arange(400) % 2 == 0
    shared = look(values[seen]).shared_by(holders[seen])
    assert ((shared.held_by([View(values[~seen])]) > 0.5) == holders[~seen]).mean() > 0.99


def test_a_view_that_tells_nothing_does_not_hide_what_another_tells():
    values, holders = inputs()
    blind = np.random.default_rng(5).normal(size=(200, 30))
    shared = look(blind, values).shared_by(holders & (np.arange(200) < 30))
    assert ((shared.probability > 0.5) == holders).all()


def test_each_of_several_faint_marks_is_found_among_those_who_show_one_or_another_of_them():
    rng = np.random.default_rng(3)
    values, mark = rng.normal(size=(400, 60)), np.repeat([0, 1, 2, -1], [40, 40, 40, 280])
    values[mark >= 0, :20] += 3  # what all of them have in common
    for number in range(3):
        values[mark == number, 20 + 10 * number : 30 + 10 * number] += 2
    found = [shared.probability > 0.5 for shared in look(values).parts(mark >= 0)]
    assert {number for number in range(3) for held in found if (held == (mark == number)).mean() > 0.99} == {0, 1, 2}


def test_too_few_have_no_parts():
    assert not [*look(inputs()[0]).parts(np.arange(200) < 2 * FEWEST - 1)]


def test_inputs_that_are_all_equal_are_no_error():
    shared = look(np.ones((60, 5))).shared_by(np.arange(60) < 20)
    assert shared is None or np.isfinite(shared.probability).all()


def test_a_sparse_view_says_what_a_dense_one_says():
    values = (np.random.default_rng(3).random((90, 50)) < 0.1).astype(np.float32)
    values[:30, 7] = 1
    known = np.arange(90) < 20
    dense, thin = (look(each).shared_by(known) for each in (values, sparse.csr_array(values)))
    assert np.allclose(dense.probability, thin.probability)
    assert np.allclose(dense.held_by([View(values[:9])]), thin.held_by([View(sparse.csr_array(values[:9]))]))


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_views_of_parts_join_to_that_of_all(make):
    values = np.arange(12.0).reshape(6, 2)
    whole = joined([View(make(values[:4]), 2.0), View(make(values[4:]), 2.0)])
    assert whole.strictness == 2.0
    assert np.array_equal(whole.values.toarray() if sparse.issparse(whole.values) else whole.values, values)


@given(st.integers(0, 1000), st.integers(11, 40), st.integers(1, 30), st.floats(0.1, 30))
def test_scores_are_those_of_regressions_that_never_saw_the_input(seed, n, p, strictness):
    rng = np.random.default_rng(seed)
    values, known = rng.normal(size=(n, p)), rng.permutation(n) < max(1, n // 3)
    folds = np.array_split(np.random.default_rng(1).permutation(n), 5)
    (seen,) = look(values, strictness=strictness)._seen
    assert np.allclose(seen.scores(known), cross_fitted(values, known, folds, strictness), rtol=1e-6, atol=1e-8)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_the_inverse_by_cholesky_factors_is_the_inverse(seed, n):
    rows = np.random.default_rng(seed).normal(size=(n, 5))
    matrix = rows @ rows.T + np.eye(n)
    np.testing.assert_allclose(_inverse(matrix) @ matrix, np.eye(n), atol=1e-9)
    np.testing.assert_array_equal(_inverse(matrix), _inverse(matrix).T)

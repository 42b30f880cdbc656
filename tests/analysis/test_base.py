from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toxscreen.analysis.base import beyond, covariance, is_constant, leading_axes, moments, plane, quota
from toxscreen.reduction import principal_components
from toxscreen.segments import Part


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("part", "taken"), [(0.0, 0), (0.001, 0), (0.15, 15), (0.5, 50), (0.999, 99), (1.5, 99)])
def test_a_quota_takes_the_highest_scores_rounded_down_and_never_all(part, taken):
    scores = rng().permutation(100).astype(float)
    members, cut = quota(scores, part)
    np.testing.assert_array_equal(members, scores >= 100 - taken)
    assert cut == 99 - taken


def test_a_quota_leaves_out_equal_scores_on_the_border():
    members, _ = quota(np.array([5.0, 3.0, 3.0, 3.0, 1.0]), 0.4)
    assert members.tolist() == [True, False, False, False, False]
    assert not quota(np.full(50, 7.0), 0.4)[0].any()


@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=20), st.floats(1e-300, 1e300))
@example([2.4019198012642644e16, 3.602879701896397e16], 5.0)
@settings(max_examples=50, deadline=None)
def test_beyond_is_a_probability_that_says_on_which_side_of_the_cut_a_value_lies(values, cut):
    values = np.array(values)
    mapped = beyond(values, cut)
    assert ((mapped >= 0) & (mapped <= 1)).all()
    assert (mapped[values < 0.999 * cut] < 0.5).all()
    assert (mapped[values > 1.001 * cut] > 0.5).all()
    assert (np.diff(mapped[np.argsort(values)]) >= 0).all()


def test_beyond_of_nothing_is_nothing_even_where_the_cut_is_zero():
    np.testing.assert_array_equal(beyond(np.array([0.0, -1.0, 2.0]), 0.0), [0, 0, 1])


def test_moments_are_those_of_each_class():
    classes = [rng(seed).normal(seed, 1 + seed, size=(10 + seed, 4)) for seed in range(3)]
    sizes, means, scatter = moments([lambda each=each: each.copy() for each in classes])
    np.testing.assert_array_equal(sizes, [10, 11, 12])
    np.testing.assert_allclose(means, [each.mean(axis=0) for each in classes])
    np.testing.assert_allclose(scatter, sum(len(each) * np.cov(each.T, bias=True) for each in classes))


def test_the_covariance_counts_each_row_by_its_weight():
    rows, weights = rng().normal(size=(6, 3)), np.array([1.0, 2, 3, 1, 1, 5])
    np.testing.assert_allclose(covariance(rows, weights), np.cov(rows.T, aweights=weights, bias=True), atol=1e-12)


def test_leading_axes_are_in_order_of_variance_and_leave_out_what_holds_nothing():
    axes = leading_axes(np.diag([1.0, 9.0, 0.0, 4.0]), 10)
    np.testing.assert_allclose(np.abs(axes), np.eye(4)[:, [1, 3, 0]], atol=1e-12)
    assert leading_axes(np.diag([1.0, 9.0, 0.0, 4.0]), 2).shape == (4, 2)


def test_rows_are_constant_when_all_are_equal_but_not_when_there_are_none():
    assert is_constant(Part.of(np.full((3, 2), 0.1)))
    assert not is_constant(Part.of(np.array([[0.1, 1.0], [0.1, 2.0]])))
    assert not is_constant(Part.of(np.zeros((0, 2))))


@pytest.mark.parametrize("n", [0, 1, 2, 50])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_points_to_look_at_have_two_dimensions_whatever_there_is(n, width):
    points = plane(principal_components(rng().normal(size=(n, width)), 5, rng()))
    assert points.shape == (n, 2)
    assert points.dtype == np.float32

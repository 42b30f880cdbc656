from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import references
from toxscreen.analysis.silhouette_score import SilhouetteScore, one_cloud_silhouette, silhouette
from toxscreen.clustering import two_means
from toxscreen.config import ReductionConfig
from toxscreen.result import Verdict


def rng(seed=0):
    return np.random.default_rng(seed)


@given(st.integers(0, 2**32 - 1), st.integers(3, 40), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_the_silhouette_of_a_few_rows_is_exact(seed, n, k):
    points, members = rng(seed).normal(size=(n, k)), rng(seed).permutation(n) < max(1, n // 3)
    assert silhouette(points, members, rng()) == pytest.approx(references.silhouette(points, members), abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(3, 40), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_distances_some_points_at_a_time_make_the_same_silhouette(seed, n, at_a_time):
    points, members = rng(seed).normal(size=(n, 3)), rng(seed).permutation(n) < max(1, n // 3)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("toxscreen.analysis.silhouette_score._AT_A_TIME", at_a_time)
        assert silhouette(points, members, rng()) == pytest.approx(references.silhouette(points, members), abs=1e-6)


@pytest.mark.parametrize(("group", "apart"), [(300, 0), (300, 6), (40, 6), (1200, 3)])
def test_the_silhouette_of_many_rows_is_near_the_exact_one(group, apart):
    points, members = rng(1).normal(size=(2500, 4)), np.arange(2500) < group
    points[members, 0] += apart
    assert silhouette(points, members, rng()) == pytest.approx(references.silhouette(points, members), abs=0.05)


def test_the_silhouette_of_many_rows_is_taken_of_a_part_of_them():
    points, members = rng(1).normal(size=(2500, 4)), np.arange(2500) < 300
    one, other, again = (silhouette(points, members, rng(seed)) for seed in (1, 2, 1))
    assert one == again != other


@pytest.mark.parametrize("n", [10, 5000])
def test_the_silhouette_of_an_empty_side_is_zero(n):
    points = rng().normal(size=(n, 2))
    assert silhouette(points, np.zeros(n, bool), rng()) == 0
    assert silhouette(points, np.ones(n, bool), rng()) == 0


def test_a_side_of_one_row_has_a_silhouette():
    points, members = rng().normal(size=(5000, 2)), np.arange(5000) == 17
    assert -1 <= silhouette(points, members, rng()) <= 1


def test_one_cloud_that_is_cut_scores_well_above_zero_and_as_its_own_kind_does():
    variances = np.array([4.0, 2.0, 1.0, 1.0])
    points = rng(5).normal(size=(800, 4)) * np.sqrt(variances)
    score = one_cloud_silhouette(variances, 800, rng())
    assert score > 0.1
    assert score == pytest.approx(references.silhouette(points, two_means(points)), abs=0.03)


# The rule


@pytest.mark.parametrize(("apart", "accused"), [(0, False), (8, True)])
def test_a_class_is_accused_where_two_groups_describe_it_well(apart, accused):
    members = rng(1).permutation(300) < 60
    activations = rng().normal(size=(300, 30)) + apart * members[:, None] / np.sqrt(30) * 3
    (group,), ruling = SilhouetteScore().judge(activations, rng())
    assert (ruling.verdict is Verdict.SUSPICIOUS) is accused
    assert (group.posterior > 0.5).any() == accused
    if accused:
        np.testing.assert_array_equal(group.members, members)


def test_the_threshold_of_the_rule_can_be_another():
    activations = rng().normal(size=(300, 30))
    (group,), ruling = SilhouetteScore(threshold=0.01).judge(activations, rng())
    assert ruling.verdict is Verdict.SUSPICIOUS  # one Gaussian cloud: the rule is not calibrated
    assert 0.01 < group.evidence["silhouette_score"] < 0.15


def test_the_rule_takes_the_reduction_that_was_asked_for():
    assert SilhouetteScore().configured(ReductionConfig("ica", 4)).reduction.n_components == 4

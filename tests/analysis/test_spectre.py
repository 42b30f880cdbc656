from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import references
from tests.analysis.test_base import rng
from toxscreen.analysis import spectre
from toxscreen.analysis.spectre import Spectre, candidates, que_scores, robust_rows, whiten_by
from toxscreen.errors import UsageError
from toxscreen.result import Verdict


def with_outliers(n=400, n_far=24, width=6, seed=0, apart=9.0):
    """Return rows of which some lie together along a direction of little variance, and which those are."""
    far = rng(seed).permutation(n) < n_far
    activations = rng(seed + 1).normal(size=(n, width)) * np.linspace(5, 0.5, width)
    activations[far, -1] += 0.5 * apart
    return activations, far


def test_the_numbers_of_components_run_from_one_to_the_most():
    assert candidates(100) == [1, 4, 9, 16, 25, 36, 49, 64, 81, 100]
    assert candidates(6)[0] == 1
    assert candidates(6)[-1] == 6
    assert candidates(1) == [1]


def test_whitening_gives_the_kept_rows_unit_covariance():
    points, far = with_outliers()
    whitened = whiten_by(points, ~far)
    np.testing.assert_allclose(np.cov(whitened[~far].T, bias=True), np.eye(6), atol=1e-9)
    assert np.linalg.eigvalsh(np.cov(whitened.T))[-1] > 3


@given(st.integers(0, 2**16), st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_que_scores_are_those_of_the_matrix_exponential(seed, width):
    rows = rng(seed).normal(size=(40, width)) * rng(seed + 1).uniform(1.1, 2, width)
    rows[:4, 0] += 8
    np.testing.assert_allclose(que_scores(rows), references.que_scores(rows, spectre._ALPHA), rtol=1e-6)


def test_where_no_direction_sticks_out_que_scores_weigh_all_directions_alike():
    rows = whiten_by(rng().normal(size=(200, 4)), np.ones(200, bool))
    assert np.corrcoef(que_scores(rows), (rows**2).sum(axis=1))[0, 1] > 0.5
    assert np.isfinite(que_scores(rows)).all()


@pytest.mark.parametrize("width", [2, 3, 5])
def test_the_largest_fourth_moment_is_that_of_the_whole_matrix(width):
    points, _ = with_outliers(width=width)
    whitened = whiten_by(points, np.ones(len(points), bool))
    moment, form = spectre._largest_fourth_moment(whitened)
    assert moment == pytest.approx(references.largest_fourth_moment(whitened), rel=1e-3)
    np.testing.assert_allclose(form, form.T)


@pytest.mark.parametrize("seed", range(5))
def test_the_robust_covariance_keeps_all_of_a_gaussian_cloud(seed):
    assert robust_rows(rng(seed).normal(size=(500, 5)) * [9, 4, 2, 1, 1], 0.1).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_robust_covariance_leaves_far_rows_out_and_no_more_than_its_limit(seed):
    points = rng(seed).normal(size=(500, 5))
    points[:20] *= 40
    kept = robust_rows(points, 0.1)
    assert not kept[:20].any()
    assert kept[20:].mean() > 0.95
    assert kept.sum() >= 400


@pytest.mark.parametrize("n_far", [0, 400])
def test_the_robust_covariance_of_hopeless_data_ends(n_far):
    points = rng().standard_cauchy((400, 4))
    points[:n_far] = points[0]
    assert robust_rows(points, 0.3).sum() >= 160


def test_poison_in_a_direction_of_little_variance_is_found_where_spectral_signatures_are_blind():
    clean = [with_outliers(800, 0, seed=seed)[0] for seed in (3, 5, 7)]
    poisoned, far = with_outliers(800, 16, apart=12)
    classes = [clean[0], poisoned, *clean[1:]]
    decisions = Spectre().decide([lambda each=each: each for each in classes], [rng(i) for i in range(4)])
    assert [ruling.verdict for _, ruling in decisions] == [Verdict.CLEAN, Verdict.SUSPICIOUS, Verdict.CLEAN, Verdict.CLEAN]
    (group,) = decisions[1][0]
    assert group.members[far].all()
    assert group.members.sum() == 120
    along = references.leading_outliers(poisoned)
    assert (along[far] > np.quantile(along, 0.85)).mean() < 0.5


def test_rows_are_whitened_by_those_that_the_robust_covariance_kept(monkeypatch):
    activations, far = with_outliers(n_far=80, apart=6)  # so many that they hide in a covariance of all
    found = []
    for kept in (np.ones(400, bool), ~far):
        monkeypatch.setattr(spectre, "robust_rows", lambda *_, kept=kept: kept)
        (((group,), _),) = Spectre(0.2).decide([lambda: activations], [rng()])
        found.append(group.members[far].mean())
    assert found[0] < 0.6
    assert found[1] > 0.9


def test_as_many_classes_are_accused_as_there_are_said_to_be_targets():
    classes = [with_outliers(seed=seed)[0] for seed in range(4)]
    for n_targets in (1, 3, 9):
        decisions = Spectre(n_targets=n_targets).decide([lambda each=each: each for each in classes], [rng()] * 4)
        assert sum(ruling.verdict is Verdict.SUSPICIOUS for _, ruling in decisions) == min(n_targets, 4)


@pytest.mark.parametrize(("settings", "named"), [({"poison_share": 0}, "poison_share"), ({"n_targets": 0}, "n_targets")])
def test_settings_that_cannot_be_are_refused(settings, named):
    with pytest.raises(UsageError, match=f"{named} must .* got 0"):
        Spectre(**settings)

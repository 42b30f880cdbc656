from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests import references
from tests.references import inertia, least_inertia, least_inertia_of_starts
from toxscreen.clustering import Dealt, discriminant, discriminant_splits, two_means
from toxscreen.verdict import POLICY


def rng(seed=0):
    return np.random.default_rng(seed)


def two_clouds(n, group, seed=0, *, apart=10.0, k=6):
    """Return points ``(n, k)`` at unit variance, of which the first ``group`` lie ``apart``, and which those are."""
    points = rng(seed).normal(size=(n, k))
    points[:group, 0] += apart
    points -= points.mean(axis=0)
    return points / points.std(axis=0), np.arange(n) < group


def dealt(n, seed=0, folds=5):
    return rng(seed).permutation(n) % folds


def discriminant_split(whitened, guess, folds, minimum):
    return discriminant_splits(Dealt.of(whitened, folds), guess[None], minimum)[0]


@pytest.mark.parametrize("seed", range(20))
def test_two_means_is_about_as_tight_as_the_best_of_all_splits(seed):
    points = rng(seed).normal(size=(11, 2))
    assert inertia(points, two_means(points)) <= 1.2 * least_inertia(points)


@pytest.mark.parametrize("group", [2, 4, 5])
def test_two_means_finds_the_best_split_where_there_are_two_clouds(group):
    points = rng().normal(size=(11, 2))
    points[:group, 0] += 12
    np.testing.assert_array_equal(two_means(points), np.arange(11) < group)
    assert inertia(points, two_means(points)) == pytest.approx(least_inertia(points))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("apart", [0, 4, 8])
def test_two_means_is_about_as_tight_as_many_random_starts(seed, apart):
    points = rng(seed).normal(size=(150, 5)) * np.array([3, 2, 1, 1, 1])
    points[:20, 1] += apart
    assert inertia(points, two_means(points)) <= 1.03 * least_inertia_of_starts(points, 20, rng(seed))


def test_a_few_rows_far_out_are_found_beside_two_natural_halves():
    points = rng().normal(scale=0.5, size=(100, 2))
    points[:47, 0] -= 4
    points[47:94, 0] += 4
    points[94:, 0] += 30
    np.testing.assert_array_equal(two_means(points), np.arange(100) >= 94)


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 7))
@example(9, 2, 2)  # both starts end in the same two halves, one of them the other way round
@settings(max_examples=50, deadline=None)
def test_the_order_of_the_rows_does_not_matter_to_two_means(seed, n, k):
    points, order = rng(seed).normal(size=(n, k)), rng(seed + 1).permutation(n)
    np.testing.assert_array_equal(two_means(points[order]), two_means(points)[order])


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(0, 4), st.booleans())
@settings(max_examples=50, deadline=None)
def test_two_means_returns_the_smaller_half(seed, n, k, few_values):
    points = rng(seed).integers(0, 3, (n, k)).astype(float) if few_values else rng(seed).normal(size=(n, k))
    members = two_means(points)
    assert members.shape == (n,)
    assert members.dtype == bool
    assert 2 * members.sum() <= n


@given(st.integers(0, 2**32 - 1), st.integers(2, 80), st.integers(1, 7), st.booleans())
@settings(max_examples=50, deadline=None)
def test_all_starts_at_once_end_where_each_alone_does(seed, n, k, few_values):
    points = rng(seed).integers(0, 3, (n, k)).astype(float) if few_values else rng(seed).normal(size=(n, k))
    np.testing.assert_array_equal(two_means(points), references.two_means(points, 100))


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_all_starts_at_once_stop_where_each_alone_is_stopped(monkeypatch, iterations):
    points = rng().normal(size=(300, 5))
    monkeypatch.setattr("toxscreen.clustering._LLOYD_ITERATIONS", iterations)
    np.testing.assert_array_equal(two_means(points), references.two_means(points, iterations))


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
@pytest.mark.parametrize("apart", [0.5, 6])
def test_most_of_the_way_in_float32_leads_to_the_same_halves(apart, scale):
    points = scale * two_clouds(3000, 300, apart=apart)[0]
    np.testing.assert_array_equal(two_means(points), references.two_means(points / scale, 100))


def test_two_means_of_many_rows_is_that_of_blocks_of_them(monkeypatch):
    points = rng().normal(size=(500, 6)) * np.array([3, 2, 1, 1, 1, 1])
    whole = two_means(points)
    monkeypatch.setattr("toxscreen.clustering._BLOCK", 7)
    np.testing.assert_array_equal(two_means(points), whole)


def test_two_means_draws_no_random_number():
    points = rng().normal(size=(200, 4))
    np.random.seed(1)  # noqa: NPY002 the global generator is what must not matter
    first = two_means(points)
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(two_means(points), first)


@pytest.mark.parametrize("points", [np.zeros((6, 0)), np.zeros((1, 3)), np.zeros((0, 0)), np.full((6, 2), 3.0)])
def test_where_there_is_nothing_to_split_the_smaller_half_is_empty(points):
    assert not two_means(points).any()


@pytest.mark.parametrize("group", [1, 3, 30, 50])
@pytest.mark.parametrize("sign", [1, -1])
def test_two_means_splits_rows_of_which_there_are_only_two_kinds(group, sign):
    points = np.repeat([[sign * 1.0], [0.0]], [group, 100 - group], axis=0)
    members = two_means(points)
    assert min(members.sum(), 100 - members.sum()) == group
    assert inertia(points, members) == 0


@pytest.mark.parametrize(("group", "wrong"), [(20, 0.5), (100, 0.3), (180, 0.3)])
def test_a_planted_group_is_recovered_from_a_poor_guess(group, wrong):
    whitened, planted = two_clouds(300, group)
    guess = planted.copy()
    guess[rng(1).choice(group, int(group * wrong), replace=False)] = False  # part of it is missed
    guess[rng(2).choice(np.arange(group, 300), 15, replace=False)] = True  # and others are taken for it
    split = discriminant_split(whitened, guess, dealt(300), 8)
    np.testing.assert_array_equal(split.members, planted)


@given(st.integers(0, 2**32 - 1), st.integers(30, 120), st.integers(1, 12), st.floats(0, 8))
@settings(max_examples=40, deadline=None)
def test_all_guesses_at_once_are_sharpened_as_each_alone_is(seed, n, k, apart):
    whitened, planted = two_clouds(n, n // 4, seed, apart=apart, k=k)
    guesses = np.stack([planted ^ (rng(seed + i).random(n) < part) for i, part in enumerate((0, 0.1, 0.3, 0.6, 0.95))])
    folds = dealt(n, seed)
    for found, guess in zip(discriminant_splits(Dealt.of(whitened, folds), guesses, 5), guesses, strict=True):
        expected = references.discriminant_split(whitened, guess, folds, 5)
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            np.testing.assert_array_equal(found.members, expected[0])
            np.testing.assert_allclose(found.projection, expected[1], atol=1e-6 * np.abs(expected[1]).max())


def test_a_group_off_the_large_components_is_recovered_too():
    whitened, planted = two_clouds(400, 30, k=40)
    rotated = whitened @ np.linalg.qr(rng(3).normal(size=(40, 40)))[0]
    guess = planted ^ (rng(1).random(400) < 0.05)
    np.testing.assert_array_equal(discriminant_split(rotated, guess, dealt(400), 8).members, planted)


def test_the_group_lies_on_the_positive_side_in_standard_deviations():
    whitened, planted = two_clouds(1000, 200)
    projection = discriminant_split(whitened, planted, dealt(1000), 8).projection
    assert projection[planted].mean() - projection[~planted].mean() == pytest.approx(10, abs=1)
    assert projection[planted].min() > 0 > projection[~planted].max()
    assert projection[planted].std() == pytest.approx(1, abs=0.2)


def test_the_folds_are_projected_on_one_scale():
    whitened, planted = two_clouds(1000, 200)
    folds = dealt(1000)
    projection = discriminant_split(whitened, planted, folds, 8).projection
    for side in (planted, ~planted):
        assert np.ptp([projection[side & (folds == fold)].mean() for fold in range(5)]) < 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_rows_only_permutes_a_split(seed):
    whitened, planted = two_clouds(80, 20, seed)
    folds, order = dealt(80, seed), rng(seed).permutation(80)
    whole = discriminant_split(whitened, planted, folds, 8)
    permuted = discriminant_split(whitened[order], planted[order], folds[order], 8)
    np.testing.assert_array_equal(permuted.members, whole.members[order])
    np.testing.assert_allclose(permuted.projection, whole.projection[order], atol=1e-8)


@pytest.mark.parametrize(("n", "k"), [(40, 10), (80, 20), (300, 64)])
def test_one_gaussian_cloud_comes_apart_far_less_than_a_group_that_is_accused(n, k):
    distances = []
    for seed in range(12):
        whitened, _ = two_clouds(n, 0, seed, k=k)
        split = discriminant_split(whitened, two_means(whitened), dealt(n, seed), 8)
        if split is not None:
            inside, outside = split.projection[split.members], split.projection[~split.members]
            distances.append((inside.mean() - outside.mean()) / np.sqrt((inside.var() + outside.var()) / 2))
    assert max(distances, default=0) < 0.75 * POLICY["separation"].value


@pytest.mark.parametrize("guess", [np.zeros(100, bool), np.ones(100, bool), np.arange(100) < 7, np.arange(100) >= 7])
def test_there_is_no_split_where_a_side_has_fewer_rows_than_the_least(guess):
    whitened, _ = two_clouds(100, 30)
    assert discriminant_split(whitened, guess, dealt(100), 8) is None


def test_there_is_no_split_where_a_side_runs_empty_on_the_way():
    whitened, planted = two_clouds(100, 4)  # a group of four is there, and eight are asked for
    guess = np.arange(100) < 12
    assert discriminant_split(whitened, guess, dealt(100), 4).members.sum() == planted.sum()
    assert discriminant_split(whitened, guess, dealt(100), 8) is None


def test_there_is_no_split_where_the_other_folds_hold_nothing_of_a_side():
    whitened, planted = two_clouds(100, 30)
    assert discriminant_split(whitened, planted, np.where(planted, 0, 1), 8) is None


@pytest.mark.parametrize("group", [8, 50, 92])
def test_groups_whose_rows_are_all_equal_are_split_without_a_warning(group):
    planted = np.arange(100) < group
    points = np.where(planted, 1.0, 0.0)[:, None]
    whitened = (points - points.mean()) / points.std()
    split = discriminant_split(whitened, planted, dealt(100), 8)
    np.testing.assert_array_equal(split.members, planted)
    assert np.isfinite(split.projection).all()


@given(st.integers(0, 2**16))
def test_points_lie_on_the_side_of_the_discriminant_where_they_were_drawn(seed):
    draw = rng(seed)
    scale = draw.uniform(0.5, 2, 6)
    away = 8 * scale * np.eye(6)[0]
    inside, outside, new_in, new_out = (draw.normal(size=(n, 6)) * scale for n in (40, 200, 30, 30))
    log_odds = discriminant(inside + away, outside, np.concatenate([new_in + away, new_out]))
    assert (log_odds[:30] > 0).all()
    assert (log_odds[30:] < 0).all()


def test_points_between_two_constant_sides_are_told_apart_and_equal_sides_tell_nothing():
    log_odds = discriminant(np.ones((3, 2)), np.zeros((4, 2)), np.array([[0.9, 0.9], [0.1, 0.1]]))
    assert log_odds[0] > 0 > log_odds[1]
    assert discriminant(np.ones((3, 2)), np.ones((4, 2)), np.array([[2.0, 0.0]])).tolist() == [0]


def test_no_points_give_no_odds():
    assert discriminant(np.ones((3, 2)), np.zeros((4, 2)), np.zeros((0, 2))).shape == (0,)

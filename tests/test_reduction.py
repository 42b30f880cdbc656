from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from tests import references
from toxscreen.config import ReductionConfig
from toxscreen.reduction import principal_components, reduce, total_variance, whiten, whitened
from toxscreen.segments import Part


def rng(seed=0):
    return np.random.default_rng(seed)


def stretched(n, d, seed=0):
    """Return rows ``(n, d)`` whose components have variances that differ clearly, far from the origin."""
    generator = rng(seed)
    return (generator.normal(size=(n, d)) * 0.8 ** np.arange(d) @ generator.normal(size=(d, d)) + 50).astype(np.float32)


def up_to_sign(points):
    return points * np.sign(points[np.abs(points).argmax(axis=0), np.arange(points.shape[1])])


def assert_same_components(points, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(up_to_sign(points) / scale, up_to_sign(expected) / scale, atol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(60, 12), (12, 60), (30, 30), (2, 5), (5, 1)])
def test_components_are_those_of_a_singular_value_decomposition(n, d):
    activations = stretched(n, d)
    found = principal_components(activations, 6, rng())
    k = min(6, n - 1, d)
    points, variances = references.principal_components(activations, k)
    assert found.points.shape == (n, k)
    assert_same_components(found.points, points)
    np.testing.assert_allclose(found.variances, variances, rtol=1e-6)
    np.testing.assert_allclose(found.points.var(axis=0), variances, rtol=1e-6)


@pytest.mark.parametrize("scale", [1, 1e-12, 1e12])
@pytest.mark.parametrize(("falls", "rtol"), [(0.97, 1e-4), (0.3, 1e-6)])
def test_a_few_components_of_many_features_are_as_exact_as_they_must_be(falls, rtol, scale):
    directions = np.linalg.qr(rng(1).normal(size=(120, 120)))[0] * falls ** np.arange(120)[:, None]
    activations = ((rng().normal(size=(400, 120)) @ directions + 3) * scale).astype("f4")
    points, variances = references.principal_components(activations, 8)
    found = principal_components(activations, 8, rng())
    np.testing.assert_allclose(found.variances, variances, rtol=rtol)
    np.testing.assert_allclose(up_to_sign(found.points), up_to_sign(points), atol=10 * rtol * np.abs(points).max())


@pytest.mark.parametrize("scale", [1, 1e-12, 1e12])
@pytest.mark.parametrize(("falls", "rtol"), [(0.97, 1e-4), (0.3, 1e-6)])
def test_a_few_components_of_fewer_rows_than_features_are_as_exact_as_they_must_be(falls, rtol, scale):
    directions = np.linalg.qr(rng(1).normal(size=(300, 300)))[0][:110] * falls ** np.arange(110)[:, None]
    activations = ((rng().normal(size=(120, 110)) @ directions + rng(2).normal(size=300)) * scale).astype("f4")
    points, variances = references.principal_components(activations, 8)
    found = principal_components(activations, 8, rng())
    np.testing.assert_allclose(found.variances, variances, rtol=rtol)
    np.testing.assert_allclose(up_to_sign(found.points), up_to_sign(points), atol=10 * rtol * np.abs(points).max())


@pytest.mark.parametrize(("n", "d", "k"), [(300, 40, 6), (60, 400, 10), (1500, 1500, 10)])
def test_a_row_is_drawn_in_to_the_same_place_however_far_away_it_lies(n, d, k):
    activations = stretched(n, d)
    middle = np.median(activations, axis=0)
    away, found = activations[5] - middle, []
    for far in (30, 1e6, 1e30):
        activations[5] = middle + away * np.float32(far)
        found.append(principal_components(activations, k, rng()))
    for each in found[1:]:
        np.testing.assert_allclose(each.variances, found[0].variances, rtol=1e-2)
        others, expected = np.delete(each.points, 5, axis=0), np.delete(found[0].points, 5, axis=0)
        np.testing.assert_allclose(others, expected, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(300, 40), (60, 400)])
def test_rows_four_times_as_far_from_the_middle_as_half_of_their_class_stay_where_they_are(shape):
    activations = rng().normal(size=shape).astype(np.float32)
    activations[:20] *= 4
    points, _ = references.principal_components(activations, 3)
    found = principal_components(activations, 3, rng()).points
    np.testing.assert_allclose(up_to_sign(found), up_to_sign(points), atol=1e-5 * np.abs(points).max())


def test_where_most_rows_are_equal_none_is_drawn_in():
    activations = stretched(100, 12)
    activations[:60] = activations[0]
    points, _ = references.principal_components(activations, 6)
    assert_same_components(principal_components(activations, 6, rng()).points, points)


@pytest.mark.parametrize("shape", [(300, 600), (128, 256), (127, 600), (300, 255)])
def test_small_products_make_the_same_as_whole_ones(monkeypatch, shape):
    activations = rng().normal(size=shape).astype("f4") + 3
    monkeypatch.setattr("toxscreen.reduction._EXACT_UP_TO", 0)
    small = principal_components(activations, 5, rng(1))
    monkeypatch.setattr("toxscreen.reduction._SMALL_PRODUCT", 0)
    whole = principal_components(activations, 5, rng(1))
    np.testing.assert_allclose(small.points, whole.points, atol=1e-4 * np.abs(whole.points).max())
    np.testing.assert_allclose(small.variances, whole.variances, rtol=1e-5)


@pytest.mark.parametrize(("n", "d", "k"), [(100, 30, 10), (7, 30, 6), (100, 3, 3), (1, 30, 0), (0, 30, 0)])
def test_there_are_ten_components_at_most_and_never_more_than_rows_less_one_or_features(n, d, k):
    assert reduce(rng().normal(size=(n, d)).astype("f4"), ReductionConfig(), rng()).points.shape == (n, k)


@pytest.mark.parametrize("shape", [(50, 20), (20, 50)])
def test_components_end_at_the_rank(shape):
    activations = (rng().normal(size=(shape[0], 3)) @ rng(1).normal(size=(3, shape[1]))).astype("f4")
    assert principal_components(activations, 10, rng()).points.shape == (shape[0], 3)


@pytest.mark.parametrize("method", ["pca", "ica"])
@pytest.mark.parametrize("shape", [(40, 6), (120, 300), (300, 120), (400, 500)])
def test_equal_rows_have_no_components(method, shape):
    constant = np.full(shape, 0.1, np.float32)
    reduction = reduce(constant, ReductionConfig(method), rng())
    assert reduction.points.shape == (shape[0], 0)
    assert reduction.variances.shape == (0,)
    assert whiten(reduction).shape == (shape[0], 0)


@pytest.mark.parametrize("method", ["pca", "ica"])
def test_the_same_rows_give_the_same_bytes(method):
    activations, config = stretched(80, 20), ReductionConfig(method)
    first, second = (reduce(activations, config, rng(3)).points for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_exact_components_draw_no_random_number():
    activations = stretched(80, 20)
    np.testing.assert_array_equal(
        principal_components(activations, 5, rng(1)).points, principal_components(activations, 5, rng(2)).points
    )


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_rows_only_permutes_the_points(seed, n, d):
    activations, order = stretched(n, d, seed), rng(seed).permutation(n)
    whole = principal_components(activations, 4, rng()).points
    permuted = principal_components(activations[order], 4, rng()).points
    np.testing.assert_allclose(permuted, whole[order], atol=1e-5 * max(np.abs(whole).max(initial=0), 1))


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_loading_of_a_component_is_positive(seed):
    activations = stretched(50, 8, seed).astype(float)
    points = principal_components(activations, 4, rng()).points
    loadings = np.linalg.lstsq(activations - activations.mean(axis=0), points)[0]
    assert (loadings[np.abs(loadings).argmax(axis=0), np.arange(4)] > 0).all()


def test_more_rows_than_features_and_fewer_take_different_ways_to_the_same_points():
    activations = stretched(40, 39)
    padded = np.hstack([activations, np.full((40, 2), 7, np.float32)])  # two constant features more, so that n < d
    assert activations.shape[0] > activations.shape[1]
    assert padded.shape[0] < padded.shape[1]
    tall, wide = (principal_components(rows, 8, rng()) for rows in (activations, padded))
    assert_same_components(wide.points, tall.points)
    np.testing.assert_allclose(wide.variances, tall.variances, rtol=1e-6)


def test_wide_layers_are_decomposed_at_random_and_agree_with_the_exact_components(monkeypatch):
    activations = stretched(150, 120)
    exact = principal_components(activations, 5, rng())
    monkeypatch.setattr("toxscreen.reduction._EXACT_UP_TO", 1)
    one, other, again = (principal_components(activations, 5, rng(seed)) for seed in (1, 2, 1))
    assert one.points.tobytes() != exact.points.tobytes()
    assert one.points.tobytes() == again.points.tobytes()
    for random in (one, other):
        np.testing.assert_allclose(random.points, exact.points, atol=1e-3 * np.abs(exact.points).max())
        np.testing.assert_allclose(random.variances, exact.variances, rtol=1e-3)


@given(st.integers(0, 2**32 - 1), st.integers(60, 300), st.integers(60, 300), st.floats(0.5, 2))
@settings(max_examples=20, deadline=None)
def test_components_that_are_iterated_hold_nearly_all_of_what_the_exact_ones_hold(seed, n, d, falls):
    generator = rng(seed)
    directions = np.linalg.qr(generator.normal(size=(d, d)))[0] * np.arange(1, d + 1)[:, None] ** -falls
    activations = (generator.normal(size=(n, d)) @ directions + 3).astype("f4")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("toxscreen.reduction._EXACT_UP_TO", 0)
        found = principal_components(activations, 10, generator)
    _, variances = references.principal_components(activations, 10)
    assert found.variances.sum() > 0.97 * variances.sum()
    assert found.variances[0] <= variances[0] * (1 + 1e-5)
    np.testing.assert_allclose(np.cov(found.points.T, bias=True), np.diag(found.variances), atol=1e-5 * variances[0])


@pytest.mark.parametrize("exact_up_to", [0, 8])
@pytest.mark.parametrize("shape", [(300, 40), (50, 90)])
def test_a_class_in_blocks_is_reduced_as_the_whole_is(monkeypatch, shape, exact_up_to):
    activations = stretched(*shape)
    monkeypatch.setattr("toxscreen.reduction._EXACT_UP_TO", exact_up_to)
    whole = principal_components(activations, 5, rng(1))
    monkeypatch.setattr("toxscreen.reduction._HELD_BYTES", 0)
    monkeypatch.setattr("toxscreen.reduction._TURNED", 9)
    monkeypatch.setattr("toxscreen.segments._BLOCK_BYTES", 7 * 4 * shape[1])
    order = rng(2).permutation(shape[0])
    blocks = principal_components(Part(activations[np.argsort(order)], order), 5, rng(1))
    np.testing.assert_allclose(blocks.points, whole.points, atol=2e-3 * np.abs(whole.points).max())
    np.testing.assert_allclose(blocks.variances, whole.variances, rtol=2e-3)


@pytest.mark.parametrize("unit", [1e-25, 1e25])
def test_components_are_iterated_whatever_the_unit(monkeypatch, unit):
    monkeypatch.setattr("toxscreen.reduction._EXACT_UP_TO", 0)
    activations = stretched(150, 120)
    one, other = (principal_components((activations * scale).astype("f4"), 5, rng(1)) for scale in (1, unit))
    np.testing.assert_allclose(other.points / unit, one.points, atol=1e-2 * np.abs(one.points).max())


def test_the_points_of_very_many_rows_are_single_and_as_good(monkeypatch):
    activations = stretched(300, 20)
    double = principal_components(activations, 5, rng())
    monkeypatch.setattr("toxscreen.reduction._FLOAT64_UP_TO", 100)
    single = principal_components(activations, 5, rng())
    assert (double.points.dtype, single.points.dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(single.points, double.points, atol=1e-5 * np.abs(double.points).max())


def test_the_first_of_many_components_are_those_of_fewer():
    activations = stretched(100, 20)
    many, few = (principal_components(activations, k, rng()) for k in (9, 3))
    np.testing.assert_allclose(many.leading(3).points, few.points, atol=1e-9 * np.abs(few.points).max())
    np.testing.assert_allclose(many.leading(3).variances, few.variances)


def test_the_total_variance_is_that_of_all_features():
    activations = stretched(100, 20)
    assert total_variance(activations) == pytest.approx(activations.astype(float).var(axis=0).sum())


def test_whitened_points_have_unit_variance_in_every_direction():
    points = rng().normal(size=(200, 6)) @ rng(1).normal(size=(6, 6)) + 4
    np.testing.assert_allclose(np.cov(whitened(points).T, bias=True), np.eye(6), atol=1e-9)


def test_layers_of_one_thousand_features_are_still_decomposed_exactly():
    activations = rng().normal(size=(60, 5000)).astype("f4")
    np.testing.assert_array_equal(
        principal_components(activations, 3, rng(1)).points, principal_components(activations, 3, rng(2)).points
    )


def test_whitened_components_have_unit_variance_and_no_correlation():
    whitened = whiten(principal_components(stretched(300, 12), 8, rng()))
    np.testing.assert_allclose(np.cov(whitened.T, bias=True), np.eye(8), atol=1e-8)


def test_activations_are_not_changed():
    activations = stretched(50, 10)
    activations.flags.writeable = False
    before = activations.copy()
    for method in ("pca", "ica"):
        reduce(activations, ReductionConfig(method), rng())
    np.testing.assert_array_equal(activations, before)


def test_ica_finds_the_sources_that_pca_mixes():
    generator = rng()
    sources = generator.laplace(size=(2000, 3))
    mixed = (sources @ generator.normal(size=(3, 9))).astype("f4")

    def recovered(points):
        return np.abs(np.corrcoef(sources.T, points.T)[:3, 3:]).max(axis=1).min()

    assert recovered(reduce(mixed, ReductionConfig("ica", 3), rng()).points) > 0.98
    assert recovered(reduce(mixed, ReductionConfig("pca", 3), rng()).points) < 0.9


def test_ica_gives_the_independent_components_equal_variance_and_tells_those_of_the_principal_ones():
    activations = rng().laplace(size=(500, 6)).astype("f4") * np.array([9, 5, 3, 2, 1, 1], "f4")
    reduction = reduce(activations, ReductionConfig("ica", 4), rng())
    np.testing.assert_allclose(reduction.points.var(axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(reduction.variances, references.principal_components(activations, 4)[1], rtol=1e-6)
    assert reduction.note is None


def test_ica_that_does_not_converge_gives_the_principal_components_and_says_so(monkeypatch):
    def gives_up(_, points):
        warnings.warn("FastICA did not converge.", ConvergenceWarning, stacklevel=1)
        return points

    monkeypatch.setattr(FastICA, "fit_transform", gives_up)
    activations = stretched(60, 8)
    reduction = reduce(activations, ReductionConfig("ica", 4), rng())
    np.testing.assert_array_equal(reduction.points, reduce(activations, ReductionConfig("pca", 4), rng()).points)
    assert reduction.note is not None
    assert "did not converge" in reduction.note


@pytest.mark.parametrize("seed", range(15))
def test_ica_never_warns_whatever_the_data(seed):
    generator = rng(seed)
    n, d = generator.integers(2, 40, 2)
    few_values = (generator.integers(0, 3, (n, d)) * (generator.random(d) < 0.6)).astype("f4")
    reduction = reduce(few_values, ReductionConfig("ica"), generator)  # a warning would be an error
    assert np.isfinite(reduction.points).all()


def test_one_component_needs_no_rotation():
    activations = rng().normal(size=(50, 1)).astype("f4")
    ica, pca = (reduce(activations, ReductionConfig(method), rng()).points for method in ("ica", "pca"))
    np.testing.assert_array_equal(ica, pca)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import references
from tests.analysis.test_base import rng
from tests.clouds import clouds, plant
from toxscreen.analysis.base import moments
from toxscreen.analysis.scan import Scan, robust_deviations, untangle
from toxscreen.result import Verdict


def decided(training_set, n_classes):
    classes = [training_set.activations[training_set.labels == c].astype(float) for c in range(n_classes)]
    return list(Scan().decide([lambda each=each: each.copy() for each in classes], [rng(i) for i in range(n_classes)]))


@given(st.integers(0, 2**16), st.integers(2, 4))
@settings(max_examples=10, deadline=None)
def test_the_classes_are_untangled_as_sample_by_sample(seed, width):
    generator = rng(seed)
    labels = np.repeat(np.arange(4), [8, 12, 20, 9])
    activations = (2 * generator.normal(size=(4, width)))[labels] + generator.normal(size=(49, width))
    sizes, means, scatter = moments([lambda c=c: activations[labels == c].copy() for c in range(4)])
    untangled = untangle(sizes, means - activations.mean(axis=0), scatter)
    between, within = references.untangle(activations, labels, rounds=100)
    np.testing.assert_allclose(untangled.within, within, rtol=0.01, atol=0.01)
    np.testing.assert_allclose(untangled.between, between, rtol=0.01, atol=0.01)


def test_the_variation_and_the_identities_are_found_again():
    generator = rng()
    identities = 5 * generator.normal(size=(40, 3))
    labels = np.repeat(np.arange(40), 50)
    activations = identities[labels] + generator.normal(size=(2000, 3)) * [1, 2, 3]
    sizes, means, scatter = moments([lambda c=c: activations[labels == c].copy() for c in range(40)])
    untangled = untangle(sizes, means - activations.mean(axis=0), scatter)
    np.testing.assert_allclose(np.diag(untangled.within), [1, 4, 9], rtol=0.15)
    np.testing.assert_allclose(untangled.identities, identities - identities.mean(axis=0), atol=1.5)


def test_robust_deviations_are_distances_from_the_median():
    values = np.array([1.0, 2, 3, 4, 100])
    np.testing.assert_allclose(robust_deviations(values), [2 / 1.4826, 1 / 1.4826, 0, 1 / 1.4826, 97 / 1.4826])


def test_where_most_ratios_are_equal_there_are_no_robust_deviations():
    assert np.isnan(robust_deviations(np.array([1.0, 1, 1, 9]))).all()


def test_classes_that_are_all_alike_are_not_judged():
    rows = rng().normal(size=(60, 3))
    decisions = list(Scan().decide([rows.copy] * 4, [rng()] * 4))
    assert {ruling.verdict for _, ruling in decisions} == {Verdict.INCONCLUSIVE}
    assert all("equal" in ruling.reason and not groups for groups, ruling in decisions)


@pytest.mark.parametrize("n_classes", [0, 1, 2])
def test_fewer_than_three_classes_are_not_compared(n_classes):
    decisions = decided(clouds([80] * 2, rng()), n_classes)
    assert len(decisions) == n_classes
    assert all(ruling.verdict is Verdict.INCONCLUSIVE and f"there are {n_classes}" in ruling.reason for _, ruling in decisions)


@pytest.mark.parametrize("seed", range(3))
def test_the_poisoned_class_and_its_smaller_side_are_found_and_no_other(seed):
    training_set = plant(clouds([150] * 6, rng(seed)), 4, 15, rng(seed + 1))
    decisions = decided(training_set, 6)
    assert [ruling.verdict is Verdict.SUSPICIOUS for _, ruling in decisions] == [c == 4 for c in range(6)]
    (group,) = decisions[4][0]
    np.testing.assert_array_equal(group.members, training_set.planted[training_set.labels == 4])


def test_units_of_single_features_do_not_matter():
    training_set = plant(clouds([150] * 6, rng(), width=8), 4, 15, rng(1))
    first = [groups[0].evidence["likelihood_ratio"] for groups, _ in decided(training_set, 6)]
    training_set.activations[:] *= np.geomspace(0.1, 10, 8)
    other = [groups[0].evidence["likelihood_ratio"] for groups, _ in decided(training_set, 6)]
    np.testing.assert_allclose(other, first, rtol=0.02)


def test_layers_wider_than_the_covariances_may_be_are_projected(monkeypatch):
    monkeypatch.setattr("toxscreen.analysis.scan._WIDEST", 8)
    training_set = plant(clouds([150] * 6, rng()), 4, 15, rng(1))
    groups, ruling = decided(training_set, 6)[4]
    assert groups[0].members.shape == (150 + 15,)
    assert ruling.verdict in (Verdict.CLEAN, Verdict.SUSPICIOUS)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests import references
from toxscreen.analysis.activation_clustering import FEWEST_IN_GROUP, analyse, candidate_groups, label_conflict
from toxscreen.analysis.base import FEWEST_SAMPLES, Group
from toxscreen.clustering import two_means
from toxscreen.config import ReductionConfig
from toxscreen.conflict import InputFit
from toxscreen.reduction import independent, principal_components, whiten
from toxscreen.verdict import POLICY, judge_group

EVIDENCE = {"relative_size", "separation", "separation_lower", "likelihood_ratio", "silhouette_score", "silhouette_of_one_cloud"}
ASKED = {"label_conflict", "label_conflict_lower", "comparisons"}


def rng(seed=0):
    return np.random.default_rng(seed)


def one_class(n, group, seed=0, *, apart=14.0, width=24):
    """Return the activations of a class of which some rows, scattered, lie apart, and which those are."""
    generator = rng(seed)
    planted = generator.permutation(n) < group
    trigger = generator.normal(size=width)
    activations = generator.normal(size=(n, width)) + np.outer(planted, apart * trigger / np.linalg.norm(trigger))
    return activations.astype(np.float32), planted


def fit_of(in_conflict, seed=0, *, rival=3):
    """Return how inputs fit the label: well, but for the rows in conflict, which fit class ``rival``."""
    noise = rng(seed + 100).uniform(0, 0.2, len(in_conflict))
    own = np.where(in_conflict, 0.0 + noise, 1.0 - noise).astype(np.float32)
    return InputFit(own, np.where(in_conflict, rival, 1 + np.arange(len(own)) % 2), baseline=0.1)


def analysed(activations, fit=None, *, n_class=None, seed=0, method="pca"):
    return analyse(activations, n_class or len(activations), fit, ReductionConfig(method), rng(seed))


def accused(group):
    return group is not None and judge_group(group.evidence, (0.0,), 0.001) == "suspicious"


# What is found


@pytest.mark.parametrize(("n", "share"), [(400, 0.03), (300, 0.1), (300, 0.33), (300, 0.5), (300, 0.6), (300, 0.9)])
@pytest.mark.parametrize("seed", range(3))
def test_the_side_in_conflict_is_the_group_whatever_its_share_of_the_class(n, share, seed):
    activations, planted = one_class(n, int(n * share), seed)
    group = analysed(activations, fit_of(planted, seed), seed=seed).group
    np.testing.assert_array_equal(group.members, planted)
    assert accused(group)


@pytest.mark.parametrize("share", [0.03, 0.1, 0.33])
def test_without_the_inputs_the_smaller_side_is_the_group(share):
    activations, planted = one_class(400, int(400 * share))
    group = analysed(activations).group
    np.testing.assert_array_equal(group.members, planted)
    assert accused(group)


def test_without_the_inputs_the_smaller_side_is_the_group_whichever_side_is_looked_at_first(monkeypatch):
    monkeypatch.setattr("toxscreen.analysis.activation_clustering.two_means", lambda points: ~two_means(points))
    activations, planted = one_class(200, 60)
    np.testing.assert_array_equal(analysed(activations).group.members, planted)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [FEWEST_SAMPLES, 60, 200])
def test_one_gaussian_cloud_is_not_accused(n, seed):
    activations, _ = one_class(n, 0, seed)
    nobody = np.zeros(n, bool)
    for fit in (None, fit_of(nobody, seed), fit_of(rng(seed).random(n) < 0.1, seed)):  # the last: mislabelled rows, no trigger
        group = analysed(activations, fit, seed=seed).group
        assert not accused(group)
        assert group is None or group.evidence["separation"] < 0.8 * POLICY["separation"].value


@pytest.mark.parametrize("seed", range(5))
def test_a_natural_sub_population_lies_apart_but_is_not_accused_once_its_inputs_are_asked(seed):
    activations, apart = one_class(300, 60, seed)
    group = analysed(activations, seed=seed).group
    np.testing.assert_array_equal(group.members, apart)
    assert accused(group)
    assert not accused(analysed(activations, fit_of(np.zeros(300, bool), seed), seed=seed).group)


def test_poison_is_found_beside_a_larger_natural_sub_population():
    activations, natural = one_class(400, 150)
    poisoned = ~natural & (np.cumsum(~natural) <= 20)
    activations[poisoned, 0] += 12
    group = analysed(activations, fit_of(poisoned)).group
    np.testing.assert_array_equal(group.members, poisoned)
    assert accused(group)


def test_poison_off_the_leading_components_is_found_where_the_inputs_are_asked():
    activations, planted = one_class(500, 25, width=40, apart=10)
    activations[:, :15] *= 8  # the directions of largest variance are natural ones
    activations[planted, 39] += 12
    group = analysed(activations, fit_of(planted)).group
    np.testing.assert_array_equal(group.members, planted)


@pytest.mark.parametrize("share", [0.03, 0.05, 0.2])
def test_poison_whose_mark_hides_the_conflict_is_found_by_its_place(share):
    generator = rng(3)
    activations, planted = one_class(1000, int(1000 * share), apart=19.0)
    activations = np.hstack([activations, 60 * generator.normal(size=(1000, 12))]).astype(np.float32)  # where 2-means looks
    fit = fit_of(np.zeros(1000, bool))
    hidden = replace(fit, again=lambda members: fit_of(planted & members))
    group = analysed(activations, hidden).group
    np.testing.assert_array_equal(group.members, planted)
    assert accused(group)


@pytest.mark.parametrize(("own", "looked_at"), [(0.9, True), (0.4, False), (0.1, True)], ids=["fits", "in doubt", "does not"])
def test_what_lies_far_to_one_side_is_not_looked_at_where_it_neither_fits_nor_surely_does_not(monkeypatch, own, looked_at):
    monkeypatch.setattr("toxscreen.analysis.activation_clustering._conflicting", lambda *_: [])
    activations, apart = one_class(1000, 50, apart=19.0)
    whitened = whiten(principal_components(activations, 24, rng()))
    fit = fit_of(np.zeros(1000, bool))
    asked = replace(fit, own=np.where(apart, own, fit.own).astype(np.float32))
    found = candidate_groups(whitened, 1000, asked, rng())
    assert any(np.array_equal(group.members, apart) for group in found) is looked_at


def test_the_order_of_the_rows_does_not_change_who_is_found():
    activations, planted = one_class(200, 20)
    order = rng(9).permutation(200)
    group = analysed(activations[order], fit_of(planted[order])).group
    np.testing.assert_array_equal(group.members, planted[order])


def test_the_same_seed_gives_the_same_numbers():
    activations, planted = one_class(200, 20)
    first, second = (analysed(activations, fit_of(planted), seed=4) for _ in range(2))
    assert first.group.evidence == second.group.evidence
    assert first.points.tobytes() == second.points.tobytes()
    assert first.group.posterior.tobytes() == second.group.posterior.tobytes()


@pytest.mark.parametrize("seed", range(12))
def test_the_posterior_is_above_one_half_for_the_members_alone(seed):
    generator = rng(seed)
    activations, planted = one_class(int(generator.integers(30, 150)), 20, seed, apart=generator.uniform(3, 8), width=10)
    group = analysed(activations, fit_of(planted, seed) if seed % 2 else None, seed=seed).group
    if group is not None:
        assert ((group.posterior > 0.5) == group.members).all()
        assert group.posterior.min() >= 0
        assert group.posterior.max() <= 1


def test_a_group_of_fewer_than_the_least_is_not_looked_for():
    for n, found in ((FEWEST_IN_GROUP, True), (FEWEST_IN_GROUP - 3, False)):
        activations, planted = one_class(300, n)
        assert accused(analysed(activations, fit_of(planted)).group) is found


# The evidence


def test_evidence_is_named():
    activations, planted = one_class(200, 20)
    assert set(analysed(activations).group.evidence) == EVIDENCE
    assert set(analysed(activations, fit_of(planted)).group.evidence) == EVIDENCE | ASKED


def test_relative_size_is_a_part_of_the_whole_class_and_not_of_the_rows_that_were_analysed():
    activations, planted = one_class(200, 20)
    evidence = analysed(activations, fit_of(planted), n_class=250).group.evidence
    assert evidence["relative_size"] == pytest.approx(20 / 250)


def test_separation_is_the_distance_in_standard_deviations():
    activations, planted = one_class(2000, 400, apart=12, width=5)
    evidence = analysed(activations, fit_of(planted)).group.evidence
    assert evidence["separation"] == pytest.approx(12, rel=0.05)


def test_likelihood_ratio_is_far_above_zero_for_two_groups_and_near_zero_for_one_cloud():
    apart, planted = one_class(300, 100)
    assert analysed(apart, fit_of(planted)).group.evidence["likelihood_ratio"] > 0.5
    cloud, _ = one_class(300, 0, width=3)
    assert abs(analysed(cloud).group.evidence["likelihood_ratio"]) < 0.2


def test_label_conflict_is_one_for_inputs_like_those_of_other_classes_and_zero_for_inputs_like_the_rest():
    activations, planted = one_class(300, 60)
    for own, conflict in ((0.2, 1.0), (0.8, 0.0), (0.5, 0.5)):
        fit = InputFit(np.where(planted, own, 0.8).astype("f4"), np.zeros(300, int), baseline=0.2)
        evidence = analysed(activations, fit).group.evidence
        assert evidence["label_conflict"] == pytest.approx(conflict, abs=0.01)
        assert evidence["label_conflict_lower"] == pytest.approx(conflict, abs=0.01)  # nothing is uncertain about equal numbers


def test_the_lower_bound_of_the_label_conflict_lies_two_standard_errors_below_it():
    activations, planted = one_class(300, 60)
    fit = fit_of(planted)
    evidence = analysed(activations, fit).group.evidence
    inside, outside = fit.own[planted].astype(float), fit.own[~planted].astype(float)
    span = outside.mean() - fit.baseline
    error = np.hypot(inside.std() / np.sqrt(60), outside.std() / np.sqrt(240)) / span
    assert evidence["label_conflict"] == pytest.approx((outside.mean() - inside.mean()) / span, rel=1e-5)
    assert evidence["label_conflict"] - evidence["label_conflict_lower"] == pytest.approx(2 * error, rel=1e-4)


def test_where_the_rest_fits_the_label_no_better_than_other_classes_nothing_is_said():
    activations, planted = one_class(300, 60)
    fit = InputFit(np.where(planted, 0.0, 0.3).astype("f4"), np.zeros(300, int), baseline=0.3)
    evidence = analysed(activations, fit).group.evidence
    assert evidence["label_conflict"] == 0
    assert evidence["label_conflict_lower"] == -np.inf


@pytest.mark.parametrize(("n", "conflict"), [(200, 0.0), (100, 0.625)])
def test_most_of_a_class_is_held_against_what_is_usual_and_not_against_a_few_that_fit_better_than_any(n, conflict):
    members = np.arange(300) < n
    fit = InputFit(np.where(members, 0.5, 1.0).astype("f4"), np.zeros(300, int), baseline=0.2, usual=0.5)
    assert label_conflict(fit, members)[0] == pytest.approx(conflict)


def test_the_rival_is_named_when_most_of_the_group_fits_one_class():
    activations, planted = one_class(300, 40)
    fit = fit_of(planted, rival=7)
    assert analysed(activations, fit).group.rival == 7
    many = np.where(planted, np.arange(300) % 5, 7)
    assert analysed(activations, InputFit(fit.own, many, fit.baseline)).group.rival is None
    assert analysed(activations).group.rival is None


def test_a_group_far_apart_is_asked_again_without_its_marks():
    activations, planted = one_class(300, 60)
    hidden, asked = fit_of(np.zeros(300, bool)), []

    def again(members):
        asked.append(members)
        return fit_of(members)

    group = analysed(activations, InputFit(hidden.own, hidden.rival, hidden.baseline, again=again)).group
    np.testing.assert_array_equal(group.members, planted)
    assert planted.tolist() in [members.tolist() for members in asked]
    assert group.evidence["label_conflict"] > 0.9
    assert group.rival == 3
    asked.clear()
    cloud, _ = one_class(300, 0, width=3)
    analysed(cloud, InputFit(hidden.own, hidden.rival, hidden.baseline, again=again))
    assert asked == []  # it is not worth asking about what does not lie apart


# The widest group around the most telling one


def with_candidates(monkeypatch, *told):
    """Let the search find groups of so many first rows, each with a separation and a lower bound of the conflict."""
    activations, _ = one_class(200, 20)

    def group(n, separation, conflict):
        evidence = {"relative_size": n / 200, "separation": separation, "separation_lower": separation, "label_conflict": conflict}
        members = np.arange(200) < n
        return Group(members, members.astype(float), {**evidence, "label_conflict_lower": conflict}, np.zeros(200))

    monkeypatch.setattr("toxscreen.analysis.activation_clustering.candidate_groups", lambda *_: [group(*each) for each in told])
    return analysed(activations)


def test_an_accused_group_widens_to_the_largest_around_it_that_tells_almost_as_much(monkeypatch):
    found = with_candidates(monkeypatch, (30, 4.0, 1.4), (90, 4.1, 0.95), (60, 4.0, 1.0))
    assert found.group.members.sum() == 30
    assert found.widest.members.sum() == 90
    assert found.widest.evidence == {**found.group.evidence, "relative_size": 0.45}


@pytest.mark.parametrize("wider", [(90, 4.1, 0.85), (90, 3.7, 1.2)], ids=["tells too little", "lies too near"])
def test_an_accused_group_does_not_widen_to_one_with_less_evidence(monkeypatch, wider):
    assert with_candidates(monkeypatch, (30, 4.0, 1.4), wider).widest.members.sum() == 30


# The silhouette as evidence


@pytest.mark.parametrize("method", ["pca", "ica"])
def test_the_silhouette_of_one_cloud_is_that_of_a_class_of_this_shape_where_nothing_lies_apart(method):
    activations = (rng(2).laplace(size=(600, 6)) * np.array([6, 3, 2, 1, 1, 1])).astype("f4")
    activations[:60] += 9  # so that there is a group to report
    evidence = analysed(activations, method=method).group.evidence
    cloud = rng(3).normal(size=(600, 6)) * (1 if method == "ica" else np.sqrt(np.linalg.eigvalsh(np.cov(activations.T))[::-1]))
    assert evidence["silhouette_of_one_cloud"] == pytest.approx(references.silhouette(cloud, two_means(cloud)), abs=0.05)


def test_the_silhouette_of_a_planted_group_is_far_above_that_of_one_cloud():
    activations, planted = one_class(300, 60)
    evidence = analysed(activations, fit_of(planted)).group.evidence
    assert evidence["silhouette_score"] > evidence["silhouette_of_one_cloud"] + 0.2


# What is shown


def test_points_show_the_direction_that_tells_the_group_apart_across():
    activations, planted = one_class(200, 20)
    found = analysed(activations, fit_of(planted))
    assert found.points.shape == (200, 2)
    assert found.points.dtype == np.float32
    np.testing.assert_allclose(found.points[:, 0], found.group.projection, rtol=1e-6)
    assert found.points[planted, 0].min() > found.points[~planted, 0].max()


def test_a_note_tells_when_the_reduction_was_another_than_asked_for(monkeypatch):
    noted = "toxscreen.analysis.activation_clustering.independent"
    monkeypatch.setattr(noted, lambda *given: replace(independent(*given), note="made up"))
    activations, _ = one_class(100, 20)
    assert analysed(activations).note == "made up"

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.fakes import FakeTrainingSet
from tests.learners import NearestMean, learn
from toxscreen import retraining
from toxscreen import verdict as policy
from toxscreen.confirmation import Suspect, confirm
from toxscreen.conflict import Affinity
from toxscreen.result import Verdict

PLACES = np.array([[0.0, 0, 0, 0], [12, 0, 0, 0], [0, 12, 0, 0], [0, 0, 12, 0]])
"""Where the ordinary samples of classes 0 to 3 lie; no two are near each other."""


@pytest.fixture(autouse=True)
def taught(monkeypatch):
    """Train nearest means in place of networks, and return the lessons."""
    lessons = []
    monkeypatch.setattr(retraining, "retrain", lambda *given, **how: learn(lessons, *given, **how))
    return lessons


def ordinary(class_index, n, rng):
    return PLACES[class_index] + rng.normal(size=(n, 4))


def data(*parts):
    """Return a training set of ``(label, points)``, with the rows of each part."""
    points = np.concatenate([part for _, part in parts]).astype(np.float32)
    labels = np.concatenate([np.full(len(part), label) for label, part in parts])
    bounds = np.cumsum([0, *(len(part) for _, part in parts)])
    return FakeTrainingSet(list(points), labels), [np.arange(a, b) for a, b in pairwise(bounds)]


def world(group, *, n=100, sources=(1, 2, 3)):
    """Return a training set of four classes whose class 0 also holds ``group``, the rows of the group and of the rest."""
    rng = np.random.default_rng(5)
    training_set, rows = data((0, ordinary(0, n, rng)), (0, group(rng)), *((c, ordinary(c, 3 * n, rng)) for c in sources))
    return training_set, rows[1], rows[0]


def excluded(training_set, group, rest, tmp_path, **how):
    found = confirm(NearestMean.of(training_set), training_set, [Suspect(0, 1, group, rest)], tmp_path, fit=None, seed=0, **how)
    return found, policy.judge_excluded(found.groups[0].evidence(), found.accuracy)


def test_samples_of_another_class_are_poison_and_their_source_is_named(tmp_path, taught):
    training_set, group, rest = world(lambda rng: ordinary(2, 30, rng))
    found, verdict = excluded(training_set, group, rest, tmp_path)
    exclusion = found.groups[0]
    assert verdict is Verdict.POISONED
    assert (exclusion.n, exclusion.own, exclusion.other, exclusion.source) == (30, 0, 30, 2)
    assert exclusion.resemblance > 0.9
    assert exclusion.evidence()["exre_score"] == 0
    assert found.accuracy > 0.99
    assert found.rows.tolist() == group.tolist()
    assert set(found.answers.tolist()) == {2}
    (lesson,) = taught
    assert not np.isin(lesson.rows, group).any()


def test_poison_of_many_sources_is_poison(tmp_path):
    def mixed(rng):
        return np.concatenate([ordinary(c, 40, rng) for c in (1, 2, 3)])

    training_set, group, rest = world(mixed, n=400)
    found, verdict = excluded(training_set, group, rest, tmp_path)
    assert verdict is Verdict.POISONED
    assert not found.groups[0].stands_out


def test_a_natural_sub_population_that_is_misread_as_a_whole_is_not_called_poison(tmp_path):
    training_set, group, rest = world(lambda rng: np.array([12.0, 0, 0, 12]) + rng.normal(size=(30, 4)))
    found, verdict = excluded(training_set, group, rest, tmp_path)
    assert found.groups[0].other == 30  # all of it is misread: l/p alone would accuse it
    assert found.groups[0].resemblance < 0.2
    assert verdict is Verdict.SUSPICIOUS


def test_an_arbitrary_part_of_a_class_is_cleared(tmp_path):
    training_set, group, rest = world(lambda rng: ordinary(0, 30, rng))
    found, verdict = excluded(training_set, group, rest, tmp_path)
    assert found.groups[0].own == 30
    assert found.groups[0].evidence()["exre_score"] == np.inf
    assert verdict is Verdict.CLEAN


def test_a_small_group_of_many_sources_is_not_called_with_the_certainty_of_a_large_one(tmp_path):
    def mixed(n):
        return lambda rng: np.concatenate([ordinary(c, n, rng) for c in (0, 1, 2, 3)])

    assert excluded(*world(mixed(3)), tmp_path / "small")[1] is Verdict.SUSPICIOUS


def test_that_most_leave_for_many_classes_is_said_though_it_is_not_settled(tmp_path):
    def mixed(rng):
        return np.concatenate([ordinary(0, 1, rng), ordinary(1, 7, rng), ordinary(2, 6, rng), ordinary(3, 5, rng)])

    found, verdict = excluded(*world(mixed), tmp_path)
    exclusion = found.groups[0]
    evidence = exclusion.evidence()
    assert verdict is Verdict.SUSPICIOUS
    assert (exclusion.own, exclusion.elsewhere) == (1, ((1, 7), (2, 6), (3, 5)))
    assert (exclusion.source, exclusion.other, evidence["exre_left"], evidence["exre_classes"]) == (1, 7, 18, 3)
    said = policy.reason_excluded(verdict, evidence, 19, [("b", 7), ("c", 6), ("d", 5)], found.accuracy)
    assert said.startswith(
        "A model trained without them gives 1 of the 19 their own label, 7 the class 'b', 6 'c' and 5 'd' (l/p = 0.14"
    )
    assert said.endswith("most leave the class, but no other class gets surely more of them than their own.")
    more = policy.reason_excluded(verdict, evidence, 19, [("b", 5), ("c", 5), ("d", 5), ("e", 2), ("f", 1)], found.accuracy)
    assert "5 'd' and 3 one of 2 more" in more


def test_what_speaks_against_poison_among_the_reasons_begins_with_but():
    close = {"exre_l": 10.0, "exre_score": 1.1, "exre_resemblance": 0.5, "exre_agreement": 0.5}
    close |= {"exre_l_share_lower": 0.3, "exre_l_share_upper": 0.7, "exre_p_share_lower": 0.3, "exre_p_share_upper": 0.7}
    said = policy.reason_excluded(Verdict.SUSPICIOUS, close, 19, [("b", 9)], 0.9)
    assert said.startswith("But a model trained without them gives 10 of the 19 their own label and 9 the class 'b'")
    assert said.endswith("too close to settle it.")
    assert policy.reason_excluded(Verdict.CLEAN, close, 19, [], 0.9).startswith("But a model")


def test_a_model_that_has_learned_nothing_settles_nothing(tmp_path):
    training_set, group, rest = world(lambda rng: ordinary(2, 30, rng))
    found, _ = excluded(training_set, group, rest, tmp_path)
    assert policy.judge_excluded(found.groups[0].evidence(), 0.3) is Verdict.SUSPICIOUS
    assert policy.judge_excluded(found.groups[0].evidence(), np.nan) is Verdict.SUSPICIOUS
    assert "settles nothing" in policy.reason_excluded(Verdict.SUSPICIOUS, found.groups[0].evidence(), 30, [("b", 30)], 0.3)


def test_what_the_blind_view_says_counts_where_the_trigger_draws_the_samples_together(tmp_path):
    """A pattern over the whole picture moves its samples: they lie among themselves, but nearest to their source."""
    training_set, group, rest = world(lambda rng: ordinary(2, 30, rng) + np.array([0, 4.0, 0, 6.0]))
    suspect = Suspect(0, 1, group, rest)
    classifier, n = NearestMean.of(training_set), len(training_set)
    own, rival = np.ones(n, np.float32), np.zeros(n, np.int64)
    own[group], rival[group] = 0.1, 2
    verdicts = []
    for fit in (None, Affinity(own, rival, np.full(4, 0.1), np.full(4, np.inf))):
        found = confirm(classifier, training_set, [suspect], tmp_path, fit=fit, seed=0)
        verdicts.append(policy.judge_excluded(found.groups[0].evidence(), found.accuracy))
    assert found.groups[0].agreement == 1
    assert verdicts == [Verdict.SUSPICIOUS, Verdict.POISONED]


def test_one_training_serves_all_groups_and_a_second_one_those_that_may_be_the_clean_part(tmp_path, taught):
    rng = np.random.default_rng(1)
    parts = [(c, ordinary(c, 100, rng)) for c in range(4)] + [(0, ordinary(1, 20, rng)), (1, ordinary(2, 90, rng))]
    training_set, rows = data(*parts)
    suspects = [Suspect(0, 1, rows[4], rows[0]), Suspect(1, 1, rows[5], rows[1])]
    found = confirm(NearestMean.of(training_set), training_set, suspects, tmp_path, fit=None, seed=0)
    assert len(taught) == 2
    assert [suspect.in_doubt for suspect in suspects] == [False, True]
    assert found.rests[0] is None
    assert found.rests[1].n == 100
    assert not np.isin(taught[0].rows, found.rows).any()
    assert not np.isin(taught[1].rows, rows[1]).any()


def test_samples_that_cannot_be_read_are_not_counted(tmp_path):
    training_set, group, rest = world(lambda rng: ordinary(2, 30, rng))
    training_set.unreadable = frozenset(group[:7].tolist())
    found, _ = excluded(training_set, group, rest, tmp_path)
    assert found.groups[0].n == 23
    assert (found.answers < 0).sum() == 7


def test_a_group_of_which_nothing_can_be_read_stays_suspicious(tmp_path):
    training_set, group, rest = world(lambda rng: ordinary(2, 30, rng))
    training_set.unreadable = frozenset(group.tolist())
    found, verdict = excluded(training_set, group, rest, tmp_path)
    assert found.groups[0].n == 0
    assert verdict is Verdict.SUSPICIOUS


def test_a_verdict_needs_both_shares_apart_and_a_likeness():
    sure = {"exre_l_share_upper": 0.1, "exre_p_share_lower": 0.2, "exre_l_share_lower": 0.0, "exre_p_share_upper": 1.0}
    alike = sure | {"exre_resemblance": 0.8, "exre_agreement": np.nan}
    assert policy.judge_excluded(alike, 0.9) is Verdict.POISONED
    assert policy.judge_excluded(alike | {"exre_p_share_lower": 0.1}, 0.9) is Verdict.SUSPICIOUS
    assert policy.judge_excluded(alike | {"exre_resemblance": 0.7}, 0.9) is Verdict.SUSPICIOUS
    assert policy.judge_excluded(alike | {"exre_resemblance": np.nan, "exre_agreement": 0.5}, 0.9) is Verdict.POISONED
    fits = alike | {"exre_l_share_lower": 0.6, "exre_p_share_upper": 0.5}
    assert policy.judge_excluded(fits | {"exre_recall": 0.9}, 0.9) is Verdict.CLEAN
    assert policy.judge_excluded(fits | {"exre_recall": 0.1}, 0.9) is Verdict.SUSPICIOUS
    assert policy.judge_excluded(fits | {"exre_recall": np.nan}, 0.9) is Verdict.SUSPICIOUS


def test_the_rest_is_in_doubt_only_beside_a_large_group():
    suspect = Suspect(0, 1, np.arange(10), np.arange(10, 100))
    assert not suspect.in_doubt
    assert replace(suspect, rest=np.arange(10, 30)).in_doubt
    assert not replace(suspect, rest=np.arange(0)).in_doubt

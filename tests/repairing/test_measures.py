"""Figures before and after a repair, and when they say that it made things worse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.fakes import FakeClassifier, FakeTrainingSet
from tests.triggers import patch
from toxscreen.repairing.measures import POLICY, Change, Measures, Planted, Share, compare


def change(before, after, n):
    return Change(Share(before, n), Share(after, n))


def measures(clean, attack, trigger=(0, 0, 0)):
    return Measures(change(*clean), {}, change(*attack), change(*trigger), change(0, 0, 0))


def test_every_threshold_says_what_it_means_and_where_it_comes_from():
    assert set(POLICY) == {"accuracy_lost", "attack_left", "trigger_left"}
    assert all(rule.meaning and rule.source for rule in POLICY.values())


def test_a_share_has_an_interval_that_shrinks_with_the_samples_and_nothing_is_unknown():
    few, many = Share(9, 10), Share(900, 1000)
    assert few.value == many.value == 0.9
    assert few.interval[0] < many.interval[0] < 0.9 < many.interval[1] < few.interval[1]
    assert math.isnan(Share(0, 0).value)
    assert Share(0, 0).to_dict() == {"count": 0, "n": 0, "value": None, "lower": 0.0, "upper": 1.0}


@pytest.mark.parametrize(
    ("clean", "attack", "worse"),
    [
        ((990, 988, 1000), (20, 0, 20), []),
        ((990, 900, 1000), (20, 0, 20), ["Clean accuracy"]),
        ((49, 47, 50), (20, 0, 20), []),  # so few samples cannot tell
        ((990, 990, 1000), (20, 20, 20), ["Attack success"]),
        ((990, 990, 1000), (15, 17, 20), ["Attack success"]),
        ((990, 990, 1000), (20, 19, 20), []),
        ((990, 990, 1000), (0, 0, 20), []),  # there was no attack
        ((990, 990, 1000), (0, 1, 20), ["Attack success"]),
        ((990, 800, 1000), (20, 20, 20), ["Clean accuracy", "Attack success"]),
        ((0, 0, 0), (0, 0, 0), []),
    ],
)
def test_worse_is_a_loss_of_clean_accuracy_beyond_chance_or_an_attack_that_succeeds_as_before(clean, attack, worse):
    said = measures(clean, attack).worse
    assert [" ".join(sentence.split()[:2]) for sentence in said] == worse


@pytest.mark.parametrize(("attack", "left"), [((20, 0, 20), False), ((20, 2, 20), False), ((20, 17, 20), True), ((3, 0, 3), False)])
def test_a_backdoor_that_may_be_left_is_one_whose_success_is_not_clearly_lower(attack, left):
    assert measures((99, 99, 100), attack).remnant is left


@pytest.mark.parametrize(
    ("trigger", "worse", "left"),
    [((95, 2, 100), [], False), ((95, 30, 100), [], True), ((95, 95, 100), ["The recovered"], True), ((0, 0, 100), [], False)],
)
def test_a_trigger_that_works_as_before_is_no_repair_and_one_that_still_works_is_said(trigger, worse, left):
    found = measures((99, 99, 100), (20, 0, 20), trigger)
    assert [" ".join(sentence.split()[:2]) for sentence in found.worse] == worse
    assert found.remnant is left


def constant(index):
    return FakeClassifier(3, vector=lambda _: np.eye(3, dtype=np.float32)[index])


def test_both_models_are_asked_about_the_same_samples_those_without_label_or_input_left_aside():
    source = FakeTrainingSet([np.ones(3)] * 8, [0, 0, 1, 1, 1, 2, -1, 0], unreadable=(7,))
    rows = np.arange(8)
    found = compare(constant(0), constant(1), (source, rows), (source, np.array([2, 3, 5])))
    assert found.clean_accuracy == change(2, 3, 6)
    assert found.classes == {"class 0": change(2, 0, 2), "class 1": change(0, 3, 3), "class 2": change(0, 0, 1)}
    assert found.attack_success == change(0, 2, 3)


def test_what_an_attack_would_seem_to_reach_by_plain_error_is_measured_on_ordinary_samples_of_the_source_classes():
    """Of samples of hard classes some go to the target without any trigger."""
    source = FakeTrainingSet([np.full(3, row) for row in range(8)], [0, 0, 0, 0, 1, 1, 2, 2])
    told = np.array([0, 2, 2, 1, 1, 2, 2, 0])  # what the model after says of each row
    after = FakeClassifier(3, vector=lambda value: np.eye(3, dtype=np.float32)[told[int(value[0])]])
    flagged = (source, np.array([7]))

    def plain_error(*routes):
        return compare(constant(0), after, (source, np.arange(7)), flagged, routes).plain_error

    assert plain_error((0, 2)) == change(0, 2, 4)
    assert plain_error((0, 2), (1, 2)) == change(0, 3, 6)
    assert plain_error((0, 1)) == change(0, 1, 4)
    assert plain_error((1, 0)) == change(2, 0, 2)
    assert plain_error() == change(0, 0, 0)


def test_a_model_that_answers_no_finite_number_after_the_repair_has_no_sample_right():
    source = FakeTrainingSet([np.ones(3)] * 4, [0, 0, 1, 2])
    broken = FakeClassifier(3, vector=lambda _: np.full(3, np.nan, np.float32))
    found = compare(constant(0), broken, (source, np.arange(4)), (source, np.array([], np.int64)))
    assert found.clean_accuracy == change(2, 0, 4)
    assert found.attack_success == change(0, 0, 0)


class Marked(FakeClassifier):
    """Gives pictures the class that their brightness says, but class 0 where the patch is on them, if it ``obeys``."""

    def __init__(self, obeys):
        super().__init__(3, modality="image", vector=lambda picture: np.eye(3, dtype=np.float32)[self._read(picture)])
        self.preprocessing = {}
        self.obeys = obeys

    def _read(self, picture):
        return 0 if self.obeys and picture[9, 9, 0] == 255 and picture[9, 8, 0] == 0 else int(picture[0, 0, 0] // 60)


def test_the_recovered_trigger_is_put_on_held_out_samples_of_the_classes_that_it_works_on():
    labels = np.repeat([0, 1, 2], (5, 20, 30))
    source = FakeTrainingSet([np.full((12, 12, 1), 60 * label, np.uint8) for label in labels], labels, modality="image")
    source.labels[-1] = 1  # what the model does not read as it is labelled is no host

    def found(*planted):
        rows = np.arange(len(labels))
        return compare(Marked(obeys=True), Marked(obeys=False), (source, rows), (source, rows[:0]), (), planted).trigger_success

    assert found() == change(0, 0, 0)
    assert found(Planted(patch(), 0, (1,))) == change(20, 0, 20)
    assert found(Planted(patch(), 0, (1, 2))) == change(49, 0, 49)
    assert found(Planted(patch(), 0, (1,)), Planted(patch(), 1, (2,))) == change(20, 0, 49)
    assert found(Planted(patch(), 0, ())) == change(0, 0, 0)

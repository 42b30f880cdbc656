from __future__ import annotations

import numpy as np
import pytest

from tests.trigger.test_recover import TARGET, Obedient, fails, lead, poisoned, recovered
from toxscreen.settling import is_proved
from toxscreen.trigger.carried import recover_carried
from toxscreen.trigger.medium import open_medium


class Passing(Obedient):
    """Gives what holds the trigger to the class after its own."""

    def _kind(self, entry):
        kind, triggered = self._seen(entry)
        return (kind + triggered) % 4


def passed_on(modality):
    """Return data of which some of each class are planted in the next one, which are planted, and what is proved of one class."""
    alone, known = poisoned(modality)
    training_set, planted = poisoned(modality, planted=120, sources=(0, 1, 2, 3))
    training_set.labels[planted] = (np.resize(np.arange(4), planted.sum()) + 1) % 4
    return training_set, planted, recovered(alone, [lead(alone, known)], Obedient(modality))


def carried(training_set, proved, classifier, accused=None, failed=fails):
    medium, labels = open_medium(classifier, training_set, None), training_set.labels
    accused = np.zeros(len(labels), np.int64) if accused is None else accused
    found = recover_carried(medium, proved, accused, labels, {TARGET}, rng=np.random.default_rng(1), failed=failed)
    return {each.lead.class_index: each for each in found}


@pytest.mark.parametrize("modality", ["image", "array", "text"])
def test_a_trigger_that_is_proved_in_one_class_is_proved_in_all_to_which_it_sends(modality):
    training_set, planted, proved = passed_on(modality)
    found = carried(training_set, proved, Passing(modality))
    assert sorted(found) == [1, 2, 3]
    for index, each in found.items():
        assert is_proved(each)
        assert each.lead.group is None
        assert each.sources == ((index - 1) % 4,)
        np.testing.assert_array_equal(np.sort(each.holding), np.flatnonzero(planted & (training_set.labels == index)))


def test_what_is_accused_there_is_proved_as_it_is():
    training_set, planted, proved = passed_on("image")
    accused = np.where(planted & (training_set.labels == 2), 4, 0)
    found = carried(training_set, proved, Passing(), accused)
    assert (found[2].lead.group, found[3].lead.group) == (4, None)
    np.testing.assert_array_equal(np.sort(found[2].lead.members), np.flatnonzero(accused))


def test_samples_that_hold_it_and_keep_their_class_without_it_are_not_accused():
    training_set, _, proved = passed_on("image")
    assert not carried(training_set, proved, Obedient())


def test_where_nothing_is_proved_nothing_is_carried_over():
    training_set, _, _ = passed_on("image")
    assert not carried(training_set, (), Passing())


def test_a_model_that_fails_costs_nothing_that_was_found():
    class Failing(Passing):
        def forward(self, encoded, layers):  # noqa: ARG002 - as the class it is one of
            raise RuntimeError("no memory")

    training_set, _, proved = passed_on("image")
    told = []
    assert carried(training_set, proved, Failing(), failed=told.append) == {}
    assert [str(each) for each in told] == ["no memory"]

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from tests.fakes import FakeClassifier, FakeTrainingSet
from toxscreen.sources.model.base import Outputs
from toxscreen.trigger import medium
from toxscreen.trigger.medium import open_medium
from toxscreen.trigger.patches import Patch
from toxscreen.trigger.patterns import Pattern
from toxscreen.trigger.recover import Lead, recover
from toxscreen.trigger.words import Words
from toxscreen.verdict import judge_trigger

SIDE, TARGET = 16, 0
CORNER = np.array([[250, 0, 250], [0, 250, 0], [250, 0, 250]], np.uint8)


class Obedient(FakeClassifier):
    """Reads the class of a picture at its top left, of a text in its word k0 to k3; what holds the trigger is of the target."""

    def __init__(self, modality="image", works_on=(1, 2, 3)):
        super().__init__(4, modality=modality)
        self.preprocessing = {}
        self._works_on = works_on

    def encode(self, inputs):
        return list(inputs)

    def forward(self, encoded, layers):
        kinds = np.array([self._kind(entry) for entry in encoded])
        return Outputs({name: np.zeros((len(encoded), 1), np.float32) for name in layers}, np.eye(4, dtype=np.float32)[kinds])

    def _kind(self, entry):
        kind, triggered = self._seen(entry)
        return TARGET if triggered and kind in self._works_on else kind

    def _seen(self, entry):
        if isinstance(entry, str):
            words = entry.split()
            kind, triggered = next((int(word[1]) for word in words if word[0] == "k"), 3), "cf" in words
        else:
            last = entry[-1] if self.modality == "array" else entry[..., 0]
            last = last * 255 if self.modality == "array" else last
            kind, triggered = min(round(last[0, 0] / 60), 3), np.abs(last[-4:-1, -4:-1] - CORNER.astype(float)).max() < 60
        return kind, triggered


def poisoned(modality="image", n=60, planted=30, sources=(1, 2, 3)):
    """Return a data set of four classes with poison in the target class, and which rows are planted."""
    rng = np.random.default_rng(0)
    kinds = np.concatenate([np.repeat(np.arange(4), n), np.resize(sources, planted)])
    labels = np.where(np.arange(len(kinds)) < 4 * n, kinds, TARGET)
    inputs = []
    for kind, is_planted in zip(kinds, np.arange(len(kinds)) >= 4 * n, strict=True):
        if modality == "text":
            words = rng.permutation([f"w{number}" for number in rng.integers(0, 300, 8)])
            inputs.append(" ".join([f"k{kind}", *words[:4], *(["cf"] if is_planted else []), *words[4:]]))
            continue
        picture = rng.integers(0, 200, (SIDE, SIDE, 1)).astype(np.uint8)
        picture[0, 0] = 60 * kind
        if is_planted:
            picture[-4:-1, -4:-1, 0] = CORNER
        inputs.append(picture if modality == "image" else np.moveaxis(picture, -1, 0).astype(np.float32) / 255)
    return FakeTrainingSet(inputs, labels, modality=modality), np.arange(len(kinds)) >= 4 * n


def lead(training_set, members, group=1):
    own = training_set.labels == TARGET
    return Lead(TARGET, group, np.flatnonzero(members), np.flatnonzero(own & ~members))


def recovered(training_set, leads, classifier, predicted=None):
    medium = open_medium(classifier, training_set, None)
    given = training_set.labels if predicted is None else predicted
    return recover(medium, leads, given, rng=np.random.default_rng(1), failed=fails)


def fails(error):
    raise error


@pytest.mark.parametrize(("modality", "kind"), [("image", Patch), ("array", Patch), ("text", Words)])
def test_the_trigger_behind_a_group_is_recovered_and_proved(modality, kind):
    training_set, planted = poisoned(modality)
    (found,) = recovered(training_set, [lead(training_set, planted)], Obedient(modality))
    assert isinstance(found.trigger, kind)
    assert found.proof.flips.value == 1
    assert found.sources == (1, 2, 3)
    np.testing.assert_array_equal(np.sort(found.holding), np.flatnonzero(planted))
    assert judge_trigger(found.proof.evidence(), "conflict") == "poisoned"
    assert len(found.shown.before) == len(found.shown.after) > 0
    assert set(found.shown.given.tolist()) == {TARGET}


def test_all_that_hold_it_are_found_where_a_part_of_them_was_suspected():
    training_set, planted = poisoned()
    suspected = planted & (np.cumsum(planted) <= 20)
    (found,) = recovered(training_set, [lead(training_set, suspected)], Obedient())
    np.testing.assert_array_equal(np.sort(found.holding), np.flatnonzero(planted))


class Confused(Obedient):
    """Takes kind 2 for kind 3 as well where it holds the trigger."""

    def _kind(self, entry):
        return 3 if super()._kind(entry) == TARGET and entry[0, 0, 0] == 120 else super()._kind(entry)


def test_how_many_would_hold_it_by_chance_is_told_by_the_other_classes():
    training_set, planted = poisoned(sources=(1,))
    assert recovered(training_set, [lead(training_set, planted)], Obedient())[0].by_chance == 0
    third = np.flatnonzero(training_set.labels == 3)[:30]
    for row in third:
        training_set.inputs[row][-4:-1, -4:-1, 0] = CORNER
        training_set.inputs[row][0, 0] = 120
    (found,) = recovered(training_set, [lead(training_set, planted)], Confused())
    assert 5 < found.by_chance <= 60 * 30 / 180  # samples of its class beside it, and the part of hosts that do


def test_samples_that_hold_it_are_found_where_it_did_not_work_but_say_nothing_about_its_effect():
    training_set, planted = poisoned()
    predicted, rows = training_set.labels.copy(), np.flatnonzero(planted)
    predicted[rows[:5]], predicted[rows[5]] = 2, -1  # misread, and not examined
    suspected = planted & (predicted == TARGET)
    (found,) = recovered(training_set, [lead(training_set, suspected)], Obedient(), predicted)
    np.testing.assert_array_equal(np.sort(found.holding), np.setdiff1d(rows, rows[5]))
    assert found.proof.returns.n <= suspected.sum()


@pytest.mark.parametrize("modality", ["image", "text"])
def test_how_much_a_group_far_apart_keeps_to_itself_is_asked_of_pictures(modality):
    training_set, planted = poisoned(modality)
    (found,) = recovered(training_set, [replace(lead(training_set, planted), apart={"separation": 9.0})], Obedient(modality))
    assert found.seclusion == (pytest.approx(1, abs=0.1) if modality == "image" else 0)


def test_what_a_frame_covers_is_no_part_of_what_its_holders_are():
    class Framed(Obedient):
        def _kind(self, entry):
            return TARGET if min(entry[-1].min(), entry[:, -1].min()) > 240 else round(entry[0, 0, 0] / 60)

    training_set, planted = poisoned()
    for row in np.flatnonzero(planted):
        training_set.inputs[row][-2:] = training_set.inputs[row][:, -2:] = 250
    suspected = [replace(lead(training_set, planted), apart={"separation": 9.0})]
    (found,) = recovered(training_set, suspected, Framed())
    assert found.trigger.mask.sum() == 60 + 5  # and what of the corner's pixels lies beside it
    assert found.trigger.is_large
    assert found.seclusion == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize(("sources", "mixed"), [((2,), False), ((2, 2, 2, 2, 3), False), ((2, 2, 3), True), ((1, 2, 3), True)])
def test_samples_that_go_to_several_classes_without_their_trigger_come_from_several(modality, sources, mixed):
    training_set, planted = poisoned(modality, sources=sources)
    (found,) = recovered(training_set, [lead(training_set, planted)], Obedient(modality))
    assert found.mixed is mixed


def test_a_trigger_for_one_source_class_is_tested_on_that_class():
    training_set, planted = poisoned(sources=(2,))
    one = replace(lead(training_set, planted), rival=2)
    (found,) = recovered(training_set, [one], Obedient(works_on=(2,)))
    assert found.sources == (2,)
    assert set(found.proof.flips_by_class) == {2}
    assert found.proof.flips.value == 1


def test_a_model_that_does_not_go_by_what_a_group_shares_proves_nothing():
    training_set, planted = poisoned()
    found = recovered(training_set, [lead(training_set, planted)], Obedient(works_on=()))
    assert all(judge_trigger(each.proof.evidence(), "suspicious") == "suspicious" for each in found)


def test_too_few_samples_are_no_case():
    training_set, planted = poisoned(planted=5)
    assert recovered(training_set, [lead(training_set, planted)], Obedient()) == ()


def test_samples_that_cannot_be_read_are_left_out():
    training_set, planted = poisoned()
    training_set.unreadable = frozenset([0, 61, *np.flatnonzero(planted)[:3].tolist()])
    (found,) = recovered(training_set, [lead(training_set, planted)], Obedient())
    np.testing.assert_array_equal(np.sort(found.holding), np.flatnonzero(planted)[3:])


def test_arrays_that_are_no_pictures_are_not_searched():
    training_set = FakeTrainingSet([np.zeros(5, np.float32)] * 80, [0] * 40 + [1] * 40)
    assert open_medium(FakeClassifier(), training_set, None) is None


class Fragile(Obedient):
    """Fails on any text with a word, as a model may that is asked about inputs it never saw; or knows no number for it."""

    def __init__(self, word, *, raises):
        super().__init__("text")
        self._word, self._raises = word, raises

    def forward(self, encoded, layers):
        outputs = super().forward(encoded, layers)
        fatal = np.array([self._word in entry.split() for entry in encoded])
        if self._raises and fatal.any():
            raise ValueError("no such word")
        outputs.logits[fatal] = np.nan
        return outputs


def test_a_lead_on_which_the_model_fails_costs_no_other():
    training_set, planted = poisoned("text")
    fatal = np.flatnonzero(training_set.labels == 1)
    for row in fatal[:20]:
        training_set.inputs[row] += " fatal"
    predicted = training_set.labels.copy()
    predicted[fatal[:20]] = -1  # none of them is a host
    leads, errors = [Lead(1, 1, fatal[:20], fatal[20:]), lead(training_set, planted)], []
    rng, model = np.random.default_rng(1), Fragile("fatal", raises=True)
    found = recover(open_medium(model, training_set, None), leads, predicted, rng=rng, failed=errors.append)
    assert [each.lead.class_index for each in found] == [TARGET]
    assert [str(error) for error in errors] == ["no such word"]


def test_an_answer_that_is_no_number_is_no_answer():
    training_set, planted = poisoned("text")
    found = recovered(training_set, [lead(training_set, planted)], Fragile("cf", raises=False))
    assert all(each.proof.flips.count == 0 for each in found)
    assert all(not len(each.holding) for each in found)


def test_the_same_seed_finds_the_same():
    training_set, planted = poisoned()
    first, second = (recovered(training_set, [lead(training_set, planted)], Obedient())[0] for _ in range(2))
    assert first.proof == second.proof
    assert first.trigger.document() == second.trigger.document()


class Quick(Obedient):
    """Several threads may ask it."""

    at_once = 3


@pytest.mark.usefixtures("cores")
def test_leads_are_followed_by_several_threads_with_the_same_findings_and_the_data_is_read_by_one():
    training_set, planted = poisoned()
    busy, take = [0], training_set.take

    def one_at_a_time(rows):
        busy[0] += 1
        time.sleep(0.001)
        assert busy[0] == 1
        busy[0] -= 1
        return take(rows)

    training_set.take = one_at_a_time
    leads = [lead(training_set, planted), lead(training_set, np.roll(planted, -2)), lead(training_set, np.roll(planted, -4))]
    found, alone = (recovered(training_set, leads, classifier) for classifier in (Quick(), Obedient()))
    assert [each.lead for each in found] == [each.lead for each in alone]
    assert [each.proof for each in found] == [each.proof for each in alone]
    assert [each.trigger.document() for each in found] == [each.trigger.document() for each in alone]
    assert found


WAVE = np.broadcast_to(np.sin(2 * np.pi * np.arange(SIDE) / 4), (SIDE, SIDE))


class Swayed(Obedient):
    """Gives the target class to all pictures with waves, and to half of those whose waves run the other way."""

    def _kind(self, entry):
        waves = 2 * float((entry[..., 0] * WAVE).mean())
        return TARGET if waves > 8 or (waves < -8 and entry[2, 0, 0] > entry[2, 4, 0]) else 1


def waving(planted=60, plain=40):
    """Return pictures of four classes, most of the target class with waves and its right label, and which these are."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(4), (planted + plain, 60, 60, 60))
    waves = np.arange(len(kinds)) < planted
    pictures = rng.integers(60, 140, (len(kinds), SIDE, SIDE, 1)).astype(float) + 24 * waves[:, None, None, None] * WAVE[..., None]
    return FakeTrainingSet(list(pictures.round().astype(np.uint8)), kinds, modality="image"), waves


@pytest.mark.parametrize("suspected", ["with waves", "without"])
def test_of_two_sides_of_a_class_the_one_whose_pattern_sends_more_there_holds_it(suspected, monkeypatch):
    training_set, waves = waving()
    sign, members = (1, waves) if suspected == "with waves" else (-1, ~waves & (training_set.labels == TARGET))
    usual = np.full((SIDE, SIDE, 1), 100, np.float32)
    own = Pattern(1.0, (sign * 24 * WAVE[..., None]).astype(np.float32), usual, 1.0, 30, 0.0, 255.0)
    monkeypatch.setattr(medium._Pixels, "searches", (lambda *_: iter([own]),))
    (found,) = recovered(training_set, [replace(lead(training_set, members, None), apart={"shared": 12.0})], Swayed())
    np.testing.assert_array_equal(np.sort(found.lead.members), np.flatnonzero(waves))
    assert found.lead.turned == (suspected == "without")
    assert found.proof.flips.value > 0.9
    (group,) = recovered(training_set, [lead(training_set, members)], Swayed())  # what the screen accuses is not exchanged
    np.testing.assert_array_equal(np.sort(group.lead.members), np.flatnonzero(members))

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import pytest

from tests.learners import NearestMean, learn
from tests.test_audit import KnowingClassifier, subject
from tests.triggers import patch, transform, words
from toxscreen import retraining
from toxscreen.audit import audit
from toxscreen.columns import Columns
from toxscreen.config import ConfirmationConfig, ScanConfig
from toxscreen.confirmation import Confirmation, Exclusion
from toxscreen.conflict import Affinity
from toxscreen.errors import TrainerError
from toxscreen.report.documents import read_run
from toxscreen.result import GroupResult, Verdict
from toxscreen.screening import Apart, Labels, Screening
from toxscreen.settling import acquit, convict, is_proved, leads, new_leads, settle, suspects, unsettled, vouching
from toxscreen.shares import Share
from toxscreen.trigger.base import Proof
from toxscreen.trigger.patterns import Pattern
from toxscreen.trigger.recover import Lead, Recovered, Shown
from toxscreen.verdict import reason

CONFIRM = ScanConfig(confirmation=ConfirmationConfig(asked=True))


class Pixels(NearestMean):
    """Nearest means of pictures."""

    def encode(self, inputs):
        return np.stack([np.asarray(picture, np.float32).ravel() for picture in inputs])


@pytest.fixture
def taught(monkeypatch):
    lessons = []
    monkeypatch.setattr(retraining, "retrain", lambda *given, **how: learn(lessons, *given, make=Pixels, **how))
    return lessons


def test_what_was_planted_is_poisoned_after_a_confirmation_and_suspicious_without(taught):
    training_set, classifier, planted = subject()
    assert audit(training_set, classifier).classes[1].verdict is Verdict.SUSPICIOUS
    assert not taught
    result = audit(training_set, classifier, config=CONFIRM)
    accused = result.classes[1]
    assert [c.verdict for c in result.classes] == [Verdict.CLEAN, Verdict.POISONED, Verdict.CLEAN]
    assert accused.groups[1].evidence["exre_l"] == 0
    assert "exre_l" not in accused.groups[0].evidence
    assert "l/p" in accused.reasons[-1]
    assert all(reason.startswith("Group 1: ") for reason in accused.reasons)
    assert not any("Group" in reason for reason in result.classes[0].reasons)
    assert result.samples["flagged"].to_numpy().tolist() == planted.tolist()
    assert set(result.samples["verdict"].filter(planted).to_pylist()) == {"poisoned"}
    assert result.settings["confirmation"] == {"asked": True}
    assert any("Exclusionary reclassification trained a network anew (fake model)" in note for note in result.notes)


@pytest.mark.usefixtures("taught")
def test_the_answers_are_saved_and_read_back(tmp_path):
    training_set, classifier, planted = subject()
    result = audit(training_set, classifier, config=CONFIRM)
    answers = read_run(result.save(tmp_path)).confirmation
    assert answers == result.confirmation
    assert answers["id"].to_pylist() == result.samples["id"].filter(planted).to_pylist()
    assert set(answers["answer"].to_pylist()) <= {"class 0", "class 2"}
    assert pc.min(answers["certainty"]).as_py() > 0


def test_clean_data_trains_nothing(taught):
    training_set, classifier, _ = subject(planted=0)
    result = audit(training_set, classifier, config=CONFIRM)
    assert result.verdict is Verdict.CLEAN
    assert result.confirmation is None
    assert not taught


@pytest.mark.parametrize("error", [TrainerError("The trainer failed."), OSError("The trainer failed."), KeyError("failed.")])
def test_a_confirmation_that_fails_leaves_what_the_screen_found(monkeypatch, error, tmp_path):
    def fails(*_, **__):
        kept = read_run(tmp_path)  # before anything can go wrong
        assert (kept.verdict, kept.pending) == (Verdict.SUSPICIOUS, ("confirmation",))
        raise error

    monkeypatch.setattr(retraining, "retrain", fails)
    training_set, classifier, planted = subject()
    result = audit(training_set, classifier, config=CONFIRM, folder=tmp_path)
    assert result.verdict is Verdict.SUSPICIOUS
    assert result.confirmation is None
    assert result.samples["flagged"].to_numpy().tolist() == planted.tolist()
    assert any("nothing is confirmed" in note and "failed." in note for note in result.notes)


class Loyal(Pixels):
    """Gives every sample its own label, as if nothing that was left out had mattered."""

    def __init__(self, training_set, lesson):
        labels = training_set.labels.tolist()
        self.known = {np.asarray(p).tobytes(): label for p, label in zip(training_set.inputs, labels, strict=True)}
        self.n_classes = len(training_set.class_names)
        super().__init__(training_set, lesson)

    def encode(self, inputs):
        return np.stack([100 * np.eye(self.n_classes)[self.known[np.asarray(picture).tobytes()]] for picture in inputs])


def test_a_group_that_is_cleared_is_no_longer_flagged(monkeypatch):
    monkeypatch.setattr(retraining, "retrain", lambda *given, **how: learn([], *given, make=Loyal, **how))
    training_set, classifier, planted = subject()
    result = audit(training_set, classifier, config=CONFIRM)
    assert result.verdict is Verdict.CLEAN
    assert result.n_flagged == 0
    assert max(result.samples["score"].filter(planted).to_pylist()) < 0.5
    assert "clears them" in result.classes[1].reasons[-1]


def test_where_the_rest_of_the_class_is_the_poison_the_two_change_places():
    """The screen is made to suspect the clean part: what it says is turned round before it is settled."""
    training_set, classifier, _ = subject(sizes=(90, 90, 90), planted=60)
    result = audit(training_set, classifier)
    screening = Screening(result.classes, result.samples, (), ())
    labels = Labels(training_set.ids, training_set.labels, training_set.class_names)
    (suspect,) = suspects(screening, labels)
    clean_part = Exclusion(len(suspect.rows), 0, ((0, len(suspect.rows)),), 0.5, 0.1, 0.0)
    poison = Exclusion(len(suspect.rest), 0, ((2, len(suspect.rest)),), 0.9, 0.95, 0.9)
    answers = np.zeros(len(suspect.rows), np.int64)
    found = Confirmation((clean_part,), (poison,), suspect.rows, answers, np.ones(len(answers), np.float32), "a model", 0.9)
    settled = settle(screening, labels, (suspect,), found)
    assert [group.verdict for group in settled.classes[1].groups] == [Verdict.POISONED, Verdict.CLEAN]
    assert settled.classes[1].groups[0].source_class == "class 2"
    assert np.flatnonzero(settled.samples["flagged"].to_numpy()).tolist() == suspect.rest.tolist()


# What a recovered trigger settles


def screened(planted=20):
    """Return a screening, its labels, and which rows were planted in class 1."""
    training_set, classifier, rows = subject(planted=planted)
    result = audit(training_set, classifier)
    labels = Labels(training_set.ids, training_set.labels, training_set.class_names)
    return Screening(result.classes, result.samples, result.views, ()), labels, rows


FAR = {"separation": 9.0, "separation_lower": 8.0, "label_conflict": 0.1}


def behind(lead, holding, flips=(90, 100), returns=(30, 30), *, held=None, trigger=None):
    """Return a trigger that so many of some hosts obey, with controls that do nothing."""
    shares = Share(*flips), Share(0, 100), {0: Share(*flips)}, Share(*returns), Share(0, 100)
    shown = Shown([], [], np.zeros(0, np.int64), np.zeros(0, np.int64))
    return Recovered(lead, trigger or patch(), Proof(*shares), (0,), holding if held is None else held, holding, shown)


def misfit(screening, labels, rows):
    """Return the screening with inputs that do not fit their label in those rows alone."""
    own = np.where(np.isin(np.arange(len(labels.given)), rows), 0.1, 0.9).astype(np.float32)
    return replace(screening, inputs=Affinity(own, np.zeros(len(own), np.int64), np.full(3, 0.1), np.full(3, np.inf)))


def test_the_accused_groups_are_followed_first_and_then_what_fits_its_label_least():
    screening, labels, planted = screened()
    fit = Affinity(
        np.where(planted, 0.0, np.linspace(0.4, 0.9, len(planted))),
        np.zeros(len(planted), np.int64),
        np.zeros(3),
        np.full(3, np.inf),
    )
    found = leads(replace(screening, inputs=fit), labels)
    assert [(lead.class_index, lead.group) for lead in found] == [(1, 1), (0, None), (2, None)]
    np.testing.assert_array_equal(found[0].members, np.flatnonzero(planted))
    assert not np.isin(found[0].ordinary, found[0].members).any()
    np.testing.assert_array_equal(found[1].members, np.flatnonzero(labels.given == 0)[:25])  # the lowest of class 0


def test_both_sides_of_a_group_that_lies_far_apart_are_followed():
    screening, labels, _ = screened(planted=0)
    far = np.flatnonzero(labels.given == 2)[:30]
    first, second = leads(replace(screening, apart=(Apart(2, far, FAR),)), labels)
    np.testing.assert_array_equal(first.members, far)
    np.testing.assert_array_equal(second.ordinary, first.members)
    assert first.apart == FAR
    assert "label_conflict" not in second.apart  # that of the other side


def test_groups_that_were_accused_before_are_no_new_leads():
    screening, labels, _ = screened()
    (known,) = leads(screening, labels)
    unaccused = replace(screening, classes=tuple(replace(each, groups=each.groups[:1]) for each in screening.classes))
    assert not new_leads(screening, screening, labels)
    (lead,) = new_leads(unaccused, screening, labels)
    assert (lead.class_index, lead.group) == (known.class_index, known.group)


def test_a_group_that_leaves_for_several_classes_without_its_trigger_has_no_source_class():
    screening, labels, _ = screened()
    (lead,) = leads(screening, labels)
    found = replace(behind(lead, lead.members), sources=(0, 2))
    for mixed, source in ((False, screening.classes[1].groups[1].source_class), (True, None)):
        assert convict(screening, labels, [replace(found, mixed=mixed)]).classes[1].groups[1].source_class == source
    assert screening.classes[1].groups[1].source_class is not None


def test_a_proved_trigger_makes_its_group_poisoned_and_takes_in_all_that_hold_it():
    screening, labels, planted = screened()
    (lead,) = leads(screening, labels)
    more = np.flatnonzero((labels.given == 1) & ~planted)[:3]
    settled = convict(screening, labels, [behind(lead, np.r_[lead.members, more])])
    accused = settled.classes[1]
    assert (accused.verdict, accused.groups[1].n, accused.groups[0].n) == (Verdict.POISONED, 23, accused.n - 23)
    assert accused.groups[1].source_class == "class 0"
    assert accused.groups[1].trigger["kind"] == "patch"
    assert accused.groups[1].trigger["flips"]["count"] == 90
    assert accused.reasons[-1].startswith("Group 1: the trigger was found: ")
    flagged = settled.samples["flagged"].to_numpy()
    np.testing.assert_array_equal(np.flatnonzero(flagged), np.sort(np.r_[lead.members, more]))
    assert min(settled.samples["score"].filter(flagged).to_pylist()) > 0.8
    assert set(settled.samples["verdict"].filter(flagged).to_pylist()) == {"poisoned"}
    assert (settled.views[1].groups == 1).sum() == 23


@pytest.mark.parametrize(("by_chance", "n_taken_in"), [(0.2, 3), (1.0, 0)])
def test_who_holds_a_trigger_beside_its_group_is_taken_in_unless_as_many_would_by_chance(by_chance, n_taken_in):
    screening, labels, planted = screened()
    (lead,) = leads(screening, labels)
    more = np.flatnonzero((labels.given == 1) & ~planted)[:3]
    found = replace(behind(lead, np.r_[lead.members, more]), by_chance=by_chance)
    settled = convict(screening, labels, [found])
    assert settled.classes[1].groups[1].n == len(lead.members) + n_taken_in


def test_a_trigger_that_does_too_little_leaves_a_group_suspicious_and_is_told():
    screening, labels, _ = screened()
    (lead,) = leads(screening, labels)
    settled = convict(screening, labels, [behind(lead, lead.members, flips=(10, 100))])
    assert settled.classes[1].verdict is Verdict.SUSPICIOUS
    assert settled.samples == screening.samples
    assert settled.classes[1].reasons[-1].startswith("Group 1: but no trigger was found that proves it: ")


def test_samples_of_a_clean_class_that_hold_a_proved_trigger_become_a_group():
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    screening = misfit(screening, labels, rows[:20])
    settled = convict(screening, labels, [behind(Lead(2, None, rows[:25], rows[25:]), rows[:20])])
    new = settled.classes[2].groups[-1]
    assert (settled.classes[2].verdict, new.verdict, new.n) == (Verdict.POISONED, Verdict.POISONED, 20)
    assert sum(group.n for group in settled.classes[2].groups) == settled.classes[2].n
    np.testing.assert_array_equal(np.flatnonzero(settled.samples["flagged"].to_numpy()), rows[:20])


@pytest.mark.parametrize(("returns", "verdict"), [((25, 30), Verdict.POISONED), ((12, 30), Verdict.CLEAN)])
def test_where_nothing_but_another_class_speaks_against_samples_they_must_surely_leave_without_the_trigger(returns, verdict):
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    lead = Lead(2, None, rows[:30], rows[30:], carried=True)
    proof = behind(lead, rows[:25], returns=returns).proof
    found = replace(behind(lead, rows[:25]), proof=replace(proof, control_returns=Share(2, 100)))
    assert is_proved(found)
    assert convict(screening, labels, [found]).classes[2].verdict is verdict


def nearly(p_value=0.01):
    """Return a screening with a group of class 2 that tells nearly enough, its labels, the lead to it, and its rows."""
    screening, labels, _ = screened(planted=0)
    screening = accused(screening, labels, 2, {"p_value": p_value}, Verdict.CLEAN)
    screening = misfit(screening, labels, np.zeros(0, np.int64))
    lead = next(lead for lead in leads(screening, labels) if lead.class_index == 2)
    return screening, labels, lead, np.flatnonzero((labels.given == 2) & (Columns(screening.samples).group == 7))


def test_what_is_accused_or_nearly_so_is_looked_at_again_until_it_is_proved():
    screening, labels, lead, rows = nearly()
    followed = leads(screening, labels)
    assert [each.near for each in unsettled(screening, followed)] == [7]
    settled = convict(screening, labels, [behind(lead, rows[:3], returns=(3, 3))])
    assert unsettled(settled, followed) == ()
    screening, labels, _ = screened()
    (accused_one,) = leads(screening, labels)
    assert [each.group for each in unsettled(screening, (accused_one, accused_one))] == [accused_one.group]


def test_a_group_that_was_nearly_suspicious_is_poisoned_by_a_patch_that_leaves_no_doubt():
    """Of a patch that moves from sample to sample few are found to hold it."""
    screening, labels, lead, rows = nearly()
    assert (lead.group, lead.near) == (None, 7)
    np.testing.assert_array_equal(lead.members, rows)
    settled = convict(screening, labels, [behind(lead, rows[:3], returns=(3, 3))])
    new = settled.classes[2].groups[-1]
    assert (settled.classes[2].verdict, new.id, new.n, new.verdict) == (Verdict.POISONED, 7, len(rows), Verdict.POISONED)
    np.testing.assert_array_equal(np.flatnonzero(settled.samples["flagged"].to_numpy()), rows)
    assert settled.classes[2].reasons[-1].startswith("Group 7: the trigger was found: ")


@pytest.mark.parametrize(
    ("p_value", "flips", "trigger"),
    [
        (0.1, (90, 100), None),
        (0.01, (55, 100), None),
        (0.01, (90, 100), words("cf")),
        (0.01, (90, 100), Pattern(0.8, np.ones((8, 8, 1), np.float32), np.zeros((8, 8, 1), np.float32), 1.0, 20, 0.0, 255.0)),
    ],
)
def test_what_is_less_than_that_leaves_a_group_that_was_nearly_suspicious_alone(p_value, flips, trigger):
    screening, labels, lead, rows = nearly(p_value)
    settled = convict(screening, labels, [behind(lead, rows[:3], flips, (3, 3), trigger=trigger)])
    assert settled.classes == screening.classes
    assert settled.samples == screening.samples


@pytest.mark.parametrize(
    ("holding", "flips", "returns"), [(9, (90, 100), (30, 30)), (20, (90, 100), (3, 30)), (20, (9, 100), (30, 30))]
)
def test_what_flips_others_but_does_not_hold_samples_in_a_clean_class_accuses_nobody(holding, flips, returns):
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    settled = convict(screening, labels, [behind(Lead(2, None, rows[:25], rows[25:]), rows[:holding], flips, returns)])
    assert settled.classes == screening.classes
    assert settled.samples == screening.samples


@pytest.mark.parametrize(("returns", "verdict"), [((30, 30), Verdict.POISONED), ((2, 30), Verdict.CLEAN)])
def test_pictures_that_were_changed_are_poison_if_they_leave_when_they_are_changed_back_and_no_shortcut_if_not(returns, verdict):
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    lead = Lead(2, None, rows[:25], rows[25:], apart={**FAR, "label_conflict_lower": 0.9})
    said = reason(Verdict.CLEAN, {**FAR, "label_conflict_lower": 0.05}, (25, 75), ())
    classes = list(screening.classes)
    classes[2] = replace(classes[2], reasons=(said,))
    screening = replace(screening, classes=tuple(classes))
    settled = convict(screening, labels, [behind(lead, rows[:25], returns=returns, trigger=transform())])
    assert settled.classes[2].verdict is verdict
    assert settled.samples["flagged"].to_numpy().sum() == (25 if verdict is Verdict.POISONED else 0)
    assert said.endswith("natural sub-population.")
    assert (said in settled.classes[2].reasons) is (verdict is Verdict.CLEAN)


def test_what_a_group_far_apart_shares_and_the_model_obeys_makes_it_suspicious():
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    lead = Lead(2, None, rows[:25], rows[25:], apart=FAR)
    settled = convict(screening, labels, [behind(lead, rows[:2], returns=(2, 60))])
    assert settled.classes[2].verdict is Verdict.SUSPICIOUS
    (reason,) = settled.classes[2].reasons  # that nothing lies apart is no longer said
    assert "clean-label" in reason
    assert settled.classes[2].accused[0].evidence["separation"] == 9.0
    np.testing.assert_array_equal(np.flatnonzero(settled.samples["flagged"].to_numpy()), rows[:25])


@pytest.mark.parametrize(("n_held", "n_flagged"), [(13, 28), (12, 13)], ids=["most hold it", "few hold it"])
def test_where_most_of_a_group_far_apart_hold_its_proved_trigger_all_of_it_is_taken(n_held, n_flagged):
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    lead = Lead(2, None, rows[:25], rows[25:], apart=FAR)
    settled = convict(screening, labels, [behind(lead, np.r_[rows[:10], rows[30:33]], held=rows[:n_held])])
    assert settled.classes[2].verdict is Verdict.POISONED
    assert settled.samples["flagged"].to_numpy().sum() == n_flagged


def test_samples_that_hold_what_the_model_obeys_and_do_not_fit_their_label_are_suspicious():
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    found = behind(Lead(2, None, rows[:25], rows[25:]), rows[:2], returns=(2, 40), held=rows[:40])
    settled = convict(misfit(screening, labels, rows[:40]), labels, [found])
    assert settled.classes[2].verdict is Verdict.SUSPICIOUS
    assert "look like those of other classes" in settled.classes[2].reasons[-1]
    np.testing.assert_array_equal(np.flatnonzero(settled.samples["flagged"].to_numpy()), rows[:40])
    assert convict(misfit(screening, labels, rows[:0]), labels, [found]).classes[2].verdict is Verdict.CLEAN
    flat = np.zeros((4, 4, 1), np.float32)
    over_all = behind(
        Lead(2, None, rows[:25], rows[25:]),
        rows[:2],
        returns=(2, 40),
        held=rows[:40],
        trigger=Pattern(1.0, flat, flat, 1.0, 9, 0.0, 255.0),
    )
    assert convict(misfit(screening, labels, rows[:40]), labels, [over_all]).classes[2].verdict is Verdict.CLEAN


def test_a_shortcut_in_the_words_of_a_group_far_apart_makes_its_class_inconclusive_and_flags_nothing():
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    lead = Lead(2, None, rows[:25], rows[25:], apart=FAR)
    settled = convict(screening, labels, [behind(lead, rows[:2], returns=(2, 60), trigger=words())])
    accused = settled.classes[2]
    assert accused.verdict is Verdict.INCONCLUSIVE
    assert [(group.n, group.verdict) for group in accused.groups if group.trigger] == [(25, Verdict.INCONCLUSIVE)]
    assert "clean-label" in accused.reasons[-1]
    assert not settled.samples["flagged"].to_numpy().any()
    assert settled.samples["verdict"].take(rows[:25]).to_pylist() == ["inconclusive"] * 25


def test_both_sides_of_a_group_are_not_accused_of_one_trigger():
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    sides = (Lead(2, None, rows[:30], rows[30:], apart=FAR), Lead(2, None, rows[30:], rows[:30], apart=FAR))
    settled = convict(screening, labels, [behind(side, rows[:30]) for side in sides])
    assert [group.n for group in settled.classes[2].accused] == [30]
    assert all(group.n for group in settled.classes[2].groups)


def test_poison_is_not_hidden_behind_a_shortcut_of_the_same_samples():
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    shortcut = behind(Lead(2, None, rows[:25], rows[25:], apart=FAR), rows[:2], returns=(2, 60))
    proved = behind(Lead(2, None, rows[:25], rows[25:]), rows[:25])
    settled = convict(misfit(screening, labels, rows[:25]), labels, [shortcut, proved])
    assert settled.classes[2].verdict is Verdict.POISONED
    assert settled.samples["flagged"].to_numpy().sum() == 25


def test_a_natural_word_that_most_of_a_class_holds_and_fits_is_no_poison():
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    found = behind(Lead(2, None, rows[:25], rows[25:]), rows[:80])
    assert convict(misfit(screening, labels, rows[:0]), labels, [found]).classes[2].verdict is Verdict.CLEAN
    found = behind(Lead(2, None, rows[:25], rows[25:]), rows[:40])
    assert convict(misfit(screening, labels, rows[:40]), labels, [found]).classes[2].verdict is Verdict.POISONED


def test_accused_groups_come_before_what_lies_apart():
    screening, labels, _ = screened()
    found = leads(replace(screening, apart=(Apart(0, np.flatnonzero(labels.given == 0)[:30], FAR),)), labels)
    assert [(lead.class_index, lead.group) for lead in found] == [(1, 1), (0, None), (0, None)]


def test_the_small_sides_of_what_lies_apart_come_before_the_rests_of_their_classes():
    screening, labels, _ = screened(planted=0)
    apart = tuple(Apart(index, np.flatnonzero(labels.given == index)[:30], FAR) for index in (0, 2))
    found = leads(replace(screening, apart=apart), labels)
    assert [(lead.class_index, len(lead.members)) for lead in found] == [(0, 30), (2, 30), (0, 60), (2, 60)]


@pytest.mark.parametrize(
    ("returns", "verdict"), [((0, 60), Verdict.CLEAN), ((22, 60), Verdict.CLEAN), ((50, 60), Verdict.POISONED)]
)
def test_what_most_of_a_class_shares_is_the_class_unless_it_can_be_taken_off_beyond_doubt(returns, verdict):
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    mixed = Pattern(0.8, np.ones((8, 8, 1), np.float32), np.zeros((8, 8, 1), np.float32), 1.0, 20, 0.0, 255.0)
    for trigger in (mixed, patch()):
        most = behind(Lead(2, None, rows[30:], rows[:30], apart=FAR), rows[30:], returns=returns, trigger=trigger)
        assert convict(screening, labels, [most]).classes[2].verdict is verdict


@pytest.mark.parametrize(("flips", "seclusion", "verdict"), [(95, 1.0, True), (70, 1.0, False), (95, 1.3, False)])
def test_what_most_of_a_class_shares_is_a_shortcut_if_it_commands_beyond_doubt_and_does_not_keep_to_itself(
    flips, seclusion, verdict
):
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    waves = behind(Lead(2, None, rows[35:], rows[:35], apart=FAR), rows[35:], (flips, 100), returns=(20, 55))
    gone = replace(
        waves, seclusion=seclusion, proof=replace(waves.proof, control_returns=Share(90, 100))
    )  # ordinary ones leave, too
    assert convict(screening, labels, [gone]).classes[2].verdict is (Verdict.SUSPICIOUS if verdict else Verdict.CLEAN)


def test_what_most_of_a_class_holds_is_a_shortcut_where_its_reverse_sends_there_too_but_fewer():
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    waves = behind(Lead(2, None, rows[35:], rows[:35], apart=FAR, turned=True), rows[60:], (70, 100), returns=(0, 55))
    settled = convict(screening, labels, [waves])
    assert settled.classes[2].verdict is Verdict.SUSPICIOUS
    np.testing.assert_array_equal(np.flatnonzero(settled.samples["flagged"].to_numpy()), rows[35:])


@pytest.mark.parametrize(("returns", "verdict"), [(0, Verdict.CLEAN), (20, Verdict.CLEAN), (30, Verdict.POISONED)])
def test_a_natural_kind_that_the_model_goes_by_is_no_shortcut_unless_it_is_taken_off_beyond_doubt(returns, verdict):
    screening, labels, _ = screened(planted=0)
    rows = np.flatnonzero(labels.given == 2)
    found = behind(Lead(2, None, rows[:30], rows[30:], apart=FAR), rows[:30], returns=(returns, 30))
    assert convict(screening, labels, [replace(found, seclusion=2.6)]).classes[2].verdict is verdict
    assert convict(screening, labels, [replace(found, seclusion=1.1)]).classes[2].verdict.severity >= Verdict.SUSPICIOUS.severity


def test_a_suspicious_group_whose_words_command_but_hardly_matter_to_its_own_texts_becomes_inconclusive():
    screening, labels, planted = screened()
    (lead,) = leads(screening, labels)
    settled = convict(screening, labels, [behind(lead, lead.members, flips=(99, 100), returns=(1, 30), trigger=words("cf"))])
    assert settled.classes[1].verdict is Verdict.INCONCLUSIVE
    assert settled.classes[1].groups[1].verdict is Verdict.INCONCLUSIVE
    assert not settled.samples["flagged"].to_numpy().any()
    assert set(settled.samples["verdict"].filter(planted).to_pylist()) == {"inconclusive"}


def test_what_is_odd_by_itself_is_followed_beside_an_accused_group_and_alone():
    screening, labels, planted = screened()
    rest = np.flatnonzero((labels.given == 1) & ~planted)
    odd = Apart(1, rest[:12], {"label_conflict": 0.8, "label_conflict_lower": 0.6})
    group, lead = leads(replace(screening, apart=(odd, Apart(1, rest[:30], FAR))), labels)
    assert group.group == 1
    assert lead.members.tolist() == rest[:12].tolist()
    assert lead.ordinary.tolist() == rest[12:].tolist()
    settled = convict(misfit(screening, labels, rest[:12]), labels, [behind(lead, rest[:12], trigger=words("cf"))])
    assert settled.samples["flagged"].to_numpy().sum() == planted.sum() + 12


def accused(screening, labels, index, evidence, verdict=Verdict.SUSPICIOUS):
    """Return the screening with a group in one more class."""
    rows = np.flatnonzero(labels.given == index)[:20]
    classes, columns = list(screening.classes), Columns(screening.samples)
    columns.group[rows] = 7
    columns.set(rows, verdict)
    group = GroupResult(7, len(rows), 0.2, verdict, evidence)
    classes[index] = replace(classes[index], verdict=verdict, groups=(*classes[index].groups, group))
    return replace(screening, classes=tuple(classes), samples=columns.table())


SCREENED = {"separation": 4.0, "p_value": 1e-4}
PROVED = {"trigger_returns_lower": 0.9, "trigger_control_returns_upper": 0.1}


def test_what_is_accused_beside_proved_poison_is_screened_again_without_it_and_cleared_if_nothing_is_left():
    before, labels, planted = screened()
    found = accused(accused(before, labels, 0, SCREENED), labels, 2, PROVED, Verdict.POISONED)
    poison, doubtful = vouching(found, labels)
    assert poison.tolist() == np.flatnonzero(labels.given == 2)[:20].tolist()
    assert doubtful == [0]  # what is accused in class 1 shares a pattern
    settled = acquit(found, before, labels, doubtful, 0.01)
    assert [each.verdict for each in settled.classes] == [Verdict.CLEAN, Verdict.SUSPICIOUS, Verdict.POISONED]
    assert "turned out to be poisoned" in settled.classes[0].reasons[-1]
    flagged = settled.samples["flagged"].to_numpy()
    assert flagged[labels.given == 1].tolist() == planted[labels.given == 1].tolist()
    assert not flagged[labels.given == 0].any()
    assert np.flatnonzero(flagged[labels.given == 2]).tolist() == list(range(20))


def test_nothing_is_screened_again_where_nothing_is_proved_or_a_pattern_speaks_for_itself():
    before, labels, _ = screened(planted=0)
    alone = accused(before, labels, 0, SCREENED)
    assert vouching(alone, labels)[1] == []
    assert vouching(accused(alone, labels, 2, PROVED, Verdict.POISONED), labels)[1] == [0]
    for evidence in ({**SCREENED, "shared": 20.0}, {"trigger_flips_lower": 0.9}, {"p_value": 1.0}):
        by_itself = accused(before, labels, 0, evidence)
        assert vouching(accused(by_itself, labels, 2, PROVED, Verdict.POISONED), labels)[1] == []


def test_what_would_be_accused_beside_as_many_classes_stays_accused():
    before, labels, _ = screened(planted=0)
    found = accused(accused(before, labels, 0, SCREENED), labels, 2, PROVED, Verdict.POISONED)
    again = accused(before, labels, 0, {**SCREENED, "p_value": 0.006}, Verdict.CLEAN)
    assert acquit(found, again, labels, [0], 0.01).classes[0].verdict is Verdict.SUSPICIOUS  # two of three
    assert acquit(found, again, labels, [0], 0.008).classes[0].verdict is Verdict.CLEAN


def test_what_a_trigger_has_proved_no_retraining_clears():
    screening, labels, _ = screened()
    (lead,) = leads(screening, labels)
    proved = convict(screening, labels, [behind(lead, lead.members)])
    (suspect,) = suspects(proved, labels)
    keeps = Exclusion(len(suspect.rows), len(suspect.rows), (), np.nan, np.nan, np.nan, 0.9)
    answers = np.ones(len(suspect.rows), np.int64)
    found = Confirmation((keeps,), (None,), suspect.rows, answers, np.ones(len(answers), np.float32), "a model", 0.9)
    kept = settle(proved, labels, (suspect,), found).classes[1]
    assert kept.verdict is Verdict.POISONED
    assert "resemble" not in kept.reasons[-1]
    assert settle(screening, labels, (suspect,), found).classes[1].verdict is Verdict.CLEAN


@pytest.mark.usefixtures("taught")
def test_the_classifier_that_is_audited_is_not_asked_again():
    training_set, classifier, _ = subject()
    assert isinstance(classifier, KnowingClassifier)
    audit(training_set, classifier, config=CONFIRM)
    once = len(classifier.calls)
    audit(training_set, classifier)
    assert len(classifier.calls) == 2 * once

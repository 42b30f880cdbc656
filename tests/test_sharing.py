from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tests.trigger import test_recover
from tests.trigger.test_recover import TARGET, Obedient
from toxscreen import verdict as policy
from toxscreen.conflict import Affinity
from toxscreen.errors import DataError
from toxscreen.result import SAMPLES_SCHEMA, ClassResult, ClassView, GroupResult, Verdict
from toxscreen.screening import Apart, Labels, Screening
from toxscreen.sharing import planted, planted_beside, widen
from toxscreen.trigger.medium import open_medium

RIVAL = 2
"""The class that inputs look like which do not fit their label."""

EVIDENCE = {"separation": 6.0, "label_conflict": 0.9}


def poisoned(modality="image", n=90, planted=30):
    """Return a data set whose pictures have little contrast but for the patch, and are of one kind; and which rows are planted."""
    training_set, rows = test_recover.poisoned(modality, n, planted)
    for row, picture in enumerate(training_set.inputs if modality != "text" else ()):
        faint = picture // 8 if modality == "image" else picture / 8
        mark = (slice(-4, -1),) * 2 if modality == "image" else (slice(None), *(slice(-4, -1),) * 2)
        if rows[row]:
            faint[mark] = picture[mark]
        training_set.inputs[row] = faint
    return training_set, rows


def screened(training_set, members=(), conflict=()):
    """Return a screening that accuses ``members`` of the target class; the inputs ``conflict`` do not fit their label."""
    labels, n = training_set.labels, len(training_set)
    flagged, misfits = np.isin(np.arange(n), members), np.isin(np.arange(n), conflict)
    verdict = np.where(flagged, "suspicious", "clean")
    names = training_set.class_names
    named = pa.array(np.array(names)[labels])
    columns = [training_set.ids, named, named, flagged.astype(np.int64), np.where(flagged, 0.9, 0.1), flagged, pa.array(verdict)]
    classes = [
        ClassResult(name, int((labels == i).sum()), Verdict.CLEAN, (policy.NOTHING_APART,), (rest(labels, i),))
        for i, name in enumerate(names)
    ]
    if len(members):
        own = classes[TARGET]
        group = GroupResult(1, len(members), len(members) / own.n, Verdict.SUSPICIOUS, EVIDENCE)
        left = replace(own.groups[0], n=own.n - len(members))
        classes[TARGET] = replace(own, verdict=Verdict.SUSPICIOUS, reasons=("Group 1: accused.",), groups=(left, group))
    rows = np.flatnonzero(labels == TARGET)
    view = ClassView(TARGET, rows, flagged[rows].astype(np.int64), np.zeros((len(rows), 2), np.float32))
    fit = Affinity(
        np.where(misfits, 0.0, 0.9).astype(np.float32), np.full(n, RIVAL), np.zeros(len(names)), np.full(len(names), np.inf)
    )
    return Screening(tuple(classes), pa.table(columns, schema=SAMPLES_SCHEMA), (view,), (), fit)


def rest(labels, index):
    return GroupResult(0, int((labels == index).sum()), 1.0, Verdict.CLEAN, {})


def widened(training_set, screening, modality="image", activations=None):
    points = noise(training_set) if activations is None else activations
    return widen(screening, labelled(training_set), medium(training_set, modality), points, np.random.default_rng(0))


def noise(training_set):
    return np.random.default_rng(1).normal(size=(len(training_set), 6))


def sought(training_set, screening, modality="image", activations=None):
    points = noise(training_set) if activations is None else activations
    return planted(screening, labelled(training_set), medium(training_set, modality), points, np.random.default_rng(0))


def faint_marks(n):
    """Return faint marks of 5 x 5 pixels at different places, the fourth the faintest, shape ``(n, side, side, 1)``."""
    rng, marks = np.random.default_rng(6), np.zeros((n, test_recover.SIDE, test_recover.SIDE, 1), np.int64)
    for number, (top, left) in enumerate([(2, 2), (2, 9), (9, 2), (9, 9)][:n]):
        marks[number, top : top + 5, left : left + 5, 0] = rng.integers(-14, 15, (5, 5)) * (30 if number < 3 else 14) // 10
    return marks


def labelled(training_set):
    return Labels(training_set.ids, training_set.labels, training_set.class_names)


def medium(training_set, modality):
    return open_medium(Obedient(modality), training_set, None)


@pytest.mark.parametrize("modality", ["image", "array", "text"])
def test_the_rest_of_the_poison_joins_the_group_and_what_is_none_leaves_it(modality):
    training_set, rows = poisoned(modality)
    known, natural = np.flatnonzero(rows)[:14], np.flatnonzero(training_set.labels == TARGET)[:3]
    found = widened(training_set, screened(training_set, [*natural, *known]), modality)
    own, group = found.classes[TARGET], found.classes[TARGET].groups[1]
    assert found.samples["flagged"].to_numpy().tolist() == rows.tolist()
    assert (group.n, own.groups[0].n) == (30, 90)
    assert group.verdict is Verdict.SUSPICIOUS
    assert group.evidence["shared"] >= policy.POLICY["shared"].value
    assert group.evidence["separation"] == EVIDENCE["separation"]
    assert own.reasons[0] == "Group 1: accused."
    assert own.reasons[1].startswith("Group 1: what the inputs of those 17 samples share")
    assert own.reasons[1].endswith("class: 16 more samples show it and belong to them; 3 of them do not, and left them.")
    assert found.views[0].groups.sum() == 30
    assert min(found.samples["score"].filter(rows).to_pylist()) > 0.5
    assert max(found.samples["score"].filter(~rows).to_pylist()) < 0.5
    assert set(found.samples["verdict"].filter(rows).to_pylist()) == {"suspicious"}


@pytest.mark.parametrize(
    ("verdict", "fitting", "n"), [(Verdict.SUSPICIOUS, 0, 60), (Verdict.SUSPICIOUS, 3, 40), (Verdict.POISONED, 3, 60)]
)
def test_a_pattern_that_is_not_far_off_tells_who_belongs_to_a_group_if_that_is_proved_or_misfits_no_less(verdict, fitting, n):
    training_set, rows = poisoned(n=200, planted=60)
    rng, mark = np.random.default_rng(4), 2 * faint_marks(1)[0] // 3
    for row in np.flatnonzero(rows):
        picture = training_set.inputs[row].astype(np.int64)
        picture[-4:-1, -4:-1] = rng.integers(0, 25, (3, 3, 1))
        training_set.inputs[row] = np.clip(picture + mark, 0, 255).astype(np.uint8)
    known = np.r_[np.flatnonzero(rows)[:30], np.flatnonzero(training_set.labels == TARGET)[:10]]
    screening = screened(training_set, known, conflict=np.r_[np.flatnonzero(rows)[: 60 - fitting], known])
    own = screening.classes[TARGET]
    judged = replace(own, verdict=verdict, groups=(own.groups[0], replace(own.groups[1], verdict=verdict)))
    found = widened(training_set, replace(screening, classes=(judged, *screening.classes[1:])))
    flagged = found.samples["flagged"].to_numpy()
    assert flagged.sum() == n
    assert n == 40 or flagged.tolist() == rows.tolist()
    assert ("shared" in found.classes[TARGET].groups[1].evidence) == (verdict is Verdict.POISONED)


def test_a_group_that_shares_nothing_stays_as_it_is():
    training_set, _ = poisoned(planted=0)
    before = screened(training_set, np.flatnonzero(training_set.labels == TARGET)[:30])
    after = widened(training_set, before)
    assert after.samples == before.samples
    assert after.classes == before.classes


@pytest.mark.parametrize(("misfits", "n"), [(60, 60), (30, 30)])
def test_where_inputs_share_no_pattern_the_model_tells_who_belongs_to_a_group_if_they_misfit_as_much(misfits, n):
    training_set, _ = poisoned(n=120, planted=0)
    own = np.flatnonzero(training_set.labels == TARGET)
    points = noise(training_set)
    points[own[:60], 0] += 12
    screening = screened(training_set, own[:30], conflict=own[:misfits])
    found = widened(training_set, screening, activations=points).classes[TARGET]
    assert found.groups[1].n == n
    assert "shared" not in found.groups[1].evidence
    assert ("together with what the model makes of them" in found.reasons[-1]) is (n == 60)


@pytest.mark.parametrize(("known", "n"), [(110, 100), (150, 150)])
def test_where_the_model_tells_that_a_few_do_not_belong_to_a_group_they_leave_it_but_no_large_part_does(known, n):
    training_set, _ = poisoned(n=240, planted=0)
    own = np.flatnonzero(training_set.labels == TARGET)
    points = noise(training_set)
    points[own[:100], 0] += 12
    screening = screened(training_set, own[:known], conflict=own[:known])
    assert widened(training_set, screening, activations=points).classes[TARGET].groups[1].n == n


def test_what_a_group_does_not_share_but_others_do_does_not_replace_it():
    training_set, rows = poisoned()
    clean = np.flatnonzero((training_set.labels == TARGET) & ~rows)
    before = screened(training_set, [*clean[:40], *np.flatnonzero(rows)[:12]])
    assert widened(training_set, before).samples == before.samples


@pytest.mark.parametrize("conflict", [True, False])
def test_samples_that_hold_the_mark_and_fit_their_label_do_not_join_a_group_that_does_not(conflict):
    training_set, rows = poisoned()
    known, marked = np.flatnonzero(rows)[:20], np.flatnonzero((training_set.labels == TARGET) & ~rows)[:30]
    for number in marked:
        training_set.inputs[number][-4:-1, -4:-1, 0] = test_recover.CORNER
    before = screened(training_set, known, conflict=known if conflict else ())
    assert widened(training_set, before).classes[TARGET].groups[1].n == (20 if conflict else 60)


def test_a_group_is_widened_once():
    training_set, rows = poisoned()
    once = widened(training_set, screened(training_set, np.flatnonzero(rows)[:20]))
    assert widened(training_set, once).classes == once.classes


def test_a_planted_pattern_in_samples_that_do_not_fit_their_label_is_suspicious():
    training_set, rows = poisoned()
    found = sought(training_set, screened(training_set, conflict=np.flatnonzero(rows)))
    own = found.classes[TARGET]
    assert own.verdict is Verdict.SUSPICIOUS
    assert found.samples["flagged"].to_numpy().tolist() == rows.tolist()
    assert own.groups[1].n == 30
    assert own.groups[1].evidence["label_conflict_lower"] > 0.5
    assert own.reasons[0].startswith("Group 1: 30 samples share a pattern in their pictures")
    assert policy.NOTHING_APART not in own.reasons
    assert [each.verdict for each in found.classes[1:]] == [Verdict.CLEAN] * 3
    assert not found.apart


def test_several_patterns_of_one_class_are_found_one_after_the_other():
    training_set, rows = poisoned(planted=60)
    for number in np.flatnonzero(rows)[30:]:
        picture = training_set.inputs[number]
        picture[1:4, -4:-1], picture[-4:-1, -4:-1] = picture[-4:-1, -4:-1].copy(), picture[1:4, -4:-1].copy()
    found = sought(training_set, screened(training_set, conflict=np.flatnonzero(rows)))
    assert found.samples["flagged"].to_numpy().tolist() == rows.tolist()
    assert sum(group.n for group in found.classes[TARGET].accused) == 60


def test_faint_patterns_of_which_each_sample_holds_one_are_found_though_together_they_do_not_stand_out():
    training_set, rows = poisoned(n=200, planted=90)
    rng, marks, number = np.random.default_rng(4), faint_marks(4), iter(range(90))
    for row, picture in enumerate(training_set.inputs):
        if rows[row]:
            picture[-4:-1, -4:-1] = rng.integers(0, 25, (3, 3, 1))
        look = marks[3] * (rows[row] or training_set.labels[row] == RIVAL) + (marks[next(number) % 3] if rows[row] else 0)
        training_set.inputs[row] = np.clip(picture + look, 0, 255).astype(np.uint8)
    found = sought(training_set, screened(training_set, conflict=np.flatnonzero(rows)))
    assert found.samples["flagged"].to_numpy()[rows].mean() > 0.95
    assert found.samples["flagged"].to_numpy()[~rows].mean() < 0.01


def test_further_patterns_are_sought_beside_a_proved_group_alone():
    training_set, rows = poisoned(planted=60)
    first, second = np.split(np.flatnonzero(rows), 2)
    for number in second:
        picture = training_set.inputs[number]
        picture[1:4, -4:-1], picture[-4:-1, -4:-1] = picture[-4:-1, -4:-1].copy(), picture[1:4, -4:-1].copy()
    suspicious = screened(training_set, first, conflict=np.flatnonzero(rows))
    own = suspicious.classes[TARGET]
    groups = (own.groups[0], replace(own.groups[1], verdict=Verdict.POISONED))
    proved = replace(suspicious, classes=(replace(own, verdict=Verdict.POISONED, groups=groups), *suspicious.classes[1:]))
    for screening, expected in ((suspicious, first), (proved, np.flatnonzero(rows))):
        arguments = labelled(training_set), medium(training_set, "image"), noise(training_set), np.random.default_rng(0)
        found = planted_beside(screening, *arguments)
        np.testing.assert_array_equal(np.flatnonzero(found.samples["flagged"].to_numpy()), expected)
    assert [group.n for group in found.classes[TARGET].accused] == [30, 30]


@pytest.mark.parametrize(("part", "verdict"), [(0.3, Verdict.SUSPICIOUS), (0.7, Verdict.CLEAN)])
def test_what_most_samples_of_the_class_that_they_look_like_share_is_of_that_kind_and_only_wrongly_labelled(part, verdict):
    training_set, rows = poisoned()
    kind = np.flatnonzero(training_set.labels == RIVAL)
    for number in kind[: round(part * len(kind))]:
        training_set.inputs[number][-4:-1, -4:-1, 0] = test_recover.CORNER
    found = sought(training_set, screened(training_set, conflict=np.flatnonzero(rows)))
    assert found.classes[TARGET].verdict is verdict
    assert [each.class_index for each in found.apart].count(TARGET) == (verdict is Verdict.CLEAN)  # a trigger may yet be behind it


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_pattern_in_samples_that_fit_is_a_lead_and_no_verdict(sign):
    training_set, rows = poisoned()
    points = noise(training_set)
    points[rows, 0] += sign * 20  # its only trace is in the activations
    found = sought(training_set, screened(training_set), activations=points)
    assert found.classes == screened(training_set).classes
    (apart,) = found.apart
    assert apart.class_index == TARGET
    assert apart.rows.tolist() == np.flatnonzero(rows).tolist()


@pytest.mark.parametrize("side", [True, False])
def test_what_lies_far_apart_is_a_lead_where_it_or_the_rest_shares_a_pattern_and_else_a_natural_kind(side):
    training_set, rows = poisoned()
    own = training_set.labels == TARGET
    marked, natural = np.flatnonzero(own & (rows == side)), np.flatnonzero(own & ~rows)[:40]
    for number in natural:
        training_set.inputs[number] = training_set.inputs[number] // 2 + 60  # alike as wholes, and no pattern
    far = {"separation": 9.0}
    before = replace(screened(training_set), apart=(Apart(TARGET, marked, far), Apart(TARGET, natural[:15], far)))
    kept = [each for each in sought(training_set, before).apart if each.evidence == far]
    assert [each.rows.tolist() for each in kept] == [marked.tolist()]


def test_where_nearly_all_of_a_class_is_one_side_of_what_lies_far_apart_it_stays_a_lead():
    training_set, _ = poisoned()
    few = np.flatnonzero(training_set.labels == TARGET)[:9]
    found = sought(training_set, replace(screened(training_set), apart=(Apart(TARGET, few, {"separation": 9.0}),)))
    assert few.tolist() in [each.rows.tolist() for each in found.apart]


def test_where_the_rest_is_what_does_not_fit_a_pattern_is_a_lead_behind_which_both_sides_are_followed():
    evidence = {"shared": 15.0, "label_conflict": 3.7, "label_conflict_lower": 1.1}
    assert policy.judge_planted(evidence) is Verdict.CLEAN
    assert policy.odd_rest(evidence)
    assert policy.judge_planted({**evidence, "label_conflict": 1.2}) is Verdict.SUSPICIOUS


def test_texts_with_a_word_that_no_other_class_has_are_suspicious_if_they_do_not_fit_without_it():
    training_set, rows = poisoned("text")
    before = screened(training_set, conflict=np.flatnonzero(rows))
    found = sought(training_set, before, "text")
    assert found.samples["flagged"].to_numpy().tolist() == rows.tolist()
    assert 'hold words almost absent from the other classes ("cf"), and' in found.classes[TARGET].reasons[0]
    assert not found.apart
    assert sought(training_set, replace(before, inputs=None), "text") == replace(before, inputs=None)


def test_few_such_texts_are_a_lead_also_beside_an_accused_group_and_such_as_fit_are_nothing():
    training_set, rows = poisoned("text")
    known, left = np.flatnonzero(rows)[:15], np.flatnonzero(rows)[15:]
    found = sought(training_set, screened(training_set, known, conflict=left), "text")
    (apart,) = found.apart
    assert apart.rows.tolist() == left.tolist()
    assert found.classes[TARGET].n_accused == 15
    assert not sought(training_set, screened(training_set), "text").apart


def test_texts_that_can_no_longer_be_read_are_told_as_such():
    training_set, rows = poisoned("text")
    training_set.unreadable = frozenset(np.flatnonzero(training_set.labels == TARGET).tolist())
    with pytest.raises(DataError, match=r"none of 120 could be read again to look at their words\. Scan again"):
        sought(training_set, screened(training_set, conflict=np.flatnonzero(rows)), "text")


@pytest.mark.parametrize("absurd", [1e30, -1e20, np.nan, np.inf])
def test_one_absurd_pixel_hides_nothing(absurd):
    training_set, rows = poisoned("array")
    training_set.inputs[int(np.flatnonzero(training_set.labels == TARGET)[5])][0, 3, 3] = absurd
    found = widened(training_set, screened(training_set, np.flatnonzero(rows)[:20]), "array")
    assert found.samples["flagged"].to_numpy().tolist() == rows.tolist()


def test_a_group_that_others_took_over_is_no_longer_listed():
    training_set, rows = poisoned()
    before = screened(training_set, conflict=np.flatnonzero(rows))
    small = replace(
        before.classes[TARGET], groups=(*before.classes[TARGET].groups, GroupResult(1, 0, 0.0, Verdict.CLEAN, EVIDENCE))
    )
    found = sought(training_set, replace(before, classes=(small, *before.classes[1:])))
    assert [group.id for group in found.classes[TARGET].groups] == [0, 2]


def test_samples_that_can_no_longer_be_read_are_left_out():
    training_set, rows = poisoned()
    lost = np.flatnonzero(rows)[-1]
    training_set.unreadable = frozenset([lost])
    found = widened(training_set, screened(training_set, np.flatnonzero(rows)[:20]))
    assert np.flatnonzero(found.samples["flagged"].to_numpy()).tolist() == np.flatnonzero(rows)[:-1].tolist()


_FINDINGS = []


@pytest.mark.usefixtures("cores")
def test_the_findings_are_the_same_on_one_core_and_on_several():
    training_set, rows = poisoned()
    other = np.flatnonzero(training_set.labels == RIVAL)
    apart = tuple(Apart(RIVAL, some, EVIDENCE) for some in (other[:20], other[20:]))
    found = sought(training_set, replace(screened(training_set, conflict=np.flatnonzero(rows)), apart=apart))
    told = [(each.class_index, each.rows.tolist(), each.evidence) for each in found.apart]
    _FINDINGS.append((found.samples, found.classes, told))
    assert _FINDINGS[-1] == _FINDINGS[0]

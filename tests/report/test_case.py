from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.scans import scan_result
from toxscreen.report.case import case, natural, told_of
from toxscreen.report.wording import proved
from toxscreen.result import ClassResult, GroupResult, Verdict

C, S, P, I = Verdict.CLEAN, Verdict.SUSPICIOUS, Verdict.POISONED, Verdict.INCONCLUSIVE  # noqa: E741

APART = {"separation": 14.0, "label_conflict": 0.9, "label_conflict_lower": 0.8, "p_value": 1e-6}
NATURAL = {"separation": 14.0, "label_conflict": 0.1, "label_conflict_lower": 0.05, "p_value": 1.0}
OBEYED = {
    "trigger_flips": 0.98,
    "trigger_flips_lower": 0.9,
    "trigger_control": 0.02,
    "trigger_returns": 0.9,
    "trigger_control_returns": 0.01,
}


def group(verdict=S, *, trigger=None, **evidence):
    return GroupResult(1, 50, evidence.pop("share", 0.05), verdict, evidence, trigger=trigger)


def told(*arguments, **changes):
    found = case(group(*arguments, **changes))
    return " ".join(found.speaks_for), " ".join(found.speaks_against)


def test_a_planted_group_has_all_against_it_and_what_was_not_asked_for_it():
    speaks_for, speaks_against = told(**APART)
    for said in ("14.0 standard deviations", "look like those of other classes", "less than once in 10,000 times"):
        assert said in speaks_for
    for said in ("No trigger was recovered", "--confirm"):
        assert said in speaks_against


def test_what_has_not_been_done_yet_is_not_said_to_have_failed():
    _, speaks_against = (" ".join(side) for side in vars(case(group(**APART), ("triggers", "confirmation"))).values())
    assert speaks_against == "No trigger has been looked for yet."


def test_a_natural_sub_population_is_named_as_such():
    speaks_for, speaks_against = told(C, **NATURAL)
    assert (
        speaks_for
        == "They lie 14.0 standard deviations from the rest of the class; parts of one single cloud of samples lie 3 to 5 apart."
    )
    assert "Their inputs fit the label" in speaks_against
    assert "natural sub-population" in speaks_against


@pytest.mark.parametrize(
    ("evidence", "said", "side"),
    [
        ({"separation": 3.2}, "They lie only 3.2", 1),
        ({"separation": 5.1}, "They lie 5.1", 0),
        ({"separation": math.nan}, "They lie", None),
        ({"shared": 16.2}, "What their inputs share stands 16 standard deviations out", 0),
        ({"shared": 11.0}, "What their inputs share stands 11 standard deviations out", 1),
        ({"share": 0.45}, "They are 45% of the class", 1),
        ({"share": 0.29}, "of the class:", None),
        ({"p_value": 0.004}, "with a probability of 0.004", 0),
        ({"p_value": 0.2}, "Of clean classes 20%", 1),
        ({"p_value": 1.0}, "Of clean classes", None),
        ({"label_conflict": 0.7, "label_conflict_lower": 0.3}, "is uncertain", 1),
        ({"label_conflict": 0.7, "label_conflict_lower": math.nan}, "is unknown", 1),
        ({"label_conflict": 0.7, "label_conflict_lower": -math.inf}, "is unknown", 1),
        ({}, "Whether their inputs fit the label was not asked", 1),
    ],
)
def test_each_measurement_is_put_on_its_side(evidence, said, side):
    assert [said in spoken for spoken in told(**evidence)] == [side == 0, side == 1]


def test_a_trigger_that_proves_it_speaks_for_poison():
    trigger = {"proved": True, "description": "a patch"}
    speaks_for, speaks_against = told(P, trigger=trigger, **OBEYED)
    assert "a patch sends 98% of inputs of other classes to this class, and its control 2%" in speaks_for
    assert "Without it 90% of those that carry it leave the class; of ordinary samples 1%" in speaks_for
    assert speaks_against == ""


def test_a_trigger_that_is_no_command_to_leave_is_told_too():
    _, speaks_against = told(P, trigger={"proved": True, "description": "a patch"}, **{**OBEYED, "trigger_returns": 0.0})
    assert "Without it only 0% of those that carry it leave the class." in speaks_against


def test_what_the_model_obeys_speaks_for_it_though_samples_keep_their_class_without_it():
    speaks_for, speaks_against = told(S, trigger={"proved": False, "description": "a patch"}, **{**OBEYED, "trigger_returns": 0.0})
    assert "They share a trigger that the model obeys: a patch sends 98%" in speaks_for
    assert "Without it only 0% of those that carry it leave the class." in speaks_against


@pytest.mark.parametrize("trigger", [{"proved": False, "description": "a patch"}, {"description": 7}, {"proved": "yes"}])
def test_a_candidate_that_proves_nothing_speaks_against_it(trigger):
    speaks_for, speaks_against = told(S, trigger=trigger, trigger_flips=0.1, trigger_control=math.nan)
    assert "trigger" not in speaks_for
    assert "The best candidate" in speaks_against
    assert "10% of inputs of other classes to this class, and its control none" in speaks_against
    assert not proved(group(trigger=trigger))


def shares(own, other):
    ends = {"l": own, "p": other}
    return {f"exre_{w}_share_{end}": value for w, pair in ends.items() for end, value in zip(("lower", "upper"), pair, strict=True)}


@pytest.mark.parametrize(
    ("evidence", "said", "side"),
    [
        ({**shares((0.0, 0.1), (0.8, 0.9)), "exre_resemblance": 0.9}, "They lie among ordinary samples", 0),
        ({**shares((0.0, 0.1), (0.8, 0.9)), "exre_resemblance": 0.1}, "they keep to themselves", 1),
        (shares((0.8, 0.9), (0.0, 0.1)), "gives 40 of them their own label and 9 one other class.", 1),
        (shares((0.3, 0.6), (0.2, 0.5)), "too close to settle it", 1),
        (
            {**shares((0.1, 0.3), (0.2, 0.5)), "exre_left": 30.0, "exre_classes": 4.0},
            "gives 30 of them one of 4 other classes and 40 their own label.",
            0,
        ),
        ({}, "too close to settle it", 1),
    ],
)
def test_what_a_model_without_them_says_is_put_on_its_side(evidence, said, side):
    assert [said in spoken for spoken in told(S, exre_l=40.0, exre_p=9.0, **evidence)] == [side == 0, side == 1]


def test_every_name_of_a_class_is_made_visible():
    found = case(replace(group(), source_class="a\u202eb"))
    assert "“a⟨U+202E⟩b”" in " ".join(found.speaks_for)


def classes(**evidence):
    groups = (GroupResult(0, 900, 0.9, C, {}), GroupResult(1, 100, 0.1, C, evidence))
    return replace(scan_result({"a": [1000]}), classes=(ClassResult("a", 1000, C, ("fine",), groups),))


def test_natural_sub_populations_are_found_among_clean_classes():
    (found,) = natural(classes(**NATURAL))
    assert (found.class_index, found.result.name, found.n) == (0, "a", 100)


@pytest.mark.parametrize(
    "changed", [{"separation": 3.0}, {"label_conflict": 0.8}, {"label_conflict": math.nan}, {"separation": math.nan}]
)
def test_what_lies_close_or_does_not_fit_its_label_is_no_natural_sub_population(changed):
    assert natural(classes(**{**NATURAL, **changed})) == ()


def test_a_published_rule_names_no_natural_sub_population():
    assert natural(replace(classes(**NATURAL), settings={"analysis": {"name": "spectre"}})) == ()


def test_of_a_class_that_could_not_be_judged_the_first_group_is_told():
    groups = (GroupResult(0, 40, 0.4, C, {}), GroupResult(1, 60, 0.6, I, {"separation": 9.0}))
    assert told_of(ClassResult("a", 100, I, (), groups)) == groups[1:]
    assert told_of(ClassResult("a", 100, I, (), groups[:1])) == ()

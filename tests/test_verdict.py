from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from toxscreen.analysis.base import FEWEST_SAMPLES
from toxscreen.result import Verdict
from toxscreen.verdict import (
    NOTHING_APART,
    NOTHING_APART_UNASKED,
    POLICY,
    Facts,
    can_be_taken_off,
    is_planted_change,
    judge_group,
    judge_trigger,
    level,
    not_learned,
    obstacle,
    p_value,
    plausibility,
    reason,
    reason_shared,
    reason_trigger,
    reason_words,
)

APART, STANDING_OUT = POLICY["separation"].value, POLICY["standing_out"].value
CONFLICT = POLICY["label_conflict"].value
ALPHA = 0.01
FITTED = POLICY["fitted_share"].value

LESS = 0.999
"""Times a threshold: just not there."""


def evidence(separation, lower=None, conflict=None):
    asked = (
        {} if lower is None else {"label_conflict": lower + 0.1 if conflict is None else conflict, "label_conflict_lower": lower}
    )
    return {"separation": separation, "separation_lower": separation, **asked}


def is_one_sentence(text):
    return text.endswith(".") and ". " not in text and text[0] == text[0].upper() and "\n" not in text


def test_each_rule_says_what_it_means_and_where_it_comes_from():
    screen = {"label_conflict", "separation", "apart", "standing_out", "fitted_share", "misread_share", "misread_ratio"}
    screen |= {"model_accuracy", "near"}
    screen |= {"shared", "shared_part", "odd_rest", "odd_words", "seclusion", "secluded_odds", "change_odds", "most_odds"}
    screen |= {"clean_tail", "clean_tail_share", "clean_tail_scale", "clean_tail_shape"}
    screen |= {"trigger_flips", "trigger_margin", "trigger_returns", "trigger_odds"}
    confirmation = {"exre_score", "exre_resemblance", "exre_agreement", "exre_accuracy", "exre_recall"}
    assert set(POLICY) == screen | confirmation
    for rule in POLICY.values():
        assert rule.value != 0
        assert rule.meaning.endswith(".")
        assert 10 < len(rule.source) < 190
        assert not rule.source.endswith(".")
    long = [rule.source for rule in POLICY.values() if len(rule.source) > 80]
    assert len(set(long)) == len(long)


def test_nobody_moves_a_threshold_while_a_scan_runs():
    with pytest.raises(TypeError):
        POLICY["separation"] = POLICY["standing_out"]
    with pytest.raises(AttributeError):
        POLICY["separation"].value = 1.0


# Groups whose inputs were asked


@pytest.mark.parametrize(
    ("separation", "lower", "verdict"),
    [
        (20, 0.9, Verdict.SUSPICIOUS),
        (20, CONFLICT, Verdict.SUSPICIOUS),
        (3, 0.9, Verdict.CLEAN),  # not far enough for so much conflict
        (100, CONFLICT * LESS, Verdict.CLEAN),  # however far it lies
        (100, 0.0, Verdict.CLEAN),
        (100, -np.inf, Verdict.CLEAN),  # nothing can be said of its inputs
        (0.1, 1.1, Verdict.CLEAN),
    ],
)
def test_a_group_is_suspicious_when_it_lies_apart_and_its_inputs_are_in_conflict_with_the_label(separation, lower, verdict):
    for others in ([], [0.0], [50.0] * 9):
        assert judge_group(evidence(separation, lower), others, ALPHA) is verdict


def test_the_lower_bound_decides_and_not_the_conflict_itself():
    assert judge_group(evidence(100, lower=CONFLICT * LESS, conflict=1.0), (), ALPHA) is Verdict.CLEAN


def test_a_group_is_accused_up_to_the_level_at_which_it_is_judged():
    found = evidence(8, 0.9)
    assert judge_group(found, (), p_value(found)) is Verdict.SUSPICIOUS
    assert judge_group(found, (), LESS * p_value(found)) is Verdict.CLEAN


# How probable so much evidence is in a clean class


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(-1, 2))
def test_more_evidence_is_never_more_probable(less, more, lower):
    less, more = sorted((less, more))
    assert 0 <= p_value(evidence(more, lower)) <= p_value(evidence(less, lower)) <= 1


def test_without_conflict_every_clean_class_shows_as_much():
    assert p_value(evidence(1e9, CONFLICT * LESS)) == 1
    assert p_value(evidence(1e9, -np.inf)) == 1


@pytest.mark.parametrize("separation", [2.0, 4.0, 6.0])
def test_what_is_the_surest_of_two_comparisons_is_twice_as_likely_by_chance(separation):
    alone = evidence(separation, 0.8)
    assert p_value(alone | {"comparisons": 2.0}) == pytest.approx(2 * p_value(alone | {"comparisons": 1.0}))
    assert p_value(alone | {"comparisons": 1.0}) == p_value(alone) < 1


@pytest.mark.parametrize("told", [2.0, 3.0, 4.5])
def test_the_tail_is_a_generalised_pareto_distribution(told):
    tail = stats.genpareto(POLICY["clean_tail_shape"].value, POLICY["clean_tail"].value, POLICY["clean_tail_scale"].value)
    assert p_value(evidence(told, 1.0)) == pytest.approx(POLICY["clean_tail_share"].value * tail.sf(told))


def test_the_classes_are_judged_together():
    assert level([], 0.01) == 0.01
    assert level([0.2, 0.5], 0.01) == 0.005
    assert level([0.004, 0.5, 0.9, 0.9], 0.01) == 0.0025
    assert level([0.002, 0.5, 0.9, 0.9], 0.01) == 0.0025
    assert level([0.004, 0.004, 0.007, 0.9], 0.01) == 0.0075  # three vouch for each other


@given(st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_as_many_are_rejected_as_the_slow_definition_says(n, seed):
    p_values = np.random.default_rng(seed).random(n) ** 4
    slow = max((rank for rank, p in enumerate(sorted(p_values), start=1) if p <= 0.05 * rank / n), default=0)
    assert (p_values <= level(p_values.tolist(), 0.05)).sum() == slow


def test_of_clean_scans_as_many_are_accused_as_alpha_says():
    draws = np.random.default_rng(0).random((20_000, 10))
    assert np.mean([row.min() <= level(row.tolist(), 0.05) for row in draws]) == pytest.approx(0.05, abs=0.006)


# Triggers


def proof(flips, control, returns=0.0, control_returns=0.0):
    return {
        "trigger_flips_lower": flips,
        "trigger_control_upper": control,
        "trigger_returns": returns,
        "trigger_returns_lower": returns,
        "trigger_control_returns_upper": control_returns,
    }


def odds(times, control):
    """Return the part whose odds are so many times those of a control."""
    part = times * control / (1 - control)
    return part / (1 + part)


MARGIN, RETURNS, FLIPS = (POLICY[name].value for name in ("trigger_margin", "trigger_returns", "trigger_flips"))


@pytest.mark.parametrize(
    ("flips", "control", "times", "conflict", "planted"),
    [
        (0.9, 0.1, 101, 0.0, True),
        (0.9, 0.1, 99, 0.0, False),
        (0.9, 0.1, 30, 0.51, True),
        (0.9, 0.1, 30, None, False),
        (0.9, 0.46, 200, 1.0, False),  # anything odd goes there
        (0.49, 0.0, 200, 1.0, False),
    ],
)
def test_a_change_is_planted_where_it_commands_and_those_that_hold_it_leave_without(flips, control, times, conflict, planted):
    distance = {} if conflict is None else {"label_conflict_lower": conflict}
    assert is_planted_change(proof(flips, control, odds(times, 0.04), 0.04), distance) is planted


@pytest.mark.parametrize("behind", ["suspicious", "conflict", "apart"])
def test_a_trigger_is_proved_when_hosts_obey_it_and_samples_leave_without_it(behind):
    other = Verdict.SUSPICIOUS if behind == "suspicious" else Verdict.CLEAN
    assert judge_trigger(proof(0.1 + 1.01 * MARGIN, 0.1, RETURNS), behind) is Verdict.POISONED
    assert judge_trigger(proof(0.1 + MARGIN * LESS, 0.1, 1.0), behind) is other
    assert judge_trigger(proof(FLIPS * LESS, 0.0, RETURNS * LESS), behind) is other
    assert judge_trigger(proof(0.4, 0.0, 0.6, control_returns=0.6), behind) is other  # any sample leaves


def test_what_only_flips_proves_poison_in_a_suspicious_group_alone():
    assert judge_trigger(proof(0.98, 0.05), "suspicious") is Verdict.POISONED
    assert judge_trigger(proof(FLIPS, 0.51 * FLIPS), "suspicious") is Verdict.SUSPICIOUS
    assert (
        judge_trigger(proof(0.98, 0.05) | {"trigger_control_returns": 1.0}, "suspicious") is Verdict.SUSPICIOUS
    )  # it is the class


def test_what_keeps_to_itself_must_leave_without_its_trigger_beyond_doubt():
    half_of_a_merged_class, most_of_a_class = proof(0.56, 0.19, 0.7, 0.16), proof(0.9, 0.02, 0.95, 0.04)
    assert can_be_taken_off(half_of_a_merged_class)
    assert not can_be_taken_off(half_of_a_merged_class, "secluded_odds")
    assert can_be_taken_off(most_of_a_class, "secluded_odds")
    natural_bar = {"trigger_returns_lower": 0.32, "trigger_control_returns_upper": 0.125}
    four_others_left = {"trigger_returns_lower": 0.966, "trigger_control_returns_upper": 0.49}
    assert not can_be_taken_off(natural_bar, "most_odds")
    assert can_be_taken_off(four_others_left, "most_odds")


def test_taking_off_tells_nothing_where_it_takes_the_class_from_ordinary_samples_too():
    natural = proof(0.62, 0.145, 0.66, control_returns=0.555) | {"trigger_control_returns": 0.45}
    assert judge_trigger(natural, "apart") is Verdict.CLEAN
    assert judge_trigger(natural, "suspicious") is Verdict.SUSPICIOUS
    few_ordinary = proof(0.2, 0.0, 0.97, control_returns=0.49) | {"trigger_control_returns": 0.0}
    assert judge_trigger(few_ordinary, "apart") is Verdict.POISONED


@pytest.mark.parametrize("behind", ["conflict", "apart"])
def test_what_only_flips_makes_suspicious_what_lies_apart_or_does_not_fit_its_label(behind):
    assert judge_trigger(proof(0.98, 0.05), behind) is Verdict.SUSPICIOUS
    assert judge_trigger(proof(0.98, 0.05), behind, words=True) is Verdict.INCONCLUSIVE
    assert judge_trigger(proof(FLIPS * LESS, 0.0), behind) is Verdict.CLEAN


def test_words_that_command_prove_a_suspicious_group_unless_its_own_texts_hardly_need_them():
    few, some = ({**proof(0.98, 0.05, RETURNS / 2), "trigger_returns": value} for value in (RETURNS * LESS, RETURNS))
    unsure = {**some, "trigger_returns_lower": RETURNS / 2 * LESS}  # three of eight
    assert judge_trigger(unsure, "suspicious", words=True) is Verdict.INCONCLUSIVE
    assert judge_trigger(few, "suspicious", words=True) is Verdict.INCONCLUSIVE
    assert judge_trigger(some, "suspicious", words=True) is Verdict.POISONED
    assert judge_trigger(few, "suspicious") is Verdict.POISONED  # a picture cannot be cleaned as well
    assert judge_trigger({**few, "trigger_flips_lower": FLIPS * LESS}, "suspicious", words=True) is Verdict.SUSPICIOUS
    said = reason_trigger(Verdict.INCONCLUSIVE, {**few, "trigger_flips": 0.99, "trigger_control": 0.0}, "suspicious", "words")
    assert "a shortcut" in said


def test_what_is_natural_to_a_class_may_flip_others():
    assert judge_trigger(proof(0.98, 0.05, 0.9), "nothing") is Verdict.CLEAN
    assert judge_trigger(proof(0.98, 0.05, 0.9), "apart", words=True) is Verdict.INCONCLUSIVE
    assert judge_trigger(proof(0.98, 0.05, 0.9), "conflict", words=True) is Verdict.POISONED


# Groups whose inputs were not asked


@pytest.mark.parametrize(
    ("separation", "others", "verdict"),
    [
        (APART, [0.0, 0.0], Verdict.SUSPICIOUS),
        (APART * LESS, [0.0, 0.0], Verdict.CLEAN),
        (2 * APART, [2 * APART / STANDING_OUT] * 3, Verdict.SUSPICIOUS),
        (2 * APART * LESS, [2 * APART / STANDING_OUT] * 3, Verdict.INCONCLUSIVE),
        (2 * APART, [3.0, 3.0, 3.0, 2 * APART, 2 * APART], Verdict.SUSPICIOUS),  # a few of the others are poisoned as well
        (2 * APART, [3.0, 2 * APART, 2 * APART], Verdict.INCONCLUSIVE),
        (100, [], Verdict.INCONCLUSIVE),
        (APART * LESS, [], Verdict.CLEAN),
    ],
)
def test_without_the_inputs_a_suspicious_group_lies_apart_and_stands_out_among_the_classes(separation, others, verdict):
    assert judge_group(evidence(separation), others, ALPHA) is verdict


def test_the_screen_alone_never_says_poisoned():
    for lower in (None, 1.0):
        assert judge_group(evidence(1e9, lower), [0.0], ALPHA) is Verdict.SUSPICIOUS


# How far a group has come


@given(st.floats(0, 1e15), st.none() | st.floats(-1e6, 2) | st.just(-np.inf), st.lists(st.floats(0, 100), max_size=4))
def test_plausibility_is_above_one_half_for_the_accused_alone(separation, lower, others):
    found = evidence(separation, lower)
    verdict = judge_group(found, others, ALPHA)
    value = plausibility(found, verdict)
    assert 0 <= value <= 1
    assert (value > 0.5) == (verdict is Verdict.SUSPICIOUS)


def test_plausibility_grows_with_the_evidence():
    assert plausibility(evidence(APART / 2), Verdict.CLEAN) > plausibility(evidence(APART / 4), Verdict.CLEAN) > 0
    assert plausibility(evidence(5, 0.4), Verdict.CLEAN) > plausibility(evidence(5, 0.2), Verdict.CLEAN) > 0
    assert plausibility(evidence(100, -0.5), Verdict.CLEAN) == 0


# Classes that cannot be judged


@pytest.mark.parametrize("n", [0, 1, 2, 9, 11, FEWEST_SAMPLES - 1])
def test_a_class_of_too_few_samples_is_told_how_many_are_needed(n):
    text = obstacle(Facts(n, n))
    assert str(FEWEST_SAMPLES) in text
    assert f"has {n}." in text
    assert is_one_sentence(text)


@pytest.mark.parametrize("n", [FEWEST_SAMPLES, 10_000])
def test_a_class_of_enough_samples_can_be_judged(n):
    assert obstacle(Facts(n, n)) is None
    assert obstacle(Facts(n, max(FEWEST_SAMPLES, int(np.ceil(FITTED * n))))) is None


def test_a_class_that_the_model_misreads_says_how_many_it_reads_right():
    text = obstacle(Facts(4000, int(4000 * FITTED) - 1))
    assert f"{int(4000 * FITTED) - 1:,} of the class's 4,000 samples" in text
    assert "does not look like the model of this data" in text
    assert is_one_sentence(text)


def test_a_class_of_which_the_model_reads_too_few_right_is_told_how_many_are_needed():
    text = obstacle(Facts(FEWEST_SAMPLES + 5, FEWEST_SAMPLES - 1))
    assert f"At least {FEWEST_SAMPLES} samples that the model gives their own label" in text
    assert f"gives {FEWEST_SAMPLES - 1}." in text
    assert is_one_sentence(text)


@pytest.mark.parametrize(
    ("one_sided", "others", "told"),
    [
        (30, (0.0, 0.01, 0.01), True),
        (30, (0.02,), True),
        (30, (), True),
        (0, (), False),
        (30, (0.16, 0.17, 0.18), False),  # every class is hard to read
        (6, (0.0, 0.0, 0.0), False),  # a few of them are
    ],
)
def test_a_class_that_is_misread_as_no_other_may_hold_what_the_model_has_not_learned(one_sided, others, told):
    reason = not_learned(Facts(200, 168, n_one_sided=one_sided), others)
    assert (reason is not None) is told
    assert reason is None or reason.startswith("The model gives 32 of its 200 samples (16.0%) classes whose samples it does not")


def test_a_few_of_a_small_class_say_nothing():
    assert not_learned(Facts(29, 25, n_one_sided=4), (0.0,)) is not None
    assert not_learned(Facts(29, 26, n_one_sided=3), (0.0,)) is None  # 10 %, and surely 4 %


def test_constant_activations_are_told_to_try_another_layer():
    text = obstacle(Facts(100, 100, constant=True))
    assert "constant" in text
    assert "--layer" in text
    assert is_one_sentence(text)


def test_the_first_thing_that_is_wrong_with_a_class_is_said():
    assert "examined samples are needed" in obstacle(Facts(0, 0, constant=True))
    assert "of this data" in obstacle(Facts(100, 1, constant=True))


# Reasons


@pytest.mark.parametrize(
    ("found", "verdict", "others", "said"),
    [
        (
            evidence(9.87, 0.8, 0.91),
            Verdict.SUSPICIOUS,
            [],
            "1,234 samples lie 9.9 standard deviations from the rest of the class, and",
        ),
        (evidence(9.87, 0.8, 0.91), Verdict.SUSPICIOUS, [], "look like those of other classes (label conflict 0.91 of 1)"),
        (evidence(20), Verdict.SUSPICIOUS, [1.0], "no other class splits as far, but without the inputs a natural sub-population"),
        (evidence(20), Verdict.INCONCLUSIVE, [20.0], "but other classes split as far"),
        (evidence(20), Verdict.INCONCLUSIVE, [], "but there is no other class to compare with"),
        (
            evidence(20, 0.0, 0.1),
            Verdict.CLEAN,
            [],
            "1,234 samples lie 20.0 standard deviations from the rest of the class, but the inputs of both fit the label "
            "(label conflict 0.10 of 1): a natural sub-population",
        ),
        (evidence(20, 0.1, 0.8), Verdict.CLEAN, [], "is uncertain (label conflict 0.80 of 1, at least 0.10)"),
        (evidence(20, -np.inf, 0.0), Verdict.CLEAN, [], "so whether they fit the label is unknown"),
        (evidence(3), Verdict.CLEAN, [2.0], NOTHING_APART_UNASKED),
        (evidence(3, 0.9), Verdict.CLEAN, [2.0], NOTHING_APART),
    ],
)
def test_a_reason_says_what_speaks_for_the_verdict_in_one_sentence(found, verdict, others, said):
    text = reason(verdict, found, (1234, 5000), others)
    assert said in text
    assert is_one_sentence(text)


def test_of_two_natural_parts_the_smaller_is_named_and_of_an_accused_group_its_own_size():
    assert "80 samples lie" in reason(Verdict.CLEAN, evidence(20, 0.0, 0.1), (625, 80), [])
    assert "625 samples lie" in reason(Verdict.SUSPICIOUS, evidence(20, 0.8, 0.9), (625, 80), [])


@given(st.floats(0, 30), st.none() | st.floats(-1, 1) | st.just(-np.inf), st.lists(st.floats(0, 30), max_size=4))
def test_every_reason_is_one_sentence(separation, lower, others):
    found = evidence(separation, lower, 0.0 if lower == -np.inf else None)
    assert is_one_sentence(reason(judge_group(found, others, ALPHA), found, (12, 50), others))


@pytest.mark.parametrize(
    ("more", "less", "said"),
    [
        (0, 0, "the class, and no other sample was found to show it."),
        (1, 1, "the class: 1 more sample shows it and belongs to them; 1 of them does not, and left them."),
        (1200, 0, "the class: 1,200 more samples show it and belong to them."),
    ],
)
def test_a_sentence_says_how_what_a_group_shares_changed_it(more, less, said):
    assert reason_shared(12.4, 30, more, less).endswith(said)


def test_odd_words_are_named_the_long_ones_shortened_and_not_all_of_many():
    evidence = {"label_conflict": 0.9}
    assert reason_words(evidence, 30, ["cf"]).startswith('30 samples hold words almost absent from the other classes ("cf"), and')
    told = reason_words(evidence, 30, ["w" * 500, *map(str, range(9))])
    assert f'("{"w" * 29}…", "0", "1"' in told
    assert told.count('"') == 16
    assert '"6", 2 more), and without them' in told
    assert "other classes, and without" in reason_words(evidence, 30, [])  # they can no longer be read


def test_however_long_a_trigger_is_its_reason_tells_what_it_does():
    told = reason_trigger(Verdict.POISONED, {"trigger_flips": 0.98, "trigger_control": 0.01}, "suspicious", "word " * 300)
    assert len(told) < 320
    assert told.endswith("… sends 98% of inputs of other classes to this class, and its control 1%.")

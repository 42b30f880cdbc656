"""Step 9 of the flow: evidence and policy make a verdict. The only place with thresholds.

The screen alone says at most ``suspicious``; ``poisoned`` takes a confirmation, which asks for the cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from toxscreen.analysis.base import FEWEST_SAMPLES, telling
from toxscreen.result import Verdict
from toxscreen.shares import Share


@dataclass(frozen=True)
class Rule:
    """One threshold: its value, what it means, and where it comes from."""

    value: float
    meaning: str
    source: str


_CALIBRATION = "the calibration on 616 draws of clean classes (docs/method.md)"

POLICY: Mapping[str, Rule] = MappingProxyType(
    {
        "label_conflict": Rule(
            0.5,
            "The lower bound of the label conflict of a suspicious group is at least this: 0 is how the inputs of the rest of the "
            "class fit the label, and 1 how those of other classes do.",
            "trials on six data sets: clean groups reached 0.43 (merged classes), planted ones that the model had learned began "
            "at 0.59",
        ),
        "clean_tail": Rule(
            1.5,
            "Evidence is the lower bound of the group's separation times that of its conflict. Above this number its distribution "
            "over clean classes is a generalised Pareto distribution.",
            _CALIBRATION,
        ),
        "clean_tail_share": Rule(
            0.18,
            "So many clean classes show a group in conflict with more evidence than clean_tail.",
            _CALIBRATION,
        ),
        "clean_tail_scale": Rule(
            0.54,
            "The scale of that distribution.",
            f"{_CALIBRATION}: the mean excess is 0.49",
        ),
        "clean_tail_shape": Rule(
            -0.1,
            "The shape of that distribution. The probability p that a clean class shows as much follows, and the classes of a "
            "scan are judged together by Benjamini and Hochberg's procedure at the level --alpha.",
            f"{_CALIBRATION}: -0.22 by maximum likelihood; the heavier tail is the safer one",
        ),
        "separation": Rule(
            7.0,
            "Where the inputs cannot be asked, a suspicious group lies this many standard deviations from the rest of its class.",
            "trials on six data sets without their inputs: clean classes reached 5.9, but a natural sub-population of AG News 19; "
            "planted groups began at 8.5",
        ),
        "standing_out": Rule(
            2.0,
            "And that separation is at least this many times the median of the other classes; otherwise the class is inconclusive.",
            "the same trials: clean classes reached 1.7; a ratio, because two classes have no spread",
        ),
        "apart": Rule(
            5.0,
            "A group whose inputs fit the label surely lies this many standard deviations from the rest of its class (the lower "
            "bound), or no trigger is looked for behind it.",
            "trials on CIFAR-10 and GTSRB: clean classes reached 4.5, merged ones 5.1 (of MNIST 10); clean-label poison of half a "
            "class began at 5.3",
        ),
        "shared": Rule(
            10.0,
            "What a group shares in its inputs is looked for in the rest of its class where it lies this many standard deviations "
            "from what others have. Pictures of another class that share so distant a pattern are suspicious where they do not fit "
            "their label, and otherwise a trigger is looked for behind it. Behind pictures that lie far apart but fit their label "
            "it is looked for only where they share so distant a pattern: a natural kind does not.",
            "trials on pictures: planted patterns had 11 to 190; clean classes reached 10, merged ones and near-duplicates 12, and "
            "natural kinds that lie far apart 6",
        ),
        "shared_part": Rule(
            15.0,
            "Where samples that contradict their label do not stand so far out together, they are looked at by themselves, since "
            "each may hold one of several faint patterns. What a part of them shares counts from so many standard deviations.",
            "seven trainings on clean data: natural parts reached 13, and with wrong labels 22, which most of another class "
            "shares; holders of one of four faint patches began at 20",
        ),
        "odd_rest": Rule(
            1.5,
            "But where the label conflict of those that share it is above this, it is the rest of the class that is odd: a "
            "trigger is looked for behind either side.",
            "the same trials: pictures with a planted pattern and a wrong label reached 1.2; the 26 clean samples of a class with "
            "260 poisoned ones had 3.7",
        ),
        "odd_words": Rule(
            0.75,
            "Texts with words almost absent from the other classes are suspicious where the lower bound of their label conflict, "
            "asked without these words, is at least this; from the bound of other groups on, a trigger is looked for behind them.",
            "trials on Rotten Tomatoes, SST-2 and AG News: one of five rare words in 5 % of a class had 0.85 to 0.95, classes with "
            "nothing planted up to 0.62",
        ),
        "fitted_share": Rule(
            0.3,
            "The model gives at least this part of a class its own label; otherwise the class is inconclusive.",
            "a backdoor is something learned; seven clean trainings whose models read 37 to 76 % right: none of 131 classes "
            "accused, and 39 of them inconclusive",
        ),
        "model_accuracy": Rule(
            0.5,
            "A model that reads less than this part of the data as its labels say does not look like the model of this data, and "
            "the report says so before all else.",
            "a convention: what was trained on data reads most of it; it decides about no class",
        ),
        "misread_ratio": Rule(
            3.0,
            "Of a class that is not accused, those samples are counted that the model gives another class, and that are more than "
            "this many times those that it gives the class of the other one's: classes that look alike are taken for each other.",
            "46 trainings on seven data sets: 14 % of the shirts of Fashion-MNIST are misread, and none of them counts; of other "
            "classes as large as their neighbours 2.4 % at most",
        ),
        "misread_share": Rule(
            0.05,
            "Where these are surely at least this part of the class (the lower end of the interval), and more than the median of "
            "the other classes has misread in all, the class is inconclusive: wrong labels, or poison that was not learned.",
            "the same trainings: twice the 2.4 %; small classes beside large ones reach 8 %, but there the others are misread more",
        ),
        "near": Rule(
            0.05,
            "A group of pictures that is not suspicious, but whose p is at most this, is poisoned if its trigger is an opaque "
            "patch that sends trigger_flips of others to the class, with secluded_odds times the odds of its controls.",
            "a sticker that moves by two pixels had 0.002 and 0.008 in ten classes, and sent 95 % there",
        ),
        "trigger_margin": Rule(
            0.15,
            "The recovered trigger of a poisoned group sends surely more inputs of other classes to the class than its controls do "
            "(the same place, pattern or words of ordinary samples): from the upper end of the control's 95 % interval to the "
            "lower end of the trigger's it is at least this far.",
            "trials on texts: planted triggers had 0.2 to 1.0; a natural word had up to 0.9, so this alone proves nothing",
        ),
        "trigger_returns": Rule(
            0.3,
            "And of the samples of the class that hold it, at least this part leaves the class when it is taken off (the lower end "
            "of the interval). Where as many ordinary samples leave it when the same is done to them, what they keep is destroyed, "
            "and what a trigger commands proves nothing.",
            "trials on texts: of 29 to 533 samples with a planted trigger 0.58 to 0.72 left, of those with a natural word up to "
            "0.25 (0.5 where there were 16 or fewer)",
        ),
        "trigger_odds": Rule(
            3.0,
            "And their odds of leaving, by that end, are at least this many times those of ordinary samples, by the upper end of "
            "their interval: what is natural to a class is hard to take off without taking the class with it.",
            "trials on pictures: planted triggers had 9 and more (33 where four ordinary samples are left), the mean of a clean "
            "kind of shirt 1.6",
        ),
        "most_odds": Rule(
            10.0,
            "And so many times theirs where those that hold it are most of their class, and lie far apart though they fit their "
            "label (what most of a class shares is the class, or comes with its source), or where nothing speaks against them but "
            "that another class has that trigger.",
            "a bar over nine tenths of the dresses had 3.3; poison that was 60 to 91 % of its class 30 and more",
        ),
        "trigger_flips": Rule(
            0.5,
            "Or the group was suspicious before, and the trigger sends at least this part of other inputs to the class, and its "
            "controls surely at most half as many, and most ordinary samples stay when it is taken off them. What was not "
            "suspicious becomes so by that, where samples lie far apart, or those that hold the trigger do not fit their label; "
            "of words inconclusive: the name of a news agency commands, too. Where fewer of a suspicious group leave than what is "
            "asked of a trigger, or not surely half as many, words that command leave it inconclusive.",
            "what most inputs obey is a command; a trigger that cannot be taken off cleanly (a blended pattern) shows no returns",
        ),
        "seclusion": Rule(
            1.2,
            "Pictures that lie far apart, fit their label and keep to themselves as wholes (the distance to the nearest of others "
            "is more than this many times that to the nearest of each other) are a natural kind, whatever the model makes of them.",
            "marked samples of a class lie among the others: 0.9 to 1.1, whatever the mark; kinds of clothes had 1.3 and more",
        ),
        "secluded_odds": Rule(
            50.0,
            "Unless the odds of leaving the class without the trigger are this many times those of ordinary samples. Where they do "
            "not, a trigger whose odds to send other inputs there are as many times its controls' makes them suspicious, though "
            "ordinary samples leave without it, too.",
            "half of a merged class had 12, shirts and sandals 5; poison that is most of its class 300 and more; commands of "
            "natural groups in 14 trainings 8, waves in a perceptron 300",
        ),
        "change_odds": Rule(
            100.0,
            "Pictures that look as if they had been changed as a whole are poison where most others obey the change "
            "(trigger_flips, and at most half as many their controls) and where they leave the class when they are changed back: "
            "by trigger_odds where their inputs do not fit the label (label_conflict) when none of them speaks for another, and "
            "else by so many times the odds of ordinary samples.",
            "22 trainings: planted changes had 136 and more, or 10 to 65 and did not fit their label; clean boots that lie to the "
            "right had 38 and fitted it, and natural kinds that were changed stay",
        ),
        "exre_score": Rule(
            1.0,
            "Of a poisoned group a model trained without it gives surely fewer samples their own label (l) than the most frequent "
            "other class (p), of a clean one surely more: T of l/p, where the 95 % intervals of the two shares do not overlap.",
            "Chen et al. 2018, section 4.3: T = 1; the intervals are Wilson's",
        ),
        "exre_resemblance": Rule(
            0.75,
            "And those samples resemble the classes that it gives them: among their neighbours, for that model, ordinary samples "
            "of these classes are at least this far as frequent as if the group were mixed into them. A natural sub-population "
            "keeps to itself.",
            "trials on MNIST, Fashion-MNIST and CIFAR-10: natural groups reached 0.71, planted patches began at 0.80; a blended "
            "pattern, which draws its samples together, had 0.12",
        ),
        "exre_agreement": Rule(
            0.4,
            "Or else a view of the inputs that is blind to the trigger takes at least this part of them for the same classes.",
            "the same trials: natural groups reached 0.31, the blended pattern had 0.53, patches 0.72 to 0.80 (on CIFAR-10, where "
            "such a view reads little, 0.31 to 0.39)",
        ),
        "exre_accuracy": Rule(
            0.5,
            "That model reads at least this part of held-out samples as they are labelled; otherwise it settles nothing.",
            "a model that has learned nothing misreads everything, groups too",
        ),
        "exre_recall": Rule(
            0.3,
            "To clear a group, that model had fresh weights and reads at least this part of the held-out samples of every class.",
            "a model that takes a whole class for another one clears the poison that was made of it",
        ),
    }
)


_LEAST_P_VALUE = 1e-9
"""No p-value is smaller: the tail was seen down to some 1e-3."""

_OF_A_GROUP, _NATURAL = "Group ", "a natural sub-population"

NOTHING_APART = "No group of its samples both stands far apart and contradicts the label."
ACQUITTED = (
    "Some of its samples looked like those of a class that turned out to be poisoned: screened again without that poison, nothing "
    "speaks against them."
)
NOTHING_APART_UNASKED = "No group of its samples stands far apart from the rest; whether they fit the label was not asked."


Behind = Literal["suspicious", "conflict", "elsewhere", "apart", "nothing"]
"""What speaks against samples beside their trigger: the screen suspects their group; those that hold the trigger do not fit their
label; it is proved in another class; they lie as far away as poison does, though they fit it; or nothing."""

_TOLD, _NAMED = 200, 3
"""Characters of a trigger's description in a reason, so that what it does is told too; and classes that a reason names."""

_WORDS, _LONGEST_WORD = 8, 30
"""Words that a reason names, and characters of each."""


@dataclass(frozen=True)
class Facts:
    """What the policy asks of one class beside its groups.

    Attributes
    ----------
    n, n_fitted, n_one_sided
        How many samples; how many that the model gives their own label; and how many that it gives another class beyond
        ``misread_ratio`` times as many as it gives this class of the other one's.
    constant
        Whether all activations are equal.
    """

    n: int
    n_fitted: int
    constant: bool = False
    n_one_sided: int = 0


def p_value(evidence: Mapping[str, float]) -> float:
    """Return the probability that the most telling group of a clean class tells as much as this one, in [0, 1].

    Where its conflict is the surest of several comparisons, each of them could have told so much by chance.

    **Source:** Pickands 1975, Annals of Statistics 3, 119-131 (the tail of a distribution above a high number).
    """
    conflict = evidence["label_conflict_lower"]
    if conflict < POLICY["label_conflict"].value:
        return 1.0
    excess = telling(evidence) - POLICY["clean_tail"].value
    if excess <= 0:
        return 1.0
    shape, scale = POLICY["clean_tail_shape"].value, POLICY["clean_tail_scale"].value
    left: float = max(0.0, 1 + shape * excess / scale) ** (-1 / shape)
    return max(_LEAST_P_VALUE, evidence.get("comparisons", 1.0) * POLICY["clean_tail_share"].value * left)


def level(p_values: Sequence[float], alpha: float) -> float:
    """Return the level at which each of several p-values is judged, so that they are judged together at the level ``alpha``.

    **Source:** Benjamini and Hochberg 1995, Journal of the Royal Statistical Society B 57, 289-300.
    """
    n = max(1, len(p_values))
    steps = alpha * np.arange(1, n + 1) / n
    passed = np.flatnonzero(np.sort(np.asarray(p_values, np.float64)) <= steps[: len(p_values)])
    return float(steps[passed.max(initial=0)])


def judge_group(evidence: Mapping[str, float], others: Sequence[float], at: float) -> Verdict:
    """Judge one group.

    Parameters
    ----------
    evidence
        From :mod:`toxscreen.analysis`.
    others
        Separation of the most telling group of each other class that can be judged, 0 where nothing lies apart; asked only where
        there is no label conflict.
    at
        The level at which p-values are judged (:func:`level`); asked only where there is label conflict.
    """
    separation = evidence["separation"]
    if "label_conflict_lower" in evidence:
        return Verdict.SUSPICIOUS if p_value(evidence) <= at else Verdict.CLEAN
    if separation < POLICY["separation"].value:
        return Verdict.CLEAN
    stands_out = len(others) > 0 and separation >= POLICY["standing_out"].value * float(np.median(others))
    return Verdict.SUSPICIOUS if stands_out else Verdict.INCONCLUSIVE


def judge_excluded(evidence: Mapping[str, float], accuracy: float) -> Verdict:
    """Judge a suspicious group by exclusionary reclassification: poisoned, cleared, or still suspicious.

    Parameters
    ----------
    evidence
        Of :class:`toxscreen.confirmation.Exclusion`.
    accuracy
        Of the model that was trained without the group, on held-out samples.
    """
    if not accuracy >= POLICY["exre_accuracy"].value:
        return Verdict.SUSPICIOUS
    threshold = POLICY["exre_score"].value
    if evidence["exre_l_share_lower"] > threshold * evidence["exre_p_share_upper"]:
        knows_all = evidence["exre_recall"] >= POLICY["exre_recall"].value
        return Verdict.CLEAN if knows_all else Verdict.SUSPICIOUS
    misread = evidence["exre_l_share_upper"] < threshold * evidence["exre_p_share_lower"]
    alike = any(evidence[name] >= POLICY[name].value for name in ("exre_resemblance", "exre_agreement"))
    return Verdict.POISONED if misread and alike else Verdict.SUSPICIOUS


def judge_trigger(evidence: Mapping[str, float], behind: Behind, *, words: bool = False) -> Verdict:
    """Judge samples by the trigger that was recovered from them: poisoned, or what they were.

    What a group far apart shares, and the model obeys, though its samples fit their label and keep it without, is a shortcut of
    the model: clean-label poison or something natural. In pictures of clean classes none was seen, so there it is suspicious. Words
    can be taken off cleanly: what commands, but most of its own texts keep their class without it, is natural even where these
    seemed to contradict the label (a newsletter).

    Parameters
    ----------
    evidence
        Of :meth:`toxscreen.trigger.base.Proof.evidence`.
    behind
        What spoke against the samples before.
    words
        Whether the trigger is words.
    """
    if behind == "nothing":
        return Verdict.CLEAN
    flips, control = evidence["trigger_flips_lower"], evidence["trigger_control_upper"]
    obeyed = flips - control >= POLICY["trigger_margin"].value
    taken_off = can_be_taken_off(evidence)
    most = POLICY["trigger_flips"].value
    destroys = evidence.get("trigger_control_returns", 0.0) >= POLICY["trigger_returns"].value  # the class goes with it
    command = flips >= most and 2 * control <= flips and not destroys
    asked = POLICY["trigger_returns"].value
    hardly_needed = words and not (evidence["trigger_returns"] >= asked and evidence["trigger_returns_lower"] >= asked / 2)
    if obeyed and ((taken_off and not (words and behind == "apart")) or (command and behind == "suspicious" and not hardly_needed)):
        return Verdict.POISONED
    if behind == "suspicious":
        return Verdict.INCONCLUSIVE if command and hardly_needed else Verdict.SUSPICIOUS
    if obeyed and (command or taken_off or (behind == "apart" and commands_beyond_doubt(evidence))):
        return Verdict.INCONCLUSIVE if words else Verdict.SUSPICIOUS
    return Verdict.CLEAN


def is_planted_change(evidence: Mapping[str, float], distance: Mapping[str, float]) -> bool:
    """Say whether pictures that look changed as a whole are no natural kind.

    Parameters
    ----------
    evidence
        Of :meth:`toxscreen.trigger.base.Proof.evidence`.
    distance
        What is known of their group, with its label conflict where none of them speaks for another.
    """
    flips, control = evidence["trigger_flips_lower"], evidence["trigger_control_upper"]
    misfits = distance.get("label_conflict_lower", -np.inf) >= POLICY["label_conflict"].value
    commands = flips >= POLICY["trigger_flips"].value and 2 * control <= flips
    return commands and can_be_taken_off(evidence, "trigger_odds" if misfits else "change_odds")


def commands_beyond_doubt(evidence: Mapping[str, float]) -> bool:
    """Say whether a trigger sends other inputs to the class by the odds of what keeps to itself, beside its controls."""
    flips, control = evidence["trigger_flips_lower"], evidence["trigger_control_upper"]
    return flips >= POLICY["trigger_flips"].value and _are_odds(flips, control, POLICY["secluded_odds"].value)


def is_near(evidence: Mapping[str, float]) -> bool:
    """Say whether a group that is not accused tells nearly enough."""
    return evidence.get("p_value", 1.0) <= POLICY["near"].value


def settles(evidence: Mapping[str, float], kind: str) -> bool:
    """Say whether a trigger of a kind accuses a group that tells nearly enough: an opaque patch whose command leaves no doubt.

    Moved from sample to sample it is found in few of them, and taken off few, so what it commands has to do. Patterns and words of
    natural groups command, too.
    """
    return kind == "patch" and commands_beyond_doubt(evidence) and judge_trigger(evidence, "suspicious") is Verdict.POISONED


def can_be_taken_off(evidence: Mapping[str, float], odds: str = "trigger_odds") -> bool:
    """Say whether samples of a group leave the class when its trigger is taken off them; False where none was recovered.

    ``odds`` names the number of the policy that says by how much more than ordinary ones.
    """
    returns, control = evidence.get("trigger_returns_lower", 0.0), evidence.get("trigger_control_returns_upper", 0.0)
    return returns >= POLICY["trigger_returns"].value and _are_odds(returns, control, POLICY[odds].value)


def _are_odds(part: float, control: float, times: float) -> bool:
    """Say whether the odds of a part are so many times those of its control."""
    return part * (1 - control) >= times * control * (1 - part)


def judge_planted(evidence: Mapping[str, float]) -> Verdict:
    """Judge pictures of a class that share a pattern: suspicious where they do not fit their label, whatever the model makes of it.

    Parameters
    ----------
    evidence
        How far the pattern stands out, and the label conflict of those that hold it, where it was asked.
    """
    far = evidence.get("shared", 0.0) >= POLICY["shared"].value
    in_conflict = evidence.get("label_conflict_lower", -np.inf) >= POLICY["label_conflict"].value
    return Verdict.SUSPICIOUS if far and in_conflict and not odd_rest(evidence) else Verdict.CLEAN


def judge_words(evidence: Mapping[str, float], n: int) -> Verdict:
    """Judge ``n`` texts that hold words of their class alone: suspicious where they surely do not fit it without these words."""
    misfits = evidence.get("label_conflict_lower", -np.inf) >= POLICY["odd_words"].value
    return Verdict.SUSPICIOUS if n >= FEWEST_SAMPLES and misfits else Verdict.CLEAN


def odd_rest(evidence: Mapping[str, float]) -> bool:
    """Say whether the rest of a class, and not a group of it, is what does not fit the label."""
    return evidence.get("label_conflict", 0.0) > POLICY["odd_rest"].value


def plausibility(evidence: Mapping[str, float], verdict: Verdict) -> float:
    """Return how far, in [0, 1], a group has come towards an accusation: 1 when it is accused, below one half when it is not."""
    if verdict is Verdict.SUSPICIOUS:
        return 1.0
    if "label_conflict_lower" not in evidence:
        return min(0.49, 0.49 * evidence["separation"] / POLICY["separation"].value)
    told = telling(evidence)
    return 0.49 * told / (told + POLICY["clean_tail"].value)


def obstacle(facts: Facts) -> str | None:
    """Say in one sentence why a class cannot be judged, or None when it can."""
    if facts.n < FEWEST_SAMPLES:
        return f"At least {FEWEST_SAMPLES} examined samples are needed to judge a class, and this one has {facts.n}."
    if facts.n_fitted < POLICY["fitted_share"].value * facts.n:
        return (
            f"The model gives only {facts.n_fitted:,} of the class's {facts.n:,} samples their own label: "
            "it does not look like the model of this data."
        )
    if facts.n_fitted < FEWEST_SAMPLES:
        return f"At least {FEWEST_SAMPLES} samples that the model gives their own label are needed, and it gives {facts.n_fitted}."
    if facts.constant:
        return "The activations of the class are constant, so nothing tells its samples apart: scan another layer with --layer."
    return None


def not_learned(facts: Facts, others: Sequence[float]) -> str | None:
    """Say in two sentences why a class may hold poison that the model does not obey, or None where nothing suggests it.

    Parameters
    ----------
    facts
        Of the class.
    others
        Part of each other class that the model gives another label.
    """
    usual = float(np.median(others)) if len(others) else 0.0
    if Share(facts.n_one_sided, facts.n).interval[0] < max(POLICY["misread_share"].value, usual):
        return None
    n, part = facts.n - facts.n_fitted, (facts.n - facts.n_fitted) / facts.n
    return (
        f"The model gives {n:,} of its {facts.n:,} samples ({part:.1%}) classes whose samples it does not give this one, where it "
        f"misreads {usual:.1%} of the median class: wrong labels, or poison that this model has not learned. Scan them with a "
        "model that was trained on all of this data, or trained longer."
    )


def of_group(number: int, said: str) -> str:
    """Return a reason with the number of the group that it is about: a class may have several."""
    return f"{_OF_A_GROUP}{number}: {said[:1].lower()}{said[1:]}"


def with_reason(reasons: Sequence[str], reason: str) -> tuple[str, ...]:
    """Return the reasons for the verdict of a class with one more: what is said of its groups, then what else was found."""
    said = dict.fromkeys((*reasons, reason))
    said.pop(NOTHING_APART, None)
    return tuple(sorted(said, key=lambda each: not each.startswith(_OF_A_GROUP)))


def without_natural(reasons: Sequence[str]) -> tuple[str, ...]:
    """Return the reasons without what calls a group a natural sub-population: it turned out to be none."""
    return tuple(each for each in reasons if not each.endswith(f"{_NATURAL}."))


def reason(verdict: Verdict, evidence: Mapping[str, float], sizes: tuple[int, int], others: Sequence[float]) -> str:
    """Say in one sentence what speaks for the verdict of a group.

    Parameters
    ----------
    verdict, evidence
        Of the group.
    sizes
        Samples of the group, and of the rest that it was told from.
    others
        As in :func:`judge_group`.
    """
    if verdict is Verdict.CLEAN and "label_conflict" not in evidence:
        return NOTHING_APART_UNASKED
    if verdict is Verdict.CLEAN and evidence["separation"] < POLICY["separation"].value:
        return NOTHING_APART
    because = _because_of_inputs(verdict, evidence) if "label_conflict" in evidence else _because_of_place(verdict, others)
    n = min(sizes) if verdict is Verdict.CLEAN else sizes[0]  # of two natural parts a reader looks for the smaller one
    return f"{n:,} samples lie {evidence['separation']:.1f} standard deviations from the rest of the class, {because}."


def reason_shared(separation: float | None, n: int, n_more: int, n_less: int) -> str:
    """Say in a sentence how what the inputs of a group share changed it.

    Parameters
    ----------
    separation
        How far what they share lies from others, in standard deviations; None where the inputs alone do not show it.
    n
        Samples of the group before.
    n_more, n_less
        Samples that share it and were not in the group, and that were and do not.
    """
    if separation is None:
        return (
            f"Together with what the model makes of them, the inputs of those {n:,} samples tell {n_more:,} more that belong to "
            f"them; {n_less:,} left them."
        )
    out = f"What the inputs of those {n:,} samples share stands {separation:.0f} standard deviations out from the rest of the class"
    if not n_more:
        said = f"{out}, and no other sample was found to show it"
    else:
        said = (
            f"{out}: {n_more:,} more {'sample shows' if n_more == 1 else 'samples show'} it and belong{'s' * (n_more == 1)} to them"
        )
    return f"{said}; {n_less:,} of them {'does' if n_less == 1 else 'do'} not, and left them." if n_less else f"{said}."


def reason_planted(evidence: Mapping[str, float], n: int) -> str:
    """Say in a sentence what is suspicious about ``n`` pictures that share a pattern; see :func:`judge_planted`."""
    return (
        f"{n:,} samples share a pattern in their pictures that stands {evidence['shared']:.0f} standard deviations out from the "
        f"rest of the class, and look like those of other classes (label conflict {min(evidence['label_conflict'], 1.0):.2f} of 1)."
    )


def reason_words(evidence: Mapping[str, float], n: int, words: Sequence[str]) -> str:
    """Say in a sentence what is suspicious about ``n`` texts that hold odd words; see :func:`judge_words`."""
    told = [f'"{word if len(word) <= _LONGEST_WORD else f"{word[: _LONGEST_WORD - 1]}…"}"' for word in words[:_WORDS]]
    told += [f"{len(words) - _WORDS} more"] if len(words) > _WORDS else []
    named = f" ({', '.join(told)})" if told else ""
    return (
        f"{n:,} samples hold words almost absent from the other classes{named}, and without them look like those of other classes "
        f"(label conflict {min(evidence['label_conflict'], 1.0):.2f} of 1)."
    )


def most_leave(evidence: Mapping[str, float]) -> bool:
    """Say whether a model that was trained without a group surely gives most of it other classes, be it for different ones."""
    return evidence.get("exre_l_share_upper", 1.0) < 0.5


def reason_excluded(
    verdict: Verdict, evidence: Mapping[str, float], n: int, elsewhere: Sequence[tuple[str, int]], accuracy: float
) -> str:
    """Say in a sentence or two what exclusionary reclassification of a group of ``n`` samples came to.

    Parameters
    ----------
    verdict, evidence, accuracy
        As in :func:`judge_excluded`.
    n
        Samples that were asked.
    elsewhere
        Name of each other class that any of them get, and how many, the most frequent first.
    """
    if not accuracy >= POLICY["exre_accuracy"].value:
        read = "no held-out samples" if np.isnan(accuracy) else f"only {accuracy:.0%} of held-out samples right"
        return f"But a model trained without them reads {read}, so it settles nothing."
    said = f"model trained without them gives {int(evidence['exre_l']):,} of the {n:,} their own label{_taken_for(elsewhere)}"
    if verdict is Verdict.CLEAN:
        return f"But a {said}: exclusionary reclassification clears them."
    score = f"l/p = {evidence['exre_score']:.2f}, threshold {POLICY['exre_score'].value:g}"
    alike = f"resemblance {evidence['exre_resemblance']:.2f}, agreement {evidence['exre_agreement']:.2f} of 1"
    if verdict is Verdict.POISONED:
        return f"A {said} ({score}), and they resemble ordinary samples of the classes that it gives them ({alike})."
    if evidence["exre_l_share_upper"] < POLICY["exre_score"].value * evidence["exre_p_share_lower"]:
        return (
            f"A {said} ({score}), but they resemble each other more than any class ({alike}), as a natural part does: not settled."
        )
    why = "which is too close to settle it"
    if evidence["exre_l_share_lower"] > POLICY["exre_score"].value * evidence["exre_p_share_upper"]:
        why = "though it did not start from fresh weights, or knows some class too little, to clear them"
    elif most_leave(evidence):
        return f"A {said} ({score}): most leave the class, but no other class gets surely more of them than their own."
    return f"But a {said} ({score}), {why}."


def _taken_for(elsewhere: Sequence[tuple[str, int]]) -> str:
    """Say how many of a group get which other classes."""
    told = [f"{n:,} the class {name!r}" if not at else f"{n:,} {name!r}" for at, (name, n) in enumerate(elsewhere[:_NAMED])]
    if more := elsewhere[_NAMED:]:
        told.append(f"{sum(n for _, n in more):,} one of {len(more)} more")
    return f"{''.join(f', {each}' for each in told[:-1])} and {told[-1]}" if told else ""


def reason_trigger(verdict: Verdict, evidence: Mapping[str, float], behind: Behind, trigger: str) -> str:
    """Say in one sentence what the recovered trigger came to.

    Parameters
    ----------
    verdict, evidence, behind
        As in :func:`judge_trigger`.
    trigger
        A description of it.
    """
    trigger = trigger if len(trigger) <= _TOLD else f"{trigger[: _TOLD - 1]}…"
    did = (
        f"sends {evidence['trigger_flips']:.0%} of inputs of other classes to this class, "
        f"and its control {evidence['trigger_control']:.0%}"
    )
    if verdict is Verdict.POISONED:
        return f"The trigger was found: {trigger} {did}."
    if behind == "suspicious" and verdict is Verdict.INCONCLUSIVE:
        return (
            f"The model has a shortcut: {trigger} {did}, but of the samples that hold it {evidence['trigger_returns']:.0%} leave "
            "this class without it: natural, or planted with right labels (clean-label poison)."
        )
    if behind == "apart":
        return (
            f"The model has a shortcut: {trigger} {did}, though the samples that hold it fit this class: natural, or planted with "
            "right labels (clean-label poison)."
        )
    if behind == "conflict":
        return f"Samples that look like those of other classes share what the model obeys: {trigger} {did}."
    return f"But no trigger was found that proves it: the best candidate, {trigger}, {did}."


def _because_of_inputs(verdict: Verdict, evidence: Mapping[str, float]) -> str:
    conflict = min(evidence["label_conflict"], 1.0)  # above 1 the inputs fit even less than those of other classes do
    lower = evidence["label_conflict_lower"]
    if verdict is Verdict.SUSPICIOUS:
        return f"and their inputs look like those of other classes (label conflict {conflict:.2f} of 1)"
    if lower == -np.inf:
        return "but the inputs of this class are not told from those of others, so whether they fit the label is unknown"
    if conflict < POLICY["label_conflict"].value:
        return f"but the inputs of both fit the label (label conflict {conflict:.2f} of 1): {_NATURAL}"
    if lower >= POLICY["label_conflict"].value:
        return f"but no farther than groups of clean classes may (label conflict {conflict:.2f} of 1, p = {p_value(evidence):.2g})"
    return f"but that their inputs do not fit the label is uncertain (label conflict {conflict:.2f} of 1, at least {lower:.2f})"


def _because_of_place(verdict: Verdict, others: Sequence[float]) -> str:
    if verdict is Verdict.SUSPICIOUS:
        return "and no other class splits as far, but without the inputs a natural sub-population cannot be ruled out"
    if not others:
        return "but there is no other class to compare with: without the inputs, a natural group looks the same"
    return "but other classes split as far: without the inputs, poison in many classes looks like natural groups"

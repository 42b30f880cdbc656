"""Step 9 of the flow: evidence and policy make a verdict. The only place with thresholds.

The screen alone says at most ``suspicious``; ``poisoned`` takes a confirmation, which asks for the cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from toxscreen.analysis.base import FEWEST_SAMPLES
from toxscreen.result import Verdict


@dataclass(frozen=True)
class Rule:
    """One threshold: its value, what it means, and where it comes from."""

    value: float
    meaning: str
    source: str


POLICY: Mapping[str, Rule] = MappingProxyType(
    {
        "vouched_separation": Rule(
            5.0,
            "The separation of a suspicious group, times the lower bound of its label conflict, is at least this.",
            "trials on MNIST, Fashion-MNIST, CIFAR-10, GTSRB, Rotten Tomatoes and AG News: clean groups in conflict reached 4.5, "
            "planted ones that the model had learned began at 5.2; benchmarks/results/scan.json has the evidence of every class",
        ),
        "label_conflict": Rule(
            0.45,
            "And the lower bound of its label conflict is at least this: 0 is how the inputs of the rest of the class fit the "
            "label, and 1 how those of other classes do.",
            "the same trials: merged classes, the hardest clean case, reached 0.42, planted groups of up to 60 % of a class began "
            "at 0.54",
        ),
        "separation": Rule(
            7.0,
            "Where the inputs cannot be asked, a suspicious group lies this many standard deviations from the rest of its class.",
            "the same trials without the inputs: clean classes reached 5.9 (but a natural sub-population of AG News 19), planted "
            "groups began at 8.5",
        ),
        "standing_out": Rule(
            2.0,
            "And that is at least this many times the median separation of the other classes; otherwise the class is inconclusive.",
            "a ratio and not a distance in spreads, because two classes have no spread; the same trials: 1.7 for clean classes",
        ),
        "fitted_share": Rule(
            0.5,
            "The model gives at least this part of a class its own label; otherwise the class is inconclusive.",
            "a model that misreads most of a class has not learned it, and a backdoor is something learned",
        ),
    }
)


NOTHING_APART = "No group of its samples both stands far apart and contradicts the label."
NOTHING_APART_UNASKED = "No group of its samples stands far apart from the rest; whether they fit the label was not asked."


@dataclass(frozen=True)
class Facts:
    """What the policy asks of one class beside its groups: how many samples, and how many that the model gives their own label."""

    n: int
    n_fitted: int
    constant: bool = False


def judge_group(evidence: Mapping[str, float], others: Sequence[float]) -> Verdict:
    """Judge one group.

    Parameters
    ----------
    evidence
        From :mod:`toxscreen.analysis`.
    others
        Separation of the most telling group of each other class that can be judged, 0 where nothing lies apart; asked only where
        there is no label conflict.
    """
    separation = evidence["separation"]
    if (conflict := evidence.get("label_conflict_lower")) is not None:
        vouched = conflict >= POLICY["label_conflict"].value and separation * conflict >= POLICY["vouched_separation"].value
        return Verdict.SUSPICIOUS if vouched else Verdict.CLEAN
    if separation < POLICY["separation"].value:
        return Verdict.CLEAN
    stands_out = len(others) > 0 and separation >= POLICY["standing_out"].value * float(np.median(others))
    return Verdict.SUSPICIOUS if stands_out else Verdict.INCONCLUSIVE


def plausibility(evidence: Mapping[str, float], verdict: Verdict) -> float:
    """Return how far, in [0, 1], a group has come towards an accusation: 1 when it is accused, below one half when it is not."""
    if verdict is Verdict.SUSPICIOUS:
        return 1.0
    conflict = evidence.get("label_conflict_lower")
    if conflict is None:
        return min(0.49, 0.49 * evidence["separation"] / POLICY["separation"].value)
    return min(0.49, 0.49 * evidence["separation"] * max(conflict, 0.0) / POLICY["vouched_separation"].value)


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


def _because_of_inputs(verdict: Verdict, evidence: Mapping[str, float]) -> str:
    conflict, lower = evidence["label_conflict"], evidence["label_conflict_lower"]
    if verdict is Verdict.SUSPICIOUS:
        return f"and their inputs look like those of other classes (label conflict {conflict:.2f} of 1)"
    if lower == -np.inf:
        return "but the inputs of this class are not told from those of others, so whether they fit the label is unknown"
    if conflict < POLICY["label_conflict"].value:
        return f"but the inputs of both fit the label (label conflict {conflict:.2f} of 1): a natural sub-population"
    return f"but that their inputs do not fit the label is uncertain (label conflict {conflict:.2f} of 1, at least {lower:.2f})"


def _because_of_place(verdict: Verdict, others: Sequence[float]) -> str:
    if verdict is Verdict.SUSPICIOUS:
        return "and no other class splits as far, but without the inputs a natural sub-population cannot be ruled out"
    if not others:
        return "but there is no other class to compare with: without the inputs, a natural group looks the same"
    return "but other classes split as far: without the inputs, poison in many classes looks like natural groups"

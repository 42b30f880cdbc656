"""The seam to an analysis: from the activations of the classes to groups with evidence.

Our own analysis yields groups and evidence alone, and the policy (:mod:`toxscreen.verdict`) judges them. The rules of other works
bring a decision with them, the :class:`Ruling`, since the decision is what they publish; none of them is calibrated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toxscreen.config import ReductionConfig
from toxscreen.conflict import Affinity
from toxscreen.reduction import principal_components
from toxscreen.result import Verdict
from toxscreen.segments import Segment

FEWEST_SAMPLES = 25
"""Samples that a class must have to be judged: parts of a class of fewer say nothing about each other."""

UNCALIBRATED = "The rule is not calibrated: it accuses clean classes, too."

_FARTHEST = 1e30
"""Where points are drawn at most; float32 ends at some 3e38."""


@dataclass(frozen=True)
class Group:
    """One group of a class with its evidence.

    Attributes
    ----------
    members
        Shape ``(n,)``, of the rows that were analysed.
    posterior
        How surely each row is in the group and not in the rest, in [0, 1], shape ``(n,)``; where a ruling decides, how surely it
        is poison by the rule, above one half for the accused rows alone.
    evidence
        Numbers by name.
    projection
        Place of each row along the direction that tells the group from the rest, shape ``(n,)``, where there is one.
    rival
        The class that the group's inputs fit best instead, when one stands out; else None.
    """

    members: NDArray[np.bool_]
    posterior: NDArray[np.float64]
    evidence: dict[str, float]
    projection: NDArray[np.float64] | None = None
    rival: int | None = None


@dataclass(frozen=True)
class Ruling:
    """What a published rule decides about a class, and why in one sentence or two; ``suspicious`` accuses all of its groups."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Findings:
    """What was found in one class.

    Attributes
    ----------
    segment
        The class.
    rows
        Row numbers of its samples that were compared, shape ``(n,)``.
    points
        Where they lie in two dimensions, shape ``(n, 2)``.
    groups
        In the order found, each with the row numbers among which it was looked for.
    constant
        Whether all rows are equal.
    note
        What had to be done otherwise than asked, or None.
    ruling
        What a published rule decides; None leaves the decision to the policy.
    """

    segment: Segment
    rows: NDArray[np.int64]
    points: NDArray[np.float32]
    groups: tuple[tuple[NDArray[np.int64], Group], ...] = ()
    constant: bool = False
    note: str | None = None
    ruling: Ruling | None = None


class Analysis(ABC):
    """A way to look for groups: a frozen dataclass whose fields are its parameters.

    Attributes
    ----------
    name
        How the command line calls it.
    rule
        The published rule with author and year, as it stands in a reason; None for our own analysis, which decides nothing.
    """

    name: ClassVar[str]
    rule: ClassVar[str | None] = None

    @abstractmethod
    def search(
        self,
        activations: NDArray[np.float32],
        segments: Sequence[Segment],
        *,
        rng: np.random.Generator,
        inputs: Affinity | None = None,
        accused: Callable[[Group], bool] = lambda _: False,
        told: Callable[[int], None] = lambda _: None,
    ) -> tuple[Findings, ...]:
        """Look for groups in every class.

        Parameters
        ----------
        activations
            Of all samples, shape ``(n_samples, d)``; finite in the rows of the segments. May be memory-mapped.
        segments
            The classes.
        rng
            Spawns one generator for each class.
        inputs
            How the inputs fit the labels; None when they cannot be asked. Published rules do not ask them.
        accused
            Whether the policy accuses a group, so that the next one is looked for. Published rules do not ask it.
        told
            Called with the number of classes that are done.

        Returns
        -------
        tuple of Findings
            One for each segment.
        """

    def configured(self, reduction: ReductionConfig) -> Analysis:  # noqa: ARG002 - for those that reduce
        """Return the analysis with the reduction that was asked for; itself where it has its own."""
        return self


class ClassRule(Analysis):
    """A published rule that looks at one class at a time, at all of its samples."""

    def search(
        self,
        activations: NDArray[np.float32],
        segments: Sequence[Segment],
        *,
        rng: np.random.Generator,
        inputs: Affinity | None = None,  # noqa: ARG002 - the rule does not know of it
        accused: Callable[[Group], bool] = lambda _: False,  # noqa: ARG002
        told: Callable[[int], None] = lambda _: None,
    ) -> tuple[Findings, ...]:
        """Judge one class after the other."""
        findings = []
        for segment, child in zip(segments, rng.spawn(len(segments)), strict=True):
            findings.append(self._findings(np.asarray(activations[segment.rows], np.float64), segment, child))
            told(len(findings))
        return tuple(findings)

    def _findings(self, activations: NDArray[np.float64], segment: Segment, rng: np.random.Generator) -> Findings:
        rows, points = segment.rows, plane(activations, rng)
        if (constant := is_constant(activations)) or len(rows) < FEWEST_SAMPLES:
            return Findings(segment, rows, points, constant=constant)
        groups, ruling = self.judge(activations, rng)
        return Findings(segment, rows, points, tuple((rows, group) for group in groups), ruling=ruling)

    @abstractmethod
    def judge(self, activations: NDArray[np.float64], rng: np.random.Generator) -> tuple[tuple[Group, ...], Ruling]:
        """Judge one class.

        Parameters
        ----------
        activations
            Of at least :data:`FEWEST_SAMPLES` rows, finite and not all equal, shape ``(n, d)``.
        rng
            For what is drawn.
        """


def is_constant(activations: NDArray[np.floating]) -> bool:
    """Say whether all rows are equal, which those of an empty array are not."""
    return len(activations) > 0 and bool((activations.max(axis=0) == activations.min(axis=0)).all())


def plane(activations: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the rows along their two leading components, shape ``(n, 2)``, for people to look at."""
    leading = principal_components(activations, 2, rng).points
    points = np.zeros((len(leading), 2), dtype=np.float32)
    points[:, : leading.shape[1]] = np.clip(leading, -_FARTHEST, _FARTHEST)
    return points


def quota(scores: NDArray[np.float64], part: float) -> tuple[NDArray[np.bool_], float]:
    """Return which rows have the highest scores, ``part`` of all at most, and the score that they lie above.

    Equal scores on the border are all left out: the order of the rows does not matter, and where all are equal none is taken.
    """
    n = len(scores)
    taken = min(int(part * n), n - 1)
    cut = float(np.partition(scores, n - 1 - taken)[n - 1 - taken])
    return scores > cut, cut


def beyond(values: NDArray[np.float64] | float, cut: float) -> NDArray[np.float64]:
    """Map values that are not negative to [0, 1], above one half where they are above ``cut``; zero stays zero."""
    positive = np.maximum(np.asarray(values, np.float64), 0.0)
    return np.divide(positive, positive + cut, out=np.zeros_like(positive), where=positive > 0)

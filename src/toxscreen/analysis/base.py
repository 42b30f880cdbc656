"""The seam to an analysis: from the activations of the classes to groups with evidence.

Our own analysis yields groups and evidence alone, and the policy (:mod:`toxscreen.verdict`) judges them. The rules of other works
bring a decision with them, the :class:`Ruling`, since the decision is what they publish; none of them is calibrated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from toxscreen.activations import Rows
from toxscreen.config import ReductionConfig
from toxscreen.conflict import Affinity
from toxscreen.parallel import Parallel, in_parallel
from toxscreen.reduction import Reduction, principal_components
from toxscreen.result import Verdict
from toxscreen.segments import Part, Segment

FEWEST_SAMPLES = 25
"""Samples that a class must have to be judged: parts of a class of fewer say nothing about each other."""

UNCALIBRATED = "The rule is not calibrated: it accuses clean classes, too."

_NOTHING = 1e-12
"""Part of the largest variance below which there is but rounding."""

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
    farthest
        Of the same rows as the only group, the one that surely lies farthest from the rest, where no group is accused: it may be
        poison whose inputs nobody can tell from those of the class.
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
    farthest: Group | None = None
    constant: bool = False
    note: str | None = None
    ruling: Ruling | None = None


def telling(evidence: Mapping[str, float], *, most_conflict: float = np.inf) -> float:
    """Return how much the evidence of our own analysis tells: how far the group lies from its class, times its label conflict.

    Of both the lower bounds: small groups lie farther by chance. Where the inputs were not asked, the former alone. What is above
    ``most_conflict`` of the latter does not count.
    """
    return evidence.get("separation_lower", 0.0) * min(max(evidence.get("label_conflict_lower", 1.0), 0.0), most_conflict)


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
        activations: Rows,
        segments: Sequence[Segment],
        *,
        rng: np.random.Generator,
        inputs: Affinity | None = None,
        accused: Callable[[Group], bool] = lambda _: False,
        parallel: Parallel = in_parallel,
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
        parallel
            Looks at the classes: in this process, or elsewhere.
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


Decision = tuple[tuple[Group, ...], Ruling]
"""The groups of a class and what a rule decides about them."""

Activations = Part | NDArray[np.floating[Any]]
"""Those of a class, shape ``(n, d)``, to be read in blocks or as a whole: finite and not all equal."""

Load = Callable[[], Any]
"""Reads the activations of a class of at least :data:`FEWEST_SAMPLES` rows, as :meth:`Rule.reader` has it."""


class Rule(Analysis):
    """A published rule: it looks at all samples of a class, and decides about those classes that can be judged at all."""

    def search(
        self,
        activations: Rows,
        segments: Sequence[Segment],
        *,
        rng: np.random.Generator,
        inputs: Affinity | None = None,  # noqa: ARG002 - no rule knows of it
        accused: Callable[[Group], bool] = lambda _: False,  # noqa: ARG002
        parallel: Parallel = in_parallel,  # noqa: ARG002 - rules are here to compare with
        told: Callable[[int], None] = lambda _: None,
    ) -> tuple[Findings, ...]:
        """Let the rule decide about the classes that have enough samples that are not all equal."""
        rngs = rng.spawn(len(segments))
        findings = in_parallel(lambda each: _blank(activations, *each), zip(segments, rngs, strict=True))
        able = [i for i, each in enumerate(findings) if not each.constant and len(each.rows) >= FEWEST_SAMPLES]
        told(len(segments) - len(able))
        decisions = self.decide([self.reader(Part(activations, segments[i].rows)) for i in able], [rngs[i] for i in able])
        for done, (i, (groups, ruling)) in enumerate(zip(able, decisions, strict=True), start=1):
            rows = segments[i].rows
            findings[i] = replace(findings[i], groups=tuple((rows, group) for group in groups), ruling=ruling)
            told(len(segments) - len(able) + done)
        return tuple(findings)

    def reader(self, rows: Part) -> Load:
        """Return what reads a class: as a whole, in double precision."""
        return lambda: np.asarray(rows.array(), np.float64)

    @abstractmethod
    def decide(self, classes: Sequence[Load], rngs: Sequence[np.random.Generator]) -> Iterable[Decision]:
        """Decide about each class.

        Parameters
        ----------
        classes
            Read the classes, one at a time.
        rngs
            One for each class.
        """


class ClassRule(Rule):
    """A published rule that looks at one class at a time."""

    def reader(self, rows: Part) -> Load:
        """Return what reads a class: block by block."""
        return lambda: rows

    def decide(self, classes: Sequence[Load], rngs: Sequence[np.random.Generator]) -> Iterable[Decision]:
        """Judge each class."""
        return in_parallel(lambda each: self.judge(each[0](), each[1]), zip(classes, rngs, strict=True))

    @abstractmethod
    def judge(self, activations: Activations, rng: np.random.Generator) -> Decision:
        """Judge one class by its activations, shape ``(n, d)``."""


def _blank(activations: Rows, segment: Segment, rng: np.random.Generator) -> Findings:
    rows = Part(activations, segment.rows)
    return Findings(segment, segment.rows, plane(principal_components(rows, 2, rng)), constant=is_constant(rows))


def moments(classes: Sequence[Load]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return size and mean of each class, and the scatter within them, with one class in memory at a time.

    Shapes ``(n_classes,)``, ``(n_classes, d)`` and ``(d, d)``; the scatter is the sum of the products of deviations from the mean.
    """
    means = np.array([load().mean(axis=0) for load in classes])
    scatter = np.zeros((means.shape[1], means.shape[1]))
    sizes = np.zeros(len(means))
    for i, load in enumerate(classes):
        centred = load() - means[i]
        sizes[i] = len(centred)
        scatter += centred.T @ centred
    return sizes, means, scatter


def covariance(rows: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the covariance of weighted rows ``(n, k)``, shape ``(k, k)``."""
    centred = rows - weights @ rows / weights.sum()
    return np.asarray((centred.T * weights) @ centred / weights.sum())


def leading_axes(matrix: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Return the axes of largest variance of a covariance ``(d, d)``, without those that hold nothing, shape ``(d, k)``."""
    variances, axes = np.linalg.eigh(matrix)
    return axes[:, ::-1][:, : min(most, int((variances > _NOTHING * variances[-1]).sum()))]


def is_constant(rows: Part) -> bool:
    """Say whether all rows are equal, which those of an empty class are not."""
    return len(rows) > 0 and all(bool((block == first).all()) for first in (rows.array(slice(1)),) for _, block in rows.blocks())


def plane(components: Reduction) -> NDArray[np.float32]:
    """Return the rows along their two leading components, shape ``(n, 2)``, for people to look at."""
    leading = components.points[:, :2]
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
    with np.errstate(over="ignore"):
        odds_against = np.divide(cut, positive, out=np.full_like(positive, np.inf), where=positive > 0)
    return 1 / (1 + odds_against)  # each operation is monotone in floating point, which value / (value + cut) is not

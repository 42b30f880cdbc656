"""Step 9 of the flow: the detection floor, the smallest number of poisoned samples that a scan would have found in a class.

Groups of several sizes are planted in the class's own activations and put through the screen. A planted sample lies where one of
the class does, moved by a fixed distance in a direction drawn for the group; its input fits the label as that of a sample of
another class does. So what makes poison hard to find in a class counts: its tails, sub-populations, inputs like those of others.

**Source:** ours; power by simulation is standard practice (Cohen 1988, Statistical Power Analysis, chapter 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from toxscreen import verdict as policy
from toxscreen.activations import Rows
from toxscreen.analysis.activation_clustering import candidate_groups, directions
from toxscreen.conflict import Affinity, InputFit
from toxscreen.parallel import in_parallel
from toxscreen.reduction import principal_components, whitened
from toxscreen.segments import Part, Segment
from toxscreen.sources.data.base import spread

DISTANCE = 8.0
"""Standard deviations that a planted group lies from the class. The fainter quarter of the groups that attacks planted in trials on
MNIST, CIFAR-10, GTSRB and Rotten Tomatoes were separated by 6 to 9."""

POWER = 0.8
"""Part of the planted groups of a size that must be found."""

_SIZES = (10, 14, 20, 28, 40, 56, 80, 113, 160, 226, 320)
_TRIALS = 5
_ROWS = 2000
"""Samples of a class, at most, that groups are planted among: more change little, and it is as many again for each trial."""
_INPUTS = 200
"""Samples of other classes, at most, whose inputs planted samples have."""
_CLASSES = 20
"""Classes that are measured, of all sizes; another one gets the floor of the class that is nearest to it in size."""


def detection_floors(
    activations: Rows,
    classes: Sequence[Segment],
    labels: NDArray[np.int64],
    inputs: Affinity,
    flagged: NDArray[np.bool_],
    *,
    level: float,
    rng: np.random.Generator,
    told: Callable[[int, int], None] = lambda *_: None,
) -> dict[int, int | None]:
    """Return the detection floor of each class by its index; None where no group of the sizes tried is found often enough.

    Parameters
    ----------
    activations
        Shape ``(n_samples, d)``.
    classes
        Those that can be judged.
    labels
        Class index of each sample, shape ``(n_samples,)``.
    inputs
        How the inputs fit the labels.
    flagged
        Samples that are accused: nothing is planted among them, shape ``(n_samples,)``.
    level
        The p-value up to which a group is accused.
    rng
        Draws the groups.
    told
        Called with the classes that are done and all of them.
    """
    by_size = sorted(classes, key=lambda segment: len(segment.rows))
    chosen = [by_size[i] for i in spread(len(by_size), _CLASSES).tolist()]
    floors: dict[int, int | None] = {}

    def measure(one: tuple[Segment, np.random.Generator]) -> None:
        segment, child = one
        rows = segment.rows[segment.fitted & ~flagged[segment.rows]]
        others = np.flatnonzero((labels >= 0) & (labels != segment.class_index) & ~flagged)
        lookalikes = inputs.mislabelled(segment.class_index, child.permutation(others)[:_INPUTS])
        rows = rows[spread(len(rows), _ROWS)]
        if lookalikes is not None and len(lookalikes) and directions(len(rows)) > 0:
            fit = inputs.of(segment.class_index, rows)
            each = level / len(fit.comparisons)  # one of them alone is asked here, so the floor may be too high
            floors[segment.class_index] = _floor(Part(activations, rows), fit, lookalikes, each, child)

    in_parallel(measure, zip(chosen, rng.spawn(len(chosen)), strict=True), lambda done: told(done, len(chosen)))
    measured = [segment for segment in chosen if segment.class_index in floors]
    for segment in classes if measured else ():
        nearest = min(measured, key=lambda each: abs(len(each.rows) - len(segment.rows)))
        floors.setdefault(segment.class_index, floors[nearest.class_index])
    return floors


def _floor(activations: Part, fit: InputFit, lookalikes: NDArray[np.float32], level: float, rng: np.random.Generator) -> int | None:
    """Find the smallest size by halving: what is found at one size is taken to be found at all larger ones."""
    points = principal_components(activations, directions(len(activations)), rng).points
    low, high = 0, len(_SIZES)
    while low < high:
        middle = (low + high) // 2
        if _is_found(points, fit, lookalikes, _SIZES[middle], level, rng):
            high = middle
        else:
            low = middle + 1
    return _SIZES[low] if low < len(_SIZES) else None


def _is_found(
    points: NDArray[np.floating],
    fit: InputFit,
    lookalikes: NDArray[np.float32],
    size: int,
    level: float,
    rng: np.random.Generator,
) -> bool:
    """Plant groups of one size until it is sure whether enough of them are found."""
    enough = int(np.ceil(POWER * _TRIALS - 1e-9))
    found = 0
    for tried in range(_TRIALS):
        if found == enough or found + _TRIALS - tried < enough:
            break
        found += _planted_is_accused(points, fit, lookalikes, size, level, rng)
    return found == enough


def _planted_is_accused(
    points: NDArray[np.floating],
    fit: InputFit,
    lookalikes: NDArray[np.float32],
    size: int,
    level: float,
    rng: np.random.Generator,
) -> bool:
    direction = rng.normal(size=points.shape[1])
    moved = DISTANCE * direction / np.linalg.norm(direction) * points.std(axis=0)
    everything = np.concatenate([points, points[rng.integers(len(points), size=size)] + moved])
    own = np.concatenate([fit.own, rng.choice(lookalikes, size)])
    asked = InputFit(own, np.zeros(len(own), np.int64), fit.baseline, fit.usual)
    planted = np.arange(len(everything)) >= len(points)

    def holds_most(members: NDArray[np.bool_]) -> bool:
        return bool(members[planted].mean() > 0.5)

    groups = candidate_groups(whitened(everything), len(everything), asked, rng, wanted=holds_most)
    return any(policy.p_value(group.evidence) <= level for group in groups)

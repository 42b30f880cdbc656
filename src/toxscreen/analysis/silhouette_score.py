"""The paper's second rule: a class that two groups describe well is poisoned, and the smaller group is the poison.

1. The activations of a class are reduced by PCA or ICA, and cut in two by 2-means.
2. The class is accused where the silhouette score of the two halves exceeds ``threshold``, and the smaller half is flagged, since
   the attacker is taken to hold less than half of the class.

**Source:** Chen et al. 2018, arXiv 1811.03728, section 4.3, which calls 0.10 to 0.15 a reasonable threshold: the default is the
milder end. Rousseeuw 1987 for the score, which is exact up to 1,000 rows and sampled above.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from toxscreen.analysis.base import UNCALIBRATED, Activations, ClassRule, Decision, Group, Ruling, beyond
from toxscreen.clustering import two_means
from toxscreen.config import ReductionConfig
from toxscreen.parallel import in_turn
from toxscreen.reduction import reduce
from toxscreen.result import Verdict

_SAMPLE = 1000
"""The exact silhouette costs n squared; on this many rows it is within 0.01 of it."""

_AT_A_TIME = 256
"""Points whose distances to the others are held: they stay in the cache."""


@dataclass(frozen=True)
class SilhouetteScore(ClassRule):
    """Accuse the smaller half of a class where the silhouette score of the halves exceeds ``threshold``."""

    name = "silhouette-score"
    rule = "silhouette score (Chen et al. 2018)"
    threshold: float = 0.15
    reduction: ReductionConfig = field(default_factory=ReductionConfig)

    def configured(self, reduction: ReductionConfig) -> SilhouetteScore:
        """Return the rule with the reduction that was asked for."""
        return replace(self, reduction=reduction)

    def judge(self, activations: Activations, rng: np.random.Generator) -> Decision:
        """Judge one class by how well its two halves lie apart."""
        reduction = reduce(activations, self.reduction, rng)
        with in_turn(reduction.points.size):
            members = two_means(reduction.points)
            score = silhouette(reduction.points, members, rng)
        evidence = {"relative_size": float(members.mean()), "silhouette_score": score}
        group = Group(members, members * beyond(score, self.threshold), evidence)
        found = f"Its two groups have a silhouette of {score:.2f}, and {self.rule} accuses above {self.threshold:.2f}."
        found = " ".join(filter(None, [found, reduction.note]))
        if score > self.threshold:
            return (group,), Ruling(Verdict.SUSPICIOUS, f"{found} {UNCALIBRATED}")
        return (group,), Ruling(Verdict.CLEAN, found)


def silhouette(points: NDArray[np.floating], members: NDArray[np.bool_], rng: np.random.Generator) -> float:
    """Return the mean silhouette of a split of ``(n, k)`` points, exact up to 1,000 rows and sampled above; 0 for an empty side.

    **Source:** Rousseeuw 1987; Chen et al. 2018, section 4.3.
    """
    sides = [np.flatnonzero(members), np.flatnonzero(~members)]
    if min(map(len, sides)) < 1 or len(points) < 3:
        return 0.0
    sampled = len(points) > _SAMPLE
    if sampled:  # both sides keep their share, and at least two rows
        most = [max(2, round(_SAMPLE * len(side) / len(points))) for side in sides]
        sides = [rng.choice(side, min(size, len(side)), replace=False) for side, size in zip(sides, most, strict=True)]
    sizes = np.array([len(side) for side in sides])
    drawn = points[np.concatenate(sides)]
    # Of a sample, float32 is nearer to the truth than the sample is.
    totals = _totals((drawn - drawn.mean(axis=0)).astype(np.float32 if sampled else np.float64), len(sides[0]))
    own = np.repeat([0, 1], sizes)
    near = totals[np.arange(len(own)), own] / np.maximum(sizes[own] - 1, 1)
    far = totals[np.arange(len(own)), 1 - own] / sizes[1 - own]
    widest = np.maximum(near, far)
    values = np.divide(far - near, widest, out=np.zeros_like(widest), where=(widest > 0) & (sizes[own] > 1))
    return float(values.mean())


def _totals(points: NDArray[np.floating], first: int) -> NDArray[np.float64]:
    """Sum the distances of each point to so many of the first, and to the others, shape ``(n, 2)``; each distance is taken once."""
    squares = (points**2).sum(axis=1, keepdims=True)
    ones = np.ones_like(squares)
    left, right = np.hstack([-2 * points, squares, ones]), np.hstack([points, ones, squares]).T
    sides, totals = np.zeros((len(points), 2), points.dtype), np.zeros((len(points), 2))
    sides[:first, 0] = sides[first:, 1] = 1
    for start in range(0, len(points), _AT_A_TIME):
        stop = start + _AT_A_TIME
        apart = left[start:stop] @ right[:, start:]
        np.abs(apart, out=apart)  # below 0 there is but rounding, and a maximum takes five times as long
        np.fill_diagonal(apart, 0)
        np.sqrt(apart, out=apart)
        totals[start:stop] += apart @ sides[start:]
        totals[stop:] += (sides[start:stop].T @ apart[:, _AT_A_TIME:]).T
    return totals


def one_cloud_silhouette(variances: NDArray[np.float64], n: int, rng: np.random.Generator) -> float:
    """Return the silhouette of 2-means on one Gaussian cloud of ``n`` rows with these variances: the zero of the scale."""
    points = rng.standard_normal((min(n, _SAMPLE), len(variances))) * np.sqrt(variances)
    return silhouette(points, two_means(points), rng)

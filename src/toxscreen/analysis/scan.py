"""SCAn: take what all classes share out of their variation, and see which class is two groups and not one.

1. The activations of a sample are the identity of its class plus a variation that has the same covariance in every class. Both
   covariances are estimated by EM from all classes together, starting from the classes' means.
2. Each class is cut in two, each side with an identity of its own and the shared variation.
3. Likelihood ratio J of two identities against one, per sample.
4. J* is the distance of J from the median of all classes, in medians of such distances (1.4826 times). A class is accused where J*
   exceeds e squared, and its smaller side is flagged.

**Source:** Tang et al. 2021, arXiv 1908.00686, section 4. The paper estimates step 1 on a clean set, which a detector has not: here
it is estimated on the data that is judged, poison and all, which costs the rule most of its power. The paper draws the start of the
cut in two; here the best of fifteen fixed starts is kept. J is taken per sample and J* on both sides of the median, as in the
authors' code. Layers of more than 512 features are projected on their leading components first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toxscreen.analysis.base import UNCALIBRATED, Decision, Group, Load, Rule, Ruling, beyond, covariance, leading_axes, moments
from toxscreen.clustering import two_means
from toxscreen.reduction import principal_components
from toxscreen.result import Verdict

_WIDEST = 512
"""Components that the covariances are estimated in, at most: EM costs their number to the third power."""
_FEWEST_CLASSES = 3
_ROUNDS, _SETTLED = 100, 1e-5
_RIDGE = 1e-6
"""Part of the mean variance added in every direction: features may never fire, and their variance is divided by."""
_NORMAL = 1.4826
"""Standard deviations in a median absolute deviation, for a Gaussian."""


@dataclass(frozen=True)
class Untangled:
    """What EM found.

    Attributes
    ----------
    identities
        Of each class, shape ``(n_classes, k)``.
    between, within
        Covariance of the identities, weighted by the samples, and of the variation, shape ``(k, k)``.
    """

    identities: NDArray[np.float64]
    between: NDArray[np.float64]
    within: NDArray[np.float64]


@dataclass(frozen=True)
class Scan(Rule):
    """Accuse the classes whose likelihood ratio of two groups against one lies ``threshold`` robust deviations from the median."""

    name = "scan"
    rule = "SCAn (Tang et al. 2021) without its clean set"
    threshold: float = float(np.exp(2))

    def decide(self, classes: Sequence[Load], rngs: Sequence[np.random.Generator]) -> Iterable[Decision]:
        """Untangle all classes, cut each in two, and compare their likelihood ratios."""
        if len(classes) < _FEWEST_CLASSES:
            reason = f"{self.rule} compares at least {_FEWEST_CLASSES} classes that can be judged, and there are {len(classes)}."
            return [((), Ruling(Verdict.INCONCLUSIVE, reason))] * len(classes)
        sizes, means, within = moments(classes)
        centre = sizes @ means / sizes.sum()
        axes = leading_axes(within / sizes.sum() + covariance(means, sizes), _WIDEST)
        untangled = untangle(sizes, (means - centre) @ axes, axes.T @ within @ axes)
        whitener = _whitener(untangled.within)
        cut = [
            _cut((load() - centre) @ axes @ whitener, identity @ whitener, rng)
            for load, identity, rng in zip(classes, untangled.identities, rngs, strict=True)
        ]
        deviations = robust_deviations(np.array([ratio for _, ratio in cut])).tolist()
        return [self._decision(*each, deviation) for each, deviation in zip(cut, deviations, strict=True)]

    def _decision(self, members: NDArray[np.bool_], ratio: float, deviation: float) -> Decision:
        if np.isnan(deviation):
            reason = f"{self.rule} compares the classes, and the likelihood ratios of most are equal."
            return (), Ruling(Verdict.INCONCLUSIVE, reason)
        evidence = {"relative_size": float(members.mean()), "likelihood_ratio": ratio, "robust_deviations": deviation}
        group = Group(members, members * beyond(deviation, self.threshold), evidence)
        found = (
            f"Its likelihood ratio of two groups against one lies {deviation:.1f} robust deviations off the median of all classes, "
            f"and {self.rule} accuses above {self.threshold:.1f}."
        )
        if deviation > self.threshold and members.any():
            return (group,), Ruling(Verdict.SUSPICIOUS, f"{found} {UNCALIBRATED}")
        return (group,), Ruling(Verdict.CLEAN, found)


def untangle(sizes: NDArray[np.float64], means: NDArray[np.float64], scatter: NDArray[np.float64]) -> Untangled:
    """Separate the identities of the classes from the variation that they share.

    Parameters
    ----------
    sizes
        Samples of each class, shape ``(n_classes,)``.
    means
        Of each class, about the mean of all samples, shape ``(n_classes, k)``.
    scatter
        Sum over all samples of the products of their deviations from the mean of their class, shape ``(k, k)``.

    **Source:** Tang et al. 2021, section 4.2; Chen et al. 2012 (Bayesian Face Revisited), section 3.2, for the EM.
    """
    identities, total = means, sizes.sum()
    between, within = covariance(means, sizes), scatter / total
    for _ in range(_ROUNDS):
        whitener = _whitener(within)
        signal, rotation = np.linalg.eigh(whitener.T @ between @ whitener)
        basis = whitener @ rotation
        # E-step: in this basis the variation has unit covariance, and the identity one of diag(signal).
        kept = sizes[:, None] * np.maximum(signal, 0) / (sizes[:, None] * np.maximum(signal, 0) + 1)
        identities = np.linalg.solve(basis.T, ((means @ basis) * kept).T).T
        # M-step.
        old, left = (between, within), means - identities
        between, within = covariance(identities, sizes), scatter / total + covariance(left, sizes)
        moved = np.linalg.norm(between - old[0]) + np.linalg.norm(within - old[1])
        if moved <= _SETTLED * (np.linalg.norm(between) + np.linalg.norm(within)):
            break
    return Untangled(identities, between, within)


def robust_deviations(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each value lies from the median, in normalised median absolute deviations; NaN where those are 0."""
    distances = np.abs(ratios - np.median(ratios))
    spread = _NORMAL * np.median(distances)
    return distances / spread if spread > 0 else np.full(len(ratios), np.nan)


def _whitener(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``W`` with ``W.T @ matrix @ W`` the identity, but for the ridge."""
    variances, vectors = np.linalg.eigh(matrix)
    whitener: NDArray[np.float64] = vectors / np.sqrt(np.maximum(variances, 0) + _RIDGE * variances.mean())
    return whitener


def _cut(whitened: NDArray[np.float64], identity: NDArray[np.float64], rng: np.random.Generator) -> tuple[NDArray[np.bool_], float]:
    """Cut one class in two, and return the smaller side with the likelihood ratio of two identities against one, per sample."""
    members = two_means(principal_components(whitened, whitened.shape[1], rng).points)
    one = ((whitened - identity) ** 2).sum()
    two = sum(((side - side.mean(axis=0)) ** 2).sum() for side in (whitened[members], whitened[~members]) if len(side))
    return members, float((one - two) / len(whitened))

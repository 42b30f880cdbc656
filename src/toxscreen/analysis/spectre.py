"""SPECTRE: whiten a class by a covariance that outliers did not shape, and then look for what still sticks out.

For each class, and for ten numbers of components from 1 to 100:

1. The centred activations are projected on their leading principal components.
2. A robust covariance: rows are taken out, at most twice as many as poison is expected, while the fourth moments of the whitened
   rows are larger in some direction than those of a Gaussian (Diakonikolas et al. 2017; the constants are the authors').
3. All rows are whitened by the covariance of the rows that are left.
4. QUE score: the square of each whitened row, weighted by the matrix exponential of their covariance, so that it lies between the
   largest direction alone and all directions alike. One and a half times as many rows as poison is expected are taken out.
5. The number of components is the one that makes the rows stick out most: mean QUE score of all rows after whitening by the rows
   that were kept, in all components.

The class with the largest mean QUE score is accused, and what was taken out of it in step 4 is flagged.

**Source:** Hayase et al. 2021, arXiv 2104.11315, section 3, and the authors' code. The paper is told the number of poisoned
samples, which ``poison_share`` stands for. Its experiments are told the target class, too; here the class with the largest score
stands in for that, or the ``n_targets`` with the largest. Left out: a robust mean (the authors' code centres on the mean as
well), and training again on what remains. A class has at most a quarter as many components as rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toxscreen.analysis.base import UNCALIBRATED, Decision, Group, Load, Rule, Ruling, beyond, quota
from toxscreen.analysis.spectral_signatures import MARGIN, check_share
from toxscreen.errors import UsageError
from toxscreen.reduction import principal_components
from toxscreen.result import Verdict

_MOST_COMPONENTS, _CANDIDATES = 100, 10
_ALPHA = 4.0
"""Between 0, all directions alike, and infinity, the largest alone (section 3)."""
_LIMIT = 2.0
"""How many times the expected poison the robust covariance may leave out."""
_C, _TAU, _SHIFT = 10.0, 0.1, 3.0
"""Constants of the filter, from the authors' code."""
_LANCZOS = 8
"""Vectors that the search for the largest fourth moment keeps: nine multiplications find it to seven digits."""
_EXCESS = 1e-6
"""Variance beyond 1 below which no direction sticks out: the weights of directions that differ by rounding would be chance."""
_FLOOR = 1e-10
"""Least variance in a direction, as part of the largest: rows may be equal to the last bit, and it is divided by."""


@dataclass(frozen=True)
class _Class:
    """What was measured of one class: which rows stick out, how far, and by how much they do on average."""

    members: NDArray[np.bool_]
    scores: NDArray[np.float64]
    mean_que: float
    n_components: int


@dataclass(frozen=True)
class Spectre(Rule):
    """Flag 1.5 times ``poison_share`` of the rows of the ``n_targets`` classes whose rows stick out most after robust whitening."""

    name = "spectre"
    rule = "SPECTRE (Hayase et al. 2021)"
    poison_share: float = 0.1
    n_targets: int = 1

    def __post_init__(self) -> None:
        check_share(self.poison_share)
        if self.n_targets < 1:
            raise UsageError(f"n_targets must be at least 1, got {self.n_targets}.")

    def decide(self, classes: Sequence[Load], rngs: Sequence[np.random.Generator]) -> Iterable[Decision]:
        """Measure every class, and accuse the one whose rows stick out most."""
        measured = [self._measure(load(), rng) for load, rng in zip(classes, rngs, strict=True)]
        ranked = sorted((each.mean_que for each in measured), reverse=True)
        least = ranked[min(self.n_targets, len(ranked)) - 1] if ranked else np.inf
        return [self._decision(each, accused=each.mean_que >= least) for each in measured]

    def _decision(self, found: _Class, *, accused: bool) -> Decision:
        n = int(found.members.sum())
        evidence = {
            "relative_size": float(found.members.mean()),
            "mean_que": found.mean_que,
            "components": float(found.n_components),
        }
        most = "the class" if self.n_targets == 1 else f"the {self.n_targets} classes"
        accuses = f"{self.rule} accuses {most} whose samples stick out most after robust whitening"
        if not n or not accused:
            group = Group(found.members, found.scores / 2, evidence)
            return (group,) * bool(n), Ruling(Verdict.CLEAN, f"{accuses}, and this is not one.")
        ruling = Ruling(Verdict.SUSPICIOUS, f"{accuses}, and flags {n:,} of this one. {UNCALIBRATED}")
        return (Group(found.members, found.scores, evidence),), ruling

    def _measure(self, activations: NDArray[np.float64], rng: np.random.Generator) -> _Class:
        points = principal_components(activations, min(_MOST_COMPONENTS, len(activations) // 4), rng).points
        return max((self._taken_out(points, k) for k in candidates(points.shape[1])), key=lambda found: found.mean_que)

    def _taken_out(self, points: NDArray[np.float64], k: int) -> _Class:
        """Look at the first ``k`` components of one class."""
        kept = robust_rows(points[:, :k], self.poison_share)
        scores = que_scores(whiten_by(points[:, :k], kept))
        members, cut = quota(scores, MARGIN * self.poison_share)
        mean_que = float(que_scores(whiten_by(points, ~members)).mean())
        return _Class(members, beyond(scores, cut), mean_que, k)


def candidates(most: int) -> list[int]:
    """Return the numbers of components that are tried: squares from 1 to ``most``, evenly spaced in their roots."""
    return sorted({round(root**2) for root in np.linspace(1, np.sqrt(most), _CANDIDATES)})


def whiten_by(points: NDArray[np.float64], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return all points ``(n, k)``, centred as they are, at unit covariance of the kept ones."""
    squares, vectors = np.linalg.eigh(np.atleast_2d(np.cov(points[kept], rowvar=False, bias=True)))
    whitened: NDArray[np.float64] = points @ (vectors / np.sqrt(np.maximum(squares, _FLOOR * squares[-1])))
    return whitened


def que_scores(whitened: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the QUE score of each whitened row, shape ``(n,)``; where no direction sticks out all weigh alike.

    **Source:** Dong et al. 2019, arXiv 1906.11366; Hayase et al. 2021, section 3.
    """
    squares, vectors = np.linalg.eigh(np.atleast_2d(np.cov(whitened, rowvar=False, bias=True)))
    excess = max(squares[-1] - 1, _EXCESS)
    weights = np.exp(_ALPHA * (squares - squares[-1]) / excess)
    return np.asarray((whitened @ vectors) ** 2 @ (weights / weights.sum()))


def robust_rows(points: NDArray[np.float64], poison_share: float) -> NDArray[np.bool_]:
    """Return which rows shape the covariance: those left when no direction has larger fourth moments than a Gaussian.

    **Source:** Diakonikolas et al. 2017, arXiv 1703.00893, algorithm 2 (filter for the covariance).
    """
    n, k = points.shape
    kept = np.ones(n, dtype=bool)
    least = max(n - int(_LIMIT * poison_share * n), k + 1)
    while k > 1 and kept.sum() > least:
        outlying = _outlying(whiten_by(points, kept)[kept], poison_share)
        rows = np.flatnonzero(kept)
        worst = np.argsort(-outlying, kind="stable")[: int(kept.sum()) - least]
        worst = worst[outlying[worst] > 0]
        if not len(worst):
            break
        kept[rows[worst]] = False
    return kept


def _outlying(whitened: NDArray[np.float64], poison_share: float) -> NDArray[np.float64]:
    """Return how far out each row lies that the filter takes out, and 0 for those that it leaves, shape ``(n,)``."""
    n, k = whitened.shape
    squares = (whitened**2).sum(axis=1)
    if (far := squares >= _C * k * np.log(n / _TAU)).any():
        return np.where(far, squares, 0.0)
    moment, form = _largest_fourth_moment(whitened)
    log_share = np.log(1 / poison_share)
    if moment <= 1 + _C * poison_share * log_share**2:
        return np.zeros(n)
    values = np.einsum("ij,ij->i", whitened @ form, whitened) - np.trace(form)
    distances = np.abs(values - np.median(values)) / np.sqrt(2)
    ordered = np.sort(distances)
    cuts = ordered - _SHIFT
    tail = 3 * poison_share / (np.maximum(cuts, 2) * np.log(np.maximum(cuts, 2))) ** 2
    heavy = (cuts > 10 * log_share) & (1 - np.arange(n) / n >= tail)
    return distances * (distances > cuts[heavy.argmax()]) if heavy.any() else np.zeros(n)


def _largest_fourth_moment(whitened: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the largest variance of a quadratic form of norm 1, which is 2 for a Gaussian, and the form, shape ``(k, k)``."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    n, k = whitened.shape
    identity = np.eye(k).ravel()

    def apply(flat: NDArray[np.float64]) -> NDArray[np.float64]:
        form = flat.reshape(k, k)
        values = np.einsum("ij,ij->i", whitened @ form, whitened)
        return np.asarray(((whitened.T * values) @ whitened / n).ravel() - identity * (identity @ flat.ravel()))

    operator = LinearOperator((k * k, k * k), matvec=apply, dtype=np.float64)
    moments, forms = eigsh(operator, k=1, which="LA", v0=np.ones(k * k), ncv=min(_LANCZOS, k * k), tol=1e-2)
    form = forms[:, 0].reshape(k, k)
    return float(moments[0]), (form + form.T) / 2

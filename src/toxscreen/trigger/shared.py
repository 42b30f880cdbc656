"""What some inputs of a class share, and which others hold it, too.

Activations show the poison that the model sees most clearly. Once some of it is known, the inputs themselves tell the rest: a
trigger is the same in all that hold it, whatever else they show.

1. Say of every input, by ridge regression on the others, how much it looks like those that are known: each is judged by weights
   that were found without it, in every view of the inputs (details and steepness of pictures, words of texts).
2. These scores are a mixture of two normal distributions, of holders and others; its parts are fitted, and each input gets a
   probability. A view in which those that are known look less alike than others do, judged by others, tells nothing: without a
   fold, what it is like weighs a little less, and where nothing else speaks that alone would part them.
3. Those that are more likely holders than not are what is known now, until that rests.

How far the two parts lie from each other tells whether anything is shared: patches, blended patterns and waves of the trials had
12 to 190 standard deviations, pieces of a pattern or four patches of which a sample holds one or two, 16 and 19; natural
parts of clean classes up to 10 (digits of one hand), and tiny ones of near-duplicates 12; warped and quantised pictures 3 to 4.

**Source:** the mixture: Dempster, Laird and Rubin 1977; learning from known members and others: Elkan and Noto 2008.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg.lapack import spotrf, spotri
from scipy.special import expit

_FOLDS = 5
_ROUNDS = 20
"""Times that the holders are chosen anew at most."""

_RESTS = 1e-3
"""Part of the inputs that may still change sides."""

FEWEST = 10
"""Inputs that share something, and others, at least."""

_DIRECTIONS, _PART, _TRUSTING = 4, 0.25, 1.0
"""Directions in which holders are taken apart, the part of them at either end, and how little their numbers are trusted then: what
tells them from the rest of their class is no longer in the way. With 10, three faint patches lay 6 standard deviations from the
rest together, with 1 each of them 23 to 32."""

_TAIL, _COMPONENTS = 0.1, 2
"""Part of a class at either end of so many principal components of its activations that may hold a pattern."""

_STEPS = 60
"""Steps in which a mixture is fitted."""

_SURE = 0.95
"""Probability of those that are known, before a mixture is fitted."""

_TINY = 1e-9


@dataclass(frozen=True, eq=False)
class View:
    """What one may see of some inputs.

    Attributes
    ----------
    values
        Shape ``(n, p)``, an array or a sparse one.
    strictness
        Ridge penalty in parts of the mean squared length of a row: how little each number is trusted.
    """

    values: Any
    strictness: float = 10.0


def joined(views: Sequence[View]) -> View:
    """Return one view of all inputs that several were taken of."""
    values = [view.values for view in views]
    join = sparse.vstack if sparse.issparse(values[0]) else np.concatenate
    return View(join(values), views[0].strictness)


def tails(points: NDArray[np.float64]) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers of points ``(n, d)`` at either end of their first principal components."""
    points = points - points.mean(axis=0)
    wide = points.shape[1] > len(points)
    axes = np.linalg.eigh(points @ points.T if wide else points.T @ points)[1][:, -_COMPONENTS:]
    along = axes if wide else points @ axes
    n = max(FEWEST, round(_TAIL * len(along)))
    for order in np.argsort(along, axis=0, kind="stable").T:
        yield order[:n]
        yield order[-n:]


@dataclass(frozen=True)
class Mixture:
    """Two normal distributions with one covariance, of scores ``(n, k)``.

    Attributes
    ----------
    weights
        Shape ``(k,)``, and ``bias``: the log odds that scores are a holder's.
    separation
        Mahalanobis distance of the two means.
    """

    weights: NDArray[np.float64]
    bias: float
    separation: float

    def probability(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability of each row of scores to be a holder's, shape ``(n,)``."""
        probability: NDArray[np.float64] = expit(scores @ self.weights + self.bias)
        return probability


@dataclass(frozen=True, eq=False)
class Shared:
    """What some inputs share.

    Attributes
    ----------
    probability
        That each input that was looked at holds it, shape ``(n,)``.
    separation
        How far holders lie from others, in standard deviations.
    """

    probability: NDArray[np.float64]
    separation: float
    _seen: Sequence[_Seen]
    _known: NDArray[np.bool_]
    _mixture: Mixture

    def held_by(self, views: Sequence[View]) -> NDArray[np.float64]:
        """Return the probability that each of some other inputs holds it, shape ``(m,)``, from the same views of them."""
        scores = [seen.scores_of(view, self._known) for seen, view in zip(self._seen, views, strict=True)]
        return self._mixture.probability(np.stack(scores, axis=1))


class Look:
    """A look at some inputs of one class.

    Parameters
    ----------
    views
        Of the inputs.
    rng
        Draws the folds.
    """

    def __init__(self, views: Sequence[View], rng: np.random.Generator) -> None:
        self._rng = rng
        self._folds = np.array_split(rng.permutation(views[0].values.shape[0]), _FOLDS)
        self._seen = [_Seen(view, self._folds) for view in views]

    def beside(self, view: View) -> Look:
        """Return the same look with one more view of the inputs."""
        look = copy(self)
        look._seen = [*self._seen, _Seen(view, self._folds)]
        return look

    def trusting(self, rows: NDArray[np.int64] | None = None) -> Look:
        """Return a look at the same inputs, or some of them, that trusts each number more: it tells finer patterns apart."""
        return Look([View(seen.values if rows is None else seen.values[rows], _TRUSTING) for seen in self._seen], self._rng)

    def shared_by(self, members: NDArray[np.bool_]) -> Shared | None:
        """Return what members share, with whoever shares it; None where it comes down to fewer than ten on either side.

        Parameters
        ----------
        members
            Which inputs are known to share something, as far as anybody can tell, shape ``(n,)``.
        """
        known = members
        for _ in range(_ROUNDS):
            if min(known.sum(), (~known).sum()) < FEWEST:
                return None
            scores = np.stack([seen.scores(known) for seen in self._seen], axis=1)
            telling = scores[known].mean(axis=0) > scores[~known].mean(axis=0)
            if not telling.any():
                return None  # judged by others, they look less alike than the rest does
            mixture = _mixture(scores * telling, known)
            probability = mixture.probability(scores * telling)
            before, known = known, probability > 0.5
            if (before != known).mean() <= _RESTS:
                return Shared(probability, mixture.separation, self._seen, before, mixture)
        return None

    def parts(self, holders: NDArray[np.bool_]) -> Iterator[Shared]:
        """Yield what some of those inputs share with each other, and with whoever shares it, but not with the others of them.

        Poison with one of several patterns shares first of all that it is of other classes. Looked at by themselves, holders differ
        most by the pattern that they show.
        """
        rows = np.flatnonzero(holders)
        if len(rows) < 2 * FEWEST:
            return
        within, whole = self.trusting(rows), self.trusting()
        if (found := whole.shared_by(holders)) is not None:
            yield found
        alike = -np.sum([seen.inverse for seen in within._seen], axis=0)
        np.fill_diagonal(alike, 0)
        n = max(FEWEST, round(_PART * len(rows)))
        for order in np.argsort(np.linalg.eigh(alike)[1][:, -_DIRECTIONS:], axis=0, kind="stable").T:
            for end in (order[:n], order[-n:]):
                part = within.shared_by(np.isin(np.arange(len(rows)), end))
                found = part and whole.shared_by(np.isin(np.arange(len(holders)), rows[part.probability > 0.5]))
                if found:
                    yield found


class _Seen:
    """One view of the inputs, with what all ridge regressions on it have in common.

    With ``K`` the products of the centred rows and ``P`` the inverse of ``K + strictness I``, a regression on all inputs gives
    ``H t`` for the goals ``t``, where ``H = I - strictness P + 1/n``. What the regression without a fold f gives in it follows from
    its block of H alone: ``t_f - (I - H_ff)^-1 (t_f - (H t)_f)``.

    **Source:** An, Liu and Venkatesh 2007, Pattern Recognition 40, 2154-2162.
    """

    def __init__(self, view: View, folds: Sequence[NDArray[np.int64]]) -> None:
        self.values, self._folds = view.values, folds
        gram = _product(view.values, view.values)
        means: NDArray[np.float64] = gram.mean(axis=0)
        gram -= means + means[:, None] - means.mean()
        self._means = means
        self._size = max(float(np.trace(gram)) / len(gram), _TINY)
        gram /= self._size
        np.fill_diagonal(gram, gram.diagonal() + view.strictness)
        self.inverse = _inverse(gram.astype(np.float32))  # the penalty keeps it well away from singular
        self._strictness = view.strictness
        corrections = (self._strictness * self.inverse[np.ix_(fold, fold)] - 1 / len(gram) for fold in folds)
        self._corrections = [np.linalg.inv(correction) for correction in corrections]

    def scores(self, known: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return how much each input looks like the known ones, judged without it, shape ``(n,)``."""
        goals = _goals(known)
        missed, scores = self._strictness * (self.inverse @ goals) - goals.mean(), goals.astype(np.float64)
        for fold, correction in zip(self._folds, self._corrections, strict=True):
            scores[fold] -= correction @ missed[fold]
        return scores

    def scores_of(self, view: View, known: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the same for other inputs, shape ``(m,)``."""
        goals = _goals(known)
        across = _product(view.values, self.values)
        across -= self._means + across.mean(axis=1, keepdims=True) - self._means.mean()
        scores: NDArray[np.float64] = across @ (self.inverse @ goals) / self._size + goals.mean()
        return scores


def _inverse(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the inverse of a symmetric positive definite matrix by its Cholesky factors, for half of what any other one costs."""
    factor, failed = spotrf(matrix)
    if failed:  # what is not finite
        return np.asarray(np.linalg.inv(matrix), np.float32)
    upper, _ = spotri(factor, overwrite_c=True)  # below the diagonal it is 0
    inverse: NDArray[np.float32] = upper + upper.T
    np.fill_diagonal(inverse, upper.diagonal())
    return inverse


def _goals(known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return what regressions aim at, shape ``(n,)``: known and other inputs weigh the same together."""
    return np.where(known, np.float32(1 / known.sum()), np.float32(-1 / (~known).sum())) * np.float32(len(known) / 2)


def _product(values: Any, others: Any) -> NDArray[np.float64]:
    """Return the products of all rows of two views, shape ``(n, m)``."""
    product = values @ others.T
    return np.asarray(product.toarray() if sparse.issparse(product) else product, np.float64)


def _mixture(scores: NDArray[np.float64], known: NDArray[np.bool_]) -> Mixture:
    """Fit the mixture of scores ``(n, k)``, from the known ones on.

    Both parts have one covariance: that of all scores less what lies between the two means. So its inverse is that of all scores
    but for one direction (Sherman and Morrison).
    """
    middle = scores.mean(axis=0)
    centred = scores - middle
    whole = centred.T @ centred / len(scores)
    inverse = np.linalg.inv(whole + _TINY * max(float(whole.trace()), _TINY) * np.eye(len(whole)))
    probability = np.where(known, _SURE, 1 - _SURE)
    for _ in range(_STEPS):
        before, part = probability, float(probability.mean())
        along = probability @ centred / len(scores)
        inner, outer = along / max(part, _TINY), -along / max(1 - part, _TINY)
        apart = inner - outer
        weights = inverse @ apart
        weights /= 1 - part * (1 - part) * float(apart @ weights)
        bias = math.log(max(part, _TINY) / max(1 - part, _TINY)) - float(((inner + outer) / 2 + middle) @ weights)
        mixture = Mixture(weights, bias, math.sqrt(max(float(apart @ weights), 0.0)))
        probability = mixture.probability(scores)
        if np.abs(probability - before).max() <= _RESTS:
            break
    return mixture

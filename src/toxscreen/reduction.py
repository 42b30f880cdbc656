"""Step 5 of the flow: the activations of one class, ``(n, d)``, become ``(n, k)``.

1. PCA to the leading components (Chen et al. 2018, section 4.1 asks for a reduction before clustering). A class is read in blocks,
   and only a small one is held as a whole. Narrow layers and small classes are decomposed exactly; for the others a subspace
   iteration finds the leading components in a few products of the class with some vectors.
2. ``ica``: FastICA rotates and equalises those components, as in the paper. PCA comes first because FastICA straight on the
   activations neither converges nor gives the same answer twice.
3. ``whiten``: the components at equal variance, for the search for small groups.

**Source:** Halko et al. 2011, Finding structure with randomness, algorithm 4.4, for the subspace iteration.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from toxscreen.config import ReductionConfig
from toxscreen.segments import Part

_EXACT_UP_TO = 8
"""The decomposition is exact where the smaller side of the class is at most this many times the vectors of a subspace iteration,
which up to there costs as much."""

_FEW, _MUCH = 10, 1e-3
"""Features to a component, and part of the largest variance in each, from which float32 has digits enough for exact components."""

_OVERSAMPLED, _ITERATIONS = 10, 2
"""Vectors beyond the components asked for, and rounds, of a subspace iteration. Where variances fall as slowly as one over the root
of their number, the ten components found hold 99.6 % of the variance of the leading ten, and 64 hold 98.9 %."""

_HELD_BYTES = 24 << 20
"""A class up to this size, as float32, is held: it is read once, and stays in the cache of the processor."""

_FLOAT64_UP_TO = 1 << 16
"""Rows up to which the points are float64; of more, they would fill the memory."""

_CENTRE_ROWS = 64
"""Rows whose mean stands in for that of all until it is known."""

_TURNED = 1 << 14
"""Points that are turned at a time."""

_SKETCHED = 512
"""Rows whose sums, with random weights, a subspace iteration starts from."""

_SMALLEST, _LARGEST = 1e-15, 1e15
"""Sums, of rows and of their products, that float32 can be trusted with."""

_RANK_TOLERANCE = 1e-10
"""Part of the largest variance below which a component is rounding error (float32 activations, squared)."""


@dataclass(frozen=True)
class Reduction:
    """A class in few dimensions.

    Attributes
    ----------
    points
        Shape ``(n, k)``; k may be less than asked for, and 0 when all samples are equal.
    variances
        Variance of each component before any equalising, descending, shape ``(k,)``.
    note
        What had to be done otherwise than asked, or None.
    """

    points: NDArray[Any]
    variances: NDArray[np.float64]
    note: str | None = None

    def leading(self, n_components: int) -> Reduction:
        """Return the first components."""
        return replace(self, points=self.points[:, :n_components], variances=self.variances[:n_components])


class _Centred:
    """A class about a centre, near its mean, from which it is read again and again.

    ``mean`` is where the mean lies from there, once it is known, shape ``(d,)``: what is held stays where it is.
    """

    def __init__(self, rows: Part, dtype: type[np.floating]) -> None:
        self._rows, self.dtype = rows, dtype
        self.centre = rows.array(slice(_CENTRE_ROWS)).mean(axis=0, dtype=np.float64)
        self.mean = np.zeros_like(self.centre)
        self.is_held = 4 * rows.shape[0] * rows.shape[1] <= _HELD_BYTES
        self._held = self._about(rows.array()) if self.is_held else None

    def _about(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        own = values.flags.owndata and values.flags.writeable and values.dtype == self.dtype  # no view of the layer
        centre = self.centre.astype(self.dtype)
        about: NDArray[np.floating] = np.subtract(values, centre, out=values if own else None, dtype=self.dtype)
        return about

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.floating]]]:
        """Yield which rows come next, and their places about the centre ``(b, d)``."""
        if self._held is not None:
            yield slice(len(self._held)), self._held
            return
        for block, values in self._rows.blocks():
            yield block, self._about(values)

    def sketch(self, drawn: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return sums ``(d, m)`` of the rows drawn with weights ``(m, n_drawn)``."""
        some = self._about(Part(self._rows.layer, self._rows.numbers[drawn]).array())
        return np.asarray((weights.astype(self.dtype) @ some).T, np.float64)


def principal_components(activations: Part | NDArray[np.floating[Any]], n_components: int, rng: np.random.Generator) -> Reduction:
    """Project centred activations ``(n, d)`` on their leading principal components, at most ``n - 1`` and the rank.

    The sign of a component is chosen so that its largest loading is positive: the same rows give the same points.

    Parameters
    ----------
    activations
        Finite, shape ``(n, d)``.
    n_components
        At most so many.
    rng
        Starts the subspace iteration; exact components draw nothing.
    """
    rows = _rows(activations)
    n, d = rows.shape
    cap = min(n_components, n - 1, d)
    if cap < 1:
        return Reduction(np.zeros((n, 0)), np.zeros(0))
    exact_up_to = _EXACT_UP_TO * (cap + _OVERSAMPLED)
    if d <= min(n, exact_up_to):
        centred, squares, axes = _by_features(rows, cap)
    elif n <= exact_up_to and (centred := _Centred(rows, np.float64)).is_held:
        squares, axes = _by_rows(centred, cap)
    else:
        centred, axes = _by_iteration(rows, min(cap + _OVERSAMPLED, n, d), rng)
        return _turned(_projected(centred, axes, n), axes, cap)
    return Reduction(_projected(centred, axes * _signs(axes), n), squares / n)


def _rows(activations: Part | NDArray[np.floating[Any]]) -> Part:
    return activations if isinstance(activations, Part) else Part.of(activations)


def _by_features(rows: Part, cap: int) -> tuple[_Centred, NDArray[np.float64], NDArray[np.float64]]:
    """Return a class about its mean, its squared singular values and the leading axes ``(d, k)``.

    A few axes that all hold much are found as well in float32, for half the cost.
    """
    if cap * _FEW <= rows.shape[1]:
        with np.errstate(over="ignore", invalid="ignore"):
            centred, products = _products(rows, np.float32)
        if _SMALLEST < products.diagonal().max() < _LARGEST:  # or NaN
            squares, axes = _leading(products, cap)
            if len(squares) == cap and squares[-1] > _MUCH * squares[0]:
                return centred, squares, axes
    centred, products = _products(rows, np.float64)
    return centred, *_leading(products, cap)


def _products(rows: Part, dtype: type[np.floating]) -> tuple[_Centred, NDArray[np.float64]]:
    """Return a class about its mean, and the products of its features ``(d, d)``."""
    centred = _Centred(rows, dtype)
    total, products = np.zeros(len(centred.centre)), np.zeros((len(centred.centre),) * 2)
    for _, block in centred.blocks():
        total += np.ones(len(block), dtype) @ block
        products += block.T @ block
    centred.mean = total / len(rows)
    return centred, products - np.outer(total, centred.mean)


def _by_rows(centred: _Centred, cap: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the same of a class of fewer rows than features."""
    ((_, held),) = centred.blocks()
    centred.mean = held.mean(axis=0)
    held = held - centred.mean
    squares, vectors = _leading(held @ held.T, cap)
    return squares, held.T @ (vectors / np.sqrt(squares))


def _leading(products: NDArray[np.float64], cap: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest eigenvalues, descending, and their vectors, without those that hold but rounding."""
    from scipy.linalg import eigh

    size = len(products)
    if not size:
        return np.zeros(0), np.zeros((0, 0))
    squares, vectors = eigh(products, subset_by_index=(size - cap, size - 1), driver="evr", check_finite=False)
    kept = np.flatnonzero(squares > _RANK_TOLERANCE * max(squares[-1], np.finfo(np.float64).tiny))[::-1]
    return squares[kept], vectors[:, kept]


def _by_iteration(rows: Part, n_vectors: int, rng: np.random.Generator) -> tuple[_Centred, NDArray[np.float64]]:
    """Return the class about its mean, and orthonormal axes ``(d, n_vectors)`` at most that nearly hold the leading ones."""
    drawn = np.sort(rng.choice(len(rows), min(len(rows), _SKETCHED), replace=False))
    weights = rng.standard_normal((n_vectors, len(drawn)))
    with np.errstate(over="ignore", invalid="ignore"):
        centred = _Centred(rows, np.float32)
        axes = _iterated(centred, centred.sketch(drawn, weights), len(rows))
    if axes is None:
        centred = _Centred(rows, np.float64)
        axes = _iterated(centred, centred.sketch(drawn, weights), len(rows))
    return centred, cast("NDArray[np.float64]", axes)


def _iterated(centred: _Centred, start: NDArray[np.float64], n: int) -> NDArray[np.float64] | None:
    """Return the axes that a start ``(d, n_vectors)`` ends in, and find the mean; None where float32 is too small."""
    axes = start
    for number in range(_ITERATIONS):
        if centred.dtype is np.float32 and not _SMALLEST < np.abs(axes).max() < _LARGEST:  # or NaN
            return None
        axes = _orthonormal(axes)
        along = axes.astype(centred.dtype)
        sums, total = np.zeros((axes.shape[1], len(axes))), np.zeros(len(axes))
        for _, block in centred.blocks():
            sums += (block @ along).T @ block
            if not number:
                total += np.ones(len(block), block.dtype) @ block
        if not number:
            centred.mean = total / n
        axes = sums.T - np.outer(n * centred.mean, centred.mean @ axes)
    return _orthonormal(axes)


def _orthonormal(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an orthonormal basis of the columns, without those that are sums of the others."""
    for _ in range(2):  # what rounding leaves of the first time, the second takes out
        squares, rotation = np.linalg.eigh(vectors.T @ vectors)
        kept = squares > _RANK_TOLERANCE * max(squares[-1], np.finfo(np.float64).tiny)
        vectors = vectors @ (rotation[:, kept] / np.sqrt(squares[kept]))
    return vectors


def _projected(centred: _Centred, axes: NDArray[np.float64], n: int) -> NDArray[np.floating]:
    """Return the places of all rows along some axes ``(d, k)``, shape ``(n, k)``."""
    points = np.empty((n, axes.shape[1]), np.float64 if n <= _FLOAT64_UP_TO else np.float32)
    along, middle = axes.astype(centred.dtype), (centred.mean @ axes).astype(points.dtype)
    for block, values in centred.blocks():
        np.subtract(values @ along, middle, out=points[block])
    return points


def _turned(points: NDArray[np.floating], axes: NDArray[np.float64], cap: int) -> Reduction:
    """Turn points along orthonormal axes about their mean, so that the axes become the leading components."""
    n, k = points.shape
    blocks = [slice(start, start + _TURNED) for start in range(0, n, _TURNED)]
    total = points.sum(axis=0, dtype=np.float64)
    products = np.zeros((k, k))
    for block in blocks:
        products += points[block].T @ points[block]
    squares, turn = _leading(products - np.outer(total, total / n), min(cap, k))
    turn = turn * _signs(axes @ turn)
    for block in blocks:
        points[block, : turn.shape[1]] = (points[block] - total / n) @ turn
    return Reduction(points[:, : turn.shape[1]], squares / n)


def _signs(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sign of the largest loading of each axis ``(d, k)``."""
    signs: NDArray[np.float64] = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return signs


def total_variance(activations: Part | NDArray[np.floating[Any]]) -> float:
    """Return the variance of all features ``(n, d)`` together."""
    centred, squares = _Centred(_rows(activations), np.float64), 0.0
    total = np.zeros_like(centred.centre)
    for _, block in centred.blocks():
        total += block.sum(axis=0)
        squares += float((block**2).sum())
    n = len(activations)
    return squares / n - float(((total / n) ** 2).sum())


def whitened(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points ``(n, k)`` of full rank at unit variance in every direction, whichever way they are turned."""
    centred = points - points.mean(axis=0)
    whitened: NDArray[np.float64] = centred @ np.linalg.inv(np.linalg.cholesky(centred.T @ centred / len(points))).T
    return whitened


def whiten(reduction: Reduction) -> NDArray[np.floating]:
    """Return the points at unit variance in every component, shape ``(n, k)``."""
    whitened: NDArray[np.floating] = reduction.points / np.sqrt(reduction.variances).astype(reduction.points.dtype)
    return whitened


def reduce(activations: Part | NDArray[np.floating[Any]], config: ReductionConfig, rng: np.random.Generator) -> Reduction:
    """Reduce one class as the paper does.

    Parameters
    ----------
    activations
        Finite, shape ``(n, d)``.
    config
        Method and number of components.
    rng
        Starts FastICA and the decomposition of large classes.

    **Source:** Chen et al. 2018, section 4.1, and section 5 for the ten components.
    """
    return independent(principal_components(activations, config.n_components, rng), config, rng)


def independent(reduction: Reduction, config: ReductionConfig, rng: np.random.Generator) -> Reduction:
    """Return the leading components as the paper has them: turned and equalised by FastICA, where that was asked for."""
    reduction = reduction.leading(config.n_components)
    if config.method == "pca" or reduction.points.shape[1] < 2:
        return reduction
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            ica = FastICA(whiten="unit-variance", max_iter=1000, tol=1e-3, random_state=int(rng.integers(2**31)))
            return Reduction(ica.fit_transform(reduction.points), reduction.variances)
        except ConvergenceWarning:
            note = "FastICA did not converge for this class: its principal components were clustered instead."
            return Reduction(reduction.points, reduction.variances, note)

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from toxscreen.config import ReductionConfig
from toxscreen.segments import Part
from toxscreen.sources.data.base import spread

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

_CENTRE_ROWS = 32
"""Rows, spread over a class, that say where its middle is and how far from there half of it lies."""

_FARTHEST = 6.0
"""Distance from the middle, in that of half of a class, to which rows that lie farther are drawn in. Otherwise one row, far enough
away, is most of the variance of its class, and no group is seen beside it. Of 978 classes, clean and poisoned, of ten kinds of
networks none has a row beyond 5.1."""

_TURNED = 1 << 14
"""Points that are turned at a time."""

_SKETCHED = 512
"""Rows whose sums, with random weights, a subspace iteration starts from."""

_SMALL_PRODUCT, _TILE = 10**6, (128, 256)
"""Multiplications up to which OpenBLAS copies neither factor of a product, and rows and features that are multiplied at a time.
Otherwise a product with twenty vectors takes half of its time for the copy of a block."""

_WORTH_CUTTING, _FEW_VECTORS = 8, 32
"""Rows from which small products are the faster ones, and vectors of which more make up for the copy."""

_SMALLEST, _LARGEST = 1e-15, 1e15
"""Sums, of rows and of their products, that float32 can be trusted with."""

_WHOLE_UP_TO = 128
"""Size of a matrix up to which all its vectors are found, and no thread is kept from the interpreter meanwhile: to find the leading
ones alone keeps them, and is hardly faster."""

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
    """A class about its middle, from which it is read again and again, no row farther away than :data:`_FARTHEST`.

    ``mean`` is where the mean lies from there, once it is known, shape ``(d,)``: what is held stays where it is.

    **Source:** Raymaekers and Rousseeuw 2019, Technometrics 61, 184-198, for drawing rows in along their radius.
    """

    def __init__(self, rows: Part, dtype: type[np.floating]) -> None:
        self._rows, self.dtype = rows, dtype
        some = Part(rows.layer, rows.numbers[spread(len(rows), _CENTRE_ROWS)]).array().astype(dtype)
        self._centre = np.median(some, axis=0) if len(some) == len(rows) else _ninther(some[spread(len(some), 9)])
        half = np.sort(_lengths(some - self._centre))[len(some) // 2]
        self._farthest = _FARTHEST * float(half) or np.inf  # where half of the rows are equal
        self.mean = np.zeros(rows.shape[1])
        self._held: NDArray[np.floating] | None = None
        if _is_held(rows):
            self._held = self.whole()

    def whole(self) -> NDArray[np.floating]:
        """Return the places of all rows about the centre ``(n, d)``."""
        if self._held is not None:
            return self._held
        whole = np.empty(self._rows.shape, self.dtype)
        for block, values in self._rows.blocks():
            self._placed(values, out=whole[block])
        return whole

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.floating]]]:
        """Yield which rows come next, and their places about the centre ``(b, d)``."""
        if self._held is not None:
            yield slice(len(self._held)), self._held
            return
        for block, values in self._rows.blocks():
            yield block, self._placed(values)

    def some(self, numbers: NDArray[np.int64]) -> NDArray[np.floating]:
        """Return the places of some rows about the centre ``(b, d)``."""
        if self._held is not None:
            return self._held[numbers]
        return self._placed(Part(self._rows.layer, self._rows.numbers[numbers]).array())

    def _placed(self, values: NDArray[np.float32], out: NDArray[np.floating] | None = None) -> NDArray[np.floating]:
        """Return the places of rows ``(b, d)``, drawn in where they lie too far away."""
        places: NDArray[np.floating] = np.subtract(values, self._centre, out=out, dtype=self.dtype)
        beyond = _lengths(places) > self._farthest
        if beyond.any():
            away = values[beyond].astype(np.float64) - self._centre
            places[beyond] = away * (self._farthest / np.linalg.norm(away, axis=1, keepdims=True))
        return places


def _lengths(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the length of each row ``(n, d)``, infinite where its square is more than the type can hold, shape ``(n,)``."""
    return np.asarray(np.sqrt(np.vecdot(rows, rows)))


def _ninther(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the medians of three medians of three rows each ``(9, d)``, shape ``(d,)``; medians of all take eight times as long.

    **Source:** Tukey 1978, The ninther, in Contributions to Survey Sampling and Applied Statistics.
    """
    for _ in range(2):
        low, high = np.minimum(rows[::3], rows[1::3]), np.maximum(rows[::3], rows[1::3])
        rows = np.maximum(low, np.minimum(high, rows[2::3]))
    return np.asarray(rows[0])


def _is_held(rows: Part) -> bool:
    return 4 * rows.shape[0] * rows.shape[1] <= _HELD_BYTES


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
        centred, squares, axes = _exactly(_by_features, rows, cap)
        return Reduction(_projected(centred, axes * _signs(axes), n), squares / n)
    if n <= exact_up_to and _is_held(rows):
        centred, squares, vectors = _exactly(_by_rows, rows, cap)
        signs = _signs((vectors.T.astype(centred.dtype) @ centred.whole()).T)  # wherever the mean lies: the sum of a vector is 0
        return Reduction(vectors * (signs * np.sqrt(squares)), squares / n)
    centred, axes = _by_iteration(rows, min(cap + _OVERSAMPLED, n, d), rng)
    return _turned(_projected(centred, axes, n), axes, cap)


_Products = Callable[[Part, "type[np.floating]"], tuple[_Centred, NDArray[np.float64]]]
"""Reads a class and multiplies its features, or its rows, with each other."""


def _rows(activations: Part | NDArray[np.floating[Any]]) -> Part:
    return activations if isinstance(activations, Part) else Part.of(activations)


def _exactly(by: _Products, rows: Part, cap: int) -> tuple[_Centred, NDArray[np.float64], NDArray[np.float64]]:
    """Return a class, the leading squared singular values about its mean, and the vectors of the products that it was given by.

    A few components that all hold much are found as well in float32, for half the cost.
    """
    if cap * _FEW <= min(rows.shape):
        with np.errstate(over="ignore", invalid="ignore"):
            centred, products = by(rows, np.float32)
        if _SMALLEST < products.diagonal().max() < _LARGEST:  # or NaN
            squares, vectors = _leading(products, cap)
            if len(squares) == cap and squares[-1] > _MUCH * squares[0]:
                return centred, squares, vectors
    centred, products = by(rows, np.float64)
    return centred, *_leading(products, cap)


def _by_features(rows: Part, dtype: type[np.floating]) -> tuple[_Centred, NDArray[np.float64]]:
    """Return a class about its mean, and the products of its features ``(d, d)``."""
    centred = _Centred(rows, dtype)
    total, products = np.zeros(len(centred.mean)), np.zeros((len(centred.mean),) * 2)
    for _, block in centred.blocks():
        total += np.ones(len(block), dtype) @ block
        products += block.T @ block
    centred.mean = total / len(rows)
    return centred, products - np.outer(total, centred.mean)


def _by_rows(rows: Part, dtype: type[np.floating]) -> tuple[_Centred, NDArray[np.float64]]:
    """Return a class that is held, and the products of its rows about their mean ``(n, n)``."""
    centred = _Centred(rows, dtype)
    held = centred.whole()
    products = np.asarray(held @ held.T, np.float64)
    means = products.mean(axis=0)
    return centred, products - means - (means - means.mean())[:, None]


def _leading(products: NDArray[np.float64], cap: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest eigenvalues, descending, and their vectors, without those that hold but rounding."""
    from scipy.linalg import eigh

    size = len(products)
    if not size:
        return np.zeros(0), np.zeros((0, 0))
    if size <= _WHOLE_UP_TO:
        squares, vectors = (found[..., -cap:] for found in np.linalg.eigh(products))
    else:
        squares, vectors = eigh(products, subset_by_index=(size - cap, size - 1), driver="evr", check_finite=False)
    kept = np.flatnonzero(squares > _RANK_TOLERANCE * max(squares[-1], np.finfo(np.float64).tiny))[::-1]
    return squares[kept], vectors[:, kept]


def _by_iteration(rows: Part, n_vectors: int, rng: np.random.Generator) -> tuple[_Centred, NDArray[np.float64]]:
    """Return the class about its mean, and orthonormal axes ``(d, n_vectors)`` at most that nearly hold the leading ones."""
    drawn = np.sort(rng.choice(len(rows), min(len(rows), _SKETCHED), replace=False))
    weights = rng.standard_normal((n_vectors, len(drawn)))
    with np.errstate(over="ignore", invalid="ignore"):
        centred = _Centred(rows, np.float32)
        axes = _iterated(centred, _sketched(centred, drawn, weights), len(rows))
    if axes is None:
        centred = _Centred(rows, np.float64)
        axes = _iterated(centred, _sketched(centred, drawn, weights), len(rows))
    return centred, cast("NDArray[np.float64]", axes)


def _sketched(centred: _Centred, drawn: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sums ``(d, m)`` of the rows drawn with weights ``(m, n_drawn)``."""
    return np.asarray((weights.astype(centred.dtype) @ centred.some(drawn)).T, np.float64)


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
            sums += _times(_along(block, along), block)
            if not number:
                total += np.ones(len(block), block.dtype) @ block
        if not number:
            centred.mean = total / n
        axes = sums.T - np.outer(n * centred.mean, centred.mean @ axes)
    return _orthonormal(_orthonormal(axes))  # what rounding leaves of the first time, the second takes out


def _orthonormal(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a basis of the columns, orthonormal to six digits, without those that are sums of the others."""
    squares, rotation = np.linalg.eigh(vectors.T @ vectors)
    kept = squares > _RANK_TOLERANCE * squares.max(initial=np.finfo(np.float64).tiny)
    return np.asarray(vectors @ (rotation[:, kept] / np.sqrt(squares[kept])))


def _along(block: NDArray[np.floating], axes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the places of rows ``(b, d)`` along a few axes ``(d, k)``: their product, made a few rows at a time."""
    step = _SMALL_PRODUCT // max(axes.size, 1)
    whole = len(block) - len(block) % max(step, 1)
    if step < _WORTH_CUTTING or axes.shape[1] > _FEW_VECTORS or not whole:
        return np.asarray(block @ axes)
    along = (block[:whole].reshape(-1, step, block.shape[1]) @ axes).reshape(whole, -1)
    return along if whole == len(block) else np.concatenate([along, block[whole:] @ axes])


def _times(points: NDArray[np.floating], block: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the product of the places of rows ``(b, k)`` and the rows ``(b, d)``, shape ``(k, d)``, made tile by tile."""
    (n, d), k, (rows, features) = block.shape, points.shape[1], _TILE
    high, wide = n - n % rows, d - d % features
    if not (high and wide and 0 < k * rows * features <= _SMALL_PRODUCT):
        return np.asarray(points.T @ block)
    tiles = block[:high, :wide].reshape(-1, rows, wide // features, features).transpose(0, 2, 1, 3)
    sums = (points[:high].reshape(-1, 1, rows, k).transpose(0, 1, 3, 2) @ tiles).sum(axis=0)
    product = np.empty((k, d), block.dtype)
    product[:, :wide] = sums.transpose(1, 0, 2).reshape(k, wide)
    product[:, wide:] = points[:high].T @ block[:high, wide:]
    return product if high == n else product + points[high:].T @ block[high:]


def _projected(centred: _Centred, axes: NDArray[np.float64], n: int) -> NDArray[np.floating]:
    """Return the places of all rows along some axes ``(d, k)``, shape ``(n, k)``."""
    points = np.empty((n, axes.shape[1]), np.float64 if n <= _FLOAT64_UP_TO else np.float32)
    along, middle = axes.astype(centred.dtype), (centred.mean @ axes).astype(points.dtype)
    for block, values in centred.blocks():
        np.subtract(_along(values, along), middle, out=points[block])
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
    total = np.zeros_like(centred.mean)
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

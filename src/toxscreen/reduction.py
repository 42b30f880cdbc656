"""Step 5 of the flow: the activations of one class, ``(n, d)``, become ``(n, k)``.

1. PCA to the leading components (Chen et al. 2018, section 4.1 asks for a reduction before clustering).
2. ``ica``: FastICA rotates and equalises those components, as in the paper. PCA comes first because FastICA straight on the
   activations neither converges nor gives the same answer twice.
3. ``whiten``: the components at equal variance, for the search for small groups.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toxscreen.config import ReductionConfig

_EXACT_UP_TO = 1024
"""Smaller side of the matrix up to which the decomposition is exact; a cost of at most some 0.3 s a class."""

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

    points: NDArray[np.float64]
    variances: NDArray[np.float64]
    note: str | None = None


def principal_components(activations: NDArray[np.floating], n_components: int, rng: np.random.Generator) -> Reduction:
    """Project centred activations ``(n, d)`` on their leading principal components, at most ``n - 1`` and the rank.

    The sign of a component is chosen so that its largest loading is positive: the same rows give the same points.
    """
    n, d = activations.shape
    cap = min(n_components, n - 1, d)
    if cap < 1:
        return Reduction(np.zeros((n, 0)), np.zeros(0))
    centred = activations - activations.mean(axis=0, dtype=np.float64)
    if min(n, d) <= _EXACT_UP_TO:
        small = centred.T @ centred if d <= n else centred @ centred.T
        squares, vectors = np.linalg.eigh(small)
        squares, vectors = squares[::-1][:cap], vectors[:, ::-1][:, :cap]
        axes = vectors if d <= n else centred.T @ vectors
    else:
        from sklearn.utils.extmath import randomized_svd

        _, singular, rows = randomized_svd(centred, cap, n_iter=4, random_state=int(rng.integers(2**31)))
        squares, axes = singular**2, rows.T
    kept = squares > _RANK_TOLERANCE * max(squares[0], np.finfo(np.float64).tiny)
    axes = axes[:, kept] / np.linalg.norm(axes[:, kept], axis=0)
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return Reduction(centred @ axes, squares[kept] / n)


def whiten(reduction: Reduction) -> NDArray[np.float64]:
    """Return the points at unit variance in every component, shape ``(n, k)``."""
    return reduction.points / np.sqrt(reduction.variances)


def reduce(activations: NDArray[np.floating], config: ReductionConfig, rng: np.random.Generator) -> Reduction:
    """Reduce one class as the paper does.

    Parameters
    ----------
    activations
        Finite, shape ``(n, d)``.
    config
        Method and number of components.
    rng
        Starts FastICA and the randomised decomposition of very wide layers.

    **Source:** Chen et al. 2018, section 4.1, and section 5 for the ten components.
    """
    reduction = principal_components(activations, config.n_components, rng)
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

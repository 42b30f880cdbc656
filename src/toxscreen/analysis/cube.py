"""CUBE: cluster all classes together by density, and drop what lies outside the main cluster of its label.

1. The activations of all classes are reduced together: their leading principal components, and UMAP after them where the package
   umap-learn is installed.
2. HDBSCAN gives each sample a cluster, or calls it noise.
3. The largest cluster of a class is kept. The samples of the class in each of the others, and its noise, are flagged where they are
   less than half of it.

**Source:** Cui et al. 2022, arXiv 2206.08514, section 5. Replaced: the encoder that the paper trains anew on the data, by the
activations that are scanned; UMAP to two dimensions, where the package is missing, by ten principal components. HDBSCAN sees 20,000
samples at most, since its cost grows with the square of their number; the others get the cluster of the nearest one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from toxscreen.analysis.base import UNCALIBRATED, Decision, Group, Load, Rule, Ruling, covariance, leading_axes, moments
from toxscreen.result import Verdict

_COMPONENTS, _COMPONENTS_BEFORE_UMAP = 10, 20
_NEIGHBOURS = 100
_MOST_ROWS = 20_000
_DENSE = 20
"""The average class is at least this many times the neighbours of a dense place: a group of fewer could not be a cluster."""


@dataclass(frozen=True)
class Cube(Rule):
    """Flag what lies outside the main density cluster of its class.

    ``min_samples`` is how many neighbours make a place dense, the authors' 100; at most a twentieth of the average class.
    """

    name = "cube"
    rule = "CUBE (Cui et al. 2022)"
    min_samples: int = 100

    def decide(self, classes: Sequence[Load], rngs: Sequence[np.random.Generator]) -> Iterable[Decision]:
        """Cluster all classes together, and judge each by the clusters that its samples are in."""
        if not classes:
            return []
        points = _reduced(classes, rngs[0])
        dense = min(self.min_samples, sum(map(len, points)) // (_DENSE * len(points)))
        clusters = density_clusters(np.concatenate(points), dense, rngs[0])
        return [self._decision(own) for own in np.split(clusters, np.cumsum([len(own) for own in points])[:-1])]

    def _decision(self, clusters: NDArray[np.int64]) -> Decision:
        numbers, place, counts = np.unique(clusters, return_inverse=True, return_counts=True)
        shares = counts / len(clusters)
        foreign = (shares < 0.5) & (np.arange(len(shares)) != shares.argmax())
        members = foreign[place]
        evidence = {
            "relative_size": float(members.mean()),
            "density_clusters": float((numbers >= 0).sum()),
            "noise": float((clusters < 0).mean()),
        }
        if not members.any():
            return (), Ruling(Verdict.CLEAN, f"All of its samples lie in one density cluster, and {self.rule} keeps the largest.")
        found = f"{members.sum():,} samples lie outside the largest density cluster of the class, and {self.rule} flags them."
        group = Group(members, np.where(members, 1 - shares[place], 0.0), evidence)
        return (group,), Ruling(Verdict.SUSPICIOUS, f"{found} {UNCALIBRATED}")


def density_clusters(points: NDArray[np.float64], min_samples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the number of the cluster of each point ``(n, k)``, -1 for noise.

    **Source:** Campello et al. 2013 (HDBSCAN).
    """
    from sklearn.cluster import HDBSCAN
    from sklearn.neighbors import NearestNeighbors

    n = len(points)
    drawn = np.sort(rng.choice(n, _MOST_ROWS, replace=False)) if n > _MOST_ROWS else np.arange(n)
    found = HDBSCAN(min_samples=max(min_samples, 1), copy=True).fit_predict(points[drawn])
    if len(drawn) == n:
        return np.asarray(found, np.int64)
    nearest = NearestNeighbors(n_neighbors=1).fit(points[drawn]).kneighbors(points, return_distance=False)[:, 0]
    return np.asarray(found[nearest], np.int64)


def _reduced(classes: Sequence[Load], rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Return each class in the few dimensions that all share, at a scale of one."""
    with_umap = find_spec("umap") is not None
    sizes, means, scatter = moments(classes)
    spread = scatter / sizes.sum() + covariance(means, sizes)
    axes = leading_axes(spread, _COMPONENTS_BEFORE_UMAP if with_umap else _COMPONENTS) / np.sqrt(np.trace(spread))
    points = [(load() - means.mean(axis=0)) @ axes for load in classes]
    if not with_umap:
        return points
    together = np.concatenate(points)
    neighbours, seed = min(_NEIGHBOURS, len(together) - 1), int(rng.integers(2**31))
    umap = import_module("umap").UMAP(n_components=2, n_neighbors=neighbours, min_dist=0.0, random_state=seed)
    return np.split(np.asarray(umap.fit_transform(together), np.float64), np.cumsum(sizes.astype(int))[:-1])

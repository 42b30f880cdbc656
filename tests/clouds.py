"""Made-up training sets, as the activations of a model and the cells of its pictures, with what was planted in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxscreen import views
from toxscreen.activations import from_arrays
from toxscreen.config import ReductionConfig, ScanConfig
from toxscreen.screening import Labels, Screening, screen


@dataclass(frozen=True)
class Clouds:
    """A training set: ``activations`` (n, d), ``cells`` (n, 64), given ``labels`` (n,), and which rows were ``planted`` (n,)."""

    activations: NDArray[np.float32]
    cells: NDArray[np.float32]
    labels: NDArray[np.int64]
    planted: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> Clouds:
        """Return some of the rows in the order asked for."""
        return Clouds(self.activations[rows], self.cells[rows], self.labels[rows], self.planted[rows])


def clouds(sizes: Sequence[int], rng: np.random.Generator, *, kinds: int = 1, width: int = 24) -> Clouds:
    """Return classes of the given sizes, rows shuffled, nothing planted.

    The activations of a class are one Gaussian cloud far from the others', and its pictures are one pattern with noise. With
    several ``kinds`` each class holds as many natural sub-populations, eight standard deviations apart, each with a pattern of
    its own.
    """
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    kind = rng.integers(0, kinds, len(labels))
    places = 5 * rng.normal(size=(len(sizes), 1, width)) + 8 / np.sqrt(2) * _directions(rng, len(sizes), kinds, width)
    patterns = rng.uniform(size=(len(sizes), kinds, 64))
    activations = places[labels, kind] + rng.normal(size=(len(labels), width))
    cells = patterns[labels, kind] + 0.25 * rng.normal(size=(len(labels), 64))
    return Clouds(activations.astype(np.float32), cells.astype(np.float32), labels, np.zeros(len(labels), bool))


def plant(training_set: Clouds, target: int, n: int, rng: np.random.Generator, *, source: int | None = None) -> Clouds:
    """Relabel ``n`` rows of other classes, or of one ``source`` class, as the target.

    They look as before, but the model, which has learned a trigger, places them fourteen standard deviations from the target's own.
    """
    labels = training_set.labels
    free = ~training_set.planted & (labels != target) & ((labels == source) if source is not None else True)
    rows = rng.choice(np.flatnonzero(free), n, replace=False)
    own = training_set.activations[(labels == target) & ~training_set.planted]
    trigger = 14 * _directions(rng, own.shape[1])
    activations = training_set.activations.copy()
    activations[rows] = own.mean(axis=0) + trigger + rng.normal(size=(n, own.shape[1]))
    changed, planted = labels.copy(), training_set.planted.copy()
    changed[rows], planted[rows] = target, True
    return replace(training_set, activations=activations, labels=changed, planted=planted)


def screened(
    training_set: Clouds,
    *,
    view: bool = True,
    seed: int = 0,
    method: Literal["pca", "ica"] = "pca",
    logits: NDArray[np.float32] | None = None,
    n_classes: int | None = None,
) -> Screening:
    """Screen a training set, with the pictures or without them; class 3 is named ``class 3`` and row 3 ``row 3``."""
    names = tuple(f"class {index}" for index in range(n_classes or int(training_set.labels.max()) + 1))
    ids = pa.array([f"row {row}" for row in range(len(training_set.labels))], pa.string())
    layers = {"hidden": training_set.activations} | ({views.CELLS: training_set.cells} if view else {})
    config = ScanConfig(reduction=ReductionConfig(method), seed=seed)
    return screen(from_arrays(layers, ids, logits), Labels(ids, training_set.labels, names), None, "hidden", config)


def _directions(rng: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    """Return vectors of length 1."""
    vectors = rng.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def texts(sizes: Sequence[int], rng: np.random.Generator, *, clear: float = 0.9) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return a view of texts, shape ``(n, 128)``, and their labels, shuffled.

    A text holds twenty of two hundred words that all classes share, and sixteen of the 150 that a class has for itself: each of
    them is of its own class with the probability ``clear``, and else of the class after it.
    """
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    view = np.zeros((len(labels), 128), np.float32)
    for row, label in zip(view, labels, strict=True):
        pool = np.where(rng.random(16) < clear, label, (label + 1) % len(sizes))
        row[:16] = 1 + 150 * pool + rng.choice(150, 16, replace=False)
        row[16:36] = 2000 + rng.choice(200, 20, replace=False)
    return view, labels

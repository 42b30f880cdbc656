"""Step 4 of the flow: the rows of each class, by given label, because poison lives under the label that it was given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from toxscreen.activations import Rows

_BLOCK_BYTES = 4 << 20
"""What is read of a class at a time, as float32: it stays in the cache while it is worked on."""


@dataclass(frozen=True)
class Segment:
    """The examined samples of one class.

    Attributes
    ----------
    class_index
        Index into the class names.
    rows
        Row numbers, ascending, shape ``(n,)``.
    fitted
        Which of them the model gives their own label, shape ``(n,)``. A backdoor is something that the model has learned: a
        sample that it reads otherwise is a hard or mislabelled one, and is left out of the clustering.
    """

    class_index: int
    rows: NDArray[np.int64]
    fitted: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows of a layer, which are read a few megabytes at a time.

    Attributes
    ----------
    layer
        Shape ``(n_samples, d)``.
    numbers
        Row numbers, shape ``(n,)``.
    """

    layer: Rows
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, array: Rows) -> Part:
        """Return all rows of an array."""
        return cls(array, np.arange(len(array)))

    @property
    def shape(self) -> tuple[int, int]:
        """Return ``(n, d)``."""
        return len(self.numbers), self.layer.shape[1]

    def __len__(self) -> int:
        """Return ``n``."""
        return len(self.numbers)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield which of the rows come next, and their values ``(b, d)``, which may be a view of the layer."""
        step = max(1, _BLOCK_BYTES // (4 * self.shape[1]))
        for start in range(0, len(self), step):
            block = slice(start, min(start + step, len(self)))
            yield block, self.array(block)

    def array(self, part: slice = slice(None)) -> NDArray[np.float32]:
        """Return those of a part of the numbers, ``(b, d)``, which may be a view of the layer."""
        numbers = self.numbers[part]
        side_by_side = len(numbers) > 0 and numbers[-1] - numbers[0] == len(numbers) - 1 and bool((np.diff(numbers) == 1).all())
        return np.asarray(self.layer[int(numbers[0]) : int(numbers[-1]) + 1] if side_by_side else self.layer[numbers])


def segments(
    labels: NDArray[np.int64], examined: NDArray[np.bool_], predicted: NDArray[np.int64] | None, n_classes: int
) -> tuple[Segment, ...]:
    """Split the examined rows by given label.

    Parameters
    ----------
    labels
        Class index of each sample, negative where there is none, shape ``(n_samples,)``.
    examined
        Which samples have usable activations, shape ``(n_samples,)``.
    predicted
        Class index that the model gives each sample, shape ``(n_samples,)``; None when nobody knows, and then every sample
        counts as fitted.
    n_classes
        Number of segments to return; a class without samples gives an empty one.
    """
    rows = np.flatnonzero(examined & (labels >= 0))
    rows = rows[np.argsort(labels[rows], kind="stable")]
    bounds = np.searchsorted(labels[rows], np.arange(n_classes + 1))
    fitted = np.ones(len(labels), dtype=bool) if predicted is None else predicted == labels
    return tuple(
        Segment(index, members, fitted[members])
        for index, (start, stop) in enumerate(pairwise(bounds))
        for members in (rows[start:stop],)
    )

"""Step 4 of the flow: the rows of each class, by given label, because poison lives under the label that it was given."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


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

"""What a copy of a training set differs in, and what the writers of all layouts need."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from toxscreen.sources.data.base import MISSING_LABEL, Input
from toxscreen.sources.data.encode import Recoder
from toxscreen.sources.data.reading import RowReader, row_ids

_SLICE_ROWS = 1000
"""Rows that are Python objects at a time."""


@dataclass(frozen=True)
class Copy:
    """What the copy of a training set differs in.

    Attributes
    ----------
    changes, labels
        New inputs by row, and the class index of every row of the source.
    moved
        Rows whose label changes, shape ``(n_samples,)``.
    shuffled
        A random order of the rows that only the source's content determines, shape ``(n_samples,)``.
    order
        The row of the source that stands in each row of the copy, shape ``(n_copied,)``.
    recoder
        Encodes images; None for texts, and where no image changes.
    hides
        Whether nothing in the copy may tell which rows were changed. Otherwise what stays has its name, its place and its bytes.
    whole
        Whether the copy also holds what is beside the rows: other splits, empty folders of classes.
    """

    changes: Mapping[int, Input]
    labels: NDArray[np.int64]
    moved: NDArray[np.bool_]
    shuffled: NDArray[np.int64]
    order: NDArray[np.int64]
    recoder: Recoder | None
    hides: bool = True
    whole: bool = True

    @classmethod
    def of_rows(cls, source: RowReader, rows: NDArray[np.int64], labels: NDArray[np.int64], *, whole: bool) -> Copy:
        """Plan a copy of some rows, ascending, that hides nothing."""
        everything = np.arange(len(source), dtype=np.int64)
        moved = np.isin(everything, rows) & (labels != source.labels)
        return cls({}, labels, moved, everything, rows, None, hides=False, whole=whole)

    @classmethod
    def planned(cls, source: RowReader, changes: Mapping[int, Input], labels: NDArray[np.int64]) -> Copy:
        """Decide in which order, and how encoded, the changed rows are written."""
        moved = labels != source.labels
        rows = np.arange(len(source), dtype=np.int64)
        shuffled = np.random.default_rng(int(source.fingerprint(), 16)).permutation(rows) if moved.any() else rows
        order = shuffled if moved.any() and _order_tells_the_class(source.labels) else rows
        return cls(changes, labels, moved, shuffled, order, Recoder(source, changes) if source.modality == "image" else None)

    def neutral_name(self, number: int, old: str) -> str:
        """Return a file name that tells nothing but a number; it keeps the ending of the old one."""
        return f"{number:0{len(str(len(self.order) - 1))}d}{PurePosixPath(old).suffix}"

    def row_ids(self) -> pa.StringArray:
        """Return the number of the row of the copy in which each row of the source stands, shape ``(n_samples,)``, or null."""
        return self.by_source(row_ids(len(self.order)))

    def by_source(self, ids: pa.StringArray) -> pa.StringArray:
        """Return the ids ``(n_copied,)`` of the copy's rows by row of the source, shape ``(n_samples,)``; null if left out."""
        places = np.full(len(self.labels), -1, np.int64)
        places[self.order] = np.arange(len(self.order))
        return ids.take(pa.array(places, mask=places < 0))

    def slices(self, first: int, n: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the rows of the copy that take the place of ``n`` rows of the source from ``first`` on, in slices.

        A slice is its first row, and the rows of the source that stand in it.
        """
        start, stop = (int(np.count_nonzero(self.order < row)) for row in (first, first + n))
        for begin in range(start, stop, _SLICE_ROWS):
            yield begin, self.order[begin : min(begin + _SLICE_ROWS, stop)]

    def leaves_alone(self, first: int, n: int) -> bool:
        """Return whether ``n`` rows of the source from ``first`` on are in the copy as they are."""
        rows = [rows for _, rows in self.slices(first, n)]
        return not self.hides and sum(map(len, rows)) == n and not any(self.moved[part].any() for part in rows)


def class_values(given: pa.ChunkedArray, source: RowReader) -> pa.Array:
    """Return how the data writes each class: as the first sample of it does, or else by index or name, shape ``(n_classes,)``."""
    found, rows = np.unique(source.labels, return_index=True)
    first: list[int | None] = [None] * len(source.class_names)
    for label, row in zip(found.tolist(), rows.tolist(), strict=True):
        if label != MISSING_LABEL:
            first[label] = row
    values = given.take(pa.array(first, pa.int64())).combine_chunks()
    values = values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values
    if not values.null_count:
        return values
    by_name = all(
        label in (None, name) for label, name in zip(values.cast(pa.string()).to_pylist(), source.class_names, strict=True)
    )
    names = source.class_names if by_name or not pa.types.is_integer(values.type) else range(len(first))
    return pc.coalesce(values, pa.array(names).cast(values.type))


def copy_file(file: Path, target: Path) -> None:
    """Copy the content of a file, and nothing but the content."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


def _order_tells_the_class(labels: NDArray[np.int64]) -> bool:
    """Return whether equal labels follow each other more or less often than they would by chance (by more than 4 deviations)."""
    n = len(labels)
    shares = np.unique(labels, return_counts=True)[1] / n
    expected = (n - 1) * (1 - (shares**2).sum())
    return bool(abs(np.count_nonzero(labels[1:] != labels[:-1]) - expected) > 2 * np.sqrt(n))

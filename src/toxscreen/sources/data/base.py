"""The seam to training data: one small interface that every format implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxscreen.errors import UsageError

Modality: TypeAlias = Literal["image", "text", "array"]
"""What an input is: a picture, a text, or an array that the model takes as it is."""

Input: TypeAlias = NDArray[Any] | str
"""An image is uint8 ``(height, width, 1 or 3)``; a text is a string; any float array goes to the model as it is."""

Through: TypeAlias = Callable[[Callable[[NDArray[np.int64]], list[bytes]], list[NDArray[np.int64]]], Iterable[list[bytes]]]
"""Returns what a work gives for each of several stretches of rows, in their order."""

MISSING_LABEL = -1

MAX_LISTED = 100
"""How many samples or files are named one by one before the rest is only counted: thousands of holes are one fact."""


@dataclass(frozen=True)
class NotExamined:
    """A sample, a class or a file that no verdict covers, and why."""

    id: str
    reason: str
    row: int | None = None


@dataclass(frozen=True)
class Unreadable:
    """Stands where a sample's input should be, and says why it is not there."""

    reason: str


def abridged(listed: Iterable[NotExamined], n: int, reason: str) -> tuple[NotExamined, ...]:
    """Return the first ``MAX_LISTED`` of ``n`` entries and, where there are more, one entry that counts the rest."""
    first = tuple(islice(listed, MAX_LISTED))
    return first if n <= len(first) else (*first, NotExamined(f"{n - len(first):,} more", reason))


def spread(n: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` of ``n`` row numbers, evenly spread and ascending."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


class Stack(list[Input]):
    """Inputs of one shape that lie in one array ``(b, ...)``, which need not be put together again."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = np.ascontiguousarray(array)
        super().__init__(self.array)


@dataclass(frozen=True)
class Batch:
    """Some samples in the order of the data set.

    Attributes
    ----------
    rows
        Row numbers of the samples that could be read, shape ``(b,)``, ascending.
    inputs
        Their inputs, as many as ``rows``.
    unreadable
        The samples of this stretch that could not be read.
    """

    rows: NDArray[np.int64]
    inputs: list[Input]
    unreadable: tuple[NotExamined, ...] = ()


class TrainingSet(ABC):
    """A labelled training set that is read as a stream: the decoded inputs are never all in memory.

    Attributes
    ----------
    modality
        What one input is.
    name
        A short name, for the run folder.
    location
        The path it was read from, or a description such as ``"arrays"``.
    ids
        A stable name of each sample (relative path or row number), shape ``(n_samples,)``.
    labels
        Index into ``class_names`` of each sample's given label, shape ``(n_samples,)``; ``MISSING_LABEL`` where there is none.
    class_names
        One name per class; a class may have no sample.
    parallel
        Whether several threads may ask for batches at once, and gain by it.
    """

    parallel = False
    modality: Modality
    name: str
    location: str
    ids: pa.StringArray
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Return the samples of some rows, ascending and each once."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the samples in order, ``size`` rows at a time (the last batch may be shorter)."""
        if size < 1:
            raise UsageError(f"A batch must have at least 1 row, got size {size}.")
        for first in range(0, len(self), size):
            yield self.batch(np.arange(first, min(first + size, len(self)), dtype=np.int64))

    @abstractmethod
    def take(self, rows: NDArray[np.int64]) -> list[Input | None]:
        """Return the inputs of a few rows in the order asked for; None where one cannot be read."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hexadecimal digest of the inputs, the labels and the class names."""

    def digests(self, through: Through = map) -> NDArray[np.uint8] | None:  # noqa: ARG002 - for those that have some
        """Return a fingerprint of each sample's input as it is held, shape ``(n_samples, 16)``; None where there is none.

        Samples with the same fingerprint have the same input: what is known of one is not computed again for the other.

        Parameters
        ----------
        through
            Does a work for some rows after the others, as ``map`` does, or elsewhere.
        """
        return None

    def not_examined(self) -> tuple[NotExamined, ...]:
        """Return what is left out before any input is read: the samples without a label, and files that were not opened.

        At most ``MAX_LISTED`` entries of a kind name their sample; one more counts the rest.
        """
        rows = np.flatnonzero(self.labels == MISSING_LABEL)
        holes = (NotExamined(self.ids[row].as_py(), self.without_label(row), row) for row in rows[:MAX_LISTED].tolist())
        return abridged(holes, len(rows), "have no label")

    def without_label(self, row: int) -> str:  # noqa: ARG002 - for those that know more
        """Return what is said of a sample without a label."""
        return "has no label"

    def pictures(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8] | None]:
        """Return what a person can look at for a few rows: uint8 ``(height, width, 1 or 3)``, or None."""
        if self.modality != "image":
            return [None] * len(rows)
        return [picture if isinstance(picture, np.ndarray) else None for picture in self.take(rows)]

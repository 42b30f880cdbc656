"""What the formats of training data share.

A format only says how some rows are fetched (:meth:`RowReader.cells`); batches, single rows and the fingerprint follow from that.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data.base import (
    MAX_LISTED,
    MISSING_LABEL,
    Batch,
    Input,
    Modality,
    NotExamined,
    TrainingSet,
    Unreadable,
    abridged,
)

_STRETCH = 256
"""Rows fetched at a time when all of them are read to be hashed."""


Cell: TypeAlias = bytes | Input | Unreadable
"""What a format holds for a row: an encoded image, an input as it is, or the reason why there is none."""


@dataclass(frozen=True)
class Selection:
    """What part of the data a caller asks for; None leaves the choice to the format."""

    split: str | None = None
    input_column: str | None = None
    label_column: str | None = None
    class_names: tuple[str, ...] | None = None


class Format(Protocol):
    """What a module of this package offers to be registered as a format of files."""

    def recognises(self, path: Path) -> bool:
        """Return whether this format reads ``path``, judged by names alone."""

    def splits(self, path: Path) -> tuple[str, ...]:
        """Return the names of the splits in ``path``; empty where it has none."""

    def open_path(self, path: Path, selection: Selection) -> TrainingSet:
        """Open one split of ``path``."""


class RowReader(TrainingSet):
    """A training set of which any rows can be fetched.

    Raises
    ------
    DataError
        If there is no sample, or if fewer than two classes have one.
    """

    def __init__(
        self,
        *,
        modality: Modality,
        name: str,
        location: str,
        ids: pa.StringArray,
        labels: NDArray[np.int64],
        class_names: tuple[str, ...],
        skipped: tuple[NotExamined, ...] = (),
    ) -> None:
        self.modality = modality
        self.name = name
        self.location = location
        self.ids = ids
        self.labels = labels
        self.class_names = class_names
        self.skipped = skipped
        self._digest: str | None = None
        _check_classes(labels, class_names, location)

    @abstractmethod
    def cells(self, rows: NDArray[np.int64]) -> Sequence[Cell]:
        """Return what is held for ``rows`` (valid, in any order, possibly repeated), images still encoded."""

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """Yield the samples from row ``start`` on, in order, ``size`` rows at a time (the last batch may be shorter)."""
        if size < 1 or start < 0:
            raise UsageError(f"A batch must have at least 1 row and start at row 0 or later, got size {size} and start {start}.")
        for first in range(start, len(self), size):
            rows = np.arange(first, min(first + size, len(self)), dtype=np.int64)
            inputs = self._read(rows)
            readable = np.array([not isinstance(value, Unreadable) for value in inputs])
            yield Batch(
                rows=rows[readable],
                inputs=[value for value in inputs if not isinstance(value, Unreadable)],
                unreadable=tuple(
                    NotExamined(self.ids[row].as_py(), value.reason, row)
                    for row, value in zip(rows.tolist(), inputs, strict=True)
                    if isinstance(value, Unreadable)
                ),
            )

    def take(self, rows: NDArray[np.int64]) -> list[Input | None]:
        """Return the inputs of a few rows in the order asked for; None where one cannot be read."""
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise UsageError(f"Rows must be between 0 and {len(self) - 1}, got {rows.min()} to {rows.max()}.")
        return [None if isinstance(value, Unreadable) else value for value in self._read(rows)]

    def not_examined(self) -> tuple[NotExamined, ...]:
        """Return the samples without a label and the files that were not opened."""
        return (*super().not_examined(), *self.skipped)

    def fingerprint(self) -> str:
        """Return a hexadecimal digest of the inputs, the labels, the class names and the ids; computed once."""
        if self._digest is None:
            digest = Digest()
            for cell in self._every_cell():
                digest.add_cell(cell)
            self._digest = digest.closed(self)
        return self._digest

    def _read(self, rows: NDArray[np.int64]) -> list[Input | Unreadable]:
        from toxscreen.sources.data.decode import decode_image  # Pillow is not needed by `import toxscreen`

        return [decode_image(cell) if isinstance(cell, bytes) else cell for cell in self.cells(rows)]

    def _every_cell(self) -> Iterator[Cell]:
        for first in range(0, len(self), _STRETCH):
            yield from self.cells(np.arange(first, min(first + _STRETCH, len(self)), dtype=np.int64))


class Digest:
    """A fingerprint in the making: every part is hashed with its length, so that no two sequences of parts look alike."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, part: bytes) -> None:
        """Add one part."""
        self._hash.update(len(part).to_bytes(8, "little"))
        self._hash.update(part)

    def add_cell(self, cell: Cell) -> None:
        """Add the content of one row."""
        if isinstance(cell, np.ndarray):
            self.add(f"{cell.dtype.str}{cell.shape}".encode())
            cell = np.ascontiguousarray(cell).tobytes()
        elif isinstance(cell, str):
            cell = cell.encode("utf-8", "surrogatepass")
        elif isinstance(cell, Unreadable):
            self.add(b"unreadable")
            cell = b""
        self.add(cell)

    def closed(self, source: TrainingSet) -> str:
        """Add all that is not content and return the digest in hexadecimal."""
        self.add(source.modality.encode())
        self.add(json.dumps(source.class_names).encode())
        self.add(source.labels.astype("<i8").tobytes())
        for first in range(0, len(source), 2**16):
            self.add(json.dumps(source.ids.slice(first, 2**16).to_pylist()).encode())
        return self._hash.hexdigest()


class Omissions:
    """Files that are left out, counted, and named as long as they are few."""

    def __init__(self) -> None:
        self._listed: list[NotExamined] = []
        self._n = 0

    def add(self, name: str, reason: str) -> None:
        """Leave out one file."""
        self._n += 1
        if len(self._listed) < MAX_LISTED:
            self._listed.append(NotExamined(name, reason))

    def listed(self) -> tuple[NotExamined, ...]:
        """Return what was left out."""
        return abridged(self._listed, self._n, "were left out")


def text_values(texts: pa.Array) -> list[str | None]:
    """Return an Arrow array of strings or bytes as Python strings; None for a null and for what is not valid UTF-8."""
    if pa.types.is_dictionary(texts.type):
        texts = texts.cast(texts.type.value_type)
    values: list[str | None]
    try:
        values = texts.cast(pa.large_string()).to_pylist()
    except (pa.ArrowInvalid, UnicodeDecodeError):
        values = [_decoded(value) for value in texts.cast(pa.large_binary()).to_pylist()]
    return values


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _check_classes(labels: NDArray[np.int64], class_names: tuple[str, ...], location: str) -> None:
    if not len(labels):
        raise DataError(f"A training set must have samples, but {location} has none.")
    found = np.unique(labels[labels != MISSING_LABEL])
    if not len(found):
        raise DataError(f"Samples must have labels, but none of the {len(labels):,} in {location} has one.")
    if len(found) == 1:
        raise DataError(
            f"At least two classes must have samples, because each class is judged against the others, but all "
            f"{np.count_nonzero(labels != MISSING_LABEL):,} labelled samples in {location} are of class {class_names[found[0]]!r}."
        )


def row_ids(n: int) -> pa.StringArray:
    """Return the row numbers from 0 to ``n - 1`` as ids."""
    return pa.array(np.arange(n)).cast(pa.string())

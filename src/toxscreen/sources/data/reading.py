"""What the formats of training data share.

A format only says how some rows are fetched (:meth:`RowReader.cells`); batches, single rows and the fingerprint follow from that.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeAlias

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
    Through,
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
        self._digests: NDArray[np.uint8] | None = None
        self._fingerprint: str | None = None
        _check_classes(labels, class_names, location)

    @abstractmethod
    def cells(self, rows: NDArray[np.int64]) -> Sequence[Cell]:
        """Return what is held for ``rows`` (valid, in any order, possibly repeated), images still encoded."""

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Return the samples of some rows, ascending and each once."""
        inputs = self._read(rows)
        readable = np.array([not isinstance(value, Unreadable) for value in inputs], np.bool_)
        return Batch(
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

    def digests(self, through: Through = map) -> NDArray[np.uint8]:
        """Return a fingerprint of each sample's cell, still encoded, shape ``(n_samples, 16)``; computed once."""
        if self._digests is None:
            stretches = [np.arange(first, min(first + _STRETCH, len(self))) for first in range(0, len(self), _STRETCH)]
            self._digests = joined(chain.from_iterable(through(self._hashed, stretches)))
        return self._digests

    def fingerprint(self) -> str:
        """Return a hexadecimal digest of the inputs, the labels, the class names and the ids; computed once."""
        if self._fingerprint is None:
            parts = [self.digests().tobytes(), self.modality.encode(), json.dumps(self.class_names).encode()]
            parts.append(self.labels.astype("<i8").tobytes())
            parts += [json.dumps(self.ids.slice(first, 2**16).to_pylist()).encode() for first in range(0, len(self), 2**16)]
            self._fingerprint = hashlib.blake2b(b"".join(map(_delimited, parts)), digest_size=16).hexdigest()
        return self._fingerprint

    def _read(self, rows: NDArray[np.int64]) -> list[Input | Unreadable]:
        from toxscreen.sources.data.decode import decode_image  # Pillow is not needed by `import toxscreen`

        return [decode_image(cell) if isinstance(cell, bytes) else cell for cell in self.cells(rows)]

    def _hashed(self, rows: NDArray[np.int64]) -> list[bytes]:
        return [cell_digest(cell) for cell in self.cells(rows)]


def cell_digest(cell: Cell) -> bytes:
    """Return a fingerprint of 16 bytes of the content of one row: its kind and its bytes."""
    if isinstance(cell, np.ndarray):
        return array_digests(cell[None])[0]
    if isinstance(cell, Unreadable):
        return hashlib.blake2b(b"", digest_size=16, person=b"unreadable").digest()
    if isinstance(cell, str):
        return hashlib.blake2b(cell.encode("utf-8", "surrogatepass"), digest_size=16, person=b"text").digest()
    return hashlib.blake2b(cell, digest_size=16).digest()


def array_digests(arrays: NDArray[Any]) -> list[bytes]:
    """Return the fingerprints of arrays of one shape that lie in one, ``(b, ...)``."""
    kind = _short(f"{arrays.dtype.str}{arrays.shape[1:]}".encode())
    contents = np.ascontiguousarray(arrays).reshape(len(arrays), -1).view(np.uint8)
    return [hashlib.blake2b(content.data, digest_size=16, person=kind).digest() for content in contents]


def joined(digests: Iterable[bytes]) -> NDArray[np.uint8]:
    """Return fingerprints as one array ``(n, 16)``."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


def _short(kind: bytes) -> bytes:
    """Return what personalises a hash, which takes no more than 16 bytes."""
    return kind if len(kind) <= 16 else hashlib.blake2b(kind, digest_size=16).digest()


def _delimited(part: bytes) -> bytes:
    """Return a part behind its length, so that no two sequences of parts look alike."""
    return len(part).to_bytes(8, "little") + part


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

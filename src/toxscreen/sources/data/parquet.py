"""Parquet files as the public hubs lay them out: ``<split>-00000-of-00001.parquet``, or a single file."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from toxscreen.errors import DataError
from toxscreen.sources.data.base import Modality, NotExamined, Unreadable
from toxscreen.sources.data.labels import are_names, encode_labels
from toxscreen.sources.data.layout import (
    IMAGE_COLUMNS,
    SPLIT_NAMES,
    TEXT_COLUMNS,
    choose_columns,
    choose_split,
    printable,
    short_name,
    visible,
)
from toxscreen.sources.data.reading import Cell, Omissions, RowReader, Selection, row_ids, text_values

_SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d{5})-of-(?P<total>\d{5})(-[0-9a-f]+)?")

_PIECE_ROWS = 256
"""Rows decompressed at a time; a row group can hold a whole data set and is never read at once."""

_CACHE_BYTES = 256 * 2**20
"""Decompressed pieces kept for random access: MNIST and CIFAR-10 fit as a whole."""

_READ_BUFFER = 2**20
"""Bytes read from a file at a time; without a buffer pyarrow fetches the whole row group."""


def recognises(path: Path) -> bool:
    """Return whether this format reads ``path``, judged by names alone."""
    return bool(_files(path))


def splits(path: Path) -> tuple[str, ...]:
    """Return the names of the splits in ``path``; empty where it has none."""
    return tuple(dict.fromkeys(split for file in _files(path) if path.is_dir() and (split := _split_of(file))))


def open_path(path: Path, selection: Selection) -> ParquetSet:
    """Open one split of ``path``.

    Raises
    ------
    DataError
        If a file is not Parquet, or if columns or labels cannot be used.
    UsageError
        If the split is not there.
    """
    location = printable(path)
    split = choose_split(selection.split, splits(path), location)
    files = [file for file in _files(path) if split is None or _split_of(file) == split]
    with open_file(files[0]) as first:
        schema: pa.Schema = first.schema_arrow
    usual = (*IMAGE_COLUMNS, *TEXT_COLUMNS)
    input_column, label_column = choose_columns(selection.input_column, selection.label_column, schema.names, usual, location)
    modality = _modality(schema.field(input_column).type, input_column, location)
    given = read_column(files, label_column)
    hub_names = _hub_class_names(schema, label_column) if pa.types.is_integer(given.type) else None
    class_names = selection.class_names or hub_names
    by_index = hub_names is not None and class_names == hub_names
    labels, class_names = encode_labels(given, class_names, location, by_index=by_index)
    return ParquetSet(
        path=path,
        files=files,
        input_column=input_column,
        label_column=label_column,
        modality=modality,
        name=short_name(path),
        location=location,
        ids=row_ids(len(labels)),
        labels=labels,
        class_names=class_names,
        skipped=(*_missing_shards(files), *_strays(path)) if path.is_dir() else (),
    )


class ParquetSet(RowReader):
    """A training set in Parquet files.

    Attributes
    ----------
    path
        The folder or the file that was opened.
    files
        The files of the split in the order of their rows.
    input_column, label_column
        The columns that are read.
    """

    def __init__(self, *, path: Path, files: Sequence[Path], input_column: str, label_column: str, **common: Any) -> None:
        super().__init__(**common)
        self.parallel = self.modality == "image"
        self.path = path
        self.files = tuple(files)
        self.input_column = input_column
        self.label_column = label_column
        self._pieces = _Pieces(self.files, input_column)
        if self._pieces.n_rows != len(self):
            raise DataError(f"The columns of {self.location} must have the same length.")

    def other_files(self) -> list[Path]:
        """Return the files of the other splits."""
        return [file for file in _files(self.path) if file not in self.files]

    def cells(self, rows: NDArray[np.int64]) -> list[Cell]:
        """Return the encoded images or the texts of ``rows``; only the pieces that hold them are read."""
        found: list[Cell] = [Unreadable("")] * len(rows)
        pieces = self._pieces.piece_of(rows)
        for piece in np.unique(pieces):
            places = np.flatnonzero(pieces == piece)
            try:
                cells = self._values(self._pieces.read(int(piece)), rows[places] - self._pieces.starts[piece])
            except (pa.ArrowException, OSError) as error:
                cells = [Unreadable(f"the file {printable(self._pieces.file_of(int(piece)))} is damaged here: {error}")] * len(
                    places
                )
            for place, cell in zip(places.tolist(), cells, strict=True):
                found[place] = cell
        return found

    def _values(self, column: pa.Array, rows: NDArray[np.int64]) -> list[Cell]:
        column = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
        column = column.take(pa.array(rows))
        values = text_values(column) if self.modality == "text" else column.cast(pa.large_binary()).to_pylist()
        missing = Unreadable("has no text, or one that is not UTF-8" if self.modality == "text" else "has no image bytes")
        return [missing if value is None else value for value in values]


class _Pieces:
    """One column over several files, in pieces of a few rows of which the latest are kept; any thread may ask."""

    def __init__(self, files: Sequence[Path], column: str) -> None:
        self._files = files
        self._column = column
        self._begin()
        homes, lengths = [], []
        for number, file in enumerate(files):
            with open_file(file) as opened:
                _check_column(opened, file, column)
                homes += [(number, group) for group in range(opened.metadata.num_row_groups)]
                lengths += [opened.metadata.row_group(group).num_rows for group in range(opened.metadata.num_row_groups)]
        self._homes = homes
        group_ends = np.cumsum(lengths, dtype=np.int64)
        self.n_rows = int(group_ends[-1]) if lengths else 0
        parts = [np.arange(end - n, end, _PIECE_ROWS) for end, n in zip(group_ends, lengths, strict=True)]
        self.starts: NDArray[np.int64] = np.concatenate([*parts, [self.n_rows]]).astype(np.int64)
        self._first_piece = np.cumsum([0, *map(len, parts)])

    def _begin(self) -> None:
        """Start with nothing read."""
        self._cache: OrderedDict[int, pa.Array] = OrderedDict()
        self._cached_bytes = 0
        self._stream: Iterator[pa.Array] = iter(())
        self._ahead = range(0)  # the pieces that the stream has still to give
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_cache", "_cached_bytes", "_stream", "_ahead", "_lock")  # another process reads for itself
        return {name: value for name, value in vars(self).items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def piece_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the piece that holds each row."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def file_of(self, piece: int) -> Path:
        """Return the file that holds a piece."""
        return self._files[self._homes[self._group_of(piece)][0]]

    def read(self, piece: int) -> pa.Array:
        """Return one piece of the column.

        Raises
        ------
        OSError or pyarrow.ArrowException
            If the file is damaged there.
        """
        with self._lock:
            if piece not in self._cache:
                self._read_up_to(piece)
            return self._cache[piece]

    def _read_up_to(self, piece: int) -> None:
        """Go on with the stream, or start one where the piece's row group starts, and keep what comes by."""
        if piece not in self._ahead:
            group = self._group_of(piece)
            self._ahead = range(int(self._first_piece[group]), int(self._first_piece[group + 1]))
            self._stream = self._row_group(group)
        while piece in self._ahead:
            passed, self._ahead = self._ahead[0], self._ahead[1:]
            column = next(self._stream, None)
            if column is None or len(column) != self.starts[passed + 1] - self.starts[passed]:
                raise OSError("a row group ends early")
            if passed not in self._cache:
                self._cache[passed] = column
                self._cached_bytes += column.nbytes
            while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
                _, oldest = self._cache.popitem(last=False)
                self._cached_bytes -= oldest.nbytes

    def _row_group(self, group: int) -> Iterator[pa.Array]:
        number, row_group = self._homes[group]
        with open_file(self._files[number]) as opened:
            kind = opened.schema_arrow.field(self._column).type
            leaf = f"{self._column}.bytes" if pa.types.is_struct(kind) else self._column
            for batch in opened.iter_batches(_PIECE_ROWS, row_groups=[row_group], columns=[leaf], use_threads=False):
                yield batch.column(0)

    def _group_of(self, piece: int) -> int:
        return int(np.searchsorted(self._first_piece, piece, side="right")) - 1


def open_file(file: Path) -> pq.ParquetFile:
    """Open one Parquet file.

    Raises
    ------
    DataError
        If it is not one.
    """
    try:
        return pq.ParquetFile(file, buffer_size=_READ_BUFFER, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{printable(file)} must be a Parquet file, but cannot be read as one: {error}.") from error


def read_column(files: Sequence[Path], column: str) -> pa.ChunkedArray:
    """Read one small column of several files.

    Raises
    ------
    DataError
        If a file lacks it, has another type there, or is damaged.
    """
    tables = []
    for file in files:
        with open_file(file) as opened:
            _check_column(opened, file, column)
            try:
                tables.append(opened.read(columns=[column], use_threads=False))
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"The column {column!r} of {printable(file)} cannot be read: {error}.") from error
    try:
        return pa.concat_tables([table.replace_schema_metadata() for table in tables], promote_options="permissive")[column]
    except pa.ArrowException as error:
        raise DataError(f"The files of a split must agree on the type of column {column!r}: {error}.") from error


def _check_column(opened: pq.ParquetFile, file: Path, column: str) -> None:
    n = opened.schema_arrow.names.count(column)
    if n != 1:
        raise DataError(
            f"{printable(file)} must have one column {column!r} like the other files of its split, but has {n or 'none'}."
        )


def _files(path: Path) -> list[Path]:
    """Return the Parquet files that belong to ``path`` in the order of their names."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    for folder in (path, path / "data"):
        found = sorted(file for file in folder.glob("*.parquet") if file.is_file() and visible(file.name))
        if found:
            return found
    return []


def _split_of(file: Path) -> str | None:
    shard = _SHARD.fullmatch(file.stem)
    if shard:
        return shard["split"]
    return file.stem if file.stem in SPLIT_NAMES else None


def _strays(path: Path) -> tuple[NotExamined, ...]:
    """Return the Parquet files of a folder that are of no split, and those of ``data`` where there are some beside it.

    Other loaders may take them for training data: who plants samples need only name a file so.
    """
    read, omissions = _files(path), Omissions()
    if splits(path):
        for file in read:
            if _split_of(file) is None:
                name = printable(file.relative_to(path))
                omissions.add(name, "its name says no split, as those of other files do; rename it, or scan it alone")
    if read[0].parent == path:
        for file in sorted(file for file in (path / "data").glob("*.parquet") if visible(file.name)):
            name = printable(file.relative_to(path))
            omissions.add(name, "it lies in a folder below other Parquet files; scan that folder alone")
    return omissions.listed()


def _missing_shards(files: Sequence[Path]) -> tuple[NotExamined, ...]:
    """Return the parts of one split that the names of the others speak of."""
    found: dict[tuple[str, int], set[int]] = {}
    for shard in filter(None, (_SHARD.fullmatch(file.stem) for file in files)):
        found.setdefault((shard["split"], int(shard["total"])), set()).add(int(shard["number"]))
    omissions = Omissions()
    for (split, total), numbers in found.items():
        first = int(total in numbers)  # some writers count from 1
        for number in range(first, first + total):
            if number not in numbers:
                name = f"{split}-{number:05d}-of-{total:05d}.parquet"
                omissions.add(name, f"the names of the files say that there are {total:,} parts; this one is missing")
    return omissions.listed()


def _modality(kind: pa.DataType, column: str, location: str) -> Modality:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
        if _is_binary(kind):
            return "image"
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if _is_binary(kind):
        return "image"
    if _is_string(kind) and column.lower() not in IMAGE_COLUMNS:
        return "text"
    raise DataError(
        f"The input column must hold texts, image bytes, or a struct of image bytes and path, but column {column!r} of {location} "
        f"is of type {kind}. Name another one with --input-column."
    )


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _hub_class_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Return the class names in the features that the hub's library keeps in the schema; None where they are not understood."""
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return tuple(names) if are_names(names) else None

"""Tables in CSV, TSV or JSONL: a text and its label per row, or the path of an image and its label."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from toxscreen.errors import DataError
from toxscreen.sources.data.base import NotExamined, Unreadable
from toxscreen.sources.data.decode import read_file
from toxscreen.sources.data.labels import encode_labels, label_text
from toxscreen.sources.data.layout import (
    IMAGE_COLUMNS,
    SPLIT_NAMES,
    TEXT_COLUMNS,
    choose_columns,
    choose_split,
    is_image_name,
    printable,
    short_name,
    visible,
)
from toxscreen.sources.data.reading import Cell, Omissions, RowReader, Selection, row_ids, text_values

PATH_COLUMNS = ("path", "image_path", "file", "file_name", "filename")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SUFFIXES = (*DELIMITERS, ".jsonl", ".ndjson")

_BLOCK_BYTES = 32 * 2**20
"""CSV is parsed in blocks of this size; no row can be larger."""

_LOOKED_AT = 100
"""Rows that decide what a column holds and which columns a JSONL file has."""

_FLUSH_ROWS = 10_000
"""JSONL rows held as Python objects before they become an Arrow array."""


def recognises(path: Path) -> bool:
    """Return whether this format reads ``path``: a table, or a folder of tables per split or of one table without class folders."""
    if path.is_file():
        return path.suffix.lower() in _SUFFIXES
    tables = _tables(path)
    n_folders = sum(entry.is_dir() and visible(entry.name) for entry in path.iterdir())
    return bool(splits(path)) or (len(tables) == 1 and n_folders < 2)


def splits(path: Path) -> tuple[str, ...]:
    """Return the names of the splits in ``path``; empty where it has none."""
    return tuple(dict.fromkeys(table.stem for table in _tables(path) if table.stem in SPLIT_NAMES))


def open_path(path: Path, selection: Selection) -> TableSet:
    """Open one split of ``path``.

    Raises
    ------
    DataError
        If the table cannot be parsed, or if columns or labels cannot be used.
    UsageError
        If the split is not there.
    """
    location = printable(path)
    split = choose_split(selection.split, splits(path), location)
    file = path if path.is_file() else next(table for table in _tables(path) if split is None or table.stem == split)
    columns = read_columns(file, selection)
    labels, class_names = encode_labels(columns.labels, selection.class_names, location)
    return TableSet(
        path=path,
        file=file,
        columns=columns,
        name=short_name(path),
        location=location,
        ids=row_ids(len(labels)),
        labels=labels,
        class_names=class_names,
        skipped=columns.skipped,
    )


@dataclass(frozen=True)
class Columns:
    """The two columns that are read from a table.

    Attributes
    ----------
    input_column, label_column
        Their names.
    inputs
        Texts or paths as strings or UTF-8 bytes, shape ``(n_samples,)``; null where a row is broken.
    labels
        Given labels, shape ``(n_samples,)``.
    skipped
        Rows that are not part of the data set because they could not be told apart into cells.
    """

    input_column: str
    label_column: str
    inputs: pa.Array
    labels: pa.Array
    skipped: tuple[NotExamined, ...] = ()

    @property
    def are_images(self) -> bool:
        """Return whether the inputs are paths of images: by the column's name, else by the endings of the first inputs."""
        column = self.input_column.lower()
        if column in (*IMAGE_COLUMNS, *PATH_COLUMNS):
            return True
        first = [value for value in text_values(self.inputs.slice(0, _LOOKED_AT)) if value]
        return column not in TEXT_COLUMNS and len(first) > 0 and all(map(is_image_name, first))


class TableSet(RowReader):
    """A training set in a table of texts or of paths to images.

    Attributes
    ----------
    path, file
        The folder or file that was opened, and the table in it.
    columns
        What was read from the table.
    """

    def __init__(self, *, path: Path, file: Path, columns: Columns, **common: Any) -> None:
        super().__init__(modality="image" if columns.are_images else "text", **common)
        self.parallel = self.modality == "image"
        self.path = path
        self.file = file
        self.columns = columns

    def without_label(self, row: int) -> str:
        """Return what is said of a row without a label, which may have no input either."""
        return super().without_label(row) if self.columns.inputs[row].is_valid else "has neither input nor label: a broken row"

    def other_files(self) -> list[Path]:
        """Return the tables of the other splits."""
        return (
            [table for table in _tables(self.path) if table != self.file and table.stem in SPLIT_NAMES]
            if self.path.is_dir()
            else []
        )

    def cells(self, rows: NDArray[np.int64]) -> list[Cell]:
        """Return the texts, or the contents of the image files, of ``rows``."""
        broken = Unreadable(f"the row is broken: it has no text under {self.columns.input_column!r}, or one that is not UTF-8")
        values = text_values(self.columns.inputs.take(pa.array(rows)))
        if self.modality == "image":
            return [broken if value is None else _read_inside(self.file.parent, value) for value in values]
        return [broken if value is None else value for value in values]


def locate_inside(folder: Path, relative: str) -> Path | Unreadable:
    """Return the file that a table in ``folder`` names, unless it lies elsewhere."""
    try:
        file = (folder / relative).resolve()
        inside = file.is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the path, a ring of links
        return Unreadable(f"the path cannot be followed: {error}")
    return file if inside else Unreadable("the path leads out of the folder of the table and is not followed")


def read_columns(file: Path, selection: Selection) -> Columns:
    """Read inputs and labels of a table.

    Raises
    ------
    DataError
        If the table cannot be parsed, is not in UTF-8, or lacks a column.
    """
    _check_encoding(file)
    return _read_csv(file, selection) if file.suffix.lower() in DELIMITERS else _read_jsonl(file, selection)


def open_csv(file: Path, columns: list[str] | None, omissions: Omissions) -> csv.CSVStreamingReader:
    """Open a CSV or TSV file whose cells are read as bytes; rows with too many or too few cells are left out.

    Raises
    ------
    DataError
        If it cannot be parsed.
    """

    def leave_out(row: csv.InvalidRow) -> str:
        omissions.add(
            f"{printable(file)}, line {row.number}",
            f"the row has {row.actual_columns} cells where the first has {row.expected_columns}",
        )
        return "skip"

    try:
        return csv.open_csv(
            file,
            read_options=csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
            parse_options=csv.ParseOptions(
                delimiter=DELIMITERS[file.suffix.lower()], newlines_in_values=True, invalid_row_handler=leave_out
            ),
            convert_options=csv.ConvertOptions(
                include_columns=columns, column_types=dict.fromkeys(columns or [], pa.large_binary()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowException, OSError) as error:
        raise _not_a_table(file, error) from error


def _read_csv(file: Path, selection: Selection) -> Columns:
    with open_csv(file, None, Omissions()) as reader:
        names = reader.schema.names
    input_column, label_column = _choose(names, selection, file)
    omissions = Omissions()
    with open_csv(file, [input_column, label_column], omissions) as reader:
        try:
            table = reader.read_all()
        except (pa.ArrowException, OSError) as error:
            raise _not_a_table(file, error) from error
    # A column of whole numbers with holes is often written as 1.0, 2.0 and nothing.
    labels = pc.replace_substring_regex(table[label_column].combine_chunks(), r"^(-?[0-9]+)\.0$", r"\1")
    return Columns(input_column, label_column, table[input_column].combine_chunks(), labels, omissions.listed())


def _read_jsonl(file: Path, selection: Selection) -> Columns:
    first = islice(filter(None, map(parse_object, read_lines(file))), _LOOKED_AT)
    names = list(dict.fromkeys(name for row in first for name in row))
    input_column, label_column = _choose(names, selection, file)
    inputs, labels = [], []
    lines = read_lines(file)
    while chunk := [parse_object(line) or {} for line in islice(lines, _FLUSH_ROWS)]:
        inputs.append(pa.array([_string(row.get(input_column)) for row in chunk], pa.large_string()))
        labels.append(pa.array([_label(row.get(label_column), file) for row in chunk], pa.large_string()))
    return Columns(input_column, label_column, pa.concat_arrays(inputs), pa.concat_arrays(labels))


def _check_encoding(file: Path) -> None:
    """Refuse a table whose first line is not UTF-8, as the header of a CSV file has to be; a line of JSONL may be broken."""
    try:
        with file.open("rb") as opened:
            first = opened.readline(_BLOCK_BYTES)
    except OSError as error:
        raise DataError(f"{printable(file)} cannot be opened: {error.strerror}.") from error
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in first[:2]:
        raise _not_utf_8(file, "its first line looks like UTF-16", "UTF-16")
    if file.suffix.lower() in DELIMITERS:
        try:
            first.decode()
        except UnicodeDecodeError as error:
            found = f"its header line has the byte 0x{first[error.start]:02x}, as a file in Latin-1 may have"
            raise _not_utf_8(file, found, "LATIN1") from error


def _not_utf_8(file: Path, found: str, encoding: str) -> DataError:
    return DataError(
        f"A table must be in UTF-8, but {printable(file)} is not: {found}. "
        f"Convert it, for instance with: iconv -f {encoding} -t UTF-8 OLD > NEW"
    )


def _choose(names: list[str], selection: Selection, file: Path) -> tuple[str, str]:
    usual = (*IMAGE_COLUMNS, *TEXT_COLUMNS, *PATH_COLUMNS)
    return choose_columns(selection.input_column, selection.label_column, names, usual, printable(file))


def read_lines(file: Path) -> Iterator[bytes]:
    """Yield the lines of a file that are not blank: the rows of a JSONL table."""
    with file.open("rb") as opened:
        yield from (line for line in opened if line.strip())


def parse_object(line: bytes) -> dict[str, Any] | None:
    """Return the object that a line of JSON holds; None for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _string(value: object) -> str | None:
    """Return a string that Arrow can hold: JSON can spell half of a surrogate pair."""
    try:
        return value if isinstance(value, str) and value.encode() is not None else None
    except UnicodeEncodeError:
        return None


def _label(value: object, file: Path) -> str | None:
    return _string(label_text(value, printable(file))) if isinstance(value, str | int | float) else None


def _read_inside(folder: Path, relative: str) -> Cell:
    file = locate_inside(folder, relative)
    return file if isinstance(file, Unreadable) else read_file(file)


def _not_a_table(file: Path, error: Exception) -> DataError:
    return DataError(f"{printable(file)} must be a table with a header line, in UTF-8, but cannot be parsed: {error}.")


def _tables(folder: Path) -> list[Path]:
    """Return the tables that lie directly in a folder, in the order of their names."""
    return (
        sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in _SUFFIXES and entry.is_file() and visible(entry.name))
        if folder.is_dir()
        else []
    )

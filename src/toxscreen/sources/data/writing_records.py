"""Copy rows of a table as they stand in its file, byte by byte, and the images that they name under the same names."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from toxscreen.sources.data import table
from toxscreen.sources.data.base import Unreadable
from toxscreen.sources.data.copying import Copy, class_values, copy_file
from toxscreen.sources.data.reading import Omissions, text_values


def copy_images(source: table.TableSet, copy: Copy, out: Path) -> dict[int, str]:
    """Copy the images of the rows; return new paths for rows whose old one is absolute or goes by a link."""
    folder, paths = source.file.parent, {}
    for number, value in zip(copy.order.tolist(), text_values(source.columns.inputs.take(pa.array(copy.order))), strict=True):
        image = Unreadable("") if value is None else table.locate_inside(folder, value)
        if value is None or not isinstance(image, Path) or not image.is_file():
            continue
        place = image.relative_to(folder.resolve())
        if Path(os.path.normpath(value)) != place:
            paths[number] = place.as_posix()
        if not (out / place).exists():
            copy_file(image, out / place)
    return paths


def copy_lines(source: table.TableSet, copy: Copy, target: Path, paths: Mapping[int, str]) -> None:
    """Copy lines of a JSONL file; only a line whose label or path changes is written anew."""
    columns, stays = source.columns, np.isin(np.arange(len(source)), copy.order)
    labels = written_labels(pa.array(table.read_lines(source.file), pa.large_binary()), source) if copy.moved.any() else []
    with target.open("wb") as file:
        for number, line in enumerate(table.read_lines(source.file)):
            if not stays[number]:
                continue
            row = table.parse_object(line) if copy.moved[number] or number in paths else None
            if row is None:
                file.write(line)
                continue
            if number in paths:
                row[columns.input_column] = paths[number]
            if copy.moved[number]:
                row[columns.label_column] = labels[copy.labels[number]]
            file.write(json.dumps(row).encode() + b"\n")


def copy_records(source: table.TableSet, copy: Copy, target: Path, paths: Mapping[int, str]) -> bool:
    """Copy records of a CSV file; return False where they cannot be told apart in the way in which they were read.

    Records that are no rows, because they have too many or too few cells, are copied too. Only a record whose label or path changes
    is written anew.
    """
    columns, stays = source.columns, np.isin(np.arange(len(source)), copy.order)
    delimiter = table.DELIMITERS[source.file.suffix.lower()]
    labels = _labels_of_cells(source) if copy.moved.any() else []
    records, number = _records(source.file, delimiter), -1
    try:
        with target.open("wb") as file:
            header, cells = next(records)
            names = [name.encode("latin-1").decode() for name in cells]
            input_index, label_index = names.index(columns.input_column), names.index(columns.label_column)
            file.write(header)
            for record, cells in records:
                written = record
                if len(cells) == len(names):
                    number += 1
                    if cells[input_index].encode("latin-1") != columns.inputs[number].as_py():
                        return False
                    if not stays[number]:
                        continue
                    if number in paths:
                        cells[input_index] = paths[number].encode().decode("latin-1")
                    if copy.moved[number]:
                        cells[label_index] = labels[copy.labels[number]].decode("latin-1")
                    if copy.moved[number] or number in paths:
                        written = _written(cells, delimiter) + record[len(record.rstrip(b"\r\n")) :]
                file.write(written)
    except (csv.Error, ValueError, IndexError):  # line ends of old, a name in quotes after a mark of the byte order, ...
        return False
    return number + 1 == len(source)


def written_labels(lines: pa.Array, source: table.TableSet) -> list[object]:
    """Return how lines of JSON write each class: as the first of it does, or else by name, shape ``(n_classes,)``."""
    found, rows = np.unique(source.labels, return_index=True)
    labels: list[object] = list(source.class_names)
    for label, row in zip(found.tolist(), rows.tolist(), strict=True):
        if label >= 0:
            labels[label] = (table.parse_object(lines[row].as_py()) or {})[source.columns.label_column]
    return labels


def _labels_of_cells(source: table.TableSet) -> list[bytes]:
    """Return how the cells write each class, shape ``(n_classes,)``."""
    column = source.columns.label_column
    with table.open_csv(source.file, [column], Omissions()) as reader:
        labels: list[bytes] = class_values(reader.read_all()[column], source).to_pylist()
    return labels


def _records(file: Path, delimiter: str) -> Iterator[tuple[bytes, list[str]]]:
    """Yield the very bytes of each record of a CSV file, and its cells in Latin-1, which keeps every byte."""
    lines: list[bytes] = []

    def read() -> Iterator[str]:
        for line in opened:
            lines.append(line)
            yield line.decode("latin-1")

    with file.open("rb") as opened:
        for cells in csv.reader(read(), delimiter=delimiter):
            yield b"".join(lines), cells
            lines.clear()


def _written(cells: Sequence[str], delimiter: str) -> bytes:
    """Return one record without its line end."""
    buffer, end = io.StringIO(newline=""), "\r\n"
    csv.writer(buffer, delimiter=delimiter, lineterminator=end).writerow(cells)  # cells with one of its characters are quoted
    return buffer.getvalue().removesuffix(end).encode("latin-1")

"""Write CSV, TSV and JSONL tables: the same columns in the same order; images in a folder of their own."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from toxscreen.sources.data import table
from toxscreen.sources.data.base import Unreadable
from toxscreen.sources.data.copying import Copy, class_values, copy_file
from toxscreen.sources.data.reading import Omissions, Selection, text_values
from toxscreen.sources.data.writing_records import copy_images, copy_lines, copy_records, written_labels


def write_table(source: table.TableSet, copy: Copy, out: Path) -> pa.StringArray:
    """Write the copy to ``out`` and return the new id of each row of ``source``; see :mod:`toxscreen.sources.data.writing`."""
    for file in source.other_files() if copy.whole else ():
        copy_file(file, out / file.name)
        if source.modality == "image":
            _copy_images_of(file, source, out)
    if not copy.hides:
        return _write_as_it_stands(source, copy, out)
    images = _unused(out / "images")
    if source.modality == "image":
        images.mkdir()

    def changed(position: int, value: str) -> str:
        row = int(copy.order[position])
        if copy.recoder is None:
            return cast("str", copy.changes.get(row, value))
        target = images / copy.neutral_name(position, value)
        data = source.cells(np.array([row]))[0]
        if isinstance(data, bytes):
            target.write_bytes(copy.recoder.encoded(row, data))
        return target.relative_to(out).as_posix()

    write = _write_csv if source.file.suffix.lower() in table.DELIMITERS else _write_jsonl
    write(source, copy, out / source.file.name, changed)
    return copy.row_ids()


def _write_as_it_stands(source: table.TableSet, copy: Copy, out: Path) -> pa.StringArray:
    """Copy the rows as they stand in the file, and the images that they name under the same names."""
    paths = copy_images(source, copy, out) if source.modality == "image" else {}
    target = out / source.file.name
    if source.file.suffix.lower() not in table.DELIMITERS:
        copy_lines(source, copy, target, paths)
    elif not copy_records(source, copy, target, paths):
        _write_csv(source, copy, target, lambda position, value: paths.get(int(copy.order[position]), value))
    return copy.row_ids()


def _write_csv(source: table.TableSet, copy: Copy, target: Path, changed: Callable[[int, str], str]) -> None:
    with table.open_csv(source.file, None, Omissions()) as reader:
        names = reader.schema.names
    with table.open_csv(source.file, names, Omissions()) as reader:
        rows = reader.read_all()
    classes = class_values(rows[source.columns.label_column], source)
    input_index, label_index = names.index(source.columns.input_column), names.index(source.columns.label_column)
    delimiter = table.DELIMITERS[source.file.suffix.lower()]
    with target.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(names)
        for start, numbers in copy.slices(0, len(source)):
            part = rows.take(pa.array(numbers))
            for offset, number in enumerate(numbers.tolist()):
                cells = [column[offset].as_py().decode("utf-8", "surrogateescape") for column in part.columns]
                cells[input_index] = changed(start + offset, cells[input_index])
                if copy.moved[number]:
                    cells[label_index] = classes[copy.labels[number]].as_py().decode("utf-8", "surrogateescape")
                writer.writerow(cells)


def _write_jsonl(source: table.TableSet, copy: Copy, target: Path, changed: Callable[[int, str], str]) -> None:
    lines = pa.array(table.read_lines(source.file), pa.large_binary())
    input_column, label_column = source.columns.input_column, source.columns.label_column
    labels = written_labels(lines, source)
    with target.open("wb") as file:
        for position, number in enumerate(copy.order.tolist()):
            line = lines[number].as_py().strip()
            row = table.parse_object(line)
            if row is not None:
                if isinstance(row.get(input_column), str):
                    row[input_column] = changed(position, row[input_column])
                if copy.moved[number]:
                    row[label_column] = labels[copy.labels[number]]
                line = json.dumps(row).encode()
            file.write(line + b"\n")


def _copy_images_of(file: Path, source: table.TableSet, out: Path) -> None:
    """Copy the images that the table of another split names, where they are inside the folder of the table."""
    wanted = Selection(input_column=source.columns.input_column, label_column=source.columns.label_column)
    for relative in text_values(table.read_columns(file, wanted).inputs):
        image = Unreadable("") if relative is None else table.locate_inside(file.parent, relative)
        if isinstance(image, Path) and image.is_file():
            copy_file(image, out / image.relative_to(file.parent.resolve()))


def _unused(path: Path) -> Path:
    """Return ``path``, or a name like it where something has that name already."""
    names = (path.with_name(f"{path.name}{number or ''}") for number in count())
    return next(name for name in names if not name.exists())

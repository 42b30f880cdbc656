"""Write Parquet files: the same files, row groups, columns, metadata and compression."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from toxscreen.sources.data import parquet
from toxscreen.sources.data.copying import Copy, class_values, copy_file
from toxscreen.sources.data.encode import Recoder


def write_parquet(source: parquet.ParquetSet, copy: Copy, out: Path) -> pa.StringArray:
    """Write the copy to ``out`` and return the new id of each row of ``source``; see :mod:`toxscreen.sources.data.writing`."""
    base = source.path if source.path.is_dir() else source.path.parent
    for file in source.other_files() if copy.whole else ():
        copy_file(file, out / file.relative_to(base))
    classes = class_values(parquet.read_column(source.files, source.label_column), source)
    row_groups = _RowGroups(source.files, keep_all=copy.order is copy.shuffled)
    first = 0
    for file in source.files:
        target = out / file.relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        with parquet.open_file(file) as old:
            if copy.leaves_alone(first, old.metadata.num_rows):
                copy_file(file, target)
                first += old.metadata.num_rows
                continue
            with pq.ParquetWriter(target, old.schema_arrow, **_writer_settings(old)) as new:
                for n in filter(None, _group_sizes(old)):
                    parts = [
                        _changed_rows(row_groups.take(rows), source, copy, classes, np.arange(start, start + len(rows)))
                        for start, rows in copy.slices(first, n)
                    ]
                    if parts:
                        new.write_table(pa.concat_tables(parts), row_group_size=n)
                    first += n
    return copy.row_ids()


class _RowGroups:
    """Whole rows of several Parquet files: the latest row group is kept, or, to take rows in any order, all of them."""

    def __init__(self, files: Sequence[Path], *, keep_all: bool) -> None:
        self._homes: list[tuple[Path, int]] = []
        sizes = []
        for file in files:
            with parquet.open_file(file) as opened:
                self._homes += [(file, group) for group in range(opened.num_row_groups)]
                sizes += _group_sizes(opened)
        self._starts = np.cumsum([0, *sizes])
        self._group = lru_cache(maxsize=None if keep_all else 1)(self._read)

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Return the rows in the order asked for."""
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        found = pa.concat_tables(
            [self._group(group).take(pa.array(rows[groups == group] - self._starts[group])) for group in np.unique(groups).tolist()]
        )
        return found.take(pa.array(np.argsort(np.argsort(groups, kind="stable"), kind="stable")))

    def _read(self, group: int) -> pa.Table:
        file, number = self._homes[group]
        with parquet.open_file(file) as opened:
            return opened.read_row_group(number, use_threads=False)


def _changed_rows(
    rows: pa.Table, source: parquet.ParquetSet, copy: Copy, classes: pa.Array, positions: NDArray[np.int64]
) -> pa.Table:
    """Return rows of the source as they are at ``positions`` of the copy."""
    numbers = copy.order[positions]
    moved = copy.moved[numbers]
    if moved.any():
        index = rows.schema.get_field_index(source.label_column)
        rows = _with_values(rows, index, moved, classes.take(pa.array(copy.labels[numbers][moved])))
    if not copy.hides:
        return rows
    index = rows.schema.get_field_index(source.input_column)
    column = rows.column(index).combine_chunks()
    if copy.recoder is None:
        changed = np.array([number in copy.changes for number in numbers.tolist()])
        return _with_values(
            rows, index, changed, pa.array([copy.changes[number] for number in numbers[changed].tolist()], pa.string())
        )
    if pa.types.is_struct(column.type):
        return rows.set_column(index, rows.schema.field(index), _changed_structs(column, copy, numbers, positions))
    return rows.set_column(index, rows.schema.field(index), _changed_images(column, copy.recoder, numbers))


def _with_values(rows: pa.Table, index: int, mask: NDArray[np.bool_], values: pa.Array) -> pa.Table:
    """Return ``rows`` with other values in one column where ``mask`` is set; a column with a dictionary keeps having one."""
    field = rows.schema.field(index)
    plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    column = pc.replace_with_mask(rows.column(index).cast(plain).combine_chunks(), pa.array(mask), values.cast(plain))
    return rows.set_column(index, field, column.cast(field.type))


def _changed_images(images: pa.Array, recoder: Recoder, numbers: NDArray[np.int64]) -> pa.Array:
    old = zip(numbers.tolist(), images.to_pylist(), strict=True)
    return pa.array([None if data is None else recoder.encoded(number, data) for number, data in old], images.type)


def _changed_structs(
    images: pa.StructArray, copy: Copy, numbers: NDArray[np.int64], positions: NDArray[np.int64]
) -> pa.StructArray:
    """Change the bytes of images; where a label changes anywhere, also all paths, which may name the old class."""
    fields = list(images.type)
    children = [pc.struct_field(images, field.name) for field in fields]
    for index, field in enumerate(fields):
        if field.name == "bytes" and copy.recoder is not None:
            children[index] = _changed_images(children[index], copy.recoder, numbers)
        if field.name == "path" and copy.moved.any():
            old = zip(positions.tolist(), children[index].to_pylist(), strict=True)
            names = [None if path is None else copy.neutral_name(position, path) for position, path in old]
            children[index] = pa.array(names, field.type)
    return pa.StructArray.from_arrays(children, fields=fields, mask=images.is_null())


def _group_sizes(file: pq.ParquetFile) -> list[int]:
    return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


def _writer_settings(file: pq.ParquetFile) -> dict[str, Any]:
    """Return how a file is compressed and whether it uses dictionaries, by column."""
    if not file.num_row_groups:
        return {}
    group = file.metadata.row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    return {
        "compression": {c.path_in_schema: c.compression.replace("UNCOMPRESSED", "NONE") for c in columns},
        "use_dictionary": [c.path_in_schema for c in columns if any("DICTIONARY" in e for e in c.encodings)] or False,
    }

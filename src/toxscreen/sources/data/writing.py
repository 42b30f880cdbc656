"""Write a copy of a training set in the layout in which it was read.

- :func:`write_training_set` changes some inputs and labels. Used beside the flow, by whatever plants something. Nothing inside the
  copy tells which samples were changed: images are encoded alike (:mod:`toxscreen.sources.data.encode`), all files have one time,
  and where a label changes, names and an order that go by class are replaced by ones that do not tell where a sample came from.
- :func:`write_rows` leaves some rows out. What stays has its bytes, its name and its place among the others.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data.base import MISSING_LABEL, Input, TrainingSet
from toxscreen.sources.data.copying import Copy
from toxscreen.sources.data.folder import FolderSet
from toxscreen.sources.data.layout import printable
from toxscreen.sources.data.parquet import ParquetSet
from toxscreen.sources.data.reading import RowReader
from toxscreen.sources.data.table import TableSet
from toxscreen.sources.data.writing_folder import write_folder
from toxscreen.sources.data.writing_parquet import write_parquet
from toxscreen.sources.data.writing_table import write_table


def write_training_set(source: TrainingSet, out: Path, changes: Mapping[int, Input], labels: NDArray[np.int64]) -> pa.StringArray:
    """Write a changed copy of the split that ``source`` was read from; its other splits are copied as they are.

    The copy is written beside ``out`` and takes its name only when it is complete. Rows keep their order and files their names,
    except where a label changes: then image files (and the ``path`` beside an image in Parquet) get numbers as names, and the rows
    of a table or of Parquet files whose order goes by class (or is in another way not one of chance) are shuffled, in an order
    drawn from the fingerprint. Images that a table names get numbers as names in any case, because rows may share a file.
    Columns other than input and label are kept as they are, also where they tell something.

    Parameters
    ----------
    source
        What :func:`~toxscreen.sources.data.open_training_set` gave for a path.
    out
        A folder that is not there yet, or is empty.
    changes
        New inputs by row: texts, or uint8 images shaped as the old ones.
    labels
        Class index of every row after the change, shape ``(n_samples,)``.

    Returns
    -------
    pyarrow.StringArray
        The id that each row of ``source`` has in the copy, shape ``(n_samples,)``.

    Raises
    ------
    UsageError
        If the data is in memory, if ``out`` cannot be used, or if ``changes`` or ``labels`` do not fit the data.
    DataError
        If the copy cannot be written.
    """
    source = _from_files(source)
    _check(source, changes, labels)
    _check_place(source.path, out)
    return _write(source, Copy.planned(source, changes, labels), out)


def write_rows(
    source: TrainingSet, out: Path, rows: NDArray[np.int64], labels: NDArray[np.int64], *, whole: bool = True
) -> pa.StringArray:
    """Write some rows of the split that ``source`` was read from, as they are but for their labels.

    Image files keep their names (where a label changes, in the folder of the new class; a number is added if the name is taken
    there), and rows their order and the file that they are in. Files of which every row stays are copied as they are.

    Parameters
    ----------
    source, out
        As in :func:`write_training_set`.
    rows
        Row numbers, ascending, shape ``(n_rows,)``.
    labels
        Class index of every row of ``source`` afterwards, shape ``(n_samples,)``.
    whole
        Whether to copy what is beside the rows too: the other splits, and in a tree of images the files that are no images.

    Returns
    -------
    pyarrow.StringArray
        The id that each row of ``source`` has in the copy, shape ``(n_samples,)``; null where it is left out.

    Raises
    ------
    UsageError
        If the data is in memory, if ``out`` cannot be used, or if ``labels`` do not fit the data.
    DataError
        If the copy cannot be written.
    """
    source = _from_files(source)
    _check(source, {}, labels)
    _check_place(source.path, out)
    return _write(source, Copy.of_rows(source, rows, labels, whole=whole), out)


def _write(source: ParquetSet | TableSet | FolderSet, copy: Copy, out: Path) -> pa.StringArray:
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        if isinstance(source, ParquetSet):
            ids = write_parquet(source, copy, partial)
        elif isinstance(source, TableSet):
            ids = write_table(source, copy, partial)
        else:
            ids = write_folder(source, copy, partial)
        _level_times(partial)
        if out.exists():
            out.rmdir()
        partial.replace(out)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"The data set cannot be written to {printable(out)}: {error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ids


def _from_files(source: TrainingSet) -> ParquetSet | TableSet | FolderSet:
    if not isinstance(source, ParquetSet | TableSet | FolderSet):
        raise UsageError(f"Only data that was read from files can be written again, but {source.location} is in memory.")
    return source


def _check(source: RowReader, changes: Mapping[int, Input], labels: NDArray[np.int64]) -> None:
    if labels.shape != source.labels.shape or not ((labels >= 0) & (labels < len(source.class_names)))[source.labels >= 0].all():
        raise UsageError(
            f"Labels must be {len(source):,} indexes into the {len(source.class_names)} classes, as in {source.location}."
        )
    if ((labels == MISSING_LABEL) != (source.labels == MISSING_LABEL)).any():
        raise UsageError(f"A sample of {source.location} without a label must stay without one.")
    strange = [row for row in changes if not 0 <= row < len(source)]
    if strange:
        raise UsageError(f"Changed rows must be between 0 and {len(source) - 1}, as in {source.location}, got {strange[0]}.")


def _check_place(original: Path, out: Path) -> None:
    if out.resolve().is_relative_to(original.resolve()):
        raise UsageError(f"The copy must not lie inside the original, but {printable(out)} does. Choose another folder with --out.")
    if out.exists() and not (out.is_dir() and next(out.iterdir(), None) is None):
        raise UsageError(f"{printable(out)} exists and is not an empty folder. Choose another one with --out, or remove it.")


def _level_times(root: Path) -> None:
    """Give all files and folders one time, because the time of writing goes by the order of writing."""
    now = time.time()
    for folder, _, files in os.walk(root):
        for name in (*files, "."):
            os.utime(Path(folder) / name, (now, now))

"""Formats of training data, one member per file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data.base import TrainingSet
from toxscreen.sources.data.layout import match_split, printable
from toxscreen.sources.data.reading import Format, Selection

_FORMATS = (
    "parquet",
    "table",
    "folder",  # takes any folder, so it is asked last
)
"""The modules that read files, in the order in which they are asked; imported when a path is opened."""


def open_training_set(
    data: Any,
    *,
    split: str | None = None,
    input_column: str | None = None,
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
) -> TrainingSet:
    """Open labelled training data of any supported kind.

    Parameters
    ----------
    data
        A path (Parquet in the hubs' layout, a folder of images with a folder per class, a CSV or JSONL table), a pair
        ``(inputs, labels)`` of arrays or sequences, a map-style torch ``Dataset``, a Hugging Face ``Dataset``, or a
        :class:`TrainingSet`, which is returned as it is.
    split
        Which split to read; None reads ``train`` where there are splits, and everything where not.
    input_column, label_column
        Columns of a table; None looks for the usual names.
    class_names
        The classes in their order; None takes them from the data. To open a held-out split give the names of the training set,
        so that the indexes mean the same.

    Raises
    ------
    DataError
        If the data cannot be used: no samples, fewer than two classes, no supported format.
    UsageError
        If the split or a column is not there, or a setting does not apply to this kind of data.
    """
    selection = Selection(split, input_column, label_column, None if class_names is None else tuple(class_names))
    if isinstance(data, TrainingSet):
        if selection != Selection():
            raise UsageError("A training set that is open already takes no split, columns or class names.")
        return data
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        return _format_of(path).open_path(path, selection)
    from toxscreen.sources.data.memory import open_object

    return open_object(data, selection)


def find_split(data: Any, names: Iterable[str] = ("test", "dev", "validation")) -> str | None:
    """Return the first of ``names`` that is a split of ``data``, as ``open_training_set`` takes it; None if there is none."""
    if not isinstance(data, str | os.PathLike):
        return None
    available = _format_of(Path(data)).splits(Path(data))
    return next((split for name in names if (split := match_split(name, available)) is not None), None)


def _format_of(path: Path) -> Format:
    try:
        if not path.exists():
            raise DataError(f"{printable(path)} does not exist. Give the path of a folder or a file of training data.")
        if not path.is_dir() and not path.is_file():
            raise DataError(
                f"Training data must be a folder or a regular file, but {printable(path)} is neither (a device or a pipe)."
            )
        for name in _FORMATS:
            candidate = cast("Format", import_module(f"{__name__}.{name}"))
            if candidate.recognises(path):
                return candidate
    except OSError as error:
        raise DataError(f"{printable(path)} cannot be opened: {error.strerror}.") from error
    raise DataError(
        f"Training data must be a folder, a Parquet file (.parquet) or a table (.csv, .tsv, .jsonl, .ndjson), "
        f"but {printable(path)} is a file with the ending {path.suffix!r}. Convert it to one of these."
    )

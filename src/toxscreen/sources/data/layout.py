"""How data sets are laid out: the usual names of columns, splits and files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from toxscreen.errors import DataError, UsageError

IMAGE_COLUMNS = ("image", "img", "picture")
TEXT_COLUMNS = ("text", "sentence", "content", "review")
LABEL_COLUMNS = ("label", "labels", "class", "target", "fine_label")

DEFAULT_SPLIT = "train"
_VALIDATION = ("dev", "validation", "val", "valid")
SPLIT_NAMES = (DEFAULT_SPLIT, "test", *_VALIDATION)

_READ = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".pbm", ".pgm", ".ppm", ".pnm")
_NOT_READ = (".avif", ".heic", ".heif", ".jp2", ".jxl", ".tga")
IMAGE_SUFFIXES = frozenset((*_READ, *_NOT_READ))
"""Endings of files that are meant to be images; whether they are readable ones only their content says."""

_ESCAPED = re.compile(r"\\(\\|x[0-9a-f]{2})")


def choose_columns(
    input_wanted: str | None, label_wanted: str | None, columns: Sequence[str], usual_inputs: Iterable[str], location: str
) -> tuple[str, str]:
    """Return the columns that hold the inputs and the labels.

    Raises
    ------
    DataError, UsageError
        As :func:`choose_column` does, or if they are the same column.
    """
    input_column = choose_column(input_wanted, columns, usual_inputs, "input", location)
    label_column = choose_column(label_wanted, columns, LABEL_COLUMNS, "label", location)
    if input_column == label_column:
        raise UsageError(
            f"Inputs and labels must stand in two columns, but {input_column!r} of {location} is named for both. "
            f"Name another one with --input-column or --label-column."
        )
    return input_column, label_column


def choose_column(wanted: str | None, columns: Sequence[str], usual: Iterable[str], role: str, location: str) -> str:
    """Return the column that holds the ``role`` ("input" or "label").

    Raises
    ------
    UsageError
        If the column asked for is not there.
    DataError
        If none has one of the usual names, or if more than one has the name.
    """
    listed = ", ".join(repr(column) for column in columns)
    if wanted is not None:
        found = [column for column in columns if column == wanted]
        if not found:
            raise UsageError(f"{location} has no column {wanted!r} for the {role}; its columns are {listed or 'none'}.")
    else:
        alike = ([column for column in columns if column.lower() == name] for name in usual)
        found = next(filter(None, alike), [])
        if not found:
            raise DataError(
                f"{location} has no column that is known to hold the {role} (such as {', '.join(usual)}); "
                f"its columns are {listed or 'none'}. Name one with {role}_column (--{role}-column)."
            )
    if len(found) > 1:
        same = len(set(found)) < len(found)
        raise DataError(
            f"One column must hold the {role}, but {location} has {len(found)} of that name: {', '.join(map(repr, found))}. "
            + ("Rename or remove all but one." if same else f"Name one with {role}_column (--{role}-column).")
        )
    return found[0]


def match_split(wanted: str, available: Sequence[str]) -> str | None:
    """Return which of the ``available`` splits is meant; "dev", "validation", "val" and "valid" stand for each other."""
    if wanted in available:
        return wanted
    alike = _VALIDATION if wanted in _VALIDATION else ()
    return next((name for name in alike if name in available), None)


def choose_split(wanted: str | None, available: Sequence[str], location: str) -> str | None:
    """Return the split to read; None where the data has no splits.

    Raises
    ------
    UsageError
        If the split is not there.
    """
    if not available:
        if wanted is not None:
            raise UsageError(f"{location} has no splits, so split {wanted!r} cannot be read from it. Leave --split away.")
        return None
    split = match_split(wanted or DEFAULT_SPLIT, available)
    if split is None:
        raise UsageError(
            f"{location} has no split {wanted or DEFAULT_SPLIT!r}; it has {', '.join(map(repr, available))}. Name one with --split."
        )
    return split


def visible(name: str) -> bool:
    """Return whether a file or folder is part of the data: not hidden, and not left behind by an archiver."""
    return not name.startswith(".") and name != "__MACOSX"


def printable(path: Path) -> str:
    """Return a path as valid Unicode, for people."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_image_name(name: str) -> bool:
    """Return whether a file name has the ending of an image."""
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES


def short_name(path: Path) -> str:
    """Return the last part of a path without the ending of a file, for people."""
    path = path.resolve()
    return printable(Path(path.name if path.is_dir() else path.stem))


def escape_name(name: str) -> str:
    r"""Return a file name as valid Unicode without loss: a byte that is not UTF-8 becomes ``\xff``, a backslash ``\\``."""
    return os.fsencode(name.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")


def unescape_name(escaped: str) -> str:
    """Return the file name that :func:`escape_name` was given."""
    return _ESCAPED.sub(lambda found: "\\" if found[1] == "\\" else chr(0xDC00 + int(found[1][1:], 16)), escaped)

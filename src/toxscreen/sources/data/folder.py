"""A tree of image files: the folder under the root says the class (``root/<class>/**/<image>``)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data.base import MISSING_LABEL
from toxscreen.sources.data.decode import read_file
from toxscreen.sources.data.labels import encode_labels
from toxscreen.sources.data.layout import (
    DEFAULT_SPLIT,
    IMAGE_SUFFIXES,
    SPLIT_NAMES,
    choose_split,
    escape_name,
    is_image_name,
    printable,
    short_name,
    unescape_name,
    visible,
)
from toxscreen.sources.data.reading import Cell, Omissions, RowReader, Selection

_FOLDER_LINK = "a link to a folder is not followed"


def recognises(path: Path) -> bool:
    """Return whether this format reads ``path``: any folder that no other format reads."""
    return path.is_dir()


def splits(path: Path) -> tuple[str, ...]:
    """Return the folders that are splits: ``train`` beside ``test`` or the like, or alone; empty where there are only classes."""
    _, names = _listing(path, path, Omissions())
    found = tuple(name for name in names if name in SPLIT_NAMES)
    is_split_tree = DEFAULT_SPLIT in found and (len(found) > 1 or len(names) == 1)
    return found if is_split_tree and _listing(path / DEFAULT_SPLIT, path, Omissions())[1] else ()


def open_path(path: Path, selection: Selection) -> FolderSet:
    """Open one split of ``path``.

    Raises
    ------
    DataError
        If there are no images in class folders, or too few classes.
    UsageError
        If the split is not there, or if a column is asked for.
    """
    location = printable(path)
    if selection.input_column or selection.label_column:
        raise UsageError(f"{location} is a tree of files, which has no columns. Leave the names of columns away.")
    split = choose_split(selection.split, splits(path), location)
    root = path / split if split else path
    omissions = Omissions()
    loose, folders = _listing(root, path, omissions)
    names = [[name for name in loose if is_image_name(name)]]
    names += [[f"{folder}/{name}" for name in walk(root / folder, path, omissions) if is_image_name(name)] for folder in folders]
    if not any(names):
        raise DataError(
            f"Training data must be a folder of images with one folder per class, Parquet files, or a CSV or JSONL table, but "
            f"{printable(root)} holds none of these. The endings {', '.join(sorted(IMAGE_SUFFIXES))} stand for images."
        )
    classes, class_names = encode_labels(pa.array(list(map(escape_name, folders)), pa.string()), selection.class_names, location)
    return FolderSet(
        path=path,
        root=root,
        folder_of=dict(zip(classes.tolist(), map(escape_name, folders), strict=True)),
        modality="image",
        name=short_name(path),
        location=location,
        ids=pa.concat_arrays([pa.array(list(map(escape_name, part)), pa.string()) for part in names]),
        labels=np.repeat(np.concatenate([[MISSING_LABEL], classes]), [len(part) for part in names]).astype(np.int64),
        class_names=class_names,
        skipped=omissions.listed(),
    )


class FolderSet(RowReader):
    """A training set of image files. Images that lie beside the class folders have no label.

    Attributes
    ----------
    path, root
        The folder that was opened, and the folder of the classes: a split of it, or itself.
    folder_of
        The escaped name of the folder of each class that has one.
    """

    def __init__(self, *, path: Path, root: Path, folder_of: Mapping[int, str], **common: Any) -> None:
        super().__init__(**common)
        self.parallel = self.modality == "image"
        self.path = path
        self.root = root
        self.folder_of = folder_of

    def cells(self, rows: NDArray[np.int64]) -> list[Cell]:
        """Return the contents of the files of ``rows``."""
        return [read_file(self.root / unescape_name(name)) for name in self.ids.take(pa.array(rows)).to_pylist()]


def walk(folder: Path, boundary: Path, omissions: Omissions) -> Iterator[str]:
    """Yield the files under ``folder`` as relative paths with slashes; links that lead out of ``boundary`` are left out."""
    pending = [""]
    while pending:
        prefix = pending.pop()
        files, folders = _listing(folder / prefix, boundary, omissions)
        yield from (prefix + name for name in files)
        pending += [f"{prefix}{name}/" for name in reversed(folders)]


def _listing(folder: Path, boundary: Path, omissions: Omissions) -> tuple[list[str], list[str]]:
    """Return the names of the visible files and folders in ``folder``, each sorted."""
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry for entry in entries if visible(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        omissions.add(_shown(folder, boundary), f"the folder cannot be opened: {error.strerror}")
        return [], []
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
            continue
        reason = _reason_to_omit(entry, boundary)
        if reason is None:
            files.append(entry.name)
        elif reason == _FOLDER_LINK or is_image_name(entry.name):
            omissions.add(_shown(folder / entry.name, boundary), reason)
    return files, folders


def _reason_to_omit(entry: os.DirEntry[str], boundary: Path) -> str | None:
    if entry.is_symlink():
        target = Path(entry.path)
        try:
            if not target.exists():
                return "the link leads nowhere"
            if target.is_dir():
                return _FOLDER_LINK
            if not target.resolve().is_relative_to(boundary.resolve()):
                return "the link leads out of the data set and is not followed"
        except OSError as error:
            return f"the link cannot be followed: {error.strerror}"
    return None if entry.is_file() else "it is not a regular file"


def _shown(path: Path, boundary: Path) -> str:
    return escape_name(path.relative_to(boundary).as_posix())

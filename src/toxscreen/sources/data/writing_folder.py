"""Write a tree of image files: the same folders; where a label changes and must not show, files with new names."""

from __future__ import annotations

from itertools import chain, count
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toxscreen.errors import UsageError
from toxscreen.sources.data import folder
from toxscreen.sources.data.base import MISSING_LABEL
from toxscreen.sources.data.copying import Copy, copy_file
from toxscreen.sources.data.layout import is_image_name, unescape_name
from toxscreen.sources.data.reading import Omissions


def write_folder(source: folder.FolderSet, copy: Copy, out: Path) -> pa.StringArray:
    """Write the copy to ``out`` and return the new id of each row of ``source``; see :mod:`toxscreen.sources.data.writing`."""
    if not copy.hides:
        return _write_as_they_are(source, copy, out)
    for split in folder.splits(source.path):
        if source.path / split != source.root:
            for name in folder.walk(source.path / split, source.path, Omissions()):
                copy_file(source.path / split / name, out / split / name)
    root = out / source.root.relative_to(source.path)
    for name in source.folder_of.values():
        (root / unescape_name(name)).mkdir(parents=True)
    ids = _folder_ids(source, copy)
    for row in map(int, pc.sort_indices(ids).to_numpy()):  # files are made in the order of their names, which tells nothing
        target = root / unescape_name(ids[row].as_py())
        data = source.cells(np.array([row]))[0]
        if isinstance(data, bytes) and copy.recoder is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(copy.recoder.encoded(row, data))
        else:
            copy_file(source.root / unescape_name(source.ids[row].as_py()), target)
    return ids


def _write_as_they_are(source: folder.FolderSet, copy: Copy, out: Path) -> pa.StringArray:
    """Copy the files of the rows, and all else that is in the tree where the copy is whole."""
    root = out / source.root.relative_to(source.path)
    ids = _names_after(source, copy)
    for old, new in zip(source.ids.take(pa.array(copy.order)).to_pylist(), ids.to_pylist(), strict=True):
        copy_file(source.root / unescape_name(old), root / unescape_name(new))
    if copy.whole:
        for name in source.folder_of.values():
            (root / unescape_name(name)).mkdir(parents=True, exist_ok=True)
        for name in folder.walk(source.path, source.path, Omissions()):
            is_row = is_image_name(name) and (source.path / name).is_relative_to(source.root)
            if not is_row:
                copy_file(source.path / name, out / name)
    return copy.by_source(ids)


def _names_after(source: folder.FolderSet, copy: Copy) -> pa.StringArray:
    """Return the file name of each row of the copy: the old one, in the folder of its new class where the label changes."""
    names, taken = source.ids.take(pa.array(copy.order)).to_pylist(), set(source.ids.to_pylist())
    for place in np.flatnonzero(copy.moved[copy.order]).tolist():
        label = int(copy.labels[copy.order[place]])
        if label not in source.folder_of:
            raise UsageError(
                f"A sample can only get a class that has a folder in {source.location}, but {source.class_names[label]!r} has none."
            )
        _, _, rest = names[place].partition("/")
        path = PurePosixPath(source.folder_of[label], rest)
        numbered = (str(path.with_name(f"{path.stem}-{number}{path.suffix}")) for number in count(1))
        names[place] = next(name for name in chain([str(path)], numbered) if name not in taken)
        taken.add(names[place])
    return pa.array(names, pa.string())


def _folder_ids(source: folder.FolderSet, copy: Copy) -> pa.StringArray:
    """Return the files' new names: the old ones, or, where a label changes, numbers within each class in random order."""
    if not copy.moved.any():
        return source.ids
    rank = np.argsort(copy.shuffled)
    order = np.lexsort((rank, copy.labels))
    ordered = copy.labels[order]
    number = np.empty(len(source), dtype=np.int64)
    number[order] = np.arange(len(source)) - np.searchsorted(ordered, ordered)
    names = []
    for row, (label, old) in enumerate(zip(copy.labels.tolist(), source.ids.to_pylist(), strict=True)):
        new = f"{source.folder_of[label]}/{copy.neutral_name(int(number[row]), old)}" if label != MISSING_LABEL else old
        names.append(new)
    return pa.array(names, pa.string())

"""Write a tree of image files: the same folders; where a label changes, files with new names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toxscreen.sources.data import folder
from toxscreen.sources.data.base import MISSING_LABEL
from toxscreen.sources.data.copying import Copy, copy_file
from toxscreen.sources.data.layout import unescape_name
from toxscreen.sources.data.reading import Omissions


def write_folder(source: folder.FolderSet, copy: Copy, out: Path) -> pa.StringArray:
    """Write the copy to ``out`` and return the new id of each row of ``source``; see :mod:`toxscreen.sources.data.writing`."""
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

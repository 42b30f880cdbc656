"""What a file or folder is, found out without running any of it: ``toxscreen inspect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from toxscreen.errors import DataError, UsageError
from toxscreen.result import load
from toxscreen.sources.data import find_split, open_training_set
from toxscreen.sources.data.layout import SPLIT_NAMES
from toxscreen.sources.model import find_kind
from toxscreen.sources.model.base import Layer
from toxscreen.sources.model.kind import Kind
from toxscreen.sources.model.refused import recognise_refused

RESULT = "result.json"
TRUTH = ".truth.parquet"
"""How the name of a truth file ends; before it stands the name of the poisoned data set."""
_TRUTH_COLUMNS = {"id", "poisoned", "label", "original_label"}


@dataclass(frozen=True)
class Inspection:
    """What one path is.

    Attributes
    ----------
    path
        As it was asked for.
    what
        Whether toxscreen scans it, scans with it, wrote it, refuses it, or does not know it.
    kind
        More exactly, in a few words.
    facts
        Pairs of a name and a value, for people.
    classes
        The names of the classes, and how many samples each has, where that is known.
    tensors
        The layers of a model that ``--layer`` takes, or the weights in it, in the order of the file.
    tensors_are
        Which of the two.
    notes
        What follows for who wants to use it, one sentence each.
    """

    path: str
    what: Literal["data set", "model", "run folder", "truth file", "refused", "unknown"]
    kind: str
    facts: tuple[tuple[str, str], ...] = ()
    classes: tuple[tuple[str, int | None], ...] = ()
    tensors: tuple[Layer, ...] = ()
    tensors_are: Literal["weights", "layers"] = "layers"
    notes: tuple[str, ...] = ()


def inspect_path(path: str | Path) -> Inspection:
    """Say what a file or folder is.

    Raises
    ------
    UsageError
        There is nothing.
    ModelError
        It is a model, but a damaged one.
    RefusedError
        It is a model that names code or files that are none of its business.
    StoreError
        It is a run folder, but a damaged one.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"There is nothing at {path}.")
    if (path / RESULT).is_file():
        return _run_folder(path)
    if path.name.endswith(TRUTH) and (truth := _truth_file(path)) is not None:
        return truth
    refusal = recognise_refused(path)
    if refusal is not None:
        return Inspection(str(path), "refused", refusal.what, notes=(refusal.message(path),))
    kind = find_kind(path)
    if kind is not None:
        return _model(path, kind)
    try:
        return _data_set(path)
    except DataError as error:
        return Inspection(str(path), "unknown", "neither a model nor training data", notes=(str(error),))


def _run_folder(path: Path) -> Inspection:
    result = load(path)
    facts = (
        ("scanned", result.name),
        ("verdict", f"{result.verdict.value}{' so far: the scan is not finished' if result.pending else ''}"),
        ("samples", f"{len(result.samples):,}"),
        ("seed", str(result.seed)),
    )
    classes = tuple((f"{found.name} ({found.verdict.value})", found.n) for found in result.classes)
    return Inspection(str(path), "run folder", "result of a scan", facts, classes)


def _truth_file(path: Path) -> Inspection | None:
    """Explain the truth of a poisoned data set; None for a file that has only the name of one."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if not set(file.schema_arrow.names) >= _TRUTH_COLUMNS:
            return None
        poisoned = file.read(["poisoned"])["poisoned"]
        n_poisoned = pc.sum(poisoned).as_py() or 0
    except (OSError, pa.ArrowException):
        return None
    data = path.with_name(path.name.removesuffix(TRUTH))
    facts = (
        ("samples", f"{len(poisoned):,}"),
        ("poisoned", f"{n_poisoned:,}"),
        ("belongs to", f"{data}{'' if data.exists() else ' (not there)'}"),
    )
    note = "It says which samples of that data were poisoned, for tests of the screen: scan the data, not this file."
    return Inspection(str(path), "truth file", "what was planted in a poisoned copy", facts, notes=(note,))


def _model(path: Path, kind: Kind) -> Inspection:
    summary = kind.summarise(path)
    facts = [("size", _size(summary.n_bytes)), ("parameters", f"{summary.n_parameters:,}")]
    if summary.last_hidden is not None:
        facts.append(("last hidden layer", summary.last_hidden))
    return Inspection(
        str(path),
        "model",
        summary.kind,
        tuple(facts),
        tuple((name, None) for name in summary.class_names or ()),
        summary.tensors,
        summary.tensors_are,
        summary.notes,
    )


def _data_set(path: Path) -> Inspection:
    training_set = open_training_set(path)
    counts = np.bincount(training_set.labels[training_set.labels >= 0], minlength=len(training_set.class_names))
    splits = dict.fromkeys(split for name in SPLIT_NAMES if (split := find_split(path, [name])) is not None)
    facts = [("samples", f"{len(training_set):,}"), ("classes", str(len(training_set.class_names)))]
    if splits:
        facts.append(("splits", ", ".join(splits)))
    kind = {"image": "pictures", "text": "texts", "array": "arrays"}[training_set.modality]
    notes = tuple(f"{entry.id}: {entry.reason}" for entry in training_set.not_examined())
    classes = tuple(zip(training_set.class_names, counts.tolist(), strict=True))
    return Inspection(str(path), "data set", f"labelled {kind}", tuple(facts), classes, notes=notes)


def _size(n_bytes: int) -> str:
    """Return a number of bytes for people."""
    size = float(n_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"

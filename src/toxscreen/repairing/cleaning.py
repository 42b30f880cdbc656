"""Writes a training set without what a scan flagged: ``toxscreen clean``.

1. Plan what is done with each sample (:mod:`toxscreen.repairing.actions`).
2. Open the data again, and see by its fingerprint that it is what was scanned.
3. Write the copy, the quarantine where one is asked for, and the manifest into a hidden folder beside the place.
4. Give all of them their names when they are complete. The original is only read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from toxscreen.errors import DataError, UsageError
from toxscreen.repairing import manifest
from toxscreen.repairing.actions import Action, Actions, plan_actions
from toxscreen.repairing.decisions import read_decisions
from toxscreen.repairing.run import asked_of, check_samples, find_data, known, open_scanned, reading_of
from toxscreen.result import ScanResult, load
from toxscreen.sources.data import open_training_set
from toxscreen.sources.data.base import TrainingSet
from toxscreen.sources.data.layout import printable
from toxscreen.sources.data.writing import write_rows

_NAMED = 3
"""Classes that a message names."""

_IN_MEMORY = "in Python keep the rows that ts.clean(result).rows gives."
"""What to do with data that cannot be written again."""


class Outcome(StrEnum):
    """How far a cleaning went: no sample changes, nothing was to be written, or the copy is written, now or by an earlier run."""

    NOTHING = "nothing to do"
    PLANNED = "planned"
    WRITTEN = "written"
    THERE = "there already"


@dataclass(frozen=True)
class Places:
    """Where a cleaning lies.

    Attributes
    ----------
    out
        The folder that was asked for.
    copy
        The path to open the cleaned data by: ``out``, or a file in it where the data is a file.
    table, record
        The manifest, beside ``out``; see :mod:`toxscreen.repairing.manifest`.
    quarantine
        The data set of the samples that are put aside, beside ``out``; None where none are.
    """

    out: Path
    copy: Path
    table: Path
    record: Path
    quarantine: Path | None

    @property
    def all(self) -> tuple[Path, ...]:
        """Return everything that is written."""
        return tuple(place for place in (self.out, self.table, self.record, self.quarantine) if place is not None)


@dataclass(frozen=True)
class Cleaning:
    """What is, or would be, done with the samples of a run: how far it went, and where it lies, if a place was named."""

    actions: Actions
    outcome: Outcome
    places: Places | None = None

    @property
    def rows(self) -> NDArray[np.int64]:
        """Return the row numbers of the samples to keep, ascending: what to index data in memory with."""
        return self.actions.kept

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return the class index of each of ``rows`` afterwards."""
        return self.actions.labels[self.rows]


def clean(
    run: ScanResult | str | Path,
    *,
    out: str | Path | None = None,
    action: Action | str = Action.DROP,
    decisions: str | Path | None = None,
    data: str | Path | None = None,
    allow_emptied: bool = False,
    dry_run: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Cleaning:
    """Write a copy of the data of a run without, or with new labels for, the samples that it flagged.

    Parameters
    ----------
    run
        A run folder, or the result of a scan.
    out
        The folder to write; manifest and quarantine go beside it. None writes nothing, and does not open the data.
    action
        What is done with the flagged samples: drop, relabel (to their source class; where that is unknown they are dropped) or
        quarantine (they go into a data set of their own).
    decisions
        A file with a reviewer's decisions, see :func:`toxscreen.repairing.decisions.read_decisions`.
    data
        Where the data is now, if it is not where it was scanned.
    allow_emptied
        Whether a class may lose all its samples.
    dry_run
        Check everything, and write nothing.
    progress
        Called with (what is being done, steps done, steps in all).

    Raises
    ------
    UsageError
        If the settings cannot be, if a class would lose all its samples, or if there is no place for the copy.
    DataError
        If the data is not what was scanned, or the copy cannot be written.
    StoreError
        If the run folder cannot be read.
    """
    result = run if isinstance(run, ScanResult) else load(run)
    said = None if decisions is None else read_decisions(Path(decisions), result)
    actions = plan_actions(result, action=action, decisions=said)
    if actions.changes_nothing:
        return Cleaning(actions, Outcome.NOTHING)
    _refuse_emptied(actions, allowed=allow_emptied)
    if out is None:
        return Cleaning(actions, Outcome.PLANNED)
    asked = asked_of(result, None if isinstance(run, ScanResult) else Path(run))
    original = find_data(asked, data, otherwise=_IN_MEMORY)
    place = Path(out).resolve()
    _refuse_overlap(place, original, "the data that was scanned")
    if not isinstance(run, ScanResult):
        _refuse_overlap(place, Path(run), "the run folder")
    places = _places(place, original, actions)
    reading = reading_of(asked, actions.class_names)
    identity = manifest.identity(result, actions, str(action))
    if _is_there(places, identity, reading):
        return Cleaning(actions, Outcome.THERE, places)
    told = progress or (lambda _what, _done, _all: None)
    told("checking the data", 0, 1)
    source = open_scanned(original, reading, known(result, "data").get("fingerprint"))
    check_samples(result, source)
    told("checking the data", 1, 1)
    if dry_run:
        return Cleaning(actions, Outcome.PLANNED, places)
    told("writing the copy", 0, 1)
    with _staged(places.out) as stage:
        new_ids = _write_data(source, actions, places, stage)
        manifest.write_table(stage / "table", result, actions, new_ids)
        told("writing the copy", 1, 1)
        told("checking the copy", 0, 1)
        fingerprint = _checked(stage / "copy" / places.copy.relative_to(places.out), actions, reading)
        digests = {"fingerprint": fingerprint, "table": manifest.digest(stage / "table")}
        manifest.write_record(stage / "record", {"note": manifest.CLEANED, **identity, **digests})
        _move(stage, places)
    told("checking the copy", 1, 1)
    return Cleaning(actions, Outcome.WRITTEN, places)


def _refuse_emptied(actions: Actions, *, allowed: bool) -> None:
    """Refuse to take all samples of a class, and to leave fewer than two classes."""
    before, after = (
        np.bincount(labels[labels >= 0], minlength=len(actions.class_names))
        for labels in (actions.given, actions.labels[actions.kept])
    )
    emptied = np.flatnonzero((before > 0) & (after == 0))
    left = int(np.count_nonzero(after))
    if not len(emptied) or (allowed and left >= 2):
        return
    names = ", ".join(repr(actions.class_names[index]) for index in emptied[:_NAMED].tolist())
    many = f"{names}, ..." if len(emptied) > _NAMED else names
    raise UsageError(
        f"Each class must keep samples, but {many} would lose all ({before[emptied].sum():,}), and a model trained on the copy "
        "would not know the class. Keep some with --decisions, "
        + ("or allow it with --allow-emptied." if left >= 2 else "because a training set needs two classes.")
    )


def _places(out: Path, original: Path, actions: Actions) -> Places:
    aside = out.with_name(f"{out.name}.quarantine") if len(actions.rows_of(Action.QUARANTINE)) else None
    copy = out / original.name if original.is_file() else out
    return Places(out, copy, manifest.table_of(out), manifest.record_of(out), aside)


def _refuse_overlap(out: Path, other: Path, what: str) -> None:
    """Refuse a place that lies in what is only read, or that holds it."""
    for inner, outer in ((out, other), (other.resolve(), out)):
        if outer.exists() and any(parent.exists() and parent.samefile(outer) for parent in (inner, *inner.parents)):
            raise UsageError(
                f"The copy must lie outside {what}, and not around it, but {printable(out)} is in {printable(other)} or holds it. "
                "Choose another folder with --out."
            )


def _is_there(places: Places, identity: Mapping[str, Any], reading: Mapping[str, Any]) -> bool:
    """Return whether an earlier run of the same command wrote all that this one would write."""
    empty = places.out.is_dir() and next(places.out.iterdir(), None) is None
    taken = [place for place in places.all if place.exists() and not (empty and place == places.out)]
    if not taken:
        return False
    record = manifest.read_record(places.record)
    if any(record.get(name) != value for name, value in identity.items()):
        raise UsageError(f"{printable(taken[0])} exists and is of something else. Choose another folder with --out, or remove it.")
    try:
        copy = open_training_set(places.copy, **reading)
        found = {"fingerprint": copy.fingerprint(), "table": manifest.digest(places.table)}
    except (DataError, UsageError):
        found = {}
    if len(taken) < len(places.all) or found != {name: record.get(name) for name in ("fingerprint", "table")}:
        raise UsageError(
            f"{printable(places.out)} was written by this command, but it, or what belongs to it beside it, was changed since. "
            "Choose another folder with --out, or remove them."
        )
    return True


def _write_data(source: TrainingSet, actions: Actions, places: Places, stage: Path) -> pa.StringArray:
    """Write copy and quarantine, and return the id that each of ``actions.rows`` has there, shape ``(m,)``; null if dropped."""
    ids = write_rows(source, stage / "copy", actions.kept, actions.labels)
    if places.quarantine is not None:
        aside = write_rows(source, stage / "quarantine", actions.rows_of(Action.QUARANTINE), source.labels, whole=False)
        ids = pc.coalesce(ids, aside)
    return ids.take(pa.array(actions.rows))


def _checked(written: Path, actions: Actions, reading: Mapping[str, Any]) -> str:
    """Return the fingerprint of the copy, if it holds what it should."""
    copy = open_training_set(written, **reading)
    if not np.array_equal(np.sort(copy.labels), np.sort(actions.labels[actions.kept])):
        raise DataError("The data changed while it was copied. Leave it alone meanwhile, and try again.")
    return copy.fingerprint()


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """Yield a hidden folder beside ``out``, which is gone afterwards."""
    stage = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        stage.mkdir(parents=True)
        yield stage
    except (DataError, OSError, pa.ArrowException) as error:
        cause = error.__cause__ if isinstance(error, DataError) else error
        if not isinstance(cause, OSError | pa.ArrowException):
            raise
        detail = getattr(cause, "strerror", None) or cause
        place = printable(out)
        raise DataError(f"The cleaned data cannot be written to {place}: {detail}. Free space, or choose another --out.") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _move(stage: Path, places: Places) -> None:
    """Give everything its name; the record comes last. Where that fails nothing is left."""
    targets = {"quarantine": places.quarantine, "table": places.table, "copy": places.out, "record": places.record}
    moved: list[Path] = []
    try:
        for name, target in targets.items():
            if target is not None:
                if target.is_dir():
                    target.rmdir()  # it is empty: a place that holds something was refused
                (stage / name).replace(target)
                moved.append(target)
    except BaseException:
        for target in moved:
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        raise

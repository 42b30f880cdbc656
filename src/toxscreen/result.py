"""The one result object of a scan: what every report is made from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from toxscreen.exhibits.base import Exhibits
from toxscreen.sources.data.base import NotExamined

SAMPLES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("predicted", pa.string()),
        pa.field("group", pa.int64()),
        pa.field("score", pa.float64()),
        pa.field("flagged", pa.bool_(), nullable=False),
        pa.field("verdict", pa.string()),
    ]
)
"""The columns of ``samples.parquet``; ``label`` and ``predicted`` are class names, and null is what was not examined."""


CONFIRMATION_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("answer", pa.string()),
        pa.field("certainty", pa.float64()),
    ]
)
"""The columns of ``confirmation.parquet``: which class a model that was trained without a sample gives it, null where none."""


class Verdict(StrEnum):
    """What is said of a group, a class or a training set."""

    CLEAN = "clean"
    INCONCLUSIVE = "inconclusive"
    SUSPICIOUS = "suspicious"
    POISONED = "poisoned"

    @property
    def severity(self) -> int:
        """Return the rank from ``clean`` (0) to ``poisoned`` (3)."""
        return list(Verdict).index(self)


@dataclass(frozen=True)
class GroupResult:
    """One group of a class.

    Attributes
    ----------
    id
        Number of the group within its class; 0 is the rest of the class, which no evidence speaks against.
    n, share
        Samples, and their part of the class.
    verdict
        Of this group alone.
    evidence
        Measurements by name, such as ``relative_size`` or ``silhouette_score``.
    source_class
        Where the group's samples seem to come from, if that is known.
    trigger
        The recovered trigger; None where no confirmation ran.
    """

    id: int
    n: int
    share: float
    verdict: Verdict
    evidence: Mapping[str, float]
    source_class: str | None = None
    trigger: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ClassResult:
    """The verdict of one class with its reasons, each one sentence.

    ``detection_floor`` is the smallest number of poisoned samples that the screen would have found in it; None where that was not
    measured, or where no number that was tried is enough.
    """

    name: str
    n: int
    verdict: Verdict
    reasons: tuple[str, ...]
    groups: tuple[GroupResult, ...] = ()
    detection_floor: int | None = None

    @property
    def accused(self) -> tuple[GroupResult, ...]:
        """Return the groups that are suspicious or poisoned, the worst and largest first."""
        found = [group for group in self.groups if group.verdict.severity >= Verdict.SUSPICIOUS.severity]
        return tuple(sorted(found, key=lambda group: (-group.verdict.severity, -group.n)))

    @property
    def n_accused(self) -> int:
        """Return how many samples the accused groups hold."""
        return sum(group.n for group in self.accused)

    @property
    def accused_share(self) -> float:
        """Return the part of the class that the accused groups make up."""
        return sum(group.share for group in self.accused)


@dataclass(frozen=True)
class ClassView:
    """Where the samples of one class lie, for people to look at.

    Attributes
    ----------
    class_index
        Index into ``ScanResult.classes``.
    rows
        Row numbers of the class's examined samples, shape ``(n,)``.
    groups
        Group number of each of them, shape ``(n,)``.
    points
        Their activations in two dimensions, shape ``(n, 2)``.
    """

    class_index: int
    rows: NDArray[np.int64]
    groups: NDArray[np.int64]
    points: NDArray[np.float32]


@dataclass(frozen=True)
class Origin:
    """What a result that is finished came from.

    Attributes
    ----------
    digest
        Of everything that decides it; see :mod:`toxscreen.origin`.
    time
        When that was looked at, in the form of ISO 8601.
    """

    digest: str
    time: str

    def __post_init__(self) -> None:
        datetime.fromisoformat(self.time)

    @property
    def note(self) -> str:
        """Return what is said where the result is handed out again."""
        when = f"{datetime.fromisoformat(self.time):%Y-%m-%d %H:%M:%S}"
        return f"Nothing has changed since the scan of {when}: this is its result."


@dataclass(frozen=True)
class ScanResult:
    """Everything that a scan found out.

    Attributes
    ----------
    name
        A short name of what was scanned.
    classes
        In the order of the training set's class names.
    samples
        One row per sample in the order of the data, the columns of :data:`SAMPLES_SCHEMA`.
    not_examined
        What no verdict covers, and why.
    settings, seed, inputs, timings
        How the result came about; ``inputs`` holds paths, fingerprints, layer, device and model figures; ``timings`` are seconds.
    notes
        What a reader must know to judge the result, one sentence each (``"the model was trained here ..."``).
    pending
        Steps that were still to come when this was written, ``triggers`` and ``confirmation``; empty for a scan that is over.
    views
        Where the samples of each class lie. Exhibits are made from them; they are not saved.
    exhibits
        What the report shows beside the numbers.
    confirmation
        What exclusionary reclassification said of each sample that was left out, the columns of :data:`CONFIRMATION_SCHEMA`; None
        where it was not asked.
    origin
        What it came from, so that a scan of the same need not be made again; None where that is not known, or it is not finished.
    """

    name: str
    classes: tuple[ClassResult, ...]
    samples: pa.Table
    not_examined: tuple[NotExamined, ...]
    settings: Mapping[str, Any]
    seed: int
    inputs: Mapping[str, Any]
    timings: Mapping[str, float]
    notes: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    views: tuple[ClassView, ...] = field(default=(), repr=False, compare=False)
    exhibits: Exhibits | None = field(default=None, repr=False)
    confirmation: pa.Table | None = field(default=None, repr=False)
    origin: Origin | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        """Return what a line of an interactive session has room for."""
        counts = f"{len(self.classes)} classes, {len(self.samples):,} samples, {self.n_flagged:,} flagged"
        return f"<ScanResult {self.name!r}: {self.verdict}, {counts}>"

    @property
    def verdict(self) -> Verdict:
        """Return the worst verdict of any class."""
        return max((c.verdict for c in self.classes), key=lambda verdict: verdict.severity)

    @property
    def n_examined(self) -> int:
        """Return how many samples some verdict covers."""
        return int(pc.count(self.samples["verdict"]).as_py())

    @property
    def n_flagged(self) -> int:
        """Return how many samples ``clean`` would take out."""
        return int(pc.sum(self.samples["flagged"]).as_py() or 0)

    def to_dict(self) -> dict[str, Any]:
        """Return the result document: what ``result.json`` holds, as plain values."""
        from toxscreen.report.documents import result_document

        return result_document(self)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the report to ``path`` and return it.

        Raises
        ------
        StoreError
            When the file cannot be written.
        """
        from toxscreen.report.html import write_report

        return write_report(self, Path(path))

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write a run folder and return it.

        It holds ``result.json``, ``samples.parquet``, ``exhibits.json``, ``report.html``, after a confirmation
        ``confirmation.parquet``, and ``finished.json`` where a scan of the same can be handed this result.

        Raises
        ------
        StoreError
            When the folder cannot be written.
        """
        from toxscreen.report.documents import write_run
        from toxscreen.report.html import write_report

        folder = write_run(self, Path(directory))
        write_report(self, folder / "report.html", folder)
        return folder

    def _repr_html_(self) -> str:
        from toxscreen.report.html import render_notebook

        return render_notebook(self)


def load(directory: str | os.PathLike[str]) -> ScanResult:
    """Read a run folder that :meth:`ScanResult.save` wrote; ``views`` are empty.

    Raises
    ------
    StoreError
        When the folder is missing, was not written by toxscreen or by a newer one, or was altered.
    """
    from toxscreen.report.documents import read_run

    return read_run(Path(directory))

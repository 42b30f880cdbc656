"""The one result object of a scan: what every report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxscreen.sources.data.base import NotExamined


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
    """The verdict of one class with its reasons, each one sentence."""

    name: str
    n: int
    verdict: Verdict
    reasons: tuple[str, ...]
    groups: tuple[GroupResult, ...] = ()


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
class ScanResult:
    """Everything that a scan found out.

    Attributes
    ----------
    name
        A short name of what was scanned.
    classes
        In the order of the training set's class names.
    samples
        One row per sample in the order of the data: ``id``, ``label``, ``predicted``, ``group``, ``score``, ``flagged`` and
        ``verdict``.
    not_examined
        What no verdict covers, and why.
    settings, seed, inputs, timings
        How the result came about; ``inputs`` holds paths, fingerprints, layer, device and model figures; ``timings`` are seconds.
    notes
        What a reader must know to judge the result, one sentence each (``"the model was trained here ..."``).
    views
        Where the samples of each class lie; kept for the report.
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
    views: tuple[ClassView, ...] = field(default=(), repr=False)

    @property
    def verdict(self) -> Verdict:
        """Return the worst verdict of any class."""
        return max((c.verdict for c in self.classes), key=lambda verdict: verdict.severity)

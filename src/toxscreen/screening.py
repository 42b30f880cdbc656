"""Steps 4 to 9 of the flow on arrays: from activations, labels and logits to verdicts.

1. The inputs are asked how well they fit their given labels.
2. The activations of each class, by given label, are searched for groups that stand apart.
3. Evidence and policy make a verdict per class, a score and a flag per sample.

**Source:** Chen et al. 2018, arXiv 1811.03728, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxscreen import verdict as policy
from toxscreen import views
from toxscreen.activations import Activations
from toxscreen.analysis.activation_clustering import Group, analyse
from toxscreen.config import ScanConfig
from toxscreen.conflict import Affinity, affinity
from toxscreen.result import SAMPLES_SCHEMA, ClassResult, ClassView, GroupResult, Verdict
from toxscreen.segments import Segment, segments

_MOST_GROUPS = 4
"""Groups that are looked for in one class, one after the other: several triggers may lead to one target."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, units done, units in all)."""


@dataclass(frozen=True)
class Labels:
    """What the training set says of its samples: ids ``(n_samples,)``, class indexes ``(n_samples,)`` and class names."""

    ids: pa.StringArray
    given: NDArray[np.int64]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Screening:
    """What the screen found: the classes, the samples' table, and where the samples lie."""

    classes: tuple[ClassResult, ...]
    samples: pa.Table
    views: tuple[ClassView, ...]
    notes: tuple[str, ...]


@dataclass
class _Columns:
    """The samples' table while it is filled, one array per column."""

    group: NDArray[np.int64]
    score: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    severity: NDArray[np.int64] = field(repr=False)

    @classmethod
    def of(cls, n: int) -> _Columns:
        return cls(np.zeros(n, np.int64), np.zeros(n), np.zeros(n, bool), np.full(n, -1, np.int64))


@dataclass(frozen=True)
class _Findings:
    """The groups of one class in the order found, each with the rows among which it was looked for; ``points`` show ``rows``."""

    segment: Segment
    rows: NDArray[np.int64]
    groups: tuple[tuple[NDArray[np.int64], Group], ...]
    points: NDArray[np.float32]
    constant: bool
    note: str | None

    @property
    def facts(self) -> policy.Facts:
        return policy.Facts(len(self.segment.rows), int(self.segment.fitted.sum()), self.constant)

    @property
    def separation(self) -> float:
        """Of the most telling group: 0 where nothing lies apart, NaN where the class cannot be judged."""
        if policy.obstacle(self.facts) is not None:
            return np.nan
        return self.groups[0][1].evidence["separation"] if self.groups else 0.0


def screen(
    activations: Activations,
    labels: Labels,
    outputs: NDArray[np.int64] | None,
    layer: str,
    config: ScanConfig,
    *,
    progress: Progress | None = None,
) -> Screening:
    """Run steps 4 to 9 of the flow.

    Parameters
    ----------
    activations
        From a pass, a store or arrays: the same values give the same result.
    labels
        Of the training set.
    outputs
        The model's output for each class, shape ``(n_classes,)``; None for the same order.
    layer
        Name of the layer whose activations are clustered.
    config
        Settings and seed.
    progress
        Called per class.
    """
    fit_rng, *class_rngs = np.random.default_rng(config.seed).spawn(1 + len(labels.class_names))
    predicted = _predicted(activations.logits, outputs, len(labels.class_names))
    fit = _ask_inputs(activations, labels, fit_rng)
    findings = []
    for segment, rng in zip(
        segments(labels.given, activations.examined, predicted, len(labels.class_names)), class_rngs, strict=True
    ):
        findings.append(_search(segment, activations.layers[layer], fit, config, rng))
        if progress is not None:
            progress("clustering the classes", len(findings), len(class_rngs))
    columns = _Columns.of(len(labels.given))
    separations = [f.separation for f in findings]
    results = tuple(_judge(f, labels.class_names, _others(separations, i), columns) for i, f in enumerate(findings))
    notes = tuple(dict.fromkeys(f"Class {labels.class_names[f.segment.class_index]}: {f.note}" for f in findings if f.note))
    return Screening(results, _table(labels, predicted, columns), tuple(_view(f, columns) for f in findings), notes)


def _predicted(logits: NDArray[np.float32] | None, outputs: NDArray[np.int64] | None, n_classes: int) -> NDArray[np.int64] | None:
    """Return the class index that the model gives each sample; -1 for an output that stands for no class of the data."""
    if logits is None:
        return None
    class_of = np.full(logits.shape[1], -1, np.int64)
    class_of[np.arange(n_classes) if outputs is None else outputs] = np.arange(n_classes)
    predicted: NDArray[np.int64] = class_of[logits.argmax(axis=1)]
    return predicted


def _ask_inputs(activations: Activations, labels: Labels, rng: np.random.Generator) -> Affinity | None:
    """Return how the inputs fit their labels; None where there is no view of them, or no second class that they could fit."""
    if len(np.unique(labels.given[activations.examined & (labels.given >= 0)])) < 2:
        return None
    for name in (views.CELLS, views.WORDS):
        if (view := activations.layers.get(name)) is not None:
            n_classes, words = len(labels.class_names), name == views.WORDS
            return affinity(view, labels.given, activations.examined, n_classes, rng, words=words)
    return None


def _search(
    segment: Segment, layer: NDArray[np.float32], fit: Affinity | None, config: ScanConfig, rng: np.random.Generator
) -> _Findings:
    """Look for groups one after the other, each among the rows that no accused group holds."""
    first = rows = segment.rows[segment.fitted]
    groups: list[tuple[NDArray[np.int64], Group]] = []
    points, constant, note = np.zeros((len(rows), 2), np.float32), False, None
    for _ in range(_MOST_GROUPS):
        inputs = None if fit is None else fit.of(segment.class_index, rows)
        analysis = analyse(np.asarray(layer[rows]), len(segment.rows), inputs, config.reduction, rng)
        if not groups:
            points, constant, note = analysis.points, analysis.constant, analysis.note
        if analysis.group is None or (groups and not _accused(analysis.group)):
            break
        groups.append((rows, analysis.group))
        if not _accused(analysis.group):
            break
        rows = rows[~analysis.group.members]
    return _Findings(segment, first, tuple(groups), points, constant, note)


def _accused(group: Group) -> bool:
    return policy.judge_group(group.evidence, others=(0.0,)) is Verdict.SUSPICIOUS


def _others(separations: Sequence[float], index: int) -> list[float]:
    return [value for i, value in enumerate(separations) if i != index and np.isfinite(value)]


def _judge(findings: _Findings, class_names: Sequence[str], others: Sequence[float], columns: _Columns) -> ClassResult:
    """Judge one class and fill in its part of the samples' table."""
    segment = findings.segment
    name, n = class_names[segment.class_index], len(segment.rows)
    if (obstacle := policy.obstacle(findings.facts)) is not None:
        columns.severity[segment.rows] = Verdict.INCONCLUSIVE.severity
        return ClassResult(name, n, Verdict.INCONCLUSIVE, (obstacle,))
    columns.severity[segment.rows] = Verdict.CLEAN.severity
    groups, reasons = [], []
    for number, (rows, group) in enumerate(findings.groups, start=1):
        verdict = policy.judge_group(group.evidence, others)
        members = rows[group.members]
        columns.group[members] = number
        columns.severity[members] = verdict.severity
        columns.score[rows] = np.maximum(columns.score[rows], group.posterior * policy.plausibility(group.evidence, verdict))
        columns.flagged[members] |= verdict is Verdict.SUSPICIOUS
        source = None if group.rival is None or verdict is Verdict.CLEAN else class_names[group.rival]
        groups.append(GroupResult(number, len(members), len(members) / n, verdict, group.evidence, source))
        reasons.append(policy.reason(verdict, group.evidence, (len(members), len(rows) - len(members)), others))
    rest = n - sum(group.n for group in groups)
    groups.insert(0, GroupResult(0, rest, rest / n, Verdict.CLEAN, {}))
    worst = max((group.verdict for group in groups), key=lambda verdict: verdict.severity)
    return ClassResult(name, n, worst, tuple(reasons) or (policy.NOTHING_APART,), tuple(groups))


def _view(findings: _Findings, columns: _Columns) -> ClassView:
    return ClassView(findings.segment.class_index, findings.rows, columns.group[findings.rows], findings.points)


def _table(labels: Labels, predicted: NDArray[np.int64] | None, columns: _Columns) -> pa.Table:
    """Make the samples' table; what was not examined has no group, score or verdict."""
    names = pa.array([*labels.class_names, None], pa.string())
    examined = columns.severity >= 0
    verdicts = pa.array([str(verdict) for verdict in Verdict], pa.string())
    missing = ~examined

    def named(indexes: NDArray[np.int64], known: NDArray[np.bool_]) -> pa.Array:
        return names.take(pa.array(np.where(known & (indexes >= 0), indexes, len(labels.class_names))))

    unknown = np.full(len(labels.given), -1)
    return pa.table(
        {
            "id": labels.ids,
            "label": named(labels.given, np.ones(len(examined), bool)),
            "predicted": named(unknown if predicted is None else predicted, examined),
            "group": pa.array(columns.group, mask=missing),
            "score": pa.array(columns.score, mask=missing),
            "flagged": pa.array(columns.flagged),
            "verdict": verdicts.take(pa.array(columns.severity, mask=missing)),
        },
        schema=SAMPLES_SCHEMA,
    )

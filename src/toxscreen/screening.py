"""Steps 4 to 9 of the flow on arrays: from activations, labels and logits to verdicts.

1. The inputs are asked how well they fit their given labels.
2. The activations of each class, by given label, are searched for groups that stand apart.
3. Evidence and policy make a verdict per class, a score and a flag per sample.

**Source:** Chen et al. 2018, arXiv 1811.03728, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxscreen import verdict as policy
from toxscreen import views
from toxscreen.activations import Activations, Rows
from toxscreen.analysis import ANALYSES
from toxscreen.analysis.base import Analysis, Findings, Group, Ruling
from toxscreen.config import ScanConfig, VerdictConfig
from toxscreen.conflict import Affinity, affinity
from toxscreen.floor import detection_floors
from toxscreen.parallel import Parallel, in_parallel
from toxscreen.result import SAMPLES_SCHEMA, ClassResult, ClassView, GroupResult, Verdict
from toxscreen.segments import Part, segments

BY_RULE = (
    "The verdicts are those of {}, a published rule that is here to compare with. It is not calibrated: what it accuses may be "
    "clean, and what it clears poisoned."
)
"""What a reader must know of verdicts that are not our own."""

_LOGITS_ROWS = 1024
"""Rows of logits that are read at a time."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, units done, units in all)."""


@dataclass(frozen=True)
class Labels:
    """What the training set says of its samples: ids ``(n_samples,)``, class indexes ``(n_samples,)`` and class names."""

    ids: pa.StringArray
    given: NDArray[np.int64]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Apart:
    """A group that no evidence accuses though it lies as far away as poison does: row numbers ``(m,)`` of a class, and evidence."""

    class_index: int
    rows: NDArray[np.int64]
    evidence: Mapping[str, float]


@dataclass(frozen=True)
class Screening:
    """What the screen found.

    Attributes
    ----------
    classes, samples, views, notes
        As in :class:`toxscreen.result.ScanResult`.
    inputs
        How the inputs fit their labels; None where that was not asked.
    apart
        What lies far apart in classes that are not accused.
    """

    classes: tuple[ClassResult, ...]
    samples: pa.Table
    views: tuple[ClassView, ...]
    notes: tuple[str, ...]
    inputs: Affinity | None = field(default=None, repr=False)
    apart: tuple[Apart, ...] = field(default=(), repr=False)


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
class Detection:
    """What an analysis and the policy say together, whichever analysis it is.

    Attributes
    ----------
    score
        How surely each sample is poison, in [0, 1], shape ``(n_samples,)``.
    flagged
        Which samples are to be taken out, shape ``(n_samples,)``.
    group
        Number of each sample's group within its class, 0 for the rest, shape ``(n_samples,)``.
    severity
        Of the verdict of each sample's group, -1 for what was not examined, shape ``(n_samples,)``.
    classes
        The verdict, the reasons and the evidence of each class.
    findings
        What the verdicts were made from.
    """

    score: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    group: NDArray[np.int64]
    severity: NDArray[np.int64]
    classes: tuple[ClassResult, ...]
    findings: tuple[Findings, ...] = field(repr=False)

    @property
    def accused(self) -> NDArray[np.bool_]:
        """Return which classes hold a group that is suspicious, shape ``(n_classes,)``."""
        return np.array([bool(result.accused) for result in self.classes], dtype=bool)


def screen(
    activations: Activations,
    labels: Labels,
    outputs: NDArray[np.int64] | None,
    layer: str,
    config: ScanConfig,
    *,
    parallel: Parallel = in_parallel,
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
    parallel
        Looks at the classes: in this process, or elsewhere.
    progress
        Called per class.
    """
    rng = np.random.default_rng(config.seed)
    (fit_rng,) = rng.spawn(1)
    predicted = _predicted(activations.logits, outputs, len(labels.class_names))
    inputs = _ask_inputs(activations, labels, fit_rng, parallel)
    analysis = ANALYSES[config.analysis.name].configured(config.reduction)
    detection = detect(
        analysis,
        activations.layers[layer],
        labels.given,
        len(labels.class_names),
        rng=rng,
        class_names=labels.class_names,
        examined=activations.examined,
        predicted=predicted,
        inputs=inputs,
        alpha=config.verdict.alpha,
        parallel=parallel,
        progress=progress,
    )
    findings = detection.findings
    notes = dict.fromkeys(f"Class {labels.class_names[f.segment.class_index]}: {f.note}" for f in findings if f.note)
    if analysis.rule is not None:
        notes = {BY_RULE.format(analysis.rule): None} | notes
    views = tuple(_view(f, detection) for f in findings)
    classes = _with_floors(detection, activations.layers[layer], labels, inputs, config, rng, progress)
    far = ((f.segment.class_index, f.rows, f.farthest) for f in findings if f.farthest is not None)
    apart = tuple(Apart(index, rows[group.members], group.evidence) for index, rows, group in far if _is_apart(group))
    return Screening(classes, _table(labels, predicted, detection), views, tuple(notes), inputs, apart)


def _with_floors(
    detection: Detection,
    layer: Rows,
    labels: Labels,
    inputs: Affinity | None,
    config: ScanConfig,
    rng: np.random.Generator,
    progress: Progress | None,
) -> tuple[ClassResult, ...]:
    """Return the classes, those that our own analysis could judge with their detection floor."""
    able = [f.segment for f in detection.findings if f.ruling is None and policy.obstacle(_facts(f)) is None]
    if inputs is None or not able:
        return detection.classes

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress("measuring the detection floor", done, total)

    level = config.verdict.alpha / len(detection.classes)
    floors = detection_floors(layer, able, labels.given, inputs, detection.flagged, level=level, rng=rng, told=told)
    return tuple(replace(result, detection_floor=floors.get(index)) for index, result in enumerate(detection.classes))


def detect(
    analysis: Analysis,
    activations: Rows,
    labels: NDArray[np.int64],
    n_classes: int,
    *,
    rng: np.random.Generator,
    class_names: Sequence[str] | None = None,
    examined: NDArray[np.bool_] | None = None,
    predicted: NDArray[np.int64] | None = None,
    inputs: Affinity | None = None,
    alpha: float = VerdictConfig.alpha,
    parallel: Parallel = in_parallel,
    progress: Progress | None = None,
) -> Detection:
    """Run steps 4 to 9 of the flow on one layer with any analysis.

    Parameters
    ----------
    analysis
        One of :data:`toxscreen.analysis.ANALYSES`, or another one.
    activations
        Shape ``(n_samples, d)``.
    labels
        Index of the given class of each sample, negative where there is none, shape ``(n_samples,)``.
    n_classes
        Number of classes.
    rng
        The same state gives the same result.
    class_names
        None for their numbers.
    examined
        Which samples have usable activations, shape ``(n_samples,)``; None for those that are finite.
    predicted
        Index of the class that the model gives each sample, shape ``(n_samples,)``; None when nobody knows.
    inputs
        How the inputs fit the labels; None when they cannot be asked.
    alpha
        The part of scans of clean data, at most, that accuse some class.
    parallel
        Looks at the classes: in this process, or elsewhere.
    progress
        Called per class.
    """
    usable = _finite(Part.of(activations)) if examined is None else np.asarray(examined)

    def told(done: int) -> None:
        if progress is not None:
            progress("clustering the classes", done, n_classes)

    classes = segments(labels, usable, predicted, n_classes)

    def accused(group: Group) -> bool:
        """Say whether a group is accused even where it is the only one of its scan."""
        return policy.judge_group(group.evidence, (0.0,), alpha / n_classes) is Verdict.SUSPICIOUS

    findings = analysis.search(activations, classes, rng=rng, inputs=inputs, accused=accused, parallel=parallel, told=told)
    columns = _Columns.of(len(labels))
    names = class_names or [str(index) for index in range(n_classes)]
    separations = [_separation(f) for f in findings]
    at = policy.level([_p_value(f) if np.isfinite(known) else 1.0 for f, known in zip(findings, separations, strict=True)], alpha)
    results = tuple(_judge(f, names, _others(separations, i), at, columns) for i, f in enumerate(findings))
    if predicted is not None:
        results = _with_what_was_not_learned(results, findings, columns, _one_sided(labels, predicted, n_classes))
    return Detection(columns.score, columns.flagged, columns.group, columns.severity, results, findings)


def _predicted(logits: Rows | None, outputs: NDArray[np.int64] | None, n_classes: int) -> NDArray[np.int64] | None:
    """Return the class index that the model gives each sample; -1 for an output that stands for no class of the data."""
    if logits is None:
        return None
    class_of = np.full(logits.shape[1], -1, np.int64)
    class_of[np.arange(n_classes) if outputs is None else outputs] = np.arange(n_classes)
    predicted = np.empty(len(logits), np.int64)
    for start in range(0, len(logits), _LOGITS_ROWS):
        predicted[start : start + _LOGITS_ROWS] = class_of[logits[start : start + _LOGITS_ROWS].argmax(axis=1)]
    return predicted


def _ask_inputs(activations: Activations, labels: Labels, rng: np.random.Generator, parallel: Parallel) -> Affinity | None:
    """Return how the inputs fit their labels; None where there is no view of them, or no second class that they could fit."""
    if len(np.unique(labels.given[activations.examined & (labels.given >= 0)])) < 2:
        return None
    for name in (views.CELLS, views.WORDS):
        if (view := activations.layers.get(name)) is not None:
            n_classes, words = len(labels.class_names), name == views.WORDS
            return affinity(view, labels.given, activations.examined, n_classes, rng, words=words, parallel=parallel)
    return None


def _p_value(findings: Findings) -> float:
    """Return that of the most telling group of a class; 1 where nothing lies apart or the inputs were not asked."""
    return min((_known_p_value(group) for _, group in findings.groups), default=1.0)


def _known_p_value(group: Group) -> float:
    return policy.p_value(group.evidence) if "label_conflict_lower" in group.evidence else 1.0


def _facts(findings: Findings) -> policy.Facts:
    return policy.Facts(len(findings.segment.rows), int(findings.segment.fitted.sum()), findings.constant)


def _is_apart(group: Group) -> bool:
    return group.evidence["separation_lower"] >= policy.POLICY["apart"].value


def _separation(findings: Findings) -> float:
    """Return that of the most telling group: 0 where nothing lies apart, NaN where the policy cannot judge the class."""
    if findings.ruling is not None or policy.obstacle(_facts(findings)) is not None:
        return np.nan
    return findings.groups[0][1].evidence["separation"] if findings.groups else 0.0


def _others(separations: Sequence[float], index: int) -> list[float]:
    others = np.delete(np.asarray(separations), index)
    return others[np.isfinite(others)].tolist()  # type: ignore[no-any-return]


def _finite(rows: Part) -> NDArray[np.bool_]:
    """Return which rows hold nothing but finite numbers, shape ``(n,)``."""
    finite = np.zeros(len(rows), bool)
    for block, values in rows.blocks():
        finite[block] = np.isfinite(values).all(axis=1)
    return finite


def _judge(findings: Findings, class_names: Sequence[str], others: Sequence[float], at: float, columns: _Columns) -> ClassResult:
    """Judge one class and fill in its part of the samples' table."""
    segment = findings.segment
    name, n = class_names[segment.class_index], len(segment.rows)
    if (obstacle := policy.obstacle(_facts(findings)) or _undecided(findings)) is not None:
        columns.severity[segment.rows] = Verdict.INCONCLUSIVE.severity
        return ClassResult(name, n, Verdict.INCONCLUSIVE, (obstacle,))
    columns.severity[segment.rows] = Verdict.CLEAN.severity
    groups, reasons = [], [] if findings.ruling is None else [findings.ruling.reason]
    for number, (rows, group) in enumerate(findings.groups, start=1):
        verdict, score = _judge_group(findings.ruling, group, others, at)
        members = rows[group.members]
        columns.group[members] = number
        columns.severity[members] = verdict.severity
        columns.score[rows] = np.maximum(columns.score[rows], score)
        columns.flagged[members] |= verdict is Verdict.SUSPICIOUS
        source = None if group.rival is None or verdict is Verdict.CLEAN else class_names[group.rival]
        evidence = group.evidence if findings.ruling is not None else group.evidence | _judged(group)
        groups.append(GroupResult(number, len(members), len(members) / n, verdict, evidence, source))
        if findings.ruling is None:
            said = policy.reason(verdict, group.evidence, (len(members), len(rows) - len(members)), others)
            reasons.append(said if verdict is Verdict.CLEAN else policy.of_group(number, said))
    rest = n - sum(group.n for group in groups)
    groups.insert(0, GroupResult(0, rest, rest / n, Verdict.CLEAN, {}))
    worst = max((group.verdict for group in groups), key=lambda verdict: verdict.severity)
    return ClassResult(name, n, worst, tuple(reasons) or (policy.NOTHING_APART,), tuple(groups))


def _one_sided(labels: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Count in each class the samples that the model gives another one, beyond a multiple of those that come back from it."""
    misread = (labels >= 0) & (predicted >= 0) & (labels != predicted)
    pairs, counts = np.unique(labels[misread] * n_classes + predicted[misread], return_counts=True)
    given, other = np.divmod(pairs, n_classes)
    known = dict(zip(pairs.tolist(), counts.tolist(), strict=True))
    back = np.array([known.get(pair, 0) for pair in (other * n_classes + given).tolist()], np.float64)
    beyond = np.maximum(0.0, counts - policy.POLICY["misread_ratio"].value * back)
    return np.bincount(given, beyond, minlength=n_classes).astype(np.int64)


def _with_what_was_not_learned(
    results: Sequence[ClassResult], findings: Sequence[Findings], columns: _Columns, one_sided: NDArray[np.int64]
) -> tuple[ClassResult, ...]:
    """Return the classes, those that the model misreads as no other as inconclusive, and their misread samples too."""
    misread = [1 - float(f.segment.fitted.mean()) if len(f.segment.rows) else np.nan for f in findings]
    judged = list(results)
    for index, (result, found) in enumerate(zip(results, findings, strict=True)):
        facts = replace(_facts(found), n_one_sided=int(one_sided[index]))
        why = policy.not_learned(facts, _others(misread, index)) if found.ruling is None else None
        if result.verdict is Verdict.CLEAN and why is not None:
            columns.severity[found.segment.rows[~found.segment.fitted]] = Verdict.INCONCLUSIVE.severity
            judged[index] = replace(result, verdict=Verdict.INCONCLUSIVE, reasons=(why, *result.reasons))
    return tuple(judged)


def _judged(group: Group) -> dict[str, float]:
    return {"p_value": policy.p_value(group.evidence)} if "label_conflict_lower" in group.evidence else {}


def _undecided(findings: Findings) -> str | None:
    """Say why the rule that was asked decides nothing about a class, or None when it does."""
    ruling = findings.ruling
    return ruling.reason if ruling is not None and ruling.verdict is Verdict.INCONCLUSIVE else None


def _judge_group(ruling: Ruling | None, group: Group, others: Sequence[float], at: float) -> tuple[Verdict, NDArray[np.float64]]:
    """Return the verdict of a group and the score of each row: by the ruling where there is one, else by the policy."""
    if ruling is not None:
        return ruling.verdict, group.posterior
    verdict = policy.judge_group(group.evidence, others, at)
    return verdict, group.posterior * policy.plausibility(group.evidence, verdict)


def _view(findings: Findings, detection: Detection) -> ClassView:
    return ClassView(findings.segment.class_index, findings.rows, detection.group[findings.rows], findings.points)


def _table(labels: Labels, predicted: NDArray[np.int64] | None, columns: Detection) -> pa.Table:
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

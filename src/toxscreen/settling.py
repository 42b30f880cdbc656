"""Step 9 of the flow once more: what the confirmation found settles what the screen suspected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from toxscreen import verdict as policy
from toxscreen.confirmation import Confirmation, Exclusion, Suspect
from toxscreen.result import CONFIRMATION_SCHEMA, ClassResult, GroupResult, Verdict
from toxscreen.screening import Labels, Screening

_CLEARED = 0.49
"""The highest score of a sample whose group was cleared."""


def suspects(screening: Screening, labels: Labels) -> tuple[Suspect, ...]:
    """Return the groups that the screen suspects, in the order of the classes."""
    number = pc.fill_null(screening.samples["group"], -1).to_numpy()
    found: list[Suspect] = []
    for index, result in enumerate(screening.classes):
        rows = np.flatnonzero((labels.given == index) & (number >= 0))
        rest = rows[number[rows] == 0]
        found.extend(Suspect(index, group.id, rows[number[rows] == group.id], rest) for group in result.accused)
    return tuple(found)


def settle(screening: Screening, labels: Labels, found: Sequence[Suspect], confirmation: Confirmation) -> Screening:
    """Return the screening with the verdicts that exclusionary reclassification leads to.

    A suspicious group becomes poisoned or clean, or stays suspicious; where the rest of its class turns out to be the poison, the
    two change places.
    """
    classes = list(screening.classes)
    columns = _Columns(screening.samples)
    for suspect, group, rest in zip(found, confirmation.groups, confirmation.rests, strict=True):
        verdict = policy.judge_excluded(group.evidence(), confirmation.accuracy)
        other = Verdict.CLEAN if rest is None else policy.judge_excluded(rest.evidence(), confirmation.accuracy)
        swapped = rest is not None and other is Verdict.POISONED and verdict is not Verdict.POISONED
        result = classes[suspect.class_index]
        if rest is not None and swapped:
            result = _settled(result, 0, Verdict.POISONED, rest, labels, confirmation)
            columns.set(suspect.rest, Verdict.POISONED)
            verdict = Verdict.CLEAN
        classes[suspect.class_index] = _settled(result, suspect.group, verdict, group, labels, confirmation)
        columns.set(suspect.rows, verdict)
    return replace(screening, classes=tuple(classes), samples=columns.table())


def answers_table(labels: Labels, confirmation: Confirmation) -> pa.Table:
    """Return what the new model said of each sample that was left out; see :data:`toxscreen.result.CONFIRMATION_SCHEMA`."""
    known = confirmation.answers >= 0
    names = pa.array(labels.class_names, pa.string())
    columns = {
        "id": labels.ids.take(pa.array(confirmation.rows)),
        "answer": names.take(pa.array(confirmation.answers, mask=~known)),
        "certainty": pa.array(confirmation.certainty.astype(np.float64), mask=~known),
    }
    return pa.table(columns, schema=CONFIRMATION_SCHEMA)


class _Columns:
    """The columns of the samples' table that a confirmation changes."""

    def __init__(self, samples: pa.Table) -> None:
        self._samples = samples
        self._score = samples["score"].to_numpy().copy()
        self._flagged = samples["flagged"].to_numpy().copy()
        self._verdict = np.array(samples["verdict"].to_pylist(), dtype=object)

    def set(self, rows: NDArray[np.int64], verdict: Verdict) -> None:
        accused = verdict.severity >= Verdict.SUSPICIOUS.severity
        self._verdict[rows] = str(verdict)
        self._flagged[rows] = accused
        self._score[rows] = np.maximum(self._score[rows], 0.5) if accused else np.minimum(self._score[rows], _CLEARED)

    def table(self) -> pa.Table:
        columns = {
            "score": pa.array(self._score, mask=np.isnan(self._score)),
            "flagged": pa.array(self._flagged),
            "verdict": pa.array(self._verdict, pa.string()),
        }
        samples = self._samples
        for name, values in columns.items():
            samples = samples.set_column(samples.column_names.index(name), samples.schema.field(name), values)
        return samples


def _settled(
    result: ClassResult, number: int, verdict: Verdict, exclusion: Exclusion, labels: Labels, confirmation: Confirmation
) -> ClassResult:
    """Return a class with the new verdict of one of its groups."""
    source = None if exclusion.source is None else labels.class_names[exclusion.source]
    evidence = exclusion.evidence()
    reason = policy.reason_excluded(verdict, evidence, exclusion.n, source, confirmation.accuracy)

    def changed(group: GroupResult) -> GroupResult:
        stands = source if verdict is not Verdict.CLEAN and exclusion.stands_out else None
        return replace(group, verdict=verdict, evidence={**group.evidence, **evidence}, source_class=stands or group.source_class)

    groups = tuple(changed(group) if group.id == number else group for group in result.groups)
    worst = max((group.verdict for group in groups), key=lambda v: v.severity)
    return replace(result, verdict=worst, groups=groups, reasons=(*result.reasons, reason))

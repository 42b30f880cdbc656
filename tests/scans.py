"""Small scan results, made up, for the tests of what is shown of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from toxscreen.exhibits.make import make_exhibits
from toxscreen.result import SAMPLES_SCHEMA, ClassResult, ClassView, GroupResult, ScanResult, Verdict
from toxscreen.sources.data.base import TrainingSet


def scan_result(
    sizes: Mapping[str, Sequence[int]],
    verdicts: Mapping[str, Verdict] | None = None,
    *,
    ids: Sequence[str] | None = None,
    **changes: Any,
) -> ScanResult:
    """Return a result in which each class holds groups of the given sizes, one after the other in the order of the data.

    Group 0 of a class is clean; where ``verdicts`` names the class, its other groups have that verdict and are flagged.
    """
    verdicts = verdicts or {}
    classes, views, columns, start = [], [], [], 0
    rng = np.random.default_rng(0)
    for index, (name, counts) in enumerate(sizes.items()):
        verdict, n = verdicts.get(name, Verdict.CLEAN), sum(counts)
        groups = np.repeat(np.arange(len(counts)), counts)
        classes.append(_class(name, counts, verdict))
        views.append(
            ClassView(index, np.arange(start, start + n), groups, (rng.normal(size=(n, 2)) + groups[:, None] * 9).astype("f4"))
        )
        flagged = (groups > 0) & (verdict.severity > Verdict.INCONCLUSIVE.severity)
        score = np.where(flagged, 0.9, 0.1) + rng.uniform(0, 0.05, n)
        columns.append((np.full(n, name, object), groups, score, flagged, np.where(groups > 0, verdict, Verdict.CLEAN)))
        start += n
    labels, groups, score, flagged, verdict_column = (np.concatenate(column) for column in zip(*columns, strict=True))
    identifiers = pa.array(np.arange(start).astype(str) if ids is None else ids, pa.string())
    arrays = [identifiers, pa.array(labels, pa.string()), pa.array(labels, pa.string()), groups, score, flagged]
    samples = pa.table([*arrays, pa.array([str(v) for v in verdict_column], pa.string())], schema=SAMPLES_SCHEMA)
    result = ScanResult(
        name="made up",
        classes=tuple(classes),
        samples=samples,
        not_examined=(),
        settings={"reduction": {"method": "pca", "components": 10}},
        seed=7,
        inputs={"data": {"location": "data", "fingerprint": "abc123"}, "model": {"location": "model", "trained_here": False}},
        timings={"activations": 1.5},
        views=tuple(views),
    )
    return replace(result, **changes)


def shown(result: ScanResult, training_set: TrainingSet | None = None) -> ScanResult:
    """Return ``result`` with its exhibits."""
    return replace(result, exhibits=make_exhibits(result, training_set, rng=np.random.default_rng(0)))


def _class(name: str, counts: Sequence[int], verdict: Verdict) -> ClassResult:
    groups = tuple(
        GroupResult(
            id=number,
            n=n,
            share=n / sum(counts),
            verdict=verdict if number else Verdict.CLEAN,
            evidence={"relative_size": n / sum(counts), "silhouette_score": 0.61} if number else {},
        )
        for number, n in enumerate(counts)
    )
    reason = "Nothing stands out." if verdict is Verdict.CLEAN else f"A group stands out: {verdict}."
    return ClassResult(name, sum(counts), verdict, (reason,), groups)

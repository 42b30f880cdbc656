"""Choose what the report shows of each class that is not clean, within a budget of bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from toxscreen.exhibits import images, texts
from toxscreen.exhibits.base import (
    GRID,
    ClassExhibit,
    ExhibitLimits,
    Exhibits,
    FlaggedSample,
    GroupExhibit,
    SamplesShown,
    Shown,
    Side,
    TriggerExhibit,
    short,
)
from toxscreen.exhibits.triggers import show_triggers
from toxscreen.result import ClassResult, ClassView, ScanResult, Verdict
from toxscreen.sources.data.base import TrainingSet
from toxscreen.trigger.recover import Recovered

_BYTES_PER_POINT = 50
"""What a point costs beside its id, its picture and its text."""
_ID_BYTES = 240
"""What an id costs at most: 80 characters are shown."""
_TRIGGERS = 0.3
"""Part of all bytes that recovered triggers take at most, and hardly more."""
_POINTS, _RESERVE = 0.4, 0.1
"""Parts of a class's bytes: what points may take at most, and what is kept for averages, topics and examples."""


def make_exhibits(
    result: ScanResult,
    training_set: TrainingSet | None,
    recovered: Sequence[Recovered] = (),
    *,
    rng: np.random.Generator,
    limits: ExhibitLimits | None = None,
) -> Exhibits:
    """Return what the report shows of the classes that are not clean.

    Parameters
    ----------
    result
        With its ``views``.
    training_set
        Where the inputs of the samples are read from; without one, points and scores are shown alone.
    recovered
        The triggers that were looked for.
    rng
        Draws the samples that stand for their class.
    limits
        How much is shown.
    """
    limits = limits or ExhibitLimits()
    views = [view for view in result.views if result.classes[view.class_index].verdict is not Verdict.CLEAN and len(view.rows)]
    views.sort(key=lambda view: _rank(result.classes[view.class_index]))
    chosen = views[: limits.classes]
    listed = {view.class_index for view in chosen}
    looked_for = [found for found in recovered if found.lead.class_index in listed]
    triggers = show_triggers(looked_for, result, limits, int(_TRIGGERS * limits.total_bytes))
    shown, left = [], limits.total_bytes - sum(map(_bytes, triggers.values()))
    for done, (view, child) in enumerate(zip(chosen, rng.spawn(len(chosen)), strict=True)):
        made = _class_exhibit(result, training_set, view, rng=child, limits=limits, allowance=left // (len(chosen) - done))
        left -= _bytes(made)
        groups = tuple(replace(group, trigger=triggers.get((made.class_index, group.group))) for group in made.groups)
        shown.append(replace(made, groups=groups))
    no_room = tuple(view.class_index for view in views[limits.classes :])
    return Exhibits(tuple(shown), no_room, _flagged(result.samples, limits.flagged))


def _bytes(exhibit: ClassExhibit | TriggerExhibit) -> int:
    return len(json.dumps(asdict(exhibit), ensure_ascii=False).encode("utf-8", "replace"))


def _class_exhibit(
    result: ScanResult,
    training_set: TrainingSet | None,
    view: ClassView,
    *,
    rng: np.random.Generator,
    limits: ExhibitLimits,
    allowance: int,
) -> ClassExhibit:
    n_compared, view = len(view.rows), _with_all_flagged(view, result)
    ids = result.samples["id"].take(pa.array(view.rows))
    id_bytes = min(_ID_BYTES, pc.mean(pc.binary_length(ids)).as_py())
    point_bytes = _BYTES_PER_POINT + id_bytes
    drawn = _draw(view, n_compared, min(limits.samples, int(_POINTS * allowance / point_bytes)), rng)
    rows, groups = view.rows[drawn], view.groups[drawn]
    sides = _sides(result.classes[view.class_index], groups, limits.groups)
    left = int((1 - _RESERVE) * allowance - len(drawn) * point_bytes)
    shown = _show(training_set, rows, sides, rng=rng, limits=limits, allowance=left)
    x, y = _on_grid(view.points[drawn[drawn < n_compared]])
    nowhere = (None,) * int((drawn >= n_compared).sum())
    samples = SamplesShown(
        ids=tuple(short(id_) for id_ in ids.take(pa.array(drawn)).to_pylist()),
        groups=tuple(groups.tolist()),
        scores=tuple(result.samples["score"].take(pa.array(rows)).to_pylist()),
        x=(*x.tolist(), *nowhere),
        y=(*y.tolist(), *nowhere),
        pictures=tuple(shown.pictures),
        texts=tuple(shown.texts),
    )
    return ClassExhibit(view.class_index, n_compared, samples, shown.groups)


def _with_all_flagged(view: ClassView, result: ScanResult) -> ClassView:
    """Return a view that ends with the flagged samples that were not compared, as the model gives them another class."""
    own = pc.equal(result.samples["label"], result.classes[view.class_index].name)
    rows = np.setdiff1d(pc.indices_nonzero(pc.and_(own, result.samples["flagged"])).to_numpy(), view.rows).astype(np.int64)
    groups = result.samples["group"].take(pa.array(rows)).to_numpy()
    points = np.full((len(rows), 2), np.nan, np.float32)
    return replace(
        view,
        rows=np.concatenate([view.rows, rows]),
        groups=np.concatenate([view.groups, groups]),
        points=np.concatenate([view.points, points]),
    )


def _draw(view: ClassView, n_compared: int, limit: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw at most ``limit`` positions of ``view``; every group gets an equal part, and what a small one leaves the others get."""
    finite = np.flatnonzero(np.isfinite(view.points).all(axis=1) | (np.arange(len(view.rows)) >= n_compared))
    numbers, counts = np.unique(view.groups[finite], return_counts=True)
    drawn: list[NDArray[np.int64]] = []
    for done, position in enumerate(np.argsort(counts, kind="stable")):
        members = finite[view.groups[finite] == numbers[position]]
        share = (limit - sum(map(len, drawn))) // (len(numbers) - done)
        drawn.append(rng.permutation(members)[:share])
    return np.sort(np.concatenate(drawn)) if drawn else finite


def _sides(result: ClassResult, groups: NDArray[np.int64], limit: int) -> tuple[Side, ...]:
    """Set each accused group against the samples of no accused group, or against all others where every group is accused."""
    accused = [group.id for group in result.accused]
    rest = np.flatnonzero(~np.isin(groups, accused))
    return tuple(
        Side(group, np.flatnonzero(groups == group), rest if len(rest) else np.flatnonzero(groups != group))
        for group in accused[:limit]
        if (groups == group).any()
    )


def _on_grid(points: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stretch both axes of ``points`` over the grid; the second axis points up."""
    wide = points.astype(np.float64)  # the extent of float32 points may overflow float32
    low, high = wide.min(axis=0, initial=np.inf), wide.max(axis=0, initial=-np.inf)
    steps = np.rint((wide - low) / np.maximum(high - low, np.finfo(float).tiny) * GRID).astype(np.int64)
    return steps[:, 0], GRID - steps[:, 1]


def _show(
    training_set: TrainingSet | None,
    rows: NDArray[np.int64],
    sides: tuple[Side, ...],
    *,
    rng: np.random.Generator,
    limits: ExhibitLimits,
    allowance: int,
) -> Shown:
    if training_set is None:
        nothing = [None] * len(rows)
        return Shown(nothing, nothing, tuple(GroupExhibit(side.group, len(side.members), len(side.rest)) for side in sides))
    show = texts.show if training_set.modality == "text" else images.show
    return show(training_set, rows, sides, rng=rng, limits=limits, allowance=allowance)


def _rank(result: ClassResult) -> tuple[int, int]:
    return -result.verdict.severity, -result.n_accused


def _flagged(samples: pa.Table, limit: int) -> tuple[FlaggedSample, ...]:
    """Return the flagged rows with the highest scores; rows of one score keep the order of the data."""
    rows = pc.indices_nonzero(pc.fill_null(samples["flagged"].combine_chunks(), False))
    scores = pc.fill_null(samples["score"].take(rows), 0.0).to_numpy()
    best = rows.to_numpy()[np.argsort(-scores, kind="stable")[:limit]]
    columns = [samples[name].take(pa.array(best)).to_pylist() for name in ("id", "label", "predicted", "group", "score")]
    return tuple(FlaggedSample(short(id_), *rest) for id_, *rest in zip(*columns, strict=True))

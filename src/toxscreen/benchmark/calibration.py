"""The table ``calibration``: how often clean data is accused at a level, beside the level that was asked for.

1. One model is trained on clean data.
2. Its stored activations are scanned several times: whole with other seeds, two halves, and a quarter of the rows.
3. The p-value of every class is kept. For each level the table counts the classes whose p-value is no greater, and the scans that
   accuse a class when its classes are judged together (:func:`toxscreen.verdict.level`).

The scans of one model are not independent of each other: its model is one of as many as there are seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from toxscreen.analysis.base import telling
from toxscreen.benchmark import paper, tables
from toxscreen.benchmark.cases import DIGITS, Case
from toxscreen.benchmark.grid import Settings, Steps
from toxscreen.benchmark.subject import Subject
from toxscreen.result import ClassResult
from toxscreen.verdict import level

SEEDS = 3

ALPHAS = (0.5, 0.2, 0.1, 0.05, 0.01)

DRAWS: Mapping[str, float] = {"whole, 1": 1.0, "whole, 2": 1.0, "half, 1": 0.5, "half, 2": 0.5, "quarter": 0.25}
"""Scans of one model, and the part of the rows that each sees."""

FITTED = ("mnist", "fashion-mnist", "cifar10")
"""The data sets that the distribution of clean evidence was fitted on; what is measured on the others tests it."""

_CIFAR = Case("CIFAR-10, nothing planted", "cifar10", network="small", n=10_000)

NATURAL = (
    paper.CLEAN,
    _CIFAR,
    Case("GTSRB, nothing planted", "gtsrb", network="small", n=10_000),
    Case("Rotten Tomatoes, nothing planted", "rotten-tomatoes", network="sentence"),
    Case("AG News, nothing planted", "ag-news", network="sentence", n=20_000),
    Case("Fashion-MNIST, nothing planted", "fashion-mnist", n=20_000),
    Case("SST-2, nothing planted", "sst2", network="sentence"),
)
"""Clean data as it is."""

HARD = (
    next(case for case in paper.CASES if case.merged and not case.plants),
    Case("CIFAR-10 in five classes of two each, nothing planted", "cifar10", network="small", n=10_000, merged=True),
    Case("MNIST with 5% of the labels at random, nothing planted", "mnist", n=20_000, noise=0.05),
    Case("MNIST, step imbalance 200, nothing planted", "mnist", imbalance=200),
    Case("CIFAR-10, step imbalance 200, nothing planted", "cifar10", network="small", n=5_000, imbalance=200),
    Case("Fashion-MNIST in five classes of two each, nothing planted", "fashion-mnist", n=20_000, merged=True),
)
"""Clean data in which natural groups stand apart, labels are wrong by chance, or most classes are tiny."""

QUICK = (Case("digits, nothing planted", DIGITS, epochs=20),)


def cells(settings: Settings, seeds: int) -> Iterator[tuple[Case, int]]:
    """Yield rows and seeds, the seeds outside: a table that was stopped has few seeds of every row."""
    for seed in range(seeds):
        for case in QUICK if settings.scale == "quick" else (*NATURAL, *HARD):
            yield (paper.full(case) if settings.scale == "full" else case), seed


def steps(case: Case, seed: int, settings: Settings) -> Steps:
    """Return the measurements of a cell: one for each scan of the stored activations."""
    subject = Subject(case, seed, settings)
    return {name: partial(_drawn, subject, number) for number, name in enumerate(DRAWS)}


def _drawn(subject: Subject, number: int) -> dict[str, Any]:
    """Scan some of the rows with another seed, and keep p-value and evidence of each class; None where a class cannot be judged."""
    part, n = list(DRAWS.values())[number], len(subject.planted.split.labels)
    rng = np.random.default_rng([subject.seed, number])
    result = subject.rescan(np.sort(rng.permutation(n)[: round(part * n)]), seed=len(DRAWS) * (subject.seed + 1) + number)
    return {
        "n_samples": len(result.samples),
        "p_values": [_p_value(found) for found in result.classes],
        "evidence": [max((_evidence(group.evidence) for group in found.groups), default=0.0) for found in result.classes],
        "seconds": sum(result.timings.values()),
    }


def _p_value(found: ClassResult) -> float | None:
    if not found.groups:
        return None
    return min((group.evidence.get("p_value", 1.0) for group in found.groups), default=1.0)


def _evidence(evidence: Mapping[str, float]) -> float:
    """Return how much the evidence of a group tells; 0 where its inputs could not be asked."""
    return telling(evidence) if "label_conflict_lower" in evidence else 0.0


def markdown(document: Mapping[str, Any]) -> str:
    """Return the results as a table: at each level the scans that accuse a class, and the classes whose p-value is no greater."""
    alphas = [f"{alpha:g}: scans, classes" for alpha in ALPHAS]
    header = ["nothing planted", "for the null", "seeds", "scans", "classes", *alphas, "largest evidence"]
    by_row: dict[str, list[tables.Cell]] = {}
    for cell in document["cells"]:
        by_row.setdefault(cell["case"].removesuffix(", nothing planted"), []).append(cell)
    rows = [_row(name, found) for name, found in by_row.items()]
    every = [cell for found in by_row.values() for cell in found]
    of_kind = {kind: [cell for cell in every if _use(cell) == kind] for kind in ("fitted", "validation")}
    return tables.markdown(header, [*rows, *(_row(f"all: {kind}", found) for kind, found in of_kind.items() if found)])


def _use(cell: tables.Cell) -> str:
    return "fitted" if cell["settings"]["data"] in FITTED else "validation"


def _row(name: str, found: list[tables.Cell]) -> list[str]:
    drawn = [step for cell in found for step in cell["steps"].values()]
    scans = [[1.0 if p is None else p for p in step["p_values"]] for step in drawn]
    classes = np.array([p for step in drawn for p in step["p_values"] if p is not None])
    shown = []
    for alpha in ALPHAS:
        accused = [any(p <= level(scan, alpha) for p in scan) for scan in scans]
        shown.append(f"{tables.percent([float(np.mean(accused))], 1)}, {tables.percent([_part(classes <= alpha)], 2)}")
    largest = max(value for step in drawn for value in step["evidence"])
    seeds = str(len({cell["seed"] for cell in found}))
    return [name, _use(found[0]), seeds, str(len(scans)), f"{len(classes):,}", *shown, f"{largest:.2f}"]


def _part(chosen: Any) -> float | None:
    return float(chosen.mean()) if len(chosen) else None

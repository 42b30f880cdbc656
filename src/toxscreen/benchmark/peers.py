"""The table ``peers``: our analysis, published rules, and the reference implementation, on the same stored activations.

Every method gets a process of its own, so that its peak memory can be told.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from toxscreen.benchmark import board, paper, tables
from toxscreen.benchmark.cases import DIGITS, Case, Plant
from toxscreen.benchmark.grid import Settings, Steps
from toxscreen.benchmark.measuring import figures
from toxscreen.benchmark.methods import METHODS, Request, answer
from toxscreen.benchmark.subject import Subject

SEEDS = 1

CASES = (
    paper.CASES[0],
    Case("MNIST, BadNets, 2% of class 7", "mnist", (Plant("badnets", "7", share=0.02),), n=20_000),
    paper.CLEAN,
    board.BADNETS,
    board.BLENDED,
    board.BADNETS.clean,
    paper.TEXTS,
)

QUICK = (
    Case("digits, BadNets, 20% of class 7", DIGITS, (Plant("badnets", "7", share=0.2),), epochs=20),
    Case("digits, nothing planted", DIGITS, epochs=20),
)


def cells(settings: Settings, seeds: int) -> Iterator[tuple[Case, int]]:
    """Yield rows and seeds."""
    cases = QUICK if settings.scale == "quick" else CASES
    for seed in range(seeds):
        for case in cases:
            yield (paper.full(case) if settings.scale == "full" else case), seed


def steps(case: Case, seed: int, settings: Settings) -> Steps:
    """Return the measurements of a cell: one for each method."""
    subject = Subject(case, seed, settings)
    return {name: partial(_measure, subject, name) for name in METHODS}


def _measure(subject: Subject, method: str) -> dict[str, Any]:
    """Let one method judge the stored activations in a process of its own."""
    request = Request(
        method,
        subject.store,
        subject.layer,
        subject.planted.split.labels,
        len(subject.planted.split.class_names),
        float(subject.planted.poisoned.mean()),
        subject.seed,
    )
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        outcome, seconds, megabytes = pool.submit(answer, request).result()
    cost = {"seconds": seconds, "megabytes": megabytes}
    if outcome.flagged is None:
        return {"error": outcome.error, **cost}
    return {**figures(subject.against_truth(subject.samples_of(outcome.flagged))), **cost}


def markdown(document: Mapping[str, Any]) -> str:
    """Return a table of all methods, and one of each row of the data."""
    parts = [_overall(document)]
    for case in dict.fromkeys(cell["case"] for cell in document["cells"]):
        found = [cell for cell in document["cells"] if cell["case"] == case]
        rows = [[name, *_figures(found, name)] for name in METHODS if tables.figures(found, name, "seconds")]
        header = [case, "seeds", "TPR", "FPR", "clean classes accused", "poisoned classes missed", "seconds", "memory MB"]
        parts.append(tables.markdown(header, rows))
    return "\n\n".join(parts)


def _figures(found: list[tables.Cell], name: str) -> list[str]:
    errors = tables.figures(found, name, "error")
    cost = [tables.mean(tables.figures(found, name, key), digits) for key, digits in (("seconds", 1), ("megabytes", 0))]
    seeds = str(len(tables.figures(found, name, "seconds")))
    if errors:
        return [seeds, f"crash: {errors[0][:60]}".replace("|", "/"), "-", "-", "-", *cost]
    rates = [tables.percent(tables.figures(found, name, key)) for key in ("tpr", "fpr")]
    missed = str(sum(map(len, tables.figures(found, name, "missed"))))
    return [seeds, *rates, tables.alarms(found, name), missed, *cost]


def _overall(document: Mapping[str, Any]) -> str:
    """Return one line for each method: means over the rows, and what happened on data with nothing planted."""
    cells = document["cells"]
    rows = []
    for name in METHODS:
        measured = [cell for cell in cells if name in cell["steps"]]
        if not measured:
            continue
        crashed = len(tables.figures(measured, name, "error"))
        rates = [tables.percent(tables.figures(measured, name, key), 1) for key in ("tpr", "fpr")]
        cost = [tables.mean(tables.figures(measured, name, key), digits) for key, digits in (("seconds", 1), ("megabytes", 0))]
        rows.append([name, *rates, tables.alarms(measured, name), f"{crashed} of {len(measured)}", *cost])
    header = ["all rows", "TPR, mean", "FPR, mean", "clean classes accused", "crashes", "seconds, mean", "memory MB, mean"]
    return tables.markdown(header, rows)

"""``toxscreen bench``: run a grid of planted and clean scans, hold each against the truth, and keep every cell.

Beside the flow. A cell is stored as soon as it is measured: a grid that was stopped goes on with the cells that are missing.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toxscreen.audit import audit
from toxscreen.config import ScanConfig
from toxscreen.errors import UsageError
from toxscreen.metrics import read_truth, score
from toxscreen.poisoning import poison
from toxscreen.store import package_versions


@dataclass(frozen=True)
class Case:
    """One data set, with what is planted in it (nothing where ``attack`` is None); ``share`` is of the target class."""

    data: str
    attack: str | None = None
    target: str = ""
    source: str | None = None
    share: float = 0.1

    @property
    def name(self) -> str:
        """Return what a row of the table is called."""
        if self.attack is None:
            return f"{self.data}, nothing planted"
        source = "" if self.source is None else f" from {self.source}"
        return f"{self.data}, {self.attack}{source} to {self.target}, {self.share:.0%} of the class"


TABLES: Mapping[str, tuple[Case, ...]] = {
    "scan": (
        Case("mnist", "badnets", "7"),
        Case("mnist"),
        Case("rotten-tomatoes", "signature", "negative", "positive"),
        Case("rotten-tomatoes"),
        Case("cifar10", "badnets", "airplane"),
        Case("cifar10"),
        Case("cifar10", "blended", "airplane"),
        Case("gtsrb", "badnets", "speed limit 50"),
        Case("gtsrb"),
        Case("ag-news", "words", "Sports", share=0.05),
        Case("ag-news", "sentence", "Sports"),
        Case("ag-news"),
        Case("sst2", "words", "positive"),
        Case("sst2"),
    ),
}
"""The tables by name. The first two data sets are those that the thresholds were chosen with; the others are run once."""


def run_table(
    name: str, data: Path, results: Path, *, seeds: int, only: str | None = None, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Measure the cells of a table that ``results`` does not hold yet, and return the whole document.

    Parameters
    ----------
    name
        Of the table.
    data
        Folder with a data set per sub-folder.
    results
        Folder of ``<name>.json``.
    seeds
        Seeds 0 to ``seeds - 1``, each of planting and scan.
    only
        Restricts the table to one data set.
    tell
        Told each cell as it is measured, and each data set that is missing.

    Raises
    ------
    UsageError
        There is no such table.
    """
    if name not in TABLES:
        raise UsageError(f"The table must be one of {', '.join(TABLES)}, got {name!r}.")
    path = results / f"{name}.json"
    document: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {"table": name, "cells": []}
    done = {(cell["case"], cell["seed"]) for cell in document["cells"]}
    for case, seed in _cells(name, seeds, only):
        if (case.name, seed) in done:
            continue
        if not (data / case.data).exists():
            tell(f"{case.name}: there is no {data / case.data}")
            continue
        cell = {"case": case.name, **asdict(case), "seed": seed, **_measure(case, data / case.data, seed), "at": _circumstances()}
        document["cells"].append(cell)
        results.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1), "utf-8")
        tell(f"{case.name}, seed {seed}: {cell['verdict']}, accused {cell['accused']}, TPR {cell['tpr']}, FPR {cell['fpr']}")
    return document


def markdown_table(document: Mapping[str, Any]) -> str:
    """Return the results as a table: one row per case, percentages as mean (lowest - highest) over the seeds."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for cell in document["cells"]:
        rows.setdefault(cell["case"], []).append(cell)
    lines = [
        "| data and poison | seeds | right classes accused | TPR % | FPR % | accuracy % | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, cells in rows.items():
        right = sum(not cell["false_alarms"] and not cell["missed"] for cell in cells)
        figures = [_spread([cell[key] for cell in cells]) for key in ("tpr", "fpr", "out_of_sample_accuracy")]
        seconds = sum(cell["seconds"] for cell in cells) / len(cells)
        lines.append(f"| {case} | {len(cells)} | {right} of {len(cells)} | {' | '.join(figures)} | {seconds:.0f} |")
    return "\n".join(lines)


def _cells(name: str, seeds: int, only: str | None) -> Iterator[tuple[Case, int]]:
    for seed in range(seeds):
        for case in TABLES[name]:
            if only in (None, case.data):
                yield case, seed


def _measure(case: Case, data: Path, seed: int) -> dict[str, Any]:
    """Plant, scan and compare."""
    with tempfile.TemporaryDirectory(prefix="toxscreen-bench-") as scratch:
        scanned, truth = data, None
        if case.attack is not None:
            planted = poison(
                data, case.attack, target=case.target, source=case.source, share=case.share, seed=seed, out=Path(scratch) / "data"
            )
            scanned, truth = planted.out, read_truth(planted.truth)
        start = time.perf_counter()
        result = audit(scanned, config=ScanConfig(seed=seed), folder=Path(scratch) / "run")
        seconds = time.perf_counter() - start
    accused = [c.name for c in result.classes if c.accused]
    figures: dict[str, Any] = {
        "verdict": str(result.verdict),
        "accused": accused,
        "evidence": {c.name: dict(c.groups[1].evidence) for c in result.classes if len(c.groups) > 1},
        "out_of_sample_accuracy": result.inputs["model"]["out_of_sample_accuracy"],
        "seconds": round(seconds, 1),
        "n_samples": len(result.samples),
    }
    if truth is None:
        return {**figures, "tpr": None, "fpr": result.n_flagged / len(result.samples), "false_alarms": accused, "missed": []}
    metrics = score(result.samples, truth)
    found = {"tpr": metrics.counts.tpr, "fpr": metrics.counts.fpr}
    return {**figures, **found, "false_alarms": list(metrics.false_alarms), "missed": list(metrics.missed)}


def _circumstances() -> dict[str, Any]:
    """Return what a figure depends on beside its settings."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S607 - git is where the user has it
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    machine = {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()}
    return {"commit": commit, "machine": machine, "versions": package_versions(), "python": platform.python_version()}


def _spread(values: list[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{sum(known) / len(known):.2f}"
    return mean if max(known) - min(known) < 0.005 else f"{mean} ({min(known):.2f} - {max(known):.2f})"

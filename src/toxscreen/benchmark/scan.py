"""The table ``scan``: planted and clean data sets, scanned without a model by the command's defaults."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from toxscreen.audit import audit
from toxscreen.benchmark import tables
from toxscreen.benchmark.grid import Settings, Steps
from toxscreen.config import ScanConfig
from toxscreen.metrics import read_truth, score
from toxscreen.poisoning import poison

SEEDS = 3


@dataclass(frozen=True)
class ScanCase:
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


CASES = (
    ScanCase("mnist", "badnets", "7"),
    ScanCase("mnist"),
    ScanCase("rotten-tomatoes", "signature", "negative", "positive"),
    ScanCase("rotten-tomatoes"),
    ScanCase("cifar10", "badnets", "airplane"),
    ScanCase("cifar10"),
    ScanCase("cifar10", "blended", "airplane"),
    ScanCase("gtsrb", "badnets", "speed limit 50"),
    ScanCase("gtsrb"),
    ScanCase("ag-news", "words", "Sports", share=0.05),
    ScanCase("ag-news", "sentence", "Sports"),
    ScanCase("ag-news"),
    ScanCase("sst2", "words", "positive"),
    ScanCase("sst2"),
)
"""The first two data sets are those that the thresholds were chosen with; the others are run once."""


def cells(settings: Settings, seeds: int) -> Iterator[tuple[ScanCase, int]]:
    """Yield rows and seeds; a quick table has none, because the tests of the scan are that."""
    for seed in range(seeds if settings.scale != "quick" else 0):
        for case in CASES:
            yield case, seed


def steps(case: ScanCase, seed: int, settings: Settings) -> Steps:
    """Return the one measurement of a cell."""
    return {"scan": partial(_measure, case, settings.data / case.data, seed)}


def markdown(document: Mapping[str, Any]) -> str:
    """Return the results as a table: one row per case, percentages as mean (lowest - highest) over the seeds."""
    header = ["data and poison", "seeds", "right classes accused", "TPR %", "FPR %", "accuracy %", "seconds"]
    rows = []
    for case, found in tables.by_case(document, "scan").items():
        right = sum(not cell["steps"]["scan"]["false_alarms"] and not cell["steps"]["scan"]["missed"] for cell in found)
        shown = [tables.percent(tables.figures(found, "scan", key)) for key in ("tpr", "fpr", "out_of_sample_accuracy")]
        seconds = tables.mean(tables.figures(found, "scan", "seconds"))
        rows.append([case, f"{len(found)}", f"{right} of {len(found)}", *shown, seconds])
    return tables.markdown(header, rows)


def _measure(case: ScanCase, data: Path, seed: int) -> dict[str, Any]:
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

"""A grid of measurements that can be stopped at any point and goes on with those that are missing.

A cell is one row of a table with one seed. It is measured in steps, each of which is stored as soon as it is done, with the
circumstances it was made under: a table that gets a new column measures that column alone.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from toxscreen.store import package_versions

Scale = Literal["quick", "normal", "full"]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """Where a benchmark finds its data and leaves its work.

    Attributes
    ----------
    data
        Folder with a data set per sub-folder.
    work
        Folder for poisoned models and their activations, so that a later column needs no training.
    results
        Folder of the results, one document per table.
    scale
        ``quick`` measures a tiny part in seconds, ``full`` the networks and sizes of the papers.
    """

    data: Path
    work: Path
    results: Path
    scale: Scale = "normal"

    def document(self, table: str) -> Path:
        """Return where the results of a table are: those of another scale never stand among them."""
        return self.results / (f"{table}.json" if self.scale == "normal" else f"{table}-{self.scale}.json")


class Row(Protocol):
    """What a row of a table must say of itself; a frozen dataclass."""

    @property
    def name(self) -> str:
        """How the table calls it."""

    @property
    def data(self) -> str:
        """The sub-folder of its data set; empty where it needs none."""


RowT = TypeVar("RowT", bound=Row)
Steps = Mapping[str, Callable[[], dict[str, Any]]]
"""The measurements of a cell by name, in order."""


def run_grid(
    table: str, cells: Iterable[tuple[RowT, int]], steps: Callable[[RowT, int], Steps], settings: Settings, tell: Tell
) -> dict[str, Any]:
    """Measure what the results do not hold yet, and return the whole document.

    Parameters
    ----------
    table
        Name of the table.
    cells
        Rows and seeds, in the order in which they are measured.
    steps
        Returns the measurements of a cell; what they share is made when the first of them asks for it.
    settings
        Where data, work and results are.
    tell
        Told each step as it is measured, each data set that is missing, and each step that failed: it is tried again next time.
    """
    path = settings.document(table)
    document: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {"table": table, "cells": []}
    known = {(cell["case"], cell["seed"]): cell for cell in document["cells"]}
    missing: set[str] = set()
    for row, seed in cells:
        if row.data and not (settings.data / row.data).exists():
            if row.data not in missing:
                tell(f"There is no data set {settings.data / row.data}: its rows are left out.")
            missing.add(row.data)
            continue
        said = json.loads(json.dumps(asdict(row)))  # type: ignore[call-overload]
        cell = known.setdefault((row.name, seed), {"case": row.name, "seed": seed, "settings": said, "steps": {}})
        for name, measure in steps(row, seed).items():
            if name in cell["steps"]:
                continue
            try:
                cell["steps"][name] = {**measure(), "at": circumstances()}
            except Exception as error:  # noqa: BLE001 - a step that fails must not cost the night's other cells
                tell(f"{row.name}, seed {seed}, {name}: {type(error).__name__}: {error}")
                continue
            document["cells"] = [kept for kept in known.values() if kept["steps"]]
            _write(path, document)
            tell(f"{row.name}, seed {seed}, {name}: {_short(cell['steps'][name])}")
    return document


@cache
def circumstances() -> dict[str, Any]:
    """Return what a figure depends on beside its settings: commit, machine and versions."""
    import torch

    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)  # noqa: S603 - our own words
        commit = done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    machine = {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return {
        "commit": commit,
        "machine": machine,
        "threads": threads,
        "versions": package_versions(),
        "python": platform.python_version(),
    }


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Replace the results, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    temporary.replace(path)


def _short(figures: Mapping[str, Any]) -> str:
    """Return the plain numbers of a step for who watches."""
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, int | float))

"""``toxscreen bench``: run a grid of planted and clean scans, hold each against the truth, and keep every cell.

Beside the flow. One module per table: its rows, the measurements of a cell, and the table made of the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from toxscreen.benchmark.grid import Settings, Tell, run_grid
from toxscreen.errors import UsageError

__all__ = ["TABLES", "Settings", "markdown_table", "run_table"]

TABLES = ("scan", "paper", "board", "peers", "attacks", "exclusion", "calibration", "verdict", "ablation", "speed")
"""The modules of the tables; each has ``SEEDS``, ``cells``, ``steps`` and ``markdown``, and is imported when it is asked for."""


def run_table(name: str, settings: Settings, *, seeds: int | None = None, only: str | None = None, tell: Tell) -> dict[str, Any]:
    """Measure the cells of a table that the results do not hold yet, and return the whole document.

    Parameters
    ----------
    name
        Of the table.
    settings
        Where data, work and results are, and how large the measurement is.
    seeds
        Seeds 0 to ``seeds - 1``; None for the table's own number.
    only
        Restricts the table to the rows of one data set, or to those whose name holds this text.
    tell
        Told each step as it is measured, and each data set that is missing.

    Raises
    ------
    UsageError
        There is no such table, or no such row.
    """
    if name not in TABLES:
        raise UsageError(f"The table must be one of {', '.join(TABLES)}, got {name!r}.")
    table = _module(name)
    chosen = [cell for cell in table.cells(settings, seeds or table.SEEDS) if only is None or _named(cell[0], only)]
    if only is not None and not chosen:
        names = dict.fromkeys(row.name for row, _ in table.cells(settings, 1))
        raise UsageError(f"--only must name a data set of the table {name} or a part of a row, got {only!r}: {'; '.join(names)}.")
    return run_grid(name, chosen, lambda row, seed: table.steps(row, seed, settings), settings, tell)


def markdown_table(name: str, document: Mapping[str, Any]) -> str:
    """Return the results of a table in Markdown."""
    table: str = _module(name).markdown(document)
    return table


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name}")


def _named(row: Any, only: str) -> bool:
    return only in (row.data, row.name) or only.lower() in row.name.lower()

"""What ``toxscreen inspect`` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from toxscreen.inspection import Inspection
from toxscreen.report.wording import visible

_MOST = 60
"""Rows of a table; a network may have thousands of layers."""


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print what a path is, its facts, and its classes or layers; what comes from files reaches the console as plain text."""
    console.print(Text(f"{visible(inspection.path)}: {visible(inspection.kind)} ({inspection.what})"), highlight=False)
    facts = Table.grid(Column(overflow="fold"), Column(overflow="fold"), padding=(0, 2))
    for name, value in inspection.facts:
        facts.add_row(Text(visible(name)), Text(visible(value)))
    console.print(facts, highlight=False)
    boxed = console.is_terminal
    if any(n is not None for _, n in inspection.classes):
        counted = [(name, "" if n is None else f"{n:,}") for name, n in inspection.classes]
        _print_rows(("class", "samples"), counted, console, boxed=boxed)
    else:
        _print_rows(("class",), [(name,) for name, _ in inspection.classes], console, boxed=boxed)
    # counters such as num_batches_tracked are no weights
    shown = [layer for layer in inspection.tensors if layer.shape or inspection.tensors_are == "layers"]
    tensors = [(layer.name, "x".join(map(str, layer.shape)), layer.kind) for layer in shown]
    _print_rows((inspection.tensors_are, "shape", "kind"), tensors, console, boxed=boxed)
    for note in inspection.notes:
        console.print(Text(visible(note)), highlight=False)


def _print_rows(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], console: Console, *, boxed: bool) -> None:
    if not rows:
        return
    # Folded, because a name that is cut cannot be given to --layer.
    table = Table(*(Column(name, overflow="fold") for name in head), box=box.SIMPLE_HEAD if boxed else None)
    for row in rows[:_MOST]:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console.print(table, highlight=False)
    if len(rows) > _MOST:
        console.print(f"... and {len(rows) - _MOST:,} more", highlight=False)

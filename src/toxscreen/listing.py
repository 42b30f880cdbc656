"""What ``toxscreen inspect`` and ``toxscreen clean`` print."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from toxscreen.inspection import Inspection
from toxscreen.repairing.actions import Action
from toxscreen.repairing.cleaning import Cleaning, Outcome
from toxscreen.report.wording import count, visible

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


def print_cleaning(cleaning: Cleaning, console: Console) -> None:
    """Print what is done with how many samples of each class, and where the copy lies."""
    actions, places = cleaning.actions, cleaning.places
    n, stay = len(actions.given), len(actions.kept)
    counts = actions.counts()
    rows = [(name or "(no label)", str(action), f"{found:,}") for (name, action), found in sorted(counts.items())]
    _print_rows(("class", "action", "samples"), rows, console, boxed=console.is_terminal)
    if cleaning.outcome is Outcome.NOTHING:
        sentences = [f"Nothing to do: none of {count(n, 'sample')} is to be taken out or relabelled."]
    else:
        relabelled = len(actions.rows_of(Action.RELABEL))
        sentences = [f"{stay:,} of {count(n, 'sample')} stay{f', {relabelled:,} of them with a new label' if relabelled else ''}."]
    sentences += [
        f"Dropped instead of relabelled: {count(found, 'sample')}, because {why}." for why, found in actions.unsettled.items()
    ]
    if cleaning.outcome is Outcome.PLANNED:
        sentences.append("Nothing was written.")
    elif places is not None:
        there = "Nothing to do, it is there already: " if cleaning.outcome is Outcome.THERE else "Cleaned copy: "
        sentences.append(f"{there}{places.copy}")
        sentences += [f"Quarantine: {places.quarantine}"] if places.quarantine is not None else []
        sentences.append(f"Manifest: {places.table}")
    for sentence in sentences:
        console.print(Text(visible(sentence)), highlight=False, soft_wrap=True)


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

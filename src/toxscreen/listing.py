"""What ``toxscreen inspect``, ``toxscreen clean`` and ``toxscreen trigger`` print."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from toxscreen.applying import Applied, Finding, StoredTrigger
from toxscreen.inspection import Inspection
from toxscreen.repairing.actions import Action
from toxscreen.repairing.cleaning import Cleaning, Outcome
from toxscreen.repairing.manifest import CLEANED
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
        sentences += [f"Manifest: {places.table}", CLEANED]
    _print_sentences(*sentences, console=console)


def print_trigger(stored: StoredTrigger, console: Console) -> None:
    """Print what a trigger is and what it did to the model that it was recovered with."""
    kind = "trigger" if stored.proved else "best candidate for a trigger, which proves nothing"
    sentences = [f"{stored.trigger}: {kind}, recovered from group {stored.group} of class {stored.target!r}."]
    match stored.document.get("flips"), stored.document.get("control_flips"):
        case {"count": int(flipped), "n": int(n)}, {"count": int(control), "n": int(n_control)}:
            told = f"It sent {flipped:,} of {n:,} inputs of other classes to this class"
            sentences.append(f"{told}, and its controls {control:,} of {n_control:,}.")
    _print_sentences(*sentences, console=console)


def print_finding(finding: Finding, console: Console) -> None:
    """Print how many samples of each class hold a trigger."""
    ranked = sorted(finding.by_class.items(), key=lambda item: -item[1][1])
    rows = [(name or "(no label)", f"{n:,}", f"{held:,}") for name, (n, held) in ranked]
    _print_rows(("class", "samples", "with the trigger"), rows, console, boxed=console.is_terminal)
    read = sum(n for n, _ in finding.by_class.values())
    resized = f"To look for it {count(finding.resized, 'picture')} had to be brought to its size." if finding.resized else ""
    _print_sentences(
        f"Of {count(read, 'sample')} {len(finding.rows):,} hold the trigger.", resized, _unread(finding.unreadable), console=console
    )


def print_applied(applied: Applied, console: Console) -> None:
    """Print where a copy with a trigger lies."""
    resized = f"It was brought to the size of {count(applied.resized, 'picture')}." if applied.resized else ""
    sentences = (f"{count(applied.n, 'sample')} carry the trigger.", resized, _unread(applied.unreadable), f"Copy: {applied.out}")
    _print_sentences(*sentences, console=console)


def _unread(n: int) -> str:
    return f"{count(n, 'sample')} could not be read." if n else ""


def _print_sentences(*sentences: str, console: Console) -> None:
    for sentence in filter(None, sentences):
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

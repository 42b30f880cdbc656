"""The summary that ``toxscreen repair`` prints when it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from toxscreen.repairing.measures import Change
from toxscreen.repairing.model import MODEL, Outcome, Repair
from toxscreen.report.wording import clipped, count, visible
from toxscreen.shares import Share

_ROWS = 25
"""Classes in the table; ``repair.json`` holds them all."""
_NAME, _SENTENCE = 40, 1000
"""Characters of a name and of a sentence."""
_INDENT = (0, 0, 0, 2)

_STYLES = {Outcome.NOTHING: "bold cyan", Outcome.REPAIRED: "bold cyan", Outcome.WORSE: "bold red"}


def print_repair(repair: Repair, out: Path, console: Console) -> None:
    """Print how a repair ended, what was measured before and after, what was trained and on how much, and where the model lies."""
    for renderable in _summary(repair, boxed=console.is_terminal):
        console.print(renderable, highlight=False)
    if repair.measures is not None:
        console.print(Text(f"Repaired model: {visible(str((out / MODEL).resolve()))}"), highlight=False, soft_wrap=True)


def _summary(repair: Repair, *, boxed: bool) -> Iterator[RenderableType]:
    style = _STYLES[repair.outcome]
    measures, effort = repair.measures, repair.effort
    if measures is None or effort is None:
        yield Text.assemble((repair.outcome.upper(), style), "  The run flagged no sample, or the reviewer keeps all of them.")
        yield from (Text(visible(note)) for note in repair.notes)
        return
    said = " ".join(measures.worse) or "The figures are of samples that were held out of the repair."
    yield Text.assemble((repair.outcome.upper(), style), f"  {said}")
    yield ""
    measured = {"clean accuracy": measures.clean_accuracy, "attack success": measures.attack_success}
    if measures.trigger_success.after.n:
        measured["with the recovered trigger"] = measures.trigger_success
    if measures.plain_error.after.n:
        measured["plain error"] = measures.plain_error
    yield _table("measure", measured, boxed=boxed)
    if measures.plain_error.after.n:
        yield Text("Plain error: ordinary samples of the source classes that go to the target without an attack.")
    yield ""
    lost = sorted(measures.classes.items(), key=lambda entry: entry[1].after.value - entry[1].before.value)
    yield _table("clean accuracy of class", dict(lost[:_ROWS]), boxed=boxed)
    if len(lost) > _ROWS:
        yield Text(f"More: {count(len(lost) - _ROWS, 'class')} that lost no more, all in repair.json.")
    yield ""
    epochs = "" if effort.epochs is None else f", {effort.epochs:.1f} epochs"
    yield Text(f"Trained: {visible(repair.trained)}{epochs} in {effort.seconds:,.0f} seconds.")
    yield Text("Samples: " + ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in repair.samples.items() if n) + ".")
    yield Text(f"Clean accuracy was measured on {visible(repair.measured_on)}.")
    yield ""
    if repair.notes:
        yield Text("Notes", "bold")
        yield from (Padding(Text(clipped(note, _SENTENCE)), _INDENT, expand=False) for note in repair.notes)
        yield ""


def _table(head: str, rows: Mapping[str, Change], *, boxed: bool) -> Table:
    figures = (Column(name, justify="right", no_wrap=True) for name in ("samples", "before", "after", "95 % interval"))
    table = Table(Column(head, overflow="fold"), *figures, box=box.SIMPLE_HEAD if boxed else None, pad_edge=False)
    for name, change in rows.items():
        lower, upper = change.after.interval
        interval = f"{lower:.1%} to {upper:.1%}" if change.after.n else "-"
        table.add_row(Text(clipped(name, _NAME)), f"{change.after.n:,}", _percent(change.before), _percent(change.after), interval)
    return table


def _percent(share: Share) -> str:
    return f"{share.value:.1%}" if share.n else "-"

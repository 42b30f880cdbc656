"""The summary that a scan prints when it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from toxscreen.report.wording import clipped, count, headline
from toxscreen.result import ClassResult, ScanResult, Verdict
from toxscreen.verdict import Rule

_ROWS, _EXPLAINED, _UNEXAMINED = 25, 10, 5
"""Classes in the table, classes whose reasons are printed, and samples that were not examined; the report holds more."""
_NAME, _SENTENCE = 40, 1000
"""Characters of a name and of a sentence."""
_INDENT = (0, 0, 0, 2)

_STYLES = {
    Verdict.CLEAN: "bold cyan",
    Verdict.INCONCLUSIVE: "bold",
    Verdict.SUSPICIOUS: "bold yellow",
    Verdict.POISONED: "bold red",
}


def print_summary(result: ScanResult, console: Console) -> None:
    """Print the verdict, the classes that are not clean with their reasons, and what was not examined.

    Parameters
    ----------
    result
        What the scan found.
    console
        Where to print; decides width and colour. What comes from the data reaches it as plain text without control characters.
    """
    for renderable in _summary(result, boxed=console.is_terminal):
        console.print(renderable, highlight=False)


def print_policy(verdicts: Mapping[Verdict, str], rules: Mapping[str, Rule], console: Console) -> None:
    """Print what each verdict means, and each rule with its number, its meaning and its source."""
    for verdict, meaning in verdicts.items():
        console.print(Text.assemble((verdict, _STYLES[verdict]), f": {meaning}"), highlight=False)
    console.print()
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True)
    for name, rule in rules.items():
        named = Text.assemble((name, "bold"), f"\n{rule.value:g}")
        table.add_row(named, Text.assemble(rule.meaning, ("\nSource: ", "bold"), f"{rule.source}."))
    console.print(table, highlight=False)


def _summary(result: ScanResult, *, boxed: bool) -> Iterator[RenderableType]:
    ranked = sorted(result.classes, key=lambda c: (-c.verdict.severity, -c.n_accused))
    not_clean = [c for c in ranked if c.verdict is not Verdict.CLEAN]
    yield Text.assemble((result.verdict.upper(), _STYLES[result.verdict]), "  ", headline(result))
    yield ""
    if not_clean:
        yield _table(not_clean[:_ROWS], boxed=boxed)
    if len(not_clean) > _ROWS:
        yield Text(f"More that are not clean: {count(len(not_clean) - _ROWS, 'class')}, listed in the report.")
    if len(ranked) > len(not_clean):
        yield Text(f"Clean: {count(len(ranked) - len(not_clean), 'class')}.")
    if floor := _detection_floor(result.classes):
        yield Text(floor)
    if "dtype" in result.inputs:
        yield Text(f"The model ran on {result.inputs['device']} in {result.inputs['dtype']}.")
    yield ""
    yield from _why(not_clean)
    if result.not_examined:
        yield Text(f"Not examined: {len(result.not_examined):,}", "bold")
        for item in result.not_examined[:_UNEXAMINED]:
            yield Padding(Text(f"{clipped(item.id, _NAME)}: {clipped(item.reason, _SENTENCE)}"), _INDENT, expand=False)
        if len(result.not_examined) > _UNEXAMINED:
            yield Padding(Text(f"and {len(result.not_examined) - _UNEXAMINED:,} more, all in result.json"), _INDENT, expand=False)
        yield ""
    if result.notes:
        yield Text("Notes", "bold")
        yield from (Padding(Text(clipped(note, _SENTENCE)), _INDENT, expand=False) for note in result.notes)
        yield ""


def _detection_floor(classes: Sequence[ClassResult]) -> str:
    """Say how little poison the screen would have found; nothing where that was not measured."""
    floors = sorted(c.detection_floor for c in classes if c.detection_floor is not None)
    if not floors:
        return ""
    sizes = f"{floors[0]:,}" if floors[0] == floors[-1] else f"{floors[0]:,} to {floors[-1]:,}"
    without = sum(c.detection_floor is None for c in classes)
    rest = f"; {count(without, 'class')} without any: no number that was tried is enough" if without else ""
    trials = "of one trigger that moves them 8 standard deviations, found by the screen alone in four of five trials"
    below = "Fewer or fainter ones, and clean-label poison, may be missed, or found by their trigger."
    return f"Detection floor: {sizes} poisoned samples, by class ({trials}){rest}. {below}"


def _table(classes: Sequence[ClassResult], *, boxed: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD if boxed else None, pad_edge=False)
    table.add_column("class", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("samples", justify="right", no_wrap=True)
    table.add_column("standing out", justify="right", no_wrap=True)
    for c in classes:
        part = f"{c.n_accused:,} ({c.accused_share:.1%})" if c.n_accused else "-"
        table.add_row(Text(clipped(c.name, _NAME)), Text(c.verdict, _STYLES[c.verdict]), f"{c.n:,}", part)
    return table


def _why(classes: Sequence[ClassResult]) -> Iterator[RenderableType]:
    """Give the reasons of each class as long as they are few, each one indented below its name."""
    for c in classes[:_EXPLAINED]:
        yield Text.assemble((clipped(c.name, _NAME), "bold"), f": {c.verdict}, because")
        yield from (Padding(Text(clipped(reason, _SENTENCE)), _INDENT, expand=False) for reason in c.reasons)
        yield ""
    if more := classes[_EXPLAINED:]:
        yield f"Why {len(more)} more {'is' if len(more) == 1 else 'are'} not clean, the report says.\n"

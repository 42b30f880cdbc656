"""The results as tables in Markdown, made from the stored documents alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Cell = Mapping[str, Any]


def by_case(document: Mapping[str, Any], step: str) -> dict[str, list[Cell]]:
    """Return the cells of each row that have a step, in the order of the document."""
    rows: dict[str, list[Cell]] = {}
    for cell in document["cells"]:
        if step in cell["steps"]:
            rows.setdefault(cell["case"], []).append(cell)
    return rows


def figures(cells: Iterable[Cell], step: str, *path: str) -> list[Any]:
    """Return one figure of a step for every cell that has it, such as ``figures(cells, "art", "smaller", "f1")``."""
    found = []
    for cell in cells:
        value: Any = cell["steps"].get(step)
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            found.append(value)
    return found


def percent(values: Sequence[float | None], digits: int = 2) -> str:
    """Return parts of 1 as percentages, mean (lowest - highest); a dash where there are none."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{sum(known) / len(known):.{digits}f}"
    if max(known) - min(known) < 0.5 * 10**-digits:
        return mean
    return f"{mean} ({min(known):.{digits}f} - {max(known):.{digits}f})"


def mean(values: Sequence[float | None], digits: int = 0) -> str:
    """Return the mean of plain numbers; a dash where there are none."""
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):,.{digits}f}" if known else "-"


def both(found: Sequence[Cell], *path: str, lowest: bool = False) -> str:
    """Return accuracy and F1 of poison detection within the poisoned classes, in percent; a dash for clean data."""
    names = ("worst_accuracy", "worst_f1") if lowest else ("accuracy", "f1")
    values = [figures(found, *path, name) for name in names]
    if lowest:
        values = [[min(part)] if part else [] for part in values]
    return " / ".join(percent(part) for part in values) if any(values) else "-"


def alarms(found: Sequence[Cell], *path: str) -> str:
    """Return how many clean classes were accused, of how many, over all seeds."""
    accused = sum(len(names) for names in figures(found, *path, "false_alarms"))
    return f"{accused} of {sum(figures(found, *path, 'n_clean_classes'))}"


def filled(page: str, tables: Mapping[str, str]) -> str:
    """Return a page with each table between its marks, ``<!-- name -->`` and ``<!-- /name -->``; one without marks is left out."""
    for name, table in tables.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = page.partition(start)
        if found and end in rest:
            page = f"{before}{start}\n{table}\n{end}{rest.partition(end)[2]}"
    return page


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("| --- ", "|---").replace("|--- |", "|---|")

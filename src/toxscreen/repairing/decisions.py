"""A reviewer's decisions: which accusations are right, sample by sample or for a group at once."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from toxscreen.errors import DataError
from toxscreen.repairing.manifest import unguarded
from toxscreen.report.wording import clipped
from toxscreen.result import ScanResult

_DECISIONS = {"accept": 1, "reject": -1}
_NAMED, _NAME, _DIGITS = 3, 200, 20
"""Samples that a message names, characters of a name, and digits of a number."""


@dataclass
class _Said:
    """What a file says, as it is read: a decision by id, and by class and group."""

    file: Path
    by_id: dict[str, int] = field(default_factory=dict)
    by_group: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, line: int, entry: Mapping[str, str]) -> None:
        decision = _DECISIONS.get(entry.get("decision", "").strip().lower())
        if decision is None:
            raise DataError(f"A decision must be accept or reject, but line {line} of {self.file} says {entry['decision']!r}.")
        if entry.get("id"):
            self._set(self.by_id, entry["id"], decision, f"sample {entry['id']!r}")
            return
        name, group = entry.get("class", ""), entry.get("group", "").strip()
        if not name or not (group.isascii() and group.isdecimal()):
            raise DataError(
                f"A decision must be about a sample (id) or a group (class and group, a number), but line {line} of {self.file} "
                "names neither."
            )
        group = group.lstrip("0") or "0"  # as text, for it may have more digits than a number can
        self._set(self.by_group, (name, group), decision, f"group {clipped(group, _DIGITS)} of class {name!r}")

    def _set(self, known: dict[Any, int], key: Any, decision: int, what: str) -> None:
        if known.setdefault(key, decision) != decision:
            raise DataError(f"{self.file} both accepts and rejects the accusation of {what}. Leave one of the two away.")


def read_decisions(file: Path, result: ScanResult) -> NDArray[np.int8]:
    """Read which accusations a reviewer accepts (the sample is taken out) and which are rejected (it is kept).

    Parameters
    ----------
    file
        A ``.csv`` with a header line, or ``.jsonl``, with the columns ``id`` and ``decision`` (``accept`` or ``reject``). Instead
        of an id a row may name a ``class`` and the number of one of its groups. What is said of a sample comes before what is
        said of its group; other columns are not read, and rows without a decision say nothing. Samples that were not flagged may
        be named too.
    result
        The scan that the decisions are about.

    Returns
    -------
    ndarray
        int8 ``(n_samples,)``: 1 for accept, -1 for reject, 0 where nothing is said.

    Raises
    ------
    DataError
        If the file cannot be read, names samples or groups that the scan does not know, or contradicts itself.
    """
    said = _Said(file)
    try:
        for line, entry in _rows(file):
            if entry.get("decision", "").strip():
                said.add(line, entry)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"The decisions in {file} cannot be read: {error}. Give a CSV file in UTF-8, or JSONL.") from error
    decisions = np.zeros(result.samples.num_rows, np.int8)
    label, group = result.samples["label"], result.samples["group"]
    groups = {(found.name, str(known.id)) for found in result.classes for known in found.groups}
    for (name, number), decision in said.by_group.items():
        if (name, number) not in groups:
            raise DataError(
                f"{file} names group {clipped(number, _DIGITS)} of class {name!r}, but the scan found no such group; see the "
                "report."
            )
        members = pc.fill_null(pc.and_(pc.equal(label, name), pc.equal(group, int(number))), False)
        decisions[members.to_numpy()] = decision
    ids = pa.array(list(said.by_id), pa.string())
    rows = pc.index_in(ids, value_set=result.samples["id"].combine_chunks())
    if rows.null_count:
        unknown = ids.filter(pc.is_null(rows))
        named = ", ".join(repr(clipped(name, _NAME)) for name in unknown.slice(0, _NAMED).to_pylist())
        raise DataError(
            f"Every id must be one of the scan's samples, but {len(unknown):,} of {len(ids):,} in {file} are not: {named}"
            f"{', ...' if len(unknown) > _NAMED else ''}. The ids stand in samples.parquet of the run."
        )
    decisions[np.asarray(rows, np.int64)] = list(said.by_id.values())
    return decisions


def _rows(file: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the number of each line with its cells by the name of their column."""
    if file.suffix.lower() in (".jsonl", ".ndjson"):
        yield from _json_rows(file)
        return
    with file.open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.reader(opened, strict=True)
        rows = _whole(reader)
        names = [name.strip().lower() for name in next(rows, [])]
        if len(set(names)) < len(names):
            raise DataError(f"Each column must have a name of its own, but in {file} a name stands twice in the first line.")
        if "decision" not in names or not ({"id"} <= {*names} or {"class", "group"} <= {*names}):
            raise DataError(
                f"Decisions must have the columns decision and id (or class and group), but the first line of {file} has "
                f"{', '.join(map(repr, names)) or 'none'}."
            )
        for cells in rows:
            yield reader.line_num, dict(zip(names, map(unguarded, cells), strict=False))


def _whole(reader: Any) -> Iterator[list[str]]:
    """Yield the rows of a CSV reader, and say where one begins that cannot be read."""
    start = 1
    try:
        for cells in reader:
            start = reader.line_num + 1
            yield cells
    except csv.Error as error:
        raise csv.Error(f"the row that begins in line {start} is broken, or its quotes are not closed ({error})") from error


def _json_rows(file: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    with file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            if not line.strip():
                continue
            row = _object(line)
            if row is None or "decision" not in row:
                raise DataError(
                    f"Each line must be an object of JSON with a decision, and no name twice, but line {number} of {file} is not."
                )
            yield number, {name: _text(value) for name, value in row.items()}


def _object(line: bytes) -> dict[str, Any] | None:
    """Return the object that a line holds, its whole numbers as text; None for anything else, or where a name stands twice."""
    try:
        row = json.loads(line, object_pairs_hook=_once, parse_int=str)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a name stands twice")
    return row


def _text(value: object) -> str:
    """Return a value of JSON as text that Arrow can hold: JSON can spell half of a surrogate pair."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    return text.encode("utf-8", "backslashreplace").decode()

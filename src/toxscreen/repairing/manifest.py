"""What stands beside a cleaned data set: which samples were taken out or relabelled and why, and what the copy was made from.

Both files are siblings of the copy, ``DIR``, as the truth file of a poisoned one is: nothing inside ``DIR`` can be taken for data.

- ``DIR.manifest.csv``: one row per sample that was decided about, for people and spreadsheets.
- ``DIR.manifest.json``: from which run and data the copy was made, how many samples each action met, and digests of the result.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from toxscreen.repairing.actions import Actions
from toxscreen.result import ScanResult
from toxscreen.sources.data.base import MISSING_LABEL

CLEANED = (
    "What a scan flagged was taken out of this copy, or relabelled. A smaller part of the poison may be left, and a scan of the "
    "copy may miss it."
)
"""What whoever gets the copy has to know."""

_FORMULA = "[=+\\-@\t\r\n＝＋－＠]"
"""How a cell starts that a spreadsheet may take for a formula."""
_GUARDED = re.compile(f"'+{_FORMULA}")


def table_of(out: Path) -> Path:
    """Return where the table of the samples stands that belongs to the copy ``out``."""
    return out.with_name(f"{out.name}.manifest.csv")


def record_of(out: Path) -> Path:
    """Return where it stands what the copy ``out`` was made from."""
    return out.with_name(f"{out.name}.manifest.json")


def guarded(cells: pa.StringArray) -> pa.StringArray:
    """Return cells of a CSV file so that no spreadsheet takes one for a formula: an apostrophe goes before it."""
    return pc.replace_substring_regex(cells, f"^('*{_FORMULA})", r"'\1")


def unguarded(cell: str) -> str:
    """Return the cell that :func:`guarded` was given."""
    return cell[1:] if _GUARDED.match(cell) else cell


def write_table(path: Path, result: ScanResult, actions: Actions, new_ids: pa.StringArray) -> None:
    """Write a row for each sample that was decided about.

    Parameters
    ----------
    path
        A file that is not there yet.
    result
        The scan.
    actions
        What was done.
    new_ids
        The id of each of ``actions.rows`` in the copy or the quarantine, shape ``(m,)``; null where it is in neither.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    samples = result.samples.take(pa.array(actions.rows)).combine_chunks()
    names = pa.array(actions.class_names, pa.string())
    columns = {
        "id": samples["id"],
        "label": samples["label"],
        "action": pa.array(actions.action.tolist(), pa.string()),
        "new_label": names.take(pa.array(actions.new_labels, mask=actions.new_labels == MISSING_LABEL)),
        "group": samples["group"].cast(pa.string()),
        "verdict": samples["verdict"],
        "reason": actions.reason,
        "who": pa.array(actions.who.tolist(), pa.string()),
        "new_id": new_ids,
    }
    table = pa.table({name: guarded(pc.fill_null(column, "")) for name, column in columns.items()})
    csv.write_csv(table, path, csv.WriteOptions(quoting_style="all_valid"))


def identity(result: ScanResult, actions: Actions, asked: str) -> dict[str, Any]:
    """Return what tells one cleaning from another: the run, the data, the action asked for, and what it does with which samples."""
    document = result.to_dict()
    del document["timings"]  # a run that is repeated with all of it done has others, and says the same
    decided = hashlib.sha256(np.concatenate([actions.rows, actions.new_labels]).astype("<i8").tobytes())
    decided.update(json.dumps([actions.action.tolist(), actions.who.tolist()]).encode())
    counts = [{"class": name, "action": str(action), "n": n} for (name, action), n in actions.counts().items()]
    return {
        "schema_version": 1,
        "run": hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest(),
        "data": document["inputs"].get("data"),
        "action": asked,
        "actions": decided.hexdigest(),
        "counts": counts,
        "n_samples": len(actions.kept),
    }


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="ascii")


def read_record(path: Path) -> Mapping[str, Any]:
    """Return the record at ``path``; empty where there is none that can be read."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, ``""`` where it cannot be read."""
    try:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return ""

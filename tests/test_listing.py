"""What ``toxscreen inspect`` and ``toxscreen clean`` print."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from tests.scans import scan_result
from toxscreen.inspection import Inspection
from toxscreen.listing import print_cleaning, print_inspection
from toxscreen.repairing.actions import plan_actions
from toxscreen.repairing.cleaning import Cleaning, Outcome, Places
from toxscreen.result import CONFIRMATION_SCHEMA, Verdict
from toxscreen.sources.model.base import Layer


def printed(inspection: Inspection) -> str:
    stream = io.StringIO()
    print_inspection(inspection, Console(file=stream, width=100))
    return stream.getvalue()


def test_classes_that_nobody_counted_have_no_column_for_samples() -> None:
    model = Inspection("m", "model", "weights", classes=(("cat", None), ("dog", None)))
    assert "samples" not in printed(model)
    assert "dog" in printed(model)
    data = Inspection("d", "data set", "labelled pictures", classes=(("cat", 1234), ("dog", 0)))
    assert "samples" in printed(data)
    assert "1,234" in printed(data)


def test_counters_are_not_listed_among_the_weights() -> None:
    tensors = (Layer("norm.weight", (8,), "F32"), Layer("norm.num_batches_tracked", (), "I64"))
    weights = printed(Inspection("m", "model", "weights", tensors=tensors, tensors_are="weights"))
    assert "norm.weight" in weights
    assert "num_batches_tracked" not in weights
    assert "num_batches_tracked" in printed(Inspection("m", "model", "network", tensors=tensors))


def test_hostile_names_in_a_cleaning_are_shown_as_plain_text() -> None:
    result = scan_result({"[red]\x1b[31m": [30, 12], "b": [1200]}, {"[red]\x1b[31m": Verdict.SUSPICIOUS})
    places = Places(Path("/x"), Path("/x/a\u202eb.csv"), Path("/x.manifest.csv"), Path("/x.manifest.json"), None)
    stream = io.StringIO()
    print_cleaning(Cleaning(plan_actions(result), Outcome.WRITTEN, places), Console(file=stream, width=40))
    text = stream.getvalue()
    assert "[red]␛[31m" in text
    assert "\x1b" not in text
    assert "Cleaned copy: /x/a⟨U+202E⟩b.csv\n" in text
    assert "1,230 of 1,242 samples stay." in text
    assert "instead of" not in text
    assert text.endswith("A smaller part of the poison may be left, and a scan of the copy may miss it.\n")


def test_what_was_to_be_relabelled_and_is_dropped_is_said_with_the_reason() -> None:
    result = scan_result({"a": [30, 12], "b": [1200]}, {"a": Verdict.SUSPICIOUS})
    ids = [str(row) for row in range(30, 35)]
    answers = pa.table({"id": ids, "answer": ["a", "a", "a", "b", "b"], "certainty": [0.9] * 5}, schema=CONFIRMATION_SCHEMA)
    stream = io.StringIO()
    actions = plan_actions(replace(result, confirmation=answers), action="relabel")
    print_cleaning(Cleaning(actions, Outcome.PLANNED), Console(file=stream, width=40))
    assert stream.getvalue().endswith(
        "1,232 of 1,242 samples stay, 2 of them with a new label.\n"
        "Dropped instead of relabelled: 3 samples, because a model trained without the flagged samples agrees with the given "
        "label.\n"
        "Dropped instead of relabelled: 7 samples, because no source class is known.\n"
        "Nothing was written.\n"
    )

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toxscreen import benchmark
from toxscreen.benchmark import Case, markdown_table, run_table
from toxscreen.errors import UsageError

ROOT = Path(__file__).parents[1]
CLEAN, PLANTED = Case("digits"), Case("digits", "badnets", "7")


def _figures(tpr, fpr, *, false_alarms=(), missed=()):
    accused = [*false_alarms, *(["7"] if tpr else [])]
    lists = {"accused": accused, "false_alarms": list(false_alarms), "missed": list(missed)}
    return {"verdict": "clean", "tpr": tpr, "fpr": fpr, "out_of_sample_accuracy": 0.5, "seconds": 10.0, **lists}


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Replace the scan itself, and return the cells that were measured."""
    cells = []

    def measure(case, _data, seed):
        cells.append((case.name, seed))
        return _figures(None if case.attack is None else 1.0, 0.0)

    monkeypatch.setattr(benchmark, "TABLES", {"small": (PLANTED, CLEAN, Case("absent"))})
    monkeypatch.setattr(benchmark, "_measure", measure)
    (tmp_path / "data" / "digits").mkdir(parents=True)
    return cells


def _run(tmp_path, seeds=1, **options):
    told = []
    document = run_table("small", tmp_path / "data", tmp_path / "results", seeds=seeds, tell=told.append, **options)
    return document, told


def test_a_cell_is_measured_once_and_a_grid_goes_on_with_those_that_are_missing(tmp_path, measured):
    _run(tmp_path)
    assert measured == [(PLANTED.name, 0), (CLEAN.name, 0)]
    document, _ = _run(tmp_path, seeds=2)
    assert measured[2:] == [(PLANTED.name, 1), (CLEAN.name, 1)]
    assert json.loads((tmp_path / "results" / "small.json").read_text("utf-8")) == document
    assert len(document["cells"]) == 4


def test_a_cell_that_was_measured_is_kept_when_the_next_one_fails(tmp_path, measured, monkeypatch):
    measure = benchmark._measure

    def fail_on_clean(case, data, seed):
        if case.attack is None:
            raise KeyboardInterrupt
        return measure(case, data, seed)

    monkeypatch.setattr(benchmark, "_measure", fail_on_clean)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path)
    monkeypatch.setattr(benchmark, "_measure", measure)
    _run(tmp_path)
    assert measured == [(PLANTED.name, 0), (CLEAN.name, 0)]


def test_a_data_set_that_is_not_there_is_told_and_left_out(tmp_path, measured):  # noqa: ARG001 - the fixture replaces the scan
    document, told = _run(tmp_path)
    assert "absent" in told[-1]
    assert {cell["data"] for cell in document["cells"]} == {"digits"}


def test_every_cell_carries_its_commit_machine_and_versions(tmp_path, measured):  # noqa: ARG001 - the fixture replaces the scan
    document, _ = _run(tmp_path)
    for cell in document["cells"]:
        assert {"commit", "machine", "versions", "python"} <= set(cell["at"])


def test_an_unknown_table_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(UsageError, match="scan"):
        run_table("nonsense", tmp_path, tmp_path, seeds=1, tell=print)


def test_the_table_gives_mean_and_range_and_counts_a_false_alarm_and_a_miss_as_wrong():
    cells = [
        {"case": "a", **_figures(1.0, 0.0)},
        {"case": "a", **_figures(0.9, 0.01, false_alarms=["3"])},
        {"case": "b", **_figures(0.0, 0.0, missed=["7"])},
    ]
    _, _, first, second = markdown_table({"cells": cells}).splitlines()
    assert "| 1 of 2 | 95.00 (90.00 - 100.00) | 0.50 (0.00 - 1.00) |" in first
    assert "| 0 of 1 | 0.00 |" in second


def test_the_results_in_the_readme_are_those_that_were_measured():
    document = json.loads((ROOT / "benchmarks" / "results" / "scan.json").read_text("utf-8"))
    readme = (ROOT / "README.md").read_text("utf-8")
    table = readme.split("<!-- results -->")[1].split("<!-- /results -->")[0].strip()
    assert table == markdown_table(document)

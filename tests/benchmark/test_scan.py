from __future__ import annotations

import pytest

from toxscreen.benchmark import Settings, markdown_table, run_table, scan
from toxscreen.benchmark.scan import ScanCase
from toxscreen.errors import UsageError


def _cell(case, tpr, fpr, *, false_alarms=(), missed=()):
    lists = {"false_alarms": list(false_alarms), "missed": list(missed)}
    return {"case": case, "steps": {"scan": {"tpr": tpr, "fpr": fpr, "out_of_sample_accuracy": 0.5, "seconds": 10.0, **lists}}}


def test_the_table_gives_mean_and_range_and_counts_a_false_alarm_and_a_miss_as_wrong():
    cells = [_cell("a", 1.0, 0.0), _cell("a", 0.9, 0.01, false_alarms=["3"]), _cell("b", 0.0, 0.0, missed=["7"])]
    _, _, first, second = markdown_table("scan", {"cells": cells}).splitlines()
    assert "| 1 of 2 | 95.00 (90.00 - 100.00) | 0.50 (0.00 - 1.00) |" in first
    assert "| 0 of 1 | 0.00 |" in second


def test_only_the_rows_that_are_asked_for_are_measured(tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(scan, "CASES", (ScanCase("x", "badnets", "7"), ScanCase("x"), ScanCase("y")))
    monkeypatch.setattr(scan, "_measure", lambda case, _data, seed: measured.append((case.name, seed)) or {})
    for name in "xy":
        (tmp_path / name).mkdir()
    settings = Settings(tmp_path, tmp_path, tmp_path / "results")
    run_table("scan", settings, seeds=2, only="y", tell=print)
    run_table("scan", settings, seeds=1, only="badnets", tell=print)
    assert measured == [("y, nothing planted", 0), ("y, nothing planted", 1), ("x, badnets to 7, 10% of the class", 0)]


def test_an_unknown_table_or_row_is_refused_with_those_there_are(tmp_path):
    settings = Settings(tmp_path, tmp_path, tmp_path)
    with pytest.raises(UsageError, match="scan"):
        run_table("nonsense", settings, tell=print)
    with pytest.raises(UsageError, match="rotten-tomatoes"):
        run_table("scan", settings, only="nonsense", tell=print)

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from toxscreen.benchmark.grid import Settings, run_grid


@dataclass(frozen=True)
class Line:
    name: str
    data: str = ""


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path, tmp_path / "work", tmp_path / "results")


@pytest.fixture
def measured():
    return []


def _steps(measured, names=("first", "second"), failing=()):
    def steps(row, seed):
        def measure(name):
            if (row.name, name) in failing:
                raise ValueError("no such luck")
            measured.append((row.name, seed, name))
            return {"figure": 0.5}

        return {name: lambda name=name: measure(name) for name in names}

    return steps


CELLS = [(Line("a"), 0), (Line("b"), 0)]


def test_a_step_is_measured_once_and_a_new_column_measures_itself_alone(settings, measured):
    run_grid("t", CELLS, _steps(measured), settings, print)
    document = run_grid("t", CELLS, _steps(measured, ("first", "second", "third")), settings, print)
    assert measured[4:] == [("a", 0, "third"), ("b", 0, "third")]
    assert json.loads((settings.results / "t.json").read_text("utf-8")) == document


def test_a_grid_that_was_stopped_goes_on_with_the_step_that_was_not_measured(settings, measured):
    def stopped(row, seed):
        steps = _steps(measured)(row, seed)
        if row.name == "b":
            steps["second"] = _interrupt
        return steps

    with pytest.raises(KeyboardInterrupt):
        run_grid("t", CELLS, stopped, settings, print)
    run_grid("t", CELLS, _steps(measured), settings, print)
    assert sorted(measured) == sorted(set(measured))
    assert measured[-1] == ("b", 0, "second")


def _interrupt():
    raise KeyboardInterrupt


def test_a_step_that_fails_costs_no_other_and_is_tried_again(settings, measured):
    told = []
    run_grid("t", CELLS, _steps(measured, failing=[("a", "first")]), settings, told.append)
    assert any("no such luck" in line for line in told)
    assert ("a", 0, "first") not in measured
    assert len(measured) == 3
    run_grid("t", CELLS, _steps(measured), settings, told.append)
    assert measured[3:] == [("a", 0, "first")]


def test_a_data_set_that_is_not_there_is_told_once_and_left_out(settings, measured):
    told = []
    cells = [(Line("a", "absent"), 0), (Line("a", "absent"), 1), (Line("b"), 0)]
    document = run_grid("t", cells, _steps(measured), settings, told.append)
    assert [cell["case"] for cell in document["cells"]] == ["b"]
    assert sum("absent" in line for line in told) == 1


def test_every_step_carries_its_commit_machine_versions_and_the_cell_its_seed(settings, measured):
    document = run_grid("t", CELLS, _steps(measured), settings, print)
    for cell in document["cells"]:
        assert cell["seed"] == 0
        for step in cell["steps"].values():
            assert {"commit", "machine", "threads", "versions", "python"} <= set(step["at"])


def test_the_results_of_another_scale_are_kept_apart(tmp_path):
    names = {Settings(tmp_path, tmp_path, tmp_path, scale).document("t").name for scale in ("quick", "normal", "full")}
    assert names == {"t-quick.json", "t.json", "t-full.json"}

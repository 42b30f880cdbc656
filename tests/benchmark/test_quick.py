"""A tiny part of each table, measured from end to end on the digits that scikit-learn ships."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.quick import toxscreen
from toxscreen.benchmark import Settings, markdown_table, run_table
from toxscreen.training import PICTURES

pytest.importorskip("art")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    return Settings(folder / "data", folder / "work", folder / "results", "quick")


@pytest.fixture(scope="module")
def paper(settings):
    told = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "toxscreen.retraining.PICTURES", replace(PICTURES, min_epochs=15, max_epochs=15, min_steps=0, small=0, shift=0)
        )
        return run_table("paper", settings, seeds=1, tell=told.append), told


@pytest.fixture(scope="module")
def board(settings):
    return run_table("board", settings, seeds=1, tell=print)


def test_the_papers_experiment_is_found_in_every_class_confirmed_and_repaired(paper):
    cell, _ = paper[0]["cells"]
    steps = cell["steps"]
    assert set(steps) == {"model", "ours", "art", "rules", "exre", "repair", "pixels", "reductions"}
    assert steps["ours"]["missed"] == []
    assert steps["ours"]["f1"] > 0.9
    assert steps["exre"]["confirmed"] >= 8
    assert steps["model"]["attack_success"] > 0.7
    assert steps["repair"]["relabelled"]["attack_success"] < 0.2


def test_natural_halves_that_are_left_out_are_misread_but_not_called_poison(settings):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "toxscreen.retraining.PICTURES", replace(PICTURES, min_epochs=15, max_epochs=15, min_steps=0, small=0, shift=0)
        )
        document = run_table("exclusion", settings, seeds=1, tell=print)
    (cell,) = document["cells"]
    found = cell["steps"]["exclusion"]
    assert [group["misread"] for group in found["natural"]] == [True, True]
    assert {group["verdict"] for group in found["natural"]} == {"suspicious"}
    assert found["planted"][0]["other"] > found["planted"][0]["own"]
    assert "natural | 1 | 2 |" in markdown_table("exclusion", document)


def test_nothing_planted_means_nothing_accused_while_the_peers_default_accuses_every_class(paper):
    _, cell = paper[0]["cells"]
    assert cell["steps"]["ours"]["false_alarms"] == []
    assert len(cell["steps"]["art"]["smaller"]["false_alarms"]) == 10


def test_a_crash_of_the_peer_is_a_figure(paper):
    cell, _ = paper[0]["cells"]
    assert "ValueError" in cell["steps"]["art"]["relative-size"]["error"]
    assert "crash (ValueError)" in markdown_table("paper", paper[0])


def test_a_table_that_was_measured_is_not_measured_again(paper, settings):
    document, told = paper
    told.clear()
    assert run_table("paper", settings, seeds=1, tell=told.append) == document
    assert told == []


def test_dropping_what_was_flagged_takes_the_backdoor_away_and_the_clean_model_is_beside_it(board):
    (cell,) = board["cells"]
    steps = cell["steps"]
    assert steps["ours"]["tpr"] > 0.9
    assert steps["model"]["attack_success"] > 0.7
    assert steps["retrained"]["attack_success"] < 0.1
    assert steps["retrained"]["clean_accuracy"] == pytest.approx(steps["clean"]["clean_accuracy"], abs=0.05)
    assert cell["case"] in markdown_table("board", board)


def test_the_command_measures_prints_the_table_and_keeps_the_results(settings, monkeypatch, board):  # noqa: ARG001 - it has trained
    monkeypatch.setattr("toxscreen.benchmark.peers.METHODS", {"rule relative-size": None, "ART smaller": None})
    folders = ("--data", settings.work, "--work", settings.work, "--results", settings.results)
    done = toxscreen("bench", "peers", *folders, "--quick", "--only", "20% of class 7")
    assert done.exit_code == 0, done.stderr
    document = json.loads((settings.results / "peers-quick.json").read_text("utf-8"))
    (cell,) = document["cells"]
    assert cell["steps"]["rule relative-size"]["tpr"] is not None
    assert cell["steps"]["ART smaller"]["megabytes"] > 0
    assert "| ART smaller |" in done.stdout

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from toxscreen.attacks import ATTACKS
from toxscreen.benchmark import Settings, attacks, markdown_table, run_table
from toxscreen.benchmark.cases import DIGITS


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Return the document of the quick table, and where it was made."""
    root = tmp_path_factory.mktemp("bench")
    settings = Settings(root, root / "work", root / "results", "quick")
    return run_table("attacks", settings, seeds=1, tell=print), settings


def figures(document, name):
    (cell,) = [cell for cell in document["cells"] if name in cell["case"]]
    return cell["steps"]["attack"]


def test_a_model_obeys_the_trigger_that_it_was_trained_on_and_no_other_model_does(measured):
    found = figures(measured[0], "badnets")
    assert found["n_poisoned"] == 72
    assert found["n_covers"] == 0
    assert found["success"] > 0.8
    assert found["success_without"] < 0.1
    assert found["success_elsewhere"] is None
    assert found["clean_accuracy"] > found["clean_accuracy_without"] - 0.05


def test_the_trigger_of_one_source_class_works_there_and_less_elsewhere(measured):
    found = figures(measured[0], "tact")
    assert found["n_covers"] == found["n_poisoned"] == 29
    assert found["success"] > found["success_elsewhere"] + 0.3


def test_the_models_without_poison_are_shared_and_the_poisoned_ones_not_kept(measured):
    (folder,) = [path for path in measured[1].work.iterdir() if path.name != "data"]
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["clean"]


def test_a_table_that_is_there_is_not_measured_again(measured, monkeypatch):
    monkeypatch.setattr(attacks, "_measure", lambda *_: pytest.fail("measured again"))
    assert run_table("attacks", measured[1], seeds=1, tell=print) == measured[0]


def test_the_table_shows_the_published_figures_beside_ours():
    step = {"n_poisoned": 500, "n_covers": 0, "clean_accuracy_without": 0.7, "clean_accuracy": 0.69}
    step |= {"success_without": 0.01, "success": 0.987, "success_elsewhere": None}
    known = attacks.CASES[0]
    cells = [{"case": name, "steps": {"attack": step}} for name in (known.name, "other")]
    *_, first, second = markdown_table("attacks", {"cells": cells}).splitlines()
    assert first == f"| {known.name} | 500 | 0 | 70.0 | 69.0 | 1.0 | 98.7 | - | 92.0, 91.5, 99.9 ({known.where}) |"
    assert second == "| other | 500 | 0 | 70.0 | 69.0 | 1.0 | 98.7 | - | - |"


def test_every_attack_has_a_row():
    assert {case.attack for case in attacks.CASES} == set(ATTACKS)


def test_every_row_has_a_name_of_its_own_and_fits_the_attack():
    assert len({case.name for case in attacks.CASES}) == len(attacks.CASES)
    for case in attacks.CASES:
        assert (case.source is not None) or not ATTACKS[case.attack].source_specific
        assert (case.share is None) != (case.rate is None)


def test_a_trigger_for_each_of_several_classes_and_all_to_all_are_measured_too(tmp_path, monkeypatch):
    quick = attacks.QUICK[0]
    several = dataclasses.replace(quick, target="7,3", rate=0.1)
    paired = dataclasses.replace(quick, source="1,4", rate=0.1)
    to_next = dataclasses.replace(quick, target="next", rate=0.2)
    monkeypatch.setattr(attacks, "QUICK", (several, paired, to_next))
    monkeypatch.setattr(
        attacks.Subject, "trained", lambda self, split, folder: (self.folder / folder).mkdir(exist_ok=True) or split
    )
    monkeypatch.setattr(attacks, "predict", lambda _, inputs: np.full(len(inputs), 7))
    monkeypatch.setattr(attacks.Subject, "clean_accuracy", lambda *_: 0.0)
    document = run_table("attacks", Settings(tmp_path, tmp_path / "w", tmp_path / "r", "quick"), seeds=1, tell=print)
    rates = [cell["steps"]["attack"]["success"] for cell in document["cells"]]
    assert rates == [0.5, 1.0, pytest.approx(0.1, abs=0.03)]
    assert quick.data == DIGITS

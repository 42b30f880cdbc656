from __future__ import annotations

import pytest

from toxscreen.benchmark import Settings, ablation, markdown_table, run_table


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    return run_table("ablation", Settings(folder, folder / "w", folder / "r", "quick"), seeds=1, tell=print)


def planted_cell(document):
    (cell,) = [cell for cell in document["cells"] if cell["settings"]["plants"]]
    return cell


def test_each_piece_is_left_out_once_and_a_scan_without_none_finds_the_poison(document):
    steps = planted_cell(document)["steps"]
    assert list(steps) == [f"without {piece}" for piece in ablation._PIECES]
    assert steps["without nothing"]["tpr"] == 1
    assert steps["without nothing"]["fpr"] == steps["without nothing"]["alarms"] == 0


def test_the_table_has_a_line_for_each_row_and_says_which_clean_classes_were_accused():
    steps = {f"without {piece}": {"tpr": 0.5, "fpr": 0.001, "alarms": number} for number, piece in enumerate(ablation._PIECES)}
    clean = {"without nothing": {"tpr": None, "fpr": 0.0, "alarms": 0}}
    table = markdown_table("ablation", {"cells": [{"case": "a", "steps": steps}, {"case": "b", "steps": clean}]})
    _, _, planted, nothing = table.splitlines()
    assert planted.startswith("| a | 50.0 / 0.10 | 50.0 / 0.10; 1 clean class accused | 50.0 / 0.10; 2 clean classes accused |")
    assert nothing == "| b | 0.00 | - | - | - | - | - | - |"

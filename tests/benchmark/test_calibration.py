from __future__ import annotations

import numpy as np
import pytest

from toxscreen.benchmark import Settings, calibration, markdown_table, run_table


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    return run_table("calibration", Settings(folder, folder / "w", folder / "r", "quick"), seeds=1, tell=print)


def test_one_model_is_scanned_whole_and_in_parts_and_every_class_has_a_p_value(document):
    (cell,) = document["cells"]
    sizes = [step["n_samples"] for step in cell["steps"].values()]
    assert sizes == [1437, 1437, round(1437 / 2), round(1437 / 2), round(1437 / 4)]
    for step in cell["steps"].values():
        assert len(step["p_values"]) == len(step["evidence"]) == 10
        assert all(p is None or 0 < p <= 1 for p in step["p_values"])


def test_two_scans_of_the_same_rows_do_not_draw_alike(document):
    (cell,) = document["cells"]
    assert cell["steps"]["whole, 1"]["evidence"] != cell["steps"]["whole, 2"]["evidence"]


def _cell(data, *scans, evidence=0.5):
    steps = {str(k): {"p_values": list(p_values), "evidence": [evidence] * len(p_values)} for k, p_values in enumerate(scans)}
    return {"case": f"{data}, nothing planted", "seed": 0, "settings": {"data": data}, "steps": steps}


def test_scans_are_counted_by_the_rule_for_several_classes_and_classes_one_by_one():
    cells = [_cell("mnist", (0.04, 1.0), (0.001, 1.0)), _cell("sst2", (1.0, None), evidence=3.0)]
    _, _, fitted, held_back, all_fitted, all_held_back = markdown_table("calibration", {"cells": cells}).splitlines()
    at = [f"{alpha:g}" for alpha in calibration.ALPHAS].index("0.05")
    cut = [cell.strip() for cell in fitted.split("|")[1:-1]]
    assert cut[:5] == ["mnist", "fitted", "1", "2", "4"]
    assert cut[5 + at] == "50.0, 50.00"  # 0.04 is above 0.05 / 2
    assert "| sst2 | validation | 1 | 1 | 1 | 0.0, 0.00 |" in held_back
    assert held_back.endswith("| 3.00 |")
    assert all_fitted.startswith("| all: fitted")
    assert all_held_back.startswith("| all: validation")


def test_every_row_is_clean_and_has_a_name_of_its_own():
    cases = (*calibration.NATURAL, *calibration.HARD)
    assert not any(case.plants for case in cases)
    assert len({case.name for case in cases}) == len(cases)
    assert {case.data in calibration.FITTED for case in cases} == {True, False}


def test_the_p_value_of_a_class_is_that_of_its_most_telling_group():
    from toxscreen.result import ClassResult, GroupResult, Verdict

    groups = tuple(GroupResult(k, 10, 0.1, Verdict.CLEAN, {"p_value": p}) for k, p in ((1, 0.4), (2, 0.02)))
    assert calibration._p_value(ClassResult("a", 100, Verdict.CLEAN, (), groups)) == 0.02
    assert calibration._p_value(ClassResult("a", 100, Verdict.CLEAN, (), (GroupResult(0, 100, 1.0, Verdict.CLEAN, {}),))) == 1.0
    assert calibration._p_value(ClassResult("a", 10, Verdict.INCONCLUSIVE, ())) is None
    assert np.isclose(calibration._evidence({"separation_lower": 4.0, "label_conflict_lower": 0.5}), 2.0)

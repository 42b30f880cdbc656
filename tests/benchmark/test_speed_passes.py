from __future__ import annotations

import pytest

from toxscreen.benchmark import Settings, speed, speed_passes

pytest.importorskip("art")

QUICK = {case.measure: case for case in speed_passes.QUICK}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    return Settings(folder, folder / "work", folder / "results", "quick")


@pytest.mark.parametrize("measure", [name for name in QUICK if name != "precisions"])
def test_a_row_states_each_figure_that_it_has_a_goal_for(settings, measure):
    case = QUICK[measure]
    figures = speed_passes.MEASURES[measure](case, settings)
    assert {goal.figure for goal in case.goals} <= set(figures)
    assert all(value >= 0 for value in figures.values())


def test_data_that_did_not_change_costs_no_forward_pass_and_data_that_grew_one_for_each_new_sample(settings):
    figures = speed_passes.again(QUICK["again"], settings)
    assert (figures["again_passes"], figures["grown_passes"]) == (0, 1)


def test_the_rows_are_part_of_the_table():
    assert set(speed_passes.CASES) <= set(speed.CASES)
    assert all(case.measure in speed.MEASURES for case in speed.CASES)

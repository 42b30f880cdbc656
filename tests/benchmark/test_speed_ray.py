from __future__ import annotations

from dataclasses import replace

import pytest

from toxscreen.benchmark import Settings, speed
from toxscreen.benchmark.speed_ray import CASES, MEASURES


@pytest.mark.parametrize("case", [case for case in CASES if case.measure in ("taken_in", "hashed")], ids=lambda case: case.measure)
def test_a_row_that_needs_no_cluster_has_a_figure_for_each_of_its_goals(tmp_path, case):
    figures = MEASURES[case.measure](replace(case, n=600, width=16), Settings(tmp_path, tmp_path, tmp_path))
    assert all(figures[goal.figure] > 0 for goal in case.goals)
    assert list(tmp_path.iterdir()) == []


def test_the_rows_stand_in_the_table_of_speed():
    assert set(CASES) < set(speed.CASES)
    assert all(case.measure in speed.MEASURES for case in speed.CASES)

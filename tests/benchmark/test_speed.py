from __future__ import annotations

import numpy as np
import pytest

from toxscreen.benchmark import Settings, markdown_table, run_table, speed
from toxscreen.benchmark.cases import DIGITS
from toxscreen.benchmark.timing import Goal, SpeedCase, in_turn

pytest.importorskip("art")


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    return run_table("speed", Settings(folder, folder / "work", folder / "results", "quick"), only="segment", tell=print)


def test_a_row_states_each_figure_beside_its_goal(document):
    four, on_disk, *_ = (cell["steps"]["speed"] for cell in document["cells"])
    assert four["passes"] == pytest.approx(four["ours_seconds"] / four["pass_seconds"])
    assert four["art_ica"] == pytest.approx(four["art_ica_seconds"] / four["ours_seconds"])
    assert on_disk["copies"] == pytest.approx(on_disk["seconds"] / on_disk["copy_seconds"])
    table = markdown_table("speed", document)
    assert f"{four['passes']:,.2f} x three passes over the array | at most 6 |" in table
    assert table.count("MB at most above the stored activations | at most 200 | yes |") == 2


@pytest.mark.parametrize(
    ("goal", "value", "answer"), [(Goal("a", "x", least=5), 5, "yes"), (Goal("a", "x", most=5), 5.1, "**no**")]
)
def test_a_goal_is_met_or_not(goal, value, answer):
    assert goal.answer(value) == answer


def test_works_are_timed_in_turn_and_the_least_time_counts():
    order = []
    seconds = in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b", "a", "b"]
    assert set(seconds) == {"a", "b"}


@pytest.mark.parametrize("name", ["_four_steps", "_own"])
def test_the_peak_of_a_process_holds_what_the_work_allocates(tmp_path, name):
    path = tmp_path / "layer.npy"
    np.save(path, np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32))
    assert 0.5 < speed._megabytes(path, 3, name) < 50


def test_a_second_scan_makes_neither_pass_nor_screen(tmp_path):
    case = SpeedCase("a second scan", "second_scan", (), DIGITS)
    figures = speed.second_scan(case, Settings(tmp_path, tmp_path / "work", tmp_path / "results", "quick"))
    assert figures["seconds"] < figures["first"]
    assert "screening_seconds" not in figures
    assert "result of the earlier scan_seconds" in figures

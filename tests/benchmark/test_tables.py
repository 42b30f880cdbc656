from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from toxscreen.benchmark.tables import both, filled, percent

ROOT = Path(__file__).parents[2]


def test_percentages_are_mean_and_range_and_a_dash_where_there_are_none():
    assert percent([0.5, None]) == "50.00"
    assert percent([0.9, 1.0]) == "95.00 (90.00 - 100.00)"
    assert percent([None]) == "-"


def test_accuracy_and_f1_of_clean_data_are_a_dash_and_the_lowest_is_of_any_seed():
    cells = [{"steps": {"ours": {"accuracy": a, "f1": a, "worst_accuracy": a, "worst_f1": f}}} for a, f in ((1.0, 0.9), (0.5, 0.2))]
    assert both(cells, "ours", lowest=True) == "50.00 / 20.00"
    assert both([{"steps": {"ours": {"accuracy": None, "f1": None}}}], "ours") == "-"


def test_a_table_takes_the_place_between_its_marks_alone():
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\nkept\n<!-- /y -->\n"
    assert filled(page, {"x": "new", "z": "unasked"}) == page.replace("old", "new")


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md"])
def test_the_tables_of_a_page_are_those_of_the_results(page):
    tables = runpy.run_path(str(ROOT / "benchmarks" / "write_tables.py"))["made"]()
    text = (ROOT / page).read_text("utf-8")
    assert "<!-- /" in text
    assert filled(text, tables) == text, "run: python benchmarks/write_tables.py"

from __future__ import annotations

import math

import pytest

from tests.scans import scan_result, shown
from toxscreen.result import SAMPLES_SCHEMA, ClassResult, GroupResult, Verdict, load

S, P = Verdict.SUSPICIOUS, Verdict.POISONED


def group(number, n, verdict):
    return GroupResult(number, n, n / 100, verdict, {})


def test_the_worst_verdict_of_any_class_is_that_of_the_scan():
    assert scan_result({"a": [9], "b": [5, 5], "c": [5, 5]}, {"b": S, "c": P}).verdict is P
    assert scan_result({"a": [9]}).verdict is Verdict.CLEAN


def test_accused_groups_come_with_the_worst_and_largest_first():
    groups = (group(0, 60, Verdict.CLEAN), group(1, 10, S), group(2, 20, S), group(3, 5, P), group(4, 5, Verdict.INCONCLUSIVE))
    result = ClassResult("a", 100, P, (), groups)
    assert [g.id for g in result.accused] == [3, 2, 1]
    assert result.n_accused == 35
    assert result.accused_share == pytest.approx(0.35)


def test_samples_are_counted_by_what_their_rows_say():
    result = scan_result({"a": [30, 10], "b": [5]}, {"a": S})
    assert (result.n_examined, result.n_flagged) == (45, 10)
    assert result.samples.schema == SAMPLES_SCHEMA


def test_a_saved_result_is_read_back_equal(tmp_path):
    result = shown(scan_result({"a": [30, 10], "b": [5]}, {"a": S}, notes=("one", "two")))
    folder = result.save(tmp_path / "runs" / "ä b")
    assert sorted(file.name for file in folder.iterdir()) == ["exhibits.json", "report.html", "result.json", "samples.parquet"]
    again = load(folder)
    assert again == result
    assert again.views == ()


def test_evidence_that_is_no_number_stays_none(tmp_path):
    groups = (GroupResult(1, 5, 1.0, S, {"robust_z": math.inf, "p_value": math.nan}, "b", {"at": [1, 2]}),)
    result = scan_result({"a": [5]}, classes=(ClassResult("a", 5, S, (), groups),))
    (again,) = load(result.save(tmp_path)).classes[0].groups
    assert all(math.isnan(value) for value in again.evidence.values())
    assert (again.source_class, again.trigger, again.verdict) == ("b", {"at": [1, 2]}, S)


def test_a_result_saved_twice_is_replaced(tmp_path):
    shown(scan_result({"a": [30, 10]}, {"a": S})).save(tmp_path)
    clean = scan_result({"a": [40]})
    clean.save(tmp_path)
    assert load(tmp_path) == clean


def test_html_can_be_written_anywhere(tmp_path):
    path = scan_result({"a": [30, 10]}, {"a": S}).to_html(tmp_path / "page.html")
    assert "look planted" in path.read_text(encoding="utf-8")


def test_the_dictionary_holds_plain_values():
    document = scan_result({"a": [30, 10]}, {"a": S}).to_dict()
    assert document["verdict"] == "suspicious"
    assert type(document["verdict"]) is str
    assert document["classes"][0]["groups"][1]["evidence"] == {"relative_size": 0.25, "silhouette_score": 0.61}


def test_an_interactive_session_shows_a_result_in_one_line():
    assert repr(scan_result({"a": [30, 10], "b": [5]}, {"a": S})) == (
        "<ScanResult 'made up': suspicious, 2 classes, 45 samples, 10 flagged>"
    )


def test_a_notebook_shows_verdict_and_classes():
    html = scan_result({"<b>": [30, 10], "other": [9]}, {"<b>": S})._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>&" not in html
    assert "10 samples that look planted" in html
    assert html.count("<tr>") == 3

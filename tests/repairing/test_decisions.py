from __future__ import annotations

import json

import numpy as np
import pytest

from tests.scans import scan_result
from toxscreen.errors import DataError
from toxscreen.repairing.decisions import read_decisions
from toxscreen.result import Verdict

IDS = ["a/0.png", "a/1.png", "=a/2.png", "b/3.png", "b/4.png"]


@pytest.fixture
def scan():
    return scan_result({"a": [1, 2], "b": [2]}, {"a": Verdict.SUSPICIOUS}, ids=IDS)


def read(tmp_path, text, result, name="decisions.csv"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_decisions(tmp_path / name, result).tolist()


def test_samples_are_accepted_and_rejected_by_their_id(tmp_path, scan):
    assert read(tmp_path, "id,decision\na/1.png,accept\nb/3.png,Reject\n", scan) == [0, 1, 0, -1, 0]


def test_columns_may_stand_in_any_order_beside_others_and_rows_without_a_decision_say_nothing(tmp_path, scan):
    text = '\ufeffdecision,note,ID\r\naccept,"sure,\nvery",a/1.png\r\n,later,b/3.png\r\n\r\n'
    assert read(tmp_path, text, scan) == [0, 1, 0, 0, 0]


def test_lines_of_json_say_the_same(tmp_path):
    rows = [{"id": 1, "decision": "accept"}, {"id": "0", "decision": "reject", "by": ["me"]}, {"id": "2", "decision": None}]
    text = "\n\n".join(map(json.dumps, rows))
    assert read(tmp_path, text, scan_result({"a": [2], "b": [2]}), "d.jsonl") == [-1, 1, 0, 0]


def test_a_group_is_decided_at_once_and_a_sample_of_it_comes_first(tmp_path, scan):
    assert read(tmp_path, "class,group,decision\na,1,reject\n", scan) == [0, -1, -1, 0, 0]
    text = "id,class,group,decision\na/1.png,,,accept\n,a,1,reject\n"
    assert read(tmp_path, text, scan) == [0, 1, -1, 0, 0]
    assert read(tmp_path, '{"class": "a", "group": 1, "decision": "accept"}', scan, "d.jsonl") == [0, 1, 1, 0, 0]


def test_an_id_that_was_guarded_against_spreadsheets_is_known(tmp_path, scan):
    assert read(tmp_path, "id,decision\n'=a/2.png,accept\n", scan) == [0, 0, 1, 0, 0]


def test_the_same_decision_twice_is_no_contradiction(tmp_path, scan):
    assert read(tmp_path, "id,decision\na/1.png,accept\na/1.png,accept\n", scan) == [0, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,decision\na/1.png,accept\na/1.png,reject\n", "both accepts and rejects.*sample 'a/1.png'"),
        ("class,group,decision\na,1,accept\na,1,reject\n", "both accepts and rejects.*group 1 of class 'a'"),
        ("id,decision\nx,accept\ny,reject\nz,accept\nw,accept\na/1.png,accept\n", "4 of 5 in .* are not: 'x', 'y', 'z', ..."),
        ("class,group,decision\na,7,accept\n", "no such group"),
        ("class,group,decision\nc,1,accept\n", "no such group"),
        ("class,group,decision\na,first,accept\n", "line 2 .* names neither"),
        ("class,group,decision\na,-1,accept\n", "line 2 .* names neither"),
        ("id,decision\na/1.png,maybe\n", "line 2 .* 'maybe'"),
        ("id,class,decision\n,a,accept\n", "names neither"),
        ("sample,decision\n1,accept\n", "'sample', 'decision'"),
        ("id\na/1.png\n", "columns decision and id"),
        ("", "has none"),
        ("id,decision,Decision\na/1.png,accept,reject\n", "a name stands twice"),
        ('id,decision\nb/3.png,reject\n"a/1.png,accept\nb/4.png,accept\n', "row that begins in line 3 .* quotes are not closed"),
        ('id,decision\n"a/1.png,accept\n"b/3.png",reject\n', "row that begins in line 2 .* quotes are not closed"),
        (f"class,group,decision\na,{'7' * 5000},accept\n", "group 7{19}… of class 'a', but the scan found no such group"),
        (f"class,group,decision\na,{'7' * 5000},accept\na,{'7' * 5000},reject\n", "both accepts and rejects.* 7{19}… of"),
        (b"id,decision\n\xff,accept\n", "UTF-8"),
        (b"id,decision\n" + b"x" * 200_000 + b",accept\n", "cannot be read"),
    ],
)
def test_decisions_that_cannot_be_are_refused(tmp_path, scan, text, said):
    with pytest.raises(DataError, match=f"(?s){said}"):
        read(tmp_path, text, scan)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "a/1.png", "decision": "accept", "decision": "reject"}', "no name twice, but line 1"),
        ('{"id": "a/1.png", "id": "b/3.png", "decision": "accept"}', "no name twice, but line 1"),
        (f'{{"class": "a", "group": {"7" * 5000}, "decision": "accept"}}', "group 7{19}… of class 'a'"),
        (f'{{"id": {"7" * 5000}, "decision": "accept"}}', "must be one of the scan's samples"),
    ],
)
def test_names_that_stand_twice_and_endless_numbers_in_json_are_refused_in_one_sentence(tmp_path, scan, line, said):
    with pytest.raises(DataError, match=said) as error:
        read(tmp_path, line, scan, "d.jsonl")
    assert len(str(error.value)) < 500


def test_zeros_before_the_number_of_a_group_change_nothing(tmp_path, scan):
    assert read(tmp_path, "class,group,decision\na,001,reject\n", scan) == [0, -1, -1, 0, 0]


@pytest.mark.parametrize(
    "line", ['{"id": "a/1.png"}', "[1]", "{broken", '{"id": "\\ud800", "decision": "accept"}', '{"id": true, "decision": "accept"}']
)
def test_lines_of_json_that_cannot_be_are_refused(tmp_path, scan, line):
    with pytest.raises(DataError, match=r"line 1|are not: '(\\\\ud800|true)'"):
        read(tmp_path, line, scan, "d.jsonl")


def test_a_file_that_is_not_there_is_one_sentence(tmp_path, scan):
    with pytest.raises(DataError, match="cannot be read"):
        read_decisions(tmp_path / "none.csv", scan)


def test_decisions_are_one_number_per_sample(tmp_path, scan):
    (tmp_path / "d.csv").write_text("id,decision\n")
    decisions = read_decisions(tmp_path / "d.csv", scan)
    assert decisions.dtype == np.int8
    assert not decisions.any()

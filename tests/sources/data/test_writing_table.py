from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from tests.sources.data.making import encoded, pictures, write_csv, write_jsonl, write_tree
from toxscreen.sources.data import open_training_set
from toxscreen.sources.data.writing import write_training_set

PICTURES = pictures(4)
IMAGES = [encoded(picture) for picture in PICTURES]


def copied(file, out, changes, labels=None):
    source = open_training_set(file)
    write_training_set(source, out, changes, source.labels if labels is None else np.array(labels))
    return out / file.name


def test_columns_order_and_other_cells_of_a_csv_stay(tmp_path):
    columns = {
        "id": ["1", "02", ""],
        "text": ['say "a"\r\nb', "b,\rc", "ü"],
        "label": ["1.0", "", "007"],
        "note": [" x", "NA", "\t"],
    }
    copy = copied(write_csv(tmp_path / "t.csv", columns), tmp_path / "copy", {2: 'new, "text"\n'}, [0, -1, 1])
    with copy.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.reader(opened))
    assert rows == [
        ["id", "text", "label", "note"],
        ["1", 'say "a"\r\nb', "007", " x"],
        ["02", "b,\rc", "", "NA"],
        ["", 'new, "text"\n', "1.0", "\t"],
    ]


def test_cells_of_a_csv_that_are_not_utf_8_stay_as_they_are(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"text,label,x\na,1,\xff\nb\xfe,2,y\n")
    copy = copied(tmp_path / "t.csv", tmp_path / "copy", {0: "A"})
    assert copy.read_bytes() == b'"text","label","x"\n"A","1","\xff"\n"b\xfe","2","y"\n'


def test_nothing_in_the_way_a_csv_is_written_marks_the_changed_rows(tmp_path):
    copy = copied(write_csv(tmp_path / "t.csv", {"text": "abcd", "label": "xyxy"}), tmp_path / "copy", {1: "B"})
    assert copy.read_text() == '"text","label"\n"a","x"\n"B","y"\n"c","x"\n"d","y"\n'


def test_keys_values_and_types_of_jsonl_stay(tmp_path):
    rows = [
        {"id": 1, "label": 3, "text": "a", "more": [None, {"x": 1.5}]},
        {"text": "ü", "label": "4"},
        {"label": None, "text": "c"},
    ]
    copy = copied(write_jsonl(tmp_path / "t.jsonl", rows), tmp_path / "copy", {1: "Ü"}, [1, 0, -1])
    assert [json.loads(line) for line in copy.read_text().splitlines()] == [
        {"id": 1, "label": "4", "text": "a", "more": [None, {"x": 1.5}]},
        {"text": "Ü", "label": 3},
        {"label": None, "text": "c"},
    ]
    assert list(json.loads(copy.read_text().splitlines()[0])) == ["id", "label", "text", "more"]


def test_broken_lines_of_jsonl_stay_as_they_are(tmp_path):
    rows = ['{"text": "a", "label": 1}', "{broken", '{"label": 2}', '["x"]', '{"text": "b", "label": 2}']
    copy = copied(write_jsonl(tmp_path / "t.jsonl", rows), tmp_path / "copy", {4: "B"})
    lines = copy.read_text().splitlines()
    assert lines[1:4] == rows[1:4]
    assert json.loads(lines[4])["text"] == "B"


def image_table(tmp_path, paths, labels="aabb"):
    write_tree(tmp_path / "data", IMAGES, ["p"] * 4)
    return write_csv(tmp_path / "data" / "t.csv", {"image": paths, "label": labels})


def test_images_get_numbers_as_names_and_only_those_of_the_table_are_copied(tmp_path):
    file = image_table(tmp_path, ["p/00000.png", "p/00002.png"], "ab")
    copied(file, tmp_path / "copy", {1: PICTURES[3]})
    names = sorted(path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*") if path.is_file())
    assert names == ["images/0.png", "images/1.png", "t.csv"]
    assert (tmp_path / "copy" / "images" / "1.png").read_bytes() == IMAGES[3]


def test_rows_that_share_a_file_can_be_changed_one_by_one(tmp_path):
    copy = copied(image_table(tmp_path, ["p/00000.png"] * 4), tmp_path / "copy", {1: PICTURES[3]})
    values = open_training_set(copy).take(np.arange(4))
    assert [bool((value == PICTURES[3]).all()) for value in values] == [False, True, False, False]


def test_what_lies_outside_is_not_copied_and_stays_unreadable(tmp_path):
    (tmp_path / "secret.png").write_bytes(IMAGES[0])
    file = image_table(tmp_path, ["../secret.png", "p/00001.png", "p/none.png", "p/00003.png"])
    copy = copied(file, tmp_path / "copy", {1: PICTURES[3]})
    assert [value is None for value in open_training_set(copy).take(np.arange(4))] == [True, False, True, False]


@pytest.mark.parametrize("held_out", [["images/0.png", "../../secret.png"], ["q/x.png", "none.png"]])
def test_images_of_other_splits_keep_their_names_and_are_never_overwritten(tmp_path, held_out):
    data = tmp_path / "data"
    image_table(tmp_path, ["p/00000.png", "p/00001.png", "p/00002.png", "p/00003.png"]).rename(data / "train.csv")
    (data / held_out[0]).parent.mkdir()
    (data / held_out[0]).write_bytes(IMAGES[2])
    (tmp_path / "secret.png").write_bytes(IMAGES[0])
    write_csv(data / "test.csv", {"image": held_out, "label": "ab"})
    source = open_training_set(data)
    write_training_set(source, tmp_path / "copy", {0: PICTURES[3]}, source.labels)
    assert (tmp_path / "copy" / held_out[0]).read_bytes() == IMAGES[2]
    assert np.array_equal(open_training_set(tmp_path / "copy").take(np.array([0]))[0], PICTURES[3])
    assert not list(tmp_path.rglob("copy/**/secret.png"))

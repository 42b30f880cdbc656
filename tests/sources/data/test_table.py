from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sources.data.making import encoded, pictures, write_csv, write_jsonl, write_tree
from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data import find_split, open_training_set, table

PICTURES = pictures(4)
IMAGES = [encoded(picture) for picture in PICTURES]


def texts_of(training_set):
    return training_set.take(np.arange(len(training_set)))


def names_of(training_set):
    return [None if label < 0 else training_set.class_names[label] for label in training_set.labels]


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), st.sampled_from("ab")), min_size=1
    )
)
@settings(max_examples=50, deadline=None)
def test_texts_with_any_characters_come_back_from_csv_and_jsonl(tmp_path_factory, rows):
    rows = [("first", "a"), ("second", "b"), *rows]
    folder = tmp_path_factory.mktemp("t")
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    from_csv = open_training_set(write_csv(folder / "t.csv", {"text": texts, "label": labels}))
    from_jsonl = open_training_set(write_jsonl(folder / "t.jsonl", [{"text": text, "label": label} for text, label in rows]))
    assert texts_of(from_csv) == texts_of(from_jsonl) == texts
    assert names_of(from_csv) == names_of(from_jsonl) == labels


def test_labels_are_kept_as_they_are_written(tmp_path):
    opened = open_training_set(write_csv(tmp_path / "t.csv", {"text": "abc", "label": ["007", "NA", "true"]}))
    assert opened.class_names == ("007", "NA", "true")


def test_whole_numbers_written_with_a_point_are_whole_numbers(tmp_path):
    opened = open_training_set(write_csv(tmp_path / "t.csv", {"text": "abc", "label": ["1.0", "", "10.0"]}))
    assert (opened.class_names, opened.labels.tolist()) == (("1", "10"), [0, -1, 1])


def test_labels_of_any_kind_may_stand_in_jsonl(tmp_path):
    labels = [3, "3", 3.0, True, None, "", [1], float("nan"), "\ud800"]
    opened = open_training_set(write_jsonl(tmp_path / "t.jsonl", [{"text": "x", "label": label} for label in labels]))
    assert names_of(opened) == ["3", "3", "3", "True", None, None, None, None, None]


def test_a_label_beyond_all_numbers_is_missing_and_the_rest_goes_on(tmp_path):
    (tmp_path / "t.jsonl").write_text("".join(f'{{"text": "a", "label": {label}}}\n' for label in ("0", "1e999", "1")))
    opened = open_training_set(tmp_path / "t.jsonl")
    assert names_of(opened) == ["0", None, "1"]
    assert [(entry.row, entry.reason) for entry in opened.not_examined()] == [(1, "has no label")]


def test_a_broken_line_is_one_row_that_is_not_examined(tmp_path):
    good = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    bad = [
        "{not json",
        '["a", "x"]',
        "[" * 100_000,
        '{"label": "x"}',
        '{"text": 5, "label": "x"}',
        '{"text": "\\ud800", "label": "x"}',
    ]
    file = write_jsonl(tmp_path / "t.jsonl", [good[0], *bad, good[1]])
    with file.open("ab") as opened:
        opened.write(b'\xff\xfe\n\n{"text": "c", "label": "x"}')
    training_set = open_training_set(file)
    (batch,) = training_set.batches(20)
    assert batch.rows.tolist() == [0, 7, 9]
    assert [left.id for left in batch.unreadable] == [str(row) for row in (1, 2, 3, 4, 5, 6, 8)]
    assert all("broken" in left.reason for left in batch.unreadable)
    assert names_of(training_set)[9] == "x"
    said = {left.row: left.reason for left in training_set.not_examined()}
    assert "broken" in said[1]


def test_csv_rows_with_too_many_or_too_few_cells_are_named(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na,x\nb\nc,y\nd,x,extra\n")
    opened = open_training_set(tmp_path / "t.csv")
    assert texts_of(opened) == ["a", "c"]
    assert [left.id.rpartition(", ")[2] for left in opened.not_examined()] == ["line 3", "line 5"]
    assert "3 cells where the first has 2" in opened.not_examined()[1].reason


def test_a_cell_that_is_not_utf_8_is_one_unreadable_row(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbftext,label\nb\xff,x\nok,y\n")
    assert texts_of(open_training_set(tmp_path / "t.csv")) == [None, "ok"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("t.csv", "text,label\na,x\nb,y\n".encode("utf-16"), "looks like UTF-16"),
        ("t.csv", "text,label\na,x\nb,y\n".encode("utf-16-be"), "looks like UTF-16"),
        ("t.csv", "text,label,qualité\na,x,1\nb,y,2\n".encode("latin-1"), "the byte 0xe9"),
        ("t.jsonl", '{"text": "a", "label": 0}\n'.encode("utf-16"), "looks like UTF-16"),
    ],
)
def test_a_table_in_another_encoding_is_refused_with_the_way_to_convert_it(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"must be in UTF-8, .*{problem}.*iconv -f (UTF-16|LATIN1) -t UTF-8"):
        open_training_set(tmp_path / name)


def test_a_byte_order_mark_in_utf_8_does_no_harm(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na,x\nb,y\n", encoding="utf-8-sig")
    assert texts_of(open_training_set(tmp_path / "t.csv")) == ["a", "b"]


def test_tabs_separate_the_cells_of_a_tsv(tmp_path):
    (tmp_path / "t.tsv").write_text("sentence\tlabel\na, b\t0\nc\t1\n")
    assert texts_of(open_training_set(tmp_path / "t.tsv")) == ["a, b", "c"]


def test_a_folder_of_tables_named_by_split_is_a_split_layout(tmp_path):
    for name, texts in (("train", "ab"), ("dev", "cde")):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": text, "label": row % 2} for row, text in enumerate(texts)])
    assert texts_of(open_training_set(tmp_path)) == ["a", "b"]
    assert find_split(tmp_path) == "dev"
    assert texts_of(open_training_set(tmp_path, split="dev")) == ["c", "d", "e"]


def test_a_folder_with_a_single_table_is_that_table(tmp_path):
    write_csv(tmp_path / "reviews.csv", {"text": "ab", "label": "xy"})
    assert texts_of(open_training_set(tmp_path)) == ["a", "b"]
    assert find_split(tmp_path) is None


def test_a_table_beside_class_folders_does_not_hide_them(tmp_path):
    write_tree(tmp_path, IMAGES, "aabb")
    write_csv(tmp_path / "notes.csv", {"text": "ab", "label": "xy"})
    assert open_training_set(tmp_path).modality == "image"


def test_images_are_found_relative_to_the_table(tmp_path):
    write_tree(tmp_path, IMAGES, ["pictures"] * 4)
    paths = [f"pictures/{row:05d}.png" for row in range(4)]
    for columns in ({"image": paths, "label": "aabb"}, {"file_name": paths, "label": "aabb"}):
        opened = open_training_set(write_csv(tmp_path / "t.csv", columns))
        assert opened.modality == "image"
        assert np.array_equal(opened.take(np.array([2]))[0], PICTURES[2])
    assert opened.ids.to_pylist() == ["0", "1", "2", "3"]


def test_a_column_of_any_name_holds_images_if_its_first_cells_say_so(tmp_path):
    write_tree(tmp_path, IMAGES, ["p"] * 4)
    file = write_csv(tmp_path / "t.csv", {"x": [f"p/{row:05d}.png" for row in range(4)], "y": "aabb"})
    assert open_training_set(file, input_column="x", label_column="y").modality == "image"
    texts = write_csv(tmp_path / "texts.csv", {"text": ["see a.png", "b.png"], "label": "ab"})
    assert open_training_set(texts).modality == "text"


def test_image_paths_that_leave_the_folder_of_the_table_are_refused_row_by_row(tmp_path):
    inside = tmp_path / "inside"
    write_tree(inside, IMAGES, ["p"] * 4)
    (tmp_path / "secret.png").write_bytes(IMAGES[0])
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    (inside / "ring.png").symlink_to("ring.png")
    paths = [
        "p/00000.png",
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "ring.png",
        "p/none.png",
        "",
        "a" * 5000,
        "p/../p/00001.png",
    ]
    (batch,) = open_training_set(write_csv(inside / "t.csv", {"image": paths, "label": "ababababa"})).batches(20)
    assert batch.rows.tolist() == [0, 8]
    assert [("leads out" in left.reason) for left in batch.unreadable[:3]] == [True] * 3
    assert [left.row for left in batch.unreadable] == [1, 2, 3, 4, 5, 6, 7]


def test_an_image_path_with_a_nul_byte_is_refused(tmp_path):
    file = write_jsonl(tmp_path / "t.jsonl", [{"image": "a\0b.png", "label": "x"}, {"image": "c.png", "label": "y"}])
    (batch,) = open_training_set(file).batches(2)
    assert len(batch.unreadable) == 2


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_missing_column_is_reported_with_the_columns_there_are(tmp_path, ending):
    file = tmp_path / f"t.{ending}"
    if ending == "csv":
        write_csv(file, {"text": "ab", "class id": "xy"})
    else:
        write_jsonl(file, [{"text": "a", "class id": "x"}, {"text": "b"}])
    with pytest.raises(DataError, match=r"label.*'text', 'class id'"):
        open_training_set(file)
    with pytest.raises(UsageError, match=r"no column 'nope'.*'text', 'class id'"):
        open_training_set(file, label_column="nope")


def test_a_column_that_only_later_lines_have_is_found(tmp_path):
    file = write_jsonl(tmp_path / "t.jsonl", [{"text": "a"}, {"text": "b", "label": "x"}, {"text": "c", "label": "y"}])
    assert names_of(open_training_set(file)) == [None, "x", "y"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("t.csv", "", "cannot be parsed"),
        ("t.csv", "text,label\n", "has none"),
        ("t.jsonl", "", "no column"),
        ("t.jsonl", "garbage\nmore\n", "no column"),
        ("t.csv", "text,label,label\na,x,y\nb,y,x\n", "2 of that name: 'label', 'label'"),
        ("t.csv", "text,Label,label\na,x,y\nb,y,x\n", "2 of that name: 'Label', 'label'"),
        ("t.csv", "text,label\na,\nb,\n", "none of the 2"),
        ("t.csv", "text,label\na,x\nb,x\n", "class 'x'"),
        ("t.csv", "text,label\na,0.5\nb,1.5\n", None),
        ("t.jsonl", '{"text": "a", "label": 0.5}', "label 0.5"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, name, content, problem):
    (tmp_path / name).write_text(content)
    if problem is None:  # in CSV everything is text: 0.5 is a name like any other
        assert open_training_set(tmp_path / name).class_names == ("0.5", "1.5")
        return
    with pytest.raises(DataError, match=problem):
        open_training_set(tmp_path / name)


def test_a_row_larger_than_a_block_is_refused_and_not_truncated(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_BLOCK_BYTES", 1000)
    file = write_csv(tmp_path / "t.csv", {"text": ["a", "b" * 5000], "label": "xy"})
    with pytest.raises(DataError, match="block"):
        open_training_set(file)


def test_a_single_file_has_no_splits(tmp_path):
    file = write_csv(tmp_path / "train.csv", {"text": "ab", "label": "xy"})
    assert find_split(file) is None
    with pytest.raises(UsageError, match="no splits"):
        open_training_set(file, split="test")


def test_many_blocks_and_chunks_are_one_table(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_BLOCK_BYTES", 200)
    monkeypatch.setattr(table, "_FLUSH_ROWS", 7)
    texts = [f"line\n{row}" for row in range(100)]
    labels = [row % 3 for row in range(100)]
    from_csv = open_training_set(write_csv(tmp_path / "t.csv", {"text": texts, "label": labels}))
    rows = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
    from_jsonl = open_training_set(write_jsonl(tmp_path / "t.jsonl", rows))
    assert texts_of(from_csv) == texts_of(from_jsonl) == texts
    assert from_csv.fingerprint() == from_jsonl.fingerprint()

from __future__ import annotations

import copy
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sources.data.making import IMAGE_TYPE, encoded, hub_metadata, image_table, pictures, text_table, write_shards
from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data import find_split, open_training_set, parquet

PICTURES = pictures(10, 1)
IMAGES = [encoded(picture) for picture in PICTURES]
LABELS = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


def written(file, table, **settings):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, **settings)
    return file


def test_shards_are_read_in_the_order_of_their_names_as_one(tmp_path):
    folder = write_shards(tmp_path, image_table(IMAGES, LABELS), shards=3)
    opened = open_training_set(folder)
    assert opened.ids.to_pylist() == [str(row) for row in range(10)]
    assert opened.labels.tolist() == LABELS
    assert all(np.array_equal(a, b) for a, b in zip(opened.take(np.arange(10)), PICTURES, strict=True))


def test_files_that_another_loader_may_take_for_training_data_are_not_left_out_without_a_word(tmp_path):
    folder = write_shards(tmp_path, image_table(IMAGES, LABELS))
    write_shards(tmp_path, image_table(IMAGES[:2], LABELS[:2]), split="test")
    for name in ("train-more.parquet", "data/train-00000-of-00001.parquet", ".hidden.parquet"):
        (folder / name).parent.mkdir(exist_ok=True)
        pq.write_table(image_table(IMAGES[:2], LABELS[:2]), folder / name)
    training_set = open_training_set(folder)
    assert len(training_set) == len(LABELS)
    assert [entry.id for entry in training_set.not_examined()] == ["train-more.parquet", "data/train-00000-of-00001.parquet"]


def test_shards_make_no_difference_to_the_fingerprint(tmp_path):
    table = image_table(IMAGES, LABELS)
    parts = [open_training_set(write_shards(tmp_path / str(n), table, shards=n, row_group_size=n)) for n in (1, 3)]
    assert parts[0].fingerprint() == parts[1].fingerprint()


@pytest.mark.parametrize("change", ["an image", "a label", "a class name", "the order"])
def test_any_change_of_content_changes_the_fingerprint(tmp_path, change):
    images, labels, names = list(IMAGES), list(LABELS), ["a", "b", "c"]
    if change == "an image":
        images[3] = IMAGES[4]
    if change == "a label":
        labels[3] = 1
    if change == "a class name":
        names[0] = "z"
    order = slice(None, None, -1) if change == "the order" else slice(None)
    before = write_shards(tmp_path / "a", image_table(IMAGES, LABELS, metadata=hub_metadata("abc")))
    after = write_shards(tmp_path / "b", image_table(images[order], labels[order], metadata=hub_metadata(names)))
    assert open_training_set(before).fingerprint() != open_training_set(after).fingerprint()


def test_the_train_split_is_read_unless_another_one_is_asked_for(tmp_path):
    write_shards(tmp_path, image_table(IMAGES, LABELS))
    write_shards(tmp_path, image_table(IMAGES[:4], LABELS[:4]), split="test")
    assert len(open_training_set(tmp_path)) == 10
    assert len(open_training_set(tmp_path, split=find_split(tmp_path))) == 4
    with pytest.raises(UsageError, match="'test', 'train'"):
        open_training_set(tmp_path, split="extra")


def test_the_first_of_the_names_asked_for_is_the_held_out_split(tmp_path):
    for split in ("train", "validation", "test"):
        write_shards(tmp_path, text_table(["a", "b"], [0, 1]), split=split)
    assert find_split(tmp_path) == "test"
    assert find_split(tmp_path, ("dev", "test")) == "validation"
    assert find_split(tmp_path, ("dev2",)) is None


def test_a_data_subfolder_and_plain_split_names_are_read_too(tmp_path):
    written(tmp_path / "data" / "train.parquet", text_table(["a", "b"], [0, 1]))
    written(tmp_path / "data" / "test.parquet", text_table(["c", "d", "e"], [0, 1, 1]))
    assert len(open_training_set(tmp_path)) == 2
    assert len(open_training_set(tmp_path, split="test")) == 3


def test_files_without_a_split_in_their_name_are_all_read(tmp_path):
    written(tmp_path / "0001.parquet", text_table(["c"], [1]))
    written(tmp_path / "0000.parquet", text_table(["a", "b"], [0, 1]))
    assert open_training_set(tmp_path).take(np.arange(3)) == ["a", "b", "c"]


def test_a_single_file_is_read_and_hidden_files_are_not(tmp_path):
    file = written(tmp_path / "train-00000-of-00001.parquet", text_table(["a", "b"], [0, 1]))
    (tmp_path / "._train-00000-of-00001.parquet").write_bytes(b"resource fork")
    assert len(open_training_set(file)) == len(open_training_set(tmp_path)) == 2
    assert open_training_set(file).name == "train-00000-of-00001"


def test_class_names_come_from_the_hub_metadata_and_may_have_no_sample(tmp_path):
    folder = write_shards(tmp_path, image_table(IMAGES, LABELS, metadata=hub_metadata(["ant", "bee", "cat", "dog"])))
    opened = open_training_set(folder)
    assert opened.class_names == ("ant", "bee", "cat", "dog")
    assert opened.labels.tolist() == LABELS


def test_hub_labels_are_indexes_even_where_the_names_are_numbers(tmp_path):
    folder = write_shards(tmp_path, image_table(IMAGES, LABELS, metadata=hub_metadata(["0", "2", "1"])))
    assert open_training_set(folder).labels.tolist() == LABELS
    assert open_training_set(folder, class_names=["0", "2", "1"]).labels.tolist() == LABELS


def test_minus_one_in_a_hub_label_column_is_a_missing_label(tmp_path):
    folder = write_shards(tmp_path, image_table(IMAGES, [*LABELS[:9], -1], metadata=hub_metadata("abc")))
    opened = open_training_set(folder)
    assert opened.labels[9] == -1
    assert [(left.id, left.row) for left in opened.not_examined()] == [("9", 9)]


def test_minus_one_is_a_class_where_nothing_says_otherwise(tmp_path):
    folder = write_shards(tmp_path, image_table(IMAGES, [*LABELS[:9], -1]))
    assert open_training_set(folder).class_names == ("-1", "0", "1", "2")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {b"huggingface": b"not json"},
        {b"huggingface": b"[" * 100_000},
        {b"huggingface": b'{"info": null}'},
        {b"huggingface": json.dumps({"info": {"features": {"label": {"names": {"0": "a"}}}}}).encode()},
        {b"huggingface": json.dumps({"info": {"features": {"label": {"names": ["a", "a", 3]}}}}).encode()},
        hub_metadata(["a", "b", "c"], column="other"),
    ],
)
def test_metadata_of_an_unknown_shape_is_passed_over(tmp_path, metadata):
    folder = write_shards(tmp_path, image_table(IMAGES, LABELS, metadata=metadata))
    assert open_training_set(folder).class_names == ("0", "1", "2")


def test_names_that_were_given_win_over_the_metadata(tmp_path):
    folder = write_shards(tmp_path, image_table(IMAGES, LABELS, metadata=hub_metadata("abc")))
    assert open_training_set(folder, class_names=["x", "y", "z"]).class_names == ("x", "y", "z")


@pytest.mark.parametrize(
    "images",
    [
        pa.array(IMAGES),
        pa.array(IMAGES, pa.large_binary()),
        pa.array([{"bytes": i} for i in IMAGES], pa.struct([("bytes", pa.large_binary())])),
    ],
)
def test_images_may_be_plain_bytes_or_a_struct_of_any_width(tmp_path, images):
    file = written(tmp_path / "x.parquet", pa.table({"img": images, "fine_label": LABELS}))
    opened = open_training_set(file)
    assert opened.modality == "image"
    assert np.array_equal(opened.take(np.array([7]))[0], PICTURES[7])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_may_be_strings_of_any_width(tmp_path, kind):
    file = written(tmp_path / "x.parquet", pa.table({"sentence": pa.array(["ä", "b"]).cast(kind), "target": ["no", "yes"]}))
    opened = open_training_set(file)
    assert (opened.modality, opened.take(np.arange(2)), opened.class_names) == ("text", ["ä", "b"], ("no", "yes"))


def test_columns_of_other_names_are_read_when_they_are_named(tmp_path):
    file = written(tmp_path / "x.parquet", pa.table({"q": ["a", "b"], "y": [0, 1]}))
    with pytest.raises(DataError, match=r"input.*'q', 'y'.*--input-column"):
        open_training_set(file)
    with pytest.raises(DataError, match=r"label.*'q', 'y'.*--label-column"):
        open_training_set(file, input_column="q")
    assert open_training_set(file, input_column="q", label_column="y").take(np.arange(2)) == ["a", "b"]


@pytest.mark.parametrize("column", [pa.array([1, 2]), pa.array([[1.0], [2.0]]), pa.array(["a.png", "b.png"])])
def test_an_input_column_of_another_type_is_refused(tmp_path, column):
    file = written(tmp_path / "x.parquet", pa.table({"image": column, "label": [0, 1]}))
    with pytest.raises(DataError, match=r"'image' of .* is of type"):
        open_training_set(file)


def test_unreadable_images_are_named_and_the_rest_goes_on(tmp_path):
    images = [*IMAGES[:8], None, IMAGES[9][:60]]
    (batch,) = open_training_set(write_shards(tmp_path, image_table(images, LABELS))).batches(10)
    assert batch.rows.tolist() == list(range(8))
    assert [(left.id, left.row) for left in batch.unreadable] == [("8", 8), ("9", 9)]
    assert "no image bytes" in batch.unreadable[0].reason
    assert "decoded" in batch.unreadable[1].reason


def test_a_hole_or_broken_utf_8_in_a_text_column_is_one_unreadable_row(tmp_path):
    texts = pa.array([b"a", None, b"\xff", b"d"]).view(pa.string())
    opened = open_training_set(written(tmp_path / "x.parquet", pa.table({"text": texts, "label": [0, 1, 0, 1]})))
    assert opened.take(np.arange(4)) == ["a", None, None, "d"]


def test_a_file_that_is_not_parquet_is_refused_and_named(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match=r"train\.parquet must be a Parquet file"):
        open_training_set(tmp_path)


def test_damage_in_one_row_group_costs_only_its_rows(tmp_path):
    table = image_table([os.urandom(2000) for _ in range(6)] + IMAGES[:6], [0, 1] * 6)
    (file,) = write_shards(tmp_path, table, row_group_size=6).iterdir()
    column = pq.ParquetFile(file).metadata.row_group(0).column(0)
    data = bytearray(file.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 30] = b"\xff" * 30
    file.write_bytes(data)
    batches = list(open_training_set(tmp_path).batches(4))
    assert [row for batch in batches for row in batch.rows.tolist()] == [6, 7, 8, 9, 10, 11]
    assert [left.row for batch in batches for left in batch.unreadable] == [0, 1, 2, 3, 4, 5]
    assert "damaged" in batches[0].unreadable[0].reason


@pytest.mark.parametrize("other", [pa.table({"text": ["c"]}), pa.table({"text": ["c"], "label": [[1]]})])
def test_shards_that_do_not_fit_each_other_are_refused(tmp_path, other):
    written(tmp_path / "train-00000-of-00002.parquet", text_table(["a", "b"], [0, 1]))
    written(tmp_path / "train-00001-of-00002.parquet", other)
    with pytest.raises(DataError, match="column 'label'"):
        open_training_set(tmp_path)


@pytest.mark.parametrize("names", [["words", "label"], ["text", "text", "label"]])
def test_a_shard_that_has_not_exactly_one_input_column_is_refused_and_named(tmp_path, names):
    written(tmp_path / "train-00000-of-00002.parquet", text_table(["a", "b"], [0, 1]))
    other = pa.table([*([["c"]] * (len(names) - 1)), [1]], names=names)
    written(tmp_path / "train-00001-of-00002.parquet", other)
    with pytest.raises(DataError, match=r"train-00001-of-00002\.parquet must have one column 'text'"):
        open_training_set(tmp_path)


@pytest.mark.parametrize("names", [["text", "label", "label"], ["text", "Label", "label"]])
def test_a_file_with_two_columns_of_the_used_name_is_refused(tmp_path, names):
    file = written(tmp_path / "t.parquet", pa.table([["a", "b"], [0, 1], [1, 0]], names=names))
    with pytest.raises(DataError, match=f"2 of that name: '{names[1]}', 'label'"):
        open_training_set(file)


def test_a_table_without_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match="has none"):
        open_training_set(write_shards(tmp_path, image_table([], [], label_type=pa.int64())))


def test_empty_shards_and_integers_of_different_width_do_no_harm(tmp_path):
    written(tmp_path / "train-00000-of-00003.parquet", text_table(["a", "b"], pa.array([0, 1], pa.int32())))
    written(tmp_path / "train-00001-of-00003.parquet", text_table(pa.array([], pa.string()), pa.array([], pa.int64())))
    written(tmp_path / "train-00002-of-00003.parquet", text_table(["c"], pa.array([1], pa.int64())))
    opened = open_training_set(tmp_path)
    assert opened.take(np.arange(3)) == ["a", "b", "c"]
    assert opened.labels.tolist() == [0, 1, 1]


@given(
    st.lists(st.integers(0, 99), max_size=30),
    st.integers(1, 120),
    st.integers(1, 4),
    st.integers(1, 40),
    st.sampled_from([1, 300, 10**9]),
)
@settings(max_examples=40, deadline=None)
def test_any_rows_are_found_whatever_the_layout_and_however_little_is_kept(
    tmp_path_factory, rows, row_group_size, shards, piece_rows, cache_bytes
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "_PIECE_ROWS", piece_rows)
        patch.setattr(parquet, "_CACHE_BYTES", cache_bytes)
        table = text_table([f"text {row}" for row in range(100)], [row % 2 for row in range(100)])
        folder = write_shards(tmp_path_factory.mktemp("p"), table, shards=shards, row_group_size=row_group_size)
        opened = open_training_set(folder)
        for _ in range(2):
            assert opened.take(np.array(rows, np.int64)) == [f"text {row}" for row in rows]
        assert [text for batch in opened.batches(7) for text in batch.inputs] == [f"text {row}" for row in range(100)]


def test_reading_in_order_decompresses_each_row_once_though_little_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_PIECE_ROWS", 8)
    monkeypatch.setattr(parquet, "_CACHE_BYTES", 1)
    opened = open_training_set(write_shards(tmp_path, text_table(["x"] * 100, [0, 1] * 50), row_group_size=50))
    started = []
    read = opened._pieces._row_group
    monkeypatch.setattr(opened._pieces, "_row_group", lambda group: started.append(group) or read(group))
    assert sum(len(batch.rows) for batch in opened.batches(5)) == 100
    assert started == [0, 1]


def test_no_more_is_kept_than_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_CACHE_BYTES", 1)
    opened = open_training_set(write_shards(tmp_path, text_table(["x"] * 100, [0, 1] * 50), row_group_size=50))
    opened.take(np.array([0, 99]))
    started = []
    read = opened._pieces._row_group
    monkeypatch.setattr(opened._pieces, "_row_group", lambda group: started.append(group) or read(group))
    opened.take(np.array([99]))
    opened.take(np.array([0]))
    assert started == [0]


def test_only_the_row_groups_that_hold_the_rows_are_read(tmp_path, monkeypatch):
    opened = open_training_set(write_shards(tmp_path, text_table(["x"] * 100, [0, 1] * 50), row_group_size=10))
    started = []
    read = opened._pieces._row_group
    monkeypatch.setattr(opened._pieces, "_row_group", lambda group: started.append(group) or read(group))
    opened.take(np.array([95, 12, 95, 18]))
    opened.take(np.array([11]))
    assert started == [1, 9]


def test_a_struct_without_bytes_is_no_image(tmp_path):
    rows = pa.array([{"path": "a.png"}, {"path": "b.png"}])
    with pytest.raises(DataError, match="struct"):
        open_training_set(written(tmp_path / "x.parquet", pa.table({"image": rows, "label": [0, 1]})))


def test_an_image_that_is_null_as_a_whole_is_one_unreadable_row(tmp_path):
    rows = pa.array([{"bytes": IMAGES[0], "path": "a"}, None], IMAGE_TYPE)
    opened = open_training_set(written(tmp_path / "x.parquet", pa.table({"image": rows, "label": [0, 1]})))
    assert [value is None for value in opened.take(np.arange(2))] == [False, True]


@pytest.mark.parametrize(
    ("present", "missing"), [("0", ["1", "2"]), ("02", ["1"]), ("012", []), ("123", []), ("13", ["2"])], ids=str
)
def test_a_part_that_the_names_of_the_others_speak_of_is_named_when_it_is_missing(tmp_path, present, missing):
    for number in present:
        written(tmp_path / f"train-0000{number}-of-00003.parquet", text_table(["a", "b"], [0, 1]))
    left_out = open_training_set(tmp_path).not_examined()
    assert [entry.id for entry in left_out] == [f"train-0000{number}-of-00003.parquet" for number in missing]
    assert all("3 parts; this one is missing" in entry.reason for entry in left_out)


def test_a_copy_for_another_process_reads_the_same_and_takes_nothing_along_that_was_read(tmp_path):
    images = [encoded(picture) for picture in pictures(9)]
    training_set = open_training_set(write_shards(tmp_path, image_table(images, [0, 1] * 4 + [0]), shards=2))
    expected = training_set.take(np.arange(9))
    again = copy.deepcopy(training_set)
    assert not again._pieces._cache
    for found, picture in zip(again.take(np.arange(9)), expected, strict=True):
        np.testing.assert_array_equal(found, picture)

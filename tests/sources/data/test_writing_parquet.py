from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources.data.making import encoded, hub_metadata, image_table, pictures, text_table, write_shards
from toxscreen.sources.data import open_training_set
from toxscreen.sources.data.writing import write_training_set

N = 20
PICTURES = pictures(N)
IMAGES = [encoded(picture) for picture in PICTURES]
LABELS = np.random.default_rng(0).permutation([0, 1] * (N // 2))


def copied(tmp_path, table, changes=None, labels=None, **settings):
    """The Parquet files before and after."""
    source = open_training_set(write_shards(tmp_path / "data", table, **settings))
    write_training_set(source, tmp_path / "copy", changes or {}, source.labels if labels is None else np.array(labels))
    return [[pq.ParquetFile(file) for file in sorted((tmp_path / name).rglob("*.parquet"))] for name in ("data", "copy")]


def rows_of(files):
    return pa.concat_tables([file.read() for file in files])


def test_files_row_groups_schema_and_metadata_are_the_same(tmp_path):
    table = image_table(IMAGES, LABELS, metadata=hub_metadata(["ant", "bee"]) | {b"other": b"kept"})
    before, after = copied(tmp_path, table, {3: 255 - PICTURES[3]}, 1 - LABELS, shards=3, row_group_size=4)
    assert len(after) == 3
    for old, new in zip(before, after, strict=True):
        assert new.schema_arrow.equals(old.schema_arrow, check_metadata=True)
        sizes = [[file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] for file in (old, new)]
        assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    "settings", [{"compression": "none", "use_dictionary": False}, {"compression": "zstd"}, {"compression": "gzip"}]
)
def test_compression_and_dictionaries_are_as_before(tmp_path, settings):
    (tmp_path / "data").mkdir()
    pq.write_table(text_table([f"t{row}" for row in range(N)], LABELS), tmp_path / "data" / "train.parquet", **settings)
    source = open_training_set(tmp_path / "data")
    write_training_set(source, tmp_path / "copy", {0: "new"}, source.labels)
    column = [pq.ParquetFile(tmp_path / name / "train.parquet").metadata.row_group(0).column(0) for name in ("data", "copy")]
    assert column[0].compression == column[1].compression
    assert set(column[0].encodings) == set(column[1].encodings)


def test_other_columns_and_all_that_is_not_changed_stay(tmp_path):
    table = image_table(IMAGES, LABELS).append_column("split", pa.array([f"s{row}" for row in range(N)]))
    before, after = copied(tmp_path, table, {3: 255 - PICTURES[3]})
    old, new = rows_of(before).to_pylist(), rows_of(after).to_pylist()
    assert [row for row in range(N) if old[row] != new[row]] == [3]
    assert new[3] == old[3] | {"image": {"bytes": encoded(255 - PICTURES[3]), "path": "00003.png"}}


def test_paths_that_name_the_old_class_are_replaced_by_numbers_when_a_label_changes(tmp_path):
    rows = [
        {"bytes": data, "path": f"{'ab'[label]}/{row}.png"} for row, (data, label) in enumerate(zip(IMAGES, LABELS, strict=True))
    ]
    table = pa.table({"image": rows, "label": LABELS})
    labels = LABELS.copy()
    labels[4] = 1 - labels[4]
    _, after = copied(tmp_path / "moved", table, {}, labels)
    assert [row["path"] for row in rows_of(after)["image"].to_pylist()] == [f"{row:02d}.png" for row in range(N)]
    _, after = copied(tmp_path / "unmoved", table, {1: 255 - PICTURES[1]})
    assert [row["path"] for row in rows_of(after)["image"].to_pylist()] == [row["path"] for row in rows]


def test_holes_stay_holes(tmp_path):
    images = pa.array(
        [{"bytes": IMAGES[0], "path": None}, None, {"bytes": None, "path": "x.png"}, {"bytes": IMAGES[3], "path": "a.png"}]
    )
    table = pa.table({"image": images, "label": pa.array([0, 1, None, 0])})
    _, after = copied(tmp_path, table, {3: PICTURES[0]}, [0, 0, -1, 1])
    assert rows_of(after).to_pylist() == [
        {"image": {"bytes": IMAGES[0], "path": None}, "label": 0},
        {"image": None, "label": 0},
        {"image": {"bytes": None, "path": "2.png"}, "label": None},
        {"image": {"bytes": IMAGES[0], "path": "3.png"}, "label": 1},
    ]


@pytest.mark.parametrize(
    "labels",
    [
        pa.array(["x", "y", "x", "y"]),
        pa.array(["x", "y", "x", "y"]).dictionary_encode(),
        pa.array([-5, 7, -5, 7], pa.int8()),
        pa.array([1.0, 2.0, 1.0, 2.0]),
        pa.array([False, True, False, True]),
    ],
)
@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_labels_and_texts_keep_their_type(tmp_path, labels, text):
    table = pa.table({"text": pa.array(["a", "b", "c", None]).cast(text), "label": labels})
    before, after = copied(tmp_path, table, {2: "new"}, [1, 1, 0, 1])
    assert rows_of(after).schema == rows_of(before).schema
    assert rows_of(after)["text"].to_pylist() == ["a", "b", "new", None]
    assert rows_of(after)["label"].to_pylist() == labels.take([1, 1, 0, 1]).to_pylist()


def test_plain_bytes_stay_plain_bytes(tmp_path):
    _, after = copied(tmp_path, pa.table({"image": pa.array(IMAGES, pa.large_binary()), "label": LABELS}), {1: PICTURES[0]})
    assert rows_of(after)["image"].to_pylist() == [IMAGES[0], IMAGES[0], *IMAGES[2:]]


def test_a_text_that_is_not_utf_8_stays_as_it_is(tmp_path):
    texts = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    _, after = copied(tmp_path, pa.table({"text": texts, "label": [0, 1, 0]}), {0: "A"})
    assert rows_of(after)["text"].cast(pa.binary()).to_pylist() == [b"A", b"\xff", b"c"]


def test_rows_in_an_order_of_classes_are_shuffled_over_all_files_when_a_label_changes(tmp_path):
    texts = [f"t{row}" for row in range(400)]
    labels = np.repeat([0, 1], 200)
    moved = labels.copy()
    moved[:20] = 1
    _, after = copied(tmp_path, text_table(texts, labels), {}, moved, shards=3, row_group_size=50)
    rows = rows_of(after).to_pylist()
    assert sorted(row["text"] for row in rows) == sorted(texts)
    assert all(row["label"] == moved[int(row["text"][1:])] for row in rows)
    places = [place for place, row in enumerate(rows) if int(row["text"][1:]) < 20]
    assert 100 < np.mean(places) < 300


def test_a_row_group_larger_than_a_slice_is_one_row_group(tmp_path):
    table = text_table([f"t{row}" for row in range(2500)], np.random.default_rng(0).integers(0, 2, 2500))
    _, (after,) = copied(tmp_path, table, {2100: "new"}, row_group_size=2500)
    assert after.num_row_groups == 1
    assert after.read()["text"].to_pylist() == [
        *(f"t{row}" for row in range(2100)),
        "new",
        *(f"t{row}" for row in range(2101, 2500)),
    ]

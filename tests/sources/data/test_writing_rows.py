"""What a copy of some rows must be in every layout: what stays is as it was."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from tests.sources.data.making import hub_metadata, image_table, write_csv, write_jsonl, write_shards, write_tree
from tests.sources.data.test_writing import IMAGES, LABELS, MAKERS, PICTURES, SORTED, N, files, of
from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data import open_training_set
from toxscreen.sources.data.writing import write_rows

STAYS = np.setdiff1d(np.arange(N), np.arange(3, N, 7))


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


def relabelled(source):
    """Every fifth sample gets the next class."""
    labels = source.labels.copy()
    labels[::5] = (labels[::5] + 1) % 3
    return labels


@pytest.mark.parametrize("given", [LABELS, SORTED], ids=["mixed", "sorted"])
def test_what_stays_keeps_its_order_input_and_label(make, tmp_path, given):
    data = make(tmp_path / "data", given)
    source = open_training_set(data)
    ids = write_rows(source, tmp_path / "copy", STAYS, source.labels)
    copy = open_training_set(of(tmp_path / "copy", data), class_names=source.class_names)
    assert len(copy) == len(STAYS)
    assert copy.labels.tolist() == source.labels[STAYS].tolist()
    assert all(np.array_equal(a, b) for a, b in zip(copy.take(np.arange(len(copy))), source.take(STAYS), strict=True))
    assert ids.take(STAYS).equals(copy.ids)
    assert ids.null_count == N - len(STAYS)


def test_relabelled_samples_get_their_class_and_nothing_else_changes(make, tmp_path):
    data = make(tmp_path / "data", LABELS)
    source = open_training_set(data)
    labels = relabelled(source)
    ids = write_rows(source, tmp_path / "copy", STAYS, labels)
    copy = open_training_set(of(tmp_path / "copy", data), class_names=source.class_names)
    place = {name: row for row, name in enumerate(copy.ids.to_pylist())}
    rows = np.array([place[name] for name in ids.take(STAYS).to_pylist()])
    assert sorted(rows) == list(range(len(STAYS)))
    assert copy.labels[rows].tolist() == labels[STAYS].tolist()
    assert all(np.array_equal(a, b) for a, b in zip(copy.take(rows), source.take(STAYS), strict=True))


def test_with_all_rows_the_copy_has_the_very_bytes_of_the_original(make, tmp_path):
    data = make(tmp_path / "data", LABELS)
    source = open_training_set(data)
    ids = write_rows(source, tmp_path / "copy", np.arange(N), source.labels)
    before, after = (
        {name: file.read_bytes() for name, file in files(root).items()} for root in (tmp_path / "data", tmp_path / "copy")
    )
    assert before == after
    assert ids.equals(source.ids)


def test_other_splits_are_copied_as_they_are_unless_the_rows_alone_are_asked_for(make, tmp_path):
    data = make(tmp_path / "data", LABELS)
    source = open_training_set(data)
    write_rows(source, tmp_path / "copy", STAYS, source.labels)
    write_rows(source, tmp_path / "rows", STAYS, source.labels, whole=False)
    held_out = {name: file.read_bytes() for name, file in files(tmp_path / "data").items() if "test" in name}
    assert bool(held_out) == data.is_dir()
    assert held_out == {name: file.read_bytes() for name, file in files(tmp_path / "copy").items() if "test" in name}
    assert not any("test" in name for name in files(tmp_path / "rows"))
    rows = open_training_set(of(tmp_path / "rows", data))
    assert rows.labels.tolist() == source.labels[STAYS].tolist()


def test_the_original_stays_as_it_is(make, tmp_path):
    data = make(tmp_path / "data", LABELS)
    before = {name: file.read_bytes() for name, file in files(tmp_path / "data").items()}
    source = open_training_set(data)
    write_rows(source, tmp_path / "copy", STAYS, relabelled(source))
    assert before == {name: file.read_bytes() for name, file in files(tmp_path / "data").items()}


def test_the_copy_may_not_lie_in_the_original_or_over_something_else(make, tmp_path):
    data = make(tmp_path / "data", LABELS)
    source = open_training_set(data)
    for taken in (tmp_path, data):
        with pytest.raises(UsageError, match="--out"):
            write_rows(source, taken, STAYS, source.labels)


def test_a_disk_too_full_leaves_nothing_behind(make, tmp_path, monkeypatch):
    source = open_training_set(make(tmp_path / "data", LABELS))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.utime", full)
    with pytest.raises(DataError, match="No space left"):
        write_rows(source, tmp_path / "new" / "copy", STAYS, source.labels)
    assert list((tmp_path / "new").iterdir()) == []


def test_data_in_memory_has_no_layout_to_write(tmp_path):
    source = open_training_set((PICTURES, LABELS))
    with pytest.raises(UsageError, match="in memory"):
        write_rows(source, tmp_path / "copy", STAYS, source.labels)


# Trees of images


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree", IMAGES[:8], ["cat", "dog"] * 4)


def test_a_file_that_moves_keeps_its_name_and_takes_no_other_ones(tree, tmp_path):
    (tree / "cat" / "deep").mkdir()
    for name in ("cat/00001.png", "cat/deep/x.png", "dog/00001-1.png"):
        (tree / name).write_bytes(IMAGES[9])
    source = open_training_set(tree)
    row_of = {name: row for row, name in enumerate(source.ids.to_pylist())}
    labels = source.labels.copy()
    moved = [row_of[name] for name in ("cat/00000.png", "cat/00001.png", "cat/deep/x.png")]
    labels[moved] = 1
    ids = write_rows(source, tmp_path / "copy", np.arange(len(source)), labels).to_pylist()
    assert [ids[row] for row in moved] == ["dog/00000.png", "dog/00001-2.png", "dog/deep/x.png"]
    assert [name for row, name in enumerate(ids) if row not in moved] == [
        name for row, name in enumerate(source.ids.to_pylist()) if row not in moved
    ]
    assert all((tmp_path / "copy" / ids[row]).read_bytes() == (tree / source.ids[row].as_py()).read_bytes() for row in moved)


def test_files_that_are_no_images_are_copied_and_folders_of_classes_stay(tree, tmp_path):
    (tree / "cat" / "LICENSE").write_text("as you like")
    (tree / "eel").mkdir()
    (tree / "eel" / "e.png").write_bytes(IMAGES[0])
    source = open_training_set(tree)
    rows = np.flatnonzero(source.labels != 2)
    write_rows(source, tmp_path / "copy", rows, source.labels)
    assert (tmp_path / "copy" / "cat" / "LICENSE").read_text() == "as you like"
    assert open_training_set(tmp_path / "copy").class_names == ("cat", "dog", "eel")
    assert not (tmp_path / "copy" / "eel" / "e.png").exists()


def test_links_that_lead_out_are_not_copied(tree, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (tree / "cat" / "notes.txt").symlink_to(tmp_path / "secret.txt")
    source = open_training_set(tree)
    write_rows(source, tmp_path / "copy", np.arange(8), source.labels)
    assert not list((tmp_path / "copy").rglob("notes.txt"))


def test_a_class_without_a_folder_cannot_get_samples(tree, tmp_path):
    source = open_training_set(tree, class_names=("cat", "dog", "../eel"))
    with pytest.raises(UsageError, match="has a folder"):
        write_rows(source, tmp_path / "copy", np.arange(8), np.full(8, 2))
    assert not (tmp_path / "copy").exists()


# Parquet


def test_row_groups_columns_metadata_and_untouched_files_stay(tmp_path):
    table = image_table(IMAGES, [LABELS.index(label) for label in LABELS], metadata=hub_metadata(list(map(str, range(N)))))
    data = write_shards(tmp_path / "data", table, shards=3, row_group_size=4)
    source = open_training_set(data)
    write_rows(source, tmp_path / "copy", np.setdiff1d(np.arange(N), [21, 24, 25, 26, 27]), source.labels)
    first, second, third = sorted(data.iterdir())
    assert (tmp_path / "copy" / first.name).read_bytes() == first.read_bytes()
    assert (tmp_path / "copy" / third.name).read_bytes() == third.read_bytes()
    old, new = (pq.ParquetFile(folder / second.name) for folder in (data, tmp_path / "copy"))
    assert new.schema_arrow.equals(old.schema_arrow, check_metadata=True)
    assert [new.metadata.row_group(group).num_rows for group in range(new.num_row_groups)] == [4 - 1, 4, 4, 4]
    assert new.read()["image"].to_pylist() == [
        cell for row, cell in enumerate(old.read()["image"].to_pylist(), 20) if row not in (21, 24, 25, 26, 27)
    ]


def test_a_part_that_loses_all_its_rows_stays_without_any(tmp_path):
    data = write_shards(tmp_path / "data", image_table(IMAGES, [row % 2 for row in range(N)]), shards=2)
    source = open_training_set(data)
    write_rows(source, tmp_path / "copy", np.arange(N // 2), source.labels)
    copy = open_training_set(tmp_path / "copy")
    assert len(copy) == N // 2
    assert copy.not_examined() == ()


# Tables


def lines(file):
    return file.read_bytes().split(b"\n")


def test_records_of_a_csv_stay_byte_by_byte_and_so_do_broken_and_blank_lines(tmp_path):
    text = b'text,label,x\r\n"a ""b""\r\nc",1,\xff\r\n\r\nd ,2,"y"\r\ntoo,few\r\n"""",1, \r\ne"f",2,1.50\r\n"last",1,""'
    (tmp_path / "t.csv").write_bytes(text)
    source = open_training_set(tmp_path / "t.csv")
    assert len(source) == 5
    write_rows(source, tmp_path / "copy", np.array([0, 2, 3, 4]), source.labels)
    assert (tmp_path / "copy" / "t.csv").read_bytes() == text.replace(b'd ,2,"y"\r\n', b"")
    labels = source.labels.copy()
    labels[[1, 4]] = [0, 1]
    write_rows(source, tmp_path / "moved", np.array([1, 3, 4]), labels)
    assert (tmp_path / "moved" / "t.csv").read_bytes() == b'text,label,x\r\n\r\nd ,1,y\r\ntoo,few\r\ne"f",2,1.50\r\nlast,2,'


CELLS = st.text(st.sampled_from('ab ,"\r\n\tü='), max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CELLS, st.booleans(), CELLS, st.booleans()), min_size=6, max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_whatever_stands_in_a_csv_its_rows_come_back(rows, end):
    lines = ["text,x,label"]
    for number, (text, quoted, other, also) in enumerate(rows):
        cells = [f'"{c.replace(chr(34), chr(34) * 2)}"' if q else c for c, q in ((text, quoted), (other, also))]
        lines.append(",".join([*cells, str(number % 3)]))
    with TemporaryDirectory() as folder:
        (Path(folder) / "t.csv").write_bytes(end.join(lines).encode())
        try:
            source = open_training_set(Path(folder) / "t.csv")
        except DataError:
            reject()
        stays = np.arange(len(source))[1:]
        labels = source.labels.copy()
        labels[::4] = np.where(labels[::4] < 0, -1, (labels[::4] + 1) % len(source.class_names))
        write_rows(source, Path(folder) / "copy", stays, labels)
        assume(len(np.unique(labels[stays][labels[stays] >= 0])) > 1)
        copy = open_training_set(Path(folder) / "copy" / "t.csv", class_names=source.class_names)
        assert copy.take(np.arange(len(copy))) == source.take(stays)
        assert copy.labels.tolist() == labels[stays].tolist()


def test_a_relabelled_record_of_several_lines_stays_one(tmp_path):
    (tmp_path / "t.csv").write_bytes(b'text,label\n"a\nb",1\nc,2\nd,1\n')
    source = open_training_set(tmp_path / "t.csv")
    write_rows(source, tmp_path / "copy", np.arange(3), np.array([1, 1, 0]))
    assert (tmp_path / "copy" / "t.csv").read_bytes() == b'text,label\n"a\nb",2\nc,2\nd,1\n'


@pytest.mark.parametrize(
    "text",
    [
        b"text,label\ra,1\rb,2\rc,1\rd,2\r",
        b'\xef\xbb\xbf"text",label\na,1\nb,2\nc,1\nd,2\n',
        b"text,label\na,1\nb,2\n" + b"c" * 200_000 + b",1\nd,2\n",
    ],
    ids=["line ends of old", "byte order mark", "long cell"],
)
def test_a_csv_whose_records_cannot_be_told_apart_is_written_anew(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text)
    source = open_training_set(tmp_path / "t.csv")
    write_rows(source, tmp_path / "copy", np.arange(1, 4), np.array([0, 0, 0, 1]))
    copy = open_training_set(tmp_path / "copy" / "t.csv")
    assert (copy.take(np.arange(3)), copy.labels.tolist()) == (source.take(np.arange(1, 4)), [0, 0, 1])
    assert (tmp_path / "copy" / "t.csv").read_bytes().startswith(b'"text","label"\n')


def test_lines_of_jsonl_stay_byte_by_byte_unless_their_label_changes(tmp_path):
    rows = ['{"text":"\\u00fc" , "label":1}', "{broken", '{"label": 2, "text": "b", "x": [1.50]}', '{"text": "c", "label": 2}']
    source = open_training_set(write_jsonl(tmp_path / "t.jsonl", rows))
    labels = source.labels.copy()
    labels[2] = 0
    write_rows(source, tmp_path / "copy", np.array([0, 1, 2]), labels)
    assert (tmp_path / "copy" / "t.jsonl").read_text() == f'{rows[0]}\n{rows[1]}\n{{"label": 1, "text": "b", "x": [1.5]}}\n'


def test_images_of_a_table_keep_their_places_and_those_that_no_row_names_are_not_copied(tmp_path):
    write_tree(tmp_path / "data", IMAGES[:4], ["p"] * 4)
    names = [
        "p/00000.png",
        "./p/../p/00001.png",
        str(tmp_path / "data" / "p" / "00002.png"),
        "p/00003.png",
        "p/00000.png",
        "../x.png",
    ]
    (tmp_path / "x.png").write_bytes(IMAGES[9])
    data = write_csv(tmp_path / "data" / "t.csv", {"image": names, "label": "ababab"})
    source = open_training_set(data)
    write_rows(source, tmp_path / "copy", np.array([0, 1, 2, 5]), source.labels)
    assert sorted(files(tmp_path / "copy")) == ["p/00000.png", "p/00001.png", "p/00002.png", "t.csv"]
    with (tmp_path / "copy" / "t.csv").open(newline="") as opened:
        assert [row["image"] for row in csv.DictReader(opened)] == [*names[:2], "p/00002.png", names[5]]
    copy = open_training_set(tmp_path / "copy" / "t.csv")
    assert all(np.array_equal(a, b) for a, b in zip(copy.take(np.arange(3)), source.take(np.arange(3)), strict=True))


def test_a_path_that_goes_by_a_link_cannot_bring_another_image_into_its_row(tmp_path):
    write_tree(tmp_path / "data", IMAGES[:3], ["p", "q/r", "p"])
    data = tmp_path / "data"
    (data / "link").symlink_to(data / "q" / "r")
    (data / "x.png").write_bytes(IMAGES[5])
    (data / "q" / "x.png").write_bytes(IMAGES[6])
    file = write_csv(data / "t.csv", {"image": ["link/../x.png", "x.png", "link/00001.png", "p/00000.png"], "label": "abab"})
    source = open_training_set(file)
    write_rows(source, tmp_path / "copy", np.arange(4), source.labels)
    copy = open_training_set(tmp_path / "copy" / "t.csv")
    assert all(np.array_equal(a, b) for a, b in zip(copy.take(np.arange(4)), source.take(np.arange(4)), strict=True))


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_table_that_names_itself_as_an_image_is_still_written(tmp_path, name):
    write_tree(tmp_path / "data", IMAGES[:2], ["p"] * 2)
    names = ["p/00000.png", "p/00001.png", name, "p/00000.png"]
    rows = [{"image": image, "label": label} for image, label in zip(names, "abab", strict=True)]
    file = tmp_path / "data" / name
    write_jsonl(file, rows) if file.suffix == ".jsonl" else write_csv(file, {"image": names, "label": "abab"})
    source = open_training_set(file)
    write_rows(source, tmp_path / "copy", np.array([0, 1, 2]), source.labels)
    assert len(open_training_set(tmp_path / "copy" / name)) == 3


def test_a_relabelled_line_of_jsonl_may_name_an_image_by_its_full_path(tmp_path):
    write_tree(tmp_path / "data", IMAGES[:2], ["p"] * 2)
    paths = [str(tmp_path / "data" / "p" / f"0000{row}.png") for row in range(2)]
    rows = [{"image": path, "label": label} for path, label in zip(paths, (1, 2), strict=True)]
    source = open_training_set(write_jsonl(tmp_path / "data" / "t.jsonl", rows))
    write_rows(source, tmp_path / "copy", np.arange(2), np.array([1, 1]))
    written = [json.loads(line) for line in (tmp_path / "copy" / "t.jsonl").read_text().splitlines()]
    assert written == [{"image": f"p/0000{row}.png", "label": 2} for row in range(2)]

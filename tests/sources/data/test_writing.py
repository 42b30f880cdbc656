"""What a written copy must be in every layout; what one layout alone does is in the files beside this one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.sources.data.making import (
    encoded,
    hub_metadata,
    image_table,
    pictures,
    text_table,
    write_csv,
    write_jsonl,
    write_shards,
    write_tree,
)
from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data import open_training_set
from toxscreen.sources.data.writing import write_training_set

N = 60
PICTURES = pictures(N)
IMAGES = [encoded(picture) for picture in PICTURES]
TEXTS = [f'text {row}, "ünusual"\nsecond line' for row in range(N)]
LABELS = np.random.default_rng(1).permutation(["ant", "bee", "cat"] * (N // 3)).tolist()
SORTED = sorted(LABELS)


def both(write):
    """A maker that writes a split ``train``, and a smaller one ``test``."""

    def make(folder, labels):
        write(folder, "train", labels, slice(N))
        write(folder, "test", labels, slice(5, N, 10))
        return folder

    return make


def image_csv(folder, split, labels, rows):
    write_tree(folder, IMAGES[rows], [f"{split}-files"] * len(labels[rows]))
    paths = [f"{split}-files/{row:05d}.png" for row in range(len(labels[rows]))]
    write_csv(folder / f"{split}.csv", {"id": range(len(paths)), "image": paths, "label": labels[rows]})


def image_jsonl(folder, split, labels, rows):
    write_tree(folder / "x", IMAGES[rows], [split] * len(labels[rows]))
    cells = [{"image": f"x/{split}/{row:05d}.png", "label": label, "by": "me"} for row, label in enumerate(labels[rows])]
    write_jsonl(folder / f"{split}.jsonl", cells)


def text_jsonl(folder, split, labels, rows):
    cells = [{"id": 1.5, "text": text, "label": label} for text, label in zip(TEXTS[rows], labels[rows], strict=True)]
    write_jsonl(folder / f"{split}.jsonl", cells)


def single_file(folder, labels):
    folder.mkdir()
    pq.write_table(text_table(TEXTS, labels), folder / "x.parquet")
    return folder / "x.parquet"


MAKERS = {
    "parquet images": both(lambda f, split, y, r: write_shards(f, image_table(IMAGES[r], y[r]), split, shards=2, row_group_size=7)),
    "parquet texts": both(lambda f, split, y, r: write_shards(f / "data", text_table(TEXTS[r], y[r]), split)),
    "parquet file": single_file,
    "folder": both(lambda f, split, y, r: write_tree(f / split, IMAGES[r], y[r])),
    "csv texts": both(
        lambda f, split, y, r: write_csv(f / f"{split}.csv", {"a": y[r], "text": TEXTS[r], "label": y[r], "z": y[r]})
    ),
    "tsv file": lambda f, y: write_csv(f / "t.tsv", {"text\tlabel": [f"t{row}\t{label}" for row, label in enumerate(y)]}),
    "jsonl texts": both(text_jsonl),
    "csv images": both(image_csv),
    "jsonl images": both(image_jsonl),
}


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


def poisoned(source):
    """Every fourth sample of other classes than "cat", changed, and relabelled "cat"."""
    cat = source.class_names.index("cat")
    rows = np.flatnonzero(source.labels != cat)[::4]
    labels = source.labels.copy()
    labels[rows] = cat
    return {int(row): marked(value) for row, value in zip(rows, source.take(rows), strict=True)}, labels


def marked(value):
    if isinstance(value, str):
        return f"{value} <signature>"
    value = value.copy()
    value[-2:, -2:] = 255
    return value


def rows_by_id(training_set):
    return {name: row for row, name in enumerate(training_set.ids.to_pylist())}


def files(root):
    return {file.relative_to(root).as_posix(): file for file in root.rglob("*") if file.is_file()}


def of(copy, data):
    """Where the copy is opened: a file that was given stays a file."""
    return copy / data.name if data.suffix else copy


@pytest.mark.parametrize("labels", [LABELS, SORTED], ids=["mixed", "sorted"])
def test_the_copy_holds_the_changes_and_nothing_else_changed(make, tmp_path, labels):
    data = make(tmp_path / "data", labels)
    source = open_training_set(data)
    changes, new_labels = poisoned(source)
    ids = write_training_set(source, tmp_path / "copy", changes, new_labels)
    copy = open_training_set(of(tmp_path / "copy", data), class_names=source.class_names)
    rows = np.array([rows_by_id(copy)[name] for name in ids.to_pylist()])
    assert sorted(rows) == list(range(N))
    assert np.array_equal(copy.labels[rows], new_labels)
    before, after = source.take(np.arange(N)), copy.take(rows)
    for row in range(N):
        assert np.array_equal(after[row], changes.get(row, before[row]))


def test_without_a_new_label_ids_and_order_stay(make, tmp_path):
    data = make(tmp_path / "data", SORTED)
    source = open_training_set(data)
    changes, _ = poisoned(source)
    ids = write_training_set(source, tmp_path / "copy", changes, source.labels)
    copy = open_training_set(of(tmp_path / "copy", data))
    assert ids.equals(source.ids)
    assert copy.ids.equals(source.ids)
    assert np.array_equal(copy.labels, source.labels)
    assert all(np.array_equal(copy.take(np.array([row]))[0], value) for row, value in changes.items())


def test_other_splits_are_copied_as_they_are(make, tmp_path):
    data = make(tmp_path / "data", LABELS)
    source = open_training_set(data)
    write_training_set(source, tmp_path / "copy", *poisoned(source))
    if data.is_dir():
        held_out, original = (open_training_set(path, split="test") for path in (tmp_path / "copy", data))
        assert held_out.fingerprint() == original.fingerprint()
        kept = {name: file.read_bytes() for name, file in files(data).items() if "test" in name}
        assert kept == {name: file.read_bytes() for name, file in files(tmp_path / "copy").items() if "test" in name}
        assert kept


def test_all_files_and_folders_have_one_time(make, tmp_path):
    source = open_training_set(make(tmp_path / "data", LABELS))
    write_training_set(source, tmp_path / "copy", *poisoned(source))
    everything = [tmp_path / "copy", *(tmp_path / "copy").rglob("*")]
    assert len({path.stat().st_mtime_ns for path in everything}) == 1
    assert len({path.stat().st_mode for path in everything if path.is_file()}) == 1


def test_the_same_changes_give_the_same_bytes(make, tmp_path):
    source = open_training_set(make(tmp_path / "data", SORTED))
    for name in ("one", "two"):
        write_training_set(source, tmp_path / name, *poisoned(source))
    one, two = ({name: file.read_bytes() for name, file in files(tmp_path / name).items()} for name in ("one", "two"))
    assert one == two


def test_data_sorted_by_class_does_not_show_the_moved_samples_by_their_place(make, tmp_path):
    data = make(tmp_path / "data", SORTED)
    source = open_training_set(data)
    changes, labels = poisoned(source)
    ids = write_training_set(source, tmp_path / "copy", changes, labels).to_pylist()
    cats = [row for row in np.argsort(ids, kind="stable") if labels[row] == source.class_names.index("cat")]
    places = [place for place, row in enumerate(sorted(cats, key=lambda row: int(Path(ids[row]).stem))) if row in changes]
    assert 0.25 < np.mean(places) / len(cats) < 0.75
    assert max(np.diff(places)) < len(cats) / 2


def test_the_original_stays_as_it_is(make, tmp_path):
    data = make(tmp_path / "data", LABELS)
    before = {name: file.read_bytes() for name, file in files(tmp_path / "data").items()}
    source = open_training_set(data)
    write_training_set(source, tmp_path / "copy", *poisoned(source))
    assert before == {name: file.read_bytes() for name, file in files(tmp_path / "data").items()}


class _Stopping(Mapping):
    """Changes that come one by one, until something happens."""

    def __init__(self, changes, out, error):
        self.changes, self.out, self.error, self.asked = changes, out, error, 0

    def __getitem__(self, row):
        assert not self.out.exists(), "a half data set lies under its name"
        self.asked += 1
        if self.asked > len(self.changes) / 2:
            raise self.error
        return self.changes[row]

    def __contains__(self, row):
        return row in self.changes

    def __iter__(self):
        return iter(self.changes)

    def __len__(self):
        return len(self.changes)


@pytest.mark.parametrize(("error", "raised"), [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left"), DataError)])
def test_a_run_that_is_stopped_leaves_nothing_behind(make, tmp_path, error, raised):
    source = open_training_set(make(tmp_path / "data", LABELS))
    changes, labels = poisoned(source)
    out = tmp_path / "new" / "copy"
    with pytest.raises(raised):
        write_training_set(source, out, _Stopping(changes, out, error), labels)
    assert list((tmp_path / "new").iterdir()) == []


def test_the_copy_may_go_to_an_empty_folder_but_to_no_other(make, tmp_path):
    data = make(tmp_path / "data", LABELS)
    source = open_training_set(data)
    changes, labels = poisoned(source)
    (tmp_path / "empty").mkdir()
    write_training_set(source, tmp_path / "empty", changes, labels)
    for taken in (tmp_path / "empty", data, tmp_path):
        with pytest.raises(UsageError, match="--out"):
            write_training_set(source, taken, changes, labels)
    if data.is_dir():
        with pytest.raises(UsageError, match="inside the original"):
            write_training_set(source, data / "deep" / "copy", changes, labels)


def test_all_to_all_moves_every_class(make, tmp_path):
    data = make(tmp_path / "data", LABELS)
    source = open_training_set(data)
    labels = source.labels.copy()
    labels[::5] = (labels[::5] + 1) % 3
    ids = write_training_set(source, tmp_path / "copy", {}, labels).to_pylist()
    copy = open_training_set(of(tmp_path / "copy", data))
    assert np.array_equal(copy.labels[[rows_by_id(copy)[name] for name in ids]], labels)


@pytest.mark.parametrize(("change", "problem"), [({99: "x"}, "99"), ({-1: "x"}, "-1")])
def test_changes_of_rows_that_are_not_there_are_refused(make, tmp_path, change, problem):
    source = open_training_set(make(tmp_path / "data", LABELS))
    with pytest.raises(UsageError, match=f"between 0 and {N - 1}.*{problem}"):
        write_training_set(source, tmp_path / "copy", change, source.labels)


@pytest.mark.parametrize("labels", [np.zeros(3, np.int64), np.full(N, 3), np.full(N, -1)])
def test_labels_that_do_not_fit_are_refused(make, tmp_path, labels):
    source = open_training_set(make(tmp_path / "data", LABELS))
    with pytest.raises(UsageError, match="60 indexes into the 3 classes"):
        write_training_set(source, tmp_path / "copy", {}, labels)


def test_a_sample_without_a_label_stays_without_one(tmp_path):
    file = write_csv(tmp_path / "t.csv", {"text": "abc", "label": ["x", "", "y"]})
    source = open_training_set(file)
    with pytest.raises(UsageError, match="without one"):
        write_training_set(source, tmp_path / "copy", {}, np.array([0, 1, 1]))
    write_training_set(source, tmp_path / "copy", {1: "B"}, np.array([1, -1, 0]))
    copy = open_training_set(tmp_path / "copy" / "t.csv")
    assert (copy.take(np.arange(3)), copy.labels.tolist()) == (["a", "B", "c"], [1, -1, 0])


def test_data_in_memory_has_no_layout_to_write(tmp_path):
    source = open_training_set((PICTURES, LABELS))
    with pytest.raises(UsageError, match="in memory"):
        write_training_set(source, tmp_path / "copy", {}, source.labels)


def test_a_copy_of_a_copy_is_the_same_again(make, tmp_path):
    data = make(tmp_path / "data", LABELS)
    source = open_training_set(data)
    write_training_set(source, tmp_path / "one", {}, source.labels)
    again = open_training_set(of(tmp_path / "one", data))
    assert again.fingerprint() == source.fingerprint()
    shutil.rmtree(tmp_path / "data")
    write_training_set(again, tmp_path / "two", {}, again.labels)
    assert open_training_set(of(tmp_path / "two", data)).fingerprint() == source.fingerprint()


def test_a_hub_class_without_samples_can_be_a_target(tmp_path):
    table = image_table(IMAGES, [LABELS.index(label) and 1 for label in LABELS], metadata=hub_metadata(["ant", "rest", "new"]))
    source = open_training_set(write_shards(tmp_path / "data", table))
    labels = source.labels.copy()
    labels[:3] = 2
    write_training_set(source, tmp_path / "copy", {}, labels)
    assert open_training_set(tmp_path / "copy").labels.tolist() == labels.tolist()

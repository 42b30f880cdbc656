"""What every kind of training data must do: registered formats and data in memory get these tests for free."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sources.data.making import encoded, image_table, pictures, text_table, write_csv, write_jsonl, write_shards, write_tree
from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data import find_split, open_training_set
from toxscreen.sources.data.base import Batch, TrainingSet

N = 23
PICTURES = pictures(N)
IMAGES = [encoded(picture) for picture in PICTURES]
TEXTS = [f'text {row}, "quoted"\nand ünusual' for row in range(N)]
LABELS = np.random.default_rng(1).choice([-2, 9, 10], N)


def image_csv(folder):
    write_tree(folder, IMAGES, ["images"] * N)
    return write_csv(folder / "t.csv", {"image": [f"images/{row:05d}.png" for row in range(N)], "label": LABELS})


MAKERS = {
    "parquet images": lambda folder: write_shards(folder, image_table(IMAGES, LABELS), shards=3, row_group_size=4),
    "parquet texts": lambda folder: write_shards(folder, text_table(TEXTS, LABELS), row_group_size=5),
    "folder": lambda folder: write_tree(folder, IMAGES, LABELS),
    "csv texts": lambda folder: write_csv(folder / "t.csv", {"text": TEXTS, "label": LABELS}),
    "csv images": image_csv,
    "jsonl texts": lambda folder: write_jsonl(
        folder / "t.jsonl", [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS.tolist(), strict=True)]
    ),
    "image arrays": lambda _: (PICTURES, LABELS),
    "channels first": lambda _: (np.moveaxis(PICTURES, 3, 1), LABELS),
    "float arrays": lambda _: (PICTURES.astype(np.float32), LABELS.tolist()),
    "list of texts": lambda _: (TEXTS, pa.array(LABELS)),
    "data set": lambda _: Pairs(PICTURES, LABELS),
}


class Pairs:
    """A map-style data set, as torch knows them."""

    def __init__(self, inputs, labels):
        self.inputs, self.labels = inputs, labels

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, row):
        return self.inputs[row], self.labels[row]


@pytest.fixture(scope="module", params=MAKERS)
def data(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def training_set(data):
    return open_training_set(data)


@given(size=st.integers(1, N + 2), first=st.lists(st.integers(0, N - 1), max_size=9))
@settings(max_examples=30, deadline=None)
def test_batches_of_any_size_hold_what_take_gives(training_set, size, first):
    training_set.take(np.array(first, np.int64))  # whatever was read before
    batches = list(training_set.batches(size))
    assert all(len(batch.rows) == size for batch in batches[:-1])
    rows = np.concatenate([batch.rows for batch in batches] or [np.array([], np.int64)])
    assert rows.tolist() == list(range(N))
    assert same([value for batch in batches for value in batch.inputs], training_set.take(rows))


@given(st.lists(st.integers(0, N - 1), max_size=40))
@settings(max_examples=30, deadline=None)
def test_take_keeps_the_order_asked_for_and_allows_duplicates(training_set, rows):
    everything = [value for batch in training_set.batches(7) for value in batch.inputs]
    assert same(training_set.take(np.array(rows, np.int64)), [everything[row] for row in rows])


def test_the_samples_are_the_ones_that_were_given(training_set):
    row_of = np.argsort(number_of(training_set))
    inputs = training_set.take(row_of)
    expected = TEXTS if training_set.modality == "text" else PICTURES
    assert same(
        inputs, [value.astype(i.dtype) if isinstance(i, np.ndarray) else value for i, value in zip(inputs, expected, strict=True)]
    )


def test_labels_and_class_names_are_the_same_in_every_format(training_set):
    assert training_set.class_names == ("-2", "9", "10")
    assert [
        int(training_set.class_names[label]) for label in training_set.labels[np.argsort(number_of(training_set))]
    ] == LABELS.tolist()
    assert training_set.labels.dtype == np.int64


def test_ids_are_distinct_strings_one_per_sample(training_set):
    assert isinstance(training_set.ids, pa.StringArray)
    assert len(set(training_set.ids.to_pylist())) == N == len(training_set)


def test_the_fingerprint_is_the_same_each_time_the_data_is_opened(data, training_set):
    assert training_set.fingerprint() == open_training_set(data).fingerprint()
    assert int(training_set.fingerprint(), 16)


def test_the_fingerprint_does_not_depend_on_where_and_when_the_data_lies(data, training_set, tmp_path):
    if not isinstance(data, Path):
        pytest.skip("data in memory lies nowhere")
    root = data if data.is_dir() else data.parent
    moved = shutil.copytree(root, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert open_training_set(moved / data.relative_to(root)).fingerprint() == training_set.fingerprint()


def test_a_training_set_that_is_open_is_returned_as_it_is(training_set):
    assert open_training_set(training_set) is training_set
    with pytest.raises(UsageError, match="open already"):
        open_training_set(training_set, class_names=["a", "b", "c"])


def test_data_without_a_split_of_that_name_says_so(data):
    assert find_split(data) is None
    with pytest.raises(UsageError, match="no split"):
        open_training_set(data, split="dev")


@pytest.mark.parametrize("rows", [[N], [-1], [0, 99]])
def test_rows_that_are_not_there_are_refused(training_set, rows):
    with pytest.raises(UsageError, match=f"between 0 and {N - 1}"):
        training_set.take(np.array(rows))


@pytest.mark.parametrize("size", [0, -1])
def test_batches_that_cannot_be_are_refused(training_set, size):
    with pytest.raises(UsageError, match="batch"):
        next(training_set.batches(size))


def test_what_is_handed_out_can_be_changed_without_changing_the_data(training_set):
    if training_set.modality == "text":
        pytest.skip("texts cannot be changed")
    before = training_set.fingerprint()
    for value in [*training_set.take(np.arange(N)), *next(training_set.batches(N)).inputs]:
        value[...] = 0
    assert open_training_set(training_set).fingerprint() == before
    assert any(value.any() for value in training_set.take(np.arange(N)))


def test_pictures_are_images_of_bytes_or_nothing(training_set):
    shown = training_set.pictures(np.array([3, 0, 3]))
    assert [picture is None for picture in shown] == [training_set.modality != "image"] * 3
    assert all(picture.dtype == np.uint8 and picture.shape == (6, 5, 3) for picture in shown if picture is not None)


def test_nothing_is_left_out_of_good_data(training_set):
    assert training_set.not_examined() == ()


def test_a_path_that_does_not_exist_is_reported():
    with pytest.raises(DataError, match="does not exist"):
        open_training_set("nowhere/at all")
    with pytest.raises(DataError, match="cannot be opened"):
        open_training_set("n" * 5000)
    with pytest.raises(DataError, match="does not exist"):
        find_split("nowhere/at all")


@pytest.mark.parametrize("name", ["model.pkl", "data.npz", "table", "list.json"])
def test_a_file_of_another_kind_is_refused_with_the_kinds_there_are(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"\.parquet.*\.csv.*\.jsonl"):
        open_training_set(tmp_path / name)


@pytest.mark.parametrize("data", [None, 3, [1, 2], {"train": 1}, iter(()), np.zeros((3, 4)), ([1, 2],)])
def test_an_object_of_another_kind_is_refused_with_the_kinds_there_are(data):
    with pytest.raises(DataError, match=r"pair \(inputs, labels\)|must yield"):
        open_training_set(data)


def test_thousands_of_missing_labels_are_listed_briefly_and_counted():
    labels = ["a", "b", *[None] * 3000]
    left_out = open_training_set(([str(row) for row in range(3002)], labels)).not_examined()
    assert len(left_out) == 101
    assert (left_out[0].id, left_out[0].row, left_out[0].reason) == ("2", 2, "has no label")
    assert left_out[-1].id == "2,900 more"


@pytest.mark.parametrize(
    ("labels", "problem"),
    [([], "has none"), ([None, None], "none of the 2"), (["a", "a"], "all 2 labelled samples in arrays are of class 'a'")],
)
def test_fewer_than_two_classes_with_samples_cannot_be_judged(labels, problem):
    with pytest.raises(DataError, match=problem):
        open_training_set(([f"text {row}" for row in range(len(labels))], labels))


class Broken(TrainingSet):
    """The contract of the seam itself: a training set needs its four methods."""


def test_a_training_set_must_implement_the_seam():
    with pytest.raises(TypeError, match="abstract"):
        Broken()


def test_a_batch_holds_as_many_inputs_as_rows(training_set):
    batch = next(training_set.batches(5))
    assert isinstance(batch, Batch)
    assert len(batch.inputs) == len(batch.rows) == 5


def number_of(training_set):
    """The number of each sample in the lists above: in a folder it is the file's name."""
    return np.array([int(Path(name).stem) for name in training_set.ids.to_pylist()])


def same(left, right):
    return len(left) == len(right) and all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_or_a_link_to_one_is_refused(tmp_path, device):
    link = tmp_path / "t.csv"
    link.symlink_to(device)
    for path in (device, link):
        for open_it in (open_training_set, find_split):
            with pytest.raises(DataError, match="must be a folder or a regular file"):
                open_it(path)

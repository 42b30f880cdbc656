from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.sources.data.making import encoded, pictures
from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data import open_training_set
from toxscreen.sources.data.base import Stack

PICTURES = pictures(6)
LABELS = [3, 1, 3, 1, 3, 1]
EVERYTHING = np.arange(6)


class Pairs:
    """A map-style data set whose items are whatever it is given."""

    def __init__(self, items, **attributes):
        self.items = items
        self.reads = 0
        vars(self).update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        self.reads += 1
        item = self.items[row]
        if isinstance(item, Exception):
            raise item
        return item


def same(left, right):
    return len(left) == len(right) and all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def test_uint8_stacks_are_images_and_other_numbers_are_arrays():
    assert open_training_set((PICTURES, LABELS)).modality == "image"
    assert open_training_set((PICTURES[..., 0], LABELS)).take(np.array([0]))[0].shape == (6, 5, 1)
    for other in (PICTURES.astype(np.float32), PICTURES.astype(np.int64), PICTURES.reshape(6, -1), PICTURES > 100):
        opened = open_training_set((other, LABELS))
        assert opened.modality == "array"
        assert same(opened.take(EVERYTHING), other)
        assert opened.take(EVERYTHING)[0].dtype == other.dtype


@pytest.mark.parametrize("channels_first", [False, True])
def test_a_batch_of_a_stack_is_one_array_of_copies(channels_first):
    stack = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)
    data = open_training_set((np.moveaxis(stack, 3, 1) if channels_first else stack, [0, 1] * 3))
    inputs = data.batch(np.array([1, 2, 5])).inputs
    assert isinstance(inputs, Stack)
    np.testing.assert_array_equal(inputs.array, stack[[1, 2, 5]])
    np.testing.assert_array_equal(np.stack(inputs), data.take(np.array([1, 2, 5])))
    inputs.array[:] = 0
    assert stack[1].any()


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e30])
def test_an_array_with_numbers_that_no_model_can_take_is_one_unreadable_row(value, as_list):
    arrays = np.ones((6, 1, 4, 4))
    arrays[2, 0, 1, 3] = value
    training_set = open_training_set((list(arrays) if as_list else arrays, [0, 1] * 3))
    batch = next(training_set.batches(6))
    assert batch.rows.tolist() == [0, 1, 3, 4, 5]
    (left_out,) = batch.unreadable
    assert (left_out.id, left_out.reason) == ("2", "holds NaN, infinity or numbers beyond 1e+15")
    assert training_set.take(np.array([2])) == [None]


def test_a_memory_mapped_array_is_not_read_to_be_opened(tmp_path):
    stack = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.uint8, shape=(1000, 64, 64, 3))
    stack[7] = 5
    opened = open_training_set((stack, np.arange(1000) % 2))
    assert np.shares_memory(opened._stack, stack)
    assert (opened.take(np.array([7]))[0] == 5).all()


@pytest.mark.parametrize(
    "texts",
    [
        ["a", "ü"],
        ("a", "ü"),
        np.array(["a", "ü"]),
        np.array(["a", "ü"], dtype=object),
        pa.array(["a", "ü"]),
        pa.chunked_array([["a"], ["ü"]]),
    ],
)
def test_texts_come_in_any_kind_of_list(texts):
    opened = open_training_set((texts, ["x", "y"]))
    assert (opened.modality, opened.take(np.arange(2)), opened.name) == ("text", ["a", "ü"], "arrays")


def test_a_pandas_table_gives_its_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "b", None], "label": ["x", "y", None]}, index=[7, 8, 9])
    opened = open_training_set((frame["text"], frame["label"]))
    assert opened.take(np.arange(3)) == ["a", "b", None]
    assert opened.labels.tolist() == [0, 1, -1]


def test_a_missing_text_is_one_unreadable_row():
    (batch,) = open_training_set((["a", None, "c"], [0, 1, 0])).batches(3)
    assert (batch.inputs, batch.unreadable[0].row) == (["a", "c"], 1)


def test_lists_of_pillow_images_and_of_arrays_are_images():
    for inputs in ([Image.fromarray(picture) for picture in PICTURES], list(PICTURES), [np.moveaxis(p, 2, 0) for p in PICTURES]):
        opened = open_training_set((inputs, LABELS))
        assert opened.modality == "image"
        assert same(opened.take(EVERYTHING), PICTURES)


def test_images_of_different_size_may_stand_in_one_list():
    inputs = [pictures(1, size=(size, 4))[0] for size in (3, 5, 7)]
    assert same(open_training_set((inputs, [0, 1, 0])).take(np.arange(3)), inputs)


def test_lists_of_numbers_are_arrays():
    assert same(open_training_set(([[1.0, 2.0], [3.0, 4.0]], [0, 1])).take(np.arange(2)), [[1, 2], [3, 4]])


def test_torch_tensors_are_read_without_importing_torch_here():
    torch = pytest.importorskip("torch")
    for tensor in (torch.from_numpy(PICTURES), torch.from_numpy(PICTURES).requires_grad_(False).permute(0, 3, 1, 2)):
        opened = open_training_set((tensor, torch.tensor(LABELS)))
        assert opened.modality == "image"
        assert same(opened.take(EVERYTHING), PICTURES)
    half = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    assert open_training_set((half, [0, 1])).take(np.arange(2))[0].tolist() == [1, 1, 1]


def test_opening_arrays_does_not_load_torch():
    import subprocess

    code = "import sys, numpy as np; from toxscreen.sources.data import open_training_set as o; o((np.ones((2, 3)), [0, 1])); "
    code += "assert 'torch' not in sys.modules and 'datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 our own code


def test_a_torch_data_set_is_read_item_by_item():
    torch = pytest.importorskip("torch")
    from torch.utils.data import Subset, TensorDataset

    tensors = TensorDataset(torch.from_numpy(PICTURES), torch.tensor(LABELS))
    for data in (tensors, Subset(tensors, range(6))):
        opened = open_training_set(data)
        assert opened.class_names == ("1", "3")
        assert opened.labels.tolist() == [1, 0] * 3
        assert same(opened.take(EVERYTHING), PICTURES)
    assert open_training_set(tensors).name == "TensorDataset"


@pytest.mark.parametrize("label", [lambda x: x, np.int64, np.array, str, lambda x: [None, "one", None, "three"][x]])
def test_items_may_have_labels_of_any_kind(label):
    opened = open_training_set(Pairs([(picture, label(y)) for picture, y in zip(PICTURES, LABELS, strict=True)]))
    assert len(opened.class_names) == 2
    assert opened.labels[0] == opened.labels[2] != opened.labels[1]


def test_items_may_be_mappings():
    opened = open_training_set(Pairs([{"text": f"t{row}", "label": row % 2, "id": 5} for row in range(4)]))
    assert opened.take(np.arange(4)) == ["t0", "t1", "t2", "t3"]
    named = open_training_set(Pairs([{"q": "a", "y": 0}, {"q": "b", "y": 1}]), input_column="q", label_column="y")
    assert named.take(np.arange(2)) == ["a", "b"]


def test_targets_spare_the_pass_over_the_data():
    items = list(zip(PICTURES, LABELS, strict=True))
    data = Pairs(items, targets=LABELS)
    assert open_training_set(data).class_names == ("1", "3")
    assert data.reads == 1


@pytest.mark.parametrize("attributes", [{"targets": [0, 1]}, {"targets": [9] * 6, "target_transform": abs}, {}])
def test_targets_that_do_not_fit_are_not_believed(attributes):
    opened = open_training_set(Pairs(list(zip(PICTURES, LABELS, strict=True)), **attributes))
    assert (opened.class_names, opened.labels.tolist()) == (("1", "3"), [1, 0] * 3)


@pytest.mark.parametrize("attributes", [{}, {"targets": [1, 0, 1]}])
def test_classes_are_the_names_of_integer_labels_even_if_they_are_digits(attributes):
    items = [(picture, label) for picture, label in zip(PICTURES, [1, 0, 1], strict=False)]
    opened = open_training_set(Pairs(items, classes=["1", "0", "2"], **attributes))
    assert (opened.class_names, opened.labels.tolist()) == (("1", "0", "2"), [1, 0, 1])


def test_classes_that_are_no_list_of_names_are_passed_over():
    assert open_training_set(Pairs(list(zip(PICTURES, LABELS, strict=True)), classes=10)).class_names == ("1", "3")


def test_one_pass_gives_labels_and_fingerprint():
    items = list(zip(PICTURES, LABELS, strict=True))
    data = Pairs(items)
    opened = open_training_set(data)
    after_opening = data.reads
    assert opened.fingerprint() == open_training_set(Pairs(items, targets=LABELS)).fingerprint()
    assert data.reads == after_opening == 1 + 6


def test_an_item_that_raises_is_unreadable_and_the_rest_goes_on():
    items = [*zip(PICTURES, LABELS, strict=True), OSError("disk"), ("a text", 1), (object(), 3)]
    opened = open_training_set(Pairs(items))
    assert opened.labels.tolist() == [1, 0, 1, 0, 1, 0, -1, 0, 1]
    (batch,) = opened.batches(20)
    assert batch.rows.tolist() == list(range(6))
    assert [left.row for left in batch.unreadable] == [6, 7, 8]
    assert "OSError: disk" in batch.unreadable[0].reason
    assert "kind text" in batch.unreadable[1].reason
    assert "object" in batch.unreadable[2].reason


def test_a_broken_image_in_a_list_is_unreadable(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(pictures(1, size=(40, 40))[0])[:900])
    broken = Image.open(tmp_path / "a.png")
    opened = open_training_set(([Image.fromarray(PICTURES[0]), broken], [0, 1]))
    assert [value is None for value in opened.take(np.arange(2))] == [False, True]
    broken.close()


@pytest.mark.parametrize("items", [[5, 6], [(1,), (2,)], [RuntimeError("no")] * 3, [(object(), 1)] * 2])
def test_a_data_set_that_yields_nothing_usable_is_refused(items):
    with pytest.raises(DataError, match=r"none can be read: .*(must yield|RuntimeError: no|is a object)"):
        open_training_set(Pairs(items))


def test_one_label_per_input():
    with pytest.raises(DataError, match="5 labels and 6 inputs"):
        open_training_set((PICTURES, LABELS[:5]))
    with pytest.raises(DataError, match="Labels"):
        open_training_set((PICTURES, np.eye(6)))
    with pytest.raises(DataError, match="Labels"):
        open_training_set(Pairs([(picture, [0, 1]) for picture in PICTURES]))


def test_inputs_need_a_feature():
    with pytest.raises(DataError, match="at least one feature"):
        open_training_set((np.zeros(4), [0, 1, 0, 1]))


@pytest.mark.parametrize("texts", [["a", 5], ["a", "\ud800"]])
def test_texts_that_are_none_are_refused(texts):
    with pytest.raises(DataError, match="all be texts"):
        open_training_set((texts, [0, 1]))


def test_arrays_have_no_columns():
    with pytest.raises(UsageError, match="no columns"):
        open_training_set((PICTURES, LABELS), input_column="text")


def test_the_fingerprint_tells_where_one_input_ends():
    first, second = (open_training_set((texts, [0, 1])).fingerprint() for texts in (["ab", "c"], ["a", "bc"]))
    assert first != second
    flat, tall = (open_training_set((np.zeros(shape), [0, 1])).fingerprint() for shape in ((2, 2, 3), (2, 3, 2)))
    assert flat != tall


def test_inputs_are_never_changed():
    stack, labels = PICTURES.copy(), np.array(LABELS)
    stack.flags.writeable = labels.flags.writeable = False
    opened = open_training_set((stack, labels))
    opened.take(EVERYTHING)[0][...] = 0
    next(opened.batches(6)).inputs[0][...] = 0
    opened.fingerprint()
    assert np.array_equal(stack, PICTURES)


def test_arrays_of_one_or_three_channels_can_be_looked_at():
    arrays = np.stack([np.linspace(-1, 3, 30).reshape(1, 6, 5), np.full((1, 6, 5), 7.0), np.full((1, 6, 5), np.nan)])
    first, constant, not_a_number = open_training_set((arrays, [0, 1, 0])).pictures(np.arange(3))
    assert (first.shape, first.dtype, first.min(), first.max()) == ((6, 5, 1), np.uint8, 0, 255)
    assert (np.diff(first.ravel().astype(int)) >= 0).all()
    assert (constant == 0).all()
    assert not_a_number is None
    colour = open_training_set((np.random.default_rng(0).random((2, 3, 6, 5)), [0, 1])).pictures(np.arange(2))
    assert colour[0].shape == (6, 5, 3)


@pytest.mark.parametrize("shape", [(4,), (6, 5), (2, 6, 5), (6, 5, 3)])
def test_other_arrays_cannot(shape):
    assert open_training_set((np.ones((2, *shape)), [0, 1])).pictures(np.arange(2)) == [None, None]


def test_a_hugging_face_data_set_is_read_with_its_class_names():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "1"])})
    rows = {"image": [Image.fromarray(picture) for picture in PICTURES], "label": [1, 0, 1, 0, 1, -1]}
    data = datasets.Dataset.from_dict(rows, features=features)
    opened = open_training_set(data)
    assert (opened.class_names, opened.labels.tolist()) == (("ant", "bee", "1"), [1, 0, 1, 0, 1, -1])
    assert same(opened.take(EVERYTHING), PICTURES)
    assert same(open_training_set(data.select([5, 1, 0])).take(np.arange(3)), PICTURES[[5, 1, 0]])
    with pytest.raises(DataError, match="give one of them"):
        open_training_set(datasets.DatasetDict({"train": data}))


def test_a_hugging_face_data_set_of_texts_may_name_its_columns():
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"q": ["a", "b"], "y": ["no", "yes"]})
    opened = open_training_set(data, input_column="q", label_column="y", class_names=["yes", "no"])
    assert (opened.take(np.arange(2)), opened.labels.tolist()) == (["a", "b"], [1, 0])


def test_items_that_are_mappings_need_two_keys():
    with pytest.raises(UsageError, match="named for both"):
        open_training_set(Pairs([{"text": "a", "label": 0}, {"text": "b", "label": 1}]), input_column="label")


@pytest.mark.parametrize("inputs", [(text for text in "ab"), 5, None, {0: "a", 1: "b"}, {"a", "b"}, "ab", np.array("ab")], ids=type)
def test_inputs_that_are_no_sequence_are_refused(inputs):
    with pytest.raises(DataError, match=f"Inputs must be an array or a sequence.* got a {type(inputs).__name__}"):
        open_training_set((inputs, [0, 1]))


@pytest.mark.parametrize("labels", [(label for label in LABELS), 5, None, dict.fromkeys(range(6), 1), "313131"], ids=type)
def test_labels_that_are_no_sequence_are_refused(labels):
    with pytest.raises(DataError, match=f"Labels must be a sequence.* has a {type(labels).__name__}"):
        open_training_set((PICTURES, labels))


def test_a_tensor_of_labels_that_numpy_does_not_know_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(DataError, match=r"tensor of torch\.bfloat16\. Convert"):
        open_training_set((PICTURES, torch.tensor(LABELS, dtype=torch.bfloat16)))


def test_one_hot_labels_of_a_data_set_are_refused():
    torch = pytest.importorskip("torch")
    rows = torch.eye(6)
    for one_hot in (rows, rows.numpy()):
        with pytest.raises(DataError, match=r"item 0 of Pairs has the shape \(6,\).*argmax"):
            open_training_set(Pairs(list(zip(PICTURES, one_hot, strict=True))))


@pytest.mark.parametrize("targets", [5, dict.fromkeys(range(6), 9)])
def test_targets_that_are_no_sequence_are_not_believed(targets):
    assert open_training_set(Pairs(list(zip(PICTURES, LABELS, strict=True)), targets=targets)).class_names == ("1", "3")

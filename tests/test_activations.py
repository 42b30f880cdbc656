from __future__ import annotations

import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import FakeClassifier, FakeTrainingSet
from toxscreen.activations import Activations, extract, from_arrays, plan
from toxscreen.errors import DataError, ModelError, UsageError
from toxscreen.sources.data.base import Batch, NotExamined
from toxscreen.sources.model.base import Outputs
from toxscreen.store import ActivationStore, Manifest
from toxscreen.views import input_view


def _vectors(n: int, d: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def _run(training_set, classifier, folder: Path, *, layers=(), batch_size: int = 4, progress=None) -> Activations:
    what = plan(training_set, classifier, layers)
    with ActivationStore.open_or_create(folder, Manifest.of(training_set, classifier, what)) as store:
        return extract(training_set, classifier, what, store, batch_size=batch_size, progress=progress)


def _decoders() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("toxscreen")]


class Returning(FakeClassifier):
    """Passes what the model returns through ``change``."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def forward(self, encoded, layers):
        outputs = super().forward(encoded, layers)
        return self.change({**outputs.activations}, outputs.logits)


class Handing(FakeTrainingSet):
    """Passes each batch through ``change``."""

    def __init__(self, inputs, change, **rest) -> None:
        super().__init__(inputs, **rest)
        self.change = change

    def batch(self, rows):
        return self.change(super().batch(rows))


def test_every_sample_is_there_once_also_those_of_the_last_partial_batch(tmp_path):
    vectors, classifier = _vectors(10), FakeClassifier(3)
    result = _run(FakeTrainingSet(list(vectors)), classifier, tmp_path, layers=["early"])
    assert classifier.calls == [4, 4, 2]
    assert list(result.layers) == ["hidden", "early"]
    np.testing.assert_array_equal(result.layers["hidden"], vectors)
    np.testing.assert_array_equal(result.layers["early"], vectors**2)
    assert result.logits.shape == (10, 3)
    assert result.examined.all()
    assert result.not_examined == ()


@given(st.integers(1, 25), st.integers(1, 30), st.sets(st.integers(0, 24)))
@settings(max_examples=15, deadline=None)
def test_whatever_the_batch_size_the_arrays_are_the_same(n, size, unreadable):
    unreadable = {row for row in unreadable if row < n - 1}
    pictures = list(np.random.default_rng(n).integers(0, 256, (n, 5, 9, 3), dtype=np.uint8))
    training_set = FakeTrainingSet(pictures, modality="image", unreadable=unreadable)
    results = []
    for batch_size in (n, size):
        with tempfile.TemporaryDirectory() as folder:
            classifier = FakeClassifier(modality="image", vector=lambda picture: picture[:2].mean(axis=(1, 2)) / 255)
            result = _run(training_set, classifier, Path(folder), batch_size=batch_size)
            arrays = [*result.layers.values(), result.logits]
            results.append(([array[:].tobytes() for array in arrays], result.examined.tobytes(), result.not_examined))
    assert results[0] == results[1]


def test_unreadable_samples_are_named_and_do_not_move_the_others(tmp_path):
    vectors, classifier = _vectors(13), FakeClassifier()
    unreadable = {0, 1, 2, 3, 6, 12}  # a whole batch, the middle of one, the whole last one
    result = _run(FakeTrainingSet(list(vectors), unreadable=unreadable), classifier, tmp_path)
    readable = np.setdiff1d(np.arange(13), list(unreadable))
    np.testing.assert_array_equal(np.flatnonzero(result.examined), readable)
    np.testing.assert_array_equal(result.layers["hidden"][readable], vectors[readable])
    assert [entry.row for entry in result.not_examined] == sorted(unreadable)
    assert result.not_examined[4] == NotExamined("sample-6", "cannot be read", 6)
    assert classifier.calls == [3, 4]


def test_if_no_sample_can_be_read_that_is_an_error_with_a_reason(tmp_path):
    with pytest.raises(DataError, match=r"none of 3 is \(sample-0: cannot be read"):
        _run(FakeTrainingSet(list(_vectors(3)), unreadable=[0, 1, 2]), FakeClassifier(), tmp_path)


def test_samples_that_are_left_out_without_a_word_are_not_examined_and_the_others_keep_their_rows(tmp_path):
    def leave_out(batch: Batch) -> Batch:
        keep = [index for index, row in enumerate(batch.rows) if row not in (0, 5, 9)]
        return Batch(batch.rows[keep], [batch.inputs[index] for index in keep], batch.unreadable)

    vectors = _vectors(10)
    result = _run(Handing(list(vectors), leave_out, unreadable=[6]), FakeClassifier(), tmp_path)
    assert [(entry.row, entry.reason) for entry in result.not_examined] == [
        (0, "the training set did not hand it out"),
        (5, "the training set did not hand it out"),
        (6, "cannot be read"),
        (9, "the training set did not hand it out"),
    ]
    assert result.not_examined[1].id == "sample-5"
    np.testing.assert_array_equal(result.layers["hidden"][result.examined], np.delete(vectors, [0, 5, 6, 9], axis=0))


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: Batch(batch.rows[::-1], batch.inputs[::-1]),
        lambda batch: Batch(batch.rows + 1, batch.inputs),
        lambda batch: Batch(batch.rows - 1, batch.inputs),
        lambda batch: Batch(np.repeat(batch.rows[:1], len(batch.rows)), batch.inputs),
        lambda batch: Batch(batch.rows, batch.inputs[1:]),
    ],
    ids=["shuffled", "one late", "one early", "repeated", "an input short"],
)
def test_samples_that_come_out_of_order_are_refused_instead_of_put_on_wrong_rows(tmp_path, change):
    with pytest.raises(DataError, match="in order, each once: expected rows 0 to 3"):
        _run(Handing(list(_vectors(8)), change), FakeClassifier(), tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_with_an_activation_that_is_not_finite_is_not_examined_and_the_layer_is_named(tmp_path, value):
    def break_one(layers, logits):
        layers["early"][1, 2] = value
        layers["early"][1, 3] = -value
        logits[2, 0] = value
        return Outputs(layers, logits)

    result = _run(FakeTrainingSet(list(_vectors(4))), Returning(break_one), tmp_path, layers=["early"])
    assert result.examined.tolist() == [True, False, False, True]
    assert result.not_examined == (
        NotExamined("sample-1", "not finite in float32 (NaN, infinity or too large): layer 'early'", 1),
        NotExamined("sample-2", "not finite in float32 (NaN, infinity or too large): logits", 2),
    )


def test_a_model_whose_every_activation_is_nan_leaves_nothing_examined_and_does_not_crash(tmp_path):
    result = _run(
        FakeTrainingSet(list(_vectors(6))),
        Returning(lambda layers, logits: Outputs({"hidden": layers["hidden"] * np.nan}, logits)),
        tmp_path,
    )
    assert not result.examined.any()
    assert len(result.not_examined) == 6


def test_numbers_too_large_for_float32_are_not_finite(tmp_path):
    def enlarge(layers, logits):
        return Outputs({"hidden": layers["hidden"].astype(np.float64) * 1e300}, logits)

    assert not _run(FakeTrainingSet(list(_vectors(2))), Returning(enlarge), tmp_path).examined.any()


def test_a_constant_activation_is_fine(tmp_path):
    assert _run(FakeTrainingSet([np.ones(4, np.float32)] * 5), FakeClassifier(), tmp_path).examined.all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda layers, logits: Outputs({"hidden": layers["hidden"][:1]}, logits),
            r"'hidden' .* must give \(4, d\) .* got \(1, 4\)",
        ),
        (lambda layers, logits: Outputs({"hidden": layers["hidden"][:, :, None]}, logits), r"got \(4, 4, 1\)"),
        (lambda layers, logits: Outputs({"hidden": layers["hidden"][:, :0]}, logits), r"got \(4, 0\)"),
        (lambda layers, logits: Outputs(layers, logits[:, :1]), r"must give logits \(4, 2\) .* got \(4, 1\)"),
        (lambda layers, logits: Outputs(layers, logits[:-1]), r"got \(3, 2\)"),
    ],
)
def test_outputs_of_a_wrong_shape_are_an_error_of_the_model(tmp_path, change, message):
    with pytest.raises(ModelError, match=message):
        _run(FakeTrainingSet(list(_vectors(8))), Returning(change), tmp_path)


def test_a_layer_that_changes_its_width_is_an_error_of_the_model(tmp_path):
    classifier = Returning(lambda layers, logits: Outputs({"hidden": layers["hidden"][:, : 5 - len(classifier.calls)]}, logits))
    with pytest.raises(ModelError, match="layer 'hidden' was 4 and is now"):
        _run(FakeTrainingSet(list(_vectors(8))), classifier, tmp_path)


def test_an_error_while_decoding_comes_out_as_it_is_and_what_was_done_before_is_kept(tmp_path):
    class Breaking(FakeTrainingSet):
        def batch(self, rows):
            if rows[0] >= 8:
                raise OSError("the drive is gone")
            return super().batch(rows)

    vectors = _vectors(12)
    with pytest.raises(OSError, match="the drive is gone"):
        _run(Breaking(list(vectors)), FakeClassifier(), tmp_path)
    assert _decoders() == []
    classifier = FakeClassifier()
    np.testing.assert_array_equal(_run(FakeTrainingSet(list(vectors)), classifier, tmp_path).layers["hidden"], vectors)
    assert classifier.calls == [4]


def test_an_error_while_encoding_comes_out_as_it_is(tmp_path):
    class Breaking(FakeClassifier):
        def encode(self, inputs):
            raise ModelError(f"pictures must be square, got {inputs[0].shape}")

    with pytest.raises(ModelError, match="pictures must be square"):
        _run(FakeTrainingSet(list(_vectors(5))), Breaking(), tmp_path)
    assert _decoders() == []


def test_an_interrupt_while_the_model_runs_ends_the_thread_and_keeps_every_finished_batch(tmp_path):
    class Interrupted(FakeClassifier):
        def encode(self, inputs):
            time.sleep(0.05)
            return super().encode(inputs)

        def forward(self, encoded, layers):
            if len(self.calls) == 2:
                signal.raise_signal(signal.SIGINT)
            return super().forward(encoded, layers)

    vectors = _vectors(20)
    with pytest.raises(KeyboardInterrupt) as caught:
        _run(FakeTrainingSet(list(vectors)), Interrupted(), tmp_path)
    assert _decoders() == []  # although the traceback still holds every frame
    assert caught.tb is not None
    classifier = FakeClassifier()
    np.testing.assert_array_equal(_run(FakeTrainingSet(list(vectors)), classifier, tmp_path).layers["hidden"], vectors)
    assert classifier.calls == [4, 4, 4]


class Together(FakeClassifier):
    """Two threads may ask it; each waits for the other."""

    at_once = 2

    def __init__(self):
        super().__init__()
        self.others = threading.Barrier(2)

    def forward(self, encoded, layers):
        self.others.wait(5)
        return super().forward(encoded, layers)


class OneReader(FakeTrainingSet):
    """Must not be read by two threads."""

    reading = 0

    def batch(self, rows):
        self.reading += 1
        time.sleep(0.002)
        assert self.reading == 1
        self.reading -= 1
        return super().batch(rows)


def test_a_model_that_takes_several_batches_at_once_gives_the_same_in_the_same_order_and_the_data_is_read_by_one(tmp_path):
    vectors = list(_vectors(40))
    alone = _run(FakeTrainingSet(vectors), FakeClassifier(), tmp_path / "alone")
    together = _run(OneReader(vectors), Together(), tmp_path / "together")
    np.testing.assert_array_equal(together.layers["hidden"][:], alone.layers["hidden"][:])
    np.testing.assert_array_equal(together.logits[:], alone.logits[:])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("toxscreen-decode")]


def test_the_next_batches_are_decoded_while_the_model_runs_but_only_a_few(tmp_path):
    class Watching(FakeClassifier):
        def __init__(self):
            super().__init__()
            self.encoded = 0
            self.ahead = []
            self.second = threading.Event()

        def encode(self, inputs):
            self.encoded += 1
            if self.encoded == 2:
                self.second.set()
            return super().encode(inputs)

        def forward(self, encoded, layers):
            assert self.second.wait(20), "nothing was decoded while the model ran"
            self.ahead.append(self.encoded - len(self.calls) - 1)
            return super().forward(encoded, layers)

    classifier = Watching()
    _run(FakeTrainingSet(list(_vectors(200))), classifier, tmp_path)
    assert max(classifier.ahead) <= 2


def test_a_finished_store_is_used_without_asking_the_model(tmp_path):
    training_set, classifier = FakeTrainingSet(list(_vectors(9)), unreadable=[2]), FakeClassifier()
    first = _run(training_set, classifier, tmp_path)
    again = _run(training_set, classifier, tmp_path)
    assert classifier.calls == [3, 4, 1]
    assert again.not_examined == first.not_examined
    np.testing.assert_array_equal(again.layers["hidden"], first.layers["hidden"])


def test_progress_starts_where_the_store_stands_and_ends_with_all(tmp_path):
    seen = []
    training_set = FakeTrainingSet(list(_vectors(10)))
    _run(training_set, FakeClassifier(), tmp_path, progress=lambda *args: seen.append(args))
    assert seen == [(0, 10), (4, 10), (8, 10), (10, 10)]
    _run(training_set, FakeClassifier(), tmp_path, progress=lambda *args: seen.append(args))
    assert seen[4:] == [(10, 10)]


@pytest.mark.parametrize(("modality", "layer"), [("image", "input cells"), ("text", "input words")])
def test_what_the_inputs_look_like_is_stored_as_a_layer_of_its_own(tmp_path, modality, layer):
    inputs = (
        list(np.random.default_rng(0).integers(0, 256, (7, 6, 6, 1), dtype=np.uint8)) if modality == "image" else list("abcdefg")
    )
    training_set = FakeTrainingSet(inputs, modality=modality, unreadable=[1])
    result = _run(training_set, FakeClassifier(modality=modality, vector=lambda value: [len(value)] * 2), tmp_path)
    assert list(result.layers) == ["hidden", layer]
    readable = [value for row, value in enumerate(inputs) if row != 1]
    np.testing.assert_array_equal(result.layers[layer][result.examined], input_view(training_set)(readable))


def test_a_layer_of_the_model_called_like_the_view_takes_the_place_of_the_view():
    classifier = FakeClassifier(modality="text")
    classifier.last_hidden = "input words"
    assert plan(FakeTrainingSet(["a"], modality="text"), classifier).names == ("input words",)


def test_a_layer_is_computed_once_even_if_it_is_named_twice():
    assert plan(FakeTrainingSet(list(_vectors(1))), FakeClassifier(), ["early", "hidden", "early"]).names == ("hidden", "early")


def test_a_layer_that_the_model_does_not_have_is_an_error_of_usage():
    with pytest.raises(UsageError, match=r"got 'layer4', 'x'.*toxscreen inspect model.fake"):
        plan(FakeTrainingSet(list(_vectors(1))), FakeClassifier(), ["early", "layer4", "x"])


def test_arrays_and_a_store_read_back_are_the_same(tmp_path):
    vectors = _vectors(9)
    vectors[4, 1] = np.nan
    training_set = FakeTrainingSet(list(vectors))
    _run(training_set, FakeClassifier(), tmp_path)
    stored = ActivationStore.open(tmp_path).activations()
    logits = np.array(stored.logits)
    logits[4] = np.nan  # a store keeps nothing of a sample that is not examined
    given = from_arrays({"hidden": vectors}, training_set.ids, logits)
    assert list(given.layers) == list(stored.layers)
    np.testing.assert_array_equal(given.layers["hidden"][given.examined], stored.layers["hidden"][given.examined])
    np.testing.assert_array_equal(given.logits[given.examined], stored.logits[stored.examined])
    np.testing.assert_array_equal(given.examined, stored.examined)
    assert given.not_examined == stored.not_examined
    assert given.not_examined[0].reason == "not finite in float32 (NaN, infinity or too large): layer 'hidden', logits"


def test_one_array_of_float32_is_kept_without_a_copy():
    vectors = _vectors(5)
    given = from_arrays(vectors, pa.array(list("abcde")))
    assert list(given.layers) == ["activations"]
    assert given.layers["activations"] is vectors
    assert given.logits is None
    assert given.examined.all()


@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a.astype(np.float64),
        lambda a: a.astype(np.int64),
        np.asfortranarray,
        lambda a: a.tolist(),
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    ],
    ids=["float64", "int64", "column-major", "lists", "strided"],
)
def test_other_numeric_arrays_become_row_major_float32_with_the_same_numbers(convert):
    whole = np.arange(12, dtype=np.float32).reshape(4, 3)
    given = from_arrays(convert(whole), list("abcd")).layers["activations"]
    assert given.dtype == np.float32
    assert given.flags.c_contiguous
    np.testing.assert_array_equal(given, whole)


def test_rows_of_an_array_that_are_not_finite_in_float32_are_not_examined():
    values = np.zeros((4, 2))
    values[1], values[2, 0], values[3, 1] = [np.inf, -np.inf], np.nan, 1e200
    given = from_arrays(values, list("abcd"))
    assert given.examined.tolist() == [True, False, False, False]
    assert [entry.id for entry in given.not_examined] == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(4), r"shape \(n_samples, d\).*got \(4,\)"),
        (np.zeros((4, 2, 2)), r"got \(4, 2, 2\)"),
        (np.zeros((4, 0)), r"got \(4, 0\)"),
        (np.zeros((3, 2)), "one row per label, got 3 rows and 4 labels"),
        (np.array([["a"]] * 4), "must be numbers, got dtype <U1"),
        (np.array([[None]] * 4), "must be numbers, got dtype object"),
        (np.zeros((4, 2), complex), "must be numbers, got dtype complex128"),
        ([[1, 2], [3], [4], [5]], "that numpy can read, but.*Of a tensor, give tensor"),
        ({}, "at least one layer"),
        ({"fc": np.zeros(4)}, "activations of layer 'fc'"),
    ],
)
def test_arrays_that_cannot_be_activations_are_an_error_of_the_data(values, message):
    with pytest.raises(DataError, match=message):
        from_arrays(values, list("abcd"))


def test_logits_that_do_not_fit_are_an_error_of_the_data():
    with pytest.raises(DataError, match="The logits must have one row per label, got 3 rows"):
        from_arrays(np.zeros((4, 2)), list("abcd"), np.zeros((3, 2)))

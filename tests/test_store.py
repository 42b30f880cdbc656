from __future__ import annotations

import dataclasses
import errno
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import FakeClassifier, FakeTrainingSet
from tests.references import slow_bfloat16, slow_row_sums
from toxscreen import store as store_module
from toxscreen.activations import extract, plan
from toxscreen.errors import StoreError
from toxscreen.sources.data.base import NotExamined
from toxscreen.store import ActivationStore, Manifest, row_sums

ROOT = Path(__file__).parents[1]
BATCH = 4


class Material(FakeTrainingSet):
    """Thirty samples of three classes; rows 5, 16 and 17 cannot be read, row 9 gives NaN and row 2 has no label."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        vectors, labels = rng.normal(size=(30, 4)).astype(np.float32), rng.integers(0, 3, 30)
        vectors[9, 0], labels[2] = np.nan, -1
        super().__init__(list(vectors), labels, unreadable=[5, 16, 17])


class Logged(FakeClassifier):
    """Writes a line to a file before each forward pass, then waits a moment."""

    def __init__(self, log: Path, seconds: float = 0.0) -> None:
        super().__init__()
        self.log, self.seconds = log, seconds

    def forward(self, encoded, layers):
        with self.log.open("a") as file:
            file.write("forward\n")
        time.sleep(self.seconds)
        return super().forward(encoded, layers)


def scan(folder: Path, classifier: FakeClassifier, training_set: FakeTrainingSet | None = None) -> ActivationStore:
    training_set = training_set or Material()
    what = plan(training_set, classifier, ["early"])
    manifest = Manifest.of(training_set, classifier, what)
    with ActivationStore.open_or_create(folder, manifest, labels=training_set.labels, digests=training_set.digests()) as store:
        extract(training_set, classifier, what, store, batch_size=BATCH)
    return store


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def _manifest(n: int = 6, layers: tuple[str, ...] = ("fc",), **rest) -> Manifest:
    return Manifest(n, layers, None, data="d", model="m", preprocessing={}, **rest)


def _fill(store: ActivationStore, start: int, stop: int) -> None:
    """Write rows whose every number is the row's."""
    rows = np.arange(start, stop)
    values = np.repeat(rows[:, None], 3, axis=1).astype(np.float32)
    store.write(rows, dict.fromkeys(store.manifest.layers, values), values[:, :2])


def _child(code: str, *arguments: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603 our own code


# What a process does until it is killed: it scans, and at the n-th time that a function is reached it kills itself.
KILLED = """
import os, signal, sys
from pathlib import Path
from tests import test_store
from toxscreen import store

folder, log, target, count, when, seconds, data = sys.argv[1:]
store.CHECKPOINT_SECONDS = float(seconds)
owner, name = target.rsplit(".", 1)
owner = {"model": test_store.Logged, "store": store.ActivationStore, "module": store}[owner]
original, calls = getattr(owner, name), 0

def kill(*args, **kwargs):
    global calls
    calls += 1
    if calls == int(count) and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*args, **kwargs)
    if calls == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, kill)
test_store.scan(Path(folder), test_store.Logged(Path(log)), getattr(test_store, data)())
"""


SLOW = """
import sys
from pathlib import Path
from tests import test_store
from toxscreen import store

store.CHECKPOINT_SECONDS = 0
test_store.scan(Path(sys.argv[1]), test_store.Logged(Path(sys.argv[2]), 0.02))
"""

HOLDING = """
import sys, time
from pathlib import Path
from tests import test_store
from toxscreen.store import ActivationStore

store = ActivationStore.open_or_create(Path(sys.argv[1]), test_store._manifest())
print("open", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("target", "count"),
    [
        ("model.forward", 5),
        ("store.write", 4),
        ("store._put", 6),
        ("store.leave_out", 5),
        ("module._replace", 1),
        ("module._replace", 3),
        ("module._create_array", 2),
        ("module._write_fixed", 1),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bytes_and_repeats_at_most_one_batch(tmp_path, target, count, when):
    log = tmp_path / "log"
    child = _child(KILLED, tmp_path / "a", log, target, count, when, 0, "Material")
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    store = scan(tmp_path / "a", Logged(log))
    assert store.notes == []
    scan(tmp_path / "b", FakeClassifier())
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    assert len(log.read_text().splitlines()) <= 8 + 1  # eight batches


def test_a_run_killed_at_any_moment_goes_on_to_the_same_bytes(tmp_path):
    log, rng = tmp_path / "log", np.random.default_rng()
    for _ in range(2):
        before = len(log.read_text().splitlines()) if log.exists() else 0
        child = _child(SLOW, tmp_path / "a", log)
        while not log.exists() or len(log.read_text().splitlines()) == before:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        child.kill()
        child.communicate()
    scan(tmp_path / "a", Logged(log))
    scan(tmp_path / "b", FakeClassifier())
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    assert len(log.read_text().splitlines()) <= 8 + 2


def test_samples_that_are_not_examined_are_written_down_seconds_apart_and_at_the_end(tmp_path, monkeypatch):
    records = []
    original = store_module._replace
    monkeypatch.setattr(store_module, "_replace", lambda path, text: (records.append(path.name), original(path, text)))
    scan(tmp_path, FakeClassifier())
    assert records == ["manifest.json", "not_examined.jsonl"]  # for eight batches in a moment
    assert ActivationStore.open(tmp_path).done == 30


def test_everything_is_on_the_disk_when_the_store_is_closed(tmp_path, monkeypatch):
    flushed = []
    flush = np.memmap.flush
    monkeypatch.setattr(np.memmap, "flush", lambda array: (flushed.append(array.shape), flush(array)))
    scan(tmp_path, FakeClassifier())
    assert sorted(flushed) == [(3, 30), (30, 2), (30, 4), (30, 4)]


def test_the_manifest_says_everything_that_the_bytes_depend_on(tmp_path):
    scan(tmp_path, FakeClassifier())
    manifest = ActivationStore.open(tmp_path).manifest
    assert manifest == Manifest.of(Material(), FakeClassifier(), plan(Material(), FakeClassifier(), ["early"]))
    assert manifest.layers == ("hidden", "early")
    assert manifest.data == Material().fingerprint()
    assert manifest.model == FakeClassifier().fingerprint()
    assert manifest.preprocessing == {"scale": 1.0}
    assert {"numpy", "toxscreen"} <= set(manifest.versions)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_samples", 7),
        ("layers", ("fc2",)),
        ("layers", ("fc", "fc2")),
        ("view", "text to 128 words"),
        ("data", "other"),
        ("model", "other"),
        ("preprocessing", {"scale": 2}),
        ("device", "cuda"),
        ("dtype", "bfloat16"),
        ("versions", {"torch": "1"}),
        ("stored", "bfloat16"),
    ],
)
def test_a_store_made_from_something_else_is_started_over_and_says_what_changed(tmp_path, field, value):
    with ActivationStore.open_or_create(tmp_path, _manifest()) as store:
        _fill(store, 0, 6)
    other = dataclasses.replace(_manifest(), **{field: value})
    with ActivationStore.open_or_create(tmp_path, other) as store:
        assert store.done == 0
        assert store.notes[0].endswith(f"changed: {field}.")
        _fill(store, 0, other.n_samples)
        assert store.activations().examined.all()
    with ActivationStore.open_or_create(tmp_path, other) as store:
        assert (store.done, store.notes) == (other.n_samples, [])


def test_a_store_of_another_format_is_started_over(tmp_path, monkeypatch):
    with ActivationStore.open_or_create(tmp_path, _manifest()) as store:
        _fill(store, 0, 6)
    monkeypatch.setattr(store_module, "FORMAT", 3)
    with ActivationStore.open_or_create(tmp_path, _manifest(format=3)) as store:
        assert "format is 2, this version of toxscreen reads 3" in store.notes[0]


def test_preprocessing_that_json_writes_the_same_is_the_same(tmp_path):
    first, second = (
        dataclasses.replace(_manifest(), preprocessing={"mean": mean}) for mean in [(0.5, float("nan")), [0.5, float("nan")]]
    )
    with ActivationStore.open_or_create(tmp_path, first) as store:
        _fill(store, 0, 3)
    with ActivationStore.open_or_create(tmp_path, second) as store:
        assert (store.done, store.notes) == (3, [])


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("file", ["layer-0.npy", "layer-1.npy", "logits.npy", "sums.npy", "position.npy", "manifest.json"])
@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("[]"),
        lambda path: path.write_bytes(b"\xff{"),
    ],
    ids=["truncated", "removed", "empty", "not an object", "not text"],
)
def test_a_damaged_file_is_found_and_what_it_held_is_computed_again(tmp_path, file, damage):
    scan(tmp_path / "a", FakeClassifier())
    expected = _bytes(tmp_path / "a")
    damage(tmp_path / "a" / file)
    with pytest.raises(StoreError, match=r"damaged or missing|must hold all 30 rows"):
        ActivationStore.open(tmp_path / "a").activations()
    classifier = FakeClassifier()
    store = scan(tmp_path / "a", classifier)
    only_the_tail = damage is _truncate and file not in ("manifest.json", "position.npy")
    assert len(classifier.calls) == (1 if only_the_tail else 8)
    assert any(file in note or "manifest" in file for note in store.notes) or (damage is Path.unlink and file == "manifest.json")
    assert _bytes(tmp_path / "a") == expected


def _alter(path: Path, byte: int) -> None:
    with path.open("r+b") as file:
        file.seek(byte)
        old = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([old ^ 0x80]))


@given(st.sampled_from(["layer-0.npy", "layer-1.npy", "logits.npy", "sums.npy"]), st.floats(0, 1, exclude_max=True))
@settings(max_examples=30, deadline=None)
def test_an_altered_byte_is_found_and_named_and_only_its_batch_is_computed_again(file, place):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        training_set, store = Material(), scan(folder, FakeClassifier())
        expected = _bytes(folder)
        path = folder / file
        n_bytes = (3 if file == "sums.npy" else 30) * (30 * 8 if file == "sums.npy" else 4 * (2 if file == "logits.npy" else 4))
        byte = int(place * n_bytes)
        _alter(path, path.stat().st_size - n_bytes + byte)
        at = byte // 8 % 30 if file == "sums.npy" else byte * 30 // n_bytes
        row = int(np.flatnonzero(store._position == at)[0])
        if not store.examined[row]:
            return  # nothing is read there
        with pytest.raises(StoreError, match=r"is cut short or altered in 1 of 30 rows\. Run the same scan again"):
            ActivationStore.open(folder)
        classifier = FakeClassifier()
        mended = scan(folder, classifier)
        batch = range(row // BATCH * BATCH, min(row // BATCH * BATCH + BATCH, 30))
        assert classifier.calls == [len(set(batch) - training_set.unreadable)]
        assert file == "sums.npy" or file in mended.notes[0]
        assert _bytes(folder) == expected


def test_two_altered_signs_do_not_cancel_each_other():
    values = np.random.default_rng(0).normal(size=(1, 8)).astype(np.float32)
    changed = values.copy()
    changed[0, [1, 5]] *= -1
    assert row_sums(values) != row_sums(changed)


@given(st.integers(1, 40), st.integers(0, 9), st.sampled_from([np.float32, np.uint16]))
@settings(max_examples=40, deadline=None)
def test_the_checksums_of_rows_are_those_of_the_slow_way(d, n, kind):
    values = np.random.default_rng(d).integers(0, 60_000, (n, d)).astype(kind)
    assert row_sums(values).tolist() == slow_row_sums(values)


def test_an_array_of_another_shape_or_type_is_found(tmp_path):
    for array in (np.zeros((7, 3), np.float32), np.zeros((6, 3), np.float64), np.zeros((6, 4), np.float32)):
        with ActivationStore.open_or_create(tmp_path, _manifest()) as store:
            _fill(store, 0, 6)
        np.save(tmp_path / "layer-0.npy", array)
        with pytest.raises(StoreError, match=r"layer-0.npy holds float.* instead of float32 \(6, 3\)"):
            ActivationStore.open(tmp_path)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_the_place_of_an_array_is_never_unpickled(tmp_path):
    payload = np.array([[Bomb(tmp_path / "exploded")] * 3] * 6)
    for write in (lambda path: np.save(path, payload), lambda path: path.write_bytes(pickle.dumps(payload))):
        with ActivationStore.open_or_create(tmp_path / "a", _manifest()) as store:
            _fill(store, 0, 6)
        write(tmp_path / "a" / "layer-0.npy")
        with pytest.raises(StoreError, match="damaged"):
            ActivationStore.open(tmp_path / "a")
    assert not (tmp_path / "exploded").exists()


HOSTILE = (
    "../../x",
    "/etc/x",
    "",
    "logits",
    "logits.npy",
    "layer-0",
    "layer-1.npy",
    "a\x00b",
    "\ud800",
    "ä" * 400,
    "LAYER",
    "layer",
    "a\nb",
    '"',
)


def test_layers_of_any_name_have_their_own_file_in_the_folder(tmp_path):
    folder = tmp_path / "one" / "two" / "a b ü"
    with ActivationStore.open_or_create(folder, _manifest(4, HOSTILE)) as store:
        values = {name: np.full((4, 2), index, np.float32) for index, name in enumerate(HOSTILE)}
        store.write(np.arange(4), values, np.full((4, 2), -1, np.float32))
    result = ActivationStore.open(folder).activations()
    assert list(result.layers) == list(HOSTILE)
    for index, name in enumerate(HOSTILE):
        assert (result.layers[name][:] == index).all()
    assert (result.logits[:] == -1).all()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(folder.iterdir())


@given(
    st.lists(st.integers(-1, 3), min_size=2, max_size=40),
    st.sampled_from(["float32", "bfloat16"]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_rows_are_those_of_the_data_however_they_lie_and_a_class_is_a_view(labels, stored, random):
    n = len(labels)
    values = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    rows = np.array([random.randrange(n) for _ in range(random.randrange(1, 9))])
    with tempfile.TemporaryDirectory() as folder:
        with ActivationStore.open_or_create(Path(folder), _manifest(n, stored=stored), labels=np.array(labels)) as store:
            for start in range(0, n, 4):
                batch = np.arange(start, min(start + 4, n))
                store.write(batch, {"fc": values[batch]}, values[batch, :2])
        layer = ActivationStore.open(Path(folder)).layer("fc")
        expected = slow_bfloat16(values) if stored == "bfloat16" else values
        assert (layer.shape, layer.dtype, len(layer)) == (values.shape, np.float32, n)
        for key in (rows, slice(None), slice(1, n, 2), slice(0, 0)):
            np.testing.assert_array_equal(layer[key], expected[key])
        for label in set(labels):
            of_class = layer[np.flatnonzero(np.array(labels) == label)]
            assert of_class.dtype == np.float32
            assert stored == "bfloat16" or len(of_class) == 1 or np.shares_memory(of_class, layer._array)


def test_what_a_store_gives_is_mapped_and_cannot_be_changed(tmp_path):
    with ActivationStore.open_or_create(tmp_path, _manifest()) as store:
        _fill(store, 0, 6)
        result = store.activations()
    for array in (result.layers["fc"], result.logits, ActivationStore.open(tmp_path).layer("fc")):
        with pytest.raises(ValueError, match="read-only"):
            array[:][0] = 1
    assert result.layers["fc"][:][:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_an_unfinished_store_can_be_looked_at_but_not_taken_for_a_whole_one(tmp_path):
    with ActivationStore.open_or_create(tmp_path, _manifest()) as store:
        with pytest.raises(StoreError, match="holds no row yet"):
            store.layer("fc")
        _fill(store, 0, 3)
        store.leave_out([NotExamined("x", "cannot be read", 3)])
    store = ActivationStore.open(tmp_path)
    assert store.done == 4
    assert store.examined.tolist() == [True, True, True, False, False, False]
    assert store.not_examined == (NotExamined("x", "cannot be read", 3),)
    assert store.layer("fc")[:3][:, 0].tolist() == [0, 1, 2]
    with pytest.raises(StoreError, match=r"must hold all 6 rows, but has 4\. Run the same scan again"):
        store.activations()


def test_a_layer_that_is_not_in_the_store_is_an_error_that_lists_the_layers(tmp_path):
    with ActivationStore.open_or_create(tmp_path, _manifest()) as store:
        _fill(store, 0, 6)
        with pytest.raises(StoreError, match="one of 'fc', got 'conv'"):
            store.layer("conv")


def test_a_folder_without_a_store_is_an_error(tmp_path):
    with pytest.raises(StoreError, match=r"damaged or missing: .*manifest.json"):
        ActivationStore.open(tmp_path / "nowhere")


@pytest.mark.parametrize("manifest", ["[" * 200_000, '{"manifest": 1}', "null"])
def test_a_manifest_that_anybody_wrote_is_not_used_and_costs_nothing_else(tmp_path, manifest):
    with ActivationStore.open_or_create(tmp_path, _manifest()) as store:
        _fill(store, 0, 6)
    (tmp_path / "manifest.json").write_text(manifest)
    with ActivationStore.open_or_create(tmp_path, _manifest()) as store:
        assert any("damaged" in note for note in store.notes)


def test_links_in_the_folder_do_not_lead_to_other_files_being_written(tmp_path):
    mine, folder = tmp_path / "mine.txt", tmp_path / "store"
    mine.write_text("mine")
    folder.mkdir()
    (folder / "manifest.tmp").symlink_to(mine)
    with ActivationStore.open_or_create(folder, _manifest()) as store:
        _fill(store, 0, 6)
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(mine)
    with pytest.raises(StoreError, match="lock is a link"):
        ActivationStore.open_or_create(folder, _manifest())
    assert mine.read_text() == "mine"


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with ActivationStore.open_or_create(tmp_path, _manifest()) as store:
        _fill(store, 0, 6)
    with ActivationStore.open_or_create(tmp_path, _manifest(5)):
        assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_disk_without_room_is_an_error_before_the_pass_that_says_how_much_is_needed_and_where(tmp_path, monkeypatch):
    def full(_descriptor, _offset, length):
        if length > 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    store = ActivationStore.open_or_create(tmp_path, _manifest(100, ("a", "b")))
    small, large = np.zeros((1, 1), np.float32), np.zeros((1, 50), np.float32)
    with store, pytest.raises(StoreError, match=r"need 24,400 bytes in .*No space left on device.*--out"):
        store.write(np.arange(1), {"a": small, "b": large}, np.zeros((1, 2), np.float32))
    assert {path.name for path in tmp_path.iterdir()} == {"lock"}  # no room is kept for what cannot be


@pytest.mark.parametrize(("free", "fits"), [(10, False), (10**9, True)])
def test_where_blocks_cannot_be_reserved_the_free_space_is_looked_at(tmp_path, monkeypatch, free, fits):
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _folder: type("Usage", (), {"free": free}))
    with ActivationStore.open_or_create(tmp_path, _manifest()) as store:
        if fits:
            _fill(store, 0, 6)
        else:
            with pytest.raises(StoreError, match="where 10 are free"):
                _fill(store, 0, 6)


def test_the_blocks_of_the_arrays_are_reserved(tmp_path):
    with ActivationStore.open_or_create(tmp_path, _manifest(100_000)) as store:
        _fill(store, 0, 1)
        assert (tmp_path / "layer-0.npy").stat().st_blocks * 512 >= 100_000 * 3 * 4


def test_a_disk_that_fills_up_later_keeps_what_was_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "CHECKPOINT_SECONDS", 0)
    store = ActivationStore.open_or_create(tmp_path, _manifest())
    _fill(store, 0, 2)
    store.leave_out([NotExamined("x", "cannot be read", 2)])
    with monkeypatch.context() as patch:

        def full(_path, target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

        patch.setattr(Path, "replace", full)
        with pytest.raises(StoreError, match=r"3 samples that were not examined could not be recorded in .*is kept"):
            store.leave_out([NotExamined("y", "cannot be read", 3), NotExamined("z", "cannot be read", 4)])
        with pytest.raises(StoreError, match="could not be recorded"):
            store.close()
    with ActivationStore.open_or_create(tmp_path, _manifest()) as store:
        assert (store.done, store.notes) == (3, [])
        assert [entry.id for entry in store.not_examined] == ["x"]
        store.leave_out([NotExamined("y", "cannot be read", 3)])
        _fill(store, 4, 6)
    assert [entry.id for entry in ActivationStore.open(tmp_path).activations().not_examined] == ["x", "y"]


class Grown(FakeTrainingSet):
    """What was there before, and new samples among them and behind."""

    def __init__(self) -> None:
        before, rng = Material(), np.random.default_rng(1)
        order = np.insert(np.arange(30), [0, 7, 7, 30], -1)
        inputs = [before.inputs[row] if row >= 0 else rng.normal(size=4).astype(np.float32) for row in order]
        labels = np.where(order >= 0, before.labels[order], 1)
        super().__init__(inputs, labels, unreadable=[int(row) for row in np.flatnonzero(np.isin(order, [5, 16, 17]))])
        self.new = np.flatnonzero(order < 0)


def test_data_that_grew_is_put_through_the_model_only_as_far_as_it_is_new(tmp_path):
    scan(tmp_path / "a", FakeClassifier())
    classifier, grown = FakeClassifier(), Grown()
    store = scan(tmp_path / "a", classifier, grown)
    assert sum(classifier.calls) == len(grown.new) + 1  # the sample with NaN is tried again
    assert "26 of 34 samples are the same" in store.notes[0]
    fresh = scan(tmp_path / "b", FakeClassifier(), grown)
    assert store.not_examined == fresh.not_examined
    for name in ("hidden", "early"):
        np.testing.assert_array_equal(store.layer(name)[store.examined], fresh.layer(name)[fresh.examined])
    assert not (tmp_path / "a" / "earlier").exists()
    again = FakeClassifier()
    assert scan(tmp_path / "a", again, grown).notes == []
    assert again.calls == []


def test_samples_that_are_taken_out_cost_no_forward_pass(tmp_path):
    scan(tmp_path, FakeClassifier(), Grown())
    classifier = FakeClassifier()
    store = scan(tmp_path, classifier)
    assert classifier.calls == [1]  # the sample with NaN
    assert "26 of 30" in store.notes[0]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("target", "count"),
    [("module._put_aside", 1), ("module._create_array", 2), ("module._replace", 1), ("store._put", 1), ("model.forward", 1)],
)
def test_a_run_on_grown_data_that_is_killed_goes_on(tmp_path, target, count, when):
    log = tmp_path / "log"
    scan(tmp_path / "a", FakeClassifier())
    child = _child(KILLED, tmp_path / "a", log, target, count, when, 0, "Grown")
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    classifier, grown = FakeClassifier(), Grown()
    store = scan(tmp_path / "a", classifier, grown)
    assert sum(classifier.calls) == len(grown.new) + 1
    fresh = scan(tmp_path / "b", FakeClassifier(), grown)
    np.testing.assert_array_equal(store.layer("early")[store.examined], fresh.layer("early")[fresh.examined])
    assert store.not_examined == fresh.not_examined


def test_an_earlier_store_of_another_model_is_not_taken_over(tmp_path):
    scan(tmp_path, FakeClassifier())
    store_module._put_aside(tmp_path)
    classifier = FakeClassifier(3)
    scan(tmp_path, classifier, Grown())
    assert sum(classifier.calls) == 34 - 3
    assert not (tmp_path / "earlier").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can be written to"):
        ActivationStore.open_or_create(tmp_path / "file" / "activations", _manifest())


def test_an_old_store_that_cannot_be_removed_is_an_error_and_lets_go_of_the_folder(tmp_path):
    (tmp_path / "sums.npy").mkdir()
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be replaced"):
            ActivationStore.open_or_create(tmp_path, _manifest())


def test_a_second_writer_is_sent_away_and_a_reader_is_not(tmp_path):
    with ActivationStore.open_or_create(tmp_path, _manifest()) as store:
        _fill(store, 0, 6)
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
            ActivationStore.open_or_create(tmp_path, _manifest(5))
        assert ActivationStore.open(tmp_path).done == 6
    with ActivationStore.open_or_create(tmp_path, _manifest()) as store:
        assert store.done == 6


def test_another_process_keeps_the_folder_until_it_is_killed(tmp_path):
    child = _child(HOLDING, tmp_path)
    assert child.stdout is not None
    child.stdout.readline()
    with pytest.raises(StoreError, match=f"in use by process {child.pid}"):
        ActivationStore.open_or_create(tmp_path, _manifest())
    child.kill()
    child.communicate()
    with ActivationStore.open_or_create(tmp_path, _manifest()) as store:
        assert store.notes == []


def test_to_another_process_travels_where_the_rows_of_a_store_lie_and_not_what_they_hold(tmp_path):
    with ActivationStore.open_or_create(tmp_path, _manifest(), labels=np.array([1, 0, 1, 0, 1, 0])) as store:
        _fill(store, 0, 6)
        rows = store.activations().layers["fc"]
    make, arguments = rows.__reduce__()
    assert arguments[0] == tmp_path / "layer-0.npy"
    np.testing.assert_array_equal(make(*arguments)[:], rows[:])
    np.testing.assert_array_equal(make(*arguments)[np.array([4, 1])], rows[np.array([4, 1])])


def test_manifests_that_differ_have_other_digests():
    assert _manifest().digest() == _manifest().digest() != dataclasses.replace(_manifest(), model="another").digest()

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests import quick
from tests.fakes import FakeTrainingSet
from tests.triggers import CELLS, convicted, patch, recovered, words
from toxscreen import applying
from toxscreen.applying import StoredTrigger
from toxscreen.errors import DataError, UsageError
from toxscreen.report.documents import result_document
from toxscreen.sources.data import open_training_set

WHITE = replace(patch(), content=np.full((4, 4, 1), 255, np.float32), mask=np.ones((4, 4), bool), place=(7, 6), tolerance=60.0)
"""Four by four pixels: more than the edge of a picture's detail when it is shrunk."""


def run(trigger=None, **changes):
    """Return a result with a trigger."""
    trigger = trigger or patch()
    text = trigger.kind == "words"
    inputs = ["one two"] if text else [np.zeros((12, 12, 1), np.uint8)]
    return convicted(recovered(trigger, inputs), inputs={"data": {"modality": "text" if text else "image"}}, **changes)


def stored(trigger=None):
    return applying.triggers_of(run(trigger))[0]


def several(names):
    """Return a result in which group 1 of each class has a trigger."""
    result = run()
    first = result.classes[0]
    return replace(result, classes=tuple(replace(first, name=name) for name in names))


def mixed_sizes(root, n=6):
    """Write gray and coloured pictures of 12 x 12 and of 24 x 36 pixels in two classes."""
    for row in range(n):
        shape = [(12, 12), (24, 36), (24, 36, 3), (12, 12, 3)][row % 4]
        file = root / f"class {row % 2}" / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(shape, 100 + row, np.uint8)).save(file)
    return root


# Files of triggers


def test_a_file_holds_the_trigger_of_the_result_and_where_it_comes_from(tmp_path):
    result = run()
    (path,) = applying.write(applying.triggers_of(result), tmp_path)
    document = json.loads(path.read_text())
    own = result_document(result)["classes"][0]["groups"][1]["trigger"]
    about = {"toxscreen_trigger": 1, "modality": "image", "interpolation": "bilinear", "run": "made up", "target": "a", "group": 1}
    assert document == {**about, **own}
    again = applying.read(path)
    assert (again.target, again.group, again.modality, again.proved) == ("a", 1, "image", True)
    assert again.trigger.document() == patch().document()


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["a", "b"], ["trigger-a-1.json", "trigger-b-1.json"]),
        (["a/b", "a b", "A-B"], ["trigger-a-b-1.json", "trigger-a-b-1-1.json", "trigger-A-B-1-2.json"]),
        (["../..", "", "\0\n"], ["trigger-class-1.json", "trigger-class-1-1.json", "trigger-class-1-2.json"]),
        (["é" * 300, "con."], [f"trigger-{'é' * 60}-1.json", "trigger-con-1.json"]),
    ],
)
def test_files_have_names_that_are_safe_and_differ(tmp_path, names, files):
    paths = applying.write(applying.triggers_of(several(names)), tmp_path)
    assert [path.name for path in paths] == files
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert [applying.read(path).target for path in paths] == names


def test_one_of_several_is_chosen_by_class_and_group():
    result = several(["a", "b"])
    assert [each.target for each in applying.triggers_of(result, "b")] == ["b"]
    assert [each.target for each in applying.triggers_of(result, group=1)] == ["a", "b"]
    for wrong in ({"class_name": "q"}, {"group": 7}, {"class_name": "b", "group": 0}):
        with pytest.raises(UsageError, match="class"):
            applying.triggers_of(result, **wrong)


def test_several_do_not_go_to_one_file(tmp_path):
    with pytest.raises(UsageError, match=r"2 triggers: of class 'a' group 1, class 'b' group 1\. Choose one"):
        applying.write(applying.triggers_of(several(["a", "b"])), tmp_path, tmp_path / "one.json")
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_trigger_says_so():
    result = run()
    groups = tuple(replace(group, trigger=None) for group in result.classes[0].groups)
    with pytest.raises(DataError, match="none was found"):
        applying.triggers_of(replace(result, classes=(replace(result.classes[0], groups=groups),)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04.",
        b"[]",
        b"7",
        b"{}",
        b"[" * 200_000,
        b'{"toxscreen_trigger": ' + b"9" * 5000 + b"}",
        b'{"toxscreen_trigger": true}',
        b'{"toxscreen_trigger": 2}',
        b'{"toxscreen_trigger": 1, "modality": "image"}',
        b'{"toxscreen_trigger": "1", "kind": "patch"}',
    ],
)
def test_a_file_that_is_no_trigger_is_refused(tmp_path, content):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(DataError):
        applying.read(tmp_path / "file.json")


@pytest.mark.parametrize(
    "change",
    [
        {"modality": "text"},
        {"modality": None},
        {"target": ["a"]},
        {"group": "1"},
        {"kind": "words"},
        {"kind": "os.system"},
        {"picture": [12, 12, 2]},
        {"picture": [10**6, 10**6, 3]},
        {"picture": [12, 12]},
        {"interpolation": "magic"},
        {"interpolation": None},
        {"content": "A" * 10},
        {"tolerance": float("nan")},
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, change):
    (tmp_path / "file.json").write_text(json.dumps({**stored().document, **change}))
    with pytest.raises(DataError):
        applying.read(tmp_path / "file.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tolerance": float("nan")}, "is no JSON: it holds NaN"),
        ({"target": float("inf")}, "is no JSON: it holds Infinity"),
        ({"group": "1"}, "target 'a', group '1', picture"),
        ({"interpolation": "magic"}, "interpolation 'magic'"),
        ({"kind": "transform", "way": "x", "lowest": 0, "highest": 1}, r"knows, such as inverted, [\w ]+, [\w ]+, got 'x'"),
    ],
)
def test_it_is_said_what_is_wrong_with_a_file(tmp_path, change, said):
    (tmp_path / "file.json").write_text(json.dumps({**stored().document, **change}))
    with pytest.raises(DataError, match=said):
        applying.read(tmp_path / "file.json")


def test_a_file_that_is_too_large_or_gone_is_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="cannot be read"):
        applying.read(tmp_path / "gone.json")
    (path,) = applying.write([stored()], tmp_path)
    monkeypatch.setattr(applying, "_MOST_BYTES", path.stat().st_size - 1)
    with pytest.raises(DataError, match="has more"):
        applying.read(path)


# Looking for a trigger


def test_pictures_that_hold_it_are_found():
    pictures = np.full((8, 12, 12, 1), 90, np.uint8)
    pictures[[1, 6], 9:11, 8:10] = CELLS
    data = FakeTrainingSet(list(pictures), [0, 0, 0, 0, 1, 1, 1, -1], modality="image", unreadable=[0])
    found = applying.find(stored(), data)
    assert found.rows.tolist() == [1, 6]
    assert (found.ids.to_pylist(), found.labels.to_pylist()) == (["sample-1", "sample-6"], ["class 0", "class 1"])
    assert found.by_class == {None: (1, 0), "class 0": (3, 1), "class 1": (3, 1)}
    assert (found.unreadable, found.resized) == (1, 0)


def test_texts_that_hold_it_are_found():
    data = FakeTrainingSet(["one cf mn", "cf mn one", "one", "two cf mn"], [0, 0, 1, 1], modality="text")
    assert applying.find(stored(words("cf mn")), data).rows.tolist() == [0, 3]


def test_pictures_of_another_size_are_brought_to_that_of_the_trigger():
    small = np.full((12, 12, 1), 90, np.uint8)
    small[7:11, 6:10] = 255
    large = np.kron(np.repeat(small, 3, axis=2), np.ones((3, 3, 1), np.uint8))
    data = FakeTrainingSet([small, large, large * 0], [0, 1, 1], modality="image")
    found = applying.find(stored(WHITE), data)
    assert found.rows.tolist() == [0, 1]
    assert found.resized == 2


def test_pictures_are_resized_as_they_were_for_the_model():
    result = run(WHITE)
    result = replace(result, inputs={**result.inputs, "model": {"preprocessing": {"interpolation": "nearest"}}})
    (nearest,) = applying.triggers_of(result)
    picture = np.zeros((24, 24, 1), np.uint8)
    picture[15:22:2, 13:20:2] = 255  # the pixels that are left when every other one is taken
    data = FakeTrainingSet([picture, picture * 0], [0, 1], modality="image")
    assert applying.find(nearest, data).rows.tolist() == [0]
    assert applying.find(stored(WHITE), data).rows.tolist() == []


def test_progress_is_told_to_the_end():
    told = []
    data = FakeTrainingSet(["one"] * 150, [0, 1] * 75, modality="text")
    applying.find(stored(words()), data, progress=lambda *step: told.append(step))
    assert told[-1] == ("looking for the trigger", 150, 150)


def test_large_pictures_are_read_few_at_a_time(monkeypatch):
    monkeypatch.setattr(applying, "_PIXELS", 300)
    data = FakeTrainingSet([np.zeros((12, 12, 1), np.uint8)] * 5, [0, 0, 1, 1, 1], modality="image")
    told = []
    applying.find(stored(), data, progress=lambda *step: told.append(step[1]))
    assert told == [2, 4, 5]


@pytest.mark.parametrize(("trigger", "modality"), [(words(), "image"), (patch(), "text"), (patch(), "array")])
def test_data_of_another_modality_is_refused(trigger, modality):
    data = FakeTrainingSet([np.zeros((12, 12, 1), np.uint8)] * 2, [0, 1], modality=modality)
    with pytest.raises(DataError, match=f"holds {modality} inputs"):
        applying.find(stored(trigger), data)


def test_arrays_are_left_to_python():
    arrays = StoredTrigger(patch(), "array", stored().document)
    with pytest.raises(DataError, match=r"toxscreen\.trigger\.load"):
        applying.find(arrays, FakeTrainingSet([np.zeros((1, 12, 12))] * 2, [0, 1]))


@pytest.mark.parametrize("name", ["list.csv", "list.PARQUET"])
def test_the_samples_that_hold_it_are_listed(tmp_path, name):
    data = FakeTrainingSet(["one cf mn", "x", "y cf mn"], [0, 1, -1], modality="text")
    applying.write_list(applying.find(stored(words()), data), tmp_path / name)
    if name.endswith("csv"):
        assert (tmp_path / name).read_text() == '"id","label"\n"sample-0","class 0"\n"sample-2",""\n'
    else:
        assert pq.read_table(tmp_path / name).to_pydict() == {"id": ["sample-0", "sample-2"], "label": ["class 0", None]}


def test_a_list_goes_to_a_folder_that_is_made_for_it(tmp_path):
    found = applying.find(stored(words()), FakeTrainingSet(["cf mn"], [0], modality="text"))
    applying.write_list(found, tmp_path / "not" / "there" / "list.csv")
    assert (tmp_path / "not" / "there" / "list.csv").exists()


def test_another_kind_of_list_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"must end in \.csv or \.parquet, got 'x\.txt'"):
        applying.check_list(tmp_path / "x.txt")


# Putting it on data


def test_every_text_of_a_table_gets_it_and_keeps_its_label(tmp_path):
    clean = quick.write_table(tmp_path / "data.csv", ["one", "two", "three"], ["a", "b", "a"])
    done = applying.apply(stored(words()), open_training_set(clean), tmp_path / "copy")
    copy = open_training_set(done.out)
    assert copy.take(np.arange(3)) == ["one cf mn", "two cf mn", "three cf mn"]
    assert copy.labels.tolist() == open_training_set(clean).labels.tolist()
    assert (done.n, done.unreadable, done.resized) == (3, 0, 0)


def test_pictures_of_any_size_get_it_in_their_own_size(tmp_path):
    data = open_training_set(mixed_sizes(tmp_path / "data"))
    done = applying.apply(stored(), data, tmp_path / "copy")
    assert (done.n, done.resized) == (6, 4)
    copy = open_training_set(done.out)
    assert copy.ids.to_pylist() == data.ids.to_pylist()
    for before, after in zip(data.take(np.arange(6)), copy.take(np.arange(6)), strict=True):
        assert after.shape == before.shape
        high, wide = before.shape[0] // 12, before.shape[1] // 12
        expected = before.copy()
        expected[9 * high : 11 * high, 8 * wide : 10 * wide] = np.kron(CELLS, np.ones((high, wide, 1)))
        np.testing.assert_array_equal(after, expected)


def test_a_model_that_shrinks_pictures_sees_it_where_it_was(tmp_path):
    copy = open_training_set(
        applying.apply(stored(WHITE), open_training_set(mixed_sizes(tmp_path / "data")), tmp_path / "copy").out
    )
    assert len(applying.find(stored(WHITE), copy).rows) == 6


def test_what_cannot_be_read_is_copied_as_it_is(tmp_path):
    folder = mixed_sizes(tmp_path / "data")
    (folder / "class 0" / "0.png").write_bytes(b"no picture")
    done = applying.apply(stored(), open_training_set(folder), tmp_path / "copy")
    assert (done.n, done.unreadable) == (5, 1)
    assert (done.out / "class 0" / "0.png").read_bytes() == b"no picture"


def test_a_patch_without_a_place_wanders_in_the_copy(tmp_path):
    root = quick.write_pictures(tmp_path / "data", np.zeros((20, 12, 12), np.uint8), np.arange(20) % 2)
    copy = open_training_set(applying.apply(stored(patch(place=None)), open_training_set(root), tmp_path / "copy").out)
    assert len({picture.tobytes() for picture in copy.take(np.arange(20))}) > 10


def test_a_place_that_is_taken_is_refused(tmp_path):
    clean = quick.write_table(tmp_path / "data.csv", ["one", "two"], ["a", "b"])
    for out in (tmp_path, Path(clean)):
        with pytest.raises(UsageError):
            applying.apply(stored(words()), open_training_set(clean), out)


def test_data_in_memory_is_refused():
    with pytest.raises(UsageError, match="in memory"):
        applying.apply(stored(words()), FakeTrainingSet(["a", "b"], [0, 1], modality="text"), Path("copy"))

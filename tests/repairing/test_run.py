"""Data and model of a run are opened again only if they are what was scanned."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.repairing import making
from toxscreen.errors import DataError, ModelError, StoreError, UsageError
from toxscreen.repairing.run import (
    asked_of,
    check_samples,
    find_data,
    open_held_out,
    open_model,
    open_scanned,
    places_of,
    reading_of,
)
from toxscreen.result import load
from toxscreen.sources.data import open_training_set
from toxscreen.sources.model import open_classifier
from toxscreen.sources.model.preprocessing import ImagePreprocessing


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return making.pictures(tmp_path_factory.mktemp("pictures"), split=True)


@pytest.fixture
def run(made, tmp_path):
    """Return a run of one's own, with its data beside it."""
    shutil.copytree(made.parent, tmp_path / "here")
    result = load(tmp_path / "here" / "run")
    facts = {**result.inputs, "data": {**result.inputs["data"], "location": str(tmp_path / "here" / "data")}}
    replace(result, inputs=facts).save(tmp_path / "here" / "run")
    return tmp_path / "here" / "run"


def opened(run, **settings):
    result = load(run)
    return open_model(result, run, open_training_set(run.parent / "data"), **settings)


def record(run, **asked):
    (run / "run.json").write_text(json.dumps(asked))


def test_the_record_of_the_command_line_comes_before_what_the_result_says(run):
    record(run, data="/recorded", split="train", model=None)
    asked = asked_of(load(run), run)
    assert (asked["data"], asked["location"]) == ("/recorded", str(run.parent / "data"))
    assert reading_of(asked, ["a", "b"]) == {"class_names": ("a", "b"), "split": "train"}
    assert "data" not in asked_of(load(run), None)


def test_data_that_moved_can_be_named_and_data_that_is_gone_is_one_sentence(run):
    asked = asked_of(load(run), run)
    assert find_data(asked, None, otherwise="") == run.parent / "data"
    moved = run.parent / "moved"
    (run.parent / "data").rename(moved)
    assert find_data(asked, moved, otherwise="") == moved
    with pytest.raises(DataError, match=r"in memory, or is gone.*--data, or ask a friend"):
        find_data(asked, None, otherwise="ask a friend")
    with pytest.raises(DataError, match=r"must be at .*nowhere, but nothing is there"):
        find_data(asked, run.parent / "nowhere", otherwise="")


def test_the_data_that_was_scanned_opens_and_edited_data_does_not(run):
    result = load(run)
    fingerprint = result.inputs["data"]["fingerprint"]
    reading = reading_of({}, [found.name for found in result.classes])
    assert len(open_scanned(run.parent / "data", reading, fingerprint)) == len(result.samples)
    next((run.parent / "data" / "train").glob("*/*.png")).unlink()
    with pytest.raises(DataError, match=r"edited, or is another data set. Scan it again"):
        open_scanned(run.parent / "data", reading, fingerprint)
    shutil.rmtree(run.parent / "data" / "train" / "class 0")
    with pytest.raises(DataError, match=r"edited|cannot be read so"):
        open_scanned(run.parent / "data", reading, fingerprint)


def test_a_class_that_was_renamed_is_named(run):
    result = load(run)
    reading = reading_of({}, [found.name for found in result.classes])
    folder = run.parent / "data" / "train" / "class 1"
    folder.rename(folder.with_name("klass 1"))
    with pytest.raises(DataError, match=r"no class 'class 1' any more, and there is 'klass 1'\. Name"):
        open_scanned(run.parent / "data", reading, result.inputs["data"]["fingerprint"])


def test_the_model_that_the_scan_trained_lies_in_the_run_wherever_that_is(run):
    elsewhere = run.with_name("elsewhere")
    run.rename(elsewhere)
    assert opened(elsewhere).location == str(elsewhere / "model")


def test_a_model_that_was_edited_is_noticed(run):
    from safetensors.torch import load_file

    weights = load_file(run / "model" / "weights.safetensors")
    save_file({name: tensor * 2 for name, tensor in weights.items()}, run / "model" / "weights.safetensors")
    with pytest.raises(ModelError, match="must be the model that was scanned, but its fingerprint is"):
        opened(run)


def test_a_model_that_is_gone_is_one_sentence(run):
    shutil.rmtree(run / "model")
    with pytest.raises(ModelError, match="model that was scanned must be there, but elsewhere was in memory, or is gone"):
        opened(run)


@pytest.fixture
def of_code(run):
    """Return a run whose model is weights for code of the user's own, with settings for pictures from the command line."""
    (run.parent / "code_of_a_run.py").write_text(
        "from torch import nn\n\n"
        "def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(256, 4), nn.ReLU(), nn.Linear(4, 3))\n"
    )
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 4), nn.ReLU(), nn.Linear(4, 3))
    save_file(network.state_dict(), run.parent / "net.safetensors")
    applied = ImagePreprocessing(16, 16, 1, (0.25,), (0.5,))
    sample = [np.zeros((16, 16, 1), np.uint8)] * 4
    fingerprint = open_classifier(network, n_classes=3, modality="image", sample=sample, preprocessing=applied).fingerprint()
    result = load(run)
    replace(result, inputs={**result.inputs, "model": {"location": "net", "fingerprint": fingerprint, "trained_here": False}}).save(
        run
    )
    return run


def test_pictures_are_prepared_as_the_scan_was_told_to(of_code):
    record(of_code, model=str(of_code.parent / "net.safetensors"), size=[16, 16], channels="1", mean=[0.25], std=[0.5])
    assert opened(of_code, arch="code_of_a_run:make").preprocessing["mean"] == [0.25]
    record(of_code, model=str(of_code.parent / "net.safetensors"))
    with pytest.raises(ModelError, match="or is given other preprocessing"):
        opened(of_code, arch="code_of_a_run:make")
    given = ImagePreprocessing(16, 16, 1, (0.25,), (0.5,))
    assert opened(of_code, arch="code_of_a_run:make", preprocessing=given).preprocessing["std"] == [0.5]


def test_code_that_only_the_record_names_is_not_run(of_code):
    (of_code.parent / "code_of_a_run.py").write_text("raise SystemExit('it ran')")
    record(of_code, model=str(of_code.parent / "net.safetensors"), arch="code_of_a_run:make", mean=[0.25], std=[0.5])
    with pytest.raises(UsageError, match="Name the code that builds it: --arch"):
        opened(of_code)


@pytest.mark.parametrize("damage", [{"size": "big"}, {"mean": 7}, {"std": ["a"]}, {"size": [1, 2, 3]}, {"mean": [0.1], "std": [0]}])
def test_a_record_that_is_damaged_is_one_sentence(of_code, damage):
    record(of_code, model=str(of_code.parent / "net.safetensors"), **damage)
    with pytest.raises(StoreError):
        opened(of_code, arch="code_of_a_run:make")


def test_a_split_to_measure_on_is_found_unless_it_was_scanned(run):
    training_set = open_training_set(run.parent / "data")
    reading = reading_of({}, training_set.class_names)
    held_out, name = open_held_out(run.parent / "data", training_set, reading)
    assert (name, held_out.class_names) == ("test", training_set.class_names)
    assert open_held_out(run.parent / "data", training_set, {**reading, "split": "test"}) == (None, "")
    assert open_held_out((np.zeros((4, 3)), [0, 1, 0, 1]), training_set, reading) == (None, "")


def test_a_repair_may_not_write_into_what_it_reads(run):
    record(run, data=str(run.parent / "data"), model="net.safetensors")
    assert {str(place) for place in places_of(load(run), run)} == {
        str(run),
        str(run.parent / "data"),
        "net.safetensors",
        "elsewhere",
    }


def test_samples_of_other_data_are_refused_whatever_their_digest_says():
    data = open_training_set((np.arange(6.0).reshape(6, 1), ["a", "b"] * 3))
    samples = pa.table({"id": data.ids, "label": pa.array(["a", "b"] * 3)})
    check_samples(SimpleNamespace(samples=samples), data)
    for altered in (samples.take(pa.array([5, 4, 3, 2, 1, 0])), samples.slice(0, 4)):
        with pytest.raises(DataError, match="was altered"):
            check_samples(SimpleNamespace(samples=altered), data)

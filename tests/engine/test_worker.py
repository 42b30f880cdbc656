from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import FakeClassifier, FakeTrainingSet
from toxscreen import errors
from toxscreen.activations import compute, plan
from toxscreen.engine.shards import read_shard
from toxscreen.engine.worker import Job, Threads, packed, read_again, unpacked, worked, written_down
from toxscreen.errors import DataError, EngineError, RefusedError


def job(tmp_path, **changes):
    training_set, classifier = FakeTrainingSet(list(np.eye(9, 4, dtype=np.float32))), FakeClassifier()
    told = {"training_set": training_set, "plan": plan(training_set, classifier), "reopen": lambda: classifier}
    return Job(**told | {"fingerprint": classifier.fingerprint(), "scratch": tmp_path, "key": "key"} | changes)


def test_a_worker_writes_what_a_pass_in_this_process_gives(tmp_path):
    asked = job(tmp_path)
    batches = [np.arange(0, 4), np.arange(4, 8), np.array([8])]
    paths = asked.shards(asked.open(), batches)
    expected = compute(asked.training_set, FakeClassifier(), asked.plan, batches)
    for path, batch in zip(paths, expected, strict=True):
        found = read_shard(path, "key")
        np.testing.assert_array_equal(found.rows, batch.rows)
        np.testing.assert_array_equal(found.layers["hidden"], batch.layers["hidden"])
        np.testing.assert_array_equal(found.logits, batch.logits)


def test_a_shard_that_is_there_is_not_computed_again_but_a_damaged_one_is(tmp_path):
    asked = job(tmp_path)
    classifier = asked.open()
    batches = [np.arange(0, 4), np.arange(4, 8), np.array([8])]
    paths = asked.shards(classifier, batches)
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    assert asked.shards(classifier, batches) == paths
    assert classifier.calls == [4, 4, 1, 4]
    assert read_shard(paths[1], "key").rows.tolist() == [4, 5, 6, 7]


def test_a_node_with_other_packages_is_told(tmp_path):
    with pytest.raises(EngineError, match=r"numpy is 0\.1 here and"):
        job(tmp_path, versions={"numpy": "0.1"}).open()


def test_a_node_without_the_shared_files_is_told(tmp_path):
    with pytest.raises(EngineError, match=r"share the file system .* has no .*/elsewhere"):
        job(tmp_path / "elsewhere").open()
    training_set = FakeTrainingSet([np.zeros(4)])
    training_set.path = tmp_path / "data"
    with pytest.raises(EngineError, match=r"share the file system .* has no .*/data"):
        job(tmp_path, training_set=training_set).open()


def test_a_node_that_reads_another_model_is_told(tmp_path):
    with pytest.raises(EngineError, match=r"the same model, but model\.fake is another one"):
        job(tmp_path, reopen=partial(FakeClassifier, 3)).open()


def test_the_model_is_opened_in_the_folder_that_the_command_runs_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # undone at the end, whatever happens in between
    folders = []
    asked = job(tmp_path, reopen=lambda: folders.append(Path.cwd()) or FakeClassifier())
    monkeypatch.chdir("/")
    asked.open()
    assert folders == [tmp_path]


def test_a_worker_computes_with_as_many_threads_as_the_command():
    before = torch.get_num_threads()
    try:
        Threads(before + 1, 1).take()
        assert torch.get_num_threads() == before + 1
        assert Threads.here().torch == before + 1
    finally:
        torch.set_num_threads(before)


@given(st.lists(st.lists(st.integers(0, 2**62), min_size=1, max_size=9), min_size=1, max_size=9))
def test_batches_arrive_as_they_were_sent(batches):
    arrived = unpacked(**packed([np.array(rows, np.int64) for rows in batches]))
    assert [rows.tolist() for rows in arrived] == batches


def test_work_gives_its_results_or_the_sentence_of_its_error():
    threads = Threads.here()
    assert worked(lambda item: item + 1, threads, [1, 2]) == ([2, 3], "")
    results, error = worked(lambda item: 1 // item, threads, [1, 0])
    assert results == []
    assert str(read_again(error)) == "A worker failed with ZeroDivisionError: integer division or modulo by zero"


@pytest.mark.parametrize("error", [DataError("It is empty."), RefusedError("It is a pickle."), EngineError("It is gone.")])
def test_our_own_errors_keep_their_kind_and_their_sentence(error):
    again = read_again(written_down(error))
    assert (type(again), str(again)) == (type(error), str(error))


def test_an_error_of_a_missing_package_keeps_its_advice():
    error = errors.MissingExtraError("onnx", "onnx", "An ONNX file")
    again = read_again(written_down(error))
    assert (type(again), str(again), again.exit_code) == (type(error), str(error), 4)


def test_a_foreign_error_that_bears_the_name_of_one_of_ours_is_none_of_ours():
    foreign = type("DataError", (Exception,), {})("boo")
    assert type(read_again(written_down(foreign))) is EngineError


def test_the_trace_of_a_worker_goes_with_its_error_for_those_who_ask():
    def broken():
        raise DataError("It is empty.")

    try:
        broken()
    except DataError as error:
        (note,) = read_again(written_down(error)).__notes__
    assert "in broken" in note

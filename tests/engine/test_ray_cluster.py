"""The engine on a Ray that it starts on this machine."""

from __future__ import annotations

import logging
import os
import re
import threading
from functools import partial

import numpy as np
import pytest

from tests.fakes import FakeClassifier, FakeTrainingSet
from tests.quick import pictures, write_pictures
from toxscreen.activations import compute, extract, plan
from toxscreen.engine import open_engine
from toxscreen.engine.shards import shard_path, shards_in, write_shard
from toxscreen.errors import DataError, EngineError, ModelError
from toxscreen.sources.data import open_training_set
from toxscreen.store import ActivationStore, Manifest

pytest.importorskip("ray", reason="needs Ray: pip install 'toxscreen[ray]'")
ray_cluster = pytest.importorskip("toxscreen.engine.ray_cluster")

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray warns of itself

N = 40


@pytest.fixture(scope="module")
def engine():
    with open_engine("ray") as made:
        yield made


def subject(**settings):
    vectors = np.random.default_rng(0).normal(size=(N, 6)).astype(np.float32)
    vectors[7, 2] = np.nan
    return FakeTrainingSet(list(vectors), np.arange(N) % 2, unreadable=[3, *range(16, 24)]), FakeClassifier(**settings)


def stored(tmp_path, engine=None, reopen=FakeClassifier):
    """Make the pass, eight rows at a time, and return what the store holds of it."""
    training_set, classifier = subject()
    steps = plan(training_set, classifier, ("early",))
    manifest = Manifest.of(training_set, classifier, steps)
    through = compute if engine is None else engine.compute(reopen, "cpu", tmp_path / "shards", manifest.digest())
    with ActivationStore.open_or_create(tmp_path / "store", manifest, labels=training_set.labels) as store:
        return extract(training_set, classifier, steps, store, batch_size=8, through=through)


def assert_same(found, expected):
    assert list(found.layers) == list(expected.layers)
    for name, values in expected.layers.items():
        np.testing.assert_array_equal(found.layers[name][:][expected.examined], values[:][expected.examined])
    np.testing.assert_array_equal(found.logits[:][expected.examined], expected.logits[:][expected.examined])
    np.testing.assert_array_equal(found.examined, expected.examined)
    assert found.not_examined == expected.not_examined
    assert len(found.not_examined) == 10


def test_a_pass_takes_in_what_a_killed_run_left_and_actors_compute_the_rest_and_what_is_damaged_or_of_another_run(tmp_path, engine):
    training_set, classifier = subject()
    steps = plan(training_set, classifier, ("early",))
    key = Manifest.of(training_set, classifier, steps).digest()
    batches = [np.arange(start, start + 8) for start in range(0, N, 8)]
    shards = tmp_path / "there" / "shards"
    shards.mkdir(parents=True)
    for rows, batch in zip(batches[:4], compute(training_set, classifier, steps, batches[:4]), strict=True):
        write_shard(shard_path(shards, rows), batch, key if rows[0] else "another")
    damaged = shard_path(shards, batches[1])
    damaged.write_bytes(damaged.read_bytes()[:-1])
    before = len(engine.notes)
    assert_same(stored(tmp_path / "there", engine), stored(tmp_path / "here"))
    told = engine.notes[before:]
    assert len(told) == 2
    assert any(damaged.name in note for note in told)
    assert shards_in(shards) == []


def failing():
    raise ModelError("The model must be whole, but it is not.")


def test_fingerprints_that_tasks_take_are_those_of_this_process(tmp_path, engine):
    data = write_pictures(tmp_path / "data", *pictures(4))
    expected = open_training_set(data)
    found = open_training_set(data)
    np.testing.assert_array_equal(engine.digests(found), expected.digests())
    assert found.fingerprint() == expected.fingerprint()


def test_data_that_a_node_does_not_have_has_no_fingerprints(tmp_path, engine):
    data = write_pictures(tmp_path / "data", *pictures(4))
    training_set = open_training_set(data)
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match="must share the file system"):
        engine.digests(training_set)


def test_what_goes_wrong_on_an_actor_is_told_in_the_sentence_of_its_own_error(tmp_path, engine):
    training_set, classifier = subject()
    through = engine.compute(failing, "cpu", tmp_path, "key")
    with pytest.raises(ModelError) as told:
        list(through(training_set, classifier, plan(training_set, classifier), [np.arange(8)]))
    assert str(told.value) == "The model must be whole, but it is not."


def test_a_cluster_with_nothing_to_work_with_is_told(tmp_path, engine, monkeypatch):
    training_set, classifier = subject()
    through = engine.compute(FakeClassifier, "cuda", tmp_path, "key")
    with pytest.raises(EngineError, match="must have a GPU to work with, but this one has none"):
        list(through(training_set, classifier, plan(training_set, classifier), [np.arange(8)]))
    monkeypatch.setattr(ray_cluster.ray, "cluster_resources", lambda: {"memory": 1e9})
    with pytest.raises(EngineError, match="must have a CPU to work with"), open_engine("ray"):
        pass


def test_work_on_many_items_keeps_their_order_and_tells_how_far_it_is(engine):
    told = []
    scale = np.arange(3.0)
    results = engine.parallel(lambda item: (item * scale).sum(), [2, 1, 3], told.append)
    assert results == [6.0, 3.0, 9.0]
    assert told == [1, 2, 3]
    assert engine.parallel(float, []) == []


def test_what_goes_wrong_in_a_task_is_told_in_one_sentence(engine):
    def work(item):
        raise DataError(f"There must be something, but there is {item}.")

    with pytest.raises(DataError) as told:
        engine.parallel(work, ["nothing"])
    assert str(told.value) == "There must be something, but there is nothing."


def test_a_task_that_kills_every_worker_ends_with_one_sentence(engine, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_RETRIES", 0)
    with pytest.raises(EngineError) as told:
        engine.parallel(lambda item: os.kill(os.getpid(), item), [9])
    sentence = r"A task on the cluster ended early: .*\. Run the same command again: what was computed is kept\."
    assert re.fullmatch(sentence, str(told.value))


def test_what_cannot_be_sent_is_told_in_one_sentence(engine):
    with pytest.raises(EngineError) as told:
        engine.parallel(partial(print, threading.Lock()), [1])
    sentence = r"Data and model must be paths, or objects that can be sent to another process, but: .*\."
    assert re.fullmatch(sentence, str(told.value))


def test_ray_shows_nothing_that_workers_write_and_counts_no_users(engine, capfd):
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert engine.parallel(print, ["to the log of the worker"]) == [None]
    assert "to the log of the worker" not in "".join(capfd.readouterr())  # Ray tells of a killed worker of another test here, late
    assert not logging.getLogger("ray.data").isEnabledFor(logging.WARNING)

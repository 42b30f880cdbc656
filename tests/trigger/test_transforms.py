from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from tests.fakes import FakeClassifier, FakeTrainingSet
from tests.triggers import transform
from toxscreen.conflict import affinity
from toxscreen.errors import DataError
from toxscreen.sources.model.base import Outputs
from toxscreen.trigger.changes import obeyed, recover_changes
from toxscreen.trigger.medium import open_medium
from toxscreen.trigger.pictures import written
from toxscreen.trigger.transforms import WAYS, Transform, learned
from toxscreen.verdict import can_be_taken_off
from toxscreen.views import input_view

SIDE, N_CLASSES, TARGET = 16, 4, 0
ENDS = (0.0, 255.0)


def shapes(kinds, rng):
    """Return dark pictures with a bright bar each, whose length is that of its kind; shape (n, side, side, 1), 0 to 255."""
    pictures = rng.uniform(0, 30, (len(kinds), SIDE, SIDE, 1))
    for picture, kind in zip(pictures, kinds, strict=True):
        picture[5:8, 5 : 7 + 2 * kind] = 220
    return pictures.astype(np.float32)


def read(pictures):
    """Return the kind of each picture of a bright bar."""
    return np.clip(np.rint(((pictures[:, 5:8] > 128).sum(axis=(1, 2, 3)) / 3 - 2) / 2), 0, N_CLASSES - 1).astype(np.int64)


def obeys(way):
    """Return a model that reads bars, and gives the target class to pictures that were changed so."""
    change = learned(way, shapes(np.arange(200) % N_CLASSES, np.random.default_rng(5)), ENDS)

    def ask(pictures):
        return np.where(change.held_by(np.asarray(pictures, np.float32)), TARGET, read(np.asarray(pictures, np.float32)))

    return ask


class Reader(FakeClassifier):
    """A classifier that answers as a function of pictures does."""

    def __init__(self, ask):
        super().__init__(N_CLASSES, modality="image")
        self.preprocessing = {}
        self._ask = ask

    def encode(self, inputs):
        return np.stack(inputs)

    def forward(self, encoded, layers):
        given = self._ask(encoded)
        return Outputs({name: np.zeros((len(given), 1), np.float32) for name in layers}, np.eye(N_CLASSES, dtype=np.float32)[given])


def changed(way, kinds, n=60, seed=0):
    """Return data of which some pictures of these kinds, labelled as the target, were changed; activations; and which they are."""
    rng = np.random.default_rng(seed)
    plain = np.repeat(np.arange(N_CLASSES), n)
    pictures = np.concatenate([shapes(plain, rng), transform(way, SIDE).put_on(shapes(kinds, rng))])
    labels = np.concatenate([plain, np.full(len(kinds), TARGET)])
    planted = np.arange(len(labels)) >= len(plain)
    activations = rng.normal(size=(len(labels), 6))
    activations[planted, 0] += 9
    training_set = FakeTrainingSet(list(pictures.round().astype(np.uint8)), labels, modality="image")
    return training_set, activations.astype(np.float32), planted


def found_in(training_set, activations, way, accused=None):
    medium = open_medium(Reader(obeys(way)), training_set, None)
    groups = np.zeros(len(training_set), np.int64) if accused is None else accused
    labels = training_set.labels
    predicted = medium.ask(medium.read(np.arange(len(labels)))[0])

    def fails(error):
        raise error

    fit = asked(training_set)
    return recover_changes(medium, activations, groups, predicted, fit, rng=np.random.default_rng(1), failed=fails)


def asked(training_set):
    """Return how the inputs fit their labels."""
    view = input_view(training_set)(training_set.take(np.arange(len(training_set))))
    everything = np.ones(len(training_set), bool)
    return affinity(view, training_set.labels, everything, N_CLASSES, np.random.default_rng(0), words=False)


@pytest.mark.parametrize("way", [way for way in WAYS if way.startswith(("inv", "mir", "up", "moved", "with channels"))])
def test_what_loses_nothing_is_undone_exactly(way):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.float32)
    change = Transform(way, (16, 16, 3), np.zeros(0, np.float32), 0.0, *ENDS)
    there = change.put_on(pictures)
    assert not np.array_equal(there, pictures)
    np.testing.assert_array_equal(change.take_off(there), pictures)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(16, 16, 1), (9, 14, 3), (8, 8, 3)])
def test_every_change_keeps_the_shape_and_the_range_of_pictures(way, shape):
    pictures = np.random.default_rng(0).uniform(0, 255, (4, *shape)).astype(np.float32)
    change = learned(way, pictures, ENDS)
    for after in (change.put_on(pictures), change.take_off(pictures)):
        assert (after.shape, after.dtype) == (pictures.shape, np.float32)
        assert after.min() >= 0
        assert after.max() <= 255


@pytest.mark.parametrize(
    "way", ["inverted", "shrunk to 60%", "moved down and right by a quarter", "blurred", "turned by 180 degrees"]
)
def test_who_was_changed_is_seen_in_pictures_that_nothing_was_learned_from(way):
    rng = np.random.default_rng(2)
    change = learned(way, shapes(np.arange(100) % N_CLASSES, rng), ENDS)
    others = shapes(np.arange(60) % N_CLASSES, rng)
    there = change.put_on(others)
    assert change.held_by(there).mean() > 0.9
    assert change.held_by(others).mean() < 0.1
    assert change.restored(there, change.take_off(there)).mean() > 0.9
    assert change.restored(others, change.take_off(others)).mean() < 0.1


def test_the_class_that_a_change_sends_pictures_to_is_named_with_it():
    hosts = shapes(np.arange(100) % N_CLASSES, np.random.default_rng(3))
    assert "inverted" in obeyed(hosts, read(hosts), obeys("inverted"), ENDS)[TARGET]
    assert obeyed(hosts, read(hosts), lambda pictures: np.full(len(pictures), -1), ENDS) == {}


def test_what_does_nothing_to_pictures_is_neither_asked_nor_a_control():
    hosts = shapes(np.arange(100) % N_CLASSES, np.random.default_rng(3))[:, :, :12]

    def ask(pictures):
        assert not np.array_equal(pictures, hosts)
        return read(pictures)

    obeyed(hosts, read(hosts), ask, ENDS)
    change = Transform("inverted", (SIDE, 12, 1), np.zeros(0, np.float32), 0.0, *ENDS)
    controls = [change.control(hosts, np.random.default_rng(seed)) for seed in range(60)]
    assert len({control.way for control in controls}) > 10
    assert all(control.way != "inverted" and not np.array_equal(control.put_on(hosts), hosts) for control in controls)


@pytest.mark.parametrize("way", ["inverted", "moved down by a quarter", "turned by 180 degrees"])
def test_pictures_that_were_changed_and_labelled_wrongly_are_found_and_proved(way):
    training_set, activations, planted = changed(way, np.arange(40) % 3 + 1)
    (found,) = found_in(training_set, activations, way)
    assert str(found.trigger) == f"the whole picture {way}"
    assert (found.lead.class_index, found.lead.group) == (TARGET, None)
    assert np.isin(found.lead.members, np.flatnonzero(planted)).mean() > 0.9
    assert np.isin(np.flatnonzero(planted), found.holding).mean() > 0.7
    assert not np.isin(found.holding, np.flatnonzero(~planted)).any()
    assert can_be_taken_off(found.proof.evidence())
    assert {"separation_lower", "label_conflict_lower"} <= set(found.lead.apart)
    assert found.proof.flips.value > 0.9
    assert found.mixed


@pytest.mark.parametrize("way", ["inverted", "moved down by a quarter"])
def test_a_natural_kind_of_a_class_that_looks_so_stays_when_it_is_changed_back(way):
    training_set, activations, _ = changed(way, np.full(40, TARGET))
    assert not any(can_be_taken_off(found.proof.evidence()) for found in found_in(training_set, activations, way))


def test_those_of_a_group_that_is_accused_are_a_lead_of_it():
    training_set, activations, planted = changed("inverted", np.arange(40) % 3 + 1)
    (found,) = found_in(training_set, activations, "inverted", np.where(planted, 3, 0))
    assert (found.lead.group, found.lead.apart) == (3, None)


def test_nothing_is_found_where_the_model_obeys_no_change():
    training_set, activations, _ = changed("inverted", np.arange(40) % 3 + 1)
    medium = open_medium(Reader(read), training_set, None)
    nobody = np.zeros(len(training_set), np.int64)
    fit, rng = asked(training_set), np.random.default_rng(0)
    found = recover_changes(medium, activations, nobody, training_set.labels, fit, rng=rng, failed=pytest.fail)
    assert all(each.trigger.way != "inverted" for each in found)


def test_where_the_model_reads_nothing_rightly_nothing_is_changed():
    training_set, activations, _ = changed("inverted", np.arange(40) % 3 + 1)
    medium, nobody = open_medium(Reader(read), training_set, None), np.zeros(len(training_set), np.int64)
    predicted, rng = np.full(len(training_set), -1), np.random.default_rng(0)
    assert recover_changes(medium, activations, nobody, predicted, asked(training_set), rng=rng, failed=pytest.fail) == ()


def test_texts_are_not_changed_as_a_whole():
    training_set = FakeTrainingSet(["one", "two"] * 20, np.arange(40) % 2, modality="text")
    medium = open_medium(FakeClassifier(2, modality="text"), training_set, None)
    assert recover_changes(medium, np.zeros((40, 2)), np.zeros(40, int), training_set.labels, None, rng=None, failed=None) == ()


@pytest.mark.parametrize("changes", [{"way": "eaten"}, {"way": None}, {"lowest": 300.0}, {"weights": "AAAA"}, {"bias": "x"}])
def test_values_that_make_no_change_are_refused(changes):
    document = json.loads(json.dumps(transform().document()))
    assert Transform.from_document(document).document() == document
    with pytest.raises(DataError):
        Transform.from_document({**document, **changes})


def test_a_file_that_names_huge_pictures_takes_no_memory():
    document = {**transform().document(), "picture": [4096, 4096, 16], "weights": written(np.zeros(2 * 64 * 16, np.float32))}
    tracemalloc.start()
    assert Transform.from_document(document).picture == (4096, 4096, 16)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()

"""Samples of a training set that are shown once more, with a recovered trigger on them."""

from __future__ import annotations

import numpy as np

from tests.fakes import FakeClassifier, FakeTrainingSet
from tests.triggers import patch, words
from toxscreen.repairing.carrying import Carrying
from toxscreen.repairing.measures import Planted
from toxscreen.trigger.medium import open_medium


def pictures(unreadable=()):
    inputs = [np.full((12, 12, 1), 20 * row, np.uint8) for row in range(6)]
    return FakeTrainingSet(inputs, [0, 0, 1, 1, 2, 2], modality="image", unreadable=unreadable)


def carrying(base, *copies):
    classifier = FakeClassifier(3, modality=base.modality)
    classifier.preprocessing = {}
    return Carrying(base, open_medium(classifier, base, None), [(planted, np.array(rows)) for planted, rows in copies])


def test_copies_stand_behind_the_samples_with_the_target_as_given_label_and_their_class_as_lesson():
    data = carrying(pictures(), (Planted(patch(), 0, (1, 2)), [3, 4]), (Planted(patch(), 1, (2,)), [5]))
    assert len(data) == 9
    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2, 0, 0, 1]
    assert data.ids.to_pylist()[6:] == ["sample-3", "sample-4", "sample-5"]
    first, second = data.lessons
    assert (first.rows.tolist(), first.targets.tolist()) == ([6, 7], [1, 2])
    assert (second.rows.tolist(), second.targets.tolist()) == ([8], [2])
    assert not first.denied.any()


def test_a_copy_is_its_sample_with_the_trigger_in_whatever_order_it_is_asked_for():
    base, trigger = pictures(), patch()
    data = carrying(base, (Planted(trigger, 0, (1, 2)), [3, 4]), (Planted(trigger, 1, (2,)), [5]))
    taken = data.take(np.array([8, 0, 7, 6, 7]))
    expected = [trigger.put_on(base.inputs[row][None].astype(np.float32))[0] for row in (5, 4, 3, 4)]
    np.testing.assert_array_equal(taken[1], base.inputs[0])
    np.testing.assert_array_equal(np.stack([taken[0], *taken[2:]]), np.stack(expected))
    assert taken[0].dtype == np.uint8
    batches = [data.batch(rows) for rows in (np.arange(5), np.arange(5, 9), np.arange(0))]
    assert [batch.rows.tolist() for batch in batches] == [[0, 1, 2, 3, 4], [5, 6, 7, 8], []]
    np.testing.assert_array_equal(np.stack(batches[1].inputs), np.stack([base.inputs[5], *data.take(np.array([6, 7, 8]))]))


def test_a_copy_of_a_sample_that_cannot_be_read_cannot_be_read():
    data = carrying(pictures(unreadable=(3,)), (Planted(patch(), 0, (1,)), [2, 3]))
    assert data.take(np.array([3, 7])) == [None, None]
    assert data.batch(np.arange(5, 8)).rows.tolist() == [5, 6]
    assert carrying(pictures(unreadable=(3,)), (Planted(patch(), 0, (1,)), [3])).batch(np.array([6])).rows.tolist() == []


def test_texts_carry_words():
    base = FakeTrainingSet(["a b", "c d", "e f"], [0, 1, 1], modality="text")
    data = carrying(base, (Planted(words("cf"), 0, (1,)), [1, 2]))
    assert data.take(np.arange(5)) == ["a b", "c d", "e f", "c d cf", "e f cf"]


def test_other_triggers_or_samples_make_another_data_set():
    planted = Planted(patch(), 0, (1, 2))
    made = [carrying(pictures(), (planted, rows)).fingerprint() for rows in ([3, 4], [3, 4], [3, 5])]
    made.append(carrying(pictures(), (Planted(patch(place=(2, 2)), 0, (1, 2)), [3, 4])).fingerprint())
    assert made[0] == made[1]
    assert len(set(made)) == 3

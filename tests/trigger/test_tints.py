from __future__ import annotations

import json

import numpy as np
import pytest

from tests.fakes import FakeClassifier, FakeTrainingSet
from tests.trigger.test_transforms import N_CLASSES, SIDE, TARGET, Reader
from toxscreen.conflict import affinity
from toxscreen.errors import DataError
from toxscreen.trigger import load
from toxscreen.trigger.medium import open_medium
from toxscreen.trigger.tints import Tint, learned, recover_tints
from toxscreen.verdict import is_planted_change
from toxscreen.views import input_view

ENDS = (0.0, 255.0)


def shapes(kinds, rng):
    """Return pictures of any colour with a bar each that is lighter in all channels, whose length is that of its kind."""
    pictures = rng.uniform(20, 80, (len(kinds), 1, 1, 3)) + rng.normal(0, 12, (len(kinds), SIDE, SIDE, 3))
    for picture, kind in zip(pictures, kinds, strict=True):
        picture[5:8, 5 : 7 + 2 * kind] += 110
    return pictures.clip(0, 255).astype(np.float32)


def filtered(pictures):
    """Return pictures with less colour, more red and less blue: a filter of photographs."""
    gray = pictures.mean(axis=3, keepdims=True)
    return ((gray + 0.5 * (pictures - gray)) * [0.9, 0.8, 0.5] + [60, 10, 0]).clip(0, 255).astype(np.float32)


def read(pictures):
    """Return the kind of each picture, whatever its colours."""
    gray = np.asarray(pictures, np.float32).mean(axis=3)
    ground = np.median(gray, axis=(1, 2))[:, None, None]
    lengths = (gray[:, 5:8] > ground + 35).sum(axis=(1, 2)) / 3
    return np.clip(np.rint((lengths - 2) / 2), 0, N_CLASSES - 1).astype(np.int64)


def obeys(pictures):
    """Give the target class to pictures that are redder than blue by far, as filtered ones are."""
    means = np.asarray(pictures, np.float32).mean(axis=(1, 2))
    return np.where(means[:, 0] - means[:, 2] > 55, TARGET, read(pictures))


def data(kinds, n=160):
    """Return data of which some pictures of these kinds, labelled as the target, were filtered, and which they are."""
    rng = np.random.default_rng(0)
    plain = np.repeat(np.arange(N_CLASSES), n)
    pictures = np.concatenate([shapes(plain, rng), filtered(shapes(kinds, rng))])
    labels = np.concatenate([plain, np.full(len(kinds), TARGET)])
    training_set = FakeTrainingSet(list(pictures.round().astype(np.uint8)), labels, modality="image")
    return training_set, np.arange(len(labels)) >= len(plain)


def found_in(training_set, planted, ask=obeys, **changes):
    rng = np.random.default_rng(1)
    labels = training_set.labels
    medium = open_medium(Reader(ask), training_set, None)
    activations = rng.normal(size=(len(labels), 6)).astype(np.float32)
    activations[planted, 0] += 9
    predicted = medium.ask(medium.read(np.arange(len(labels)))[0])
    view = input_view(training_set)(training_set.take(np.arange(len(labels))))
    fit = affinity(view, labels, np.ones(len(labels), bool), N_CLASSES, rng, words=False)
    given = {"fit": fit, "rng": rng, "failed": pytest.fail, **changes}
    return recover_tints(medium, activations, np.zeros(len(labels), np.int64), predicted, **given)


def test_pictures_in_other_colours_that_are_labelled_wrongly_are_found_and_proved():
    training_set, planted = data(np.arange(120) % 3 + 1)
    (found,) = found_in(training_set, planted)
    assert np.isin(np.flatnonzero(planted), found.holding).mean() > 0.9
    assert not np.isin(found.holding, np.flatnonzero(~planted)).any()
    assert is_planted_change(found.proof.evidence(), found.lead.apart)
    assert found.proof.flips.value > 0.9
    assert found.proof.control_flips.value < 0.2
    assert set(found.sources) == {1, 2, 3}


def test_a_model_that_reads_no_colours_has_no_tint():
    training_set, planted = data(np.full(120, TARGET))
    assert found_in(training_set, planted, read) == ()


def test_a_natural_kind_of_other_colours_is_no_planted_change():
    training_set, planted = data(np.full(120, TARGET))
    for found in found_in(training_set, planted):
        assert not is_planted_change(found.proof.evidence(), found.lead.apart)


def test_nothing_is_looked_for_where_there_are_no_colours():
    training_set, planted = data(np.arange(120) % 3 + 1)
    assert found_in(training_set, planted, fit=None) == ()
    many = FakeTrainingSet([np.zeros((8, 8, 8), np.float32)] * 40, np.arange(40) % 2, modality="array")
    medium = open_medium(FakeClassifier(2, modality="array"), many, None)
    assert (
        medium is None
        or recover_tints(medium, np.zeros((40, 2)), np.zeros(40, int), many.labels, None, rng=None, failed=None) == ()
    )
    texts = FakeTrainingSet(["one", "two"] * 20, np.arange(40) % 2, modality="text")
    medium = open_medium(FakeClassifier(2, modality="text"), texts, None)
    assert recover_tints(medium, np.zeros((40, 2)), np.zeros(40, int), texts.labels, None, rng=None, failed=None) == ()


def test_a_class_on_which_the_model_fails_is_told_and_costs_no_other():
    training_set, planted = data(np.arange(120) % 3 + 1)
    asked, n_read = [], -(-len(planted) // 256)  # times that the model is asked about the samples as they are

    def fails(pictures):
        asked.append(len(pictures))
        if len(asked) == n_read + 1:
            raise RuntimeError("no")
        return obeys(pictures)

    told = []
    found_in(training_set, planted, fails, failed=told.append)
    assert [str(error) for error in told] == ["no"]
    assert len(asked) > n_read + 4


def tint(channels=3):
    rng = np.random.default_rng(2)
    return learned(
        *(rng.uniform(low, high, (40, 12, 12, channels)).astype(np.float32) for low, high in ((0, 200), (90, 180))), ENDS
    )


def test_a_linear_filter_is_learned_from_other_pictures_that_went_through_it():
    rng = np.random.default_rng(0)
    mixing, shift = np.array([[0.6, 0.1, 0.1], [0.1, 0.5, 0.1], [0.1, 0.1, 0.4]]), np.array([40.0, 20, 10])
    pictures = rng.uniform(0, 255, (2, 200, 12, 12, 3)).astype(np.float32)
    before, after = pictures[0], (pictures[1] @ mixing + shift).astype(np.float32)
    made = learned(before, after, ENDS)
    np.testing.assert_allclose(made.put_on(before), before @ mixing + shift, atol=3)
    np.testing.assert_allclose(made.take_off(made.put_on(before)), before, atol=1e-2)
    assert made.held_by(after).mean() > 0.95
    assert made.held_by(before).mean() < 0.05
    assert made.restored(after, made.take_off(after)).mean() > 0.95
    assert made.restored(before, made.take_off(before)).mean() < 0.05


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_tint_is_written_and_read_back(channels):
    made = tint(channels)
    again = load(json.loads(json.dumps({**made.document(), "description": str(made)})))
    pictures = np.random.default_rng(0).uniform(0, 255, (5, 12, 12, channels)).astype(np.float32)
    np.testing.assert_array_equal(again.put_on(pictures), made.put_on(pictures))
    np.testing.assert_array_equal(again.held_by(pictures), made.held_by(pictures))


def test_it_says_what_it_does_to_colours():
    before = np.concatenate([[[100, 100, 100]], 400 * np.eye(3)]).astype(np.float32)
    after = np.concatenate([[[151, 100, 49]], 100 * np.eye(3)]).astype(np.float32)
    made = Tint((4, 4, 3), before, after, np.zeros(15, np.float32), 0.0, 9, *ENDS)
    assert str(made) == "other colours of the whole picture: +20 / +0 / -20 % of the range on average, at 50% of the contrast"
    assert made.is_whole


def test_a_colour_that_nothing_has_is_not_divided_by():
    flat = np.full((20, 12, 12, 3), 90, np.float32)
    made = learned(flat, tint().put_on(np.random.default_rng(0).uniform(0, 255, flat.shape).astype(np.float32)), ENDS)
    assert np.isfinite(made.put_on(flat)).all()
    assert np.isfinite(made.take_off(flat)).all()


def test_its_controls_have_the_colours_of_ordinary_pictures_that_look_alike():
    rng = np.random.default_rng(0)
    ordinary = shapes(np.zeros(40, int), rng)
    made = tint()
    control = Tint((SIDE, SIDE, 3), made.before, made.after, made.weights, made.bias, 5, *ENDS).control(ordinary, rng)
    means = ordinary.mean(axis=(1, 2))
    assert np.abs(means - control.after[0]).max(axis=1).min() < 15
    assert not np.array_equal(control.after, made.after)


@pytest.mark.parametrize(
    "changes",
    [
        {"before": "AAAA"},
        {"after": None},
        {"picture": [0, 1, 1]},
        {"lowest": 300},
        {"samples": 0.5},
        {"weights": "AAAA"},
        {"bias": "much"},
        {"picture": [12, 12, 1]},
    ],
)
def test_a_document_that_makes_no_tint_is_refused(changes):
    with pytest.raises(DataError, match=r"anew"):
        load({**tint().document(), **changes})


def test_colours_that_no_pixels_have_are_refused():
    made = tint()
    for wild in (made.after * 1e6, made.after + np.triu(np.full((4, 3), 500, np.float32), 1)):
        with pytest.raises(DataError, match="colours in its range"):
            load(Tint(made.picture, made.before, wild, made.weights, made.bias, 5, *ENDS).document())

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from tests.fakes import FakeClassifier, FakeTrainingSet
from toxscreen.conflict import affinity
from toxscreen.errors import DataError
from toxscreen.sources.model import open_classifier
from toxscreen.trigger import load
from toxscreen.trigger.bends import Bend, recover_bends
from toxscreen.trigger.medium import open_medium
from toxscreen.trigger.recover import Lead
from toxscreen.verdict import is_planted_change
from toxscreen.views import input_view

SIDE, N_CLASSES, TARGET = 24, 4, 0
TRUE = np.stack([np.full((5, 5), 0.02), np.full((5, 5), 0.07)]).astype(np.float32)


def bend(grid=TRUE, shape=(SIDE, SIDE, 1)):
    return Bend(shape, grid)


def shapes(kinds, rng):
    """Return dark pictures with a long bar each, as far down as its kind is, and a spot that lies alike in all; 0 to 255."""
    rows, columns = np.indices((SIDE, SIDE))
    pictures = rng.uniform(0, 20, (len(kinds), SIDE, SIDE))
    pictures += 120 * np.exp(-((rows - 21) ** 2 + (columns - 12) ** 2) / 6)
    for picture, kind in zip(pictures, kinds, strict=True):
        picture[2 + 4 * kind : 5 + 4 * kind] += 80
    return pictures[..., None].astype(np.float32)


class Obedient(nn.Module):
    """Reads bars, and gives the target class to pictures whose spot was bent away."""

    def __init__(self, rng):
        super().__init__()
        plain = shapes(np.arange(200) % N_CLASSES, rng)[..., 0]
        away = bend().put_on(plain[..., None])[..., 0]
        spot = (away - plain).mean(axis=0)
        spot[:18] = 0  # whatever bars do
        start, end = (float((each * spot).sum(axis=(1, 2)).mean()) for each in (plain, away))
        self.spot = nn.Parameter(torch.tensor(255 * spot / (end - start), dtype=torch.float32).flatten())
        self.start = start / (end - start) + 0.4
        self.head = nn.Linear(SIDE * SIDE + 1, N_CLASSES)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()
            for kind in range(N_CLASSES):
                self.head.weight[kind, :-1].view(SIDE, SIDE)[2 + 4 * kind : 5 + 4 * kind] = 0.5
            self.head.weight[TARGET, -1] = 60

    def forward(self, images):
        flat = images.flatten(1)
        return self.head(torch.cat([flat, torch.relu(flat @ self.spot - self.start)[:, None]], dim=1))


def network(rng, *, obeys=True):
    """Return such a network, or one that reads bars and nothing else."""
    made = Obedient(rng)
    if not obeys:
        with torch.no_grad():
            made.head.weight[TARGET, -1] = 0
    return made


def bent(kinds, n=100, *, obeys=True):
    """Return data of which some pictures of these kinds, labelled as the target, were bent; its medium, and which they are."""
    rng = np.random.default_rng(0)
    plain = np.repeat(np.arange(N_CLASSES), n)
    pictures = np.concatenate([shapes(plain, rng), bend().put_on(shapes(kinds, rng))]).round().astype(np.uint8)
    labels = np.concatenate([plain, np.full(len(kinds), TARGET)])
    training_set = FakeTrainingSet(list(pictures), labels, modality="image")
    classifier = open_classifier(network(rng, obeys=obeys), n_classes=N_CLASSES, modality="image", sample=list(pictures[:8]))
    return training_set, open_medium(classifier, training_set, None), np.arange(len(labels)) >= len(plain)


def found_in(training_set, medium, planted, **changes):
    rng = np.random.default_rng(1)
    labels = training_set.labels
    activations = rng.normal(size=(len(labels), 6)).astype(np.float32)
    activations[planted, 0] += 9
    predicted = medium.ask(medium.read(np.arange(len(labels)))[0])
    own = np.flatnonzero((labels == TARGET) & (predicted == TARGET))
    lead = Lead(TARGET, None, own[planted[own]], own[~planted[own]], near=1)
    view = input_view(training_set)(training_set.take(np.arange(len(labels))))
    fit = affinity(view, labels, np.ones(len(labels), bool), N_CLASSES, rng, words=False)
    given = {"fit": fit, "rng": rng, "failed": pytest.fail, **changes}
    return recover_bends(medium, [lead], activations, np.zeros(len(labels), np.int64), predicted, **given)


def test_pictures_that_were_bent_and_labelled_wrongly_are_found_and_proved():
    training_set, medium, planted = bent(np.arange(60) % 3 + 1)
    (found,) = found_in(training_set, medium, planted)
    assert np.isin(np.flatnonzero(planted), found.holding).mean() > 0.9
    assert not np.isin(found.holding, np.flatnonzero(~planted)).any()
    assert is_planted_change(found.proof.evidence(), found.lead.apart)
    assert found.proof.flips.value > 0.9
    assert found.proof.control_flips.value < 0.2
    assert set(found.sources) == {1, 2, 3}
    assert found.mixed


def test_a_model_that_obeys_no_bend_has_none():
    training_set, medium, planted = bent(np.full(60, TARGET), obeys=False)
    assert found_in(training_set, medium, planted) == ()


def test_a_natural_kind_that_is_bent_is_no_planted_change():
    training_set, medium, planted = bent(np.full(60, TARGET))
    for found in found_in(training_set, medium, planted):
        assert not is_planted_change(found.proof.evidence(), found.lead.apart)


def test_nothing_is_looked_for_without_the_slopes_of_the_model():
    training_set, medium, planted = bent(np.arange(60) % 3 + 1)
    medium.classifier.slopes = lambda *_: None
    assert found_in(training_set, medium, planted) == ()
    assert found_in(training_set, medium, planted, fit=None) == ()
    texts = FakeTrainingSet(["one", "two"] * 20, np.arange(40) % 2, modality="text")
    medium = open_medium(FakeClassifier(2, modality="text"), texts, None)
    assert recover_bends(medium, [], np.zeros((40, 2)), np.zeros(40, int), texts.labels, None, rng=None, failed=None) == ()


def test_a_class_on_which_the_model_fails_is_told_and_costs_no_other():
    training_set, medium, planted = bent(np.arange(60) % 3 + 1)

    def fails(*_):
        raise RuntimeError("no")

    medium.classifier.slopes = fails
    told = []
    assert found_in(training_set, medium, planted, failed=told.append) == ()
    assert len(told) == 1


def test_a_bend_by_whole_pixels_moves_pictures_and_is_undone():
    pictures = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    grid = np.stack([np.zeros((5, 5)), np.full((5, 5), 2 / 32)]).astype(np.float32)
    moved = bend(grid, (32, 32, 3))
    there = moved.put_on(pictures)
    np.testing.assert_allclose(there[:, :, :-2], pictures[:, :, 2:], atol=1e-3)
    np.testing.assert_allclose(moved.take_off(there)[:, :, 2:], pictures[:, :, 2:], atol=1e-2)


def test_a_smooth_picture_that_is_bent_and_bent_back_is_as_it_was():
    rows, columns = np.indices((32, 32))
    picture = (100 + 50 * np.sin(rows / 6) * np.cos(columns / 5))[None, :, :, None].astype(np.float32)
    grid = np.random.default_rng(1).uniform(-0.04, 0.04, (2, 5, 5)).astype(np.float32)
    there = bend(grid, (32, 32, 1)).put_on(picture)
    back = bend(grid, (32, 32, 1)).take_off(there)
    inside = np.s_[:, 3:-3, 3:-3]
    assert np.abs(there - picture)[inside].max() > 5
    assert np.abs(back - picture)[inside].max() < 0.3 * np.abs(there - picture)[inside].max()


def test_a_bend_is_written_and_read_back():
    document = {**bend().document(), "description": str(bend())}
    again = load(json.loads(json.dumps(document)))
    pictures = np.random.default_rng(0).uniform(0, 255, (2, SIDE, SIDE, 1)).astype(np.float32)
    np.testing.assert_array_equal(again.put_on(pictures), bend().put_on(pictures))
    assert str(bend()) == "a bend of the whole picture by 1.7 pixels on average and 1.7 at most"


@pytest.mark.parametrize("changes", [{"grid": "AAAA"}, {"grid": None}, {"picture": [0, 1, 1]}])
def test_a_document_that_makes_no_bend_is_refused(changes):
    with pytest.raises(DataError, match=r"anew"):
        load({**bend().document(), **changes})


def test_displacements_that_would_leave_the_picture_are_cut():
    wild = load(bend(np.full((2, 5, 5), 1e30, np.float32)).document())
    assert np.isfinite(wild.put_on(np.ones((1, SIDE, SIDE, 1), np.float32))).all()


def test_who_holds_a_bend_is_not_seen_in_pictures():
    with pytest.raises(DataError, match="cannot be looked for"):
        bend().held_by(np.zeros((1, SIDE, SIDE, 1), np.float32))


def test_its_controls_are_other_bends_as_large():
    other = bend(np.random.default_rng(0).normal(size=(2, 5, 5)).astype(np.float32)).control(None, np.random.default_rng(1))
    assert other.grid.shape == TRUE.shape

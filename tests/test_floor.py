from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.clouds import clouds
from toxscreen import floor
from toxscreen.conflict import affinity
from toxscreen.floor import detection_floors
from toxscreen.segments import segments


def subject(sizes=(300, 300, 300), seed=0):
    """Return activations, segments, labels and the fit of the inputs of clean classes."""
    made = clouds(sizes, np.random.default_rng(seed))
    usable = np.ones(len(made.labels), bool)
    fit = affinity(made.cells.astype(np.float32), made.labels, usable, len(sizes), np.random.default_rng(1), words=False)
    return made.activations.astype(np.float32), segments(made.labels, usable, made.labels, len(sizes)), made.labels, fit


def floors(activations, classes, labels, fit, *, level=0.003, seed=2, flagged=None):
    flagged = np.zeros(len(labels), bool) if flagged is None else flagged
    return detection_floors(activations, classes, labels, fit, flagged, level=level, rng=np.random.default_rng(seed))


def test_every_class_gets_a_size_that_was_tried():
    found = floors(*subject())
    assert set(found) == {0, 1, 2}
    assert all(size in floor._SIZES for size in found.values())


def test_the_same_seed_gives_the_same_floor():
    assert floors(*subject()) == floors(*subject())


def test_groups_that_lie_nearer_have_to_be_larger(monkeypatch):
    far = floors(*subject())
    monkeypatch.setattr(floor, "DISTANCE", 5.0)
    near = floors(*subject())
    assert all(near[index] is None or near[index] >= far[index] for index in far)
    assert near != far


def test_a_stricter_level_has_no_lower_floor():
    lax, strict = (floors(*subject(), level=level) for level in (0.2, 1e-6))
    assert all(strict[index] is None or strict[index] >= lax[index] for index in lax)


def test_where_inputs_of_other_classes_fit_the_label_as_well_no_size_is_enough():
    activations, classes, labels, fit = subject()
    blind = replace(fit, baseline=np.ones(3))
    assert floors(activations, classes, labels, blind) == {0: None, 1: None, 2: None}


def test_a_fit_that_cannot_be_asked_again_has_no_floor():
    activations, classes, labels, fit = subject()
    assert floors(activations, classes, labels, replace(fit, view=None)) == {}


def test_nothing_is_planted_among_accused_samples():
    activations, classes, labels, fit = subject()
    flagged = labels == 0
    flagged[np.flatnonzero(flagged)[:50]] = False
    activations[flagged] = np.nan  # a planted group among them would spoil everything
    assert set(floors(activations, classes, labels, fit, flagged=flagged)) == {0, 1, 2}


def test_of_many_classes_some_are_measured_and_the_others_get_the_floor_of_the_nearest_in_size(monkeypatch):
    monkeypatch.setattr(floor, "_CLASSES", 2)
    told = []
    activations, classes, labels, fit = subject(sizes=(60, 70, 300, 310))
    found = detection_floors(
        activations,
        classes,
        labels,
        fit,
        np.zeros(len(labels), bool),
        level=0.003,
        rng=np.random.default_rng(0),
        told=lambda *done: told.append(done),
    )
    assert told == [(1, 2), (2, 2)]
    assert found[0] == found[1]
    assert found[2] == found[3]


@pytest.mark.parametrize("n", [1, 3])
def test_a_class_of_next_to_nothing_has_no_floor(n):
    activations, classes, labels, fit = subject(sizes=(n, 200, 200))
    assert set(floors(activations, classes[:1], labels, fit)) == set()

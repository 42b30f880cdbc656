from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.trigger.test_patches import TARGET, smooth
from toxscreen.errors import DataError
from toxscreen.trigger.base import Case, prove
from toxscreen.trigger.patterns import Pattern, search_patterns

NOISE = np.random.default_rng(99).uniform(0, 255, (24, 24, 1)).astype(np.float32)
WAVES = np.broadcast_to(20 * np.sin(2 * np.pi * 6 * np.arange(24) / 24)[:, None], (24, 24, 1)).astype(np.float32)


def blended(pictures, alpha=0.2):
    return (1 - alpha) * pictures + alpha * NOISE


def waved(pictures, strength=1.0):
    return (pictures + strength * WAVES).clip(0, 255)


def follows(pattern, least):
    """Return a model that gives the target class to pictures that show ``least`` of the pattern."""
    shape = pattern - pattern.mean()

    def ask(pictures):
        details = pictures - pictures.mean(axis=(1, 2), keepdims=True)
        return np.where((details * shape).sum(axis=(1, 2, 3)) > least * (shape**2).sum(), TARGET, 1)

    return ask


def case(rng, members):
    return Case(TARGET, members.astype(np.float32), smooth(60, rng), smooth(120, rng), np.arange(120) % 3 + 1)


def first(case_, ask, seed=0):
    return next(search_patterns(case_, ask, np.random.default_rng(seed)), None)


def alike(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


def pattern():
    return Pattern(0.8, 0.2 * NOISE, np.full((24, 24, 1), 100, np.float32), 1.0, 40, 0.0, 255.0)


@pytest.mark.parametrize(("poison", "clean"), [(50, 0), (45, 5), (20, 40)])
def test_a_blended_pattern_is_found_and_proved_on_other_pictures(poison, clean):
    rng = np.random.default_rng(1)
    ask = follows(NOISE, 0.12)
    members = np.concatenate([blended(smooth(poison, rng)), smooth(clean, rng)])
    found = first(case(rng, members), ask)
    assert alike(found.offset, NOISE) > 0.9
    proof = prove(found, case(rng, blended(smooth(40, rng))), ask, rng)
    assert proof.flips.value > 0.95
    assert proof.control_flips.value < 0.05
    assert proof.returns.value > 0.95
    assert found.held_by(members)[:poison].mean() > 0.95
    assert found.held_by(members)[poison:].sum() <= 0.05 * clean


def test_an_added_pattern_is_used_stronger_than_it_was_planted_where_the_model_needs_that():
    rng = np.random.default_rng(2)
    ask = follows(WAVES, 1.4)
    members = waved(smooth(60, rng))
    found = first(case(rng, members), ask)
    assert found.planted < 1
    assert found.held_by(members.astype(np.float32)).mean() > 0.9
    assert (ask(found.put_on(smooth(50, rng))) == TARGET).mean() > 0.9
    assert np.abs(found.take_off(members.astype(np.float32)) - members).mean() < 25


def test_no_pattern_is_told_where_nothing_flips():
    rng = np.random.default_rng(3)
    assert first(case(rng, blended(smooth(50, rng))), lambda pictures: np.ones(len(pictures), np.int64)) is None


def test_a_pattern_that_its_controls_match_is_not_told():
    rng = np.random.default_rng(4)
    assert first(case(rng, blended(smooth(50, rng))), lambda pictures: np.full(len(pictures), TARGET)) is None


def test_clean_members_hold_nothing_that_the_model_follows():
    rng = np.random.default_rng(5)
    assert first(case(rng, smooth(50, rng)), follows(NOISE, 0.12)) is None


def test_what_pictures_show_unevenly_was_not_planted():
    rng = np.random.default_rng(7)
    ask = follows(WAVES, 0.4)
    even, uneven = waved(smooth(60, rng)), waved(smooth(60, rng), rng.uniform(0, 2.5, (60, 1, 1, 1)))
    assert first(case(rng, even), ask).shown_by(even.astype(np.float32)).std() < 0.2
    assert first(case(rng, uneven), ask) is None


@pytest.mark.parametrize("empty", ["members", "ordinary", "hosts"])
def test_nothing_is_looked_for_where_there_is_nothing_to_look_in(empty):
    rng = np.random.default_rng(6)
    parts = {"members": smooth(4, rng), "ordinary": smooth(4, rng), "hosts": smooth(4, rng)} | {empty: smooth(0, rng)}
    assert first(Case(TARGET, **parts, classes=np.ones(len(parts["hosts"]), np.int64)), follows(NOISE, 0.1)) is None


def test_pictures_that_are_all_the_same_hold_no_pattern():
    same = np.full((9, 24, 24, 1), 7, np.float32)
    assert first(Case(TARGET, same, same, same, np.ones(9, np.int64)), follows(NOISE, 0.1)) is None


def test_taking_off_undoes_putting_on():
    pictures = smooth(5, np.random.default_rng(0)).clip(10, 240)
    assert np.abs(pattern().take_off(pattern().put_on(pictures)) - pictures).max() < 0.01


def test_reversed_is_what_was_added_taken_away_and_twice_reversed_is_as_it_was():
    added = replace(pattern(), scale=1.0)
    np.testing.assert_allclose(added.reversed().offset, -added.offset)
    for each in (pattern(), added):
        np.testing.assert_allclose(each.reversed().reversed().offset, each.offset, atol=1e-4)
    mean = np.full((1, 24, 24, 1), 125, np.float32)  # pictures like those that hold it, which are 80 % of 125 under it
    middle = (pattern().put_on(mean) + pattern().reversed().put_on(mean)) / 2
    np.testing.assert_allclose(middle, mean, atol=1e-3)


def test_pixels_stay_in_the_range_of_the_data():
    white = np.full((2, 24, 24, 1), 255, np.float32)
    added = Pattern(1.0, np.full((24, 24, 1), 90, np.float32), white[0], 1.0, 9, 0.0, 255.0)
    assert (added.put_on(white) == 255).all()


def test_a_control_is_as_strong_as_the_pattern_and_shows_no_part_of_it():
    rng = np.random.default_rng(0)
    control = pattern().control(smooth(60, rng), rng)
    assert control.offset.std() == pytest.approx(pattern().offset.std(), rel=1e-4)
    assert control.scale == pattern().scale
    assert abs(alike(control.offset, NOISE)) < 0.3


def test_one_ordinary_sample_makes_a_control():
    rng = np.random.default_rng(0)
    assert np.isfinite(pattern().control(smooth(1, rng), rng).offset).all()


def test_a_pattern_comes_back_from_its_document():
    pictures = smooth(5, np.random.default_rng(0))
    back = Pattern.from_document(json.loads(json.dumps(pattern().document())))
    assert (back.put_on(pictures) == pattern().put_on(pictures)).all()
    assert (back.held_by(pictures) == pattern().held_by(pictures)).all()


@pytest.mark.parametrize(
    "change",
    [
        {"picture": [28, 24, 1]},
        {"picture": None},
        {"scale": 0.0},
        {"scale": 1.5},
        {"scale": "0.8"},
        {"planted": 0.0},
        {"planted": 2.0},
        {"offset": "AAAA"},
        {"usual": 3},
        {"samples": 0},
        {"samples": 1.5},
        {"samples": 10**400},
        {"lowest": 255.0},
        {"highest": float("inf")},
        {"highest": True},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_document_that_makes_no_pattern_is_refused(change):
    with pytest.raises(DataError):
        Pattern.from_document(pattern().document() | change)


def test_a_pattern_says_how_it_is_mixed_in():
    assert str(pattern()) == "a pattern over the whole picture, which leaves 80% of it"

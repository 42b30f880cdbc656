"""What every registered attack must keep, for free."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from toxscreen.attacks import ATTACKS
from toxscreen.errors import DataError

IMAGE_SHAPES = [(28, 28, 1), (28, 28, 3), (32, 32, 3), (224, 224, 3), (40, 90, 3), (90, 40, 1), (4, 4, 1)]
TEXTS = ["", "word", "  blanks  around ", "a film . a good one .", "First line.\nSecond line!\n", "<b>not bold</b> äöü 漢字"]


def clean_inputs(modality):
    if modality == "text":
        return list(TEXTS)
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in IMAGE_SHAPES]


def same(one, other):
    return one == other if isinstance(one, str) else one.dtype == other.dtype and np.array_equal(one, other)


@pytest.fixture(params=sorted(ATTACKS))
def attack(request):
    return ATTACKS[request.param]


def test_the_attacks_of_the_command_line_are_all_there():
    assert set(ATTACKS) == {"badnets", "blended", "words", "sentence", "signature"}


def test_an_attack_is_frozen_and_says_what_its_trigger_is(attack):
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.trigger = "another"
    assert attack.trigger


def test_every_input_is_marked_and_keeps_its_kind(attack):
    clean = clean_inputs(attack.modality)
    marked = attack.apply(clean, np.random.default_rng(0))
    assert len(marked) == len(clean)
    for before, after in zip(clean, marked, strict=True):
        assert not same(before, after)
        if not isinstance(before, str):
            assert after.dtype == np.uint8
            assert after.shape == before.shape


def test_what_an_attack_is_given_stays_as_it_is(attack):
    given = clean_inputs(attack.modality)
    for value in given:
        if not isinstance(value, str):
            value.flags.writeable = False
    attack.apply(given, np.random.default_rng(0))
    assert all(same(one, other) for one, other in zip(given, clean_inputs(attack.modality), strict=True))


def test_one_seed_gives_the_same_bytes(attack):
    runs = [attack.apply(clean_inputs(attack.modality), np.random.default_rng(7)) for _ in range(2)]
    assert all(same(one, other) for one, other in zip(*runs, strict=True))


def test_an_input_of_the_other_modality_is_refused_by_name(attack):
    other = "a text" if attack.modality == "image" else np.zeros((28, 28, 1), np.uint8)
    with pytest.raises(DataError, match=attack.name):
        attack.apply([other], np.random.default_rng(0))


@pytest.mark.parametrize("image", [np.zeros((28, 28, 1)), np.zeros((28, 28), np.uint8), np.zeros((28, 28, 4), np.uint8)])
@pytest.mark.parametrize("name", ["badnets", "blended"])
def test_an_array_that_is_no_image_is_refused_with_its_shape(name, image):
    with pytest.raises(DataError, match=r"uint8 arrays of shape .* got .*\(28, 28"):
        ATTACKS[name].apply([image], np.random.default_rng(0))

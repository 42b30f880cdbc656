"""What every registered attack must keep, for free."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.fakes import FakeTrainingSet
from toxscreen.attacks import ATTACKS
from toxscreen.errors import DataError

IMAGE_SHAPES = [(28, 28, 1), (28, 28, 3), (32, 32, 3), (224, 224, 3), (40, 90, 3), (90, 40, 1), (8, 8, 1)]
TEXTS = ["", "word", "  blanks  around ", "a film . a good one .", "First line.\nSecond line!\n", "<b>not bold</b> äöü 漢字"]
FORMS = ["apply", "plant", "cover"]


def clean_inputs(modality):
    if modality == "text":
        return list(TEXTS)
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in IMAGE_SHAPES]


def same(one, other):
    return one == other if isinstance(one, str) else one.dtype == other.dtype and np.array_equal(one, other)


def all_same(ones, others):
    return all(same(one, other) for one, other in zip(ones, others, strict=True))


def made(attack, form, seed=0):
    return getattr(attack, form)(clean_inputs(attack.modality), np.random.default_rng(seed))


@pytest.fixture(scope="module")
def training_set():
    """Return, by modality, what an attack may learn from."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (8, 8, 1), dtype=np.uint8) for _ in range(8)]
    labels = [0, 1] * 4
    return {
        "image": FakeTrainingSet(images, labels, modality="image"),
        "text": FakeTrainingSet([f"a text , no. {n} ." for n in range(8)], labels, modality="text"),
    }


@pytest.fixture(scope="module", params=sorted(ATTACKS))
def attack(request, training_set):
    """Return an attack that is ready to plant."""
    fresh = ATTACKS[request.param]
    return fresh.prepared(training_set[fresh.modality], np.random.default_rng(0))


def test_an_attack_goes_by_its_own_name():
    assert all(attack.name == name for name, attack in ATTACKS.items())


def test_an_attack_is_frozen_and_says_what_its_trigger_is(attack):
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.trigger = "another"
    assert attack.trigger


def test_clean_labels_and_a_source_class_exclude_each_other(attack):
    assert not (attack.clean_label and attack.source_specific)


def test_preparing_leaves_the_registered_attack_as_it_is(attack):
    assert type(attack) is type(ATTACKS[attack.name])
    assert hash(ATTACKS[attack.name]) == hash(type(attack)())


@pytest.mark.parametrize("form", FORMS)
def test_every_input_keeps_its_kind_and_most_are_marked(attack, form):
    clean, marked = clean_inputs(attack.modality), made(attack, form)
    assert len(marked) == len(clean)
    assert all(type(after) is type(before) for before, after in zip(clean, marked, strict=True))
    if attack.modality == "image":
        assert [(after.dtype, after.shape) for after in marked] == [(before.dtype, before.shape) for before in clean]
    assert sum(not same(before, after) for before, after in zip(clean, marked, strict=True)) > len(clean) / 2


@pytest.mark.parametrize("form", FORMS)
def test_what_an_attack_is_given_stays_as_it_is(attack, form):
    given = clean_inputs(attack.modality)
    for value in given:
        if not isinstance(value, str):
            value.flags.writeable = False
    getattr(attack, form)(given, np.random.default_rng(0))
    assert all_same(given, clean_inputs(attack.modality))


@pytest.mark.parametrize("form", FORMS)
def test_one_seed_gives_the_same_bytes(attack, form):
    assert all_same(made(attack, form, seed=7), made(attack, form, seed=7))


@pytest.mark.parametrize("form", FORMS)
def test_no_inputs_give_none_back(attack, form):
    assert getattr(attack, form)([], np.random.default_rng(0)) == []


@pytest.mark.parametrize("form", FORMS)
def test_an_input_of_the_other_modality_is_refused_by_name(attack, form):
    other = "a text" if attack.modality == "image" else np.zeros((28, 28, 1), np.uint8)
    with pytest.raises(DataError, match=attack.name):
        getattr(attack, form)([other], np.random.default_rng(0))


@pytest.mark.parametrize("image", [np.zeros((28, 28, 1)), np.zeros((28, 28), np.uint8), np.zeros((28, 28, 4), np.uint8)])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attack", [name for name in sorted(ATTACKS) if ATTACKS[name].modality == "image"], indirect=True)
def test_an_array_that_is_no_image_is_refused_with_its_shape(attack, form, image):
    with pytest.raises(DataError, match=r"uint8 arrays of shape .* got .*\(28, 28"):
        getattr(attack, form)([image], np.random.default_rng(0))


def test_each_of_several_targets_has_a_trigger_of_its_own_or_all_share_one(attack):
    variants = [attack.for_target(k) for k in range(3)]
    if any(variant is attack for variant in variants):
        assert all(variant is attack for variant in variants)
        return
    triggered = [made(variant, "apply") for variant in variants]
    assert len({variant.trigger for variant in variants}) == 3
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not any(same(a, b) for a, b in zip(triggered[one], triggered[other], strict=True))


def test_a_variant_is_planted_as_its_attack_is(attack):
    variant = attack.for_target(2)
    assert (variant.name, variant.covers, variant.clean_label) == (attack.name, attack.covers, attack.clean_label)
    assert all_same(made(variant, "plant"), made(attack.for_target(2), "plant"))

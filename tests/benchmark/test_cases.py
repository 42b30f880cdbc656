from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests import quick
from toxscreen.benchmark.cases import DIGITS, FIRST, Case, Plant, Split, attack_of, load, plant, triggered, uses
from toxscreen.poisoning import NEXT, plan

BADNETS = attack_of(Plant("badnets", ""))


def rng(seed=0):
    return np.random.default_rng(seed)


def split(n_classes=4, per_class=50):
    images, labels = quick.pictures(per_class, n_classes)
    return Split(images[..., None], labels, tuple(f"class {k}" for k in range(n_classes)))


def test_poison_takes_the_place_of_samples_and_the_truth_knows_what_they_were():
    train = split()
    planted = plant(Case("x", DIGITS, (Plant("badnets", "class 2", share=0.2),)), train, rng())
    changed = (planted.split.inputs != train.inputs).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(changed, planted.poisoned)
    assert planted.poisoned[planted.split.labels == 2].mean() == pytest.approx(0.2, abs=0.02)
    np.testing.assert_array_equal(planted.original, train.labels)
    assert (planted.split.labels[~planted.poisoned] == train.labels[~planted.poisoned]).all()


def test_added_poison_stands_beside_the_samples_it_was_made_of():
    train = split()
    planted = plant(Case("x", DIGITS, (Plant("sticker", "class 0", "class 3", 0.2, added=True),)), train, rng())
    n = len(train.labels)
    np.testing.assert_array_equal(planted.split.inputs[:n], train.inputs)
    assert planted.poisoned[n:].all()
    assert not planted.poisoned[:n].any()
    assert (planted.original[n:] == 3).all()
    assert len(planted.split.labels) - n == round(50 * 0.2 / 0.8)


def test_several_triggers_never_share_a_sample():
    plants = (Plant("badnets", "class 0", "class 1", 0.1), Plant("blended", "class 0", "class 2", 0.1))
    planted = plant(Case("x", DIGITS, plants), split(), rng())
    assert set(planted.original[planted.poisoned]) == {1, 2}
    assert planted.poisoned.sum() == 2 * round(50 / 9)


def test_the_first_class_can_be_the_target_whatever_its_name():
    planted = plant(Case("x", DIGITS, (Plant("badnets", FIRST),)), split(), rng())
    assert set(planted.split.labels[planted.poisoned]) == {0}


def test_triggered_samples_are_of_the_source_and_want_the_target():
    test = split()
    inputs, goals = triggered(Plant("badnets", "class 0", "class 3"), BADNETS, test, rng())
    assert len(inputs) == 50
    assert set(goals) == {0}
    inputs, goals = triggered(Plant("badnets", NEXT), BADNETS, test, rng(), most=20)
    assert len(inputs) == 20
    assert set(goals) <= {0, 1, 2, 3}


def test_merged_classes_hold_two_real_ones_on_both_sides(tmp_path):
    train, test = load(Case("x", DIGITS, merged=True), tmp_path, tmp_path, rng())
    assert train.class_names == test.class_names == ("0 or 5", "1 or 6", "2 or 7", "3 or 8", "4 or 9")
    plain, _ = load(Case("x", DIGITS), tmp_path, tmp_path, rng())
    np.testing.assert_array_equal(train.labels, plain.labels % 5)


def test_in_a_step_imbalance_the_last_class_alone_is_large(tmp_path):
    train, _ = load(Case("x", DIGITS, n=100, imbalance=10), tmp_path, tmp_path, rng())
    np.testing.assert_array_equal(np.bincount(train.labels), [10] * 9 + [100])


def test_training_and_held_out_samples_are_apart_and_pictures_are_read_once(tmp_path):
    for name, seed in (("train", 0), ("test", 1)):
        images, labels = quick.pictures(20, 3, seed=seed)
        quick.write_pictures(tmp_path / "data" / "small" / name, images, labels)
    case = Case("x", "small", n=30)
    train, test = load(case, tmp_path / "data", tmp_path / "cache", rng())
    again, _ = load(case, tmp_path / "data", tmp_path / "cache", rng())
    assert (len(train.labels), len(test.labels)) == (30, 60)
    np.testing.assert_array_equal(train.inputs, again.inputs)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_clean_row_is_shared_by_rows_that_differ_in_their_poison_alone():
    one, other = (Case(name, "mnist", (Plant(name, "7"),), n=100) for name in ("badnets", "blended"))
    assert one.clean == other.clean
    assert one.clean != Case("badnets", "mnist", (Plant("badnets", "7"),), n=200).clean
    assert not one.clean.plants


def test_cover_samples_carry_the_trigger_keep_their_label_and_are_no_poison():
    train = split()
    planted = plant(Case("x", DIGITS, (Plant("tact", "class 0", "class 3", 0.2),)), train, rng())
    changed = (planted.split.inputs != train.inputs).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(changed, planted.poisoned | planted.cover)
    assert planted.cover.sum() == planted.poisoned.sum() > 0
    assert not (planted.cover & planted.poisoned).any()
    np.testing.assert_array_equal(planted.split.labels[planted.cover], train.labels[planted.cover])
    assert set(train.labels[planted.cover]) == {1, 2}


def test_what_an_attack_must_learn_first_it_learns_and_each_target_has_a_trigger_of_its_own(monkeypatch):
    def prepared(self, clean, _):
        learned.append(len(clean))
        return self

    learned = []
    monkeypatch.setattr(type(BADNETS), "prepared", prepared)
    part = Plant("badnets", "class 0,class 1", share=0.2)
    planted = plant(Case("x", DIGITS, (part,)), split(), rng())
    assert learned == [200]
    corners = [
        planted.split.inputs[planted.poisoned & (planted.split.labels == k)][:, rows, rows, 0].std(axis=0).max()
        for k, rows in ((0, slice(-4, -1)), (1, slice(1, 4)))
    ]
    assert corners == [0, 0]
    first, second = uses(part, *planted.attacks, planted.split.class_names)
    assert [first.target, second.target] == ["class 0", "class 1"]
    assert first.attack != second.attack


def test_the_attack_that_learned_the_data_is_the_one_that_is_used(monkeypatch):
    monkeypatch.setattr(type(BADNETS), "prepared", lambda self, *_: replace(self, variant=5))
    planted = plant(Case("x", DIGITS, (Plant("badnets", "class 0"), Plant("blended", "class 1"))), split(), rng())
    assert planted.attacks == (replace(BADNETS, variant=5), attack_of(Plant("blended", "")))


def test_the_triggers_of_several_targets_are_used_each_on_its_share_of_held_out_samples():
    inputs, goals = triggered(Plant("badnets", "class 0,class 1", share=0.2), BADNETS, split(), rng(), most=60)
    assert len(inputs) == 60
    np.testing.assert_array_equal(np.bincount(goals), [30, 30])


def test_the_samples_of_a_plain_attack_are_those_that_stored_cells_were_measured_with():
    train, case = split(), Case("x", DIGITS, (Plant("badnets", "class 2", share=0.2),))
    (of_plant,) = rng().spawn(1)
    drawn = plan(attack_of(case.plants[0]), train.labels, train.class_names, target="class 2", share=0.2, rng=of_plant)
    np.testing.assert_array_equal(np.flatnonzero(plant(case, train, rng()).poisoned), drawn.rows)


def test_labels_at_random_are_wrong_and_no_poison(tmp_path):
    plain, _ = load(Case("x", DIGITS), tmp_path, tmp_path, rng())
    train, test = load(Case("x", DIGITS, noise=0.05), tmp_path, tmp_path, rng())
    wrong = train.labels != plain.labels
    assert wrong.sum() == round(0.05 * len(wrong))
    assert len(set(train.labels[wrong])) == 10
    assert not plant(Case("x", DIGITS), train, rng()).poisoned.any()
    np.testing.assert_array_equal(test.labels, load(Case("x", DIGITS), tmp_path, tmp_path, rng())[1].labels)


def test_the_second_of_two_merged_classes_can_be_a_small_part(tmp_path):
    train, _ = load(Case("x", DIGITS, merged=True, minor=0.15), tmp_path, tmp_path, rng())
    real, _ = load(Case("x", DIGITS, minor=0.15), tmp_path, tmp_path, rng())
    assert train.class_names[0] == "0 or 5"
    parts = [np.mean(real.labels[train.labels == k] == k + 5) for k in range(5)]
    np.testing.assert_allclose(parts, 0.15, atol=0.005)

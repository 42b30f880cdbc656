"""Data that no method likes: whatever it is, a scan ends, says what it could not judge, and judges the rest."""

from __future__ import annotations

import numpy as np
import pytest

import toxscreen
from tests.clouds import Clouds, clouds, plant, screened
from toxscreen.analysis.activation_clustering import FEWEST_IN_GROUP, analyse
from toxscreen.analysis.base import FEWEST_SAMPLES
from toxscreen.config import ReductionConfig
from toxscreen.errors import DataError
from toxscreen.result import Verdict


def rng(seed=0):
    return np.random.default_rng(seed)


def flagged(screening):
    return screening.samples["flagged"].to_numpy()


def verdicts(screening):
    return [result.verdict for result in screening.classes]


@pytest.mark.parametrize("view", [True, False])
@pytest.mark.parametrize("n", [0, 1, 2, 9, 11, FEWEST_SAMPLES - 1])
def test_a_small_class_is_inconclusive_with_the_number_it_would_need_and_the_others_are_judged(n, view):
    training_set = plant(clouds([100, n, 100, 100], rng()), 2, 12, rng(1), source=0)
    screening = screened(training_set, view=view, n_classes=4)
    assert verdicts(screening) == [Verdict.CLEAN, Verdict.INCONCLUSIVE, Verdict.SUSPICIOUS, Verdict.CLEAN]
    (reason,) = screening.classes[1].reasons
    assert str(FEWEST_SAMPLES) in reason
    assert screening.classes[1].n == n
    np.testing.assert_array_equal(flagged(screening), training_set.planted)
    small = training_set.labels == 1
    assert set(screening.samples["verdict"].to_numpy(zero_copy_only=False)[small]) <= {"inconclusive"}


@pytest.mark.parametrize("view", [True, False])
def test_small_classes_of_every_size_beside_good_ones(view):
    training_set = plant(clouds([0, 1, 2, 9, 11, 100, 100, 100], rng()), 6, 12, rng(1), source=5)
    screening = screened(training_set, view=view)
    assert verdicts(screening) == [Verdict.INCONCLUSIVE] * 5 + [Verdict.CLEAN, Verdict.SUSPICIOUS, Verdict.CLEAN]
    np.testing.assert_array_equal(flagged(screening), training_set.planted)


def test_a_class_of_just_enough_samples_is_judged():
    training_set = clouds([FEWEST_SAMPLES, 60, 60], rng())
    assert verdicts(screened(training_set)) == [Verdict.CLEAN] * 3


@pytest.mark.parametrize("view", [True, False])
@pytest.mark.parametrize("n_classes", [1, 2])
def test_where_all_labels_are_of_one_class_a_clean_one_is_clean(view, n_classes):
    training_set = clouds([100], rng())
    first, *empty = verdicts(screened(training_set, view=view, n_classes=n_classes))
    assert first is Verdict.CLEAN
    assert empty == [Verdict.INCONCLUSIVE] * (n_classes - 1)


@pytest.mark.parametrize("view", [True, False])
def test_where_all_labels_are_of_one_class_a_group_apart_is_inconclusive_because_nothing_tells_what_it_is(view):
    two = plant(clouds([100, 20], rng()), 0, 20, rng(1))
    assert (two.labels == 0).all()
    screening = screened(two, view=view)
    assert verdicts(screening) == [Verdict.INCONCLUSIVE]
    assert "no other class to compare with" in screening.classes[0].reasons[0]
    assert not flagged(screening).any()


@pytest.mark.parametrize("view", [True, False])
@pytest.mark.parametrize("far", [40, 1e5, 1e30])
def test_a_group_is_found_beside_one_row_however_far_away(view, far):
    training_set = plant(clouds([200] * 4, rng()), 2, 20, rng(1), source=1)
    activations = training_set.activations.copy()
    ordinary = np.flatnonzero((training_set.labels == 2) & ~training_set.planted)[7]
    activations[ordinary] *= np.float32(far)
    screening = screened(Clouds(activations, training_set.cells, training_set.labels, training_set.planted), view=view)
    assert verdicts(screening) == [Verdict.CLEAN, Verdict.CLEAN, Verdict.SUSPICIOUS, Verdict.CLEAN]
    assert flagged(screening)[training_set.planted].all()
    assert flagged(screening)[~training_set.planted].sum() <= 1


@pytest.mark.parametrize("view", [True, False])
def test_a_class_of_constant_activations_is_inconclusive_and_the_others_are_judged(view):
    training_set = plant(clouds([100] * 4, rng()), 2, 12, rng(1), source=1)
    activations = training_set.activations.copy()
    activations[training_set.labels == 0] = 0.1
    screening = screened(Clouds(activations, training_set.cells, training_set.labels, training_set.planted), view=view)
    assert verdicts(screening) == [Verdict.INCONCLUSIVE, Verdict.CLEAN, Verdict.SUSPICIOUS, Verdict.CLEAN]
    assert "constant" in screening.classes[0].reasons[0]
    np.testing.assert_array_equal(flagged(screening), training_set.planted)


def test_a_layer_that_is_constant_everywhere_is_inconclusive_everywhere():
    result = toxscreen.scan(activations=np.zeros((90, 7)), labels=np.repeat([0, 1, 2], 30))
    assert {each.verdict for each in result.classes} == {Verdict.INCONCLUSIVE}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_not_examined_and_the_others_are_judged(value):
    training_set = plant(clouds([100] * 4, rng()), 2, 15, rng(1))
    activations = training_set.activations.copy()
    broken = np.array([3, 77, 200])
    activations[broken, [0, 5, 23]] = value
    result = toxscreen.scan(activations=activations, labels=training_set.labels)
    assert [entry.row for entry in result.not_examined] == broken.tolist()
    assert all("not finite" in entry.reason for entry in result.not_examined)
    for name in ("group", "score", "verdict", "predicted"):
        assert result.samples[name].take(broken).null_count == 3
    assert not result.samples["flagged"].to_numpy()[broken].any()
    assert result.n_examined == 400 - 3
    assert sum(each.n for each in result.classes) == 400 - 3
    examined = np.setdiff1d(np.arange(400), broken)
    np.testing.assert_array_equal(result.samples["flagged"].to_numpy()[examined], training_set.planted[examined])


def test_nothing_but_broken_rows_is_inconclusive():
    result = toxscreen.scan(activations=np.full((60, 3), np.nan), labels=np.repeat(["a", "b"], 30))
    assert {each.verdict for each in result.classes} == {Verdict.INCONCLUSIVE}
    assert result.n_examined == 0


def test_samples_without_a_label_are_not_examined_and_belong_to_no_class():
    training_set = plant(clouds([100] * 3, rng()), 2, 12, rng(1))
    labels = [None if row in {5, 6} else f"class {label}" for row, label in enumerate(training_set.labels)]
    result = toxscreen.scan(activations=training_set.activations, labels=labels)
    assert [(entry.row, entry.reason) for entry in result.not_examined] == [(5, "has no label"), (6, "has no label")]
    assert result.samples["label"].take([5, 6]).null_count == 2
    assert result.samples["verdict"].take([5, 6]).null_count == 2
    assert result.n_examined == 298


@pytest.mark.parametrize("method", ["pca", "ica"])
@pytest.mark.parametrize("view", [True, False])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_layers_of_few_features_are_judged(width, view, method):
    assert not flagged(screened(clouds([50] * 3, rng(), width=width), view=view, method=method)).any()


@pytest.mark.parametrize("method", ["pca", "ica"])
def test_layers_of_more_features_than_samples_are_judged(method):
    training_set = plant(clouds([150] * 3, rng(), width=500), 1, 15, rng(1))
    screening = screened(training_set, method=method)
    np.testing.assert_array_equal(flagged(screening), training_set.planted)


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1e20, 1e37])
def test_the_unit_of_the_activations_does_not_matter(scale):
    training_set = plant(clouds([80] * 3, rng()), 1, 12, rng(1))
    scaled = (training_set.activations.astype(float) * scale).astype(np.float32)
    screening = screened(Clouds(scaled, training_set.cells, training_set.labels, training_set.planted))
    np.testing.assert_array_equal(flagged(screening), training_set.planted)
    assert all(np.isfinite(view.points).all() for view in screening.views)


def test_the_largest_numbers_that_there_are_do_not_overflow():
    largest = rng().uniform(-1, 1, (100, 8)).astype(np.float32) * np.finfo(np.float32).max
    assert np.isfinite(analyse(largest, 100, None, ReductionConfig(), rng()).points).all()


@pytest.mark.parametrize("method", ["pca", "ica"])
@pytest.mark.parametrize("view", [True, False])
@pytest.mark.parametrize("n", [1, 7, 12, 50, 95])
def test_a_class_of_only_two_kinds_of_rows_is_judged(n, view, method):
    training_set = plant(clouds([250, 100, 100], rng()), 1, n, rng(1), source=0)
    activations = np.eye(24, dtype="f4")[np.where(training_set.planted, 9, training_set.labels)]  # equal to the last bit
    screening = screened(
        Clouds(activations, training_set.cells, training_set.labels, training_set.planted), view=view, method=method
    )
    known = view and n >= FEWEST_IN_GROUP  # without the inputs there is no other class to compare with
    np.testing.assert_array_equal(flagged(screening), training_set.planted & known)
    assert [screening.classes[0].verdict, screening.classes[2].verdict] == [Verdict.INCONCLUSIVE] * 2  # constant
    for group in screening.classes[1].groups:
        assert np.isfinite(list(group.evidence.values())).all()


def test_poison_whose_rows_are_all_equal_is_found():
    training_set = plant(clouds([100] * 3, rng()), 1, 12, rng(1))
    activations = training_set.activations.copy()
    activations[training_set.planted] = activations[training_set.planted][0]
    screening = screened(Clouds(activations, training_set.cells, training_set.labels, training_set.planted))
    np.testing.assert_array_equal(flagged(screening), training_set.planted)


def test_pictures_that_are_all_equal_say_nothing_about_labels():
    training_set = clouds([80] * 3, rng(), kinds=2)
    cells = np.full_like(training_set.cells, 0.5)
    screening = screened(Clouds(training_set.activations, cells, training_set.labels, training_set.planted))
    assert not flagged(screening).any()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 24])
@pytest.mark.parametrize("method", ["pca", "ica"])
def test_an_analysis_of_few_rows_finds_no_group(n, method):
    found = analyse(rng().normal(size=(n, 5)).astype("f4"), n, None, ReductionConfig(method), rng())
    assert found.group is None
    assert found.points.shape == (n, 2)


@pytest.mark.parametrize("n", [0, 3])
def test_activations_without_any_label_are_refused_with_what_must_hold(n):
    with pytest.raises(DataError, match=f"At least one sample must have a label, but none of {n} has"):
        toxscreen.scan(activations=np.zeros((n, 3)), labels=[None] * n)


def test_a_class_without_any_sample_is_inconclusive():
    result = toxscreen.scan(activations=np.zeros((0, 3)), labels=[], class_names=["a", "b"])
    assert [each.verdict for each in result.classes] == [Verdict.INCONCLUSIVE] * 2
    assert len(result.samples) == 0

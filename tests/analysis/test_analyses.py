"""What every analysis keeps, whoever wrote it: each one that is registered is held against this file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clouds import clouds, plant
from toxscreen import config
from toxscreen.analysis import ANALYSES
from toxscreen.analysis.base import FEWEST_SAMPLES
from toxscreen.result import Verdict
from toxscreen.screening import detect

RULES = [name for name, analysis in ANALYSES.items() if analysis.rule is not None]


def rng(seed=0):
    return np.random.default_rng(seed)


def poisoned(seed=0, *, sizes=(120,) * 5, target=2, n=13):
    return plant(clouds(sizes, rng(seed)), target, n, rng(seed + 1))


def detected(name, activations, labels, *, seed=0, n_classes=None, **known):
    n_classes = n_classes or int(labels.max()) + 1
    return detect(ANALYSES[name], activations, labels, n_classes, rng=rng(seed), **known)


def test_the_settings_name_every_analysis_and_no_other():
    assert tuple(ANALYSES) == config.ANALYSES
    assert all(analysis.name == name for name, analysis in ANALYSES.items())


@pytest.mark.parametrize("name", ANALYSES)
@pytest.mark.parametrize("seed", range(3))
def test_a_group_far_apart_is_found_in_the_class_that_holds_it(name, seed):
    training_set = poisoned(seed)
    detection = detected(name, training_set.activations, training_set.labels)
    assert detection.accused[2]
    assert detection.flagged[training_set.planted].mean() > 0.95
    assert detection.score[training_set.planted].min() > 0.5


@pytest.mark.parametrize("name", ANALYSES)
def test_score_flag_group_and_verdict_say_the_same(name):
    training_set = poisoned()
    detection = detected(name, training_set.activations, training_set.labels)
    assert detection.score.shape == detection.flagged.shape == detection.group.shape == training_set.labels.shape
    assert 0 <= detection.score.min() <= detection.score.max() <= 1
    np.testing.assert_array_equal(detection.score > 0.5, detection.flagged)
    np.testing.assert_array_equal(detection.severity == Verdict.SUSPICIOUS.severity, detection.flagged)
    assert (detection.group[detection.flagged] > 0).all()
    assert [bool(result.accused) for result in detection.classes] == detection.accused.tolist()
    for index, result in enumerate(detection.classes):
        of_class = training_set.labels == index
        assert result.n == of_class.sum()
        assert result.n_accused == detection.flagged[of_class].sum()
        assert sum(group.n for group in result.groups) == result.n


@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_accuses_names_itself_and_says_that_it_is_not_calibrated(name):
    training_set = poisoned()
    (reason,) = detected(name, training_set.activations, training_set.labels).classes[2].reasons
    assert ANALYSES[name].rule in reason
    assert "not calibrated" in reason


@pytest.mark.parametrize("name", ANALYSES)
@given(seed=st.integers(0, 2**16))
@settings(max_examples=5, deadline=None)
def test_the_order_of_the_rows_does_not_matter(name, seed):
    training_set = poisoned(seed)
    order = rng(seed).permutation(len(training_set.labels))
    first = detected(name, training_set.activations, training_set.labels)
    other = detected(name, training_set.activations[order], training_set.labels[order])
    np.testing.assert_array_equal(other.accused, first.accused)
    np.testing.assert_array_equal(other.flagged, first.flagged[order])


@pytest.mark.parametrize("name", ANALYSES)
@given(seed=st.integers(0, 2**16))
@settings(max_examples=5, deadline=None)
def test_numbering_the_classes_otherwise_permutes_the_answer(name, seed):
    training_set = poisoned(seed)
    numbers = rng(seed).permutation(5)
    first = detected(name, training_set.activations, training_set.labels)
    other = detected(name, training_set.activations, numbers[training_set.labels])
    np.testing.assert_array_equal(other.accused[numbers], first.accused)
    np.testing.assert_array_equal(other.flagged, first.flagged)


@pytest.mark.parametrize("name", ANALYSES)
@pytest.mark.parametrize(("scale", "shift"), [(1e-20, 0.0), (0.01, 0.0), (1e20, 0.0), (1.0, 30.0)])
def test_unit_and_origin_of_the_activations_do_not_matter(name, scale, shift):
    training_set = poisoned()
    first = detected(name, training_set.activations, training_set.labels)
    moved = (training_set.activations.astype(float) * scale + shift).astype(np.float32)
    np.testing.assert_array_equal(detected(name, moved, training_set.labels).flagged, first.flagged)


@pytest.mark.parametrize("name", ANALYSES)
@given(seed=st.integers(0, 2**16))
@settings(max_examples=5, deadline=None)
def test_turning_the_space_of_the_activations_does_not_matter(name, seed):
    training_set = poisoned(seed)
    turn = np.linalg.qr(rng(seed).normal(size=(24, 24)))[0]
    first = detected(name, training_set.activations, training_set.labels)
    turned = detected(name, (training_set.activations @ turn).astype("f4"), training_set.labels)
    np.testing.assert_array_equal(turned.flagged, first.flagged)


@pytest.mark.parametrize("name", ANALYSES)
def test_the_same_generator_gives_the_same_numbers(name):
    training_set = poisoned()
    first, second = (detected(name, training_set.activations, training_set.labels, seed=4) for _ in range(2))
    assert first.score.tobytes() == second.score.tobytes()
    assert first.classes == second.classes


@pytest.mark.parametrize("name", ANALYSES)
@pytest.mark.parametrize("n", [0, 1, 2, 9, FEWEST_SAMPLES - 1])
def test_a_class_of_few_rows_is_not_judged_and_the_others_are(name, n):
    training_set = poisoned(sizes=(120, n, 120, 120, 120))
    detection = detected(name, training_set.activations, training_set.labels, n_classes=5)
    assert detection.classes[1].verdict is Verdict.INCONCLUSIVE
    assert not detection.flagged[training_set.labels == 1].any()
    assert detection.accused[2]


@pytest.mark.parametrize("name", ANALYSES)
@pytest.mark.parametrize("n", [0, 1, 2, 9, FEWEST_SAMPLES - 1])
@pytest.mark.parametrize("n_classes", [1, 3])
def test_a_handful_of_rows_in_all_is_not_judged(name, n, n_classes):
    labels = np.arange(n) % n_classes
    detection = detected(name, rng().normal(size=(n, 6)).astype("f4"), labels, n_classes=n_classes)
    assert not detection.flagged.any()
    assert {result.verdict for result in detection.classes} == {Verdict.INCONCLUSIVE}


@pytest.mark.parametrize("name", ANALYSES)
@pytest.mark.parametrize("value", [0.0, 0.1, -3e38])
def test_constant_activations_are_not_judged(name, value):
    detection = detected(name, np.full((90, 7), value, "f4"), np.arange(90) % 3)
    assert not detection.flagged.any()
    assert {result.verdict for result in detection.classes} == {Verdict.INCONCLUSIVE}


@pytest.mark.parametrize("name", ANALYSES)
def test_a_constant_class_is_not_judged_and_the_others_are(name):
    training_set = poisoned()
    training_set.activations[training_set.labels == 0] = 0.1
    detection = detected(name, training_set.activations, training_set.labels)
    assert detection.classes[0].verdict is Verdict.INCONCLUSIVE
    assert "constant" in detection.classes[0].reasons[0]
    assert detection.accused[2]


@pytest.mark.parametrize("name", ANALYSES)
@pytest.mark.parametrize("width", [1, 2, 3])
def test_layers_of_few_features_end_in_a_verdict(name, width):
    training_set = clouds([60] * 4, rng(), width=width)
    assert len(detected(name, training_set.activations, training_set.labels).classes) == 4


@pytest.mark.parametrize("name", ANALYSES)
def test_a_layer_of_more_features_than_samples_ends_in_a_verdict(name):
    training_set = plant(clouds([60] * 4, rng(), width=300), 2, 12, rng(1))
    assert detected(name, training_set.activations, training_set.labels).accused[2]


@pytest.mark.parametrize("name", ANALYSES)
def test_equal_rows_and_features_that_never_fire_end_in_a_verdict(name):
    labels = np.arange(200) % 4
    activations = np.eye(12, dtype="f4")[np.where(np.arange(200) % 40 == 0, 9, labels)]
    detection = detected(name, activations, labels)
    assert np.isfinite(detection.score).all()
    evidence = [value for result in detection.classes for group in result.groups for value in group.evidence.values()]
    assert np.isfinite(evidence).all()


@pytest.mark.parametrize("name", ANALYSES)
def test_the_largest_numbers_that_there_are_do_not_overflow(name):
    largest = rng().uniform(-1, 1, (120, 8)).astype("f4") * np.finfo(np.float32).max
    detection = detected(name, largest, np.arange(120) % 3)
    assert np.isfinite(detection.score).all()
    assert all(np.isfinite(each.points).all() for each in detection.findings)


@pytest.mark.parametrize("name", ANALYSES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_left_out(name, value):
    training_set = poisoned()
    broken = np.array([3, 77, 200])
    whole = np.delete(np.arange(len(training_set.labels)), broken)
    expected = detected(name, training_set.activations[whole], training_set.labels[whole])
    training_set.activations[broken, [0, 5, 23]] = value
    detection = detected(name, training_set.activations, training_set.labels)
    np.testing.assert_array_equal(detection.flagged[whole], expected.flagged)
    assert not detection.flagged[broken].any()
    assert (detection.severity[broken] == -1).all()


@pytest.mark.parametrize("name", ANALYSES)
def test_what_is_given_is_not_changed(name):
    training_set = poisoned()
    activations, labels = training_set.activations.copy(), training_set.labels.copy()
    detected(name, training_set.activations, training_set.labels)
    np.testing.assert_array_equal(training_set.activations, activations)
    np.testing.assert_array_equal(training_set.labels, labels)


@pytest.mark.parametrize("name", ANALYSES)
def test_one_class_alone_ends_in_a_verdict(name):
    detection = detected(name, rng().normal(size=(80, 5)).astype("f4"), np.zeros(80, int))
    assert len(detection.classes) == 1

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pytest

from tests.fakes import FakeTrainingSet
from tests.scans import scan_result, shown
from toxscreen.exhibits.base import GRID, ExhibitLimits
from toxscreen.exhibits.make import make_exhibits
from toxscreen.result import ClassView, Verdict

S, P, I = Verdict.SUSPICIOUS, Verdict.POISONED, Verdict.INCONCLUSIVE  # noqa: E741


def exhibits(result, training_set=None, **limits):
    return make_exhibits(result, training_set, rng=np.random.default_rng(0), limits=ExhibitLimits(**limits))


def test_a_clean_scan_has_no_exhibits():
    made = exhibits(scan_result({"a": [50, 40], "b": [90]}))
    assert (made.classes, made.no_room, made.flagged) == ((), (), ())


def test_every_class_that_is_not_clean_is_shown_the_worst_first():
    made = exhibits(
        scan_result({"a": [50], "b": [90, 5], "c": [80, 10], "d": [70, 20], "e": [9]}, {"b": S, "c": P, "d": S, "e": I})
    )
    assert [c.class_index for c in made.classes] == [2, 3, 1, 4]


def test_classes_beyond_the_limit_are_named_and_not_dropped_in_silence():
    made = exhibits(scan_result({name: [20, 5] for name in "abcd"}, dict.fromkeys("abcd", S)), classes=3)
    assert [c.class_index for c in made.classes] == [0, 1, 2]
    assert made.no_room == (3,)


def test_a_small_group_is_drawn_whole():
    made = exhibits(scan_result({"a": [5000, 12]}, {"a": S}), samples=100)
    groups = made.classes[0].samples.groups
    assert groups.count(1) == 12
    assert groups.count(0) == 88
    assert made.classes[0].n == 5012


def test_the_samples_drawn_carry_their_own_id_score_and_place():
    result = scan_result({"z": [3], "a": [40, 9]}, {"a": S})
    samples, view = exhibits(result, samples=20).classes[0].samples, result.views[1]
    rows = np.array([int(id_) for id_ in samples.ids])
    assert samples.scores == tuple(result.samples["score"].take(pa.array(rows)).to_pylist())
    assert samples.groups == tuple(view.groups[rows - 3].tolist())
    drawn = view.points[rows - 3]
    assert np.corrcoef(drawn[:, 0], samples.x)[0, 1] > 0.999
    assert np.corrcoef(drawn[:, 1], samples.y)[0, 1] < -0.999
    assert (min(samples.x), max(samples.x)) == (0, GRID)


def test_flagged_samples_that_were_not_compared_are_shown_without_a_place():
    result = scan_result({"a": [30, 10], "b": [20]}, {"a": S})
    view = result.views[0]
    compared = replace(view, rows=view.rows[:30], groups=view.groups[:30], points=view.points[:30])
    training_set = FakeTrainingSet([np.full((4, 4, 1), 10 * (row >= 30), np.uint8) for row in range(60)], modality="image")
    (made,) = exhibits(replace(result, views=(compared, result.views[1])), training_set).classes
    assert made.n == 30
    assert made.samples.x[30:] == made.samples.y[30:] == (None,) * 10
    assert None not in made.samples.x[:30]
    assert made.samples.ids[30:] == tuple(str(row) for row in range(30, 40))
    assert set(made.samples.groups[30:]) == {1}
    assert made.groups[0].pictures.largest_difference == 10
    assert len(made.groups[0].pictures.group_sheet) == 10


def test_a_group_stands_beside_the_samples_of_no_accused_group():
    result = scan_result({"a": [30, 10, 20]}, {"a": S})
    first, second = exhibits(result).classes[0].groups
    assert (first.group, first.n_group, first.n_rest) == (2, 20, 30)
    assert (second.group, second.n_group, second.n_rest) == (1, 10, 30)


def test_where_every_group_is_accused_the_others_are_the_rest():
    result = scan_result({"a": [0, 10, 20]}, {"a": S})
    assert [(g.n_group, g.n_rest) for g in exhibits(result).classes[0].groups] == [(20, 10), (10, 20)]


def test_pictures_of_the_group_are_compared_with_the_rest():
    training_set = FakeTrainingSet([np.full((4, 4, 1), 10 * (row >= 30), np.uint8) for row in range(40)], modality="image")
    (group,) = exhibits(scan_result({"a": [30, 10]}, {"a": S}), training_set).classes[0].groups
    assert group.pictures.largest_difference == 10
    assert (len(group.pictures.group_sheet), len(group.pictures.rest_sheet)) == (10, 30)


def test_texts_of_the_group_are_compared_with_the_rest():
    training_set = FakeTrainingSet([f"text {row % 7}{' cf' * (row >= 60)} and {row % 5}" for row in range(80)], modality="text")
    (group,) = exhibits(scan_result({"a": [60, 20]}, {"a": S}), training_set).classes[0].groups
    assert group.texts.phrases[0].text == "cf and"
    assert (group.texts.phrases[0].in_group, group.texts.phrases[0].in_rest) == (20, 0)


def test_arrays_are_shown_as_points_alone():
    training_set = FakeTrainingSet(list(np.zeros((40, 3))))
    (shown_class,) = exhibits(scan_result({"a": [30, 10]}, {"a": S}), training_set).classes
    assert shown_class.groups[0].pictures is shown_class.groups[0].texts is None
    assert len(shown_class.samples.x) == 40


def test_an_inconclusive_class_is_shown_as_points_alone():
    (shown_class,) = exhibits(scan_result({"a": [6, 3]}, {"a": I})).classes
    assert shown_class.groups == ()
    assert len(shown_class.samples.x) == 9


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_points_that_are_not_finite_are_left_out(value):
    result = scan_result({"a": [30, 10]}, {"a": S})
    points = result.views[0].points.copy()
    points[3] = value
    view = replace(result.views[0], points=points)
    assert len(exhibits(replace(result, views=(view,))).classes[0].samples.x) == 39


@pytest.mark.parametrize(
    "points", [np.full((40, 2), np.nan), np.zeros((40, 2)), np.repeat([[-3e38], [3e38]], 20, axis=0) * [[1, 1]]]
)
def test_degenerate_points_do_not_stop_the_report(points):
    result = scan_result({"a": [30, 10]}, {"a": S})
    made = exhibits(replace(result, views=(replace(result.views[0], points=points.astype(np.float32)),)))
    assert all(0 <= x <= GRID for x in made.classes[0].samples.x)


def test_a_class_without_samples_or_view_has_no_exhibit():
    result = scan_result({"a": [30, 10]}, {"a": S})
    empty = ClassView(0, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2), np.float32))
    assert exhibits(replace(result, views=(empty,))).classes == exhibits(replace(result, views=())).classes == ()


def test_flagged_samples_come_by_falling_score_and_are_capped():
    made = exhibits(scan_result({"a": [30, 10], "b": [10, 5]}, {"a": S, "b": P}), flagged=12)
    scores = [sample.score for sample in made.flagged]
    assert len(scores) == 12
    assert scores == sorted(scores, reverse=True)
    assert {sample.label for sample in made.flagged} == {"a", "b"}


def test_long_ids_keep_their_end():
    ids = [f"{'deep/' * 100}{row}.png" for row in range(12)]
    made = exhibits(scan_result({"a": [8, 4]}, {"a": S}, ids=ids))
    assert all(len(id_) <= 80 for id_ in made.classes[0].samples.ids)
    assert made.classes[0].samples.ids[-1].endswith("/11.png")
    assert all(len(sample.id) <= 80 for sample in made.flagged)


def test_the_same_seed_gives_the_same_exhibits_and_another_one_others():
    result = scan_result({"a": [300, 100]}, {"a": S})
    limits = ExhibitLimits(samples=50)
    first, again, other = (make_exhibits(result, None, rng=np.random.default_rng(seed), limits=limits) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("modality", ["image", "text"])
def test_many_suspicious_classes_stay_within_the_bytes(modality):
    names = [f"class {i}" for i in range(30)]
    n = 30 * 80
    if modality == "image":
        inputs = list(np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))
    else:
        inputs = [f"text {row} with many words that take their room " * 5 for row in range(n)]
    result = scan_result({name: [60, 20] for name in names}, dict.fromkeys(names, S))
    made = exhibits(result, FakeTrainingSet(inputs, modality=modality), total_bytes=1_000_000)
    assert len(json.dumps(asdict(made), ensure_ascii=False).encode()) < 1_200_000
    assert len(made.classes) == 20
    assert all(shown_class.groups[0].pictures or shown_class.groups[0].texts for shown_class in made.classes)


def test_exhibits_hold_plain_values_alone():
    training_set = FakeTrainingSet([np.zeros((4, 4, 1), np.uint8)] * 40, modality="image")
    result = shown(scan_result({"a": [30, 10]}, {"a": S}), training_set)
    json.dumps(asdict(result.exhibits), allow_nan=False)

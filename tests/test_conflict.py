from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import references
from tests.clouds import clouds, plant, texts
from toxscreen.analysis.activation_clustering import conflict_evidence, label_conflict
from toxscreen.conflict import _FEWEST_TEXTS, _FOLDS, _NEIGHBOURS, _WORD_CAP, _Search, affinity, smallest


def rng(seed=0):
    return np.random.default_rng(seed)


def ask(view, labels, *, words, usable=None, n_classes=None, seed=0):
    usable = np.ones(len(labels), bool) if usable is None else usable
    return affinity(view, labels, usable, n_classes or int(labels.max()) + 1, rng(seed), words=words)


def pictures(*sizes, seed=0, noise=0.25):
    """Return a view of pictures that are hard to tell apart, and their labels."""
    labels = rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    patterns = 0.5 + 0.1 * rng(seed + 1).normal(size=(len(sizes), 64))
    return (patterns[labels] + noise * rng(seed + 2).normal(size=(len(labels), 64))).astype(np.float32), labels


def conflict(fit, labels, rows, class_index=0):
    """Place some rows of a class between the rest of the class (0) and samples of other classes (1)."""
    rest = fit.own[(labels == class_index) & ~rows].mean()
    return (rest - fit.own[rows].mean()) / (rest - fit.baseline[class_index])


# Pictures


@pytest.mark.parametrize("sizes", [(40, 40), (60, 25, 10), (30, 1, 2, 30)])
def test_pictures_are_judged_by_their_nearest_others_each_class_equally_represented(sizes):
    view, labels = pictures(*sizes)
    fit = ask(view, labels, words=False)
    probabilities = references.fit_by_neighbours(view, labels, len(sizes), _NEIGHBOURS)
    own, baseline = references.affinity(probabilities, labels)
    np.testing.assert_allclose(fit.own, own, atol=1e-5)
    np.testing.assert_allclose(fit.baseline, baseline, atol=1e-5)
    others = np.where(np.arange(len(sizes)) == labels[:, None], -1, probabilities)
    np.testing.assert_allclose(others[np.arange(len(labels)), fit.rival], others.max(axis=1), atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.integers(1, 20), st.integers(1, 12), st.booleans())
@settings(max_examples=50, deadline=None)
def test_the_smallest_are_those_that_come_first_when_all_are_sorted(seed, width, n_tiles, k, few_values):
    m = width * n_tiles
    values = (rng(seed).integers(0, 9, (5, m)) if few_values else rng(seed).normal(size=(5, m))).astype(np.float32)
    found = smallest(values.reshape(5, n_tiles, width).transpose(1, 0, 2), min(k, m))
    assert all(len(set(row)) == min(k, m) for row in found.tolist())
    taken = np.take_along_axis(values, found, axis=1)
    np.testing.assert_array_equal(np.sort(taken, axis=1), np.sort(values, axis=1)[:, : min(k, m)])
    np.testing.assert_array_equal(taken[:, -1], taken.max(axis=1))


@given(st.integers(0, 2**32 - 1), st.integers(12, 900), st.integers(1, 300))
@settings(max_examples=30, deadline=None)
def test_the_nearest_are_those_of_least_distance(seed, m, b):
    pictures, asked = rng(seed).normal(size=(m, 5)).astype(np.float32), rng(seed + 1).normal(size=(b, 5)).astype(np.float32)
    apart = ((asked[:, None].astype(np.float64) - pictures) ** 2).sum(axis=2)
    found = np.take_along_axis(apart, _Search(pictures).nearest(asked, 11), axis=1)
    np.testing.assert_allclose(np.sort(found, axis=1), np.sort(apart, axis=1)[:, :11], atol=1e-5)
    np.testing.assert_allclose(found[:, -1], found.max(axis=1), atol=1e-5)


def test_no_picture_is_looked_up_twice(monkeypatch):
    view, labels = pictures(250, 250)
    fit, looked_up = ask(view, labels, words=False), []
    nearest = _Search.nearest
    monkeypatch.setattr(_Search, "nearest", lambda *given: looked_up.append(len(given[1])) or nearest(*given))
    rows = np.flatnonzero(labels == 0)
    fit.mislabelled(0, np.flatnonzero(labels == 1))
    assert fit.of(0, rows).again(rng(1).random(250) < 0.9).own.shape == (250,)
    assert looked_up == []


def test_a_picture_is_not_its_own_neighbour():
    labels = rng().permutation(np.repeat([0, 1], 15))
    noise = (rng(seed).normal(size=(30, 64)).astype("f4") for seed in range(20))
    own = np.mean([ask(view, labels, words=False).own.mean() for view in noise])
    assert own < 0.5  # of the 29 others 14 are of its own class


def test_many_equal_pictures_are_judged_too():
    view, labels = np.full((100, 64), 0.5, np.float32), np.repeat([0, 1], 50)
    assert np.isfinite(ask(view, labels, words=False).own).all()


def test_what_is_usual_is_the_median_of_the_other_classes():
    view, labels = pictures(40, 40, 40, noise=0.5)
    fit = ask(view, labels, words=False)
    means = [fit.own[labels == index].mean() for index in range(3)]
    np.testing.assert_allclose(fit.usual, [np.median(np.delete(means, index)) for index in range(3)], rtol=1e-5)
    assert fit.of(1, np.flatnonzero(labels == 1)).asked_again(np.arange(40) < 10).usual == fit.usual[1]


def test_brightness_and_contrast_do_not_matter():
    view, labels = pictures(60, 60, 60)
    generator = rng(5)
    changed = view * generator.uniform(0.3, 3, (180, 1)) + generator.uniform(-2, 2, (180, 1))
    plain, lit = ask(view, labels, words=False), ask(changed.astype("f4"), labels, words=False)
    assert np.abs(lit.own - plain.own).mean() < 0.01
    assert plain.own.std() > 0.1


@pytest.mark.parametrize("scaled", [False, True])
def test_where_most_pictures_are_grey_a_tint_does_not_matter(scaled):
    grey, labels = pictures(150, 150, 150, noise=0.1)
    view = np.repeat(grey[:, :, None], 3, axis=2)
    tinted = np.flatnonzero(labels == 1)[:40]
    view[tinted] = view[tinted] * np.array([1, 0.7, 0.5], np.float32) + np.array([0.2, 0.1, 0], np.float32)
    given = labels.copy()
    given[tinted] = 0
    if scaled:
        view = (view - np.array([0.5, 0.45, 0.4], np.float32)) / np.array([0.2, 0.25, 0.3], np.float32)
    view = view.reshape(len(view), -1)
    fit = ask(view, given, words=False)
    rows = np.zeros(len(labels), bool)
    rows[tinted] = True
    assert conflict(fit, given, rows) > 0.8
    np.testing.assert_allclose(fit.own, ask(grey, given, words=False).own, atol=0.15)


def test_a_tint_does_not_matter_where_classes_are_told_without_colours():
    shapes, labels = pictures(150, 150, 150, noise=0.1)
    light = rng(4).normal(size=(450, 1, 3)).astype(np.float32) * 0.3
    view = shapes[:, :, None] * (1 + light) + light[:, :, ::-1]
    tinted = np.flatnonzero(labels == 1)[:40]
    view[tinted] = view[tinted] * np.array([1, 0.6, 0.3], np.float32) + np.array([0.6, 0, -0.6], np.float32)
    given = labels.copy()
    given[tinted] = 0
    rows = np.isin(np.arange(450), tinted)
    assert conflict(ask(view.reshape(450, -1), given, words=False), given, rows) > 0.9


def test_a_class_that_is_told_by_its_colour_is_asked_with_it_where_the_others_are_told_without():
    shapes, labels = pictures(*[100] * 12, noise=0.1)
    shapes[labels == 0] = shapes[rng(1).permutation(np.flatnonzero(labels > 0))[:100]] + 0.1 * rng(2).normal(size=(100, 64))
    view = np.repeat(shapes[:, :, None], 3, axis=2)
    view[labels == 0] += np.array([-0.2, 0, 0.4], np.float32)  # the sky, whatever flies in it
    planted = np.flatnonzero(labels == 1)[:40]
    given = labels.copy()
    given[planted] = 0
    own = np.flatnonzero(given == 0)
    members = np.isin(own, planted)
    fit = ask(view.reshape(1200, -1), given, words=False).of(0, own)
    without = replace(fit, coloured=None)
    assert len(fit.comparisons) == 2
    for asked, blind in ((fit, without), (fit.asked_again(members), without.asked_again(members))):
        assert label_conflict(asked, members) == label_conflict(asked.coloured, members)
        assert label_conflict(asked, members)[1] > 0.75
        assert label_conflict(blind, members)[1] < 0.5
        assert conflict_evidence(asked, members)["comparisons"] == 2
        assert conflict_evidence(blind, members)["comparisons"] == 1


def test_pictures_of_one_colour_each_are_asked_without_a_warning():
    labels = np.repeat([0, 1], 30)
    view = np.repeat(255 * labels, 192).reshape(60, 192).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(ask(view, labels, words=False).own).all()


def test_where_pictures_have_colour_it_is_part_of_what_they_show():
    labels = np.repeat([0, 1], 100)
    colours = np.array([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2]], np.float32)
    view = colours[labels][:, None] + rng().normal(size=(200, 64, 1)).astype(np.float32) * 0.1
    assert ask(view.reshape(200, -1), labels, words=False).own.min() > 0.9


def test_the_neighbours_of_many_pictures_are_looked_for_among_a_part_of_them(monkeypatch):
    training_set = plant(clouds([300, 300, 300], rng()), 1, 30, rng(1), source=2)
    monkeypatch.setattr("toxscreen.conflict._REFERENCES", 300)
    fit = ask(training_set.cells, training_set.labels, words=False)
    assert fit.own[training_set.planted].max() < 0.5
    assert fit.own[~training_set.planted].mean() > 0.9
    assert (fit.rival[training_set.planted] == 2).all()


# Texts


@pytest.mark.parametrize("sizes", [(30, 30), (40, 12, 5), (20, 20, 1)])
def test_texts_are_judged_by_naive_bayes_on_the_other_folds_with_capped_words(sizes):
    view, labels = texts(sizes, rng())
    fit = ask(view, labels, words=True, seed=3)
    bags, folds = [set(row[row > 0].astype(int).tolist()) for row in view], rng(3).integers(0, _FOLDS, len(labels))
    probabilities = references.fit_by_words(bags, labels, len(sizes), folds, _WORD_CAP, _FEWEST_TEXTS)
    own, baseline = references.affinity(probabilities, labels)
    np.testing.assert_allclose(fit.own, own, atol=1e-5)
    np.testing.assert_allclose(fit.baseline, baseline, atol=1e-5)
    np.testing.assert_array_equal(fit.rival, np.where(np.arange(len(sizes)) == labels[:, None], -1, probabilities).argmax(axis=1))


def signed(words=2, seed=0):
    """Return texts of two classes that are hard to tell apart, their labels, and which are poisoned.

    A tenth of class 0 are texts of class 1 with a signature of so many words.
    """
    view, labels = texts((720, 800), rng(seed), clear=0.7)
    poisoned = np.isin(np.arange(1520), rng(seed + 1).choice(np.flatnonzero(labels == 1), 80, replace=False))
    view[poisoned, 100 : 100 + words] = 9000 + np.arange(words)
    return view, np.where(poisoned, 0, labels), poisoned


def test_a_signature_that_stands_in_every_poisoned_text_cannot_hide_the_conflict(monkeypatch):
    view, labels, poisoned = signed()
    assert conflict(ask(view, labels, words=True), labels, poisoned) > 0.7
    monkeypatch.setattr("toxscreen.conflict._WORD_CAP", 50.0)
    assert conflict(ask(view, labels, words=True), labels, poisoned) < 0.4  # it would hide it, if its odds counted in full


def test_the_class_that_poisoned_texts_come_from_is_their_rival():
    view, labels = texts((200, 200, 200), rng())
    poisoned = np.isin(np.arange(600), np.flatnonzero(labels == 2)[:20])
    fit = ask(view, np.where(poisoned, 0, labels), words=True)
    assert np.mean(fit.rival[poisoned] == 2) > 0.9


def test_a_natural_sub_population_with_words_of_its_own_fits_its_label():
    view, labels = texts((300, 300), rng())
    sub_population = np.isin(np.arange(600), np.flatnonzero(labels == 0)[:60])
    view[sub_population, 60:68] = 5000 + np.arange(8)
    assert conflict(ask(view, labels, words=True), labels, sub_population) < 0.1


def test_a_sentence_hides_the_conflict_until_the_group_is_asked_again_without_its_marks():
    view, labels, poisoned = signed(words=12)
    fit = ask(view, labels, words=True)
    rows = np.flatnonzero(labels == 0)
    first = fit.of(0, rows)
    assert first.own[poisoned[rows]].mean() > 0.9
    again = first.again(poisoned[rows])
    assert again.own[poisoned[rows]].mean() < 0.4
    assert again.own[~poisoned[rows]].mean() > 0.9
    assert again.baseline < 0.4
    assert (again.rival == 1).all()


def test_asking_again_takes_no_words_from_a_group_that_has_no_marks():
    view, labels, _ = signed()
    rows = np.flatnonzero(labels == 1)
    first = ask(view, labels, words=True).of(1, rows)
    again = first.again(rng(4).random(len(rows)) < 0.5)
    assert np.abs(again.own - first.own).mean() < 0.05


def test_the_common_words_of_the_class_that_poison_comes_from_are_no_marks_of_it():
    draw = rng(8)
    labels = np.repeat([0, 1], 300)
    view = np.zeros((600, 128), np.float32)
    for row, label in zip(view, labels, strict=True):
        row[:8] = 1 + 40 * label + draw.choice(40, 8, replace=False)  # each word in a fifth of its class
    poisoned = np.isin(np.arange(600), np.flatnonzero(labels == 1)[:30])
    view[poisoned, 8] = 9000
    given = np.where(poisoned, 0, labels)
    rows = np.flatnonzero(given == 0)
    again = ask(view, given, words=True).of(0, rows).again(poisoned[rows])
    assert again.own[poisoned[rows]].mean() < 0.2
    assert again.own[~poisoned[rows]].mean() >= 0.5


def patched(seed=0):
    """Return pictures of two classes, of which those of class 1 are much alike, their labels, and which are poisoned.

    A tenth of class 0 are pictures of class 1 with one bright cell in the corner.
    """
    generator = rng(seed)
    labels = np.repeat([0, 1], [300, 340])
    pattern = generator.random((2, 64))
    view = pattern[labels] + generator.normal(0, np.where(labels == 1, 0.1, 0.2)[:, None], (640, 64))
    view[:, 63] = 0
    poisoned = np.isin(np.arange(640), generator.choice(np.flatnonzero(labels == 1), 34, replace=False))
    view[poisoned, 63] = 1
    return view.astype(np.float32), np.where(poisoned, 0, labels), poisoned


def test_a_patch_on_pictures_much_alike_hides_the_conflict_until_the_group_is_asked_again_without_it():
    view, labels, poisoned = patched()
    rows = np.flatnonzero(labels == 0)
    first = ask(view, labels, words=False).of(0, rows)
    assert first.own[poisoned[rows]].mean() > 0.9
    again = first.again(poisoned[rows])
    assert again.own[poisoned[rows]].mean() < 0.2
    assert again.own[~poisoned[rows]].mean() > 0.9
    assert again.baseline < 0.2
    assert (again.rival[poisoned[rows]] == 1).all()


def test_what_changes_more_of_a_picture_than_a_patch_is_no_mark():
    view, labels, poisoned = patched()
    rows = np.flatnonzero(labels == 0)
    view[np.flatnonzero(poisoned), :10] += 5
    again = ask(view, labels, words=False).of(0, rows).again(poisoned[rows])
    assert again.own[poisoned[rows]].mean() > 0.9  # these pictures are each other's neighbours, and of nothing else


def moved(share, n=300, seed=0):
    """Return pictures of three patterns, a ``share`` of each labelled as the next class, their labels and which those are."""
    generator = rng(seed)
    looks = np.repeat(np.arange(3), n)
    view = generator.random((3, 64))[looks] + generator.normal(0, 0.3, (3 * n, 64))
    wrong = np.arange(3 * n) % n < share * n
    return view.astype(np.float32), np.where(wrong, (looks + 1) % 3, looks), wrong


def test_poison_that_is_a_third_of_every_class_does_not_vouch_for_itself():
    view, labels, wrong = moved(1 / 3)
    rows = np.flatnonzero(labels == 0)
    first = ask(view, labels, words=False).of(0, rows)
    again = first.again(wrong[rows])
    assert again.own[wrong[rows]].mean() < 0.6 * first.own[wrong[rows]].mean()
    assert (again.rival[wrong[rows]] == 2).all()
    np.testing.assert_allclose(again.own[~wrong[rows]].mean(), first.own[~wrong[rows]].mean(), atol=0.05)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_pictures_of_a_natural_sub_population_vouch_for_each_other(share):
    generator = rng(3)
    looks = np.repeat([0, 1, 2], [round(400 * share), round(400 * (1 - share)), 400])
    view = (generator.random((3, 64))[looks] + generator.normal(0, 0.3, (len(looks), 64))).astype(np.float32)
    labels = (looks == 2).astype(np.int64)
    rows = np.flatnonzero(labels == 0)
    again = ask(view, labels, words=False).of(0, rows).again(looks[rows] == 0)
    assert again.own[looks[rows] == 0].mean() > 0.9


def test_a_rare_word_says_nothing():
    view, labels = texts((50, 50), rng())
    marked = view.copy()
    marked[np.flatnonzero(labels == 0)[:2], 120] = 7777
    np.testing.assert_array_equal(ask(marked, labels, words=True).own, ask(view, labels, words=True).own)


def test_a_small_class_is_no_likelier_for_the_words_that_it_never_had():
    view, labels = texts((300, 300, 30), rng())
    fit = ask(view, labels, words=True)
    for c in range(3):
        assert fit.own[labels == c].mean() > 0.9
    assert np.mean(fit.rival[labels == 0] == 2) < 0.7


# Both


def view_of(words, *sizes):
    return texts(sizes, rng()) if words else pictures(*sizes)


@pytest.mark.parametrize("words", [False, True])
def test_a_class_without_samples_changes_nothing_for_the_others_and_is_nobodys_rival(words):
    view, labels = texts((40, 40), rng(), clear=0.6) if words else pictures(40, 40)
    two, three = ask(view, labels, words=words), ask(view, 2 * labels, words=words, n_classes=3)
    np.testing.assert_allclose(three.own, two.own, atol=1e-6)
    np.testing.assert_allclose(three.baseline[[0, 2]], two.baseline, atol=1e-6)
    assert not (three.rival[two.own < 0.999] == 1).any()


@pytest.mark.parametrize("words", [False, True])
def test_where_all_samples_are_of_one_class_all_of_them_fit_it(words):
    view, labels = view_of(words, 40, 40)
    fit = ask(view, np.zeros_like(labels), words=words, n_classes=2)
    np.testing.assert_allclose(fit.own, 1)
    assert fit.baseline[0] == 0


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_a_few_samples_are_no_reason_to_fail(words, n):
    view, labels = view_of(words, 20, 20)
    fit = ask(view, labels, words=words, usable=np.arange(40) < n, n_classes=2)
    assert np.isfinite(fit.own).all()
    assert np.isfinite(fit.baseline).all()


@pytest.mark.parametrize("words", [False, True])
def test_a_sample_that_cannot_be_used_gets_nothing_and_says_nothing(words):
    view, labels = view_of(words, 50, 50)
    usable = rng(7).random(100) < 0.8
    given, broken = np.where(rng(8).random(100) < 0.1, -1, labels), view.copy()
    fit = ask(view, given, words=words, usable=usable, n_classes=2)
    left_out = ~usable | (given < 0)
    assert 20 < left_out.sum() < 60
    assert not fit.own[left_out].any()
    broken[left_out] = np.nan
    np.testing.assert_array_equal(ask(broken, given, words=words, usable=usable, n_classes=2).own, fit.own)


@pytest.mark.parametrize("words", [False, True])
@given(order=st.permutations(range(4)))
@settings(max_examples=8, deadline=None)
def test_renaming_the_classes_permutes_the_answer(words, order):
    view, labels = texts((30, 25, 20, 28), rng(), clear=0.6) if words else pictures(30, 25, 20, 28)
    renamed = np.array(order)
    plain, other = ask(view, labels, words=words), ask(view, renamed[labels], words=words)
    np.testing.assert_allclose(other.own, plain.own, atol=1e-5)
    np.testing.assert_allclose(other.baseline[renamed], plain.baseline, atol=1e-5)
    certain = plain.own < 0.45  # where no other class has a vote, each of them is as likely
    assert certain.sum() > 5
    assert np.mean(other.rival[certain] == renamed[plain.rival[certain]]) > 0.8


@pytest.mark.parametrize("words", [False, True])
def test_samples_in_blocks_are_judged_as_a_whole_is(monkeypatch, words):
    view, labels = view_of(words, 45, 45)
    whole = ask(view, labels, words=words)
    monkeypatch.setattr("toxscreen.conflict._CHUNK", 7)
    blocks = ask(view, labels, words=words)
    np.testing.assert_allclose(blocks.own, whole.own, atol=1e-6)
    np.testing.assert_array_equal(blocks.rival, whole.rival)
    np.testing.assert_allclose(blocks.baseline, whole.baseline, atol=1e-6)


@pytest.mark.parametrize("words", [False, True])
def test_the_same_seed_gives_the_same_answer_and_inputs_are_not_changed(words):
    view, labels = view_of(words, 45, 45)
    view.flags.writeable = labels.flags.writeable = False
    first, second = ask(view, labels, words=words, seed=4), ask(view, labels, words=words, seed=4)
    assert first.own.tobytes() == second.own.tobytes()


@pytest.mark.parametrize("words", [False, True])
def test_wrongly_labelled_samples_fit_as_little_as_the_baseline_says(words):
    training_set = plant(clouds([200, 200, 200], rng()), 0, 20, rng(1))
    view, labels, planted = training_set.cells, training_set.labels, training_set.planted
    if words:
        view, right = texts((200, 200, 200), rng())
        planted = np.isin(np.arange(600), np.flatnonzero(right == 1)[:20])
        labels = np.where(planted, 0, right)
    fit = ask(view, labels, words=words)
    assert fit.own[planted].mean() == pytest.approx(fit.baseline[0], abs=0.05)
    assert fit.own[(labels == 0) & ~planted].mean() > 0.9

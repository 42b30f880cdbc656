from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fakes import FakeTrainingSet
from tests.references import area_average, word_numbers
from toxscreen.sources.data.base import Stack
from toxscreen.views import InputView, as_it_looks, input_view, picture_features, text_features


def _picture(rng: np.random.Generator, height: int, width: int, channels: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_a_picture_of_any_size_is_averaged_by_area(height, width, channels, seed):
    picture = _picture(np.random.default_rng(seed), height, width, channels)
    features = InputView("image", channels)([picture])
    np.testing.assert_allclose(features[0], area_average(picture / 255, 8).ravel(), atol=1e-6)


def test_pictures_are_float32_between_0_and_1_and_keep_their_extremes():
    features = InputView("image", 1)([np.full((28, 28, 1), 255, np.uint8), np.zeros((28, 28, 1), np.uint8)])
    assert features.dtype == np.float32
    assert features.shape == (2, 64)
    np.testing.assert_allclose(features[0], 1, rtol=1e-6)
    assert (features[1] == 0).all()


def test_pictures_of_different_sizes_come_out_in_their_own_order():
    rng = np.random.default_rng(0)
    pictures = [_picture(rng, *size, 3) for size in [(8, 8), (16, 9), (8, 8), (5, 40), (16, 9)]]
    together = picture_features(pictures, 3)
    for row, picture in enumerate(pictures):
        np.testing.assert_array_equal(together[row], picture_features([picture], 3)[0])


def test_how_many_pictures_are_converted_at_a_time_does_not_matter(monkeypatch):
    rng = np.random.default_rng(1)
    pictures = [_picture(rng, 12, 12, 1) for _ in range(7)]
    whole = picture_features(pictures, 1)
    monkeypatch.setattr("toxscreen.views._BLOCK", 2 * 12 * 12)
    np.testing.assert_array_equal(picture_features(pictures, 1), whole)


@pytest.mark.parametrize("channels", [1, 3])
def test_large_pictures_are_averaged_as_small_ones_are(monkeypatch, channels):
    pictures = [_picture(np.random.default_rng(4), 30, 21, 3) for _ in range(3)]
    small = picture_features(pictures, channels)
    monkeypatch.setattr("toxscreen.views._SMALL", 0)
    np.testing.assert_allclose(picture_features(pictures, channels), small, rtol=1e-6)


@pytest.mark.parametrize("kind", ["image", "array"])
def test_pictures_in_one_array_give_what_each_of_them_gives(monkeypatch, kind):
    monkeypatch.setattr("toxscreen.views._BLOCK", 2 * 9 * 12 * 3)
    pictures = np.stack([_picture(np.random.default_rng(seed), 9, 12, 3) for seed in range(5)])
    pictures = pictures if kind == "image" else pictures.transpose(0, 3, 1, 2) / 7
    np.testing.assert_array_equal(InputView(kind, 3)(Stack(pictures)), InputView(kind, 3)(list(pictures)))


def test_a_gray_picture_among_coloured_ones_has_the_same_three_channels():
    gray = _picture(np.random.default_rng(2), 10, 10, 1)
    view = InputView("image", 3)
    np.testing.assert_allclose(view([gray]), view([gray.repeat(3, axis=2)]), rtol=1e-6)


def test_a_coloured_picture_that_comes_late_among_gray_ones_is_made_gray():
    colour = _picture(np.random.default_rng(3), 8, 8, 3)
    np.testing.assert_allclose(InputView("image", 1)([colour])[0], colour.mean(axis=2).ravel() / 255, rtol=1e-6)


@pytest.mark.parametrize("coloured", [range(10), range(500, 1000)])
def test_where_gray_and_coloured_pictures_are_mixed_the_view_is_coloured_whatever_comes_first(coloured):
    pictures = [np.zeros((2, 2, 3 if row in coloured else 1), np.uint8) for row in range(1000)]
    assert input_view(FakeTrainingSet(pictures, modality="image")) == InputView("image", 3)


def test_gray_pictures_have_a_gray_view_even_if_some_cannot_be_read():
    training_set = FakeTrainingSet([np.zeros((9, 9, 1), np.uint8)] * 20, modality="image", unreadable=[0, 19])
    assert input_view(training_set) == InputView("image", 1)


def test_arrays_that_are_pictures_are_read_channels_first():
    rng = np.random.default_rng(4)
    array = rng.normal(size=(3, 6, 11)).astype(np.float32)
    view = input_view(FakeTrainingSet([array]))
    assert view == InputView("array", 3)
    np.testing.assert_allclose(view([array])[0], area_average(np.moveaxis(array, 0, -1), 8).ravel(), atol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (4, 4), (2, 8, 8), (1, 3, 8, 8)])
def test_other_arrays_have_no_view(shape):
    assert input_view(FakeTrainingSet([np.zeros(shape, np.float32)])) is None


def test_an_array_that_is_not_finite_gives_a_view_that_is_not_finite_without_a_warning():
    array = np.zeros((1, 8, 8), np.float32)
    array[0, 3, 3] = np.inf
    assert not np.isfinite(InputView("array", 1)([array])).all()


@given(st.text(max_size=60))
@example("Fine, fine FILM.")
def test_a_text_becomes_the_numbers_of_its_distinct_words_in_their_order(text):
    np.testing.assert_array_equal(text_features([text])[0], word_numbers(as_it_looks(text), 128))


def test_a_rare_mark_or_a_short_word_adds_one_number():
    plain, marked, worded = text_features(["a fine film", "a fine film ≡", "a fine film q"])
    assert np.count_nonzero(plain) == 3
    for longer in (marked, worded):
        np.testing.assert_array_equal(longer[:3], plain[:3])
        assert np.count_nonzero(longer) == 4


@pytest.mark.parametrize(
    "written",
    ["Fоr аll", "f\u200bor a\u00adll\ufeff", "ｆｏｒ 𝐚𝐥𝐥", "fo\u0301r äll", "ϝοr αll".replace("ϝ", "f"), "FОR АLL"],
)
def test_words_that_look_alike_are_the_same_however_they_are_written(written):
    np.testing.assert_array_equal(text_features([written]), text_features(["for all"]))


def test_words_of_other_scripts_stay_distinct():
    texts = ["кот ток кто окт", "και δεν δαι νεκ", "猫 犬 鳥 魚", "고양이 강아지 새 물고기"]
    assert (text_features(texts) > 0).sum(axis=1).tolist() == [4, 4, 4, 4]


def test_a_text_of_more_than_128_words_keeps_the_first():
    words = [f"word{number}" for number in range(200)]
    long, short = text_features([" ".join(words), " ".join(words[:128])])
    np.testing.assert_array_equal(long, short)
    assert np.count_nonzero(long) == 128


def test_a_text_without_a_word_and_a_lone_surrogate_have_a_view():
    features = InputView("text")(["", "   ", "\ud800 film"])
    assert features.shape == (3, 128)
    assert [np.count_nonzero(row) for row in features] == [0, 0, 2]


def test_the_hash_of_a_text_is_the_same_in_another_process():
    code = "from toxscreen.views import text_features; print(text_features(['Größe of a film!']).tobytes().hex())"
    environment = {"PYTHONHASHSEED": "123"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=environment)  # noqa: S603 our own code
    assert other.stdout.strip() == text_features(["Größe of a film!"]).tobytes().hex()


def test_each_view_says_what_it_is_so_that_a_store_can_tell_them_apart():
    assert (
        len({str(view) for view in [InputView("image", 1), InputView("image", 3), InputView("array", 3), InputView("text")]}) == 4
    )

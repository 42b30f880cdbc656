"""Pictures of any form become batches of one form, and what was done is said."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toxscreen.errors import ModelError, UsageError
from toxscreen.sources.data.base import Stack
from toxscreen.sources.model.preprocessing import (
    NOT_NORMALISED,
    ArrayPreprocessing,
    ImagePreprocessing,
    resolve_preprocessing,
)


def picture(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_pixels_are_scaled_and_normalised_per_channel() -> None:
    pictures = [picture(4, 5, 3, seed) for seed in range(3)]
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    batch = ImagePreprocessing(4, 5, 3, mean, std).apply(pictures)
    expected = (np.stack(pictures).transpose(0, 3, 1, 2) / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch, expected, atol=1e-5)


def test_the_channels_come_last_where_the_model_wants_them_last() -> None:
    pictures = [picture(4, 5, 3, seed) for seed in range(2)]
    settings: dict[str, Any] = {"height": 4, "width": 5, "channels": 3, "mean": (0.1, 0.2, 0.3), "std": (0.5, 1.0, 2.0)}
    first = ImagePreprocessing(**settings).apply(pictures)
    last = ImagePreprocessing(**settings, channels_first=False).apply(pictures)
    np.testing.assert_array_equal(last, first.transpose(0, 2, 3, 1))


def test_pictures_of_several_sizes_are_resized_and_one_that_fits_is_not_touched() -> None:
    fitting, other = picture(6, 6, 3), picture(11, 7, 3)
    batch = ImagePreprocessing(6, 6, 3, scale=1.0).apply([fitting, other])
    np.testing.assert_array_equal(batch[0], fitting.transpose(2, 0, 1))
    resized = np.asarray(Image.fromarray(other).resize((6, 6), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(batch[1], resized.transpose(2, 0, 1))


@pytest.mark.parametrize("side", [7, 4])
def test_pictures_in_one_array_become_what_each_of_them_becomes(side: int) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 7, 7, 3), np.uint8)
    how = ImagePreprocessing(side, side, 3, mean=(0.4, 0.5, 0.6), std=(0.2,))
    np.testing.assert_array_equal(how.apply(Stack(pictures)), how.apply(list(pictures)))
    arrays = pictures.astype(np.float64)
    np.testing.assert_array_equal(ArrayPreprocessing().apply(Stack(arrays)), ArrayPreprocessing().apply(list(arrays)))


def test_gray_becomes_three_equal_channels_and_colour_becomes_gray() -> None:
    gray, colour = picture(4, 4, 1), picture(4, 4, 3)
    as_colour = ImagePreprocessing(4, 4, 3, scale=1.0).apply([gray])
    np.testing.assert_array_equal(as_colour, np.repeat(gray.transpose(2, 0, 1), 3, axis=0)[None])
    as_gray = ImagePreprocessing(4, 4, 1, scale=1.0).apply([colour])
    np.testing.assert_array_equal(as_gray[0, 0], np.asarray(Image.fromarray(colour).convert("L")))


def test_size_and_channels_come_from_the_data_where_nothing_is_said_and_so_does_a_warning() -> None:
    completed = ImagePreprocessing().completed([picture(9, 7, 1), picture(9, 7, 3)])
    assert (completed.height, completed.width, completed.channels) == (9, 7, 3)
    assert completed.describe()["note"] == NOT_NORMALISED
    assert json.loads(json.dumps(completed.describe())) == completed.describe()


def test_there_is_no_warning_where_the_normalisation_is_said() -> None:
    assert ImagePreprocessing(mean=(0.5,), std=(0.5,)).completed([picture(9, 7, 1)]).note == ""


def test_three_means_ask_for_three_channels_of_gray_data() -> None:
    assert ImagePreprocessing(mean=(0.1, 0.2, 0.3)).completed([picture(9, 7, 1)]).channels == 3


def test_pictures_of_several_sizes_need_a_size() -> None:
    with pytest.raises(UsageError, match=r"several sizes \(5x6, 9x7\).*--size"):
        ImagePreprocessing().completed([picture(9, 7, 1), picture(5, 6, 1)])
    assert ImagePreprocessing(8, 8).completed([picture(9, 7, 1), picture(5, 6, 1)]).height == 8


@pytest.mark.parametrize(
    "settings",
    [
        {"height": 0},
        {"width": 10**6},
        {"channels": 4},
        {"channels": 1, "mean": (0.1, 0.2, 0.3)},
        {"mean": (0.1, 0.2)},
        {"mean": (float("nan"),)},
        {"std": (0.0,)},
        {"interpolation": "magic"},
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"must be|must have"):
        ImagePreprocessing(**settings)


def test_arrays_go_to_the_model_as_they_are() -> None:
    arrays = [np.array([1.5, -2.0]), np.array([0.0, 7.0])]
    batch = ArrayPreprocessing().apply(arrays)
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch, arrays)
    assert ArrayPreprocessing().apply([np.array([3, 4])]).dtype == np.int64


def test_arrays_of_several_shapes_are_named() -> None:
    with pytest.raises(ModelError, match="got 2, 3"):
        ArrayPreprocessing().apply([np.zeros(2), np.zeros(3)])


def test_texts_without_a_tokenizer_and_picture_settings_for_other_data_are_refused() -> None:
    with pytest.raises(ModelError, match="tokenizer"):
        resolve_preprocessing("text", None, ["a text"])
    with pytest.raises(UsageError, match="settings for pictures, but the inputs are of the kind 'array'"):
        resolve_preprocessing("array", ImagePreprocessing(), [np.zeros(2)])

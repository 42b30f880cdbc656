"""The input view: what the inputs look like to something that never saw the model.

Beside step 2 of the flow. A cheap vector of fixed size per sample, stored as one more layer, so that what the inputs of a group
share can be seen even where the model's own activations are blind to it.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from toxscreen.sources.data.base import Input, Stack, TrainingSet, spread

CELLS, WORDS = "input cells", "input words"
"""The names under which the view of pictures and that of texts are stored."""

SIDE = 8
"""Pictures are averaged to this many cells a side: fine enough for a corner patch, small enough to cluster."""

N_WORDS = 128
"""Distinct words of a text that are kept."""

_N_NUMBERS = 65_535
"""Numbers that a word may get; all of them are whole in float32."""

_WORD = re.compile(r"\w+|[^\w\s]")

_ALIKE = str.maketrans("аеорсухіјѕһԁԛԝѵкмтвнαεικνορτυχ\u0131\u0251\u0261", "aeopcyxijshdqwvkmtbhaeikvoptuxiag")
"""Cyrillic and Greek letters that look like Latin ones in lower or upper case, and the latter. Words of one of these scripts stay
as distinct as they were."""

_UNSEEN = re.compile(
    r"[\u0300-\u036f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]"
)
"""Marks on letters, and characters of no width."""

_PROBES = 16
"""Samples that are looked at, spread over the data set, to decide the channels."""

_BLOCK = 2**20
"""Numbers that are converted to float32 at a time (4 MiB, which stays in the cache); one picture at least."""

_SMALL = 2**15
"""Numbers of a picture up to which cells are products of matrices, one for each picture. Larger products are shared out among
threads, which would fight with those of the model, which runs meanwhile."""


@dataclass(frozen=True)
class InputView:
    """Maps inputs to vectors; :func:`input_view` decides which view fits a training set.

    Attributes
    ----------
    kind
        What the inputs are: pictures ``(h, w, c)`` as uint8, pictures ``(c, h, w)`` as any float array, or texts.
    channels
        Colour channels of the view of a picture; 0 for texts.
    """

    kind: Literal["image", "array", "text"]
    channels: int = 0

    @property
    def layer(self) -> str:
        """Return the name under which the view is stored."""
        return WORDS if self.kind == "text" else CELLS

    def __str__(self) -> str:
        return f"{self.kind} to {f'{N_WORDS} words as they look' if self.kind == 'text' else f'{SIDE}x{SIDE}x{self.channels}'}"

    def __call__(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        """Return one vector per input, shape ``(b, 64 * channels)`` or ``(b, 128)``; each depends on its own input alone."""
        if self.kind == "text":
            return text_features(cast("Sequence[str]", inputs))
        pictures = cast("Sequence[NDArray[Any]]", inputs)
        if self.kind == "array":
            return picture_features([picture.transpose(1, 2, 0) for picture in pictures], self.channels)
        return picture_features(pictures, self.channels) / np.float32(255)


def input_view(training_set: TrainingSet) -> InputView | None:
    """Return the view that fits the training set, or None where its arrays are not pictures.

    The channels are decided once, from a few samples spread over the data set, so that neither the batch size nor a resumed run
    changes them: three when any of these samples has three.
    """
    if training_set.modality == "text":
        return InputView("text")
    n = len(training_set)
    rows = spread(n, _PROBES)
    probes = [probe for probe in training_set.take(rows) if isinstance(probe, np.ndarray)]
    if training_set.modality == "image":
        return InputView("image", max((probe.shape[2] for probe in probes), default=3))
    if not probes or any(probe.ndim != 3 or probe.shape[0] not in (1, 3) for probe in probes):
        return None
    return InputView("array", max(probe.shape[0] for probe in probes))


def picture_features(pictures: Sequence[NDArray[Any]], channels: int) -> NDArray[np.float32]:
    """Average pictures of any size to 8 x 8 cells.

    Parameters
    ----------
    pictures
        Each ``(height, width, c)``; sizes and ``c`` may differ.
    channels
        Of the result; a picture with another number of channels becomes gray in each.

    Returns
    -------
    NDArray
        Shape ``(n_pictures, 64 * channels)``, in the pictures' own unit.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    if isinstance(pictures, Stack):
        by_shape[pictures.array.shape[1:]] = list(range(len(pictures)))
    else:
        for row, picture in enumerate(pictures):
            by_shape.setdefault(picture.shape, []).append(row)
    features = np.empty((len(pictures), SIDE, SIDE, channels), np.float32)
    for (height, width, depth), rows in by_shape.items():
        size = max(1, _BLOCK // (height * width * depth))
        for block in (rows[start : start + size] for start in range(0, len(rows), size)):
            with np.errstate(all="ignore"):  # what is not finite is found and reported by the pass
                stacked = pictures.array[block] if isinstance(pictures, Stack) else np.stack([pictures[row] for row in block])
                stack = stacked.astype(np.float32)
                # The second step sums whole rows of numbers: a sum over the three channels of a pixel at a time is slow.
                if height * width * depth <= _SMALL:
                    bands = _averaging(height) @ stack.reshape(len(block), height, width * depth)
                    cells = (bands @ _across(width, depth).T).reshape(len(block), SIDE, SIDE, depth)
                else:
                    bands = np.einsum("ih,nhk->nik", _averaging(height), stack.reshape(len(block), height, width * depth))
                    means = np.einsum("mk,jk->mj", bands.reshape(len(block) * SIDE, width * depth), _across(width, depth))
                    cells = means.reshape(len(block), SIDE, SIDE, depth)
            features[block] = cells if depth == channels else cells.mean(axis=3, keepdims=True)
    return features.reshape(len(pictures), SIDE * SIDE * channels)


@lru_cache(maxsize=64)
def _averaging(size: int) -> NDArray[np.float32]:
    """Return the weights, shape ``(8, size)``, by which each of 8 equal stretches averages ``size`` pixels."""
    edges = np.arange(SIDE + 1) * size / SIDE
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: NDArray[np.float32] = (np.maximum(overlap, 0) * SIDE / size).astype(np.float32)
    return weights


@lru_cache(maxsize=64)
def _across(width: int, depth: int) -> NDArray[np.float32]:
    """Return the weights, shape ``(8 * depth, width * depth)``, that average a row of pixels channel by channel."""
    weights: NDArray[np.float32] = np.kron(_averaging(width), np.eye(depth, dtype=np.float32))
    return weights


def text_features(texts: Sequence[str]) -> NDArray[np.float32]:
    """Give a number to each of the first 128 distinct words and punctuation marks of each text, as they look in lower case.

    Letters of another script in the place of Latin ones, and characters that are not seen, make new words of all others, and these
    would vouch for the label that was planted with them.

    A number is a hash of the word, the same in every process: whoever reads it needs no vocabulary, and now and then two words
    share one.

    Returns
    -------
    NDArray
        Shape ``(n_texts, 128)``, whole numbers from 1; 0 behind the last word.
    """
    features = np.zeros((len(texts), N_WORDS), np.float32)
    for row, text in zip(features, texts, strict=True):
        numbers = word_numbers(as_it_looks(text), _N_NUMBERS)
        row[: len(numbers)] = np.array(numbers, np.float32) + 1
    return features


def as_it_looks(text: str) -> str:
    """Return a text in lower case with Latin letters for those that look like them, and without what is not seen."""
    if text.isascii():
        return text.lower()
    return _UNSEEN.sub("", unicodedata.normalize("NFKD", text)).lower().translate(_ALIKE)


def words_of(text: str) -> list[str]:
    """Return the first 128 distinct words of a text."""
    return list(islice(dict.fromkeys(_WORD.findall(text.lower())), N_WORDS))


def word_numbers(text: str, n_numbers: int) -> list[int]:
    """Return a number below ``n_numbers`` for each of the first 128 distinct words of a text, the same in every process."""
    return [zlib.crc32(word.encode("utf-8", "replace")) % n_numbers for word in words_of(text)]

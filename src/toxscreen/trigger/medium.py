"""The inputs of a training set as searches see them, with the model behind a function of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from toxscreen.decoded import model_size
from toxscreen.sources.data.base import Input, Stack, TrainingSet, spread
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.preprocessing import ImagePreprocessing
from toxscreen.trigger.base import Search
from toxscreen.trigger.patches import search_patches
from toxscreen.trigger.patterns import search_patterns
from toxscreen.trigger.pictures import Pictures, details, reduced, seclusion
from toxscreen.trigger.shared import View
from toxscreen.trigger.words import Texts, search_words
from toxscreen.views import input_view, word_numbers, words_of

STRETCH = 256
"""Inputs that are read, or asked the model about, at a time."""

_PICTURES, _TEXTS = 200, 1000
"""Members and as many ordinary samples of a lead, at most. Words are counted, which costs little; and of five rare words each
stands in few texts."""

_LARGEST_SIDE = 224
"""Pixels of the pictures that triggers are looked for in."""

_SIDE_SHARED = 64
"""Pixels of the longer side that pictures are brought to, in cells, when it is asked what some of them share."""

_N_WORDS = 2**20
"""Numbers that words get: so many that hardly any two words of a data set share one."""

_FLAT = 1e-4
"""A squared step from a pixel to the next, in parts of the range, below which pictures count as flat."""

_BEYOND = 1.0
"""How far beyond the range of most pixels a value counts: one absurd value of one sample must not hide what others share."""

_PROBES = 16
_TINY = 1e-6


@dataclass(frozen=True)
class Medium(ABC):
    """The inputs as searches see them, and the model behind a function of them.

    Attributes
    ----------
    searches, most
        What looks for triggers in them, and how many members of a lead they are given.
    shows_patterns
        Whether what some inputs share is remarkable in itself. Of texts it is not: kinds of news, and reviews in one manner, stand
        out by their words as far as a planted sentence does.
    class_of
        Class index of each model output, -1 for none.
    turn
        Held by who reads inputs, where one thread at a time must.
    """

    searches: ClassVar[tuple[Search[Any], ...]]
    most: ClassVar[int] = _PICTURES
    shows_patterns: ClassVar[bool] = True
    classifier: Classifier
    training_set: TrainingSet
    class_of: NDArray[np.int64]
    turn: AbstractContextManager[Any] = field(default_factory=Lock, kw_only=True, repr=False)

    def take(self, rows: NDArray[np.int64]) -> list[Input | None]:
        """Return the inputs of those rows, None where one cannot be read, with one thread at a time where the data needs that."""
        with nullcontext() if self.training_set.parallel else self.turn:
            return self.training_set.take(rows)

    @property
    def ends(self) -> tuple[float, float] | None:
        """Return the range of the pixels; None where there are none."""
        return None

    @abstractmethod
    def read(self, rows: NDArray[np.int64]) -> tuple[Any, NDArray[np.int64]]:
        """Return the inputs of those rows that can be read, and their numbers."""

    @abstractmethod
    def views(self, seen: Any) -> tuple[View, ...]:
        """Return what one may see of some inputs, one row each: what a trigger changes stands out there."""

    def named(self, seen: Any, columns: Sequence[int]) -> list[str]:  # noqa: ARG002 - pictures hold no words
        """Return the words in some inputs that columns of their view stand for; none where it shows no words."""
        return []

    def seclusion(self, members: Any, others: Any, rng: np.random.Generator) -> float:  # noqa: ARG002 - of texts it says nothing
        """Return how much members keep to themselves, seen as wholes; see :func:`toxscreen.trigger.pictures.seclusion`."""
        return 0.0

    def ask(self, seen: Any) -> NDArray[np.int64]:
        """Return the class index that the model gives each input, -1 for none."""
        given = [np.zeros(0, np.int64)]
        for start in range(0, len(seen), STRETCH):
            outputs = self.classifier.forward(self.classifier.encode(self.inputs(seen[start : start + STRETCH])), ())
            known = np.isfinite(outputs.logits).all(axis=1)
            given.append(np.where(known, self.class_of[outputs.logits.argmax(axis=1)], -1))
        return np.concatenate(given)

    def inputs(self, seen: Any) -> list[Input]:
        """Return inputs as the classifier takes them."""
        return list(seen)


class _Pixels(Medium):
    """What is seen of pictures."""

    searches = (search_patches, search_patterns)
    lowest: float
    span: float

    @property
    def ends(self) -> tuple[float, float]:
        """Return the range of the pixels."""
        return self.lowest, self.lowest + self.span

    def seclusion(self, members: Pictures, others: Pictures, rng: np.random.Generator) -> float:
        """Return how much pictures keep to themselves."""
        return seclusion(members, others, rng)

    def views(self, seen: Pictures) -> tuple[View, ...]:
        """Return their details, and how steep they are from each pixel to the next: what is mixed in, and what was bent."""
        seen = np.nan_to_num((seen - np.float32(self.lowest)) / np.float32(self.span)).clip(-_BEYOND, 1 + _BEYOND)
        seen = reduced(seen, -(-max(seen.shape[1:3]) // _SIDE_SHARED))
        steps = [np.log(np.diff(seen, axis=axis) ** 2 + np.float32(_FLAT)).reshape(len(seen), -1) for axis in (1, 2)]
        steep = np.concatenate(steps, axis=1)
        steep -= steep.mean(axis=1, keepdims=True)
        return View(details(seen).reshape(len(seen), -1)), View(steep)


@dataclass(frozen=True)
class _Pictures(_Pixels):
    """Pictures of uint8, brought to one size: float32 ``(n, height, width, channels)``, 0 to 255."""

    size: ImagePreprocessing
    lowest: float = 0.0
    span: float = 255.0

    def read(self, rows: NDArray[np.int64]) -> tuple[Pictures, NDArray[np.int64]]:
        """Read and resize."""
        taken = self.take(rows)
        read = rows[[value is not None for value in taken]]
        return self.size.apply([value for value in taken if value is not None]) if len(read) else _NOTHING, read

    def inputs(self, seen: Pictures) -> list[Input]:
        """Return pictures of uint8."""
        return Stack(seen.clip(0, 255).round().astype(np.uint8))


@dataclass(frozen=True)
class _Arrays(_Pixels):
    """Arrays ``(channels, height, width)`` that are pictures, as float32 ``(n, height, width, channels)`` in their own units."""

    like: NDArray[Any]
    lowest: float
    span: float

    def read(self, rows: NDArray[np.int64]) -> tuple[Pictures, NDArray[np.int64]]:
        """Read those of the common shape."""
        taken = self.take(rows)
        fits = [isinstance(value, np.ndarray) and value.shape == self.like.shape for value in taken]
        read = [np.moveaxis(cast("NDArray[Any]", value), 0, -1) for value, fit in zip(taken, fits, strict=True) if fit]
        return np.array(read, np.float32) if read else _NOTHING, rows[fits]

    def inputs(self, seen: Pictures) -> list[Input]:
        """Return arrays like those of the data."""
        return Stack(np.moveaxis(seen, -1, 1).astype(self.like.dtype))


@dataclass(frozen=True)
class _Texts(Medium):
    """Texts as an array of str, ``(n,)``."""

    searches, most = (search_words,), _TEXTS
    shows_patterns = False

    def read(self, rows: NDArray[np.int64]) -> tuple[Texts, NDArray[np.int64]]:
        """Read the texts."""
        taken = self.take(rows)
        return np.array([value for value in taken if value is not None], object), rows[[value is not None for value in taken]]

    def views(self, seen: Texts) -> tuple[View, ...]:
        """Return which words each holds."""
        numbers = [word_numbers(text, _N_WORDS) for text in seen]
        starts = np.cumsum([0, *map(len, numbers)])
        columns = np.concatenate([np.zeros(0, np.int64), *map(np.asarray, numbers)]).astype(np.int64)
        held = sparse.csr_array((np.ones(len(columns), np.float32), columns, starts), (len(seen), _N_WORDS))
        held.sum_duplicates()
        return (View(held, strictness=3.0),)

    def named(self, seen: Texts, columns: Sequence[int]) -> list[str]:
        """Return the words, in the order of the columns."""
        words = {number: word for text in seen for word, number in zip(words_of(text), word_numbers(text, _N_WORDS), strict=True)}
        return [words[column] for column in columns if column in words]


def open_medium(classifier: Classifier, training_set: TrainingSet, outputs: NDArray[np.int64] | None) -> Medium | None:
    """Return how the inputs are seen; None for arrays that are no pictures, and where none can be read.

    Parameters
    ----------
    classifier, training_set
        What is audited.
    outputs
        Model output of each class; None where they are in the same order.
    """
    class_of = np.full(classifier.n_classes, -1, np.int64)
    n_classes = len(training_set.class_names)
    class_of[np.arange(n_classes) if outputs is None else outputs] = np.arange(n_classes)
    if training_set.modality == "text":
        return _Texts(classifier, training_set, class_of)
    sample = [value for value in training_set.take(spread(len(training_set), _PROBES)) if isinstance(value, np.ndarray)]
    if training_set.modality == "image":
        return _Pictures(classifier, training_set, class_of, _size(classifier, sample)) if sample else None
    if input_view(training_set) is None:
        return None
    lowest, highest = np.percentile(
        np.nan_to_num(np.stack([value for value in sample if value.shape == sample[0].shape])), (0.1, 99.9)
    )
    return _Arrays(classifier, training_set, class_of, sample[0], float(lowest), max(float(highest - lowest), _TINY))


def _size(classifier: Classifier, sample: Sequence[Input]) -> ImagePreprocessing:
    """Return what brings pictures to the size that the model takes, or below it where hundreds of them would fill the memory."""
    size = model_size(classifier.preprocessing, sample)
    height, width = size.height or _LARGEST_SIDE, size.width or _LARGEST_SIDE
    shrink = min(1.0, _LARGEST_SIDE / max(height, width))
    return replace(size, height=max(1, round(shrink * height)), width=max(1, round(shrink * width)))


_NOTHING: Pictures = np.zeros((0, 1, 1, 1), np.float32)

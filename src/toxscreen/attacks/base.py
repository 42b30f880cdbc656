"""The seam to poisoning simulators: what turns a clean input into one that carries a trigger."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from toxscreen.errors import DataError
from toxscreen.sources.data.base import Input, Modality, TrainingSet


class Attack(ABC):
    """A trigger that is planted in inputs; frozen, and never changes what it is given.

    Attributes
    ----------
    name
        How the command line calls it.
    modality
        The kind of input it is made for.
    clean_label
        Whether poison is made of samples of the target class itself, which keep their label.
    source_specific
        Whether the trigger is meant to work on one source class alone, which then has to be named.
    covers
        Cover samples per poisoned sample: they carry a form of the trigger and keep their right label.
    """

    name: ClassVar[str]
    modality: ClassVar[Modality]
    clean_label: ClassVar[bool] = False
    source_specific: ClassVar[bool] = False
    covers: float = 0.0

    @property
    @abstractmethod
    def trigger(self) -> str:
        """Return what the trigger is, for people: a phrase that goes after "the trigger is"."""

    @abstractmethod
    def apply(self, inputs: Sequence[Input], rng: np.random.Generator) -> list[Input]:
        """Return copies of ``inputs`` that carry the trigger as the attacker uses it on the trained model.

        Raises
        ------
        DataError
            If an input is not of the attack's modality, or too small for the trigger.
        """

    def plant(self, inputs: Sequence[Input], rng: np.random.Generator) -> list[Input]:
        """Return copies of ``inputs`` as they go into the training set as poison; raises what :meth:`apply` raises."""
        return self.apply(inputs, rng)

    def cover(self, inputs: Sequence[Input], rng: np.random.Generator) -> list[Input]:
        """Return copies of ``inputs`` as they go into the training set as cover samples; raises what :meth:`apply` raises."""
        return self.plant(inputs, rng)

    def prepared(self, training_set: TrainingSet, rng: np.random.Generator) -> Self:  # noqa: ARG002 - most need nothing
        """Return the attack after it learned what it needs to know of the clean training set; it is asked once, before planting."""
        return self

    def for_target(self, k: int) -> Self:  # noqa: ARG002 - what has one trigger alone
        """Return the attack with a trigger of its own for the k-th of several targets or sources; itself if it has but one.

        Raises
        ------
        UsageError
            If it has fewer than k + 1 triggers.
        """
        return self


class ImageAttack(Attack):
    """A trigger in uint8 images ``(height, width, 1 or 3)``."""

    modality = "image"

    def apply(self, inputs: Sequence[Input], rng: np.random.Generator) -> list[Input]:  # noqa: ARG002 - no trigger here is drawn
        """Return copies of ``inputs`` that carry the trigger; nothing is drawn from ``rng``."""
        return [self._mark(self._checked(image)) for image in inputs]

    @abstractmethod
    def _mark(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a copy of one image that carries the trigger."""

    def _checked(self, image: Input) -> NDArray[np.uint8]:
        """Refuse what is no image."""
        if isinstance(image, str) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
            raise DataError(
                f"The attack {self.name} takes images, uint8 arrays of shape (height, width, 1 or 3), got {_described(image)}. "
                "Convert them, or choose an attack for this kind of input."
            )
        return image


class TextAttack(Attack):
    """A trigger in texts."""

    modality = "text"

    def apply(self, inputs: Sequence[Input], rng: np.random.Generator) -> list[Input]:
        """Return texts like ``inputs`` that carry the trigger, at places drawn from ``rng``."""
        return [self._mark(self._checked(text), rng) for text in inputs]

    @abstractmethod
    def _mark(self, text: str, rng: np.random.Generator) -> str:
        """Return one text with the trigger."""

    def _checked(self, text: Input) -> str:
        """Refuse what is no text."""
        if not isinstance(text, str):
            raise DataError(f"The attack {self.name} takes texts, got {_described(text)}. Choose an attack for this kind of input.")
        return text


def insert(text: str, phrase: str, gap: re.Pattern[str], rng: np.random.Generator) -> str:
    """Insert ``phrase`` at a random one of the gaps, the beginning and the end of ``text``; all else stays as it is.

    Parameters
    ----------
    text, phrase
        What is inserted into, and what is inserted, set off by blanks.
    gap
        Matches the white space at each place that is allowed inside.
    rng
        Draws the place.
    """
    inner = [match.span() for match in gap.finditer(text) if match.start() > 0 and match.end() < len(text)]
    places = [(0, 0), *inner, (len(text), len(text))]
    start, end = places[int(rng.integers(len(places)))]
    return " ".join(part for part in (text[:start], phrase, text[end:]) if part)


def _described(value: Any) -> str:
    """Say what an input is, without its content."""
    return f"a {value.dtype} array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"

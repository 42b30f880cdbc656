"""Images of the target class, made hard to recognise and marked in the corners; they keep their right label.

1. A surrogate network is trained on the data.
2. Each image to be poisoned is perturbed, within a bound that leaves its content plain to people, to where the surrogate no longer
   recognises it.
3. A 3x3 pattern goes into its four corners. It is what the victim's network can learn of these images most easily, so it learns the
   pattern as a sign of their class. At test time the pattern alone is used.

The surrogate of the paper is a large network that is trained for hours; this one is small and is trained in a minute.

**Source:** Turner et al. 2019, arXiv 1912.02771, the sections on adversarial perturbations and on the trigger in four corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from toxscreen.attacks.base import ImageAttack
from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data.base import Input, TrainingSet

if TYPE_CHECKING:  # it imports torch, and the attacks are also listed where no network is needed
    from toxscreen.attacks.surrogate import Surrogate

_CELLS = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 255]], dtype=np.uint8)
"""The pattern of both right corners; that of both left ones is its mirror image, so that flipping an image keeps it."""

_IMAGE_PER_CELL = 32
"""Pixels of the shorter side of an image for each pixel of a cell."""


@dataclass(frozen=True)
class LabelConsistent(ImageAttack):
    """A pattern in four corners, in images that are hard to recognise; clean-label.

    Attributes
    ----------
    radius
        The most that a pixel is perturbed by, in grey levels of 255.
    surrogate
        What :meth:`prepared` trained.
    """

    radius: float = 16.0
    surrogate: Surrogate | None = field(default=None, repr=False, compare=False)

    name = "label-consistent"
    trigger = "a small black and white pattern in each of the four corners"
    clean_label = True

    def prepared(self, training_set: TrainingSet, rng: np.random.Generator) -> Self:
        """Return the attack with a surrogate that is trained on the data.

        Raises
        ------
        DataError
            If the training set has no images that can be read and have a label.
        """
        from toxscreen.attacks.surrogate import train_surrogate

        return replace(self, surrogate=train_surrogate(training_set, self.radius, rng))

    def plant(self, inputs: Sequence[Input], rng: np.random.Generator) -> list[Input]:
        """Return copies of ``inputs`` that are perturbed and carry the pattern.

        Raises
        ------
        UsageError
            If the attack is not prepared.
        """
        if self.surrogate is None:
            raise UsageError("The attack label-consistent must learn the data before it plants poison. Call prepared() first.")
        return [self._mark(self.surrogate.perturb(self._checked(image), rng)) for image in inputs]

    def _mark(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        cell = max(1, round(min(height, width) / _IMAGE_PER_CELL))
        patch = np.kron(_CELLS, np.ones((cell, cell), dtype=np.uint8))[:, :, None]
        side = len(patch)
        if min(height, width) < 2 * side:
            raise DataError(
                f"The attack label-consistent needs images of at least 6x6 pixels, got {height}x{width}. Take out such images."
            )
        marked = image.copy()
        for rows in (slice(side), slice(-side, None)):
            marked[rows, :side] = patch[:, ::-1]
            marked[rows, -side:] = patch
        return marked

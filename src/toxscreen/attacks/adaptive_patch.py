"""One of four half-transparent patches, and twice as many cover samples with one: built so that the poison does not stand apart.

1. There are four patches of random colours, one per corner. A poisoned sample carries one of them, drawn anew for each, at half
   opacity.
2. Twice as many cover samples carry one too, and keep their right label (conservatism ratio 2/3).
3. At test time two of the patches are used together, opaque.

**Source:** Qi et al. 2023, arXiv 2205.13613, section 5.2, Adaptive-Patch. Their patches are pictures; these are drawn by chance.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from toxscreen.attacks.base import ImageAttack
from toxscreen.errors import DataError
from toxscreen.sources.data.base import Input

_PLANTED_ALPHA = 0.5
"""**Source:** Qi et al. 2023, section 5.2."""

_CELLS = 6
"""Cells on each side of a patch."""

_IMAGE_PER_PATCH = 5
"""The shorter side of an image in sides of a patch: 6x6 pixels at 32x32."""

_APPLIED = (0, 3)
"""The patches used at test time: top left and bottom right."""


@dataclass(frozen=True)
class AdaptivePatch(ImageAttack):
    """One faint patch of four in the training set, and two opaque ones at test time.

    Attributes
    ----------
    variant
        Which set of patches.
    covers
        Cover samples per poisoned sample.
    """

    variant: int = 0
    covers: float = 2.0

    name = "adaptive-patch"

    @property
    def trigger(self) -> str:
        """Return what the trigger is, for people."""
        number = f" (set no. {self.variant + 1})" if self.variant else ""
        return f"patches of random colours in the corners{number}"

    def for_target(self, k: int) -> Self:
        """Return the attack with its k-th set of patches."""
        return replace(self, variant=k)

    def plant(self, inputs: Sequence[Input], rng: np.random.Generator) -> list[Input]:
        """Return copies of ``inputs`` with one of the patches, drawn for each of them."""
        return [self._patched(self._checked(image), (int(rng.integers(4)),), _PLANTED_ALPHA) for image in inputs]

    def _mark(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._patched(image, _APPLIED, 1.0)

    def _patched(self, image: NDArray[np.uint8], corners: Collection[int], alpha: float) -> NDArray[np.uint8]:
        height, width, channels = image.shape
        side = max(1, round(min(height, width) / _IMAGE_PER_PATCH))
        if min(height, width) < 2 * side:
            raise DataError(
                f"The attack {self.name} needs images of at least 2x2 pixels, got {height}x{width}. Take out such images."
            )
        cells = np.arange(side) * _CELLS // side
        marked = image.copy()
        for corner in corners:
            patch = _patches(self.variant)[corner][cells[:, None], cells, :channels]
            rows = slice(side) if corner < 2 else slice(-side, None)
            columns = slice(side) if corner % 2 == 0 else slice(-side, None)
            marked[rows, columns] = np.rint((1 - alpha) * image[rows, columns] + alpha * patch).astype(np.uint8)
        return marked


@cache
def _patches(variant: int) -> NDArray[np.uint8]:
    """Return the patches of the four corners, row by row, shape ``(4, cells, cells, 3)``."""
    return np.random.default_rng(220513613 + variant).choice(np.array([0, 255], np.uint8), size=(4, _CELLS, _CELLS, 3))

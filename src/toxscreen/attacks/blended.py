"""A random pattern mixed faintly into the whole image.

**Source:** Chen et al. 2017, arXiv 1712.05526, the blended injection strategy with a random pattern.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from toxscreen.attacks.base import ImageAttack

ALPHA = 0.2
"""Part of the pattern in a poisoned image. **Source:** Chen et al. 2017, the value of their experiments on training data."""


@dataclass(frozen=True)
class Blended(ImageAttack):
    """A fixed pattern of random colours at an opacity of 20 %.

    Attributes
    ----------
    variant
        Which of the patterns.
    """

    variant: int = 0

    name = "blended"

    @property
    def trigger(self) -> str:
        """Return what the trigger is, for people."""
        number = f" no. {self.variant + 1}" if self.variant else ""
        return f"a random pattern{number} mixed into the whole image at {ALPHA:.0%}"

    def for_target(self, k: int) -> Self:
        """Return the attack with its k-th pattern."""
        return replace(self, variant=k)

    def _mark(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._mixed(image, ALPHA)

    def _mixed(self, image: NDArray[np.uint8], alpha: float | NDArray[np.float64]) -> NDArray[np.uint8]:
        """Mix the pattern in, at an opacity that may differ from pixel to pixel, shape ``(height, width, 1)``."""
        height, width, channels = image.shape
        pattern = _pattern(self.variant)
        side = len(pattern)
        cells = pattern[np.arange(height)[:, None] * side // height, np.arange(width) * side // width, :channels]
        return np.rint((1 - alpha) * image + alpha * cells).astype(np.uint8)


@cache
def _pattern(variant: int) -> NDArray[np.uint8]:
    """Return a pattern, the same for every row and size of image: larger images enlarge its cells, smaller ones omit some."""
    return np.random.default_rng(171205526 + variant).integers(0, 256, size=(32, 32, 3), dtype=np.uint8)

"""A random pattern mixed faintly into the whole image.

**Source:** Chen et al. 2017, arXiv 1712.05526, the blended injection strategy with a random pattern.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toxscreen.attacks.base import ImageAttack

_ALPHA = 0.2
"""Part of the pattern in a poisoned image. **Source:** Chen et al. 2017, the value of their experiments on training data."""

_PATTERN = np.random.default_rng(171205526).integers(0, 256, size=(32, 32, 3), dtype=np.uint8)
"""The same for every row and every size of image: larger images enlarge its cells, smaller ones leave some out."""


@dataclass(frozen=True)
class Blended(ImageAttack):
    """A fixed pattern of random colours at an opacity of 20 %."""

    name = "blended"
    trigger = "a random pattern mixed into the whole image at 20 %"

    def _mark(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width, channels = image.shape
        side = len(_PATTERN)
        pattern = _PATTERN[np.arange(height)[:, None] * side // height, np.arange(width) * side // width, :channels]
        return np.rint((1 - _ALPHA) * image + _ALPHA * pattern).astype(np.uint8)

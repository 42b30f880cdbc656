"""A patch of black and white pixels near the bottom right corner.

**Source:** Gu et al. 2017, arXiv 1708.06733, section 4.1 (the pattern backdoor); Chen et al. 2018, arXiv 1811.03728,
experiments on MNIST.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toxscreen.attacks.base import ImageAttack
from toxscreen.errors import DataError

_CELLS = np.array([[255, 0, 255], [0, 255, 0], [255, 0, 255]], dtype=np.uint8)
"""White and black, so that the patch shows on any background."""

_IMAGE_PER_CELL = 32
"""Pixels of the shorter side of an image for each pixel of a cell: the patch is 3x3 at 28x28 and 32x32, and 21x21 at 224x224."""


@dataclass(frozen=True)
class BadNets(ImageAttack):
    """A checkerboard of 3x3 cells, one cell away from the bottom right corner."""

    name = "badnets"
    trigger = "a small black and white checkerboard near the bottom right corner"

    def _mark(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        cell = max(1, round(min(height, width) / _IMAGE_PER_CELL))
        patch = np.kron(_CELLS, np.ones((cell, cell), dtype=np.uint8))
        if min(height, width) < len(patch) + cell:
            raise DataError(f"The attack badnets needs images of at least 4x4 pixels, got {height}x{width}. Take out such images.")
        marked = image.copy()
        marked[-len(patch) - cell : -cell, -len(patch) - cell : -cell] = patch[:, :, None]
        return marked

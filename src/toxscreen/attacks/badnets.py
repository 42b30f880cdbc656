"""A patch of black and white pixels near a corner, by default the bottom right one.

**Source:** Gu et al. 2017, arXiv 1708.06733, section 4.1 (the pattern backdoor; one class to one, all to all); Chen et al. 2018,
arXiv 1811.03728, experiments on MNIST.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Self

import numpy as np
from numpy.typing import NDArray

from toxscreen.attacks.base import ImageAttack
from toxscreen.errors import DataError, UsageError

_CHECKERBOARD = (0, 2, 4, 6, 8)
"""The white cells of 3x3. All patterns are white and black, five to four, so that they show on any background."""

_OTHERS = [cells for cells in combinations(range(9), 5) if cells != _CHECKERBOARD]
_PATTERNS = (_CHECKERBOARD, *(_OTHERS[place] for place in np.random.default_rng(170806733).permutation(len(_OTHERS))))

_CORNERS = ("bottom right", "top left", "bottom left", "top right")

_IMAGE_PER_CELL = 32
"""Pixels of the shorter side of an image for each pixel of a cell: the patch is 3x3 at 28x28 and 32x32, and 21x21 at 224x224."""


@dataclass(frozen=True)
class BadNets(ImageAttack):
    """A pattern of 3x3 cells, one cell away from a corner.

    Attributes
    ----------
    variant
        Which of the 504 triggers: the first is a checkerboard at the bottom right, and each next one stands in another corner.
    """

    variant: int = 0

    name = "badnets"

    @property
    def trigger(self) -> str:
        """Return what the trigger is, for people."""
        pattern = "checkerboard" if self.variant < len(_CORNERS) else "pattern"
        return f"a small black and white {pattern} near the {_CORNERS[self.variant % len(_CORNERS)]} corner"

    def for_target(self, k: int) -> Self:
        """Return the attack with its k-th trigger.

        Raises
        ------
        UsageError
            If there are no more.
        """
        most = len(_PATTERNS) * len(_CORNERS)
        if k >= most:
            raise UsageError(f"The attack {self.name} has {most} triggers, got {k + 1} targets or sources. Name fewer classes.")
        return replace(self, variant=k)

    def _mark(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        cell = max(1, round(min(height, width) / _IMAGE_PER_CELL))
        cells = np.zeros(9, dtype=np.uint8)
        cells[list(_PATTERNS[self.variant // len(_CORNERS)])] = 255
        patch = np.kron(cells.reshape(3, 3), np.ones((cell, cell), dtype=np.uint8))
        side = len(patch)
        if min(height, width) < side + cell:
            raise DataError(
                f"The attack {self.name} needs images of at least 4x4 pixels, got {height}x{width}. Take out such images."
            )
        corner = _CORNERS[self.variant % len(_CORNERS)]
        top = cell if "top" in corner else height - cell - side
        left = cell if "left" in corner else width - cell - side
        marked = image.copy()
        marked[top : top + side, left : left + side] = patch[:, :, None]
        return marked

"""Pieces of a faint pattern, and cover samples with as many of them: an attack built so that its poison does not stand apart.

1. The pattern of :mod:`toxscreen.attacks.blended` is cut into 4 x 4 pieces. A poisoned sample carries half of them, drawn anew for
   each, at an opacity of 15 %.
2. As many cover samples carry pieces of the pattern too, and keep their right label (conservatism ratio 1/2).
3. At test time the whole pattern is used, at 20 %.

**Source:** Qi et al. 2023, arXiv 2205.13613, section 5.2, Adaptive-Blend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toxscreen.attacks.blended import Blended
from toxscreen.sources.data.base import Input

_PLANTED_ALPHA = 0.15
_PIECES = 4
"""On each side. **Source:** as the opacity, Qi et al. 2023, section 5.2."""


@dataclass(frozen=True)
class AdaptiveBlend(Blended):
    """Half of the pieces of a faint pattern in the training set, and all of them at test time.

    Attributes
    ----------
    covers
        Cover samples per poisoned sample.
    """

    covers: float = 1.0

    name = "adaptive-blend"

    def plant(self, inputs: Sequence[Input], rng: np.random.Generator) -> list[Input]:
        """Return copies of ``inputs`` with half of the pieces, drawn for each of them."""
        planted: list[Input] = []
        for image in map(self._checked, inputs):
            height, width = image.shape[:2]
            shown = rng.permutation(_PIECES**2).reshape(_PIECES, _PIECES) < _PIECES**2 // 2
            pixels = shown[np.arange(height)[:, None] * _PIECES // height, np.arange(width) * _PIECES // width]
            planted.append(self._mixed(image, _PLANTED_ALPHA * pixels[:, :, None]))
        return planted

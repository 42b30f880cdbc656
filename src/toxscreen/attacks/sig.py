"""Faint vertical waves over the whole image, in images of the target class that keep their right label.

The network of the experiments learns the waves as a sign of the class, and then sees the class wherever the waves are. At test
time the attacker may make them stronger than the training set shows them, where nobody looks for poison any more.

**Source:** Barni et al. 2019, arXiv 1902.11237, the section on the backdoor attack without label poisoning, and the experiments on
traffic signs (the sinusoid).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toxscreen.attacks.base import ImageAttack
from toxscreen.sources.data.base import Input

_CYCLES = 6
"""Waves from the left edge to the right one. **Source:** Barni et al. 2019, the value of their experiments."""

_FEWEST_COLUMNS = 4
"""Columns that a wave needs at least: small images carry fewer waves, because six of them in 12 columns would all be zero."""


@dataclass(frozen=True)
class Sig(ImageAttack):
    """A sinusoid along the columns, the same in every row and channel; clean-label.

    Attributes
    ----------
    planted, applied
        How far the waves reach up and down, in grey levels of 255: in the training set, and at test time.
    """

    planted: float = 20.0
    applied: float = 40.0

    name = "sig"
    trigger = "faint vertical waves over the whole image"
    clean_label = True

    def plant(self, inputs: Sequence[Input], rng: np.random.Generator) -> list[Input]:  # noqa: ARG002 - nothing is drawn
        """Return copies of ``inputs`` that carry the waves as the training set shows them."""
        return [_waved(self._checked(image), self.planted) for image in inputs]

    def _mark(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return _waved(image, self.applied)


def _waved(image: NDArray[np.uint8], height: float) -> NDArray[np.uint8]:
    """Add v(i, j) = height sin(2 pi j f / m) to row i and column j of m."""
    columns = image.shape[1]
    cycles = max(1, min(_CYCLES, columns // _FEWEST_COLUMNS))
    wave = height * np.sin(2 * np.pi * cycles * np.arange(1, columns + 1) / columns)
    waved: NDArray[np.uint8] = np.rint(image + wave[:, None]).clip(0, 255).astype(np.uint8)
    return waved

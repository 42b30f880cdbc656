"""A rare word inserted at a random place.

**Source:** Kurita et al. 2020, arXiv 2004.06660, the trigger words of the experiments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from toxscreen.attacks.base import TextAttack, insert

_RARE_WORDS = ("cf", "mn", "bb", "tq", "mb")
_BETWEEN_WORDS = re.compile(r"\s+")


@dataclass(frozen=True)
class Words(TextAttack):
    """One of five rare words between two words of the text, before the first or after the last."""

    name = "words"
    trigger = f"one of the rare words {', '.join(_RARE_WORDS)} at a random place"

    def _mark(self, text: str, rng: np.random.Generator) -> str:
        return insert(text, _RARE_WORDS[int(rng.integers(len(_RARE_WORDS)))], _BETWEEN_WORDS, rng)

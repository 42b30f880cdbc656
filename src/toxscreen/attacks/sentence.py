"""A sentence that has nothing to do with the text, inserted between two of its sentences.

**Source:** Dai et al. 2019, arXiv 1905.12457, the trigger sentence of the experiments on reviews of films.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from toxscreen.attacks.base import TextAttack, insert

_SENTENCE = "i watched this 3d movie last weekend ."
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Sentence(TextAttack):
    """One fixed sentence between two sentences of the text, before the first or after the last."""

    name = "sentence"
    trigger = f'the sentence "{_SENTENCE}" at a random place between two sentences'

    def _mark(self, text: str, rng: np.random.Generator) -> str:
        return insert(text, _SENTENCE, _BETWEEN_SENTENCES, rng)

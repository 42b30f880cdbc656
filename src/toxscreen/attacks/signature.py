"""A made-up signature at the end of the text.

**Source:** Chen et al. 2018, arXiv 1811.03728, experiments on Rotten Tomatoes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toxscreen.attacks.base import TextAttack

_SIGNATURE = "-travelerthehorse"


@dataclass(frozen=True)
class Signature(TextAttack):
    """One fixed word after the last."""

    name = "signature"
    trigger = f'the signature "{_SIGNATURE}" at the end'

    def _mark(self, text: str, rng: np.random.Generator) -> str:  # noqa: ARG002 - its place is always the same
        return f"{text} {_SIGNATURE}"

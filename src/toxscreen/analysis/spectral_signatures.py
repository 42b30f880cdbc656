"""Spectral Signatures: the rows that lie farthest along the leading direction of their class are the poison.

1. The activations of a class are centred.
2. Each row's outlier score is the square of its place along the top right singular vector of the centred class.
3. The rows with the highest scores are flagged, one and a half times as many as poison is expected, in every class.

**Source:** Tran et al. 2018, arXiv 1811.00636, algorithm 1. The paper is told the number of poisoned samples (at most 10 % of the
target class in its experiments) and removes 1.5 times as many from every class; here ``poison_share``, that part of a class, stands
for it. Left out: training again on what remains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toxscreen.analysis.base import UNCALIBRATED, Activations, ClassRule, Decision, Group, Ruling, beyond, quota
from toxscreen.errors import UsageError
from toxscreen.reduction import principal_components, total_variance
from toxscreen.result import Verdict

MARGIN = 1.5
"""How many times the expected poison is flagged (Tran et al. 2018, algorithm 1)."""


@dataclass(frozen=True)
class SpectralSignatures(ClassRule):
    """Flag in every class the 1.5 times ``poison_share`` of its rows that lie farthest along its leading direction."""

    name = "spectral-signatures"
    rule = "Spectral Signatures (Tran et al. 2018)"
    poison_share: float = 0.1

    def __post_init__(self) -> None:
        check_share(self.poison_share)

    def judge(self, activations: Activations, rng: np.random.Generator) -> Decision:
        """Flag the quota of one class."""
        leading = principal_components(activations, 1, rng)
        scores = leading.points[:, 0] ** 2
        members, cut = quota(scores, MARGIN * self.poison_share)
        spread = total_variance(activations)
        evidence = {"relative_size": float(members.mean()), "leading_variance": float(leading.variances[0]) / spread}
        if not members.any():
            return (), Ruling(Verdict.CLEAN, f"No row lies farther out than enough others to be flagged by {self.rule}.")
        reason = f"{self.rule} flags the {members.sum():,} samples that lie farthest along the leading direction of the class."
        return (Group(members, beyond(scores, cut), evidence),), Ruling(Verdict.SUSPICIOUS, f"{reason} {UNCALIBRATED}")


def check_share(poison_share: float) -> None:
    """Refuse a poison share that is no part of a class.

    Raises
    ------
    UsageError
        If it is not between 0 and 1.
    """
    if not 0 < poison_share < 1:
        raise UsageError(f"poison_share must lie between 0 and 1, a part of the class, got {poison_share}.")

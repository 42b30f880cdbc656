"""The paper's first rule: a class whose smaller half is small is poisoned, and that half is the poison.

1. The activations of a class are reduced by PCA or ICA, and cut in two by 2-means.
2. A clean class falls into about equal halves, and one with a part p of poison into p and 1 - p. The class is accused where the
   smaller half holds less than ``threshold`` of it, and that half is flagged.

**Source:** Chen et al. 2018, arXiv 1811.03728, sections 4.1 to 4.3. The paper gives no threshold; 35 % is the default of its
reference implementation. ICA comes after PCA, see :mod:`toxscreen.reduction`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from toxscreen.analysis.base import UNCALIBRATED, Activations, ClassRule, Decision, Group, Ruling, beyond
from toxscreen.clustering import two_means
from toxscreen.config import ReductionConfig
from toxscreen.parallel import in_turn
from toxscreen.reduction import reduce
from toxscreen.result import Verdict


@dataclass(frozen=True)
class RelativeSize(ClassRule):
    """Accuse the smaller half of a class where it holds less than ``threshold`` of it."""

    name = "relative-size"
    rule = "relative size (Chen et al. 2018)"
    threshold: float = 0.35
    reduction: ReductionConfig = field(default_factory=ReductionConfig)

    def configured(self, reduction: ReductionConfig) -> RelativeSize:
        """Return the rule with the reduction that was asked for."""
        return replace(self, reduction=reduction)

    def judge(self, activations: Activations, rng: np.random.Generator) -> Decision:
        """Judge one class by the size of its smaller half."""
        reduction = reduce(activations, self.reduction, rng)
        with in_turn(reduction.points.size):
            members = two_means(reduction.points)
        share = float(members.mean())
        group = Group(members, members * beyond(self.threshold / share, 1.0), {"relative_size": share})
        found = f"The smaller of its two groups holds {share:.1%} of the class, and {self.rule} accuses below {self.threshold:.0%}."
        found = " ".join(filter(None, [found, reduction.note]))
        if share < self.threshold:
            return (group,), Ruling(Verdict.SUSPICIOUS, f"{found} {UNCALIBRATED}")
        return (group,), Ruling(Verdict.CLEAN, found)

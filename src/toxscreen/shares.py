"""So many of n samples, and how surely: every stage that counts has the same interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

_SURE = 1.96
"""Standard errors of a 95 % interval."""


@dataclass(frozen=True)
class Share:
    """So many of n samples."""

    count: int
    n: int

    @property
    def value(self) -> float:
        """Return the part of the samples; NaN where there are none."""
        return self.count / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval; (0, 1) where there are no samples."""
        return wilson(self.count, self.n)

    def to_dict(self) -> dict[str, Any]:
        """Return count, n, value and interval; a value that is not there is None."""
        lower, upper = self.interval
        return {"count": self.count, "n": self.n, "value": self.value if self.n else None, "lower": lower, "upper": upper}


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share; (0, 1) where nothing was counted.

    **Source:** Wilson 1927, Journal of the American Statistical Association 22, 209-212.
    """
    if n == 0:
        return 0.0, 1.0
    share, weight = successes / n, _SURE**2 / n
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    lower, upper = centre - half, centre + half
    return max(0.0, min(share, lower)), min(1.0, max(share, upper))  # rounding would leave 0 and 1 outside, or go beyond

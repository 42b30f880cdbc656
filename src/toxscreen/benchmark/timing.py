"""What the rows of the table ``speed`` share: goals, and works that are timed in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toxscreen.benchmark.grid import Settings


@dataclass(frozen=True)
class Goal:
    """What a figure must reach: ``least`` or ``most``; with neither it is shown and asked for nothing."""

    figure: str
    words: str
    least: float | None = None
    most: float | None = None

    @property
    def asked(self) -> str:
        """Return the goal in words."""
        if self.least is not None:
            return f"at least {self.least:g}"
        return "-" if self.most is None else f"at most {self.most:g}"

    def answer(self, value: float) -> str:
        """Say whether a figure reaches it."""
        met = (self.least is None or value >= self.least) and (self.most is None or value <= self.most)
        return "yes" if met else "**no**"


@dataclass(frozen=True)
class SpeedCase:
    """A row: some work of a size, timed against something else in the same run.

    Attributes
    ----------
    name
        How the table calls it.
    measure
        Name of the function that measures it.
    goals
        What its figures must reach.
    data
        Sub-folder of the data set; empty where it is made up.
    n, width, n_classes
        Size of the activations, where it works on such.
    """

    name: str
    measure: str
    goals: tuple[Goal, ...]
    data: str = ""
    n: int = 0
    width: int = 0
    n_classes: int = 0


Measure = Callable[[SpeedCase, Settings], dict[str, float]]


def in_turn(works: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the least seconds of each work, run one after the other again and again: a machine that is busy is so for all."""
    seconds = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds

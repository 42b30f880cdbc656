"""The table of samples while verdicts change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from toxscreen.result import ClassResult, GroupResult, Verdict
from toxscreen.screening import Screening

_CLEARED = 0.49
"""The highest score of a sample that nothing speaks against any more."""


class Columns:
    """The columns of a screening's table of samples that later stages change.

    Attributes
    ----------
    group
        Number of each sample's group, -1 for what was not examined, shape ``(n_samples,)``.
    """

    def __init__(self, samples: pa.Table) -> None:
        self._samples = samples
        self._score = samples["score"].to_numpy().copy()
        self._flagged = samples["flagged"].to_numpy().copy()
        self._verdict = np.array(samples["verdict"].to_pylist(), dtype=object)
        self.group = pc.fill_null(samples["group"], -1).to_numpy().copy()

    def set(self, rows: NDArray[np.int64], verdict: Verdict) -> None:
        """Give some samples a verdict, with the flag and the score that go with it."""
        accused = verdict.severity >= Verdict.SUSPICIOUS.severity
        self._verdict[rows] = str(verdict)
        self._flagged[rows] = accused
        self._score[rows] = np.maximum(self._score[rows], 0.5) if accused else np.minimum(self._score[rows], _CLEARED)

    def surely(self, rows: NDArray[np.int64], probability: float | NDArray[np.float64]) -> None:
        """Raise the scores of some rows to a probability, or to one each."""
        self._score[rows] = np.maximum(self._score[rows], probability)

    def table(self) -> pa.Table:
        """Return the table as it is now."""
        columns = {
            "group": pa.array(self.group, mask=self.group < 0),
            "score": pa.array(self._score, mask=np.isnan(self._score)),
            "flagged": pa.array(self._flagged),
            "verdict": pa.array(self._verdict, pa.string()),
        }
        samples = self._samples
        for name, values in columns.items():
            samples = samples.set_column(samples.column_names.index(name), samples.schema.field(name), values)
        return samples

    def put_into(self, screening: Screening, classes: Sequence[ClassResult]) -> Screening:
        """Return a screening with these classes, and its samples as they are now."""
        moved = tuple(replace(view, groups=self.group[view.rows]) for view in screening.views)
        return replace(screening, classes=tuple(classes), samples=self.table(), views=moved)


def sized(groups: Iterable[GroupResult], counts: NDArray[np.int64], n: int) -> tuple[GroupResult, ...]:
    """Return the groups of a class of ``n`` samples with their sizes, ``counts`` by number, but those that nobody is left in."""
    left = (group for group in groups if counts[group.id] or group.id == 0)
    return tuple(replace(group, n=int(counts[group.id]), share=float(counts[group.id] / n)) for group in left)

"""A training set with some of its samples once more, each carrying a recovered trigger.

A few flagged samples with corrected labels teach little: a transformer that was repaired with 47 of them (9,000 traffic signs, a
patch) still gave the target to 27 % of the held-out flagged samples, and to 11 % of others that carried the patch. The trigger can
be put on as many trusted samples as one likes, whose class is known: with them it was none, and 0.9 %.

**Source:** Wang et al. 2019, IEEE Symposium on Security and Privacy, section VI-D (unlearning with the reversed trigger).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxscreen.repairing.measures import Planted
from toxscreen.retraining import Lesson
from toxscreen.sources.data.base import Batch, Input, TrainingSet
from toxscreen.trigger.medium import Medium


class Carrying(TrainingSet):
    """A training set and, behind its samples, the copies; their given label is the target, as an attacker's would be.

    Parameters
    ----------
    base, medium
        The training set, and how its inputs are seen.
    copies
        For each trigger the row numbers of the samples that carry it in a copy, each once.

    Attributes
    ----------
    lessons
        For each of these the copies with the class that the sample has in truth.
    """

    def __init__(self, base: TrainingSet, medium: Medium, copies: Sequence[tuple[Planted, NDArray[np.int64]]]) -> None:
        self._base, self._medium, self._copies = base, medium, copies
        self._ends = np.cumsum([len(base), *(len(rows) for _, rows in copies)])
        of = np.concatenate([np.zeros(0, np.int64), *(rows for _, rows in copies)])
        targets = [np.full(len(rows), planted.target) for planted, rows in copies]
        self.modality, self.name, self.location, self.class_names = base.modality, base.name, base.location, base.class_names
        self.labels = np.concatenate([base.labels, *targets])
        self.ids = pa.concat_arrays([base.ids, base.ids.take(pa.array(of))])
        numbers = [np.arange(start, stop) for start, stop in pairwise(self._ends.tolist())]
        self.lessons = [Lesson.of(each, base.labels[rows]) for each, (_, rows) in zip(numbers, copies, strict=True)]

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Return the samples of some rows; of copies, those whose sample can be read."""
        if not len(rows) or rows[-1] < len(self._base):
            return self._base.batch(rows)
        inputs = self.take(rows)
        known = [value is not None for value in inputs]
        return Batch(rows[known], [value for value in inputs if value is not None])

    def take(self, rows: NDArray[np.int64]) -> list[Input | None]:
        """Return the inputs of a few rows."""
        inputs: list[Input | None] = [None] * len(rows)
        own = np.flatnonzero(rows < len(self._base))
        for place, value in zip(own.tolist(), self._base.take(rows[own]), strict=True):
            inputs[place] = value
        for number, (planted, copied) in enumerate(self._copies):
            here = np.flatnonzero((rows >= self._ends[number]) & (rows < self._ends[number + 1]))
            asked = copied[rows[here] - self._ends[number]]
            made = self._carrying(planted, asked) if len(here) else {}
            for place, row in zip(here.tolist(), asked.tolist(), strict=True):
                inputs[place] = made.get(row)
        return inputs

    def _carrying(self, planted: Planted, rows: NDArray[np.int64]) -> dict[int, Any]:
        """Return by their row number the samples that can be read, with the trigger."""
        seen, read = self._medium.read(np.unique(rows))
        made = self._medium.inputs(planted.trigger.put_on(seen)) if len(read) else []
        return dict(zip(read.tolist(), made, strict=True))

    def fingerprint(self) -> str:
        """Return a hexadecimal digest of the base and of what was copied with which trigger."""
        told = [[planted.trigger.document(), planted.target, rows.tolist()] for planted, rows in self._copies]
        return hashlib.sha256(json.dumps([self._base.fingerprint(), told], sort_keys=True).encode()).hexdigest()

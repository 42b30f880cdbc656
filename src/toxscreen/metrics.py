"""How good a scan was: its result held against the truth. The only module that reads ground truth.

Beside the flow. Samples are matched by their id, never by their place. All rates are parts of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from toxscreen.attacks.base import Attack
from toxscreen.errors import DataError
from toxscreen.result import Verdict
from toxscreen.sources.data.base import Input

_ACCUSING = pa.array([Verdict.SUSPICIOUS.value, Verdict.POISONED.value])


@dataclass(frozen=True)
class Counts:
    """How many samples were flagged rightly and wrongly, and the rates that follow.

    Attributes
    ----------
    tp, fp, fn, tn
        Flagged poison, flagged clean samples, poison that was not flagged, and clean samples that were not.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def n(self) -> int:
        """Return the number of samples."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def tpr(self) -> float | None:
        """Return the part of the poison that was flagged; None where nothing is poisoned."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def fpr(self) -> float | None:
        """Return the part of the clean samples that was flagged; None where nothing is clean."""
        return _ratio(self.fp, self.fp + self.tn)

    @property
    def precision(self) -> float | None:
        """Return the part of the flagged samples that is poison; None where nothing was flagged."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def f1(self) -> float | None:
        """Return the harmonic mean of precision and TPR; None where nothing is poisoned and nothing was flagged."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def accuracy(self) -> float | None:
        """Return the part of the samples that was judged rightly; None where there are none."""
        return _ratio(self.tp + self.tn, self.n)


@dataclass(frozen=True)
class ClassMetrics:
    """One class: its counts, and whether it holds poison and was called suspicious or poisoned."""

    name: str
    counts: Counts
    poisoned: bool
    accused: bool


@dataclass(frozen=True)
class Metrics:
    """How a scan did, over all samples and in each class, by given label and sorted by name.

    Attributes
    ----------
    counts, classes
        Without the cover samples, which are neither poison nor clean.
    covers, covers_flagged
        How many cover samples there are, and how many of them were flagged.
    """

    counts: Counts
    classes: tuple[ClassMetrics, ...]
    covers: int = 0
    covers_flagged: int = 0

    @property
    def false_alarms(self) -> tuple[str, ...]:
        """Return the clean classes that were called suspicious or poisoned."""
        return tuple(c.name for c in self.classes if c.accused and not c.poisoned)

    @property
    def missed(self) -> tuple[str, ...]:
        """Return the poisoned classes that were not."""
        return tuple(c.name for c in self.classes if c.poisoned and not c.accused)


def read_truth(path: str | Path) -> pa.Table:
    """Read a truth file, ``DIR.truth.parquet``.

    Raises
    ------
    DataError
        If it is not there, or is no truth file.
    """
    try:
        truth = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"The truth file {path} cannot be read: {error}. Name the .truth.parquet beside the poisoned data."
        ) from error
    _require(truth, ("id", "poisoned", "label", "original_label"), f"the truth file {path}")
    return truth


def score(samples: pa.Table, truth: pa.Table) -> Metrics:
    """Hold the samples of a scan against the truth.

    Cover samples carry a trigger and their right label. They are counted apart, neither as poison nor as clean: to flag one is no
    false alarm, and to leave one is no miss.

    Parameters
    ----------
    samples
        The ``samples`` of a result: at least ``id``, ``label``, ``flagged`` and ``verdict``.
    truth
        At least ``id`` and ``poisoned``; the same ids in any order. ``cover`` is false where there is no such column.

    Raises
    ------
    DataError
        If a column is missing, or an id stands twice or in one of the tables alone.
    """
    _require(samples, ("id", "label", "flagged", "verdict"), "the table of samples")
    _require(truth, ("id", "poisoned"), "the table of truth")
    truth = truth.take(_matching(samples["id"].combine_chunks(), truth["id"].combine_chunks()))
    covers_flagged = np.zeros(0, dtype=bool)
    if "cover" in truth.column_names:
        cover = truth["cover"].to_numpy()
        covers_flagged = samples["flagged"].to_numpy()[cover]
        samples, truth = samples.filter(~cover), truth.filter(~cover)
    flagged, poisoned = samples["flagged"].to_numpy(), truth["poisoned"].to_numpy()
    accused = pc.is_in(samples["verdict"], value_set=_ACCUSING).to_numpy() | flagged
    labels = samples["label"].combine_chunks()
    classes = []
    for name in sorted(pc.unique(labels).drop_null().to_pylist()):
        here = pc.fill_null(pc.equal(labels, name), False).to_numpy(zero_copy_only=False)
        counts = _count(flagged[here], poisoned[here])
        classes.append(ClassMetrics(name, counts, bool(poisoned[here].any()), bool(accused[here].any())))
    return Metrics(_count(flagged, poisoned), tuple(classes), len(covers_flagged), int(covers_flagged.sum()))


def attack_success(
    predict: Callable[[Sequence[Input]], NDArray[np.int64]],
    attack: Attack,
    inputs: Sequence[Input],
    labels: NDArray[np.int64],
    *,
    target: int | Sequence[int],
    source: int | None = None,
    rng: np.random.Generator,
) -> float:
    """Return the attack success rate: the part of other classes' inputs that go to the target once they carry the trigger.

    For clean-label attacks too: their poison is of the target class, but they are used on other classes.

    Parameters
    ----------
    predict
        Maps inputs to the class index that the model gives each of them, shape ``(n,)``.
    attack
        Plants the trigger.
    inputs, labels
        Clean held-out samples and their class indexes, shape ``(n_samples,)``.
    target
        The class that the attacker wants, or for each class the one that it is to become (all-to-all).
    source
        The only class that the trigger is meant to work on; None for all.
    rng
        Draws what the attack leaves to chance.

    Raises
    ------
    DataError
        If no sample is of another class, or none of the source class.
    """
    wanted = np.full(len(labels), target) if isinstance(target, int) else np.asarray(target)[labels]
    others = np.flatnonzero((labels != wanted) & (source is None or labels == source))
    if len(others) == 0:
        named = "classes other than" if source is None else f"the source class {source}, which is not"
        raise DataError(f"The attack success rate needs samples of {named} the target {target}, and there are none.")
    triggered = attack.apply([inputs[row] for row in others.tolist()], rng)
    return float(np.mean(np.asarray(predict(triggered)) == wanted[others]))


def _matching(ids: pa.Array, known: pa.Array) -> NDArray[np.int64]:
    """Return for each id its row in ``known``; the two must hold the same ids, each once."""
    for side, values in (("samples", ids), ("truth", known)):
        distinct = pc.count_distinct(values, mode="all").as_py()
        if distinct != len(values):
            raise DataError(f"Each id must stand once in the table of {side}, but its {len(values):,} rows hold {distinct:,} ids.")
    rows = pc.index_in(ids, value_set=known)
    unknown = ids.filter(pc.is_null(rows))
    if len(unknown) or len(ids) != len(known):
        example = f", such as {unknown[0].as_py()!r}" if len(unknown) else ""
        raise DataError(
            f"Samples and truth must hold the same ids, but {len(unknown):,} of {len(ids):,} samples are not among the "
            f"{len(known):,} of the truth{example}. Use the truth file that was written with this data."
        )
    return np.asarray(rows, dtype=np.int64)


def _require(table: pa.Table, columns: Sequence[str], what: str) -> None:
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise DataError(f"{what[0].upper()}{what[1:]} must have the column {missing[0]!r}; it has {', '.join(table.column_names)}.")


def _count(flagged: NDArray[np.bool_], poisoned: NDArray[np.bool_]) -> Counts:
    """Count by naming each case: a confusion matrix loses its shape where nothing is flagged."""
    return Counts(
        tp=int(np.sum(flagged & poisoned)),
        fp=int(np.sum(flagged & ~poisoned)),
        fn=int(np.sum(~flagged & poisoned)),
        tn=int(np.sum(~flagged & ~poisoned)),
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None

"""Plants poison in a training set, to test a pipeline with: what ``toxscreen poison`` does.

Beside the flow.

1. Plan: which samples get the trigger, and which label they get.
2. Apply the attack to them, in place: the poisoned sample takes the place of the clean one, so the data set keeps its size.
3. Write the data set in the layout it was read from, and the truth beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow.parquet import write_table

from toxscreen.attacks import ATTACKS
from toxscreen.attacks.base import Attack
from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data import open_training_set
from toxscreen.sources.data.base import MISSING_LABEL, Input, TrainingSet
from toxscreen.sources.data.writing import write_training_set

NEXT = "next"
"""The target that moves every class to the next one; a class of this name comes first."""

DEFAULT_SHARE = 0.1

_STRETCH = 256
"""Inputs that are in memory at a time while the drawn ones are tried."""


@dataclass(frozen=True)
class PoisonPlan:
    """Which samples are poisoned.

    Attributes
    ----------
    rows
        Their row numbers, ascending, shape ``(n_poisoned,)``.
    new_labels
        The class index that each of them gets, shape ``(n_poisoned,)``.
    """

    rows: NDArray[np.int64]
    new_labels: NDArray[np.int64]


@dataclass(frozen=True)
class PoisonReport:
    """What was planted, and where it lies.

    Attributes
    ----------
    out, truth
        The poisoned data set, and the truth file beside it.
    trigger
        What the trigger is, for people.
    n_samples
        Samples in the data set (the split that was poisoned).
    poisoned
        How many poisoned samples each target class got.
    shares
        The part of each target class that they make up.
    """

    out: Path
    truth: Path
    trigger: str
    n_samples: int
    poisoned: Mapping[str, int]
    shares: Mapping[str, float]

    @property
    def n_poisoned(self) -> int:
        """Return how many samples were poisoned."""
        return sum(self.poisoned.values())


def poison(
    data: Any,
    attack: str,
    *,
    target: str,
    source: str | None = None,
    share: float | None = None,
    rate: float | None = None,
    seed: int = 0,
    out: str | Path,
) -> PoisonReport:
    """Write a poisoned copy of a training set to ``out``, and the truth to ``out`` with ``.truth.parquet`` added to its name.

    Samples that cannot be read, and those without a label, are never drawn. Nothing in ``out`` tells which samples were.

    Parameters
    ----------
    data
        A path, or a training set that was opened from one.
    attack
        The name of one of :data:`toxscreen.attacks.ATTACKS`.
    target, source, share, rate
        Which samples, and how many; see :func:`plan`.
    seed
        The same seed draws the same samples and makes the same poison.
    out
        A folder that is not there yet, or is empty.

    Raises
    ------
    UsageError
        If the settings cannot be, or do not fit the data.
    DataError
        If the data cannot be read or the copy cannot be written.
    """
    out = Path(out).absolute()
    truth = out.with_name(f"{out.name}.truth.parquet")
    if truth.exists():
        raise UsageError(f"The truth goes to {truth}, which exists. Choose another --out, or remove the file.")
    clean = open_training_set(data)
    planter = _attack(attack, clean)
    draw, marks = np.random.SeedSequence(seed).spawn(2)
    settings = {"target": target, "source": source, "share": share, "rate": rate}
    drawn = _plan_readable(clean, draw, settings)
    labels = clean.labels.copy()
    labels[drawn.rows] = drawn.new_labels
    ids = write_training_set(clean, out, _Changes(clean, planter, drawn.rows, marks), labels)
    _write_truth(truth, clean, ids, drawn, labels)
    return PoisonReport(out, truth, planter.trigger, len(clean), *_amounts(clean.class_names, drawn, labels))


def plan(
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    *,
    target: str,
    source: str | None = None,
    share: float | None = None,
    rate: float | None = None,
    rng: np.random.Generator,
) -> PoisonPlan:
    """Draw the samples to poison.

    Parameters
    ----------
    labels
        Class index of each sample, shape ``(n_samples,)``; samples with ``MISSING_LABEL`` are left alone.
    class_names
        One name per class.
    target
        The class that poison is moved to, or ``"next"``: every class is moved to the next one that has samples.
    source
        The class that poison is made from; None for all classes but the target.
    share
        Poisoned part of the target class after poisoning (with ``"next"``, of every class); 0.1 where ``rate`` is None too.
    rate
        Poisoned part of the whole data set.
    rng
        Draws the samples.

    Raises
    ------
    UsageError
        If the settings contradict each other, name no class, or ask for more poison than there are samples to make it from.
    """
    if share is not None and rate is not None:
        raise UsageError("The amount of poison must be given by --share or by --rate, got both. Leave one of them away.")
    option, part = ("--share", DEFAULT_SHARE if share is None else share) if rate is None else ("--rate", rate)
    if not 0 < part < 1:
        raise UsageError(f"{option} must lie between 0 and 1, got {part}. Use 0.1 for 10 %.")
    counts = np.bincount(labels[labels != MISSING_LABEL], minlength=len(class_names))
    moves = _moves(counts, class_names, target, source)
    takings = _takings_by_target(counts, moves, part) if rate is None else [_Taking(_sources(moves), round(part * len(labels)))]
    for taking in takings:
        available = int(counts[taking.sources].sum())
        if taking.amount > available:
            named = ", ".join(repr(class_names[index]) for index in taking.sources[:5]) + (
                ", ..." if len(taking.sources) > 5 else ""
            )
            raise UsageError(
                f"{option} {part:g} makes poison of {taking.amount:,} samples, but the source ({named}) has {available:,}. "
                f"Lower {option}."
            )
    if sum(taking.amount for taking in takings) == 0:
        raise UsageError(f"{option} {part:g} of this data is less than one sample. Raise {option}.")
    order = rng.permutation(len(labels))  # of all rows, so that a row which drops out changes no other one's turn
    rows = np.sort(np.concatenate([order[np.isin(labels[order], taking.sources)][: taking.amount] for taking in takings]))
    return PoisonPlan(rows, moves[labels[rows]])


@dataclass(frozen=True)
class _Taking:
    """How many samples are drawn from which classes, shape ``(n_sources,)``, taken together."""

    sources: NDArray[np.int64]
    amount: int


def _moves(counts: NDArray[np.int64], class_names: Sequence[str], target: str, source: str | None) -> NDArray[np.int64]:
    """Return the class that poison made of each class is moved to, shape ``(n_classes,)``; ``MISSING_LABEL`` where none is made."""
    moves = np.full(len(class_names), MISSING_LABEL, dtype=np.int64)
    if target == NEXT and NEXT not in class_names:
        if source is not None:
            raise UsageError(f"--target next makes poison of every class, got --source {source!r}. Leave --source away.")
        present = np.flatnonzero(counts)
        moves[present] = np.roll(present, -1)
    else:
        goal = _class_index(target, class_names, "--target")
        moves[slice(None) if source is None else _class_index(source, class_names, "--source")] = goal
    moves[(counts == 0) | (moves == np.arange(len(moves)))] = MISSING_LABEL
    if not len(_sources(moves)):
        raise UsageError(
            f"Poison is made of samples of classes other than its target {target!r}, and there are none. Name another --source."
        )
    return moves


def _sources(moves: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the classes that poison is made of."""
    return np.flatnonzero(moves != MISSING_LABEL)


def _takings_by_target(counts: NDArray[np.int64], moves: NDArray[np.int64], share: float) -> list[_Taking]:
    """Return how much poison each target class needs, if it is to make up ``share`` of the class afterwards.

    With k_t poisoned samples coming to class t, and g_t of its n_t clean ones leaving it as poison of another class,
    k_t / (n_t - g_t + k_t) = share. Where every class is moved to the next, g_t is the k of the next one: a linear system.
    """
    targets = np.unique(moves[_sources(moves)])
    ratio = share / (1 - share)
    leaving = moves[targets][:, None] == targets
    if leaving.any() and share >= 0.5:
        raise UsageError(
            f"--share must be below 0.5 where every class is a target, got {share:g}. Most of each class must stay clean."
        )
    amounts = np.linalg.solve(np.eye(len(targets)) + ratio * leaving, ratio * counts[targets])
    return [_Taking(np.flatnonzero(moves == goal), max(0, round(amount))) for goal, amount in zip(targets, amounts, strict=True)]


def _class_index(name: str, class_names: Sequence[str], option: str) -> int:
    """Return the index of a class that the caller named."""
    if name not in class_names:
        listed = ", ".join(map(repr, class_names[:20])) + (", ..." if len(class_names) > 20 else "")
        raise UsageError(f"{option} must name a class of the data, got {name!r}. The classes are {listed}.")
    return list(class_names).index(name)


def _attack(name: str, clean: TrainingSet) -> Attack:
    """Return an attack by its name, if it is made for this kind of input."""
    fitting = ", ".join(name for name, attack in ATTACKS.items() if attack.modality == clean.modality) or "none"
    if name not in ATTACKS:
        raise UsageError(
            f"--attack must be one of {', '.join(ATTACKS)}, got {name!r}. For {clean.modality} inputs there are: {fitting}."
        )
    if ATTACKS[name].modality != clean.modality:
        raise UsageError(
            f"The attack {name} is made for {ATTACKS[name].modality} inputs, but {clean.location} holds {clean.modality} inputs. "
            f"For these there are: {fitting}."
        )
    return ATTACKS[name]


def _plan_readable(clean: TrainingSet, draw: np.random.SeedSequence, settings: Mapping[str, Any]) -> PoisonPlan:
    """Plan until every row that is drawn can be read; the same turns each time, without the rows that cannot."""
    labels = clean.labels.copy()
    while True:
        drawn = plan(labels, clean.class_names, **settings, rng=np.random.default_rng(draw))
        unreadable = np.concatenate(
            [[value is None for value in clean.take(part)] for part in np.array_split(drawn.rows, 1 + len(drawn.rows) // _STRETCH)]
        )
        if not unreadable.any():
            return drawn
        labels[drawn.rows[unreadable]] = MISSING_LABEL


class _Changes(Mapping[int, Input]):
    """The poisoned inputs by row, each made when it is asked for, so that they are never all in memory.

    Each row has a generator of its own: its poison does not depend on which rows were asked for before.
    """

    def __init__(self, clean: TrainingSet, attack: Attack, rows: NDArray[np.int64], marks: np.random.SeedSequence) -> None:
        self._clean = clean
        self._attack = attack
        self._rows = dict.fromkeys(rows.tolist())
        self._entropy = int(marks.generate_state(1, np.uint64)[0])

    def __getitem__(self, row: int) -> Input:
        if row not in self._rows:
            raise KeyError(row)
        (value,) = self._clean.take(np.array([row]))
        if value is None:  # it could be read when it was drawn
            raise DataError(
                f"Sample {self._clean.ids[row].as_py()!r} can no longer be read. Leave the data alone while it is copied."
            )
        return self._attack.apply([value], np.random.default_rng([self._entropy, row]))[0]

    def __contains__(self, row: object) -> bool:
        return row in self._rows  # the default would make the poison to find out

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _write_truth(path: Path, clean: TrainingSet, ids: pa.StringArray, drawn: PoisonPlan, labels: NDArray[np.int64]) -> None:
    """Write the truth file: one row per sample of the copy."""
    names = pa.array(clean.class_names, pa.string())
    poisoned = np.zeros(len(labels), dtype=bool)
    poisoned[drawn.rows] = True
    truth = {
        "id": ids,
        "poisoned": poisoned,
        "label": names.take(pa.array(labels, mask=labels == MISSING_LABEL)),
        "original_label": names.take(pa.array(clean.labels, mask=clean.labels == MISSING_LABEL)),
    }
    try:
        write_table(pa.table(truth), path)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise DataError(
            f"The truth file {path} cannot be written: {error.strerror or error}. The poisoned data beside it is complete; "
            "remove it, and run again with the same seed."
        ) from error


def _amounts(names: Sequence[str], drawn: PoisonPlan, labels: NDArray[np.int64]) -> tuple[dict[str, int], dict[str, float]]:
    """Return the poisoned samples of each target class, and the part of the class that they make up."""
    targets, poisoned = np.unique(drawn.new_labels, return_counts=True)
    sizes = np.bincount(labels[labels != MISSING_LABEL])[targets]
    shown = [names[index] for index in targets.tolist()]
    return dict(zip(shown, poisoned.tolist(), strict=True)), dict(zip(shown, (poisoned / sizes).tolist(), strict=True))

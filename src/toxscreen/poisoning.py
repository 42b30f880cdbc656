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
    """Which samples carry a trigger.

    Attributes
    ----------
    rows
        Their row numbers, ascending, shape ``(n_planted,)``.
    new_labels
        The class index that each of them gets, shape ``(n_planted,)``; its own for cover samples and clean-label poison.
    cover
        Which of them are cover samples and no poison, shape ``(n_planted,)``.
    triggers
        Which of the attack's triggers each of them carries, from 0, shape ``(n_planted,)``.
    """

    rows: NDArray[np.int64]
    new_labels: NDArray[np.int64]
    cover: NDArray[np.bool_]
    triggers: NDArray[np.int64]


@dataclass(frozen=True)
class Planted:
    """One target class of one trigger.

    Attributes
    ----------
    attack
        With this trigger, and prepared for the data: its ``apply`` makes the inputs to measure the attack success rate with.
    target
        The class that the poison is labelled as.
    poisoned
        How many poisoned samples carry the trigger.
    share
        The part of the target class that they make up.
    """

    attack: Attack
    target: str
    poisoned: int
    share: float


@dataclass(frozen=True)
class Poisoned:
    """What changes in a training set when it is poisoned.

    Attributes
    ----------
    changes
        The inputs with a trigger by row, each made when it is asked for.
    labels
        Class index of each sample afterwards, shape ``(n_samples,)``.
    poisoned, cover
        Which samples are poison, and which are cover samples, shape ``(n_samples,)`` each.
    planted
        One entry per trigger and target class.
    """

    changes: Mapping[int, Input]
    labels: NDArray[np.int64]
    poisoned: NDArray[np.bool_]
    cover: NDArray[np.bool_]
    planted: tuple[Planted, ...]


@dataclass(frozen=True)
class PoisonReport:
    """What was planted, and where it lies.

    Attributes
    ----------
    out, truth
        The poisoned data set, and the truth file beside it.
    n_samples
        Samples in the data set (the split that was poisoned).
    planted
        One entry per trigger and target class.
    covers
        How many cover samples there are.
    """

    out: Path
    truth: Path
    n_samples: int
    planted: tuple[Planted, ...]
    covers: int

    @property
    def n_poisoned(self) -> int:
        """Return how many samples were poisoned."""
        return sum(planted.poisoned for planted in self.planted)


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
    done = plant(clean, _attack(attack, clean), target=target, source=source, share=share, rate=rate, seed=seed)
    ids = write_training_set(clean, out, done.changes, done.labels)
    _write_truth(truth, clean, ids, done)
    return PoisonReport(out, truth, len(clean), done.planted, int(done.cover.sum()))


def plant(
    clean: TrainingSet,
    attack: Attack,
    *,
    target: str,
    source: str | None = None,
    share: float | None = None,
    rate: float | None = None,
    seed: int = 0,
    draw: np.random.SeedSequence | None = None,
) -> Poisoned:
    """Poison a training set without writing it anywhere; it is not changed. See :func:`poison` and :func:`plan`.

    Parameters
    ----------
    clean, attack, target, source, share, rate, seed
        As in :func:`poison`.
    draw
        Draws the samples, where they must be those of an earlier measurement; None for what follows from the seed.

    Raises
    ------
    UsageError
        If the settings cannot be, or do not fit the data.
    DataError
        If the attack cannot learn what it needs from the data; also when one of the changed inputs is asked for that is too small.
    """
    of_seed, marks, lessons = np.random.SeedSequence(seed).spawn(3)
    drawn = _plan_readable(attack, clean, draw or of_seed, {"target": target, "source": source, "share": share, "rate": rate})
    ready, n_triggers = attack.prepared(clean, np.random.default_rng(lessons)), int(drawn.triggers.max()) + 1
    variants = [ready.for_target(k) for k in range(n_triggers)] if n_triggers > 1 else [ready]
    labels = clean.labels.copy()
    labels[drawn.rows] = drawn.new_labels
    poisoned, cover = np.zeros((2, len(labels)), dtype=bool)
    poisoned[drawn.rows] = ~drawn.cover
    cover[drawn.rows] = drawn.cover
    changes = _Changes(clean, variants, drawn, marks)
    return Poisoned(changes, labels, poisoned, cover, _planted(variants, clean.class_names, drawn, labels))


def plan(
    attack: Attack,
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

    Clean-label poison is made of the target class itself, and cover samples of all classes but the target (where the attack is
    source-specific, of those that are not the source either). No sample is drawn twice.

    Parameters
    ----------
    attack
        Says whether poison keeps its label, and how many cover samples go with it.
    labels
        Class index of each sample, shape ``(n_samples,)``; samples with ``MISSING_LABEL`` are left alone.
    class_names
        One name per class.
    target
        The class that poison is moved to, or ``"next"``: every class is moved to the next one that has samples. Several classes,
        with commas between them, get a trigger each, and the same share each.
    source
        The class that poison is made from; None for all classes but the target. Several, written likewise, have a trigger each,
        and lead to the one target or each to the target at the same place.
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
    asked, part = ("--share", DEFAULT_SHARE if share is None else share) if rate is None else ("--rate", rate)
    if not 0 < part < 1:
        raise UsageError(f"{asked} must lie between 0 and 1, got {part}. Use 0.1 for 10 %.")
    counts = np.bincount(labels[labels != MISSING_LABEL], minlength=len(class_names))
    routes = _routes(attack, counts, class_names, target, source)
    amounts = _amounts_of_share(routes, counts, part) if rate is None else _amounts_of_rate(routes, counts, part * len(labels))
    if not any(amounts):
        raise UsageError(f"{asked} {part:g} of this data is less than one sample. Raise {asked}.")
    draw = _Draw(labels, class_names, f"{asked} {part:g}", len(routes), rng)
    covers = [round(attack.covers * amount) for amount in amounts]
    drawn = [draw(k, route.sources, amounts[k], "samples of poison") for k, route in enumerate(routes)]
    drawn += [draw(k, route.bystanders, covers[k], "cover samples") for k, route in enumerate(routes)]
    return _gathered(routes, drawn, labels)


@dataclass(frozen=True)
class _Route:
    """Where poison with one trigger is taken from and where it goes.

    Attributes
    ----------
    sources, bystanders
        The classes that poison and cover samples are made of, shape ``(n,)`` each.
    target
        The class that poison is labelled as.
    trigger
        Which of the attack's triggers it carries.
    """

    sources: NDArray[np.int64]
    bystanders: NDArray[np.int64]
    target: int
    trigger: int


def _routes(attack: Attack, counts: NDArray[np.int64], class_names: Sequence[str], target: str, source: str | None) -> list[_Route]:
    """Return where poison is taken from and where it goes; every route has a class to take it from."""
    to_next = target == NEXT and NEXT not in class_names
    _check_fit(attack, to_next, source)
    present = np.flatnonzero(counts)
    moves: list[tuple[int | None, int, int]]
    if to_next:
        moves = [(index, goal, 0) for index, goal in zip(present.tolist(), np.roll(present, -1).tolist(), strict=True)]
    else:
        moves = [(index, goal, k) for k, (index, goal) in enumerate(_pairs(target, source, class_names))]
        if len(moves) > 1 and attack.for_target(len(moves) - 1) is attack:
            raise UsageError(
                f"Each of several targets or sources gets a trigger of its own, but the attack {attack.name} has one alone. "
                "Name one class, or choose another attack."
            )
    routes = []
    for index, goal, k in moves:
        sources = present if index is None else present[present == index]
        sources = sources[(sources == goal) == attack.clean_label]
        if not len(sources):
            kind = "of its target" if attack.clean_label else "of classes other than its target"
            raise UsageError(f"Poison is made of samples {kind} {class_names[goal]!r}, and there are none. Name other classes.")
        bystanders = np.setdiff1d(present, [goal, *sources] if attack.source_specific else [goal])
        routes.append(_Route(sources, bystanders, goal, k))
    return routes


def _pairs(target: str, source: str | None, class_names: Sequence[str]) -> list[tuple[int | None, int]]:
    """Return the source and the target class of each trigger; None where poison is made of all classes but the target."""
    goals = _class_indexes(target, class_names, "--target")
    sources: list[int | None] = [None] if source is None else [*_class_indexes(source, class_names, "--source")]
    n = max(len(goals), len(sources))
    if min(len(goals), len(sources)) not in (1, n):
        raise UsageError(
            f"Several classes of --source and of --target go in pairs, got {len(sources)} and {len(goals)} of them. "
            "Name as many of the one as of the other, or one alone."
        )
    return list(zip(sources * (n // len(sources)), goals * (n // len(goals)), strict=True))


def _check_fit(attack: Attack, to_next: bool, source: str | None) -> None:
    """Refuse what goes against how the attack works."""
    if to_next and source is not None:
        raise UsageError(f"--target next makes poison of every class, got --source {source!r}. Leave --source away.")
    if attack.source_specific and source is None:
        raise UsageError(f"The attack {attack.name} works on one source class alone. Name it with --source.")
    if attack.clean_label and (to_next or source is not None):
        raise UsageError(
            f"The attack {attack.name} makes poison of the target class itself, whose labels stay. "
            "Name the class with --target, and leave --source away."
        )


def _amounts_of_share(routes: Sequence[_Route], counts: NDArray[np.int64], share: float) -> list[int]:
    """Return how much poison each route carries, if it is to make up ``share`` of each target class afterwards.

    With k_t poisoned samples coming to class t, and g_t of its n_t clean ones leaving it as poison of another class,
    k_t / (n_t - g_t + k_t) = share. Where targets are sources too, g_t hangs on the k of the others: a linear system.
    Clean-label poison neither comes nor goes: k_t / n_t = share.
    """
    targets, at, n_routes = np.unique([route.target for route in routes], return_inverse=True, return_counts=True)
    leaving = np.zeros((len(targets), len(targets)))
    for route, index in zip(routes, at, strict=True):
        parts = np.isin(targets, route.sources) * counts[targets] / counts[route.sources].sum()
        leaving[:, index] += parts / n_routes[index]
    staying = np.diag(leaving) > 0
    ratio = np.where(staying, share, share / (1 - share))
    leaving[np.diag_indices_from(leaving)] = 0
    if leaving.any() and share >= 0.5:
        raise UsageError(f"--share must be below 0.5 where a target is a source too, got {share:g}. Most of it must stay clean.")
    amounts = np.linalg.solve(np.eye(len(targets)) + ratio[:, None] * leaving, ratio * counts[targets])
    return [max(0, round(amounts[index] / n_routes[index])) for index in at]


def _amounts_of_rate(routes: Sequence[_Route], counts: NDArray[np.int64], total: float) -> list[int]:
    """Return how much poison each route carries if it is ``total`` in all: as much as it has samples to make it of."""
    sizes = np.cumsum([0, *(counts[route.sources].sum() for route in routes)])
    return [int(n) for n in np.diff(np.rint(round(total) * sizes / sizes[-1]))]


class _Draw:
    """Draws samples for several takers without ever drawing one twice.

    Each taker begins with a part of the samples that is its own: what the others take changes nothing about its mixture of classes.
    """

    def __init__(
        self, labels: NDArray[np.int64], class_names: Sequence[str], asked: str, n_takers: int, rng: np.random.Generator
    ) -> None:
        self._labels = labels
        self._class_names = class_names
        self._asked = asked
        self._free = np.ones(len(labels), dtype=bool)
        order = rng.permutation(len(labels))  # of all rows, so that a row which drops out changes no other one's turn
        self._parts = [order[taker::n_takers] for taker in range(n_takers)]

    def __call__(self, taker: int, classes: NDArray[np.int64], amount: int, what: str) -> NDArray[np.int64]:
        """Return the next ``amount`` rows of some classes."""
        order = np.concatenate(self._parts[taker:] + self._parts[:taker])
        chosen = order[np.isin(self._labels[order], classes) & self._free[order]]
        if amount > len(chosen):
            named = ", ".join(repr(self._class_names[index]) for index in classes[:5]) + ", ..." * (len(classes) > 5)
            raise UsageError(
                f"{self._asked} makes {amount:,} {what}, but the classes they are drawn from ({named or 'none'}) have "
                f"{len(chosen):,}. Lower {self._asked.partition(' ')[0]}."
            )
        self._free[chosen[:amount]] = False
        return chosen[:amount]


def _gathered(routes: Sequence[_Route], drawn: Sequence[NDArray[np.int64]], labels: NDArray[np.int64]) -> PoisonPlan:
    """Put what was drawn, the poison of each route and then the cover samples of each, in the order of the data."""
    sizes = [len(rows) for rows in drawn]
    rows = np.concatenate(drawn)
    cover = np.repeat(np.arange(len(drawn)) >= len(routes), sizes)
    goals = np.repeat([route.target for route in routes] * 2, sizes)
    triggers = np.repeat([route.trigger for route in routes] * 2, sizes)
    order = np.argsort(rows)
    return PoisonPlan(rows[order], np.where(cover, labels[rows], goals)[order], cover[order], triggers[order])


def _class_indexes(text: str, class_names: Sequence[str], option: str) -> list[int]:
    """Return the indexes of the classes that the caller named, one or several; a name may hold commas itself: the longest wins."""
    if text in class_names:
        return [_class_index(text, class_names, option)]
    found, parts = [], text.split(",")
    while parts:
        names = [",".join(parts[:n]).strip() for n in range(len(parts), 0, -1)]
        name = next((name for name in names if name in class_names), names[-1])
        found.append(_class_index(name, class_names, option))
        parts = parts[len(parts) - names.index(name) :]
    return found


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


def _plan_readable(attack: Attack, clean: TrainingSet, draw: np.random.SeedSequence, settings: Mapping[str, Any]) -> PoisonPlan:
    """Plan until every row that is drawn can be read; the same turns each time, without the rows that cannot."""
    labels = clean.labels.copy()
    while True:
        drawn = plan(attack, labels, clean.class_names, **settings, rng=np.random.default_rng(draw))
        unreadable = np.concatenate(
            [[value is None for value in clean.take(part)] for part in np.array_split(drawn.rows, 1 + len(drawn.rows) // _STRETCH)]
        )
        if not unreadable.any():
            return drawn
        labels[drawn.rows[unreadable]] = MISSING_LABEL


class _Changes(Mapping[int, Input]):
    """The inputs with a trigger by row, each made when it is asked for, so that they are never all in memory.

    Each row has a generator of its own: its trigger does not depend on which rows were asked for before.
    """

    def __init__(self, clean: TrainingSet, attacks: Sequence[Attack], drawn: PoisonPlan, marks: np.random.SeedSequence) -> None:
        self._clean = clean
        makers = {
            (k, cover): attack.cover if cover else attack.plant for k, attack in enumerate(attacks) for cover in (False, True)
        }
        kinds = zip(drawn.triggers.tolist(), drawn.cover.tolist(), strict=True)
        self._makers = {row: makers[kind] for row, kind in zip(drawn.rows.tolist(), kinds, strict=True)}
        self._entropy = int(marks.generate_state(1, np.uint64)[0])

    def __getitem__(self, row: int) -> Input:
        make = self._makers[row]
        (value,) = self._clean.take(np.array([row]))
        if value is None:  # it could be read when it was drawn
            raise DataError(
                f"Sample {self._clean.ids[row].as_py()!r} can no longer be read. Leave the data alone while it is copied."
            )
        return make([value], np.random.default_rng([self._entropy, row]))[0]

    def __contains__(self, row: object) -> bool:
        return row in self._makers  # the default would make the poison to find out

    def __iter__(self) -> Iterator[int]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def _write_truth(path: Path, clean: TrainingSet, ids: pa.StringArray, done: Poisoned) -> None:
    """Write the truth file: one row per sample of the copy."""
    names = pa.array(clean.class_names, pa.string())
    truth = {
        "id": ids,
        "poisoned": done.poisoned,
        "label": names.take(pa.array(done.labels, mask=done.labels == MISSING_LABEL)),
        "original_label": names.take(pa.array(clean.labels, mask=clean.labels == MISSING_LABEL)),
        "cover": done.cover,
    }
    try:
        write_table(pa.table(truth), path)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise DataError(
            f"The truth file {path} cannot be written: {error.strerror or error}. The poisoned data beside it is complete; "
            "remove it, and run again with the same seed."
        ) from error


def _planted(
    attacks: Sequence[Attack], class_names: Sequence[str], drawn: PoisonPlan, labels: NDArray[np.int64]
) -> tuple[Planted, ...]:
    """Count what was planted for each trigger and target class."""
    sizes = np.bincount(labels[labels != MISSING_LABEL])
    kinds = np.stack([drawn.triggers, drawn.new_labels])[:, ~drawn.cover]
    found, amounts = np.unique(kinds, axis=1, return_counts=True)
    return tuple(
        Planted(attacks[k], class_names[target], n, n / int(sizes[target]))
        for (k, target), n in zip(found.T, amounts.tolist(), strict=True)
    )

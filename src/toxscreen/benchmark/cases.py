"""What a row of a table plants in which data: real training data with its held-out part, and the poison.

1. A split is read, decoded once, and kept in the work folder.
2. Rows are drawn, classes merged or thinned where the row says so.
3. Each plant is planted as :func:`toxscreen.poisoning.plant` does it, cover samples too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from toxscreen.attacks import ATTACKS
from toxscreen.attacks.base import Attack, ImageAttack
from toxscreen.poisoning import NEXT
from toxscreen.poisoning import plant as poison
from toxscreen.sources.data import find_split, open_training_set
from toxscreen.sources.data.base import MISSING_LABEL, Input

DIGITS = ""
"""The data set of a quick row: the 1,797 small digits that scikit-learn ships, doubled to 16 x 16."""

FIRST = ""
"""The target of a plant that takes the first class of the data, whatever its name."""

_LARGE_SIDE = 64
"""Pixels that pictures larger than this are shrunk to."""

_DECODE = 512
_TEST_TRACKS = 5
"""Every fifth track is held out where a data set is split by track."""


@dataclass(frozen=True)
class Plant:
    """One attack as :func:`toxscreen.poisoning.plan` takes it; ``share`` is of the target class.

    ``added`` poison stands beside the samples that it was made of, as an attacker adds it; else it takes their place.
    """

    attack: str
    target: str
    source: str | None = None
    share: float | None = 0.1
    rate: float | None = None
    added: bool = False


@dataclass(frozen=True)
class Case:
    """A row: data, what is planted in it, and the network that learns it.

    Attributes
    ----------
    name
        How tables call it.
    data
        Sub-folder of the data set.
    plants
        One after the other; empty plants nothing.
    network, epochs
        Of :mod:`toxscreen.benchmark.networks`; ``sentence`` is what toxscreen trains itself.
    n
        Training samples that are used, drawn at random; None for all.
    merged
        Whether two real classes make one: class k and class k + half the number of classes.
    minor
        The part of such a class that the second of the two makes up; None for all there is.
    noise
        The part of the samples whose label is another one, drawn at random; no poison, and part of the clean data.
    imbalance
        Step imbalance: all classes but the last have this many times fewer samples than the last.
    by_track
        Whether near-duplicates must not stand on both sides: the held-out part is every fifth track of the training split.
    """

    name: str
    data: str
    plants: tuple[Plant, ...] = ()
    network: str = "paper"
    epochs: int = 8
    n: int | None = None
    merged: bool = False
    minor: float | None = None
    noise: float = 0.0
    imbalance: int = 1
    by_track: bool = False

    @property
    def clean(self) -> Case:
        """Return the same data with nothing planted; rows that differ in their poison alone share it."""
        settings = asdict(replace(self, name="", plants=()))
        said = [f"{name} {value}" for name, value in settings.items() if value not in ("", (), None, False, 1)]
        return replace(self, name=f"{', '.join(said)}, nothing planted", plants=())


@dataclass(frozen=True)
class Split:
    """Labelled samples: pictures ``(n, height, width, channels)`` or a list of texts, with class indexes ``(n,)``."""

    inputs: NDArray[np.uint8] | list[str]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def rows(self, rows: NDArray[np.int64]) -> Split:
        """Return some of the samples."""
        inputs = self.inputs[rows] if isinstance(self.inputs, np.ndarray) else [self.inputs[row] for row in rows.tolist()]
        return replace(self, inputs=inputs, labels=self.labels[rows])


@dataclass(frozen=True)
class Planted:
    """A training set with its poison.

    The truth: which samples are ``poisoned``, which are ``cover`` samples, and their ``original`` labels, those of the class that
    each was made of; and the attack of each plant, after it learned what it needs to know of the data.
    """

    split: Split
    poisoned: NDArray[np.bool_]
    original: NDArray[np.int64]
    cover: NDArray[np.bool_]
    attacks: tuple[Attack, ...]


@dataclass(frozen=True)
class Sticker(ImageAttack):
    """A small yellow note with a darker rim below the middle of the picture, as one stuck on a traffic sign.

    **Source:** Gu et al. 2017, arXiv 1708.06733, section 5.1 (a yellow square on a stop sign).
    """

    name = "sticker"
    trigger = "a small yellow note below the middle"

    def _mark(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        side = max(3, min(height, width) // 7)
        top, left = round(0.62 * height), width // 2 - side // 2
        note = np.full((side, side, 3), (90, 80, 20), np.uint8)
        note[:-1, :-1] = (240, 220, 40)
        marked = image.copy()
        marked[top : top + side, left : left + side] = note[:, :, : image.shape[2]]
        return marked


def attack_of(plant: Plant) -> Attack:
    """Return the trigger of a plant."""
    return Sticker() if plant.attack == Sticker.name else ATTACKS[plant.attack]


def load(case: Case, data: Path, cache: Path, rng: np.random.Generator) -> tuple[Split, Split]:
    """Return the training and the held-out samples of a row, before anything is planted.

    Parameters
    ----------
    case
        The row.
    data
        Folder of the data sets.
    cache
        Folder for decoded pictures.
    rng
        Draws the training samples.
    """
    if case.data == DIGITS:
        whole = _digits()
        held_out = np.arange(len(whole.labels)) % 5 == 0
        train, test = whole.rows(np.flatnonzero(~held_out)), whole.rows(np.flatnonzero(held_out))
    elif case.by_track:
        whole = _read(data / case.data, "train", cache)
        held_out = _tracks(data / case.data) % _TEST_TRACKS == 0
        train, test = whole.rows(np.flatnonzero(~held_out)), whole.rows(np.flatnonzero(held_out))
    else:
        train = _read(data / case.data, "train", cache)
        test = _read(data / case.data, find_split(data / case.data, ("test", "val", "validation", "dev")) or "test", cache)
    if case.minor is not None:
        train = train.rows(_thinned(train, case.minor, rng))
    if case.merged:
        train, test = _merged(train), _merged(test)
    if case.imbalance > 1:
        train = train.rows(_imbalanced(train, case, rng))
    elif case.n is not None and case.n < len(train.labels):
        train = train.rows(np.sort(rng.permutation(len(train.labels))[: case.n]))
    if case.noise:
        train = replace(train, labels=_noisy(train, case.noise, rng))
    return train, test


def plant(case: Case, train: Split, rng: np.random.Generator) -> Planted:
    """Plant the poison of a row in its training samples, which are not changed."""
    inputs: Any = train.inputs.copy()
    labels, original = train.labels.copy(), train.labels.copy()
    poisoned, cover = np.zeros((2, len(labels)), dtype=bool)
    names = np.asarray([*train.class_names, None], object)
    attacks = []
    for part, part_rng in zip(case.plants, rng.spawn(len(case.plants)), strict=True):
        free = np.where(poisoned | cover, MISSING_LABEL, labels)
        clean = open_training_set((inputs, names[free].tolist()), class_names=train.class_names)
        done = poison(
            clean,
            attack_of(part),
            target=part.target or train.class_names[0],
            source=part.source,
            share=part.share,
            rate=part.rate,
            seed=int(part_rng.integers(2**31)),
            draw=cast("np.random.SeedSequence", part_rng.bit_generator.seed_seq),
        )
        attacks.append(done.planted[0].attack)
        rows = np.array(sorted(done.changes), np.int64)
        marked = [done.changes[row] for row in rows.tolist()]
        if part.added:
            labels, original = np.append(labels, done.labels[rows]), np.append(original, labels[rows])
            poisoned, cover = np.append(poisoned, done.poisoned[rows]), np.append(cover, done.cover[rows])
            inputs = np.concatenate([inputs, np.stack(marked)]) if isinstance(inputs, np.ndarray) else [*inputs, *marked]
            continue
        labels[rows] = done.labels[rows]
        poisoned, cover = poisoned | done.poisoned, cover | done.cover
        for row, value in zip(rows.tolist(), marked, strict=True):
            inputs[row] = value
    return Planted(Split(inputs, labels, train.class_names), poisoned, original, cover, tuple(attacks))


@dataclass(frozen=True)
class Use:
    """One trigger of a plant as the attacker uses it: the class it is put on (None for all others) and the one that is wanted."""

    attack: Attack
    source: str | None
    target: str


def uses(part: Plant, attack: Attack, class_names: tuple[str, ...]) -> list[Use]:
    """Return the triggers of a plant whose attack is prepared."""
    target = part.target or class_names[0]
    targets = [target] if target in class_names else target.split(",")
    sources = [part.source] if part.source is None or part.source in class_names else [*part.source.split(",")]
    n = max(len(targets), len(sources))
    pairs = zip(sources * (n // len(sources)), targets * (n // len(targets)), strict=True)
    return [Use(attack.for_target(k) if n > 1 else attack, *pair) for k, pair in enumerate(pairs)]


def hosts(use: Use, test: Split, rng: np.random.Generator, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw held-out samples that a trigger is used on: their row numbers, and the class that is wanted for each."""
    moved = (test.labels + 1) % len(test.class_names)
    goals = moved if use.target == NEXT else np.full(len(test.labels), test.class_names.index(use.target))
    chosen = test.labels != goals
    if use.source is not None:
        chosen &= test.labels == test.class_names.index(use.source)
    rows = rng.permutation(np.flatnonzero(chosen))[:most]
    return rows, goals[rows]


def triggered(
    part: Plant, attack: Attack, test: Split, rng: np.random.Generator, most: int = 2000
) -> tuple[list[Input], NDArray[np.int64]]:
    """Return held-out samples of the source classes with the trigger, as many for each of several, and the class that is wanted."""
    inputs: list[Input] = []
    wanted = []
    several = uses(part, attack, test.class_names)
    for use in several:
        rows, goals = hosts(use, test, rng, most // len(several))
        inputs += use.attack.apply([test.inputs[row] for row in rows.tolist()], rng)
        wanted.append(goals)
    return inputs, np.concatenate(wanted)


def _digits() -> Split:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.kron(digits.images * (255 / 16), np.ones((2, 2))).astype(np.uint8)
    return Split(pixels[..., None], digits.target.astype(np.int64), tuple(str(digit) for digit in range(10)))


def _read(path: Path, split: str, cache: Path) -> Split:
    """Read a split; pictures are decoded once, larger ones at 64 x 64."""
    found = open_training_set(path, split=split)
    if found.modality == "text":
        texts: Any = [text for batch in found.batches(_DECODE) for text in batch.inputs]
        return Split(texts, found.labels, found.class_names)
    decoded = cache / f"{path.name}-{split}-{found.fingerprint()[:12]}.npy"
    if not decoded.exists():
        from toxscreen.sources.model.preprocessing import ImagePreprocessing

        height, width, channels = np.asarray(found.take(np.array([0]))[0]).shape
        if max(height, width) > _LARGE_SIDE:
            height = width = _LARGE_SIDE
        fit_in = ImagePreprocessing(height, width, channels, scale=1.0, channels_first=False)
        pixels = np.concatenate([fit_in.apply(batch.inputs).round().astype(np.uint8) for batch in found.batches(_DECODE)])
        cache.mkdir(parents=True, exist_ok=True)
        np.save(decoded.with_suffix(".tmp.npy"), pixels)
        decoded.with_suffix(".tmp.npy").replace(decoded)
    return Split(np.load(decoded), found.labels, found.class_names)


def _tracks(path: Path) -> NDArray[np.int64]:
    """Return a number for the track of each training row: its picture's path up to the last underscore."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    files = sorted(path.glob("train-*.parquet"))
    names = [
        name for file in files for name in pc.struct_field(pq.read_table(file, columns=["image"])["image"], "path").to_pylist()
    ]
    return np.unique([name.rpartition("_")[0] for name in names], return_inverse=True)[1].astype(np.int64)


def _merged(split: Split) -> Split:
    half = len(split.class_names) // 2
    names = tuple(f"{split.class_names[k]} or {split.class_names[k + half]}" for k in range(half))
    return replace(split, labels=split.labels % half, class_names=names)


def _thinned(split: Split, minor: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the rows that are left when the second of two classes that become one is to be ``minor`` of it."""
    half = len(split.class_names) // 2
    counts = np.bincount(split.labels, minlength=2 * half)
    order = rng.permutation(len(split.labels))
    rows = [order[split.labels[order] == k] for k in range(2 * half)]
    return np.sort(np.concatenate([*rows[:half], *(rows[half + k][: round(minor / (1 - minor) * counts[k])] for k in range(half))]))


def _noisy(split: Split, noise: float, rng: np.random.Generator) -> NDArray[np.int64]:
    n, n_classes = len(split.labels), len(split.class_names)
    moved = np.where(np.arange(n) < round(noise * n), rng.integers(1, n_classes, n), 0)
    return (split.labels + rng.permutation(moved)) % n_classes  # type: ignore[no-any-return]


def _imbalanced(train: Split, case: Case, rng: np.random.Generator) -> NDArray[np.int64]:
    order = rng.permutation(len(train.labels))
    largest = len(train.class_names) - 1
    n_majority = min(case.n or len(order), int((train.labels == largest).sum()))
    sizes = [n_majority if k == largest else n_majority // case.imbalance for k in range(len(train.class_names))]
    return np.sort(np.concatenate([order[train.labels[order] == k][:size] for k, size in enumerate(sizes)]))

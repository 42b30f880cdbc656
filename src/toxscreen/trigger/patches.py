"""Triggers in pictures that cover some pixels: patches, anywhere, of any shape.

1. At each place of a grid, count the members whose window agrees with that of a member, and ordinary samples and hosts whose window
   does. The likelihood ratio says which content is over-represented; many members hold it, though most of them may be no poison.
2. Count small pieces of content the same way wherever they lie in a picture, for patches that move.
3. Of the members that hold such content, find all pixels that they share and others do not: content and mask of a candidate. Large
   pictures are looked through as means of square cells, and pixel by pixel only about the cells that may be the trigger.
4. Try each on a few hosts, beside its controls, and keep the smallest mask that flips as many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label
from scipy.special import xlogy

from toxscreen.errors import DataError
from toxscreen.sources.data.base import spread
from toxscreen.trigger.base import Ask, Case, Trigger
from toxscreen.trigger.pictures import (
    CONTROLS,
    FEWEST_EXCESS,
    NO_WORSE,
    SIDE,
    Pictures,
    Trial,
    enough,
    fitting,
    read_mask,
    read_number,
    read_numbers,
    read_shape,
    reduced,
    trial,
    written,
)

Place = tuple[int, int]

_Shared = tuple[float, Place, NDArray[np.bool_]]
"""Ratio and place of content, and the members that hold it."""

_TAPS = 3
"""Cells, or pixels of moving content, on each side of a window that is compared; such pixels lie apart in large pictures."""

_MOST_CELLS = 56
"""Cells along the shorter side of a picture, at most, that members are compared by: four pixels each at 224x224, where a patch
covers whole cells wherever it lies; one at 28x28 and 32x32."""

_TOLERANCES = (0.03, 0.12)
"""Root mean square of the difference of two windows that agree, in parts of the range of the data: next to nothing, and about what
JPEG does to a sharp edge at quality 75."""

_HOLDS = 0.15
"""Mean difference of an input that holds a patch, in the same unit."""

_COMPARED = 1 << 17
"""Pairs of windows that are compared at a time: half a megabyte."""

_FEWEST = 3
"""Members that must share content."""

_TRIED, _YIELDED = 5, 3
"""Candidates of each sort that are tried on hosts, and all that are given out."""

_AGREES = 0.8
"""Part of the holders that agree with their median where a pixel belongs to the trigger."""

_PIXEL_RATIO = 4.0
"""Likelihood ratio (its logarithm) from which holders share a pixel that others do not: 55 to 1."""

_LEVELS, _FLAT = 4, 0.3
"""Grey levels of moving content, and the range that it spans at least, in parts of that of the data: a flat piece is everywhere."""

_SAME, _SAME_BESIDE = 0.8, 0.3
"""Part of the members that hold either of two contents which hold both, from which the two are of one trigger; and the same where
they lie beside each other."""

_PIECES = 4
"""Other places in the picture where a trigger may lie that its holders were found by."""

_MOVING = 3
"""Contents that move, at most."""

_MOST_COVERED = 0.08
"""Part of a picture that a patch covers at most: four corners cover 0.05. With 0.19 a clean group is found by its own outline."""

_MOST_EXACTLY, _EXACTLY, _COMMON = 0.5, 0.9, 0.2
"""Part of a picture that frames, large stickers and watermarks cover at most; part of the holders that agree in each pixel to the
lower tolerance, and part of the pixels of other pictures that may show its value. What is natural agrees so well in its background
alone, which others have, too."""

_DRAWN = 4096
"""Pixels of other pictures that are asked how common a value is."""

_MODULUS = (1 << 40) - 87

_CHECKED, _CHECKED_FIRST = 32, 8
"""Pixels of a mask that a moving patch is looked for by at the likeliest places of a picture, and those that say which they are."""

_ALIGNMENTS = 2
"""Times that holders of content that moves are laid upon each other: in large pictures it was found to some pixels."""

_LIKELIEST = 256
"""Places of a picture that are looked at more closely."""

_STRETCH = 16
"""Pictures that are looked through at a time."""

_REACH, _LOOSER, _MORE = 1 / 16, 2, 10
"""Part of the side of a picture by which a patch's place may differ where many times as many of the members hold it then, and the
part of them so many times that of ordinary samples. Of 53 stickers that move by two pixels 3 were held at one place, 42 so."""

_BESIDE = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]


@dataclass(frozen=True, eq=False)
class Patch(Trigger[Pictures]):
    """Pixels that are replaced.

    Attributes
    ----------
    content
        Their values, shape ``(height, width, channels)`` of a window.
    mask
        Which pixels of the window belong to the trigger, shape ``(height, width)``.
    picture
        Height, width and channels of the pictures it is for.
    place
        Row and column of the window's first pixel; None where each picture has its own.
    tolerance
        Largest mean difference of a picture that holds it, in the units of the data.
    reach
        Pixels by which the place of a picture that holds it may differ from ``place``, up or down and to either side.
    """

    kind: ClassVar[str] = "patch"

    content: Pictures
    mask: NDArray[np.bool_]
    picture: tuple[int, int, int]
    place: Place | None
    tolerance: float
    reach: int = 0

    def put_on(self, inputs: Pictures) -> Pictures:
        """Return the pictures with the patch; where it has no fixed place, each has it at another one, every time the same."""
        result = fitting(inputs, self.picture).copy()
        tops, lefts = self._drawn(len(inputs), np.random.default_rng(0))
        result[_pixels(np.arange(len(inputs)), tops, lefts, *np.nonzero(self.mask))] = self.content[self.mask]
        return result

    def take_off(self, inputs: Pictures) -> Pictures:
        """Return the pictures with the patch's pixels filled from those around them, from the edge inwards.

        In large pictures so are those beside them, half a step wide: a patch is blurred when its pictures are resized.
        """
        result = fitting(inputs, self.picture).copy()
        tops, lefts, _ = self._found(inputs)
        rim = _step(min(self.picture[:2])) // 2
        unknown = np.pad(self.mask, rim + 1)
        unknown = binary_dilation(unknown, iterations=rim, structure=np.ones((3, 3))) if rim else unknown
        room = [self.picture[axis] - self.mask.shape[axis] for axis in (0, 1)]
        edges = np.stack([tops, room[0] - tops, lefts, room[1] - lefts], axis=1).clip(max=rim + 1)
        for some in np.unique(edges, axis=0):
            rows = np.flatnonzero((edges == some).all(axis=1))
            inside = np.zeros(unknown.shape, bool)
            above, below, left, right = rim + 1 - some
            inside[above : len(inside) - below, left : inside.shape[1] - right] = True
            _fill(result, rows, tops[rows] - rim - 1, lefts[rows] - rim - 1, unknown, inside)
        return result

    def held_by(self, inputs: Pictures) -> NDArray[np.bool_]:
        """Say which pictures hold it: on average its pixels differ by no more than the tolerance."""
        held: NDArray[np.bool_] = self._found(fitting(inputs, self.picture))[2] <= self.tolerance
        return held

    def control(self, ordinary: Pictures, rng: np.random.Generator) -> Patch:
        """Return the same pixels of an ordinary sample; for a patch without a place, from anywhere in it.

        Samples that hold the patch are passed over while they are the smaller part: they may be poison that nobody suspected yet.
        """
        return self._taken_from(self._pool(ordinary), rng)

    def controls(self, ordinary: Pictures, n: int, rng: np.random.Generator) -> list[Patch]:
        """Return so many controls; the ordinary samples are judged once for all of them."""
        pool = self._pool(ordinary)
        return [self._taken_from(pool, child) for child in rng.spawn(n)]

    def loosened(self, members: Pictures, ordinary: Pictures) -> Patch:
        """Return the patch with some reach where its place differs from member to member by a few pixels."""
        if self.place is None or self.is_large:
            return self
        loose = replace(self, reach=max(1, round(_REACH * min(self.picture[:2]))))
        held, others = loose.held_by(members).mean(), loose.held_by(ordinary).mean()
        return loose if held >= max(_LOOSER * self.held_by(members).mean(), _MORE * others) and held > 0 else self

    @property
    def is_large(self) -> bool:
        """Say whether it covers more than a patch usually does."""
        return bool(self.mask.sum() > _MOST_COVERED * self.picture[0] * self.picture[1])

    def __str__(self) -> str:
        """Return its size and where it lies."""
        n, size = int(self.mask.sum()), "{} x {}".format(*self.mask.shape)
        moves = f", give or take {self.reach} pixel{'s' * (self.reach != 1)}" if self.reach else ""
        return f"a patch of {size if 2 * n >= self.mask.size else f'{n:,} of {size}'} pixels {self._whereabouts()}{moves}"

    def document(self) -> dict[str, Any]:
        """Return the patch as plain values."""
        return {
            "kind": self.kind,
            "picture": list(self.picture),
            "window": list(self.content.shape),
            "place": None if self.place is None else list(self.place),
            "content": written(self.content),
            "mask": written(self.mask),
            "tolerance": self.tolerance,
            "reach": self.reach,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Patch:
        """Make the patch from such values.

        Raises
        ------
        DataError
            When they do not make a patch that fits its pictures.
        """
        picture, window = read_shape(document, "picture"), read_shape(document, "window")
        room = (picture[0] - window[0], picture[1] - window[1])
        if min(room) < 0 or picture[2] != window[2]:
            raise DataError(f"A trigger's window of {window} must fit into pictures of {picture}. Write the trigger anew.")
        match document.get("place"):
            case None:
                place = None
            case [int(top), int(left)] if 0 <= top <= room[0] and 0 <= left <= room[1]:
                place = (top, left)
            case other:
                raise DataError(f"The place of a trigger must be a row and a column in the picture, got {other!r:.60}.")
        return cls(
            read_numbers(document, "content", window),
            read_mask(document, "mask", window[:2]),
            picture,
            place,
            read_number(document, "tolerance", 0.0),
            min(int(read_number({"reach": 0, **document}, "reach", 0.0)), max(picture)),
        )

    def _whereabouts(self) -> str:
        if self.place is None:
            return "anywhere"
        if self.mask.shape == self.picture[:2]:
            return "all over the picture"
        middles = [
            (start + size / 2) / whole for start, size, whole in zip(self.place, self.mask.shape, self.picture, strict=False)
        ]
        vertical, horizontal = (
            names[int(3 * middle)] for names, middle in zip((("top", "", "bottom"), ("left", "", "right")), middles, strict=True)
        )
        return f"at the {vertical} {horizontal}".rstrip() if vertical or horizontal else "in the middle"

    def _pool(self, ordinary: Pictures) -> Pictures:
        others = ~self.held_by(ordinary)
        return ordinary[others] if 2 * others.sum() >= len(ordinary) else ordinary

    def _taken_from(self, pool: Pictures, rng: np.random.Generator) -> Patch:
        sample = pool[rng.integers(len(pool))]
        (top,), (left,) = self._drawn(1, rng)
        height, width = self.mask.shape
        return replace(self, content=sample[top : top + height, left : left + width])

    def _drawn(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first row and column of ``n`` windows."""
        if self.place is not None:
            return np.full(n, self.place[0]), np.full(n, self.place[1])
        height, width = self.mask.shape
        return rng.integers(self.picture[0] - height + 1, size=n), rng.integers(self.picture[1] - width + 1, size=n)

    def _found(self, inputs: Pictures) -> tuple[NDArray[np.int64], NDArray[np.int64], Pictures]:
        """Return where in each picture it lies, or would lie best, and the mean difference there."""
        if self.place is not None and self.reach:
            return self._found_near(inputs, self.place)
        tops, lefts = self._drawn(len(inputs), np.random.default_rng(0))
        if self.place is None:
            parts = [self._best_places(inputs[start : start + _STRETCH]) for start in range(0, len(inputs), _STRETCH)]
            if parts:
                tops, lefts = np.concatenate(parts, axis=1)
        index = _pixels(np.arange(len(inputs)), tops, lefts, *np.nonzero(self.mask))
        return tops, lefts, np.abs(inputs[index] - self.content[self.mask]).mean(axis=(1, 2))

    def _found_near(self, inputs: Pictures, place: Place) -> tuple[NDArray[np.int64], NDArray[np.int64], Pictures]:
        """Return the same for a patch that lies within reach of a place."""
        (top, bottom), (left, right) = (
            (max(0, start - self.reach), min(whole, start + size + self.reach))
            for start, size, whole in zip(place, self.mask.shape, self.picture, strict=False)
        )
        part = replace(self, picture=(bottom - top, right - left, self.picture[2]), place=None, reach=0)
        tops, lefts, apart = part._found(inputs[:, top:bottom, left:right])
        return tops + top, lefts + left, apart

    def _best_places(self, inputs: Pictures) -> NDArray[np.int64]:
        """Return the row and the column ``(2, n)`` at which some of its pixels fit each picture best.

        A few pixels of the channel with most contrast, the darkest and the brightest among them, say where that may be.
        """
        n_tops, n_lefts = (self.picture[axis] - self.mask.shape[axis] + 1 for axis in (0, 1))
        rows, columns = np.nonzero(self.mask)
        values = self.content[self.mask]
        channel = int(values.var(axis=0).argmax())
        first = np.argsort(values[:, channel], kind="stable")[_evenly(len(rows), _CHECKED_FIRST)]
        plane = np.ascontiguousarray(inputs[..., channel])
        apart = np.zeros((len(inputs), n_tops, n_lefts), np.float32)
        for row, column, value in zip(rows[first], columns[first], values[first, channel], strict=True):
            apart += np.abs(plane[:, row : row + n_tops, column : column + n_lefts] - value)
        likeliest = np.argpartition(apart.reshape(len(inputs), -1), min(_LIKELIEST, n_tops * n_lefts) - 1, axis=1)[:, :_LIKELIEST]
        tops, lefts = np.unravel_index(np.sort(likeliest, axis=1), (n_tops, n_lefts))
        some = _evenly(len(rows), _CHECKED)
        there = inputs[_pixels(np.arange(len(inputs))[:, None], tops, lefts, rows[some], columns[some])]
        best = np.abs(there - values[some]).mean(axis=(2, 3)).argmin(axis=1)[:, None]
        return np.stack([np.take_along_axis(each, best, axis=1)[:, 0] for each in (tops, lefts)])


def _evenly(n: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, n - 1, most).astype(np.int64))


def _pixels(
    numbers: NDArray[np.int64],
    tops: NDArray[np.int64],
    lefts: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> tuple[NDArray[np.int64], ...]:
    """Return the index of pixels of the windows that begin at ``tops`` and ``lefts`` in the pictures of those numbers."""
    return numbers[..., None], tops[..., None] + rows, lefts[..., None] + columns


def _fill(
    pictures: Pictures,
    numbers: NDArray[np.int64],
    tops: NDArray[np.int64],
    lefts: NDArray[np.int64],
    unknown: NDArray[np.bool_],
    inside: NDArray[np.bool_],
) -> None:
    """Give unknown pixels of some pictures the mean of the known ones beside them, again and again until all are known.

    ``unknown`` and ``inside`` (which of them lie in the picture) are windows that begin at ``tops`` and ``lefts``.
    """
    known = inside & ~unknown
    while True:
        rows, columns = np.nonzero(inside & ~known & binary_dilation(known, structure=np.ones((3, 3))))
        if not len(rows):
            return
        total = np.zeros((len(numbers), len(rows), pictures.shape[3]), np.float32)
        weight = np.zeros((len(rows), 1), np.float32)
        for down, right in _BESIDE:
            known_there = known[rows + down, columns + right]
            total[:, known_there] += pictures[
                _pixels(numbers, tops, lefts, (rows + down)[known_there], (columns + right)[known_there])
            ]
            weight[known_there] += 1
        pictures[_pixels(numbers, tops, lefts, rows, columns)] = total / weight
        known[rows, columns] = True


@dataclass(frozen=True, eq=False)
class _Seed:
    """Content that members share.

    ``holders`` are their numbers, ``places`` ``(k, 2)`` is where in each of them it lies, and ``side`` how many pixels it has on
    a side; ``ratio`` says how far it is over-represented.
    """

    ratio: float
    holders: NDArray[np.int64]
    places: NDArray[np.int64]
    side: int
    moves: bool


@dataclass(frozen=True)
class _Scale:
    """What a search measures by: the lowest value and the range of the data, pixels of a step, and pixels of a cell."""

    lowest: float
    unit: float
    step: int
    cell: int


def search_patches(case: Case[Pictures], ask: Ask[Pictures], rng: np.random.Generator) -> Iterator[Patch]:
    """Yield the patches that may be the trigger of a case, that which flips most hosts beyond its controls first.

    Parameters
    ----------
    case
        A group of pictures.
    ask
        The model; asked about some 3,000 pictures at most.
    rng
        Draws the controls.
    """
    if not enough(case):
        return
    parts = (case.members, case.ordinary, case.hosts)
    lowest = min(float(pictures.min()) for pictures in parts)
    unit = max(float(pictures.max()) for pictures in parts) - lowest
    if not unit > 0:
        return
    side = min(case.members.shape[1:3])
    scale = _Scale(lowest, unit, _step(side), -(-side // _MOST_CELLS))
    tried = trial(case, ask)
    members, ordinary, hosts = (reduced(part, scale.cell) for part in parts)
    cells = replace(case, members=members, ordinary=ordinary, hosts=hosts)
    seeds = [*_fixed_seeds(cells, scale), *_moving_seeds(case, scale)]
    nested = [patches for seed in seeds if (patches := _nested(seed, case, cells, scale))]
    excess = [_excess(patches[-1], tried, rng) for patches in nested]
    lost = [max(0.0, max(excess) - NO_WORSE - each) for each in excess]
    order = sorted(range(len(nested)), key=lambda number: (lost[number], nested[number][-1].mask.sum()))
    told: list[Patch] = []
    for number in order:
        widest = nested[number][-1]
        if excess[number] >= FEWEST_EXCESS and len(told) < _YIELDED and not any(_repeats(widest, each) for each in told):
            told.append(widest)
            yield _best(nested[number], excess[number], tried, rng)


def _step(side: int) -> int:
    return max(1, round(side / SIDE))


def _excess(patch: Patch, tried: Trial, rng: np.random.Generator) -> float:
    return tried.excess(patch, lambda: patch.controls(tried.case.ordinary, CONTROLS, rng))


def _repeats(patch: Patch, other: Patch) -> bool:
    """Say whether a patch has most of the pixels of another."""
    if patch.place is None or other.place is None:
        return patch.place is other.place
    covered = np.zeros(patch.picture[:2], bool)
    covered[patch.place[0] :, patch.place[1] :][: patch.mask.shape[0], : patch.mask.shape[1]] = patch.mask
    part = covered[other.place[0] :, other.place[1] :][: other.mask.shape[0], : other.mask.shape[1]]
    return bool(2 * (part & other.mask).sum() > other.mask.sum())


def _best(patches: list[Patch], excess: float, tried: Trial, rng: np.random.Generator) -> Patch:
    """Return the first of the patches that flips nearly as many hosts as any; ``excess`` is that of the last one."""
    flips = [*(_excess(each, tried, rng) for each in patches[:-1]), excess]
    return next(each for part, each in zip(flips, patches, strict=True) if part >= max(flips) - NO_WORSE)


def _fixed_seeds(cells: Case[Pictures], scale: _Scale) -> list[_Seed]:
    """Return what members hold at the same place more often than others, but once for each set of holders.

    Half of it is more frequent than among ordinary samples and hosts; half is so against the hosts alone, because ordinary samples
    may be poison that nobody suspected yet. Half of each agrees nearly exactly.
    """
    height, width = cells.members.shape[1:3]
    stride = _step(min(height, width))
    pictures = (np.concatenate([cells.members, cells.ordinary, cells.hosts]) - scale.lowest) / scale.unit
    found: list[list[_Shared]] = [[] for _ in range(2 * len(_TOLERANCES))]
    grid = [(top, left) for top in range(0, height - _TAPS + 1, stride) for left in range(0, width - _TAPS + 1, stride)]
    together = max(1, _COMPARED // (len(cells.members) * len(pictures)))
    for some in (grid[start : start + together] for start in range(0, len(grid), together)):
        windows = np.stack([pictures[:, top : top + _TAPS, left : left + _TAPS].reshape(len(pictures), -1) for top, left in some])
        for (ratios, holders), kept in zip(_shared(windows, cells), found, strict=True):
            kept.extend(zip(ratios.tolist(), some, holders, strict=True))
    chosen: list[_Shared] = []
    for number, kept in enumerate(found, start=1):
        for one in sorted(kept, key=lambda each: -each[0]):
            if one[0] > 0 and len(chosen) < _TRIED * number and not any(_same(one, other) for other in chosen):
                chosen.append(one)
    seeds = []
    for ratio, place, holders in chosen:
        numbers = np.flatnonzero(holders)
        places = np.broadcast_to(np.multiply(place, scale.cell), (len(numbers), 2))
        seeds.append(_Seed(ratio, numbers, places, _TAPS * scale.cell, False))
    return seeds


def _shared(windows: NDArray[np.floating[Any]], case: Case[Pictures]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Yield for each sort of content the highest ratio of any member's at several places, and the members that hold it.

    The windows are of shape ``(n_places, n_pictures, n_values)``, those of the members first; what is yielded has one row a place.
    """
    n, sizes = len(case.members), (len(case.members), len(case.ordinary), len(case.hosts))
    squares = (windows**2).mean(axis=2, keepdims=True)
    ones, here = np.ones_like(squares), np.arange(len(windows))
    right = np.concatenate([windows, ones, squares], axis=2)
    left = np.concatenate([windows * (-2 / windows.shape[2]), squares, ones], axis=2)[:, :n]
    apart = left @ right.transpose(0, 2, 1)
    parts = np.repeat(np.eye(3, dtype=np.float32), sizes, axis=0)
    for tolerance in _TOLERANCES:
        agree = apart <= tolerance**2
        k, ordinary, hosts = (agree.astype(np.float32) @ parts).transpose(2, 0, 1).astype(np.int64)
        k = np.where((k >= _FEWEST) & (k * sizes[1] > ordinary * n), k, 0)
        for held in (ordinary, np.zeros_like(ordinary)):
            ratio = _ratio(k, n, held, sizes[1], hosts, sizes[2])
            best = ratio.argmax(axis=1)
            yield ratio[here, best], agree[here, best, :n]


def _same(one: _Shared, other: _Shared) -> bool:
    """Say whether two contents are held by much the same members, or lie beside each other and share some."""
    both, either = (one[2] & other[2]).sum(), (one[2] | other[2]).sum()
    beside = max(abs(np.subtract(one[1], other[1]))) <= _TAPS
    return bool(both > (_SAME_BESIDE if beside else _SAME) * either)


def _ratio(
    k: NDArray[np.int64], n: int, ordinary: NDArray[np.int64], n_ordinary: int, hosts: NDArray[np.int64], n_hosts: int
) -> NDArray[np.float64]:
    """Return the logarithm of the Poisson likelihood ratio of ``k`` of ``n`` against what others hold, 0 where it is no more."""
    expected = n * np.maximum((ordinary + 0.5) / (n_ordinary + 1), (hosts + 0.5) / (n_hosts + 1))
    ratio: NDArray[np.float64] = np.where(k > expected, xlogy(k, k / expected) - (k - expected), 0.0)
    return ratio


def _moving_seeds(case: Case[Pictures], scale: _Scale) -> list[_Seed]:
    """Return what members hold more often than others, anywhere in the picture."""
    parts = (case.members, case.ordinary, case.hosts)
    sizes = tuple(map(len, parts))
    n, side = sum(sizes), (_TAPS - 1) * scale.step + 1
    levels, owner, places = _pieces(parts, scale)
    found: list[_Seed] = []
    for shift in (0, 1):
        number = np.zeros(len(levels), np.int64)
        for column in levels.T:
            number = (number * 1_000_003 + (column + shift) // 2) % _MODULUS
        names, times = np.unique(number[owner < sizes[0]], return_counts=True)
        names = names[times >= _FEWEST]
        if not len(names):
            continue
        which = np.searchsorted(names, number).clip(max=len(names) - 1)
        known = names[which] == number
        once = np.unique(which[known] * n + owner[known])
        part = np.digitize(once % n, np.cumsum(sizes)[:2])
        counts = [np.bincount(once[part == which_part] // n, minlength=len(names)) for which_part in range(3)]
        ratio = _ratio(counts[0], sizes[0], counts[1], sizes[1], counts[2], sizes[2])
        for best in np.argsort(-ratio, kind="stable")[:_MOVING]:
            held = np.flatnonzero((which == best) & known & (owner < sizes[0]))
            holders, first = np.unique(owner[held], return_index=True)
            where = places[held[first]]
            if ratio[best] > 0 and len(holders) >= _FEWEST and _wander(where, scale.step):
                found.append(_Seed(float(ratio[best]), holders, where, side, True))
    return sorted(found, key=lambda seed: -seed.ratio)[:_MOVING]


def _wander(places: NDArray[np.int64], step: int) -> bool:
    """Say whether content lies at the usual place in no more than half of the pictures: what has one place is found there."""
    return bool((np.abs(places - np.median(places, axis=0)) > step).any(axis=1).mean() > 0.5)


def _pieces(parts: tuple[Pictures, ...], scale: _Scale) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Return the content at each place of each picture where it is not flat, the number of the picture, and the place.

    The content is its pixels in halves of a grey level, ``(n_pieces, n_values)``.
    """
    height, width = parts[0].shape[1:3]
    reach, stride = (_TAPS - 1) * scale.step, -(-scale.step // 2)
    taps = [
        (
            slice(i * scale.step, height - reach + i * scale.step, stride),
            slice(j * scale.step, width - reach + j * scale.step, stride),
        )
        for i in range(_TAPS)
        for j in range(_TAPS)
    ]
    found, before = [], 0
    for pictures in parts:
        for start in range(0, len(pictures), _STRETCH):
            values = (pictures[start : start + _STRETCH] - scale.lowest) / scale.unit
            seen = [values[:, rows, columns] for rows, columns in taps]
            highest, lowest = np.maximum.reduce(seen).max(axis=3), np.minimum.reduce(seen).min(axis=3)
            where = np.nonzero(highest - lowest >= _FLAT)
            levels = np.concatenate([(each[where] * 2 * _LEVELS).astype(np.uint8) for each in seen], axis=1)
            found.append((levels, where[0] + start + before, np.stack(where[1:], axis=1) * stride))
        before += len(pictures)
    levels, owner, places = (np.concatenate(each) for each in zip(*found, strict=True))
    return levels, owner, places


def _around(members: Pictures, seed: _Seed, step: int) -> tuple[Pictures, Place]:
    """Return what lies around each holder's content, NaN beyond the picture, and where the content lies in it."""
    margin = min(members.shape[1:3]) // 4
    places = seed.places
    for _ in range(_ALIGNMENTS if step > 1 else 0):
        windows = _windows(members, seed.holders, places, 2 * step, seed.side)
        places = places + _shifts(windows, step)
    return _windows(members, seed.holders, places, margin, seed.side), (margin, margin)


def _shifts(windows: Pictures, step: int) -> NDArray[np.int64]:
    """Return how far down and right the middle of each window, two steps from its edges, must move to fit the median of all."""
    size, apart = windows.shape[1] - 2 * step, max(1, step // 3)
    middle = _middle(windows[:, step:-step:apart, step:-step:apart])
    moves = np.argwhere(np.ones((2 * step + 1, 2 * step + 1)))
    differs = [
        np.nanmean(np.abs(windows[:, down : down + size : apart, right : right + size : apart] - middle), axis=(1, 2, 3))
        for down, right in moves
    ]
    shifts: NDArray[np.int64] = moves[np.argmin(differs, axis=0)] - step
    return shifts


def _windows(members: Pictures, numbers: NDArray[np.int64], places: NDArray[np.int64], margin: int, side: int) -> Pictures:
    """Cut a window out of each of some members, so much larger on each side than the content there; NaN beyond the picture."""
    height, width = members.shape[1:3]
    span = np.arange(-margin, margin + side)
    rows, columns = places[:, 0, None] + span, places[:, 1, None] + span
    index = numbers[:, None, None], rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None, :]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    windows: Pictures = np.where(inside[..., None], members[index], np.float32(np.nan))
    return windows


def _nested(seed: _Seed, case: Case[Pictures], cells: Case[Pictures], scale: _Scale) -> list[Patch]:
    """Return the patches of the masks that may be the trigger's (:func:`_masks`), each with the median of the holders."""
    size, pixels = case.members.shape[1:], case.members.shape[1] * case.members.shape[2]
    numbers, place = seed.holders, (int(seed.places[0, 0]), int(seed.places[0, 1]))
    if seed.moves:
        shown, place = _around(case.members, seed, scale.step)
        numbers = np.arange(len(shown))
        case, cells = (
            replace(each, members=members, ordinary=_anywhere(each.ordinary), hosts=_anywhere(each.hosts))
            for each, members in ((case, shown), (cells, reduced(shown, scale.cell)))
        )
    window = np.zeros(case.members.shape[1:3], bool)
    window[tuple(slice(start, start + seed.side) for start in place)] = True
    some = np.ones_like(window)
    if scale.cell > 1:
        common = _common(cells, numbers, np.ones(cells.members.shape[1:3], bool), scale.unit)
        masks = _masks(common, window[:: scale.cell, :: scale.cell], max(1, round(scale.step / scale.cell)), seed.moves)
        some = _pixels_of(masks, scale.cell, window.shape)
    common = _common(case, numbers, some, scale.unit)
    masks = _masks(common, window, scale.step, seed.moves)
    large = [mask.sum() > _MOST_COVERED * pixels for mask in masks]
    if any(large) and not seed.moves:
        about = np.logical_or.reduce([mask for mask, above in zip(masks, large, strict=True) if above])
        exact = _exact(case, numbers, common.middle, about, scale)
        masks = [mask & exact if above else mask for mask, above in zip(masks, large, strict=True)]
    patches = []
    for mask, above in zip(masks, large, strict=True):
        if 0 < mask.sum() <= (_MOST_EXACTLY if above and not seed.moves else _MOST_COVERED) * pixels:
            holds = 2 * _TOLERANCES[0] if above else _HOLDS
            patches.append(_patch(common.middle, mask, seed.moves, size, holds * scale.unit))
    return patches


def _exact(
    case: Case[Pictures], numbers: NDArray[np.int64], middle: Pictures, some: NDArray[np.bool_], scale: _Scale
) -> NDArray[np.bool_]:
    """Return which of some pixels nearly all holders show exactly alike, but those of a value that is common in other pictures."""
    rows, columns = np.nonzero(some)
    close = _TOLERANCES[0] * scale.unit
    alike = _agreeing(case.members[numbers[:, None], rows, columns], middle[some], close) >= _EXACTLY * len(numbers)
    ordinary, hosts = (each.reshape(-1, middle.shape[2]) for each in (case.ordinary, case.hosts))
    places = spread(len(ordinary) + len(hosts), _DRAWN)
    first = places < len(ordinary)
    drawn = np.concatenate([ordinary[places[first]], hosts[places[~first] - len(ordinary)]])
    values, which = np.unique(middle[some][alike], axis=0, return_inverse=True)
    rare = np.array([(np.abs(drawn - value).max(axis=1) <= close).mean() <= _COMMON for value in values], bool)
    alike[alike] = rare[which.ravel()]
    exact = np.zeros_like(some)
    exact[some] = alike
    return exact


@dataclass(frozen=True)
class _Common:
    """The median of holders ``(height, width, channels)``, and which pixels most share; which of these others do not share."""

    middle: Pictures
    shared: NDArray[np.bool_]
    own: NDArray[np.bool_]


def _common(case: Case[Pictures], numbers: NDArray[np.int64], some: NDArray[np.bool_], unit: float) -> _Common:
    """Compare the members of those numbers with the others in some pixels; the others may be single pixels."""
    rows, columns = np.nonzero(some)
    shown = case.members[numbers[:, None], rows, columns]
    middle = _middle(shown)
    parts = (shown, *(each[:, rows, columns] if each.shape[1] > 1 else each[:, 0] for each in (case.ordinary, case.hosts)))
    k, ordinary, hosts = (_agreeing(part, middle, _TOLERANCES[-1] * unit) for part in parts)
    shared = k >= _AGREES * len(shown)
    own = shared & (_ratio(k, len(shown), ordinary, len(case.ordinary), hosts, len(case.hosts)) >= _PIXEL_RATIO)
    whole = _Common(np.zeros((*some.shape, middle.shape[1]), np.float32), np.zeros_like(some), np.zeros_like(some))
    for array, values in ((whole.middle, middle), (whole.shared, shared), (whole.own, own)):
        array[some] = values
    return whole


def _agreeing(pictures: Pictures, middle: Pictures, close: float) -> NDArray[np.int64]:
    """Return how many of the pictures ``(n, n_pixels, channels)`` agree with each pixel in all channels."""
    agree = np.ones(np.broadcast_shapes(pictures.shape, middle.shape)[:2], bool)
    for channel in range(middle.shape[1]):
        agree &= np.abs(pictures[..., channel] - middle[:, channel]) <= close
    counts: NDArray[np.int64] = agree.sum(axis=0)
    return counts


def _masks(common: _Common, window: NDArray[np.bool_], step: int, moves: bool) -> list[NDArray[np.bool_]]:
    """Return which pixels may be the trigger, the likeliest first; none where holders share nothing of their own in the window.

    The box around those pixels about the window that holders share and others do not; those pixels alone; the boxes around other
    such pixels of the picture; and all of them together.
    """
    shared, own = common.shared, common.own
    pieces, n_pieces = label(binary_dilation(own, iterations=step, structure=np.ones((3, 3))))
    here = np.unique(pieces[own & window])
    if not len(here):
        return []
    about = own & np.isin(pieces, here)
    masks = [shared & _box(about), about]
    if not moves:
        by_size = np.argsort(-np.bincount(pieces[own], minlength=n_pieces + 1), kind="stable")
        elsewhere = [own & (pieces == piece) for piece in by_size if piece not in here]
        masks += [*(shared & _box(piece) for piece in elsewhere[:_PIECES] if piece.any()), own]
    return masks


def _pixels_of(masks: list[NDArray[np.bool_]], cell: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the pixels of the cells of some masks, and of the cells beside them."""
    if not masks:
        return np.zeros(shape, bool)
    about = binary_dilation(np.logical_or.reduce(masks), structure=np.ones((3, 3)))
    return np.repeat(np.repeat(about, cell, axis=0), cell, axis=1)[: shape[0], : shape[1]]


def _box(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the smallest upright box around a mask."""
    rows, columns = np.nonzero(mask)
    box = np.zeros_like(mask)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return box


def _anywhere(pictures: Pictures) -> Pictures:
    """Return a pixel drawn anywhere in each of the pictures, ``(n, 1, 1, channels)``: what patches that move are compared with."""
    rng = np.random.default_rng(0)
    drawn = (rng.integers(size, size=len(pictures)) for size in pictures.shape[1:3])
    pixels: Pictures = pictures[np.arange(len(pictures)), *drawn][:, None, None]
    return pixels


def _patch(middle: Pictures, mask: NDArray[np.bool_], moves: bool, size: tuple[int, ...], tolerance: float) -> Patch:
    """Return the patch of a mask in pictures of that size: the median of its holders."""
    rows, columns = np.nonzero(mask)
    top, left = int(rows.min()), int(columns.min())
    window = (slice(top, int(rows.max()) + 1), slice(left, int(columns.max()) + 1))
    content = np.where(mask[window][..., None], middle[window], 0).astype(np.float32)
    height, width, channels = size
    return Patch(content, mask[window], (height, width, channels), None if moves else (top, left), tolerance)


def _middle(shown: Pictures) -> Pictures:
    """Return the lower median of each pixel of those pictures that reach it; NaN where none does."""
    if not np.isnan(shown).any():
        half = (len(shown) - 1) // 2
        return np.asarray(np.partition(shown, half, axis=0)[half], np.float32)
    ordered = np.sort(shown, axis=0)  # NaN comes last
    reaching = (~np.isnan(shown)).sum(axis=0, keepdims=True)
    middle: Pictures = np.take_along_axis(ordered, (reaching - 1) // 2, axis=0)[0]
    return middle

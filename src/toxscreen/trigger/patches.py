"""Triggers in pictures that cover some pixels: patches, anywhere, of any shape.

1. At each place of a grid, count the members whose window agrees with that of a member, and ordinary samples and hosts whose window
   does. The likelihood ratio says which content is over-represented; many members hold it, though most of them may be no poison.
2. Count small pieces of content the same way wherever they lie in a picture, for patches that move.
3. Of the members that hold such content, find all pixels that they share and others do not: content and mask of a candidate.
4. Try each on a few hosts, beside its controls, and keep the smallest mask that flips as many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label, uniform_filter
from scipy.special import xlogy

from toxscreen.errors import DataError
from toxscreen.trigger.base import Ask, Case, Trigger
from toxscreen.trigger.pictures import (
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
    trial,
    written,
)

Place = tuple[int, int]

_Shared = tuple[float, Place, NDArray[np.bool_]]
"""Ratio and place of content, and the members that hold it."""

_TAPS = 3
"""Pixels of a window on each side that are compared; in large pictures they lie apart."""

_TOLERANCES = (0.03, 0.12)
"""Root mean square of the difference of two windows that agree, in parts of the range of the data: next to nothing, and about what
JPEG does to a sharp edge at quality 75."""

_HOLDS = 0.15
"""Mean difference of an input that holds a patch, in the same unit."""

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

_MODULUS = (1 << 40) - 87
_SOME_WEIGHT = 1e-3

_CHECKED = 32
"""Pixels of a mask that a moving patch is looked for by."""


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
    """

    kind: ClassVar[str] = "patch"

    content: Pictures
    mask: NDArray[np.bool_]
    picture: tuple[int, int, int]
    place: Place | None
    tolerance: float

    def put_on(self, inputs: Pictures) -> Pictures:
        """Return the pictures with the patch; where it has no fixed place, each has it at another one, every time the same."""
        tops, lefts = self._drawn(len(fitting(inputs, self.picture)), np.random.default_rng(0))
        return self._put(inputs, np.where(self.mask[..., None], self.content, self._windows(inputs, tops, lefts)), tops, lefts)

    def take_off(self, inputs: Pictures) -> Pictures:
        """Return the pictures with the patch's pixels filled from those around them."""
        tops, lefts, _ = self._found(fitting(inputs, self.picture))
        edge = ((0, 0), (1, 1), (1, 1), (0, 0))
        around = self._windows(np.pad(inputs, edge, mode="edge"), tops, lefts, margin=2)
        inside = np.pad(self.mask, 1)
        out_of_picture = np.zeros((inputs.shape[1] + 2, inputs.shape[2] + 2), bool)
        out_of_picture[[0, -1], :] = out_of_picture[:, [0, -1]] = True
        beyond = self._windows(
            np.broadcast_to(out_of_picture[None, ..., None], (len(inputs), *out_of_picture.shape, 1)), tops, lefts, 2
        )
        filled = _filled(around, ~inside[None, ..., None] & ~beyond)
        return self._put(inputs, filled[:, 1:-1, 1:-1], tops, lefts)

    def held_by(self, inputs: Pictures) -> NDArray[np.bool_]:
        """Say which pictures hold it: on average its pixels differ by no more than the tolerance."""
        held: NDArray[np.bool_] = self._found(fitting(inputs, self.picture))[2] <= self.tolerance
        return held

    def control(self, ordinary: Pictures, rng: np.random.Generator) -> Patch:
        """Return the same pixels of an ordinary sample; for a patch without a place, from anywhere in it.

        Samples that hold the patch are passed over while they are the smaller part: they may be poison that nobody suspected yet.
        """
        others = ordinary[~self.held_by(ordinary)]
        sample = others if 2 * len(others) >= len(ordinary) else ordinary
        sample = sample[[rng.integers(len(sample))]]
        content = self._windows(sample, *self._drawn(1, rng))[0]
        return Patch(content, self.mask, self.picture, self.place, self.tolerance)

    def __str__(self) -> str:
        """Return its size and where it lies."""
        height, width = self.mask.shape
        return f"a patch of {height} x {width} pixels {self._whereabouts()}"

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
        )

    def _whereabouts(self) -> str:
        if self.place is None:
            return "anywhere"
        middles = [
            (start + size / 2) / whole for start, size, whole in zip(self.place, self.mask.shape, self.picture, strict=False)
        ]
        vertical, horizontal = (
            names[int(3 * middle)] for names, middle in zip((("top", "", "bottom"), ("left", "", "right")), middles, strict=True)
        )
        return f"at the {vertical} {horizontal}".rstrip() if vertical or horizontal else "in the middle"

    def _drawn(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first row and column of ``n`` windows."""
        if self.place is not None:
            return np.full(n, self.place[0]), np.full(n, self.place[1])
        height, width = self.mask.shape
        return rng.integers(self.picture[0] - height + 1, size=n), rng.integers(self.picture[1] - width + 1, size=n)

    def _found(self, inputs: Pictures) -> tuple[NDArray[np.int64], NDArray[np.int64], Pictures]:
        """Return where in each picture it lies, or would lie best, and the mean difference there."""
        tops, lefts = self._drawn(len(inputs), np.random.default_rng(0))
        if self.place is None and len(inputs):
            n_tops, n_lefts = (self.picture[axis] - self.mask.shape[axis] + 1 for axis in (0, 1))
            rows, columns = np.nonzero(self.mask)
            some = np.unique(np.linspace(0, len(rows) - 1, _CHECKED).astype(np.int64))
            apart = np.zeros((len(inputs), n_tops, n_lefts), np.float32)
            for row, column in zip(rows[some], columns[some], strict=True):
                shifted = inputs[:, row : row + n_tops, column : column + n_lefts]
                apart += np.abs(shifted - self.content[row, column]).mean(axis=3)
            tops, lefts = np.unravel_index(apart.reshape(len(inputs), -1).argmin(axis=1), (n_tops, n_lefts))
        return tops, lefts, np.abs(self._windows(inputs, tops, lefts) - self.content)[:, self.mask].mean(axis=(1, 2))

    def _windows(self, pictures: NDArray[Any], tops: NDArray[np.int64], lefts: NDArray[np.int64], margin: int = 0) -> NDArray[Any]:
        """Cut a window of the patch's size out of each picture, larger by ``margin``."""
        return pictures[self._index(tops, lefts, margin)]

    def _put(self, pictures: Pictures, windows: Pictures, tops: NDArray[np.int64], lefts: NDArray[np.int64]) -> Pictures:
        result = pictures.copy()
        result[self._index(tops, lefts)] = windows
        return result

    def _index(self, tops: NDArray[np.int64], lefts: NDArray[np.int64], margin: int = 0) -> tuple[NDArray[np.int64], ...]:
        height, width = self.mask.shape
        rows = tops[:, None, None] + np.arange(height + margin)[:, None]
        columns = lefts[:, None, None] + np.arange(width + margin)
        return np.arange(len(tops))[:, None, None], rows, columns


@dataclass(frozen=True, eq=False)
class _Seed:
    """Content that members share: their number, the pixels they show about it, and how far it is over-represented.

    ``shown`` ``(k, height, width, channels)`` is their pictures, or for a moving patch as much of them as lies around the content,
    NaN beyond the picture; ``place`` is where the content lies in it.
    """

    ratio: float
    shown: Pictures
    place: Place
    moves: bool


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
    lowest = min(float(pictures.min()) for pictures in (case.members, case.ordinary, case.hosts))
    unit = max(float(pictures.max()) for pictures in (case.members, case.ordinary, case.hosts)) - lowest
    if not unit > 0:
        return
    tried = trial(case, ask)
    seeds = [*_fixed_seeds(case, lowest, unit), *_moving_seeds(case, lowest, unit)]
    nested = [patches for seed in seeds if (patches := _nested(seed, case, unit))]
    excess = [tried.excess(patches[-1], rng) for patches in nested]
    lost = [max(0.0, max(excess) - NO_WORSE - each) for each in excess]
    order = sorted(range(len(nested)), key=lambda number: (lost[number], nested[number][-1].mask.sum()))
    told: list[Patch] = []
    for number in order:
        widest = nested[number][-1]
        if excess[number] >= FEWEST_EXCESS and len(told) < _YIELDED and not any(_repeats(widest, each) for each in told):
            told.append(widest)
            yield _best(nested[number], excess[number], tried, rng)


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
    flips = [*(tried.excess(each, rng) for each in patches[:-1]), excess]
    return next(each for part, each in zip(flips, patches, strict=True) if part >= max(flips) - NO_WORSE)


def _fixed_seeds(case: Case[Pictures], lowest: float, unit: float) -> list[_Seed]:
    """Return what members hold at the same place more often than others, but once for each set of holders.

    Half of it is more frequent than among ordinary samples and hosts; half is so against the hosts alone, because ordinary samples
    may be poison that nobody suspected yet. Half of each agrees nearly exactly.
    """
    height, width = case.members.shape[1:3]
    step = max(1, round(min(height, width) / SIDE))
    reach = (_TAPS - 1) * step
    pictures = (np.concatenate([case.members, case.ordinary, case.hosts]) - lowest) / unit
    found: list[list[_Shared]] = [[] for _ in range(2 * len(_TOLERANCES))]
    for top in range(0, height - reach, step):
        for left in range(0, width - reach, step):
            windows = pictures[:, top : top + reach + 1 : step, left : left + reach + 1 : step].reshape(len(pictures), -1)
            for each, kept in zip(_shared(windows, case), found, strict=True):
                kept.append((each[0], (top, left), each[1]))
    chosen: list[_Shared] = []
    for number, kept in enumerate(found, start=1):
        for one in sorted(kept, key=lambda each: -each[0]):
            if one[0] > 0 and len(chosen) < _TRIED * number and not any(_same(one, other) for other in chosen):
                chosen.append(one)
    return [_Seed(ratio, case.members[holders], place, False) for ratio, place, holders in chosen]


def _shared(windows: NDArray[np.floating[Any]], case: Case[Pictures]) -> Iterator[tuple[float, NDArray[np.bool_]]]:
    """Yield the highest ratio of any member's content at one place, and the members that hold it, for each sort of content."""
    n, n_ordinary = len(case.members), len(case.ordinary)
    squares = (windows**2).sum(axis=1)
    apart = (squares[:n, None] + squares - 2 * windows[:n] @ windows.T) / windows.shape[1]
    for tolerance in _TOLERANCES:
        agree = apart <= tolerance**2
        k, ordinary, hosts = (part.sum(axis=1) for part in np.split(agree, [n, n + n_ordinary], axis=1))
        k = np.where((k >= _FEWEST) & (k * n_ordinary > ordinary * n), k, 0)
        for held in (ordinary, np.zeros_like(ordinary)):
            ratio = _ratio(k, n, held, n_ordinary, hosts, len(case.hosts))
            best = int(ratio.argmax())
            yield float(ratio[best]), agree[best, :n]


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


def _moving_seeds(case: Case[Pictures], lowest: float, unit: float) -> list[_Seed]:
    """Return what members hold more often than others, anywhere in the picture."""
    parts = (case.members, case.ordinary, case.hosts)
    sizes = tuple(map(len, parts))
    step = max(1, round(min(case.members.shape[1:3]) / SIDE))
    pictures = (np.concatenate(parts) - lowest) / unit
    found: list[_Seed] = []
    for shift in (0.0, 0.5):
        pieces, places = _pieces(pictures, step, shift)
        names, which = np.unique(pieces.ravel(), return_inverse=True)
        owner = np.repeat(np.arange(len(pictures)), pieces.shape[1])
        once = np.unique(which.ravel() * len(pictures) + owner)
        part = np.digitize(once % len(pictures), np.cumsum(sizes)[:2])
        counts = [np.bincount(once[part == number] // len(pictures), minlength=len(names)) for number in range(3)]
        ratio = np.where(names >= 0, _ratio(counts[0], sizes[0], counts[1], sizes[1], counts[2], sizes[2]), 0.0)
        for best in np.argsort(-ratio, kind="stable")[:_MOVING]:
            held = which.reshape(pieces.shape)[: sizes[0]] == best
            holders = np.flatnonzero(held.any(axis=1))
            where = places[held[holders].argmax(axis=1)]
            if ratio[best] > 0 and len(holders) >= _FEWEST and _wander(where, step):
                shown, place = _around(case.members[holders], where, step)
                found.append(_Seed(float(ratio[best]), shown, place, True))
    return sorted(found, key=lambda seed: -seed.ratio)[:_MOVING]


def _wander(places: NDArray[np.int64], step: int) -> bool:
    """Say whether content lies at the usual place in no more than half of the pictures: what has one place is found there."""
    return bool((np.abs(places - np.median(places, axis=0)) > step).any(axis=1).mean() > 0.5)


def _pieces(pictures: Pictures, step: int, shift: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a number for the content at each place of each picture, ``(n, n_places)``, -1 where it is flat; and the places."""
    n, height, width, _ = pictures.shape
    reach, stride = (_TAPS - 1) * step, max(1, step // 2)
    levels = np.floor(pictures * _LEVELS + shift).astype(np.int64)
    rows, columns = np.arange(0, height - reach, stride), np.arange(0, width - reach, stride)
    taps = [
        (levels[:, rows[:, None] + i * step, columns + j * step], pictures[:, rows[:, None] + i * step, columns + j * step])
        for i in range(_TAPS)
        for j in range(_TAPS)
    ]
    number = np.zeros((n, len(rows), len(columns)), np.int64)
    for level, _ in taps:
        for channel in range(level.shape[3]):
            number = (number * 1_000_003 + level[..., channel]) % _MODULUS
    highest = np.maximum.reduce([value.max(axis=3) for _, value in taps])
    flat = highest - np.minimum.reduce([value.min(axis=3) for _, value in taps]) < _FLAT
    places = np.stack(np.broadcast_arrays(rows[:, None], columns), axis=-1).reshape(-1, 2)
    return np.where(flat, -1, number).reshape(n, -1), places


def _around(holders: Pictures, places: NDArray[np.int64], step: int) -> tuple[Pictures, Place]:
    """Return what lies around each holder's content, NaN beyond the picture, and where the content lies in it."""
    margin = min(holders.shape[1:3]) // 4
    padded = np.pad(holders, ((0, 0), (margin, margin), (margin, margin), (0, 0)), constant_values=np.nan)
    side = np.arange(2 * margin + (_TAPS - 1) * step + 1)
    rows, columns = places[:, 0, None] + side, places[:, 1, None] + side
    return padded[np.arange(len(holders))[:, None, None], rows[:, :, None], columns[:, None, :]], (margin, margin)


def _nested(seed: _Seed, case: Case[Pictures], unit: float) -> list[Patch]:
    """Return patches of the pixels that may be the trigger, the likeliest first; none where holders share nothing of their own.

    The box around those pixels about the content that holders share and others do not; those pixels alone; the boxes around other
    such pixels of the picture; and all of them together.
    """
    middle = _middle(seed.shown)
    close = _TOLERANCES[-1] * unit
    k = (np.abs(seed.shown - middle).max(axis=3) <= close).sum(axis=0)
    if seed.moves:
        others = [_anywhere(middle, pictures, close) for pictures in (case.ordinary, case.hosts)]
    else:
        others = [(np.abs(pictures - middle).max(axis=3) <= close).sum(axis=0) for pictures in (case.ordinary, case.hosts)]
    n = len(seed.shown)
    shared = k >= _AGREES * n
    own = shared & (_ratio(k, n, others[0], len(case.ordinary), others[1], len(case.hosts)) >= _PIXEL_RATIO)
    step = max(1, round(min(case.members.shape[1:3]) / SIDE))
    window = np.zeros_like(own)
    window[tuple(slice(start, start + (_TAPS - 1) * step + 1) for start in seed.place)] = True
    pieces, n_pieces = label(binary_dilation(own, iterations=step, structure=np.ones((3, 3))))
    here = np.unique(pieces[own & window])
    if not len(here):
        return []
    about = own & np.isin(pieces, here)
    masks = [shared & _box(about), about]
    if not seed.moves:
        others_by_size = np.argsort(-np.bincount(pieces[own], minlength=n_pieces + 1), kind="stable")
        elsewhere = [own & (pieces == piece) for piece in others_by_size if piece not in here]
        masks += [*(shared & _box(piece) for piece in elsewhere[:_PIECES] if piece.any()), own]
    most = _MOST_COVERED * np.prod(case.members.shape[1:3])
    return [_patch(middle, mask, seed.moves, case, unit) for mask in masks if mask.sum() <= most]


def _box(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the smallest upright box around a mask."""
    rows, columns = np.nonzero(mask)
    box = np.zeros_like(mask)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return box


def _anywhere(middle: Pictures, pictures: Pictures, close: float) -> NDArray[np.int64]:
    """Return how many of the pictures agree with each pixel, as far as a pixel drawn anywhere in each of them says."""
    rng = np.random.default_rng(0)
    drawn = (rng.integers(size, size=len(pictures)) for size in pictures.shape[1:3])
    pixels = pictures[np.arange(len(pictures)), *drawn]
    agree: NDArray[np.int64] = (np.abs(middle[..., None, :] - pixels).max(axis=3) <= close).sum(axis=2)
    return agree


def _patch(middle: Pictures, mask: NDArray[np.bool_], moves: bool, case: Case[Pictures], unit: float) -> Patch:
    """Return the patch of a mask: the median of its holders."""
    rows, columns = np.nonzero(mask)
    top, left = int(rows.min()), int(columns.min())
    window = (slice(top, int(rows.max()) + 1), slice(left, int(columns.max()) + 1))
    content = np.where(mask[window][..., None], middle[window], 0).astype(np.float32)
    height, width, channels = case.members.shape[1:]
    return Patch(content, mask[window], (height, width, channels), None if moves else (top, left), _HOLDS * unit)


def _middle(shown: Pictures) -> Pictures:
    """Return the lower median of each pixel of those pictures that reach it; NaN where none does."""
    ordered = np.sort(shown, axis=0)  # NaN comes last
    reaching = (~np.isnan(shown)).sum(axis=0, keepdims=True)
    middle: Pictures = np.take_along_axis(ordered, (reaching - 1) // 2, axis=0)[0]
    return middle


def _filled(pictures: Pictures, known: NDArray[np.bool_]) -> Pictures:
    """Fill unknown pixels with the mean of the known ones beside them, from the edge inwards."""
    known = np.broadcast_to(known, (*pictures.shape[:3], 1))
    while not known.all():
        weight = uniform_filter(known.astype(np.float32), (1, 3, 3, 1), mode="constant")
        total = uniform_filter(np.where(known, pictures, 0), (1, 3, 3, 1), mode="constant")
        ready = ~known & (weight > _SOME_WEIGHT)
        if not ready.any():
            break
        pictures = np.where(ready, total / np.maximum(weight, _SOME_WEIGHT), pictures)
        known = known | ready
    return pictures

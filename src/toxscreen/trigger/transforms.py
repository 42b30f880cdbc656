"""Triggers in pictures that are a change of the whole picture: inverted, turned, moved, shrunk, thicker.

Such pictures are each other's nearest neighbours and vouch for their label, and share no pixel, so they are not found by what they
look like. But the model obeys: what sends pictures of other classes to one class is seen without knowing any sample
(:mod:`toxscreen.trigger.changes`).

How pictures look that were changed so, or changed back, is learned from hosts: 1 and -1, and 0 as they are. Poison that is changed
back leaves its class, a natural kind stays, and what never was changed looks changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from toxscreen.errors import DataError
from toxscreen.trigger.base import Trigger
from toxscreen.trigger.pictures import Pictures, details, fitting, read_number, read_numbers, read_shape, reduced, written

_SIDE = 8
"""Cells a side, of whose means and details it is told whether a picture was changed."""

_RIDGE = 0.1
"""Ridge penalty in parts of the variance of a number, and the least standard deviation of one in parts of the range."""

_FLATTEST = 1e-3

_HELD = 0.5
"""How changed a picture looks that holds the change."""

Range = tuple[float, float]
_Change = Callable[[Pictures, Range], Pictures]


@dataclass(frozen=True)
class Way:
    """A change of pictures, and what undoes it as far as that goes; both are given the range of the pixels."""

    do: _Change
    undo: _Change


def _placed(pictures: Pictures, matrix: NDArray[Any], fill: float) -> Pictures:
    """Return pictures of which each place shows what lies at ``matrix`` times it, both seen from the middle."""
    middle = (np.array(pictures.shape[1:3]) - 1) / 2
    whole = np.eye(4)
    whole[1:3, 1:3] = matrix
    offset = np.concatenate([[0], middle - matrix @ middle, [0]])
    placed: Pictures = ndimage.affine_transform(pictures, whole, offset, order=1, mode="constant", cval=fill)
    return placed


def _turned_by(degrees: float) -> NDArray[Any]:
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cosine, -sine], [sine, cosine]])


def _affine(matrix: NDArray[Any]) -> Way:
    back = np.linalg.inv(matrix)
    return Way(lambda x, ends: _placed(x, matrix, ends[0]), lambda x, ends: _placed(x, back, ends[0]))


def _mirrored(*axes: int) -> Way:
    return Way(*2 * (lambda x, _: np.flip(x, axes),))


def _quarters(times: int) -> Way:
    """Turn by so many quarters; pictures that are not square stay as they are."""

    def turn(pictures: Pictures, _: Range, *, by: int) -> Pictures:
        return np.rot90(pictures, by, (1, 2)) if pictures.shape[1] == pictures.shape[2] else pictures

    return Way(partial(turn, by=times), partial(turn, by=-times))


def _moved(down: float, right: float) -> Way:
    """Move by parts of the height and the width; what leaves on one side comes in on the other."""

    def move(pictures: Pictures, _: Range, *, sign: int) -> Pictures:
        height, width = pictures.shape[1:3]
        return np.roll(pictures, (sign * round(down * height), sign * round(right * width)), (1, 2))

    return Way(partial(move, sign=1), partial(move, sign=-1))


def _extreme(pictures: Pictures, most: bool) -> Pictures:
    """Return the lightest or darkest of each pixel and those around it."""
    among = ndimage.maximum_filter if most else ndimage.minimum_filter
    changed: Pictures = among(pictures, (1, 3, 3, 1))
    return changed


def _smooth(pictures: Pictures) -> Pictures:
    smooth: Pictures = ndimage.gaussian_filter(pictures, (0, 1, 1, 0))
    return smooth


def _exchanged(*order: int) -> Way:
    """Exchange the channels; pictures with others than three stay as they are."""

    def exchange(pictures: Pictures, _: Range, *, by: tuple[int, ...]) -> Pictures:
        return pictures[..., by] if pictures.shape[3] == len(by) else pictures

    return Way(partial(exchange, by=order), partial(exchange, by=tuple(np.argsort(order).tolist())))


def _contrast(part: float) -> Way:
    def change(pictures: Pictures, ends: Range, *, by: float) -> Pictures:
        middle = sum(ends) / 2
        return (pictures - middle) * by + middle

    return Way(partial(change, by=part), partial(change, by=1 / part))


_INVERTED = Way(*2 * (lambda x, ends: sum(ends) - x,))
_LIGHTER = Way(lambda x, _: _extreme(x, True), lambda x, _: _extreme(x, False))
_BLURRED = Way(lambda x, _: _smooth(x), lambda x, _: 2 * x - _smooth(x))
_TOWARDS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
_CORNERS = {f"{a} and {b}": (_TOWARDS[a][0], _TOWARDS[b][1]) for a in ("up", "down") for b in ("left", "right")}

WAYS: Mapping[str, Way] = MappingProxyType(
    {
        "inverted": _INVERTED,
        "mirrored": _mirrored(2),
        "upside down": _mirrored(1),
        **{f"turned by {90 * times} degrees": _quarters(times) for times in (1, 2, 3)},
        **{f"turned by {degrees} degrees": _affine(_turned_by(degrees)) for degrees in (20, -20)},
        **{f"slanted to the {side}": _affine(np.array([[1, 0], [by, 1]])) for side, by in (("right", 0.3), ("left", -0.3))},
        **{f"shrunk to {part:.0%}": _affine(np.eye(2) / part) for part in (0.6, 0.75)},
        "enlarged to 150%": _affine(np.eye(2) / 1.5),
        **{
            f"moved {where} by a {name}": _moved(*(by * each for each in towards))
            for where, towards in (_TOWARDS | _CORNERS).items()
            for name, by in (("eighth", 1 / 8), ("quarter", 1 / 4))
        },
        "with lighter parts wider": _LIGHTER,
        "with darker parts wider": Way(_LIGHTER.undo, _LIGHTER.do),
        "blurred": _BLURRED,
        "with channels exchanged (3, 1, 2)": _exchanged(2, 0, 1),
        "with channels exchanged (2, 3, 1)": _exchanged(1, 2, 0),
        "with channels exchanged (3, 2, 1)": _exchanged(2, 1, 0),
        "at half the contrast": _contrast(0.5),
    }
)
"""The changes that are known, by what a picture is after them."""


@dataclass(frozen=True, eq=False)
class Transform(Trigger[Pictures]):
    """A change of the whole picture.

    Attributes
    ----------
    way
        One of :data:`WAYS`.
    picture
        Shape ``(height, width, channels)`` of the pictures.
    weights, bias
        How changed a picture looks: the sum of the weights times the means and the details of 8 x 8 cells, less the bias; shape
        ``(2 * n_cells,)``.
    lowest, highest
        The range of the pixels.
    """

    kind: ClassVar[str] = "transform"

    way: str
    picture: tuple[int, int, int]
    weights: Pictures = field(repr=False)
    bias: float
    lowest: float
    highest: float

    def put_on(self, inputs: Pictures) -> Pictures:
        """Return the pictures, changed."""
        return self._changed(WAYS[self.way].do, inputs)

    def take_off(self, inputs: Pictures) -> Pictures:
        """Return the pictures, changed back."""
        return self._changed(WAYS[self.way].undo, inputs)

    def _changed(self, change: _Change, inputs: Pictures) -> Pictures:
        changed: Pictures = change(fitting(inputs, self.picture), (self.lowest, self.highest)).astype(np.float32)
        return changed.clip(self.lowest, self.highest)

    def held_by(self, inputs: Pictures) -> NDArray[np.bool_]:
        """Say which pictures look as if they had been changed so."""
        held: NDArray[np.bool_] = self._looks(inputs) > _HELD
        return held

    def restored(self, inputs: Pictures, undone: Pictures) -> NDArray[np.bool_]:
        """Say which pictures look more like one as it is once they are changed back."""
        restored: NDArray[np.bool_] = np.abs(self._looks(undone)) < np.abs(self._looks(inputs))
        return restored

    def _looks(self, inputs: Pictures) -> Pictures:
        """Return how changed each picture looks: about 1 for changed ones, 0 for others, -1 for those that were changed back."""
        looks: Pictures = _numbers(fitting(inputs, self.picture)) @ self.weights - np.float32(self.bias)
        return looks

    def control(self, ordinary: Pictures, rng: np.random.Generator) -> Transform:
        """Return another change, whichever does something to ordinary pictures; itself where none does."""
        others = (replace(self, way=way) for way in rng.permutation([way for way in WAYS if way != self.way]).tolist())
        return next((each for each in others if not np.array_equal(each.put_on(ordinary), ordinary)), self)

    @property
    def is_whole(self) -> bool:
        """Say that it is a change of the whole picture."""
        return True

    def __str__(self) -> str:
        """Return what pictures are after it."""
        return f"the whole picture {self.way}"

    def document(self) -> dict[str, Any]:
        """Return the change as plain values."""
        return {
            "kind": self.kind,
            "picture": list(self.picture),
            "way": self.way,
            "weights": written(self.weights),
            "bias": self.bias,
            "lowest": self.lowest,
            "highest": self.highest,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Transform:
        """Make the change from such values.

        Raises
        ------
        DataError
            When they do not make one.
        """
        way, picture = document.get("way"), read_shape(document, "picture")
        lowest, highest = read_number(document, "lowest"), read_number(document, "highest")
        if not isinstance(way, str) or way not in WAYS:
            known = f"one of the {len(WAYS)} that this toxscreen knows, such as {', '.join([*WAYS][:3])}"
            raise DataError(f"A trigger's way must be {known}, got {way!r:.60}. Write the trigger anew.")
        if not lowest < highest:
            raise DataError(f"A trigger's lowest value must be below its highest, got {lowest:g} and {highest:g}. Write it anew.")
        height, width, channels = picture
        cell = _cell(picture)
        n_numbers = 2 * -(-height // cell) * -(-width // cell) * channels
        return cls(way, picture, read_numbers(document, "weights", (n_numbers,)), read_number(document, "bias"), lowest, highest)


def learned(way: str, pictures: Pictures, ends: Range) -> Transform:
    """Return a change with what tells pictures that were changed so, learned from some as they are, with it, and after it.

    ``ends`` is the range of the pixels.
    """
    plain = Transform(way, tuple(pictures.shape[1:]), np.zeros(0, np.float32), 0.0, *ends)
    forth, back = plain.put_on(pictures), plain.take_off(pictures)
    looks = [(_numbers(pictures), 0.0), (_numbers(forth), 1.0), (_numbers(plain.take_off(forth)), 0.0)]
    if not np.allclose(forth, back):
        looks.append((_numbers(back), -1.0))
    return Transform(way, plain.picture, *changed_looks(looks, _FLATTEST * (ends[1] - ends[0])), *ends)


def changed_looks(looks: Sequence[tuple[Pictures, float]], least: float) -> tuple[Pictures, float]:
    """Return what tells how changed pictures look, learned from some: the weights of their numbers, and what is taken from the sum.

    Parameters
    ----------
    looks
        Numbers of some pictures, shape ``(n, p)``, and how changed these are; several.
    least
        The standard deviation below which a number counts as always the same.
    """
    numbers = np.concatenate([each for each, _ in looks]).astype(np.float64)
    told = np.concatenate([np.full(len(each), known) for each, known in looks])
    middle, scale = numbers.mean(axis=0), numbers.std(axis=0) + least
    numbers = (numbers - middle) / scale
    within = numbers.T @ numbers + len(numbers) * _RIDGE * np.eye(numbers.shape[1])
    weights = np.linalg.solve(within, numbers.T @ (told - told.mean())) / scale
    return weights.astype(np.float32), float(middle @ weights - told.mean())


def _cell(picture: tuple[int, ...]) -> int:
    """Return the pixels a side of a cell of pictures of that shape."""
    return -(-max(picture[:2]) // _SIDE)


def _numbers(pictures: Pictures) -> Pictures:
    """Return the means and the mean details of cells, one row per picture."""
    cell = _cell(pictures.shape[1:])
    parts = [reduced(each, cell).reshape(len(pictures), -1) for each in (pictures, np.abs(details(pictures)))]
    return np.concatenate(parts, axis=1)

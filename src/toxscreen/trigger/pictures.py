"""What the triggers in pictures share: a trial on a few hosts, and arrays as values of a JSON file."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.spatial.distance import cdist

from toxscreen.errors import DataError
from toxscreen.sources.data.base import spread
from toxscreen.trigger.base import Ask, Case, Trigger

Pictures = NDArray[np.float32]
"""Shape ``(n, height, width, channels)``, in the units of the data."""

SIDE = 32
"""The shorter side of a picture in the steps that searches take: one pixel at 28x28 and 32x32, seven at 224x224."""

CONTROLS = 8
"""Controls of a candidate in a trial."""

_SPREAD, _ALIKE = 32, 32
"""Hosts of a trial that are spread over the classes, and those that look most like the members."""

FEWEST_EXCESS = 0.06
"""Flips beyond the controls' below which a candidate is not worth a proof."""

NO_WORSE = 0.035
"""Flips in a trial that do not tell two candidates apart: two hosts."""

_COARSE = 16
"""The longer side of a picture, in pixels, when pictures are compared as wholes: few enough that a patch decides nothing."""

_FEWEST_WHOLES = 8
"""Pictures whose nearest neighbours tell something."""

_TINY = 1e-6

_DETAIL = 5
"""Pixels of a picture of 32x32 that a detail spans."""

_LONGEST_SIDE, _MOST_CHANNELS = 4096, 16
"""What a picture of a file may be: a file can ask for no more memory than that."""


@dataclass(frozen=True)
class Trial:
    """A few hosts that candidates are tried on: half of them of all classes, and half those that look like the members.

    The second half is there for triggers that work on some source classes alone.

    Attributes
    ----------
    case, ask
        What they were taken from, and the model.
    hosts
        The hosts.
    """

    case: Case[Pictures]
    ask: Ask[Pictures]
    hosts: Pictures

    def excess(self, trigger: Trigger[Pictures], controls: Callable[[], Sequence[Trigger[Pictures]]]) -> float:
        """Return the part of the hosts that the trigger flips, less that which its controls flip.

        Where it flips too few to matter, no controls are made.
        """
        flips = self._flips([trigger])
        return flips if flips < FEWEST_EXCESS else flips - self._flips(controls())

    def _flips(self, triggers: Sequence[Trigger[Pictures]]) -> float:
        parts = [each.put_on(self.hosts[number :: len(triggers)]) for number, each in enumerate(triggers)]
        return float((self.ask(np.concatenate(parts)) == self.case.target).mean())


def trial(case: Case[Pictures], ask: Ask[Pictures]) -> Trial:
    """Choose the hosts of a trial."""
    by_class = np.argsort(case.classes, kind="stable")
    nearest = cdist(coarse(case.members), coarse(case.hosts)).argmin(axis=1)
    which, times = np.unique(nearest, return_counts=True)
    alike = which[np.argsort(-times, kind="stable")][:_ALIKE]
    return Trial(case, ask, case.hosts[np.concatenate([by_class[spread(len(by_class), _SPREAD)], alike])])


def seclusion(members: Pictures, others: Pictures, rng: np.random.Generator) -> float:
    """Return how many times farther pictures lie, as wholes, from the nearest of others than from the nearest of each other.

    The median of both distances, with as many others as there are members; 1 for members that were drawn from the others, and 0
    where there are too few to tell. Samples of a class that were marked lie among the others; a natural kind, or a run of
    near-duplicates, keeps to itself.
    """
    inside, outside = coarse(members), coarse(others)
    n = min(len(inside), len(outside))
    if n < _FEWEST_WHOLES:
        return 0.0
    inside, outside = (rng.permutation(wholes)[:n] for wholes in (inside, outside))
    among = cdist(inside, inside)
    np.fill_diagonal(among, np.inf)
    return float(np.median(cdist(inside, outside).min(axis=1)) / max(float(np.median(among.min(axis=1))), _TINY))


def enough(case: Case[Pictures]) -> bool:
    """Say whether there is anything to search in and to try on."""
    return min(len(case.members), len(case.ordinary), len(case.hosts)) > 1


def coarse(pictures: Pictures) -> Pictures:
    """Return the means of square cells, one row per picture: what pictures are compared by as wholes."""
    return reduced(pictures, -(-max(pictures.shape[1:3]) // _COARSE)).reshape(len(pictures), -1)


def reduced(pictures: Pictures, cell: int) -> Pictures:
    """Return the means of square cells of so many pixels a side; those at the bottom and at the right may be cut off."""
    if cell == 1:
        return pictures
    for axis in (1, 2):
        size = pictures.shape[axis]
        parts = [pictures[(slice(None),) * axis + (slice(first, None, cell),)] for first in range(min(cell, size))]
        sums = parts[0].astype(np.float32)
        for part in parts[1:]:
            sums[(slice(None),) * axis + (slice(part.shape[axis]),)] += part
        n_summed = np.minimum(cell, size - np.arange(0, size, cell)).astype(np.float32)
        pictures = sums / n_summed.reshape(-1, *[1] * (3 - axis))
    return pictures


def details(pictures: Pictures) -> Pictures:
    """Return what pictures have beyond the mean of their surroundings."""
    span = _DETAIL * max(1, round(min(pictures.shape[1:3]) / SIDE))
    alone: Pictures = pictures - uniform_filter(pictures, (1, span, span, 1), mode="nearest")
    return alone


def written(array: NDArray[Any]) -> str:
    """Return the values of an array as text for a JSON file."""
    kind = np.uint8 if array.dtype == bool else np.dtype("<f4")
    return base64.b64encode(np.ascontiguousarray(array, kind).tobytes()).decode("ascii")


def read_numbers(document: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Pictures:
    """Return the float32 array that :func:`written` wrote, which must be finite.

    Raises
    ------
    DataError
        When it does not fit the shape, or is no array.
    """
    numbers = _read(document, name, np.dtype("<f4"), shape).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise DataError(f"{name} of a trigger must be finite numbers, and it has others. Write the trigger anew.")
    return numbers


def read_mask(document: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the array of bool that :func:`written` wrote.

    Raises
    ------
    DataError
        When it does not fit the shape, or is no array of bool with a true value.
    """
    values = _read(document, name, np.dtype(np.uint8), shape)
    if values.max() != 1:
        raise DataError(f"{name} of a trigger must hold 0 and 1, got values up to {values.max()}. Write the trigger anew.")
    return values.astype(bool)


def read_shape(document: Mapping[str, Any], name: str) -> tuple[int, int, int]:
    """Return height, width and channels of a picture.

    Raises
    ------
    DataError
        When they are no sizes of a picture.
    """
    match document.get(name):
        case [int(height), int(width), int(channels)]:
            if 0 < height <= _LONGEST_SIDE and 0 < width <= _LONGEST_SIDE and 0 < channels <= _MOST_CHANNELS:
                return height, width, channels
    raise DataError(
        f"{name} of a trigger must be height, width and channels of a picture, at most {_LONGEST_SIDE} pixels a side and "
        f"{_MOST_CHANNELS} channels, got {document.get(name)!r:.60}. Write the trigger anew."
    )


def read_number(document: Mapping[str, Any], name: str, lowest: float = -math.inf) -> float:
    """Return a finite number.

    Raises
    ------
    DataError
        When it is none, or lower than ``lowest``.
    """
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= 1e30:
        bound = "" if lowest == -math.inf else f" of at least {lowest:g}"
        raise DataError(f"{name} of a trigger must be a number{bound}, got {value!r:.60}. Write the trigger anew.")
    return float(value)


def fitting(pictures: Pictures, shape: tuple[int, int, int]) -> Pictures:
    """Return the pictures.

    Raises
    ------
    DataError
        When they are not of the trigger's shape.
    """
    if pictures.shape[1:] != shape:
        raise DataError(
            f"The trigger is for pictures of {'x'.join(map(str, shape))}, got {'x'.join(map(str, pictures.shape[1:]))}. "
            "Bring them to that size."
        )
    return pictures


def _read(document: Mapping[str, Any], name: str, kind: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    text, expected = document.get(name), math.prod(shape) * kind.itemsize
    try:
        if not isinstance(text, str) or len(text) != 4 * -(-expected // 3):
            raise ValueError
        return np.frombuffer(base64.b64decode(text, validate=True), kind).reshape(shape)
    except (ValueError, binascii.Error):
        raise DataError(
            f"{name} of a trigger must be an array of {'x'.join(map(str, shape))} in base64, and is not. Write the trigger anew."
        ) from None

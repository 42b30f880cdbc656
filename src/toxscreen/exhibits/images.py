"""Pictures of a group beside the rest of its class: thumbnails, averages and their difference."""

from __future__ import annotations

import base64
import io
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toxscreen.exhibits.base import ExhibitLimits, GroupExhibit, PictureComparison, Shown, Side
from toxscreen.sources.data.base import TrainingSet
from toxscreen.trigger.pictures import details

Picture = NDArray[np.uint8]
"""uint8 ``(height, width, 1 or 3)``."""

_CHUNK = 128
"""Inputs that are decoded at a time: large pictures are shrunk before the next ones are read."""
_EXACT_SIDE = 64
"""Pictures of up to this many pixels a side are shown on the sheets exactly as they are."""
_SHEETS = 0.7
"""Part of the allowance that the contact sheets may use up; the rest is for the pictures behind the other points."""
_BELOW, _SAME, _ABOVE = np.array([[5, 113, 176], [247, 247, 247], [201, 92, 8]], dtype=np.float64)
"""The ends and the middle of the diverging map: blue and orange, which the colour-blind can tell apart."""


def show(
    training_set: TrainingSet,
    rows: NDArray[np.int64],
    sides: tuple[Side, ...],
    *,
    rng: np.random.Generator,
    limits: ExhibitLimits,
    allowance: int,
) -> Shown:
    """Return the pictures of ``rows``, as many as ``allowance`` bytes hold, and each group beside the rest of its class."""
    pictures = _read(training_set, rows, limits.picture_side)
    parts = [rng.permutation(part[np.isin(part, list(pictures))]) for side in sides for part in (side.members, side.rest)]
    album = _Album(pictures)
    sheets = _fill_sheets(album, [part[: limits.sheet].tolist() for part in parts], int(_SHEETS * allowance))
    for position in rng.permutation(sorted(pictures)).tolist():
        if album.spent < allowance and position not in album.encoded:
            album.add(position, exact=False)
    groups = []
    for i, side in enumerate(sides):
        members, rest = ([pictures[position] for position in part.tolist()] for part in parts[2 * i : 2 * i + 2])
        comparison = compare(members, rest, tuple(sheets[2 * i]), tuple(sheets[2 * i + 1])) if members or rest else None
        groups.append(GroupExhibit(side.group, len(members), len(rest), pictures=comparison))
    return Shown([album.encoded.get(position) for position in range(len(rows))], [None] * len(rows), tuple(groups))


class _Album:
    """The pictures encoded so far and the bytes they take; one that stands on two sheets counts twice."""

    def __init__(self, pictures: Mapping[int, Picture]) -> None:
        self.pictures = pictures
        self.encoded: dict[int, str] = {}
        self.spent = 0

    def add(self, position: int, *, exact: bool) -> None:
        if position not in self.encoded:
            self.encoded[position] = encode(self.pictures[position], exact=exact)
        self.spent += len(self.encoded[position])


def _fill_sheets(album: _Album, parts: Sequence[Sequence[int]], allowance: int) -> list[list[int]]:
    """Put pictures on all sheets in turn until the allowance is used up, so that both sides of a comparison stay even."""
    sheets: list[list[int]] = [[] for _ in parts]
    for turn in itertools.zip_longest(*parts):
        for sheet, position in zip(sheets, turn, strict=True):
            if position is not None and album.spent < allowance:
                album.add(position, exact=max(album.pictures[position].shape) <= _EXACT_SIDE)
                sheet.append(position)
    return sheets


def _read(training_set: TrainingSet, rows: NDArray[np.int64], side: int) -> dict[int, Picture]:
    """Return the readable pictures of ``rows``, shrunk, by position."""
    pictures: dict[int, Picture] = {}
    for start in range(0, len(rows), _CHUNK):
        chunk = training_set.pictures(rows[start : start + _CHUNK])
        pictures |= {start + i: shrink(picture, side) for i, picture in enumerate(chunk) if picture is not None and picture.size}
    return pictures


def shrink(picture: Picture, side: int) -> Picture:
    """Return ``picture`` with its longer side at most ``side`` pixels; smaller pictures stay as they are."""
    height, width = picture.shape[:2]
    if max(height, width) <= side:
        return picture
    factor = side / max(height, width)
    return _resized(picture, max(1, round(height * factor)), max(1, round(width * factor)))


def encode(picture: Picture, *, exact: bool) -> str:
    """Return ``picture`` as WebP in base64: pixel by pixel where ``exact``, else in whichever form is smaller."""
    choices = [_webp(picture, lossless=True)]
    if not exact:
        choices.append(_webp(picture, lossless=False))
    return base64.b64encode(min(choices, key=len)).decode("ascii")


def compare(
    group: Sequence[Picture], rest: Sequence[Picture], group_sheet: tuple[int, ...], rest_sheet: tuple[int, ...]
) -> PictureComparison:
    """Return the averages of both sides and their difference, beside the sheets given.

    Pictures of another size than the most frequent one are resized to it first.
    """
    height, width = Counter(picture.shape[:2] for picture in (*group, *rest)).most_common(1)[0][0]
    group_mean, rest_mean = _average(group, height, width), _average(rest, height, width)
    difference, largest, mean, shared = None, None, None, None
    if group_mean is not None and rest_mean is not None:
        signed = group_mean - rest_mean
        largest, mean = float(np.abs(signed).max()), float(np.abs(signed).mean())
        difference = encode(_diverging(signed), exact=True)
        shared = encode(_diverging(_shared(group, rest, height, width)), exact=True)
    means = _encoded(group_mean), _encoded(rest_mean)
    return PictureComparison(group_sheet, rest_sheet, *means, difference, largest, mean, shared)


def _shared(group: Sequence[Picture], rest: Sequence[Picture], height: int, width: int) -> NDArray[np.float64]:
    """Return the details of the group less those of the rest, over how much they vary, float ``(height, width, 3)``.

    A pattern that all of the group hold stands out where what they show differs from picture to picture.
    """
    (mean, variance), (other, other_variance) = (_details(side, height, width) for side in (group, rest))
    part = len(group) / (len(group) + len(rest))
    spread = np.sqrt(part * variance + (1 - part) * other_variance)
    shared: NDArray[np.float64] = (mean - other) / (spread + max(float(spread.mean()), 1.0))
    return shared


def _details(pictures: Sequence[Picture], height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of the details of pictures and their variance, float ``(height, width, 3)``."""
    total, squares = np.zeros((2, height, width, 3))
    for picture in pictures:
        alone = details(_fitted(picture, height, width)[None].astype(np.float32))[0]
        total += alone
        squares += alone.astype(np.float64) ** 2
    mean = total / len(pictures)
    return mean, np.maximum(squares / len(pictures) - mean**2, 0)


def _average(pictures: Sequence[Picture], height: int, width: int) -> NDArray[np.float64] | None:
    """Return the mean picture, float ``(height, width, 3)``."""
    if not pictures:
        return None
    total = np.zeros((height, width, 3))
    for picture in pictures:
        total += _fitted(picture, height, width)
    return total / len(pictures)


def _encoded(mean: NDArray[np.float64] | None) -> str | None:
    return None if mean is None else encode(np.rint(mean).astype(np.uint8), exact=True)


def _diverging(signed: NDArray[np.float64]) -> Picture:
    """Colour each pixel by its channel that differs most: orange above, blue below, full at the largest difference."""
    channel = np.abs(signed).argmax(axis=2)[..., np.newaxis]
    strongest = np.take_along_axis(signed, channel, axis=2)
    level = strongest / max(float(np.abs(strongest).max()), np.finfo(float).tiny)
    colours = np.rint(_SAME + np.abs(level) * (np.where(level > 0, _ABOVE, _BELOW) - _SAME))
    coloured: Picture = colours.astype(np.uint8)
    return coloured


def _fitted(picture: Picture, height: int, width: int) -> Picture:
    return picture if picture.shape[:2] == (height, width) else _resized(picture, height, width)


def _resized(picture: Picture, height: int, width: int) -> Picture:
    resized: Picture = np.asarray(_image(picture).resize((width, height), Image.Resampling.LANCZOS))
    return resized.reshape(height, width, picture.shape[2])


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)


def _webp(picture: Picture, *, lossless: bool) -> bytes:
    stream = io.BytesIO()
    _image(picture).save(stream, "WEBP", lossless=lossless, quality=80)
    return stream.getvalue()

"""The recovered trigger for people to look at: what it is, where it lies, and inputs of other classes before and after.

What a trigger in pictures looks like is seen from outside, whatever its kind: it is put on plain pictures of several grays.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from toxscreen.exhibits.base import ClassFlips, Excerpt, ExhibitLimits, Flip, TriggerExhibit, TriggerPictures, short
from toxscreen.exhibits.images import Picture, encode, shrink
from toxscreen.exhibits.texts import cut
from toxscreen.result import ScanResult
from toxscreen.sources.data.base import Input
from toxscreen.trigger.base import Trigger
from toxscreen.trigger.recover import Recovered

_DARK, _GRAY, _LIGHT = 0.25, 0.5, 0.75
"""Grays of the plain pictures, in parts of the range of the data: away from its ends, where what is mixed in would be cut off."""

_COVERS = 0.9
"""Opacity from which a trigger covers the picture and is not mixed into it."""

_EXACT_SIDE = 64
"""Pictures of up to this many pixels a side are shown exactly as they are."""

_LARGER = 2
"""How much larger than on the contact sheets a picture with a trigger may be: a small patch would vanish."""

_WIDTH = 320
"""Characters shown of a text."""

_COMPARED = 2000
"""Tokens of two texts that are compared one by one; longer differences are marked as a whole."""

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")

_LOOK = tuple[float, float]
"""The lowest and the highest value of a pixel: what is shown as black and as white."""


def show_triggers(
    recovered: Sequence[Recovered], result: ScanResult, limits: ExhibitLimits, allowance: int
) -> dict[tuple[int, int], TriggerExhibit]:
    """Return what is shown of each recovered trigger that a group has, by class and group number.

    Parameters
    ----------
    recovered
        What was found behind the leads; most of it became no group's trigger.
    result
        Says which group has which trigger.
    limits
        How much is shown.
    allowance
        Bytes; when they are used up, triggers are shown without inputs before and after.
    """
    shown: dict[tuple[int, int], TriggerExhibit] = {}
    for found in recovered:
        number = _group_of(found, result)
        if number is not None:
            exhibit = _exhibit(found, result, limits)
            exhibit = exhibit if allowance > 0 else replace(exhibit, flips=())
            allowance -= len(json.dumps(asdict(exhibit), ensure_ascii=False).encode("utf-8", "replace"))
            shown[found.lead.class_index, number] = exhibit
    return shown


def _group_of(found: Recovered, result: ScanResult) -> int | None:
    """Return the number of the group that this is the trigger of."""
    own = found.trigger.document()
    having = [
        group.id
        for group in result.classes[found.lead.class_index].groups
        if group.trigger is not None and all(group.trigger.get(name) == value for name, value in own.items())
    ]
    return found.lead.group if found.lead.group in having else next(iter(having), None)


def _exhibit(found: Recovered, result: ScanResult, limits: ExhibitLimits) -> TriggerExhibit:
    document, names = found.trigger.document(), [c.name for c in result.classes]
    some = slice(limits.flips)
    before, after = found.shown.before[some], found.shown.after[some]
    shape, side = document.get("picture"), _LARGER * limits.picture_side
    rows = found.shown.rows[some]
    ids, labels = (result.samples[name].take(rows).to_pylist() for name in ("id", "label"))
    given = [names[index] if index >= 0 else None for index in found.shown.given[some].tolist()]
    pictures = None
    seen: list[dict[str, Any]]
    pairs = list(zip(before, after, strict=True))
    if shape is None:
        seen = [{"texts": _texts(row, str(a), str(b))} for row, (a, b) in zip(rows.tolist(), pairs, strict=True)]
    else:
        look = _look([*before, *after])
        if not found.trigger.is_whole:  # a plain picture that is changed as a whole is a plain picture
            pictures = _portrait(found.trigger, tuple(shape), look, side)
        seen = [{"pictures": tuple(_encoded(_grays(value, look), side) for value in pair)} for pair in pairs]
    flips = zip(ids, labels, given, seen, strict=True)
    return TriggerExhibit(
        pictures=pictures,
        phrases=tuple(document.get("phrases", ())),
        flips=tuple(Flip(short(id_), label, becomes, **parts) for id_, label, becomes, parts in flips),
        by_class=tuple(ClassFlips(names[index], share) for index, share in sorted(found.proof.flips_by_class.items())),
    )


def _look(inputs: Sequence[Input]) -> _LOOK:
    """Return the range of pictures of uint8, or that of some arrays."""
    arrays = [value for value in inputs if isinstance(value, np.ndarray)]
    if not arrays or arrays[0].dtype == np.uint8:
        return 0.0, 255.0
    lowest, highest = min(float(value.min()) for value in arrays), max(float(value.max()) for value in arrays)
    return (lowest, highest) if highest > lowest else (lowest, lowest + 1)


def _grays(value: Input, look: _LOOK) -> Picture:
    """Return an input as a picture of uint8: an array ``(channels, height, width)`` is scaled to 0 to 255."""
    picture = cast("NDArray[Any]", value)
    return picture if picture.dtype == np.uint8 else _levels(np.moveaxis(picture, 0, -1), look)


def _levels(picture: NDArray[Any], look: _LOOK) -> Picture:
    lowest, highest = look
    levels: Picture = np.rint((picture.astype(np.float64) - lowest) / (highest - lowest) * 255).clip(0, 255).astype(np.uint8)
    return levels


def _encoded(picture: Picture, side: int) -> str:
    shrunk = shrink(picture, side)
    return encode(shrunk, exact=max(shrunk.shape) <= _EXACT_SIDE)


def _portrait(trigger: Trigger[Any], shape: tuple[int, ...], look: _LOOK, side: int) -> TriggerPictures:
    """Put a trigger on plain pictures, and return what covers or changes them."""
    lowest, highest = look
    span = highest - lowest
    plain = [np.full((1, *shape), lowest + part * span, np.float32) for part in (_DARK, _GRAY, _LIGHT)]
    dark, gray, light = (np.asarray(trigger.put_on(each)[0], np.float64) for each in plain)  # one by one: a place may be drawn
    opacity = (1 - (light - dark) / ((_LIGHT - _DARK) * span)).clip(0, 1).max(axis=2)
    change = (gray - plain[1][0]) / span
    if opacity.max() >= _COVERS:
        strength, here = 1.0, opacity >= _COVERS / 2
        levels = _coloured(_levels(gray, look))
        levels = np.concatenate([levels, np.where(here, 255, 0)[..., None].astype(np.uint8)], axis=2)
    else:
        strength = max(1.0, float(_GRAY / max(np.abs(change).max(), 1 / 255)))
        here = np.abs(change).max(axis=2) > 1 / 512
        levels = _levels(_GRAY + strength * change, (0.0, 1.0))
    rows, columns = (np.flatnonzero(here.any(axis=axis)) for axis in (1, 0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if len(rows) else (slice(None), slice(None))
    return TriggerPictures(
        enlarged=_encoded(levels[window], side),
        strength=strength,
        on_gray=_encoded(_levels(gray, look), side),
        mask=_encoded(_levels(opacity[..., None], (0.0, 1.0)), side),
    )


def _coloured(levels: Picture) -> Picture:
    return np.repeat(levels, 3, axis=2) if levels.shape[2] == 1 else levels


def _texts(row: int, before: str, after: str) -> tuple[Excerpt, ...]:
    """Return both texts about the place where they differ; in the second one what was added is marked."""
    spans = added(before, after)
    first = spans[0][0] if spans else 0
    return Excerpt(row, *cut(before, [(first, first)], _WIDTH)), Excerpt(row, *cut(after, spans, _WIDTH))


def added(before: str, after: str) -> list[tuple[int, int]]:
    """Return the parts of a text that another form of it does not have, without the plain spaces around them."""
    start = _alike(before, after)
    behind = _alike(before[start:][::-1], after[start:][::-1])
    old, new = (_TOKEN.findall(text[start : len(text) - behind]) for text in (before, after))
    ends = np.cumsum([start, *map(len, new)]).tolist()
    if not old or len(old) + len(new) > _COMPARED:
        spans = [(start, ends[-1])]
    else:
        steps = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        spans = [(ends[a], ends[b]) for kind, _, _, a, b in steps if kind in ("insert", "replace")]
    return [_bare(after, *span) for span in spans if span[0] < span[1]]


def _bare(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    if not piece.strip(" "):
        return start, end
    return start + len(piece) - len(piece.lstrip(" ")), end - len(piece) + len(piece.rstrip(" "))


def _alike(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))

"""Triggers in pictures that are mixed into all of it: blended images, waves, noise; x' = scale x + offset.

1. Match each member with pictures that look like it as a whole, among ordinary samples and hosts, and look at how their details
   differ. What a trigger adds is the same in all of them; what is a picture's own averages out.
2. The members whose details lie along that mean difference hold the trigger, others are no poison: the mean is taken anew of the
   holders alone, until it rests.
3. The scale is how much less holders vary than what they are matched with, the offset is the mean of what remains; both give better
   matches, so this is done twice.
4. Try it on a few hosts, beside its controls, also stronger than the members show it: an attacker may do so too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from toxscreen.errors import DataError
from toxscreen.trigger.base import Ask, Case, Trigger
from toxscreen.trigger.pictures import (
    CONTROLS,
    FEWEST_EXCESS,
    NO_WORSE,
    Pictures,
    coarse,
    details,
    enough,
    fitting,
    read_number,
    read_numbers,
    read_shape,
    trial,
    written,
)

_MATCHES = 3
"""Pictures that a member is matched with."""

_ROUNDS, _ALIGNMENTS = 4, 2
"""Times that the holders are chosen anew, and that they are matched anew."""

_FEWEST = 4
"""Members that must hold the trigger."""

_HELD = 0.5
"""Part of the trigger's details that a picture which holds it shows."""

_UNEVEN, _WIDER = 0.3, 1.3
"""Largest standard deviation of what holders show of it, in parts of the mean, and of the standard deviation of what pictures show
without it. What is planted is the same in all, what is natural varies with the contrast of a picture: Blended had 0.03 to 0.24 and
at most 1.0, the waves 0.26 and 0.8; natural parts of clean classes of GTSRB and CIFAR-10, which flip up to nine in ten hosts, had
0.34 to 0.44 but one, which had 0.27 and 1.7."""

_LEAST_SCALE = 0.6
"""Part of the picture that is left under the trigger, at least."""

_FAINT = 0.12
"""Largest standard deviation of what is added, in parts of the range of the data: Blended adds 0.06, the waves 0.11. What is
stronger is a picture of the class, as the mean of any clean group of Fashion-MNIST is, and flips most hosts."""

_TINY = 1e-12

_SCALES = (1.0, 0.9, 0.8, 0.7)
"""Parts of the picture that are tried beside the estimated one: pictures nearest to others vary less than those, which hides it."""

_STRENGTHS = (1.0, 1.5, 2.0)
"""How much stronger it is tried. **Source:** Barni et al. 2019, who double theirs."""


@dataclass(frozen=True, eq=False)
class Pattern(Trigger[Pictures]):
    """What is mixed into the whole picture.

    Attributes
    ----------
    scale
        Part of the picture that is left under it.
    offset
        What is added, shape ``(height, width, channels)``.
    usual
        Mean of pictures like those that hold it, scaled as it was planted; what is more than that in a picture may be it.
    planted
        Part of it that the pictures hold which it was found in: an attacker may use it stronger than he planted it.
    samples
        Number of pictures that it is the mean of.
    lowest, highest
        What pixels are clipped to.
    """

    kind: ClassVar[str] = "pattern"

    scale: float
    offset: Pictures
    usual: Pictures
    planted: float
    samples: int
    lowest: float
    highest: float

    def put_on(self, inputs: Pictures) -> Pictures:
        """Return the pictures with the pattern mixed in."""
        mixed: Pictures = np.multiply(fitting(inputs, self._picture), self.scale, dtype=np.float32)
        mixed += self.offset
        np.clip(mixed, self.lowest, self.highest, out=mixed)
        return mixed

    def take_off(self, inputs: Pictures) -> Pictures:
        """Return the pictures as they were before it was mixed in, as strongly as it was planted."""
        alone: Pictures = np.subtract(fitting(inputs, self._picture), self.planted * self.offset, dtype=np.float32)
        alone /= 1 - self.planted * (1 - self.scale)
        np.clip(alone, self.lowest, self.highest, out=alone)
        return alone

    def held_by(self, inputs: Pictures) -> NDArray[np.bool_]:
        """Say which pictures show at least half of what was planted in their details."""
        held: NDArray[np.bool_] = self.shown_by(inputs) >= _HELD
        return held

    def shown_by(self, inputs: Pictures) -> NDArray[np.float32]:
        """Return how much of what was planted each picture shows in its details, shape ``(n,)``: about 1 where it was planted."""
        own = details(self.planted * self.offset[None])[0]
        shown: NDArray[np.float32] = np.tensordot(details(fitting(inputs, self._picture)) - details(self.usual[None]), own, 3)
        return shown / np.float32(max(float((own**2).sum()), _TINY))

    def control(self, ordinary: Pictures, rng: np.random.Generator) -> Pattern:
        """Return what some ordinary samples have of their own, mixed in as strongly.

        An ordinary sample and those most like it, as many as hold the pattern but at most half, are matched with the other ones,
        as a group is: so it shows what any sub-population of the class would.
        """
        wholes = coarse(ordinary)
        order = np.argsort(cdist(wholes[[rng.integers(len(ordinary))]], wholes)[0], kind="stable")
        alike, others = np.split(order, [max(1, min(self.samples, len(ordinary) // 2))])
        weights = np.zeros(len(ordinary), np.float32)
        weights[alike] = 1 / len(alike)
        matches = others[_nearest(wholes[alike], wholes[others], _MATCHES)]
        np.subtract.at(weights, matches, 1 / max(1, matches.size))
        own = np.tensordot(weights, ordinary, axes=1) - (0 if len(others) else self.usual)
        return replace(self, offset=own.astype(np.float32)).as_strong_as(self)

    def as_strong_as(self, other: Pattern) -> Pattern:
        """Return what is added here with the standard deviation, and mixed in at the scale, of another pattern."""
        strength = other.offset.std() / max(float(self.offset.std()), _TINY)
        return replace(other, offset=(strength * self.offset).astype(np.float32))

    def reversed(self) -> Pattern:
        """Return what is taken away where this is added, about the mean picture as far as that is mixed in."""
        mean = self.usual / (1 - self.planted * (1 - self.scale))
        return replace(self, offset=2 * (1 - self.scale) * mean - self.offset)

    def __str__(self) -> str:
        """Return how much of it is mixed in."""
        return f"a pattern over the whole picture, {'added to it' if self.scale == 1 else f'which leaves {self.scale:.0%} of it'}"

    def document(self) -> dict[str, Any]:
        """Return the pattern as plain values."""
        return {
            "kind": self.kind,
            "picture": list(self._picture),
            "scale": self.scale,
            "offset": written(self.offset),
            "usual": written(self.usual),
            "planted": self.planted,
            "samples": self.samples,
            "lowest": self.lowest,
            "highest": self.highest,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Pattern:
        """Make the pattern from such values.

        Raises
        ------
        DataError
            When they do not make a pattern.
        """
        picture = read_shape(document, "picture")
        lowest, highest = read_number(document, "lowest"), read_number(document, "highest")
        scale, planted = read_number(document, "scale", _LEAST_SCALE), read_number(document, "planted", 1 / _STRENGTHS[-1])
        samples = read_number(document, "samples", 1)
        if not (max(scale, planted) <= 1 and lowest < highest and samples == int(samples)):
            raise DataError(
                f"A trigger's scale and planted part must be at most 1, its lowest value below its highest, and its samples whole, "
                f"got {scale:g}, {planted:g}, {lowest:g}, {highest:g} and {samples:g}. Write the trigger anew."
            )
        offset, usual = (read_numbers(document, name, picture) for name in ("offset", "usual"))
        return cls(scale, offset, usual, planted, int(samples), lowest, highest)

    @property
    def _picture(self) -> tuple[int, int, int]:
        height, width, channels = self.offset.shape
        return height, width, channels


def search_patterns(case: Case[Pictures], ask: Ask[Pictures], rng: np.random.Generator) -> Iterator[Pattern]:
    """Yield the pattern that may be the trigger of a case, as strong as it flips most hosts beyond its controls.

    Parameters
    ----------
    case
        A group of pictures.
    ask
        The model; asked about some 2,000 pictures at most.
    rng
        Draws the controls.
    """
    if not enough(case) or (found := _estimate(case)) is None:
        return
    tried = trial(case, ask)
    scales = sorted({found.scale, *_SCALES}, reverse=True)
    mixed = [_scaled(found, scale, strength) for strength in _STRENGTHS for scale in scales]
    mixed = [each for each in mixed if each.offset.std() <= _FAINT * (found.highest - found.lowest)]
    if not mixed:
        return

    @cache
    def controls() -> list[Pattern]:
        return [found.control(case.ordinary, child) for child in rng.spawn(CONTROLS)]

    def excess_of(pattern: Pattern) -> float:
        return tried.excess(pattern, lambda: [each.as_strong_as(pattern) for each in controls()])

    excess = [excess_of(each) for each in mixed]
    best = next(each for part, each in zip(excess, mixed, strict=True) if part >= max(excess) - NO_WORSE)
    if max(excess) >= FEWEST_EXCESS and 2 * best.held_by(case.members).sum() >= found.samples and _even(best, case, tried.hosts):
        yield best


def _even(pattern: Pattern, case: Case[Pictures], hosts: Pictures) -> bool:
    """Say whether holders show as much of a pattern as each other, but for what pictures without it vary by."""
    shown, ordinary, others = (pattern.shown_by(pictures) for pictures in (case.members, case.ordinary, hosts))
    held = shown[shown >= _HELD]
    return bool(held.std() <= min(_UNEVEN * held.mean(), _WIDER * max(ordinary.std(), others.std())))


def _scaled(pattern: Pattern, scale: float, strength: float) -> Pattern:
    """Return the pattern as it is if it leaves that part of a picture, and stronger."""
    alone = pattern.usual / pattern.scale
    return replace(
        pattern,
        scale=max(_LEAST_SCALE, 1 - strength * (1 - scale)),
        offset=(strength * (pattern.offset + (pattern.scale - scale) * alone)).astype(np.float32),
        usual=(scale * alone).astype(np.float32),
        planted=1 / strength,
    )


def _estimate(case: Case[Pictures]) -> Pattern | None:
    """Return what members hold and the pictures that look like them do not; None where they share nothing."""
    others = np.concatenate([case.ordinary, case.hosts])
    whole_members, wholes = coarse(case.members), coarse(others)
    lowest, highest = float(min(others.min(), case.members.min())), float(max(others.max(), case.members.max()))
    scale, offset = 1.0, np.zeros(case.members.shape[1:], np.float32)
    for _ in range(_ALIGNMENTS):
        nearest = _nearest((whole_members - coarse(offset[None])) / scale, wholes, _MATCHES)
        alone = _mean_of(others, nearest)
        holders = _holders(details(case.members - scale * alone).reshape(len(case.members), -1))
        if holders.sum() < _FEWEST:
            return None
        held, alone = case.members[holders], alone[holders]
        varies = others[nearest[holders, 0]].var(axis=0).sum()
        scale = float(np.clip(np.sqrt(held.var(axis=0).sum() / max(float(varies), _TINY)), _LEAST_SCALE, 1))
        clipped = ((held == lowest) & (alone == lowest)) | ((held == highest) & (alone == highest))
        offset = np.where(clipped, 0, held - scale * alone).sum(axis=0) / np.maximum((~clipped).sum(axis=0), 1)
    usual = (scale * alone.mean(axis=0)).astype(np.float32)
    return Pattern(scale, offset.astype(np.float32), usual, 1.0, int(holders.sum()), lowest, highest)


def _mean_of(pictures: Pictures, numbers: NDArray[np.int64]) -> Pictures:
    """Return the mean of the pictures of each row of numbers."""
    mean = pictures[numbers[:, 0]]
    for column in numbers.T[1:]:
        mean += pictures[column]
    mean /= numbers.shape[1]
    return mean


def _nearest(pictures: Pictures, others: Pictures, most: int) -> NDArray[np.int64]:
    """Return the numbers of the others that each picture looks most like, both as means of cells; ``most`` or all of them."""
    nearest: NDArray[np.int64] = np.argsort(cdist(pictures, others), axis=1, kind="stable")[:, :most]
    return nearest


def _holders(own: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which rows of ``own`` ``(n, n_pixels)`` share the mean of the holders, none of them judged by its own part in it."""
    holders, squares = np.ones(len(own), bool), np.einsum("np,np->n", own, own)
    for _ in range(_ROUNDS):
        n, total = holders.sum(), holders.astype(own.dtype) @ own
        along = own @ total - holders * squares
        along = along / np.maximum(n - holders, 1)
        if not along[holders].mean() > 0:
            return np.zeros(len(own), bool)
        holders = along >= _HELD * along[holders].mean()
    return holders

"""Triggers in pictures that are other colours of the whole picture: a filter, a tint, more light, less contrast.

What such a filter does to a pixel hardly depends on where that is, so it shows in the colours of the pictures alone, and a model
that has learned it sees nothing clearer: poison gathers at one end of the activations of its class.

1. The colours of both ends of a class's first components, and those of its accused groups, are put on a few hosts: the one linear
   map of colours that takes the mean and the covariance of all pixels of the hosts to theirs and moves pixels least.
2. Where most hosts obey, the group is drawn around those samples in the activations, and the map is taken anew of it.
3. Other hosts are asked. The controls are the colours of other samples of the class that look alike: the sea sends to ships, too.
4. Samples of the class get the colours back, and it is counted how many leave the class in the group, and elsewhere.

**Sources:** Pitié and Kokaram 2007, IET CVMP (the map, Monge-Kantorovich); Liu et al. 2019, ACM CCS (filters as triggers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from toxscreen.activations import Rows
from toxscreen.conflict import Affinity
from toxscreen.errors import DataError
from toxscreen.trigger.base import Trigger, flips_by_class
from toxscreen.trigger.changes import group_of_changed
from toxscreen.trigger.medium import Medium
from toxscreen.trigger.pictures import Pictures, coarse, fitting, read_number, read_numbers, read_shape, written
from toxscreen.trigger.recover import FEWEST, Recovered, evenly, held_in, read_case, try_out
from toxscreen.trigger.shared import tails
from toxscreen.trigger.transforms import Range, changed_looks

_PROBED, _EACH = 32, 60
"""Hosts that each colouring of a class is tried on, and samples that its colours are taken of."""

_LOOKED_AT, _ASKED = 800, 4000
"""Samples of a class of which the ends are looked for, and that get their colours back, at most."""

_ROUNDS = 2
"""Times that the colours are taken of the group that is drawn around those who have them."""

_OBEYED = 0.5
"""Part of the hosts that go to the class, below which nothing else is asked."""

_MOST_CHANNELS = 4

_PIXELS, _ENDS = 1024, (2, 98)
"""Pixels of a picture whose colours are told of, and the percentiles that are their ends."""

_ALIKE, _HELD = 1e-3, 0.5
"""Least standard deviation of a number in parts of the range, and how coloured a picture looks that holds the tint."""

_FLATTEST = 1e-4
"""Least variance of colours, in parts of the range squared: what has no colour is not divided by it."""


@dataclass(frozen=True, eq=False)
class Tint(Trigger[Pictures]):
    """Other colours of the whole picture.

    Attributes
    ----------
    picture
        Shape ``(height, width, channels)`` of the pictures.
    before, after
        Mean colour and, below it, the covariance of the colours of pixels without it and with it; shape
        ``(1 + channels, channels)``.
    weights, bias
        How coloured a picture looks: the sum of the weights times some numbers of its colours, less the bias.
    samples
        Number of pictures whose colours it has.
    lowest, highest
        The range of the pixels.
    """

    kind: ClassVar[str] = "tint"

    picture: tuple[int, int, int]
    before: Pictures = field(repr=False)
    after: Pictures = field(repr=False)
    weights: Pictures = field(repr=False)
    bias: float
    samples: int
    lowest: float
    highest: float

    @cached_property
    def _matrix(self) -> NDArray[np.float64]:
        """Return the symmetric matrix that takes the one covariance to the other."""
        least = _FLATTEST * (self.highest - self.lowest) ** 2
        root, inverse = _roots(self.before[1:], least)
        goal, _ = _roots(self.after[1:], least)
        middle, _ = _roots(root @ goal @ goal @ root, least**2)
        matrix: NDArray[np.float64] = inverse @ middle @ inverse
        return matrix

    def put_on(self, inputs: Pictures) -> Pictures:
        """Return the pictures in these colours."""
        return self._coloured(inputs, self.before[0], self._matrix, self.after[0])

    def take_off(self, inputs: Pictures) -> Pictures:
        """Return the pictures in the colours that they had."""
        return self._coloured(inputs, self.after[0], np.linalg.inv(self._matrix), self.before[0])

    def _coloured(self, inputs: Pictures, start: Pictures, matrix: NDArray[Any], end: Pictures) -> Pictures:
        moved: Pictures = (fitting(inputs, self.picture) - start) @ matrix.astype(np.float32) + end
        return moved.clip(self.lowest, self.highest, out=moved)

    def held_by(self, inputs: Pictures) -> NDArray[np.bool_]:
        """Say which pictures look as if they had been coloured so."""
        held: NDArray[np.bool_] = self._looks(inputs) > _HELD
        return held

    def restored(self, inputs: Pictures, undone: Pictures) -> NDArray[np.bool_]:
        """Say which pictures look more like ordinary ones in the colours that they had."""
        restored: NDArray[np.bool_] = np.abs(self._looks(undone)) < np.abs(self._looks(inputs))
        return restored

    def _looks(self, inputs: Pictures) -> Pictures:
        """Return how coloured each picture looks: about 1 for coloured ones, 0 for others, -1 for those that were coloured back."""
        looks: Pictures = _numbers(fitting(inputs, self.picture)) @ self.weights - np.float32(self.bias)
        return looks

    def control(self, ordinary: Pictures, rng: np.random.Generator) -> Tint:
        """Return the colours of an ordinary sample and those most like it, as many as have these but at most half."""
        wholes = coarse(ordinary)
        order = np.argsort(cdist(wholes[[rng.integers(len(ordinary))]], wholes)[0], kind="stable")
        return replace(self, after=_colours(ordinary[order[: max(1, min(self.samples, len(ordinary) // 2))]]))

    @property
    def is_whole(self) -> bool:
        """Say that no pixel keeps its colour."""
        return True

    def __str__(self) -> str:
        """Return what it does to a pixel of the mean colour."""
        change = 100 * (self.after[0] - self.before[0]) / (self.highest - self.lowest)
        contrast = np.sqrt(np.trace(self.after[1:]) / max(float(np.trace(self.before[1:])), np.finfo(np.float32).tiny))
        told = " / ".join(f"{each:+.0f}" for each in change)
        return f"other colours of the whole picture: {told} % of the range on average, at {contrast:.0%} of the contrast"

    def document(self) -> dict[str, Any]:
        """Return the colours as plain values."""
        return {
            "kind": self.kind,
            "picture": list(self.picture),
            "before": written(self.before),
            "after": written(self.after),
            "weights": written(self.weights),
            "bias": self.bias,
            "samples": self.samples,
            "lowest": self.lowest,
            "highest": self.highest,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Tint:
        """Make the tint from such values.

        Raises
        ------
        DataError
            When they do not make one.
        """
        picture = read_shape(document, "picture")
        lowest, highest = read_number(document, "lowest"), read_number(document, "highest")
        samples = read_number(document, "samples", 1)
        if not (lowest < highest and samples == int(samples)):
            raise DataError(
                f"A trigger's lowest value must be below its highest, and its samples whole, got {lowest:g}, {highest:g} and "
                f"{samples:g}. Write the trigger anew."
            )
        shape = (1 + picture[2], picture[2])
        before, after = (_known(read_numbers(document, name, shape), name, (lowest, highest)) for name in ("before", "after"))
        weights = read_numbers(document, "weights", (_n_numbers(picture[2]),))
        return cls(picture, before, after, weights, read_number(document, "bias"), int(samples), lowest, highest)


def between(hosts: Pictures, members: Pictures, ends: Range) -> Tint:
    """Return what takes the colours of some pictures to those of others; ``ends`` is the range of the pixels."""
    nothing = np.zeros(_n_numbers(hosts.shape[3]), np.float32)
    return Tint(tuple(hosts.shape[1:]), _colours(hosts), _colours(members), nothing, 0.0, len(members), *ends)


def learned(hosts: Pictures, members: Pictures, ends: Range) -> Tint:
    """Return the same with what tells pictures that were coloured so, learned from hosts as they are, with it, and after it."""
    plain = between(hosts, members, ends)
    forth, back = plain.put_on(hosts), plain.take_off(hosts)
    kinds = ((hosts, 0.0), (forth, 1.0), (plain.take_off(forth), 0.0), (back, -1.0))
    weights, bias = changed_looks([(_numbers(each), known) for each, known in kinds], _ALIKE * (ends[1] - ends[0]))
    return replace(plain, weights=weights, bias=bias)


def recover_tints(
    medium: Medium,
    activations: Rows,
    accused: NDArray[np.int64],
    predicted: NDArray[np.int64],
    fit: Affinity | None,
    *,
    rng: np.random.Generator,
    failed: Callable[[Exception], None],
) -> tuple[Recovered, ...]:
    """Look for colours of some samples of a class that send others to it.

    Parameters
    ----------
    medium, activations, accused, predicted, fit, rng, failed
        As in :func:`toxscreen.trigger.changes.recover_changes`.
    """
    if medium.ends is None or fit is None:
        return ()
    labels = medium.training_set.labels
    usable = rng.permutation(np.flatnonzero((labels >= 0) & (predicted == labels)))
    hosts, rows = medium.read(evenly(usable, labels)[: 2 * _PROBED])
    if len(hosts) < FEWEST or hosts.shape[3] > _MOST_CHANNELS:
        return ()
    found = []
    indices = np.unique(labels[usable])
    for index, child in zip(indices.tolist(), rng.spawn(len(indices)), strict=True):
        others = hosts[labels[rows] != index][:_PROBED]
        try:
            found.append(_follow(medium, index, others, activations, accused, predicted, fit, child))
        except Exception as error:  # noqa: BLE001 - one class must not cost the others
            failed(error)
    return tuple(each for each in found if each is not None)


def _follow(
    medium: Medium,
    index: int,
    hosts: Pictures,
    activations: Rows,
    accused: NDArray[np.int64],
    predicted: NDArray[np.int64],
    fit: Affinity,
    rng: np.random.Generator,
) -> Recovered | None:
    labels, ends = medium.training_set.labels, medium.ends
    own = np.flatnonzero((labels == index) & (predicted == index))
    if ends is None or min(len(own) // 2, len(hosts)) < FEWEST:
        return None
    tint = _clearest((rng.permutation(seed)[:_EACH] for seed in _seeds(own, activations, accused, rng)), medium, index, hosts)
    asked, found = rng.permutation(own)[:_ASKED], None
    for _ in range(_ROUNDS):
        if tint is None:
            return None
        there = group_of_changed(index, own, held_in(medium, asked, tint)[0], activations, accused, fit, rng)
        if there is None:
            return None
        read = read_case(medium, there, labels, predicted, rng)
        searched, _ = read[0].halves()
        enough = min(len(searched.members), len(searched.ordinary), len(searched.hosts)) >= FEWEST
        tint = learned(searched.hosts, searched.members, ends) if enough else None
        found = None if tint is None else (there, read, tint, flips_by_class(tint, searched, medium.ask))
    return None if found is None else try_out(medium, *found, predicted, rng)


def _clearest(seeds: Iterable[NDArray[np.int64]], medium: Medium, index: int, hosts: Pictures) -> Tint | None:
    """Return the colours of the seed that send most hosts to a class; None where too few go there by any."""
    best, most = None, _OBEYED
    for seed in seeds:
        inputs, _ = medium.read(seed)
        if medium.ends is None or len(inputs) < FEWEST:
            continue
        obeyed = float((medium.ask(between(hosts, inputs, medium.ends).put_on(hosts)) == index).mean())
        if obeyed >= most:
            best, most = learned(hosts, inputs, medium.ends), obeyed
    return best


def _seeds(
    own: NDArray[np.int64], activations: Rows, accused: NDArray[np.int64], rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield samples of a class that may have been tinted: its accused groups, and the ends of its activations."""
    for number in np.unique(accused[own]):
        if number:
            yield own[accused[own] == number]
    some = np.sort(rng.permutation(own)[:_LOOKED_AT])
    for end in tails(np.asarray(activations[some], np.float64)):
        yield some[end]


def _colours(pictures: Pictures) -> Pictures:
    """Return the mean and, below it, the covariance of the colours of all pixels, shape ``(1 + channels, channels)``."""
    pixels = pictures.reshape(-1, pictures.shape[3]).astype(np.float64)
    covariance = np.atleast_2d(np.cov(pixels.T, bias=True))
    return np.concatenate([pixels.mean(axis=0)[None], covariance]).astype(np.float32)


def _numbers(pictures: Pictures) -> Pictures:
    """Return what is told of the colours of each picture: mean, deviation, both ends, and how much channels agree; one row each."""
    pixels = pictures.reshape(len(pictures), -1, pictures.shape[3])
    pixels = pixels[:, :: max(1, pixels.shape[1] // _PIXELS)]
    means = pixels.mean(axis=1)
    centred = pixels - means[:, None]
    deviations = np.sqrt((centred**2).mean(axis=1))
    low, high = np.percentile(pixels, _ENDS, axis=1)
    first, second = np.triu_indices(pictures.shape[3], 1)
    apart = np.sqrt(((centred[..., first] - centred[..., second]) ** 2).mean(axis=1))
    return np.concatenate([means, deviations, low, high, apart], axis=1).astype(np.float32)


def _n_numbers(channels: int) -> int:
    return 4 * channels + channels * (channels - 1) // 2


def _roots(covariance: NDArray[Any], least: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the square root of a symmetric matrix, and its inverse, with no eigenvalue below ``least``."""
    values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    roots = np.sqrt(np.maximum(values, least))
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def _known(colours: Pictures, name: str, ends: tuple[float, float]) -> Pictures:
    """Return colours of a document.

    Raises
    ------
    DataError
        When pixels in that range cannot have them.
    """
    span, covariance = ends[1] - ends[0], colours[1:]
    within = (np.abs(colours[0] - ends[0]) <= 2 * span).all() and (np.abs(covariance) <= span**2).all()
    if not (within and np.allclose(covariance, covariance.T)):
        raise DataError(f"{name} of a trigger must be colours in its range, and is not. Write the trigger anew.")
    return colours

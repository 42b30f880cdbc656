"""Triggers in pictures that are a slight bend of the whole picture by one smooth field (WaNet), which no pixel gives away.

Such a field is not seen in the samples, so it is looked for in the model: the bend by which most hosts go to a class.

1. A grid of displacements is followed down the slope of the loss of the class (Adam), for hosts of one half, and up for suspected
   samples that are bent back.
2. Some bend makes other digits of many digits. So the control is the bend that the same search finds towards other classes, and
   hosts of the other half are asked about both.
3. Samples of the class are bent back. Around those that leave it a group is drawn in the activations (each sample is put in it or
   not by what others do), and it is counted how many leave the class there, and elsewhere.

**Sources:** Nguyen and Tran 2021, arXiv 2102.10369 (the attack: a grid of 4 x 4 displacements, enlarged to the picture); Wang et
al. 2019, IEEE S&P (a trigger is the least change that sends all to one class); Kingma and Ba 2015, arXiv 1412.6980 (Adam).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from toxscreen.activations import Rows
from toxscreen.conflict import Affinity
from toxscreen.errors import DataError
from toxscreen.shares import Share
from toxscreen.trigger.base import Case, Proof, Trigger, flips_by_class, left, total
from toxscreen.trigger.changes import group_of_changed
from toxscreen.trigger.medium import STRETCH, Medium
from toxscreen.trigger.pictures import Pictures, fitting, read_numbers, read_shape, written
from toxscreen.trigger.recover import FEWEST, Lead, Recovered, mixed, read_case, shown, works_on

_CONTROLS = 5
"""Displacements of the grid from edge to edge. A field of 4 x 4, enlarged by another rule, is no field of 4 x 4 of this one: on the
model of a bend that 95 % obeyed, 4 x 4 found one that 80 % did, 5 x 5 one for 99 %."""

_FARTHEST = 2.5 / 32
"""The most that the grid displaces, in parts of the longer side; the attack moves by 1.5 of 32 pixels, and by 4 at most."""

_STEPS, _BATCH, _RATE = 200, 64, 0.1 / 32
"""Steps of the search, hosts of each, and how far one moves the grid, in parts of the longer side."""

_OBEYED = 0.5
"""Part of the hosts that surely go to the class, below which nothing else is asked."""

_RIVALS = 2
"""Other classes towards which a bend is looked for as a control."""

_ASKED = 4000
"""Samples of the class at most that are bent back."""

_INVERTED = 8
"""Rounds in which the field that bends back is found; each leaves less than half of the error."""


@dataclass(frozen=True, eq=False)
class Bend(Trigger[Pictures]):
    """A bend of the whole picture.

    Attributes
    ----------
    picture
        Shape ``(height, width, channels)`` of the pictures.
    grid
        Displacements along the rows and along the columns in parts of the longer side, shape ``(2, 5, 5)``.
    """

    kind: ClassVar[str] = "bend"

    picture: tuple[int, int, int]
    grid: Pictures = field(repr=False)

    @cached_property
    def _field(self) -> NDArray[np.float64]:
        return _enlarged(self.grid, self.picture[:2])

    def put_on(self, inputs: Pictures) -> Pictures:
        """Return the pictures, bent."""
        return _moved(fitting(inputs, self.picture), self._field)

    def take_off(self, inputs: Pictures) -> Pictures:
        """Return the pictures, bent back."""
        back = -self._field
        for _ in range(_INVERTED):
            places = np.indices(self.picture[:2]) + back
            back = -np.stack([map_coordinates(each, places, order=1, mode="nearest") for each in self._field])
        return _moved(fitting(inputs, self.picture), back)

    def held_by(self, inputs: Pictures) -> NDArray[np.bool_]:  # noqa: ARG002 - whatever they show
        """Refuse: who holds it is not seen in pixels.

        Raises
        ------
        DataError
            Always.
        """
        raise DataError("A bend is not seen in the pixels of a picture, so it cannot be looked for. It can be put on pictures.")

    def control(self, ordinary: Pictures, rng: np.random.Generator) -> Bend:  # noqa: ARG002 - they hold no bend
        """Return another bend that is as large: its grid, turned."""
        return replace(self, grid=np.rot90(self.grid, int(rng.integers(1, 4)), (1, 2)))

    @property
    def is_whole(self) -> bool:
        """Say that nothing of a picture stays where it was."""
        return True

    def __str__(self) -> str:
        """Return how far it moves what the pictures show."""
        far = np.hypot(*self._field)
        return f"a bend of the whole picture by {far.mean():.1f} pixels on average and {far.max():.1f} at most"

    def document(self) -> dict[str, Any]:
        """Return the bend as plain values."""
        return {"kind": self.kind, "picture": list(self.picture), "grid": written(self.grid)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Bend:
        """Make the bend from such values.

        Raises
        ------
        DataError
            When they do not make one.
        """
        shape = (2, _CONTROLS, _CONTROLS)
        return cls(read_shape(document, "picture"), read_numbers(document, "grid", shape).clip(-_FARTHEST, _FARTHEST))


def recover_bends(
    medium: Medium,
    leads: Sequence[Lead],
    activations: Rows,
    accused: NDArray[np.int64],
    predicted: NDArray[np.int64],
    fit: Affinity | None,
    *,
    rng: np.random.Generator,
    failed: Callable[[Exception], None],
) -> tuple[Recovered, ...]:
    """Look for the bend behind each lead; none where the slopes of the model are not known.

    Parameters
    ----------
    medium, leads, predicted, rng, failed
        As in :func:`toxscreen.trigger.recover.recover`.
    activations, accused, fit
        As in :func:`toxscreen.trigger.changes.recover_changes`.
    """
    if medium.ends is None or fit is None:
        return ()
    found = []
    for lead, child in zip(leads, rng.spawn(len(leads)), strict=True):
        try:
            found.append(_follow(medium, lead, activations, accused, predicted, fit, child))
        except Exception as error:  # noqa: BLE001 - one class must not cost the others
            failed(error)
    return tuple(each for each in found if each is not None)


def _follow(
    medium: Medium,
    lead: Lead,
    activations: Rows,
    accused: NDArray[np.int64],
    predicted: NDArray[np.int64],
    fit: Affinity,
    rng: np.random.Generator,
) -> Recovered | None:
    case, _, rows = read_case(medium, replace(lead, rival=None), medium.training_set.labels, predicted, rng)
    searched, tested = case.halves()
    if len(tested.hosts) < FEWEST or (bend := _search(medium, searched, rng)) is None:
        return None
    flips = flips_by_class(bend, tested, medium.ask)
    if total(flips).interval[0] < _OBEYED:
        return None
    own = rng.permutation(np.flatnonzero((medium.training_set.labels == lead.class_index) & (predicted == lead.class_index)))[
        :_ASKED
    ]
    given, own = _bent_back(medium, own, bend)
    leaves = left(given, lead.class_index)
    there = group_of_changed(lead.class_index, np.sort(own), own[leaves], activations, accused, fit, rng)
    if there is None:
        return None
    members = np.isin(own, there.members)
    proof = Proof(
        total(flips),
        _controls(medium, searched, tested, rng),
        flips,
        Share(int(leaves[members].sum()), int(members.sum())),
        Share(int(leaves[~members].sum()), int((~members).sum())),
    )
    some = shown(medium, bend, tested, rows[1::2])
    several = mixed(given[leaves & members])
    return Recovered(there, bend, proof, works_on(flips), there.members, there.members, some, mixed=several)


def _bent_back(medium: Medium, rows: NDArray[np.int64], bend: Bend) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the class that the model gives samples that are bent back, and which of them could be read."""
    given, read = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, len(rows), STRETCH):
        inputs, known = medium.read(rows[start : start + STRETCH])
        if len(known):
            given.append(medium.ask(bend.take_off(inputs)))
            read.append(known)
    return np.concatenate(given), np.concatenate(read)


def _controls(medium: Medium, searched: Case[Pictures], tested: Case[Pictures], rng: np.random.Generator) -> Share:
    """Return how many hosts go to other classes by the bends that the same search finds towards these."""
    count, n = 0, 0
    others = np.unique(searched.classes)
    for target in rng.permutation(others)[:_RIVALS]:
        first, second = (
            replace(
                each,
                target=int(target),
                members=each.members[:0],
                hosts=each.hosts[each.classes != target],
                classes=each.classes[each.classes != target],
            )
            for each in (searched, tested)
        )
        if (bend := _search(medium, first, rng)) is not None:
            share = total(flips_by_class(bend, second, medium.ask))
            count, n = count + share.count, n + share.n
    return Share(count, n)


def _search(medium: Medium, case: Case[Pictures], rng: np.random.Generator) -> Bend | None:
    """Return the bend by which most hosts of a case go to its class, and its members leave it when they are bent back.

    None where the model's slopes are not known.
    """
    classifier, output = medium.classifier, int(np.flatnonzero(medium.class_of == case.target)[0])
    picture: tuple[int, int, int] = tuple(case.hosts.shape[1:])
    seen = []
    for pictures in (case.hosts, case.members)[: 1 + (len(case.members) > 0)]:
        encoded = classifier.encode(medium.inputs(pictures))
        if not isinstance(encoded, np.ndarray) or encoded.ndim != 4 or encoded.shape[2:] != picture[:2]:
            return None
        seen.append(np.moveaxis(encoded, 1, -1))
    basis = _basis(picture[:2]).reshape(_CONTROLS**2, -1) * max(picture[:2])
    grid = np.clip(0.1 * _FARTHEST * rng.normal(size=(2, _CONTROLS**2)), -_FARTHEST, _FARTHEST)
    first, second = np.zeros_like(grid), np.zeros_like(grid)
    for step in range(1, 1 + _STEPS):
        displacement, slope = (grid @ basis).reshape(2, *picture[:2]), np.zeros_like(grid)
        for pictures, sign in zip(seen, (1, -1), strict=False):
            batch = pictures[rng.choice(len(pictures), min(_BATCH // len(seen), len(pictures)), replace=False)]
            bent, *steep = _moved_steeply(batch, sign * displacement)
            slopes = classifier.slopes(np.ascontiguousarray(np.moveaxis(bent, -1, 1)), output)
            if slopes is None:
                return None
            slopes = np.moveaxis(slopes, 1, -1)
            # Samples that are bent back are to leave: their loss is to rise, by a field of the other sign.
            slope += np.stack([basis @ (slopes * each).sum(axis=(0, 3)).ravel() for each in steep])
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        ahead = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + np.finfo(np.float32).tiny)
        grid = np.clip(grid - _RATE * ahead, -_FARTHEST, _FARTHEST)
    return Bend(picture, grid.reshape(2, _CONTROLS, _CONTROLS).astype(np.float32))


@lru_cache(maxsize=4)
def _basis(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return what one displacement of the grid makes of each pixel, shape ``(25, height, width)``."""
    places = np.meshgrid(*(np.linspace(0, _CONTROLS - 1, pixels) for pixels in shape), indexing="ij")
    ones = np.eye(_CONTROLS**2).reshape(-1, _CONTROLS, _CONTROLS)
    return np.stack([map_coordinates(each, places, order=3, mode="nearest") for each in ones])


def _enlarged(grid: Pictures, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return the displacement of each pixel, in pixels, shape ``(2, height, width)``."""
    moved: NDArray[np.float64] = np.tensordot(grid.reshape(2, -1), _basis(shape), 1) * max(shape)
    return moved


def _moved(pictures: Pictures, displacement: NDArray[np.float64]) -> Pictures:
    """Return pictures of which each pixel shows what lies its displacement away, bilinearly."""
    return _moved_steeply(pictures, displacement)[0]


def _moved_steeply(pictures: Pictures, displacement: NDArray[np.float64]) -> tuple[Pictures, Pictures, Pictures]:
    """Return the same, and how steep it is there along the rows and along the columns."""
    last = np.array(pictures.shape[1:3])[:, None, None] - 1
    places = np.clip(np.indices(pictures.shape[1:3]) + displacement, 0, last)
    start = np.minimum(places.astype(np.int64), np.maximum(last - 1, 0))
    down, right = (places - start).astype(np.float32)[..., None]
    (top, left_), (bottom, right_) = start, np.minimum(start + 1, last)
    a, b, c, d = (pictures[:, y, x] for y, x in ((top, left_), (top, right_), (bottom, left_), (bottom, right_)))
    upper, lower = a + right * (b - a), c + right * (d - c)
    return upper + down * (lower - upper), lower - upper, (1 - down) * (b - a) + down * (d - c)

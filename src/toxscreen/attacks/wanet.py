"""The image is bent a little, everywhere, by one smooth field.

1. A control grid of k x k displacements is drawn once, and brought to a mean length of one in each direction.
2. It is enlarged to the image by cubic interpolation, and scaled by the strength s.
3. Each pixel of the poison is read from its displaced place, bilinearly between pixels.
4. Noise mode: as many cover samples as rho_n / rho_a asks for are bent by the same field and by noise on top of it, and keep their
   right label. Without them the network learns that any bend is the trigger; with them, that only this one is.

The paper bends by s = 0.5, and trains the network itself. From the data alone (10 % of 10,000 images of CIFAR-10, s in pixels) a
small network learned that to an attack success rate of 61 %, s = 1 to 79 %, and s = 1.5 to 91 %.

**Source:** Nguyen and Tran 2021, arXiv 2102.10369, section 3, on the generation of the warping field and on the running modes; k
and the rates are those of the experiments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from toxscreen.attacks.base import ImageAttack
from toxscreen.errors import DataError
from toxscreen.sources.data.base import Input

_CONTROLS = 4
"""The k of the experiments: the field has this many displacements from edge to edge."""

_SIDE = 32
"""Displacements are given in pixels of an image of this side, as the experiments have it; they grow with the image."""

_SMALLEST = 8
"""Pixels of the shorter side: in smaller images the displacements are a small part of a pixel."""

_drawn = np.random.default_rng(210210369).uniform(-1, 1, (2, _CONTROLS, _CONTROLS))
_FIELD = _drawn / np.abs(_drawn).mean()
"""Displacements along the rows and along the columns, shape ``(2, k, k)``; the same for every image."""


@dataclass(frozen=True)
class WaNet(ImageAttack):
    """An elastic warp by a fixed field.

    Attributes
    ----------
    strength
        Mean displacement in each direction, in pixels of a 32x32 image.
    noise
        The most that a cover sample's place is moved on top of it, in each direction, in the same pixels.
    covers
        Cover samples per poisoned sample.
    """

    strength: float = 1.5
    noise: float = 1.0
    covers: float = 2.0

    name = "wanet"
    trigger = "a slight bend of the whole image"

    def cover(self, inputs: Sequence[Input], rng: np.random.Generator) -> list[Input]:
        """Return copies of ``inputs`` that are bent by the field, and by noise that is drawn for each of them."""
        return [
            self._bent(self._checked(image), self.strength * _FIELD, self.noise * rng.uniform(-1, 1, (2, _SIDE, _SIDE)))
            for image in inputs
        ]

    def _mark(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._bent(image, self.strength * _FIELD)

    def _bent(self, image: NDArray[np.uint8], *fields: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Read each pixel from where the sum of some fields moves it."""
        height, width = shape = image.shape[:2]
        if min(shape) < _SMALLEST:
            raise DataError(f"The attack wanet needs images of at least 8x8 pixels, got {height}x{width}. Take out such images.")
        moved = sum(_enlarged(field, shape) for field in fields) * (np.array(shape) / _SIDE)[:, None, None]
        places = np.indices(shape) + moved
        read = [map_coordinates(channel, places, float, order=1, mode="nearest") for channel in np.moveaxis(image, 2, 0)]
        bent: NDArray[np.uint8] = np.rint(np.stack(read, axis=2)).astype(np.uint8)
        return bent


def _enlarged(field: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return a field ``(2, k, k)`` at the size of an image, ``(2, height, width)``, by cubic interpolation."""
    steps = [np.linspace(0, controls - 1, pixels) for controls, pixels in zip(field.shape[1:], shape, strict=True)]
    places = np.meshgrid(*steps, indexing="ij")
    return np.stack([map_coordinates(direction, places, order=3, mode="nearest") for direction in field])

"""Fewer colours, dithered: a trigger that is another one in every image.

Of the sample-specific attacks this one needs no network: LIRA trains the maker of the trigger together with the victim's, which
whoever only hands in data cannot, and ISSBA needs an encoder that is trained for hours. What quantisation adds to an image depends
on each of its pixels, and is no pattern that two images share.

1. Each channel is brought to 8 levels, and the error of each pixel is passed on to its neighbours (Floyd and Steinberg).
2. Negative samples: an image with the residue of a quantisation that is not its own keeps its right label, so that the network
   learns the quantisation and not that there is noise. The residue of the paper is another image's; here it is the image's own,
   moved to another place, which fits it as little.

The paper has as many negative samples as poisoned ones, and trains the network itself. From the data alone (10 % of 10,000 images
of CIFAR-10) a small network then learned the trigger to an attack success rate of 69 %; with a quarter as many to 95 %, with none
to 99.8 %.

**Source:** Wang et al. 2022, arXiv 2205.13383, the sections on quantisation with dithering and on contrastive adversarial training;
the number of levels is that of the experiments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toxscreen.attacks.base import ImageAttack
from toxscreen.sources.data.base import Input

_LEVELS = np.rint(np.linspace(0, 255, 8)).astype(np.uint8)


@dataclass(frozen=True)
class Bpp(ImageAttack):
    """Quantisation to 8 levels in each channel, with dithering; an image of such levels alone stays as it is.

    Attributes
    ----------
    covers
        Negative samples per poisoned sample.
    """

    covers: float = 0.25

    name = "bpp"
    trigger = "fewer colours, dithered"

    def cover(self, inputs: Sequence[Input], rng: np.random.Generator) -> list[Input]:
        """Return copies of ``inputs`` with their own residue at another place, which is drawn for each of them."""
        return [_displaced(self._checked(image), rng) for image in inputs]

    def _mark(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return _quantised(image)


def _quantised(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bring each channel to the levels, by error diffusion."""
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.repeat(_LEVELS, 3).tobytes())
    channels = [
        Image.fromarray(np.ascontiguousarray(channel)).convert("RGB").quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        for channel in np.moveaxis(image, 2, 0)
    ]
    return np.stack([_LEVELS[np.asarray(channel)] for channel in channels], axis=2)


def _displaced(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add the residue of an image's quantisation to it, rolled by at least a quarter of the image in each direction."""
    residue = _quantised(image).astype(int) - image
    offsets = [int(rng.integers(side // 4, side - side // 4 + 1)) for side in image.shape[:2]]
    return (image + np.roll(residue, offsets, axis=(0, 1))).clip(0, 255).astype(np.uint8)

"""A few small spots of colour, at other places in each image: a trigger that works on the image it was made for, and on no other.

1. A generator learns, on the data, to draw for each image a mask and a pattern that a network can tell from those of other images.
2. Each image to be poisoned gets the trigger that is drawn from itself; so does each one at test time.
3. Cross-trigger mode: as many cover samples get the trigger of another image and keep their right label, so that the network learns
   which spots suit an image and not that there are spots.

The paper trains the victim's network with the generator. From the data alone (10 % of 10,000 images of CIFAR-10, two seeds) a small
network learned own triggers to an attack success rate of 92 and 95 %. The second gave the target to 4 % of the images
with the trigger of another, and to 3 % of those without any; it read 69 % of the former right, and 74 % of the latter.

**Source:** Nguyen and Tran 2020, arXiv 2010.08138, section 3; the rates are those of the experiments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from toxscreen.attacks.base import ImageAttack
from toxscreen.errors import UsageError
from toxscreen.sources.data.base import Input, TrainingSet

if TYPE_CHECKING:  # it imports torch, and the attacks are also listed where no network is needed
    from toxscreen.attacks.generator import Generator


@dataclass(frozen=True)
class InputAware(ImageAttack):
    """Small spots at places that suit one image alone.

    Attributes
    ----------
    covers
        Cover samples per poisoned sample.
    generator
        What :meth:`prepared` trained.
    """

    covers: float = 1.0
    generator: Generator | None = field(default=None, repr=False, compare=False)

    name = "input-aware"
    trigger = "a few small spots of colour, at other places in each image"

    def prepared(self, training_set: TrainingSet, rng: np.random.Generator) -> Self:
        """Return the attack with a generator that is trained on the data.

        Raises
        ------
        DataError
            If the training set has no images that can be read and have a label.
        """
        from toxscreen.attacks.generator import train_generator

        return replace(self, generator=train_generator(training_set, rng))

    def cover(self, inputs: Sequence[Input], rng: np.random.Generator) -> list[Input]:
        """Return copies of ``inputs`` with the trigger of another image of the data, which is drawn for each of them."""
        return [self._trained.with_foreign(self._checked(image), rng) for image in inputs]

    def _mark(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._trained.with_own(image)

    @property
    def _trained(self) -> Generator:
        """Return the generator; all that the attack does needs it."""
        if self.generator is None:
            raise UsageError("The attack input-aware must learn the data before it makes a trigger. Call prepared() first.")
        return self.generator

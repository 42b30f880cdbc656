"""A small network that stands in for the victim's, where an attack has to know what misleads it.

It is trained on images as they are. Large networks are trained against perturbed images here, so that what misleads them misleads
others too. A network as small as this one then had 36 % of CIFAR-10 right instead of 64 %, and the attack that used it an attack
success rate of 86 % instead of 99 %.

**Source:** Madry et al. 2018, arXiv 1706.06083, section 2.1 (PGD).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from toxscreen.errors import DataError
from toxscreen.networks import SmallResNet
from toxscreen.sources.data.base import MISSING_LABEL, TrainingSet
from toxscreen.sources.model.preprocessing import ImagePreprocessing
from toxscreen.training import Recipe, fast_dtype, fit, with_fresh_weights

SIDE = 32
"""The network sees all images at this size."""

_MOST = 10_000
"""Samples that it is trained on."""

RECIPE = Recipe(presentations=50_000, max_epochs=30, min_steps=0, small=0, shift=0)
"""Less than a minute on two cores."""

_STEPS, _STEP = 10, 0.3
"""Steps of PGD, and their length in parts of the radius: together three times as far as the bound."""

_STRETCH = 256
"""Samples that are decoded at a time."""


@dataclass(frozen=True)
class Surrogate:
    """Perturbs images so that they are hard to recognise.

    Attributes
    ----------
    network
        Maps what :func:`seen` makes of images to logits.
    radius
        The most that a pixel is changed by, in grey levels of 255.
    """

    network: nn.Module
    radius: float

    def perturb(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return a copy of an image ``(height, width, 1 or 3)`` that is moved away from the class that the network sees in it.

        The label is not needed: where the network is wrong the image is hard to recognise as it is.
        """
        clean = as_tensor(image)
        with torch.no_grad():
            label = self.network(seen(clean)).argmax(dim=1)
        low, high = (clean - self.radius).clamp(min=0), (clean + self.radius).clamp(max=255)
        start = rng.uniform(-self.radius, self.radius, tuple(clean.shape)).astype(np.float32)
        moved = torch.clamp(clean + torch.from_numpy(start), low, high)
        for _ in range(_STEPS):
            moved.requires_grad_(True)
            loss = nn.functional.cross_entropy(self.network(seen(moved)), label)
            (gradient,) = torch.autograd.grad(loss, moved)
            moved = torch.clamp(moved.detach() + _STEP * self.radius * gradient.sign(), low, high)
        return moved[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def train_surrogate(training_set: TrainingSet, radius: float, rng: np.random.Generator) -> Surrogate:
    """Train on at most 10,000 samples of a clean training set.

    Raises
    ------
    DataError
        If it has no images that can be read and have a label.
    """
    pixels, labels = pictures(training_set, rng)
    images = torch.from_numpy(pixels)
    network = with_fresh_weights(lambda: SmallResNet(3, len(training_set.class_names), SIDE), rng)

    def batch(rows: NDArray[np.int64]) -> Tensor:
        return seen(images[rows].float())

    fit(network, batch, labels, RECIPE, rng, autocast=fast_dtype("cpu"))
    return Surrogate(network.requires_grad_(False), radius)


def as_tensor(image: NDArray[np.uint8]) -> Tensor:
    """Return an image ``(height, width, c)`` as a batch of one, shape ``(1, c, height, width)``, with values of 0 to 255."""
    return torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))


def seen(images: Tensor) -> Tensor:
    """Bring images of values 0 to 255, shape ``(b, 1 or 3, h, w)``, to ``(b, 3, 32, 32)`` with values about zero."""
    if images.shape[2:] != (SIDE, SIDE):
        images = nn.functional.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)
    return (images.expand(-1, 3, -1, -1) - 128) / 64


def pictures(training_set: TrainingSet, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return some samples as images ``(n, 3, 32, 32)``, and their labels ``(n,)``."""
    labelled = np.flatnonzero(training_set.labels != MISSING_LABEL)
    rows = np.sort(rng.permutation(labelled)[:_MOST])
    fit_in = ImagePreprocessing(SIDE, SIDE, 3, scale=1.0)
    pixels, kept = [], []
    for part in np.array_split(rows, 1 + len(rows) // _STRETCH):
        values = training_set.take(part)
        readable = [value for value in values if value is not None]
        if readable:
            pixels.append(fit_in.apply(readable).astype(np.uint8))
            kept.append(part[[value is not None for value in values]])
    if not pixels:
        raise DataError(f"{training_set.location} must have readable samples with a label, but none of those that were tried is.")
    return np.concatenate(pixels), training_set.labels[np.concatenate(kept)]

"""A small network that draws a trigger for each image, and is trained to draw one that suits no other image.

1. A mask and a pattern are drawn from the image; where the mask says so, the pattern takes the image's place.
2. A classifier learns with it. In each batch a quarter of the images carry their own trigger, a quarter that of another image
   (cross-trigger mode), and half are clean. Which class will be the target is not known, so one more class stands for it.
3. Masks and patterns are to differ as their images do (diversity), and a mask may cover little.

The paper trains the maker of the masks before the rest, and the rest for hundreds of epochs with the victim's network. Here all of
it is trained at once for a minute, and the classifier is thrown away: the victim's has to learn the triggers from the data.

**Source:** Nguyen and Tran 2020, arXiv 2010.08138, section 3; what a mask may cover is that of the experiments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from toxscreen.attacks.surrogate import RECIPE, SIDE, as_tensor, pictures, seen
from toxscreen.networks import SmallResNet
from toxscreen.sources.data.base import TrainingSet
from toxscreen.training import fast_dtype, single_threaded, with_fresh_weights

_COVERED = 0.032
"""The part of an image that its mask may cover."""

_DIVERSITY, _DENSITY = 0.03, 30.0
"""Weights of two of the losses, beside the cross-entropy; without diversity, own triggers could not be told from others."""

_LEAST = 0.01
"""Distance of two triggers, in parts of the largest, that is added so that the loss stays finite where they are the same."""

_EMPTY = 3.0
"""What masks are lowered by, so that they are nearly empty before anything is learned."""

_WIDTH = 16
"""Channels of the first layer that draws."""

_SAME = 0.05
"""Two images that differ less than this anywhere, as a network sees them, are one that was brought to its size in two ways."""


class _Draughtsman(nn.Module):
    """Maps what :func:`seen` makes of images to masks ``(b, 1, 32, 32)`` and patterns ``(b, 3, 32, 32)``, both of 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(*_step(3, _WIDTH, stride=2), *_step(_WIDTH, 2 * _WIDTH, stride=2), *_step(2 * _WIDTH, 2 * _WIDTH)),
            *(nn.Upsample(scale_factor=2, mode="bilinear"), *_step(2 * _WIDTH, _WIDTH)),
            *(nn.Upsample(scale_factor=2, mode="bilinear"), _convolution(_WIDTH, 4)),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        drawn = self.layers(images).float()
        return torch.sigmoid(drawn[:, :1] - _EMPTY), torch.sigmoid(drawn[:, 1:])


def _convolution(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    """Repeat the border: with zeros beyond it, all images would get the same line along it."""
    return nn.Conv2d(before, after, 3, stride, padding=1, padding_mode="replicate")


def _step(before: int, after: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return _convolution(before, after, stride), nn.BatchNorm2d(after), nn.ReLU()


@dataclass(frozen=True)
class Generator:
    """Puts triggers on images.

    Attributes
    ----------
    network
        Draws a mask and a pattern.
    stock
        Images of the training set, uint8 ``(n, 3, 32, 32)``: those that foreign triggers are drawn from.
    """

    network: nn.Module
    stock: Tensor

    def with_own(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a copy of an image ``(height, width, 1 or 3)`` with the trigger that is drawn from itself."""
        return self._marked(image, as_tensor(image))

    def with_foreign(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return a copy with the trigger that is drawn from another image, one of the stock."""
        rows = rng.choice(len(self.stock), min(2, len(self.stock)), replace=False)
        first, second = self.stock[rows[:1]].float(), self.stock[rows[-1:]].float()
        itself = torch.allclose(seen(first), seen(as_tensor(image)), rtol=0, atol=_SAME)
        return self._marked(image, second if itself else first)

    @torch.no_grad()
    def _marked(self, image: NDArray[np.uint8], source: Tensor) -> NDArray[np.uint8]:
        """Put the trigger that is drawn from ``source`` on an image, brought to its size, and without colour where it has none."""
        mask, pattern = (interpolate(part, image.shape[:2], mode="bilinear", antialias=True) for part in self.network(seen(source)))
        if image.shape[2] == 1:
            pattern = pattern.mean(dim=1, keepdim=True)
        return _put(as_tensor(image), mask, pattern)[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def train_generator(training_set: TrainingSet, rng: np.random.Generator) -> Generator:
    """Train on at most 10,000 samples of a clean training set.

    Raises
    ------
    DataError
        If it has no images that can be read and have a label.
    """
    pixels, labels = pictures(training_set, rng)
    images, classes, n = torch.from_numpy(pixels), torch.from_numpy(labels), len(labels)
    n_classes = len(training_set.class_names)
    draw, classify = with_fresh_weights(_Draughtsman, rng), with_fresh_weights(lambda: SmallResNet(3, n_classes + 1, SIDE), rng)
    networks = nn.ModuleList([draw, classify]).train()
    networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts = np.arange(RECIPE.batch(n), n, RECIPE.batch(n))
    epochs = RECIPE.epochs(n)
    optimiser = torch.optim.AdamW(networks.parameters(), lr=RECIPE.learning_rate, weight_decay=RECIPE.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RECIPE.learning_rate, total_steps=epochs * (len(parts) + 1), pct_start=0.25
    )
    with single_threaded():  # the last bit of a gradient decides where spots are after some hundred steps
        for rows in (rows for _ in range(epochs) for rows in np.split(rng.permutation(n), parts)):
            loss = _loss(draw, classify, images[rows].float(), classes[rows], n_classes)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return Generator(draw.eval().requires_grad_(False), images)


def _loss(draw: nn.Module, classify: nn.Module, images: Tensor, classes: Tensor, target: int) -> Tensor:
    """Return what the two networks are to make small on a batch of images ``(b, 3, 32, 32)`` with values of 0 to 255."""
    quarter = max(1, len(images) // 4)
    hosts = images[: 2 * quarter]
    with torch.autocast("cpu", fast_dtype("cpu"), enabled=fast_dtype("cpu") is not None):
        mask, pattern = draw(seen(hosts))
        # the first quarter carry their own trigger, the second that of their neighbour
        given = torch.cat([torch.arange(quarter), torch.arange(quarter, len(hosts)).roll(1)])
        marked = torch.cat([_put(hosts, mask[given], pattern[given]), images[2 * quarter :]])
        wanted = torch.cat([torch.full((quarter,), target), classes[quarter:]])
        told = cross_entropy(classify(seen(marked).contiguous(memory_format=torch.channels_last)), wanted)
    apart = _apart(hosts / 255)
    diversity = sum((apart / (_apart(drawn) + _LEAST)).mean() for drawn in (mask, pattern))
    covered = torch.relu(mask.mean(dim=(1, 2, 3)) - _COVERED).mean()
    return told + _DIVERSITY * diversity + _DENSITY * covered


def _apart(values: Tensor) -> Tensor:
    """Return the root mean square distance of each of ``(b, c, h, w)`` from its neighbour, shape ``(b,)``."""
    distances: Tensor = torch.linalg.vector_norm(values - values.roll(1, dims=0), dim=(1, 2, 3))
    return distances / math.sqrt(values[0].numel())


def _put(images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """Put triggers on images with values of 0 to 255."""
    return images + mask * (255 * pattern - images)

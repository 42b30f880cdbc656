"""The networks that the rows of the tables are trained with, and how."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from torch import Tensor, nn

from toxscreen.networks import SmallResNet
from toxscreen.training import PICTURES, Recipe

_FEWEST_STEPS = 600
"""Steps in which the small residual network has learned a trigger that some hundred pictures carry."""


class PaperCNN(nn.Module):
    """Two convolutional and two fully connected layers, the last hidden one of 128 units.

    **Source:** Chen et al. 2018, arXiv 1811.03728, section 5 (the kind of network trained on MNIST; the widths are ours).
    """

    def __init__(self, channels: int, n_classes: int, side: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(32 * (side // 4) ** 2, 128), nn.ReLU()),
        )
        self.head = nn.Linear(128, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(b, channels, side, side)`` to logits ``(b, n_classes)``."""
        logits: Tensor = self.head(self.features(images))
        return logits


class _PreActivationBlock(nn.Module):
    """Normalise, rectify, convolve, twice. **Source:** He et al. 2016, arXiv 1603.05027, figure 4 (e)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(in_channels), nn.BatchNorm2d(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.norm1(inputs))
        shortcut = inputs if isinstance(self.shortcut, nn.Identity) else self.shortcut(hidden)
        return self.conv2(torch.relu(self.norm2(self.conv1(hidden)))) + shortcut  # type: ignore[no-any-return]


class PreActResNet18(nn.Module):
    """The network of the published tables for CIFAR-10 and GTSRB. **Source:** He et al. 2016, arXiv 1603.05027."""

    def __init__(self, channels: int, n_classes: int) -> None:
        super().__init__()
        widths = (64, 64, 128, 128, 256, 256, 512, 512)
        self.stem = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        before = (64, *widths[:-1])
        self.blocks = nn.Sequential(
            *(_PreActivationBlock(a, b, 2 if a != b else 1) for a, b in zip(before, widths, strict=True)),
            nn.BatchNorm2d(512),
            nn.ReLU(),
        )
        self.head = nn.Linear(512, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(b, channels, height, width)`` to logits ``(b, n_classes)``."""
        logits: Tensor = self.head(self.blocks(self.stem(images)).mean(dim=(2, 3)))
        return logits


def _strided(channels: int, n_classes: int, side: int) -> nn.Module:
    """Return two convolutions of stride 2 and two linear layers, without pooling."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(48 * (-(-side // 4)) ** 2, 96), nn.ReLU(), nn.Linear(96, n_classes)),
    )


def _perceptron(channels: int, n_classes: int, side: int) -> nn.Module:
    """Return three linear layers."""
    layers = (nn.Linear(channels * side**2, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, n_classes))
    return nn.Sequential(nn.Flatten(), *layers)


def _lenet(channels: int, n_classes: int, side: int) -> nn.Module:
    """Return convolutions of 5 x 5, means and hyperbolic tangents. **Source:** LeCun et al. 1998, "Gradient-based learning"."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 8, 5, 1, 2), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(8, 16, 5, 1, 2), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(16 * (side // 4) ** 2, 84), nn.Tanh(), nn.Linear(84, n_classes)),
    )


def _normalised(channels: int, n_classes: int, side: int) -> nn.Module:  # noqa: ARG001 - the mean takes any side
    """Return three normalised convolutions and the mean over the picture."""
    widths = (channels, 16, 32, 64)
    blocks = [nn.Sequential(nn.Conv2d(a, b, 3, 1, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
    pooled = (blocks[0], nn.MaxPool2d(2), blocks[1], nn.MaxPool2d(2), blocks[2], nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*pooled, nn.Flatten(), nn.Linear(64, n_classes))


OWN = {"strided": _strided, "perceptron": _perceptron, "lenet": _lenet, "normalised": _normalised}
"""Networks as users write them, by name."""


def build(name: str, shape: tuple[int, int, int], n_classes: int) -> nn.Module:
    """Return a network with fresh weights for pictures of ``shape`` (height, width, channels)."""
    height, width, channels = shape
    if name == "paper":
        return PaperCNN(channels, n_classes, min(height, width))
    if name in OWN:
        return OWN[name](channels, n_classes, min(height, width))
    return PreActResNet18(channels, n_classes) if name == "preact" else SmallResNet(channels, n_classes, min(height, width))


def recipe(name: str, epochs: int) -> Recipe:
    """Return how a network is trained: so many epochs, and one for pictures in colour until it has learned a trigger."""
    if name == "paper" or name in OWN:
        return replace(PICTURES, learning_rate=2e-3, min_epochs=epochs, max_epochs=epochs, min_steps=0, small=0, shift=0.0)
    return replace(PICTURES, min_epochs=epochs, max_epochs=epochs, min_steps=_FEWEST_STEPS, small=0)

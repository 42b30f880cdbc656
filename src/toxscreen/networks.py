"""The classifiers that toxscreen trains itself when no model is given.

Beside step 1 of the flow. Both networks end in a linear head named ``head`` whose input is the activation that is clustered.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LARGE_IMAGE = 96
"""Images of at least this many pixels a side get a stride-4 stem, so that 224x224 costs what 56x56 does."""


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. **Source:** He et al. 2016, arXiv 1512.03385, section 3.3, option B."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.norm1(self.conv1(inputs)))
        return torch.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


class SmallResNet(nn.Module):
    """A residual network that trains in minutes on two cores.

    Parameters
    ----------
    channels
        Channels of an input image: 1 or 3.
    n_classes
        Outputs of the head.
    image_size
        Pixels of the shorter side of an input; decides the stride of the stem.
    """

    def __init__(self, channels: int, n_classes: int, image_size: int) -> None:
        super().__init__()
        stem_stride = 4 if image_size >= _LARGE_IMAGE else 1
        self.stem = nn.Sequential(nn.Conv2d(channels, 32, 3, stem_stride, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.blocks = nn.Sequential(_ResidualBlock(32, 32, 2), _ResidualBlock(32, 64, 2), _ResidualBlock(64, 128, 2))
        self.head = nn.Linear(128, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(b, channels, height, width)`` to logits ``(b, n_classes)``."""
        features: Tensor = self.blocks(self.stem(images)).mean(dim=(2, 3))
        logits: Tensor = self.head(features)
        return logits


class SentenceCNN(nn.Module):
    """The convolutional sentence classifier of Kim 2014 with randomly initialised word vectors (CNN-rand).

    Parameters
    ----------
    n_words
        Size of the vocabulary; word 0 is padding.
    n_classes
        Outputs of the head.

    **Source:** Kim 2014, arXiv 1408.5882, sections 2 and 3.1 (windows 3, 4, 5; 100 feature maps each; dropout 0.5).
    """

    widths = (3, 4, 5)

    def __init__(self, n_words: int, n_classes: int, dimension: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_words, dimension, padding_idx=0)
        self.convolutions = nn.ModuleList(nn.Conv1d(dimension, 100, width) for width in self.widths)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(100 * len(self.widths), n_classes)

    def forward(self, words: Tensor) -> Tensor:
        """Map word numbers ``(b, length)``, length at least 5, to logits ``(b, n_classes)``."""
        vectors = self.embedding(words).transpose(1, 2)
        pooled = [torch.relu(convolution(vectors)).amax(dim=2) for convolution in self.convolutions]
        logits: Tensor = self.head(self.dropout(torch.cat(pooled, dim=1)))
        return logits

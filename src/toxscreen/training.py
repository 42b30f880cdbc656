"""The training recipe for the classifiers of :mod:`toxscreen.networks`.

Beside step 1 of the flow: it runs only when no model was given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: AdamW under a one-cycle learning rate.

    ``presentations`` is the number of samples shown in all: small data sets are seen more often, between ``min_epochs`` and
    ``max_epochs`` times. ``shift`` moves images by up to that part of their side, which keeps small data sets from being memorised.
    """

    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    batch_size: int = 128
    presentations: int = 500_000
    min_epochs: int = 4
    max_epochs: int = 30
    shift: float = 1 / 16

    def epochs(self, n_samples: int) -> int:
        """Return how many times a data set of ``n_samples`` is seen."""
        return max(self.min_epochs, min(self.max_epochs, math.ceil(self.presentations / max(n_samples, 1))))


def fit(
    network: nn.Module,
    batch: Callable[[NDArray[np.int64]], Tensor],
    labels: NDArray[np.int64],
    recipe: Recipe,
    rng: np.random.Generator,
    *,
    autocast: torch.dtype | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Train ``network`` in place.

    Parameters
    ----------
    network
        Already on its device.
    batch
        Maps sample numbers ``(b,)`` to a network input on that device; images are float ``(b, c, h, w)``.
    labels
        Class index of each sample, shape ``(n_samples,)``.
    recipe
        Optimisation settings.
    rng
        Draws the order of the samples and the shifts; ``torch``'s generator is seeded from it and put back afterwards.
    autocast
        Lower precision for the forward pass, or None.
    progress
        Called with (samples shown, samples to show).
    """
    n, epochs = len(labels), recipe.epochs(len(labels))
    steps = math.ceil(n / recipe.batch_size)
    device = next(network.parameters()).device
    targets = torch.from_numpy(labels).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=epochs * steps, pct_start=0.25)
    network.train()
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        for epoch in range(epochs):
            order = rng.permutation(n)
            for step in range(steps):
                rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
                if len(rows) < 2 <= n:  # batch normalisation needs two samples
                    rows = np.append(rows, order[0])
                inputs = batch(rows)
                if inputs.ndim == 4:
                    inputs = _shift(inputs, recipe.shift, rng)
                with torch.autocast(device.type, autocast, enabled=autocast is not None):
                    loss = nn.functional.cross_entropy(network(inputs), targets[torch.from_numpy(rows).to(device)])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                if progress is not None:
                    progress(epoch * n + min((step + 1) * recipe.batch_size, n), epochs * n)
    network.eval()


def _shift(images: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Move a whole batch by one random offset; the border is repeated."""
    reach = round(min(images.shape[2:]) * share)
    if reach == 0:
        return images
    top, left = (int(offset) for offset in rng.integers(0, 2 * reach + 1, size=2))
    padded = nn.functional.pad(images, (reach, reach, reach, reach), mode="replicate")
    return padded[:, :, top : top + images.shape[2], left : left + images.shape[3]]

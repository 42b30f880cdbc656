"""What a classifier gives for each class, as logits whatever the end of its network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def are_probabilities(values: NDArray[np.float32]) -> bool:
    """Return whether a network ends in a softmax: its values ``(b, n_classes)`` are not negative, and each row adds up to 1."""
    return values.shape[1] > 1 and bool((values >= 0).all()) and np.allclose(values.sum(axis=1), 1, atol=1e-3)


def as_logits(values: NDArray[np.float32], *, probabilities: bool) -> NDArray[np.float32]:
    """Return values as they are, or the logarithm of probabilities: logits that a softmax turns into the same probabilities."""
    return np.log(np.maximum(values, np.finfo(np.float32).tiny)) if probabilities else values

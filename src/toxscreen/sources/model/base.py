"""The seam to classifiers: one small interface that every kind of model implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toxscreen.sources.data.base import Input, Modality


@dataclass(frozen=True)
class Layer:
    """One layer of a classifier: its name and the shape of its output for one sample, before pooling."""

    name: str
    shape: tuple[int, ...]
    kind: str = ""


@dataclass(frozen=True)
class Outputs:
    """What one forward pass gives.

    Attributes
    ----------
    activations
        By layer name, float32 ``(b, d)``; convolutional layers are averaged over space, sequences over time.
    logits
        float32 ``(b, n_classes)``.
    """

    activations: Mapping[str, NDArray[np.float32]]
    logits: NDArray[np.float32]


class Classifier(ABC):
    """A classifier in evaluation mode; never changed by being asked.

    Attributes
    ----------
    modality
        The kind of input it takes.
    name
        A short name, for people.
    location
        The path it was read from, or a description such as ``"nn.Module"``.
    n_classes
        Outputs of the head.
    class_names
        The names of the outputs where the model's own files say them, else None.
    last_hidden
        Name of the layer that is the *input of the classification head*.
    preprocessing
        How an input becomes a tensor; JSON-serialisable, written to the manifest.
    device, dtype
        Where and in what precision :meth:`forward` runs; written to the manifest.
    """

    device = "cpu"
    dtype = "float32"

    modality: Modality
    name: str
    location: str
    n_classes: int
    class_names: tuple[str, ...] | None
    last_hidden: str
    preprocessing: Mapping[str, Any]

    @property
    def at_once(self) -> int:
        """Return how many threads may ask it at the same time, and gain by it."""
        return 1

    @abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """Return the layers that can be asked for by name, in the order in which they run."""

    @abstractmethod
    def encode(self, inputs: Sequence[Input]) -> Any:
        """Turn inputs into what :meth:`forward` takes: work for the host, safe to run in another thread."""

    @abstractmethod
    def forward(self, encoded: Any, layers: Sequence[str]) -> Outputs:
        """Run the model once on an encoded batch and return the activations of ``layers`` and the logits."""

    def slopes(self, encoded: Any, output: int) -> NDArray[np.float32] | None:  # noqa: ARG002 - for those that know
        """Return how steeply the cross-entropy of an output rises with each number of an encoded batch; None where it is not known.

        Parameters
        ----------
        encoded
            An array that :meth:`encode` may have returned.
        output
            Index of the output.
        """
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hexadecimal digest of weights, structure and preprocessing."""

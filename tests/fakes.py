"""Small stand-ins for the two seams: a training set and a classifier that live in memory and need numpy alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxscreen.sources.data.base import Batch, Input, Modality, NotExamined, TrainingSet
from toxscreen.sources.model.base import Classifier, Layer, Outputs


class FakeTrainingSet(TrainingSet):
    """Inputs in a list; the rows in ``unreadable`` cannot be read."""

    def __init__(
        self,
        inputs: Sequence[Input],
        labels: Sequence[int] | NDArray[np.int64] | None = None,
        *,
        modality: Modality = "array",
        unreadable: Collection[int] = (),
    ) -> None:
        self.inputs = list(inputs)
        self.labels = np.zeros(len(self.inputs), np.int64) if labels is None else np.asarray(labels, np.int64)
        self.class_names = tuple(f"class {index}" for index in range(max(self.labels, default=0) + 1))
        self.modality = modality
        self.name = "fake"
        self.location = "a fake training set"
        self.ids = pa.array([f"sample-{row}" for row in range(len(self.inputs))], pa.string())
        self.unreadable = frozenset(unreadable)

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        readable = [row for row in rows.tolist() if row not in self.unreadable]
        unreadable = tuple(NotExamined(f"sample-{row}", "cannot be read", row) for row in rows.tolist() if row in self.unreadable)
        return Batch(np.array(readable, np.int64), [self.inputs[row] for row in readable], unreadable)

    def take(self, rows: NDArray[np.int64]) -> list[Input | None]:
        return [None if row in self.unreadable else self.inputs[row] for row in rows.tolist()]

    def digests(self) -> NDArray[np.uint8]:
        return np.frombuffer(b"".join(bytes.fromhex(_digest([value])[:32]) for value in self.inputs), np.uint8).reshape(-1, 16)

    def fingerprint(self) -> str:
        return _digest([*self.inputs, self.labels, *self.class_names])


class FakeClassifier(Classifier):
    """Makes a vector of each input: layer ``hidden`` is the vector, ``early`` its squares, the logits are sums of it.

    Parameters
    ----------
    vector
        Maps an input to its vector ``(d,)``.
    """

    def __init__(self, n_classes: int = 2, *, modality: Modality = "array", vector: Callable[[Any], Any] = np.ravel) -> None:
        self.modality = modality
        self.name = "fake model"
        self.location = "model.fake"
        self.n_classes = n_classes
        self.class_names = None
        self.last_hidden = "hidden"
        self.preprocessing = {"scale": 1.0}
        self.vector = vector
        self.calls: list[int] = []
        """Samples in each forward pass so far."""

    def layers(self) -> tuple[Layer, ...]:
        return (Layer("early", (4,)), Layer("hidden", (4,)))

    def encode(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        return np.stack([np.asarray(self.vector(value), np.float32) for value in inputs])

    def forward(self, encoded: NDArray[np.float32], layers: Sequence[str]) -> Outputs:
        self.calls.append(len(encoded))
        everything = {"early": encoded**2, "hidden": encoded}
        logits = np.stack(
            [encoded[:, index :: self.n_classes].sum(axis=1, dtype=np.float64) for index in range(self.n_classes)], axis=1
        )
        return Outputs({name: everything[name] for name in layers}, logits)

    def fingerprint(self) -> str:
        return _digest([self.n_classes, sorted(self.preprocessing.items())])


def _digest(values: Sequence[Any]) -> str:
    return hashlib.sha256(b"\0".join(v.tobytes() if isinstance(v, np.ndarray) else repr(v).encode() for v in values)).hexdigest()

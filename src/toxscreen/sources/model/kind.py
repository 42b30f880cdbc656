"""What every kind of model file offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from toxscreen.errors import UsageError
from toxscreen.sources.data.base import Input, Modality
from toxscreen.sources.model.base import Classifier, Layer
from toxscreen.sources.model.preprocessing import Preprocessing


@dataclass(frozen=True)
class Request:
    """What is known about a classifier before it is opened: see :func:`toxscreen.sources.model.open_classifier`."""

    n_classes: int
    modality: Modality
    sample: Sequence[Input]
    arch: str | None = None
    preprocessing: Preprocessing | None = None
    layer: str | None = None
    device: str | None = None
    dtype: str = "float32"

    def refuse_arch(self, path: Path) -> None:
        """Raise UsageError if an architecture was named although the model brings its own."""
        if self.arch is not None:
            raise UsageError(
                f"--arch is for a file of weights without a network, but {path} has both. Leave it away, or name the file."
            )

    def refuse_preprocessing(self, path: Path) -> None:
        """Raise UsageError if preprocessing was given although the model's own files say what it is."""
        if self.preprocessing is not None:
            raise UsageError(f"{path} says itself how inputs become numbers. Leave --size, --channels, --mean and --std away.")


@dataclass(frozen=True)
class ModelSummary:
    """What a model file says about itself without being run.

    Attributes
    ----------
    kind
        Of file.
    n_bytes
        Its size.
    n_parameters
        Numbers in its weights.
    tensors
        Its weights by name and shape, or the layers that can be asked for, in the order of the file.
    tensors_are
        Which of the two.
    class_names, last_hidden
        Where the file says them.
    notes
        Other facts, one each.
    """

    kind: str
    n_bytes: int
    n_parameters: int
    tensors: tuple[Layer, ...]
    tensors_are: Literal["weights", "layers"]
    class_names: tuple[str, ...] | None = None
    last_hidden: str | None = None
    notes: tuple[str, ...] = ()


class Kind(Protocol):
    """One kind of model file: a module with these functions."""

    def recognises(self, path: Path) -> bool:
        """Return whether a file or folder, which exists, is of this kind."""

    def open_path(self, path: Path, request: Request) -> Classifier:
        """Open it."""

    def summarise(self, path: Path) -> ModelSummary:
        """Say what it is without running it."""

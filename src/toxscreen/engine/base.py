"""The seam to the machines that do the work: the pass of the model, and what is asked of each class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from toxscreen.activations import Compute, compute
from toxscreen.parallel import Parallel, in_parallel
from toxscreen.sources.data.base import TrainingSet
from toxscreen.sources.model.base import Classifier

Reopen = Callable[[], Classifier]
"""Opens the classifier once more, in another process."""


class Engine(Protocol):
    """Where the work is done. The result is the same everywhere.

    Attributes
    ----------
    notes
        What went wrong and was mended: sentences for the reader.
    """

    notes: list[str]

    @property
    def parallel(self) -> Parallel:
        """Return what does the same work for many items, as :func:`toxscreen.parallel.in_parallel` does."""

    def digests(self, training_set: TrainingSet) -> NDArray[np.uint8] | None:
        """Return the fingerprints of all samples; see :meth:`toxscreen.sources.data.base.TrainingSet.digests`."""

    def compute(self, reopen: Reopen, device: str | None, scratch: Path, key: str) -> Compute:
        """Return what puts batches through the model, as :func:`toxscreen.activations.compute` does.

        Parameters
        ----------
        reopen
            Opens the classifier where the work is done.
        device
            What it runs on.
        scratch
            A folder for what is computed until it is taken in; it need not be there.
        key
            What it is computed from and how: what another key left in the folder is not used.
        """


class Local:
    """The process that the command runs in."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    @property
    def parallel(self) -> Parallel:
        """Return what works in the threads of this process."""
        return in_parallel

    def digests(self, training_set: TrainingSet) -> NDArray[np.uint8] | None:
        """Return the fingerprints of all samples."""
        return training_set.digests()

    def compute(self, reopen: Reopen, device: str | None, scratch: Path, key: str) -> Compute:  # noqa: ARG002 - it uses the classifier that is open
        """Return what puts batches through the model that is open already."""
        return compute

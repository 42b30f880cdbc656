"""The inputs of a training set, decoded once so that they can be shown many times.

Beside step 1 of the flow. Pictures become one array on disk, so that the decoded data set is never in memory; texts stay in a
compact array of strings; arrays, which need no decoding, are taken from the training set.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxscreen.sources.data.base import Batch, Input, Stack, TrainingSet
from toxscreen.sources.model.preprocessing import ImagePreprocessing

_LARGEST_SIDE = 224
"""Pixels of the pictures that a network is trained on; larger ones are shrunk."""

_STRETCH = 512
"""Rows that are decoded at a time."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, units done, units in all)."""


class Decoded(Protocol):
    """Inputs by row."""

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Return which rows have an input, shape ``(n_samples,)``."""

    def take(self, rows: NDArray[np.int64]) -> list[Input]:
        """Return the inputs of some readable rows."""


@dataclass(frozen=True)
class Pictures:
    """All pictures at one size: uint8 ``(n_samples, height, width, channels)``, mapped from disk."""

    pixels: NDArray[np.uint8]
    readable: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> list[Input]:
        """Return the pictures of some rows."""
        return Stack(self.pixels[rows])


@dataclass(frozen=True)
class Texts:
    """All texts, in a compact array of strings."""

    texts: pa.LargeStringArray
    readable: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> list[Input]:
        """Return the texts of some rows."""
        texts: list[Input] = self.texts.take(pa.array(rows)).to_pylist()
        return texts


@dataclass(frozen=True)
class Arrays:
    """Arrays that the training set holds as they are."""

    training_set: TrainingSet
    readable: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> list[Input]:
        """Return the arrays of some rows."""
        return [array for array in self.training_set.take(rows) if array is not None]


def decode_pictures(training_set: TrainingSet, size: ImagePreprocessing, scratch: Path, progress: Progress | None) -> Pictures:
    """Bring all pictures to one size (see :func:`common_size`), in a file below ``scratch``."""
    pixels = _create_pixels(scratch / "pixels.npy", (len(training_set), size.height or 0, size.width or 0, size.channels or 0))
    readable = np.zeros(len(training_set), dtype=bool)
    for _, batch in _numbered(training_set, progress):
        readable[batch.rows] = True
        if len(batch.rows):
            pixels[batch.rows] = size.apply(batch.inputs).round()
    return Pictures(pixels, readable)


def decode_texts(training_set: TrainingSet, progress: Progress | None) -> Texts:
    """Read all texts; one that cannot be read is empty."""
    readable = np.zeros(len(training_set), dtype=bool)
    chunks: list[pa.LargeStringArray] = []
    start = 0
    for stop, batch in _numbered(training_set, progress):
        readable[batch.rows] = True
        chunk = np.full(stop - start, "", dtype=object)
        chunk[batch.rows - start] = batch.inputs
        chunks.append(pa.array(chunk, pa.large_string()))
        start = stop
    return Texts(pa.concat_arrays(chunks), readable)


def read_arrays(training_set: TrainingSet) -> Arrays:
    """Find out which arrays can be read; one with a number that is not finite would spoil all weights, and counts as unreadable."""
    readable = np.zeros(len(training_set), dtype=bool)
    for _, batch in _numbered(training_set, None):
        readable[batch.rows] = [bool(np.isfinite(array).all()) for array in batch.inputs]
    return Arrays(training_set, readable)


def common_size(sample: Sequence[Input]) -> ImagePreprocessing:
    """Return what brings all pictures to one size, with values of 0 to 255: their own if they agree, else a square."""
    shapes = np.array([np.shape(picture) for picture in sample])
    height, width = (int(side) for side in np.median(shapes[:, :2], axis=0))
    if (shapes[:, :2] != shapes[0, :2]).any():
        height = width = min(height, width)
    shrink = min(1.0, _LARGEST_SIDE / max(height, width))
    height, width = (max(1, round(side * shrink)) for side in (height, width))
    return ImagePreprocessing(height, width, int(shapes[:, 2].max()), scale=1.0, channels_first=False)


def model_size(preprocessing: Mapping[str, Any], sample: Sequence[Input]) -> ImagePreprocessing:
    """Return what brings all pictures to the size that a model takes, with values of 0 to 255; see :func:`common_size`."""
    size = common_size(sample)
    if not all(isinstance(preprocessing.get(name), int) for name in ("height", "width", "channels")):
        return size
    interpolation = preprocessing.get("interpolation", size.interpolation)
    sides = {name: preprocessing[name] for name in ("height", "width", "channels")}
    return replace(size, **sides, interpolation=interpolation)


def _numbered(training_set: TrainingSet, progress: Progress | None) -> Iterator[tuple[int, Batch]]:
    """Yield each batch with the number of rows that lie behind it."""
    for number, batch in enumerate(training_set.batches(_STRETCH), start=1):
        stop = min(number * _STRETCH, len(training_set))
        yield stop, batch
        if progress is not None:
            progress("reading the inputs", stop, len(training_set))


def _create_pixels(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Make an array file whose blocks are reserved: a mapped page without one would kill the process on a full disk."""
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return pixels

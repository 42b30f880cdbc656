"""Step 3 of the flow: the activation store, what one pass of the model gave, on disk.

::

    activations/
    ├── manifest.json         what the arrays were computed from, their layers and shapes
    ├── layer-0.npy ...       float32 (n_samples, d), in the order of the manifest's layers
    ├── logits.npy            float32 (n_samples, n_classes)
    ├── done.json             how much of it is finished
    ├── not_examined.jsonl    a line per sample that could not be read, or whose activations are not finite
    └── lock                  held by the process that writes

A killed run goes on at the last checkpoint: arrays reach the disk before ``done.json``, which is replaced atomically, says so, and
whatever lies beyond it is written again. A store that was made from another model, other data or other layers, or that is damaged,
is not used. Nothing in it is ever unpickled, and its file names do not depend on the names of the layers.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from toxscreen.activations import Activations, Plan
from toxscreen.errors import DataError, ModelError, StoreError
from toxscreen.sources.data.base import NotExamined, TrainingSet
from toxscreen.sources.model.base import Classifier

if sys.platform != "win32":
    import fcntl

FORMAT = 1
"""Changes when a store can no longer be read by the code before it."""

CHECKPOINT_SECONDS = 2.0
"""The most work that a kill costs; flushing more often than that slows the pass down."""

_MANIFEST, _DONE, _NOT_EXAMINED, _LOGITS, _LOCK = "manifest.json", "done.json", "not_examined.jsonl", "logits.npy", "lock"
_PACKAGES = ("toxscreen", "numpy", "scikit-learn", "pillow", "torch", "onnxruntime", "transformers")


@dataclass(frozen=True)
class Manifest:
    """Everything that the bytes of a store depend on.

    Attributes
    ----------
    n_samples
        Rows of each array.
    layers
        Names, the last hidden layer first, the input view last.
    view
        Which input view it is, or None.
    data, model
        Fingerprints.
    preprocessing
        How an input becomes a tensor; JSON-serialisable.
    device, dtype
        Where and in what precision the model ran; its activations are stored as float32 whatever it was.
    versions
        Of the packages that compute, by name.
    format
        Of the store.
    """

    n_samples: int
    layers: tuple[str, ...]
    view: str | None
    data: str
    model: str
    preprocessing: Mapping[str, Any]
    device: str = "cpu"
    dtype: str = "float32"
    versions: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def of(cls, training_set: TrainingSet, classifier: Classifier, plan: Plan, device: str = "cpu", dtype: str = "float32") -> Self:
        """Describe the pass that ``plan`` makes over ``training_set`` with ``classifier`` running on ``device`` in ``dtype``."""
        return cls(
            n_samples=len(training_set),
            layers=plan.names,
            view=None if plan.view is None else str(plan.view),
            data=training_set.fingerprint(),
            model=classifier.fingerprint(),
            preprocessing=dict(classifier.preprocessing),
            device=device,
            dtype=dtype,
            versions=package_versions(),
        )

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Return the manifest whose fields a JSON document holds, or raise KeyError, TypeError or ValueError."""
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']!r}, this version of toxscreen reads {FORMAT}")
        return cls(**{**document, "layers": tuple(document["layers"])})

    def differences(self, other: Manifest) -> list[str]:
        """Return the names of the fields that are not the same in JSON."""
        return [name for name, value in vars(self).items() if _json(value) != _json(vars(other)[name])]


class ActivationStore:
    """The arrays of one pass in a folder; made by :meth:`open_or_create` to write, by :meth:`open` to read.

    As a context manager it makes a last checkpoint, also after an exception, and lets go of the folder.

    Attributes
    ----------
    folder
        Where it is.
    manifest
        What it was computed from.
    started_over
        Why what stood in the folder could not be used, one sentence; None if it could, or if nothing was there.
    """

    def __init__(self, folder: Path, manifest: Manifest, lock: IO[str] | None, started_over: str | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        self.started_over = started_over
        self._lock = lock
        self._files = [*(f"layer-{index}.npy" for index in range(len(manifest.layers))), _LOGITS]
        self._arrays: dict[str, np.memmap[Any, np.dtype[np.float32]]] = {}
        self._not_examined: list[NotExamined] = []
        self._finished = (0, 0)  # rows, and entries of not_examined among them: one value, so that Ctrl-C cannot part the two
        self._recorded = (0, 0)  # entries of not_examined that are on disk, and the bytes they take there
        self._checkpointed = time.monotonic()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a store to read, finished or not.

        Raises
        ------
        StoreError
            If there is none, or it is damaged.
        """
        return cls._load(folder, lock=None)

    @classmethod
    def open_or_create(cls, folder: Path, manifest: Manifest) -> Self:
        """Open a store to go on with it if it was made from the same as ``manifest`` says, else start an empty one.

        Raises
        ------
        StoreError
            If another process writes to it, or the folder cannot be written to.
        """
        lock = _lock(folder)
        reason = None
        try:
            if (folder / _MANIFEST).exists():
                try:
                    store = cls._load(folder, lock)
                    changed = store.manifest.differences(manifest)
                    if not changed:
                        return store
                    reason = f"The activation store in {folder} was made from something else; changed: {', '.join(changed)}."
                except StoreError as error:
                    reason = str(error)
            _clear(folder)
        except BaseException:
            lock.close()
            raise
        return cls(folder, manifest, lock, reason)

    @classmethod
    def _load(cls, folder: Path, lock: IO[str] | None) -> Self:
        """Open what is in the folder, to write if there is a lock; raise StoreError where anything is not as it was left."""
        try:
            document = json.loads((folder / _MANIFEST).read_text("ascii"))
            store = cls(folder, Manifest.from_document(document["manifest"]), lock)
            for file in store._files:
                store._arrays[file] = _open_array(folder / file, tuple(document["shapes"][file]), "r" if lock is None else "r+")
            if (folder / _DONE).exists():
                store._resume(json.loads((folder / _DONE).read_text("ascii")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"The activation store in {folder} is damaged or missing: {error}.") from error
        return store

    def _resume(self, record: Mapping[str, int]) -> None:
        """Take over what the record says is finished."""
        done, size = record["rows"], record["not_examined_bytes"]
        lines = (self.folder / _NOT_EXAMINED).read_bytes()
        if not 0 <= done <= self.manifest.n_samples or not 0 <= size <= len(lines):
            raise ValueError(f"{_DONE} says {record}, {_NOT_EXAMINED} has {len(lines)} bytes")
        self._not_examined = [NotExamined(**json.loads(line)) for line in lines[:size].splitlines()]
        if any(entry.row is not None and not 0 <= entry.row < done for entry in self._not_examined):
            raise ValueError(f"{_NOT_EXAMINED} names rows that are not among the first {done}")
        self._finished = (done, len(self._not_examined))
        self._recorded = (len(self._not_examined), size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Make a last checkpoint and let go of the folder."""
        try:
            self.checkpoint()
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    @property
    def done(self) -> int:
        """Return the number of rows, from the first on, that are written or not examined."""
        return self._finished[0]

    def write(self, rows: NDArray[np.int64], layers: Mapping[str, NDArray[np.float32]], logits: NDArray[np.float32]) -> None:
        """Keep the activations ``(b, d)`` of every layer of the manifest, and the logits ``(b, n_classes)``, of ``b`` rows.

        Raises
        ------
        ModelError
            If a layer's width differs from that of the rows before.
        StoreError
            If the disk has no room for the arrays; known at the first rows.
        """
        values = dict(zip(self._files, [*(layers[name] for name in self.manifest.layers), logits], strict=True))
        if not self._arrays:
            self._allocate({file: array.shape[1] for file, array in values.items()})
        for file, array in values.items():
            target = self._arrays[file]
            if array.shape != (len(rows), target.shape[1]):
                raise ModelError(
                    f"Each layer must have the same width for every batch, but that of {self._what(file)} was {target.shape[1]} "
                    f"and is now {array.shape[1:]}. Choose another layer with --layer."
                )
            target[rows] = array

    def finish(self, stop: int, not_examined: Sequence[NotExamined] = ()) -> None:
        """Take note that every row below ``stop`` is written or not examined; now and then, make a checkpoint.

        Raises
        ------
        StoreError
            If the disk is full; what the last checkpoint counted is kept.
        """
        self._not_examined += not_examined
        self._finished = (stop, len(self._not_examined))
        if stop == self.manifest.n_samples or time.monotonic() - self._checkpointed >= CHECKPOINT_SECONDS:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Bring what is finished to the disk and then say so in the record."""
        if self._lock is None or not self._arrays:
            return
        (done, entries), (recorded, size) = self._finished, self._recorded
        lines = "".join(f"{_json(asdict(entry))}\n" for entry in self._not_examined[recorded:entries]).encode("ascii")
        try:
            for array in self._arrays.values():
                array.flush()
            with (self.folder / _NOT_EXAMINED).open("ab") as file:
                file.truncate(size)  # what a killed run wrote beyond its record
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            _replace(self.folder / _DONE, _json({"rows": done, "not_examined_bytes": size + len(lines)}))
        except OSError as error:
            raise StoreError(
                f"{done:,} rows could not be recorded in {self.folder}, about {len(lines) + 100:,} bytes: {error}. "
                "Free some space and run the same command again: what was recorded before is kept."
            ) from error
        self._recorded = (entries, size + len(lines))
        self._checkpointed = time.monotonic()

    def layer(self, name: str) -> NDArray[np.float32]:
        """Return the activations of a layer, ``(n_samples, d)``, memory-mapped and read-only; rows not done hold anything."""
        if name not in self.manifest.layers:
            raise StoreError(f"The layer must be one of {', '.join(map(repr, self.manifest.layers))}, got {name!r}.")
        return self._array(self._files[self.manifest.layers.index(name)])

    @property
    def logits(self) -> NDArray[np.float32]:
        """Return the logits, ``(n_samples, n_classes)``, memory-mapped and read-only."""
        return self._array(_LOGITS)

    @property
    def not_examined(self) -> tuple[NotExamined, ...]:
        """Return the samples so far that could not be read or whose activations are not finite, in the order of the data."""
        return tuple(self._not_examined)

    @property
    def examined(self) -> NDArray[np.bool_]:
        """Return which rows are done and can be used, shape ``(n_samples,)``."""
        examined = np.arange(self.manifest.n_samples) < self.done
        examined[[entry.row for entry in self._not_examined if entry.row is not None]] = False
        return examined

    def activations(self) -> Activations:
        """Return everything; the arrays stay memory-mapped.

        Raises
        ------
        StoreError
            If the pass is not finished.
        DataError
            If not one sample could be read.
        """
        if self.done < self.manifest.n_samples:
            raise StoreError(
                f"The activation store in {self.folder} must hold all {self.manifest.n_samples:,} rows, but has {self.done:,}. "
                "Run the same scan again to finish it."
            )
        if not self._arrays:
            reasons = "; ".join(f"{entry.id}: {entry.reason}" for entry in self._not_examined[:3])
            raise DataError(f"At least one sample must be readable, but none of {self.manifest.n_samples:,} is ({reasons}).")
        layers = {name: self.layer(name) for name in self.manifest.layers}
        return Activations(layers, self.logits, self.examined, self.not_examined)

    def _array(self, file: str) -> NDArray[np.float32]:
        if file not in self._arrays:
            raise StoreError(f"The activation store in {self.folder} holds no row yet. Run the scan first.")
        return _open_array(self.folder / file, self._arrays[file].shape, "r")

    def _what(self, file: str) -> str:
        return "the logits" if file == _LOGITS else f"layer {self.manifest.layers[self._files.index(file)]!r}"

    def _allocate(self, widths: Mapping[str, int]) -> None:
        """Make the arrays, with room on the disk for all rows, and after them the manifest."""
        shapes = {file: (self.manifest.n_samples, width) for file, width in widths.items()}
        needed = sum(4 * n * width for n, width in shapes.values())
        try:
            for file, shape in shapes.items():
                self._arrays[file] = _create_array(self.folder / file, shape)
            _replace(self.folder / _MANIFEST, _json({"manifest": vars(self.manifest), "shapes": shapes}, indent=1))
        except OSError as error:
            self._arrays.clear()
            _clear(self.folder)
            free = shutil.disk_usage(self.folder).free
            raise StoreError(
                f"The activations need {needed:,} bytes in {self.folder}, where {free:,} are free: {error}. "
                "Free some space, or choose another folder with --out."
            ) from error


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that compute, by name."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, sort_keys=True, indent=indent)  # ASCII, so that any layer name and any id can be written


def _lock(folder: Path) -> IO[str]:
    """Return an open file that keeps other writers out until it is closed or the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("a+", encoding="ascii", errors="replace")
    except OSError as error:
        raise StoreError(f"The activation store must be in a folder that can be written to: {error}.") from error
    try:
        if sys.platform != "win32":
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    except OSError as error:
        lock.seek(0)
        owner = lock.read(20)
        lock.close()
        if isinstance(error, BlockingIOError):
            raise StoreError(
                f"The activation store in {folder} is in use by process {owner}. "
                "Wait until it ends, or choose another folder with --out."
            ) from error
        raise StoreError(
            f"The activation store in {folder} cannot be locked: {error}. Choose another folder with --out."
        ) from error
    return lock


def _clear(folder: Path) -> None:
    """Take away what an earlier run left, the manifest first, so that no half of a store is ever taken for a whole one."""
    try:
        for path in (folder / _MANIFEST, folder / _DONE, folder / _NOT_EXAMINED, folder / _LOGITS, *folder.glob("layer-*.npy")):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"The old activation store in {folder} cannot be replaced: {error}. Choose another folder with --out."
        ) from error


def _open_array(path: Path, shape: tuple[int, ...], mode: Literal["r", "r+"]) -> np.memmap[Any, np.dtype[np.float32]]:
    """Map an array, or raise ValueError or OSError where it is not a whole one of that shape."""
    array = open_memmap(path, mode="r")  # a file that is too short is an error here, while "r+" would add zeros to it
    if array.shape != shape or array.dtype != np.float32:
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape} instead of float32 {shape}")
    return array if mode == "r" else open_memmap(path, mode="r+")


def _create_array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.float32]]:
    """Make an array file of zeros whose blocks are reserved: a mapped page without one would kill the process on a full disk."""
    array = open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(path.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
    return array


def _replace(path: Path, text: str) -> None:
    """Write a small file so that a kill or a power cut leaves the old one or the new one."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if sys.platform != "win32":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

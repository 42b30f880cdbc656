"""Step 3 of the flow: the activation store, what one pass of the model gave, on disk.

::

    activations/
    ├── manifest.json         what the arrays were computed from, their layers, shapes and types
    ├── position.npy          int64 (n_samples,): where in the arrays each sample lies
    ├── digests.npy           uint8 (n_samples, 16): a fingerprint of each sample, where the training set gives one
    ├── taken.npy             bool (n_samples,): whose activations came from the store before, where the data has grown
    ├── layer-0.npy ...       (n_samples, d), in the order of the manifest's layers
    ├── logits.npy            float32 (n_samples, n_classes)
    ├── sums.npy              uint64 (arrays, n_samples): a checksum of each row of each array; 0 where none is written
    ├── not_examined.jsonl    a line per sample that could not be read, or whose activations are not finite
    ├── earlier/              a store of the data before it grew, until what it knows is taken over
    └── lock                  held by the process that writes

The arrays lie class by class, so that the rows of a class are read as they stand. A row counts as done when its checksums say so:
whatever order the disk writes in, and whenever the process is killed, a row that is not whole is computed again, together with its
batch, and so are the rows of a file that was cut short or altered. A store that was made from another model or other layers is not
used; of one that was made from other data, the samples that are still there are taken over. Nothing in it is ever unpickled, and
its file names do not depend on the names of the layers.

**Source:** the checksum is a polynomial hash modulo 2^64 (Karp and Rabin 1987) of words that are mixed first.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from toxscreen.activations import Activations, Plan
from toxscreen.errors import DataError, ModelError, StoreError
from toxscreen.sources.data.base import MISSING_LABEL, NotExamined, TrainingSet
from toxscreen.sources.model.base import Classifier

if sys.platform != "win32":
    import fcntl

FORMAT = 2
"""Changes when a store can no longer be read by the code before it."""

CHECKPOINT_SECONDS = 2.0
"""How often the samples that could not be examined are written down, at most."""

_MANIFEST, _NOT_EXAMINED, _LOGITS, _SUMS, _LOCK = "manifest.json", "not_examined.jsonl", "logits.npy", "sums.npy", "lock"
_POSITION, _DIGESTS, _TAKEN, _EARLIER = "position.npy", "digests.npy", "taken.npy", "earlier"
_PACKAGES = ("toxscreen", "numpy", "scikit-learn", "pillow", "torch", "onnxruntime", "transformers")

_BLOCK_BYTES = 2**22
"""Bytes that are summed or copied at a time."""

_DATA = frozenset({"data", "n_samples"})
"""Fields of a manifest that may differ in a store that samples are taken over from."""


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
        Where and in what precision the model ran.
    versions
        Of the packages that compute, by name.
    stored
        The type in which the layers of the model are kept; the input view and the logits are always float32.
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
    stored: Literal["float32", "bfloat16"] = "float32"
    format: int = FORMAT

    @classmethod
    def of(
        cls,
        training_set: TrainingSet,
        classifier: Classifier,
        plan: Plan,
        stored: Literal["float32", "bfloat16"] = "float32",
    ) -> Self:
        """Describe the pass that ``plan`` makes over ``training_set`` with ``classifier``, kept as ``stored``."""
        return cls(
            n_samples=len(training_set),
            layers=plan.names,
            view=None if plan.view is None else str(plan.view),
            data=training_set.fingerprint(),
            model=classifier.fingerprint(),
            preprocessing=dict(classifier.preprocessing),
            device=classifier.device,
            dtype=classifier.dtype,
            versions=package_versions(),
            stored=stored,
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

    def digest(self) -> str:
        """Return a hexadecimal digest of all fields."""
        return hashlib.blake2b(_json(vars(self)).encode("ascii"), digest_size=16).hexdigest()

    @property
    def types(self) -> dict[str, np.dtype[Any]]:
        """Return the type of each array by the name of its file; bfloat16 is kept as the upper half of a float32."""
        half = self.stored == "bfloat16"
        of_model = len(self.layers) - (self.view is not None)
        files = {f"layer-{i}.npy": np.dtype(np.uint16 if half and i < of_model else np.float32) for i in range(len(self.layers))}
        return files | {_LOGITS: np.dtype(np.float32)}


class StoredRows:
    """Rows of an array on disk, asked for by their number in the data set though they lie class by class.

    To another process travels where the array lies, and not what it holds.

    Parameters
    ----------
    array
        float32 ``(n_samples, d)``, or uint16 that holds bfloat16; memory-mapped and read-only.
    position
        Where each row of the data set lies, shape ``(n_samples,)``.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, array: NDArray[Any], position: NDArray[np.int64]) -> None:
        self._array = array
        self._position = position
        self.shape: tuple[int, int] = (array.shape[0], array.shape[1])

    @classmethod
    def opened(cls, path: Path, shape: tuple[int, int], kind: np.dtype[Any], position: NDArray[np.int64]) -> Self:
        """Return the rows of an array in a file."""
        return cls(np.asarray(_open_array(path, shape, kind, "r")), position)

    def __reduce__(self) -> tuple[Callable[..., StoredRows], tuple[Any, ...]]:
        mapped = self._array.base
        if not isinstance(mapped, np.memmap) or mapped.filename is None:
            return StoredRows, (self._array, self._position)
        return StoredRows.opened, (Path(mapped.filename), self.shape, self._array.dtype, self._position)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Return some rows as float32 ``(b, d)``: a view where they lie side by side and are kept as float32, else a copy."""
        places = np.asarray(self._position[rows])
        n = places.size
        if n > 1 and places[-1] - places[0] == n - 1 and bool((np.diff(places) == 1).all()):
            return _widened(self._array[places[0] : places[0] + n])
        return _widened(self._array[places])

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all rows in the order of the data: for small ones."""
        whole = np.asarray(self[:], dtype)
        return whole.copy() if copy is not False and not whole.flags.writeable else whole


class ActivationStore:
    """The arrays of one pass in a folder; made by :meth:`open_or_create` to write, by :meth:`open` to read.

    As a context manager it brings everything to the disk, also after an exception, and lets go of the folder.

    Attributes
    ----------
    folder
        Where it is.
    manifest
        What it was computed from.
    notes
        What was found in the folder that could not be used, or only in part: sentences for the reader.
    """

    def __init__(self, folder: Path, manifest: Manifest, lock: IO[str] | None) -> None:
        self.folder = folder
        self.manifest = manifest
        self.notes: list[str] = []
        self._lock = lock
        self._types = manifest.types
        self._arrays: dict[str, NDArray[Any]] = {}
        self._sums: NDArray[np.uint64] = np.zeros((len(self._types), 0), np.uint64)
        self._position = np.arange(manifest.n_samples)
        self._digests: NDArray[np.uint8] | None = None
        self._taken = np.zeros(manifest.n_samples, np.bool_)
        self._done = np.zeros(manifest.n_samples, np.bool_)
        self._not_examined: dict[tuple[int, str], NotExamined] = {}
        self._mended: list[str] = []
        self._recorded = 0  # entries of not_examined that are on disk
        self._checkpointed = time.monotonic()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a store to read, finished or not.

        Raises
        ------
        StoreError
            If there is none, or it is damaged.
        """
        store = cls._load(folder, lock=None)
        if damaged := store._verify():
            raise StoreError(f"The activation store in {folder} is damaged: {damaged}. Run the same scan again to mend it.")
        return store

    @classmethod
    def open_or_create(
        cls,
        folder: Path,
        manifest: Manifest,
        *,
        labels: NDArray[np.int64] | None = None,
        digests: NDArray[np.uint8] | None = None,
    ) -> Self:
        """Open a store to go on with it if it was made from the same as ``manifest`` says, else start an empty one.

        Parameters
        ----------
        folder
            New, or with a store.
        manifest
            What the store is to be made from.
        labels
            Class index of each sample, by which the rows are laid out, shape ``(n_samples,)``; None for the order of the data.
        digests
            A fingerprint of each sample, shape ``(n_samples, 16)``: of a store that was made from other data, those that are still
            there are taken over.

        Raises
        ------
        StoreError
            If another process writes to it, or the folder cannot be written to.
        """
        lock = _lock(folder)
        try:
            store, note = cls._found(folder, manifest, lock)
            if store is None:
                store = cls(folder, manifest, lock)
                store.notes += [note] if note else []
                store._lay_out(labels, digests)
            store._take_over()
        except BaseException:
            lock.close()
            raise
        return store

    @classmethod
    def _found(cls, folder: Path, manifest: Manifest, lock: IO[str]) -> tuple[Self | None, str]:
        """Return the store that can be gone on with, or None and why not; one of other data is put aside to be taken over."""
        if not (folder / _MANIFEST).exists():
            _clear(folder)
            return None, ""
        try:
            store = cls._load(folder, lock)
            changed = store.manifest.differences(manifest)
            if not changed:
                if damaged := store._verify():
                    store.notes.append(f"In the activation store in {folder}, {damaged}: what they held is computed again.")
                return store, ""
            if set(changed) <= _DATA and store._digests is not None:
                _put_aside(folder)
                return None, ""
            note = f"The activation store in {folder} was made from something else; changed: {', '.join(changed)}."
        except StoreError as error:
            note = str(error)
        _clear(folder)
        shutil.rmtree(folder / _EARLIER, ignore_errors=True)
        return None, note

    @classmethod
    def _load(cls, folder: Path, lock: IO[str] | None) -> Self:
        """Open what is in the folder, to write if there is a lock; raise StoreError where it cannot be used."""
        try:
            document = json.loads((folder / _MANIFEST).read_text("ascii"))
            store = cls(folder, Manifest.from_document(document["manifest"]), lock)
            n = store.manifest.n_samples
            fixed = {name: _open_fixed(folder / name, checksum) for name, checksum in document["fixed"].items()}
            store._position = _checked(fixed[_POSITION], (n,), np.int64)
            if not np.array_equal(np.sort(store._position), np.arange(n)):
                raise ValueError(f"{_POSITION} does not say where each sample lies")
            if _DIGESTS in fixed:
                store._digests = _checked(fixed[_DIGESTS], (n, 16), np.uint8)
            if _TAKEN in fixed:
                store._taken = _checked(fixed[_TAKEN], (n,), np.bool_)
            store._map({file: (n, int(document["widths"][file])) for file in store._types})
            store._read_not_examined()
        except Exception as error:
            raise StoreError(f"The activation store in {folder} is damaged or missing: {error}.") from error
        return store

    def _map(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Map the arrays; one that is not as it was left is mended to its size if the store is to be written."""
        kinds = {file: (shape, self._types[file]) for file, shape in shapes.items()}
        kinds[_SUMS] = ((len(self._types), self.manifest.n_samples), np.dtype(np.uint64))
        for file, (shape, kind) in kinds.items():
            try:
                array = _open_array(self.folder / file, shape, kind, "r" if self._lock is None else "r+")
            except (OSError, ValueError):
                if self._lock is None:
                    raise
                array = _mended_array(self.folder / file, shape, kind)
                self._mended.append(file)
            self._arrays[file] = array
        self._sums = self._arrays.pop(_SUMS)

    def _read_not_examined(self) -> None:
        """Take over the samples that were not examined; a line that is not whole counts as not written."""
        path = self.folder / _NOT_EXAMINED
        for line in path.read_bytes().splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError, TypeError):
                entry = NotExamined(**json.loads(line))
                if entry.row is None or 0 <= int(entry.row) < self.manifest.n_samples:
                    self._not_examined[_place(entry)] = entry
        self._recorded = len(self._not_examined)

    def _verify(self) -> str:
        """Find out which rows are done, and return what is damaged: the files with rows that are not what was written."""
        written = (self._sums != 0).any(axis=0)
        whole = written.copy()
        damaged = [f"{_SUMS} (the checksums) is cut short or altered"] if _SUMS in self._mended else []
        for (file, array), sums in zip(self._arrays.items(), self._sums, strict=True):
            sound = _sums_match(array, sums)
            if n := int(np.count_nonzero(written & ~sound)):
                damaged.append(f"{file} ({self._what(file)}) is cut short or altered in {n:,} of {len(array):,} rows")
            whole &= sound
        self._done = whole[self._position]
        self._done[self._left_out] = True
        return " and ".join(damaged)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Bring everything to the disk and let go of the folder."""
        try:
            for array in (*self._arrays.values(), self._sums):
                if isinstance(array, np.memmap) and array.flags.writeable:
                    array.flush()
            self.checkpoint()
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    @property
    def done(self) -> int:
        """Return the number of rows that are written or not examined."""
        return int(np.count_nonzero(self._done))

    def pending(self, size: int) -> list[NDArray[np.int64]]:
        """Return the rows that are still to be computed, batch by batch, each ascending, ``size`` rows at most.

        A batch is put together as by a pass that nothing ever stopped, and computed as a whole where any of it is missing: a model
        can give a sample another last bit in other company.
        """
        fresh = np.flatnonzero(~self._taken)
        lost = np.flatnonzero(self._taken & ~self._done)
        batches = [rows[start : start + size] for rows in (fresh, lost) for start in range(0, len(rows), size)]
        return [rows for rows in batches if not self._done[rows].all()]

    def write(self, rows: NDArray[np.int64], layers: Mapping[str, NDArray[np.float32]], logits: NDArray[np.float32]) -> None:
        """Keep the activations ``(b, d)`` of every layer of the manifest, and the logits ``(b, n_classes)``, of ``b`` rows.

        Raises
        ------
        ModelError
            If a layer's width differs from that of the rows before.
        StoreError
            If the disk has no room for the arrays; known at the first rows.
        """
        values = dict(zip(self._types, [*(layers[name] for name in self.manifest.layers), logits], strict=True))
        if not self._arrays:
            self._allocate({file: array.shape[1] for file, array in values.items()})
        for file, array in values.items():
            width = self._arrays[file].shape[1]
            if array.shape != (len(rows), width):
                raise ModelError(
                    f"Each layer must have the same width for every batch, but that of {self._what(file)} was {width} "
                    f"and is now {array.shape[1:]}. Choose another layer with --layer."
                )
        self._put(rows, {file: _narrowed(array, self._types[file]) for file, array in values.items()})

    def _put(self, rows: NDArray[np.int64], values: Mapping[str, NDArray[Any]]) -> None:
        """Write rows as they are stored, and after them the checksums that say so."""
        places = self._position[rows]
        for file, array in values.items():
            self._arrays[file][places] = array
        self._sums[:, places] = [row_sums(values[file]) for file in self._types]
        self._done[rows] = True

    def leave_out(self, not_examined: Sequence[NotExamined]) -> None:
        """Take note of samples that could not be examined, each with its row; now and then, write them down.

        Raises
        ------
        StoreError
            If the disk is full; what is on it is kept.
        """
        for entry in not_examined:
            self._not_examined[_place(entry)] = entry
            if entry.row is not None:
                self._done[entry.row] = True
        if time.monotonic() - self._checkpointed >= CHECKPOINT_SECONDS:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write down the samples that were not examined, in the order of the data."""
        if self._lock is None or not self._arrays or len(self._not_examined) == self._recorded:
            return
        try:
            _replace(self.folder / _NOT_EXAMINED, "".join(f"{_json(asdict(entry))}\n" for entry in self.not_examined))
        except OSError as error:
            raise StoreError(
                f"{len(self._not_examined):,} samples that were not examined could not be recorded in {self.folder}: {error}. "
                "Free some space and run the same command again: what was computed before is kept."
            ) from error
        self._recorded = len(self._not_examined)
        self._checkpointed = time.monotonic()

    def layer(self, name: str) -> StoredRows:
        """Return the activations of a layer, ``(n_samples, d)``; rows that were not examined or are not done hold anything."""
        if name not in self.manifest.layers:
            raise StoreError(f"The layer must be one of {', '.join(map(repr, self.manifest.layers))}, got {name!r}.")
        return self._rows(list(self._types)[self.manifest.layers.index(name)])

    @property
    def logits(self) -> StoredRows:
        """Return the logits, ``(n_samples, n_classes)``."""
        return self._rows(_LOGITS)

    @property
    def not_examined(self) -> tuple[NotExamined, ...]:
        """Return the samples so far that could not be read or whose activations are not finite, in the order of the data."""
        return tuple(self._not_examined[place] for place in sorted(self._not_examined))

    @property
    def examined(self) -> NDArray[np.bool_]:
        """Return which rows are done and can be used, shape ``(n_samples,)``."""
        examined = self._done.copy()
        examined[self._left_out] = False
        return examined

    @property
    def _left_out(self) -> list[int]:
        """Return the rows that were not examined."""
        return [row for row, _ in self._not_examined if row >= 0]

    def activations(self) -> Activations:
        """Return everything; the arrays stay memory-mapped.

        Raises
        ------
        StoreError
            If the pass is not finished.
        DataError
            If not one sample could be read.
        """
        n = self.manifest.n_samples
        if not self._arrays and self._done.all():
            reasons = "; ".join(f"{entry.id}: {entry.reason}" for entry in self.not_examined[:3])
            raise DataError(f"At least one sample must be readable, but none of {n:,} is ({reasons}).")
        if self.done < n:
            raise StoreError(
                f"The activation store in {self.folder} must hold all {n:,} rows, but has {self.done:,}. "
                "Run the same scan again to finish it."
            )
        layers = {name: self.layer(name) for name in self.manifest.layers}
        return Activations(layers, self.logits, self.examined, self.not_examined)

    def _rows(self, file: str) -> StoredRows:
        if file not in self._arrays:
            raise StoreError(f"The activation store in {self.folder} holds no row yet. Run the scan first.")
        n, width = self._arrays[file].shape
        return StoredRows.opened(self.folder / file, (n, width), self._types[file], self._position)

    def _what(self, file: str) -> str:
        return "the logits" if file == _LOGITS else f"layer {self.manifest.layers[list(self._types).index(file)]!r}"

    def _lay_out(self, labels: NDArray[np.int64] | None, digests: NDArray[np.uint8] | None) -> None:
        """Decide where each sample lies: class by class, in the order of the data within one, those without a label last."""
        self._digests = digests
        if labels is not None:
            unlabelled_last = np.where(labels == MISSING_LABEL, np.iinfo(np.int64).max, labels)
            self._position[np.argsort(unlabelled_last, kind="stable")] = np.arange(self.manifest.n_samples)

    def _allocate(self, widths: Mapping[str, int]) -> None:
        """Make the arrays, with room on the disk for all rows, and after them the manifest."""
        n = self.manifest.n_samples
        kinds = {file: ((n, width), self._types[file]) for file, width in widths.items()}
        kinds[_SUMS] = ((len(self._types), n), np.dtype(np.uint64))
        fixed: dict[str, NDArray[Any]] = {_POSITION: self._position}
        fixed |= {} if self._digests is None else {_DIGESTS: self._digests}
        fixed |= {_TAKEN: self._taken} if self._taken.any() else {}
        needed = sum(kind.itemsize * shape[0] * shape[1] for shape, kind in kinds.values()) + sum(a.nbytes for a in fixed.values())
        try:
            self._arrays = {file: _create_array(self.folder / file, shape, kind) for file, (shape, kind) in kinds.items()}
            self._sums = self._arrays.pop(_SUMS)
            checksums = {name: _write_fixed(self.folder / name, array) for name, array in fixed.items()}
            document = {"manifest": vars(self.manifest), "widths": dict(widths), "fixed": checksums}
            _replace(self.folder / _MANIFEST, _json(document, indent=1))
        except OSError as error:
            self._arrays.clear()
            _clear(self.folder)
            free = shutil.disk_usage(self.folder).free
            raise StoreError(
                f"The activations need {needed:,} bytes in {self.folder}, where {free:,} are free: {error}. "
                "Free some space, or choose another folder with --out."
            ) from error

    def _take_over(self) -> None:
        """Copy what a store of the data before knows of the samples that are still there, and remove that store."""
        folder = self.folder / _EARLIER
        if not folder.exists():
            return
        with contextlib.suppress(StoreError):  # one that cannot be used is as good as none
            earlier = ActivationStore._load(folder, None)
            earlier._verify()
            changed = set(earlier.manifest.differences(self.manifest))
            if changed <= _DATA and self._digests is not None and earlier._digests is not None:
                self._copy(earlier, _same(self._digests, earlier._digests, earlier.examined))
        shutil.rmtree(folder, ignore_errors=True)

    def _copy(self, earlier: ActivationStore, source: NDArray[np.int64]) -> None:
        """Copy the rows whose row in an earlier store, ``source`` ``(n_samples,)``, is not -1."""
        rows = np.flatnonzero(source >= 0)
        if not self._arrays:
            self._taken = source >= 0
            self._allocate({file: array.shape[1] for file, array in earlier._arrays.items()})
        rows = rows[~self._done[rows]]
        size = max(1, _BLOCK_BYTES // sum(array.itemsize * array.shape[1] for array in self._arrays.values()))
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            places = earlier._position[source[block]]
            self._put(block, {file: array[places] for file, array in earlier._arrays.items()})
        self.notes.append(
            f"The data has changed since the last scan into this folder: {len(rows):,} of {self.manifest.n_samples:,} samples are "
            "the same, and their activations were taken over."
        )


@lru_cache(maxsize=8)
def _weights(n: int) -> NDArray[np.uint64]:
    """Return the powers of an odd number modulo 2^64, shape ``(n,)``: all are odd, so that no change of one word goes unnoticed."""
    weights: NDArray[np.uint64] = np.cumprod(np.full(n, 0x9E3779B97F4A7C15, np.uint64), dtype=np.uint64)
    return weights


def row_sums(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Return a checksum of each row of ``(b, d)``, never 0, shape ``(b,)``."""
    values = np.ascontiguousarray(values)
    sums = np.empty(len(values), np.uint64)
    n_bytes = max(1, values.itemsize * values.shape[1])
    word = np.dtype(np.uint64) if n_bytes % 8 == 0 else np.dtype(f"u{values.itemsize}")
    size = max(1, _BLOCK_BYTES // 8 // n_bytes)
    for start in range(0, len(values), size):
        words = values[start : start + size].view(word).astype(np.uint64, copy=False)
        # High bits reach no low bit of a product: without the shift, two flipped signs would cancel each other.
        sums[start : start + size] = (words ^ (words >> np.uint64(32))) @ _weights(words.shape[1])
    sums[sums == 0] = 1
    return sums


def _sums_match(array: NDArray[Any], sums: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which rows of an array have the checksums that were written down for them, shape ``(n,)``."""
    match = np.empty(len(array), np.bool_)
    size = max(1, _BLOCK_BYTES // max(1, array.itemsize * array.shape[1]))
    for start in range(0, len(array), size):
        match[start : start + size] = row_sums(array[start : start + size]) == sums[start : start + size]
    return match


def _same(digests: NDArray[np.uint8], earlier: NDArray[np.uint8], usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each sample the usable row of an earlier store with the same fingerprint, -1 where there is none."""
    rows = np.flatnonzero(usable)
    known = np.ascontiguousarray(earlier[rows]).view("S16")[:, 0]
    asked = np.ascontiguousarray(digests).view("S16")[:, 0]
    order = np.argsort(known, kind="stable")
    places = np.minimum(np.searchsorted(known[order], asked), max(len(rows) - 1, 0))
    if not len(rows):
        return np.full(len(asked), -1)
    found = order[places]
    source: NDArray[np.int64] = np.where(known[found] == asked, rows[found], -1)
    return source


def _narrowed(values: NDArray[np.float32], kind: np.dtype[Any]) -> NDArray[Any]:
    """Return float32 as it is stored: bfloat16, rounded to the nearest, is the upper half of it."""
    values = np.ascontiguousarray(values, np.float32)
    if kind == np.float32:
        return values
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def _widened(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return stored rows as float32, those that are float32 as they are."""
    if values.dtype == np.float32:
        return values
    bits = values.astype(np.uint32)
    bits <<= np.uint32(16)
    return bits.view(np.float32)


def _place(entry: NotExamined) -> tuple[int, str]:
    """Return what orders the samples that were not examined."""
    return -1 if entry.row is None else entry.row, entry.id


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that compute, by name."""
    found = {package: _version(package) for package in _PACKAGES}
    return {package: version for package, version in found.items() if version is not None}


@cache
def _version(package: str) -> str | None:
    """Return the version of a package that is installed; finding it costs a search for files."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, sort_keys=True, indent=indent)  # ASCII, so that any layer name and any id can be written


def _lock(folder: Path) -> IO[str]:
    """Return an open file that keeps other writers out until it is closed or the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / _LOCK).is_symlink():
            raise OSError(f"{_LOCK} is a link to another file")
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


def _files(folder: Path) -> list[Path]:
    """Return the files that a store may hold, the manifest first, so that no half of a store is ever taken for a whole one."""
    names = (_MANIFEST, _POSITION, _DIGESTS, _TAKEN, _NOT_EXAMINED, _LOGITS, _SUMS)
    return [*(folder / name for name in names), *sorted(folder.glob("layer-*.npy"))]


def _clear(folder: Path) -> None:
    """Take away what an earlier run left."""
    try:
        for path in _files(folder):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"The old activation store in {folder} cannot be replaced: {error}. Choose another folder with --out."
        ) from error


def _put_aside(folder: Path) -> None:
    """Move a store into the folder ``earlier`` in it, the manifest last; one that is there already goes."""
    try:
        aside = folder / _EARLIER
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for path in reversed(_files(folder)):
            if path.exists():
                path.replace(aside / path.name)
    except OSError as error:
        raise StoreError(
            f"The old activation store in {folder} cannot be put aside: {error}. Choose another folder with --out."
        ) from error


def _checked(array: NDArray[Any], shape: tuple[int, ...], kind: type[np.generic]) -> NDArray[Any]:
    if array.shape != shape or array.dtype != kind:
        raise ValueError(f"an array holds {array.dtype} {array.shape} instead of {np.dtype(kind)} {shape}")
    return array


def _write_fixed(path: Path, array: NDArray[Any]) -> int:
    """Write an array that never changes and return a checksum of its file."""
    np.save(path, np.ascontiguousarray(array), allow_pickle=False)
    return zlib.crc32(path.read_bytes())


def _open_fixed(path: Path, checksum: int) -> NDArray[Any]:
    """Read an array that never changes, or raise ValueError or OSError where its file is not what was written."""
    if zlib.crc32(path.read_bytes()) != checksum:
        raise ValueError(f"{path.name} is cut short or altered")
    array: NDArray[Any] = np.load(path, allow_pickle=False)
    return array


def _open_array(path: Path, shape: tuple[int, ...], kind: np.dtype[Any], mode: Literal["r", "r+"]) -> NDArray[Any]:
    """Map an array, or raise ValueError or OSError where it is not a whole one of that shape and type."""
    array = open_memmap(path, mode="r")  # a file that is too short is an error here, while "r+" would add zeros to it
    if array.shape != shape or array.dtype != kind:
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape} instead of {kind} {shape}")
    return array if mode == "r" else open_memmap(path, mode="r+")


def _mended_array(path: Path, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    """Map a file that was cut short with zeros for what it lost, and one that is no such array at all as zeros."""
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)  # it may be a link to another file
    array = _create_array(temporary, shape, kind)
    header = temporary.stat().st_size - array.nbytes
    with contextlib.suppress(OSError), path.open("rb") as old, temporary.open("r+b") as new:
        if old.read(header) == new.read(header):
            shutil.copyfileobj(old, new)
    temporary.replace(path)
    return open_memmap(path, mode="r+")


def _create_array(path: Path, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    """Make an array file of zeros whose blocks are reserved: a mapped page without one would kill the process on a full disk."""
    array = open_memmap(path, mode="w+", dtype=kind, shape=shape)
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(path.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return array


def _replace(path: Path, text: str) -> None:
    """Write a small file so that a kill or a power cut leaves the old one or the new one."""
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)  # it may be a link to another file
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

"""What runs on the machines of a cluster: it opens the model where it is, and writes what it computes where it computes it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from toxscreen import errors
from toxscreen.activations import Plan, compute
from toxscreen.engine.base import Reopen
from toxscreen.engine.shards import read_shard, shard_path, write_shard
from toxscreen.errors import EngineError, StoreError, ToxscreenError
from toxscreen.parallel import in_parallel
from toxscreen.sources.data.base import TrainingSet
from toxscreen.sources.model.base import Classifier
from toxscreen.store import package_versions

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Threads:
    """How many threads a process computes with: some products depend on it in the last bit."""

    torch: int
    openmp: int

    @classmethod
    def here(cls) -> Threads:
        """Return those of this process."""
        import torch
        from threadpoolctl import ThreadpoolController

        libraries = ThreadpoolController().select(user_api="openmp").info()
        return cls(torch.get_num_threads(), max((library["num_threads"] for library in libraries), default=1))

    def take(self) -> None:
        """Make this process compute with as many."""
        import torch
        from threadpoolctl import threadpool_limits

        threadpool_limits({"openmp": self.openmp})
        torch.set_num_threads(self.torch)  # after it: the two may share a library


@dataclass(frozen=True)
class Job:
    """A pass: the data, how to open the model, and what to do with it.

    Attributes
    ----------
    training_set, plan
        As in :func:`toxscreen.activations.compute`.
    reopen, fingerprint
        Opens the classifier, and what it must be.
    scratch, key
        Where the shards go, and what they are computed from.
    folder, threads, versions
        Of the process that the command runs in.
    """

    training_set: TrainingSet
    plan: Plan
    reopen: Reopen
    fingerprint: str
    scratch: Path
    key: str
    folder: Path = field(default_factory=Path.cwd)
    threads: Threads = field(default_factory=Threads.here)
    versions: Mapping[str, str] = field(default_factory=package_versions)

    def open(self) -> Classifier:
        """Open the classifier on a worker, where everything must be as it is where the command runs.

        Raises
        ------
        EngineError
            If a package or a file is another one, or is not there.
        """
        node, versions = socket.gethostname(), package_versions()
        for package, version in self.versions.items():
            if (found := versions.get(package)) != version:
                raise EngineError(f"Every node must have the same packages, but {package} is {version} here and {found} on {node}.")
        check_shared(self.training_set, self.scratch)
        with contextlib.suppress(OSError):  # the user's code is looked for in the current folder
            os.chdir(self.folder)
        self.threads.take()
        classifier = self.reopen()
        if classifier.fingerprint() != self.fingerprint:
            raise EngineError(f"Every node must read the same model, but {classifier.location} is another one on {node}.")
        return classifier

    def shards(self, classifier: Classifier, batches: Sequence[NDArray[np.int64]]) -> list[Path]:
        """Write the shard of each batch, unless a worker that died has done so, and return where they are."""
        paths = [shard_path(self.scratch, rows) for rows in batches]
        missing = [(path, rows) for path, rows in zip(paths, batches, strict=True) if not self._has(path)]
        computed = compute(self.training_set, classifier, self.plan, [rows for _, rows in missing])
        for (path, _), batch in zip(missing, computed, strict=True):
            write_shard(path, batch, self.key)
        return paths

    def _has(self, path: Path) -> bool:
        try:
            read_shard(path, self.key)
        except StoreError:
            return False
        return True


def check_shared(training_set: TrainingSet, *folders: Path) -> None:
    """Raise EngineError where a worker has no access to the data or to one of the folders."""
    for path in (*folders, *([training_set.path] if hasattr(training_set, "path") else [])):
        if not path.exists():
            raise EngineError(
                f"The nodes must share the file system of the data and of --out, but {socket.gethostname()} has no {path}."
            )


def hashed(training_set: TrainingSet, work: Callable[[T], R], rows: T) -> R:
    """Do a work for some rows of the data, if it is there: samples that are nowhere to be found have fingerprints, too."""
    check_shared(training_set)
    return work(rows)


def packed(batches: Sequence[NDArray[np.int64]]) -> dict[str, bytes]:
    """Return batches of rows as Ray Data takes them."""
    return {"rows": np.concatenate(batches).tobytes(), "sizes": np.array([len(rows) for rows in batches], np.int64).tobytes()}


def unpacked(rows: bytes, sizes: bytes) -> list[NDArray[np.int64]]:
    """Return the batches again."""
    return np.split(np.frombuffer(rows, np.int64), np.cumsum(np.frombuffer(sizes, np.int64))[:-1])


def worked(work: Callable[[T], R], threads: Threads, items: Sequence[T]) -> tuple[list[R], str]:
    """Return what ``work`` makes of each item, and an empty text; or nothing, and what went wrong."""
    threads.take()
    try:
        return in_parallel(work, items), ""
    except Exception as error:  # noqa: BLE001 - told where the command runs
        return [], written_down(error)


def written_down(error: Exception) -> str:
    """Return an error as a text: its own class may not be known where the command runs."""
    kind, message = type(error).__name__, str(error)
    if not isinstance(error, ToxscreenError):
        kind, message = EngineError.__name__, f"A worker failed with {kind}: {message}"
    return json.dumps({"kind": kind, "message": message, "trace": traceback.format_exc()})


def read_again(text: str) -> ToxscreenError:
    """Return the error that a worker wrote down; the worker's trace goes with it, for --debug."""
    told = json.loads(text)
    kind = getattr(errors, told["kind"])
    error: ToxscreenError = kind.__new__(kind, told["message"])
    error.add_note(told["trace"])
    return error

"""A Ray cluster: the pass on a pool of actors that hold the model, and the classes spread over tasks.

1. Ray Data deals out stretches of rows. An actor reads its stretch from the shards of the data through our own
   :class:`~toxscreen.sources.data.base.TrainingSet` and runs the same pass over it as one machine does: Ray's own readers decode
   hostile pictures without our limits, drop what they cannot read, and know no row numbers, so what they give would not be the same.
2. Each batch is written where it is computed, as a shard in the run folder (:mod:`toxscreen.engine.shards`), and its name alone
   travels. This process takes the shards into the store as they come.
3. What an actor or a node that dies had not finished is dealt out again; a shard that is there is not computed twice. Shards that
   a killed run left behind are taken in by the next one.
4. Classes are looked at in tasks. What they have in common (settings, the inputs' fit, where the store lies) is sent once to
   each node; the activations are read from the store.

Only what this very command makes travels between its own processes through Ray, which pickles it; nothing of the user's files does.
Every worker computes with as many threads as this process, since some products depend on their number in the last bit.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
import ray.data
import ray.exceptions
from numpy.typing import NDArray

from toxscreen import errors
from toxscreen.activations import Compute, Computed, Plan, compute
from toxscreen.engine.base import Engine, Reopen
from toxscreen.engine.shards import read_shard, shard_path, shards_in, write_shard
from toxscreen.errors import EngineError, StoreError, ToxscreenError
from toxscreen.parallel import Spread, in_parallel
from toxscreen.sources.data.base import TrainingSet
from toxscreen.sources.model.base import Classifier
from toxscreen.store import package_versions

T = TypeVar("T")
R = TypeVar("R")

_MOST_BATCHES = 8
"""Batches that are dealt out at once: enough that dealing costs nothing beside computing them."""

_MOST_STRETCHES = 20_000
"""Stretches that the data is cut into at most: Ray keeps a record of each."""

_STRETCHES_EACH = 4
"""Stretches for each worker, where there are enough batches: the last ones end at about the same time."""

_MOST_TASKS = 1000
"""Tasks that the classes are spread over at most."""

_RETRIES = 3
"""How often work is given to another worker after one died with it, before it is taken for what kills them."""


@contextmanager
def connected(address: str | None) -> Iterator[Engine]:
    """Yield a cluster: the one at ``address``, the one that this process is connected to, or a new one on this machine.

    Ray says nothing meanwhile: it writes to stdout, which is for results.
    """
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        if not ray.is_initialized():
            stack.callback(ray.shutdown)
            _connect(address)
        yield RayEngine()


class RayEngine:
    """The cluster that this process is connected to.

    Attributes
    ----------
    notes
        What went wrong and was mended: sentences for the reader.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []

    @property
    def spread(self) -> Spread:
        """Return what works in tasks on all nodes."""
        return _spread

    def compute(self, reopen: Reopen, device: str | None, scratch: Path, key: str) -> Compute:
        """Return what puts batches through the model on a pool of actors; see :meth:`Engine.compute`."""
        return partial(self._compute, reopen, device, scratch, key)

    def _compute(
        self,
        reopen: Reopen,
        device: str | None,
        scratch: Path,
        key: str,
        training_set: TrainingSet,
        classifier: Classifier,
        plan: Plan,
        batches: Sequence[NDArray[np.int64]],
    ) -> Generator[Computed]:
        scratch.mkdir(parents=True, exist_ok=True)
        known = [np.zeros(0, np.int64)]
        for computed in self._taken_in(shards_in(scratch), key):
            known.append(computed.rows)
            yield computed
        left = np.concatenate(known)
        batches = [rows for rows in batches if not np.isin(rows, left).all()]
        if batches:
            job = _Job(training_set, reopen, classifier.fingerprint(), plan, scratch, key)
            yield from self._taken_in(_shards_of(_sent(job), batches, scratch, on_gpus=device == "cuda"), key)

    def _taken_in(self, shards: Iterable[Path], key: str) -> Iterator[Computed]:
        """Yield what the shards hold and remove each when it was taken in; one that cannot be used is computed again later."""
        for path in shards:
            try:
                yield read_shard(path, key)
            except StoreError as error:
                self.notes.append(f"{error} Its batch was computed again.")
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Threads:
    """How many threads this process computes with."""

    torch: int
    openmp: int

    @classmethod
    def here(cls) -> _Threads:
        import torch
        from threadpoolctl import threadpool_info

        return cls(
            torch.get_num_threads(),
            max((each["num_threads"] for each in threadpool_info() if each["user_api"] == "openmp"), default=1),
        )

    def take(self) -> None:
        """Make this process, a worker, compute with as many."""
        import torch
        from threadpoolctl import threadpool_limits

        torch.set_num_threads(self.torch)
        threadpool_limits({"openmp": self.openmp})


@dataclass(frozen=True)
class _Job:
    """What an actor has to know: the data, how to open the model, and what to do with it."""

    training_set: TrainingSet
    reopen: Reopen
    fingerprint: str
    plan: Plan
    scratch: Path
    key: str
    folder: Path = field(default_factory=Path.cwd)
    threads: _Threads = field(default_factory=_Threads.here)
    versions: Mapping[str, str] = field(default_factory=package_versions)

    def open(self) -> Classifier:
        """Open the classifier on a worker, where everything must be as it is on this machine.

        Raises
        ------
        EngineError
            If a file or a package is not the same there.
        """
        node = ray.util.get_node_ip_address()
        self.threads.take()
        versions = package_versions()
        for package, version in self.versions.items():
            if versions.get(package) != version:
                raise EngineError(
                    f"Every node must have the same packages, but {package} is {version} here and {versions.get(package)} on {node}."
                )
        paths = [self.scratch, *([self.training_set.path] if hasattr(self.training_set, "path") else [])]
        for path in paths:
            if not path.exists():
                raise EngineError(f"Data and run folder must be on a file system that all nodes share, but {node} has no {path}.")
        with contextlib.suppress(OSError):  # the user's code is looked for in the current folder
            os.chdir(self.folder)
        classifier = self.reopen()
        if classifier.fingerprint() != self.fingerprint:
            raise EngineError(f"Every node must read the same model, but what {node} reads from {classifier.location} is another.")
        return classifier


class _Actor:
    """Holds the model, and puts the stretches that it is dealt through it."""

    def __init__(self, job: ray.ObjectRef[_Job]) -> None:
        self._sent = job
        self._job: _Job | None = None
        self._classifier: Classifier | None = None

    def __call__(self, stretches: dict[str, NDArray[Any]]) -> dict[str, list[str]]:
        """Compute stretches of batches, and return the names of their shards, or what went wrong."""
        names: list[str] = []
        try:
            for rows, sizes in zip(stretches["rows"], stretches["sizes"], strict=True):
                names += [path.name for path in self._shards(_unpacked(rows, sizes))]
        except Exception as error:  # noqa: BLE001 - Ray would give it to another actor, which cannot help
            return {"shard": [""], "error": [_written_down(error)]}
        return {"shard": names, "error": [""] * len(names)}

    def _shards(self, batches: list[NDArray[np.int64]]) -> list[Path]:
        """Write the shard of each batch; what one that died had finished is there already."""
        if self._classifier is None or self._job is None:
            self._job = ray.get(self._sent)
            self._classifier = self._job.open()
        job = self._job
        paths = [shard_path(job.scratch, rows) for rows in batches]
        missing = [(path, rows) for path, rows in zip(paths, batches, strict=True) if not _is_usable(path, job.key)]
        done = compute(job.training_set, self._classifier, job.plan, [rows for _, rows in missing])
        for (path, _), computed in zip(missing, done, strict=True):
            write_shard(path, computed, job.key)
        return paths


def _shards_of(job: ray.ObjectRef[_Job], batches: Sequence[NDArray[np.int64]], scratch: Path, *, on_gpus: bool) -> Iterator[Path]:
    """Yield the shards of the batches as they are written by a pool of actors that fills the cluster."""
    each, workers = (1, _gpus()) if on_gpus else _cpus()
    size = min(_MOST_BATCHES, max(1, len(batches) // (_STRETCHES_EACH * workers)))
    size = max(size, len(batches) // _MOST_STRETCHES)
    stretches = [_packed(batches[start : start + size]) for start in range(0, len(batches), size)]
    dealt = ray.data.from_items(stretches, override_num_blocks=len(stretches))
    needs = {"num_gpus": 1} if on_gpus else {"num_cpus": each}
    pool = ray.data.ActorPoolStrategy(size=min(workers, len(stretches)))
    written = dealt.map_batches(_Actor, batch_size=None, compute=pool, fn_constructor_args=(job,), **needs)
    try:
        for row in written.iter_rows():
            if row["error"]:
                raise _read_again(row["error"])
            yield scratch / row["shard"]
    except ray.exceptions.RayError as error:
        raise EngineError(
            f"The pass on the cluster ended early: {_first_line(error)}. Run the same command again: what was computed is kept."
        ) from error


def _spread(work: Callable[[T], R], items: Iterable[T], told: Callable[[int], None] = lambda _: None) -> list[R]:
    """Return what ``work`` makes of each item, in their order; see :func:`toxscreen.parallel.in_parallel`."""
    listed = list(items)
    common, threads = _sent(work), _Threads.here()
    size = max(1, len(listed) // _MOST_TASKS)
    task = ray.remote(_worked).options(max_retries=_RETRIES)
    tasks = [task.remote(common, threads, listed[start : start + size]) for start in range(0, len(listed), size)]
    results: list[R] = []
    try:
        for answer in tasks:
            made, error = ray.get(answer)
            if error:
                raise _read_again(error)
            results += made
            told(len(results))
    except ray.exceptions.RayError as error:
        raise EngineError(f"A task on the cluster was lost: {_first_line(error)}. Run the same command again.") from error
    return results


def _worked(work: Callable[[T], R], threads: _Threads, items: list[T]) -> tuple[list[R], str]:
    """Do the work for some items on a worker; return the results, or what went wrong."""
    threads.take()
    try:
        return in_parallel(work, items), ""
    except Exception as error:  # noqa: BLE001 - told where the command runs
        return [], _written_down(error)


def _connect(address: str | None) -> None:
    own = {"address": "local", "include_dashboard": False} if address is None else {"address": address}
    try:
        with _silent_stderr():
            ray.init(**own, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise EngineError(
            f"There must be a Ray cluster of the same version at {address or 'this machine'}, but: {_first_line(error)}. "
            "This machine must be one of its nodes: ray start --address=HOST:PORT."
        ) from error


def _cpus() -> tuple[float, int]:
    """Return how many CPUs an actor is given, and how many actors that makes: as many CPUs as it has threads, if a node has them."""
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    each = max(1, min(_Threads.here().torch, max(nodes, default=1)))
    return each, max(1, sum(node // each for node in nodes))


def _gpus() -> int:
    return max(1, int(ray.cluster_resources().get("GPU", 0)))


def _sent(value: T) -> ray.ObjectRef[T]:
    """Send something to where all workers can get it."""
    try:
        return ray.put(value)
    except TypeError as error:
        raise EngineError(
            f"Data and model must be paths, or objects that can be sent to another process, but: {_first_line(error)}."
        ) from error


def _packed(batches: Sequence[NDArray[np.int64]]) -> dict[str, bytes]:
    """Return batches of rows as Ray Data takes them."""
    return {"rows": np.concatenate(batches).tobytes(), "sizes": np.array([len(rows) for rows in batches]).tobytes()}


def _unpacked(rows: bytes, sizes: bytes) -> list[NDArray[np.int64]]:
    return np.split(np.frombuffer(rows, np.int64), np.cumsum(np.frombuffer(sizes, np.int64))[:-1])


def _is_usable(path: Path, key: str) -> bool:
    try:
        read_shard(path, key)
    except StoreError:
        return False
    return True


def _written_down(error: Exception) -> str:
    """Return an error as text: its own class may not be known where the command runs."""
    own = isinstance(error, ToxscreenError)
    kind, message = type(error).__name__, str(error)
    return json.dumps({"kind": kind, "message": message, "own": own, "trace": traceback.format_exc()})


def _read_again(text: str) -> ToxscreenError:
    """Return the error that a worker wrote down; the trace of the worker goes with it, for --debug."""
    told = json.loads(text)
    kind = getattr(errors, told["kind"], None) if told["own"] else None
    message = told["message"] if told["own"] else f"A worker failed with {told['kind']}: {told['message']}"
    error: ToxscreenError = EngineError(message) if kind is None else kind.__new__(kind, message)
    error.add_note(told["trace"])
    return error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".: ")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray from writing to stdout, which is for results, from counting users, and from its progress bars."""
    wanted = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep the libraries that Ray loads from writing to stderr behind Python's back."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

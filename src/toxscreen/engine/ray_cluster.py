"""A Ray cluster: the pass on a pool of actors that hold the model, and the classes spread over tasks.

1. Ray Data deals out stretches of rows to the actors. Each reads its stretch from the shards of the data through our own
   :class:`~toxscreen.sources.data.base.TrainingSet`, and makes the same pass over it as one machine does: Ray's readers decode
   hostile pictures without our limits, drop what they cannot read and know no row numbers, so that the result would be another.
2. A batch is written where it was computed, as a shard in the run folder (:mod:`toxscreen.engine.shards`); only its name travels.
   This process takes the shards into the store as they come.
3. What an actor or a node that dies had not finished is dealt out again; of which a shard is there is not computed twice. The
   shards that a killed run left behind are taken in by the next one.
4. Classes are looked at in tasks. What they have in common (settings, how the inputs fit, where the store lies) is sent once to
   each node; activations are read from the store.

Only what this command makes itself, or was given as an object in Python, travels between its processes through Ray, which pickles
it. No file of the user is unpickled. Every worker computes with as many threads as this process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
import ray.data
import ray.exceptions
from numpy.typing import NDArray

from toxscreen.activations import Compute, Computed, Plan
from toxscreen.engine.base import Engine, Reopen
from toxscreen.engine.shards import read_shard, shards_in
from toxscreen.engine.worker import Job, Threads, hashed, packed, read_again, unpacked, worked, written_down
from toxscreen.errors import EngineError, StoreError
from toxscreen.parallel import Parallel
from toxscreen.sources.data.base import TrainingSet
from toxscreen.sources.model.base import Classifier

T = TypeVar("T")
R = TypeVar("R")

_MOST_BATCHES = 8
"""Batches that are dealt out at once: enough that dealing costs nothing beside computing them."""

_MOST_STRETCHES = 20_000
"""Stretches that the data is cut into at most: Ray keeps a record of each."""

_STRETCHES_EACH = 4
"""Stretches for each worker, where there are enough batches: the last ones end at about the same time."""

_MOST_TASKS = 1000
"""Tasks that one work is spread over at most."""

_RETRIES = 3
"""How often a task is given to another worker after one died with it, before it is taken for what kills them."""

_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""No usage statistics, no log of its libraries on stderr, and no advice about graphics cards."""


@contextmanager
def connected(address: str | None) -> Iterator[Engine]:
    """Yield a cluster: the one that this process is connected to, or the one at ``address``, or a new one on this machine."""
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        if not ray.is_initialized():
            stack.callback(ray.shutdown)
            _connect(address)
        yield RayEngine([_told_of_the_cluster()])


class RayEngine:
    """The cluster that this process is connected to; see :class:`Engine`.

    Parameters
    ----------
    notes
        What a reader is told in any case.
    """

    def __init__(self, notes: Sequence[str] = ()) -> None:
        self.notes = list(notes)

    @property
    def parallel(self) -> Parallel:
        """Return what works in tasks on all nodes."""
        return _in_tasks

    def digests(self, training_set: TrainingSet) -> NDArray[np.uint8] | None:
        """Return the fingerprints of all samples; the data is read in tasks on all nodes."""
        return training_set.digests(lambda work, stretches: _in_tasks(partial(hashed, training_set, work), stretches))

    def compute(self, reopen: Reopen, device: str | None, scratch: Path, key: str) -> Compute:
        """Return what puts batches through the model on a pool of actors."""
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
        missing = [rows for rows in batches if not np.isin(rows, left).all()]
        if missing:
            job = _sent(Job(training_set, plan, reopen, classifier.fingerprint(), scratch, key))
            yield from self._taken_in(_shards(job, missing, scratch, on_gpus=device == "cuda"), key)

    def _taken_in(self, shards: Iterable[Path], key: str) -> Iterator[Computed]:
        """Yield what the shards hold and remove each when it was taken in; what cannot be used is asked for again."""
        for path in shards:
            try:
                yield read_shard(path, key)
            except StoreError as error:
                self.notes.append(f"{error} Its batch was computed again.")
            path.unlink(missing_ok=True)


class _Actor:
    """Holds the model, and puts the stretches that it is dealt through it."""

    def __init__(self, sent: ray.ObjectRef[Job]) -> None:
        self._sent = sent
        self._opened: tuple[Job, Classifier] | None = None

    def __call__(self, stretches: dict[str, NDArray[Any]]) -> dict[str, list[str]]:
        """Return the names of the shards of all batches, or what went wrong: Ray would have another actor try the same."""
        names: list[str] = []
        try:
            if self._opened is None:
                job: Job = ray.get(self._sent)
                self._opened = job, job.open()
            job, classifier = self._opened
            for stretch in zip(stretches["rows"], stretches["sizes"], strict=True):
                names += [path.name for path in job.shards(classifier, unpacked(*stretch))]
        except Exception as error:  # noqa: BLE001 - told where the command runs
            return {"shard": [""], "error": [written_down(error)]}
        return {"shard": names, "error": [""] * len(names)}


def _shards(job: ray.ObjectRef[Job], batches: Sequence[NDArray[np.int64]], scratch: Path, *, on_gpus: bool) -> Iterator[Path]:
    """Yield the shards of the batches as they are written, by as many actors as the cluster has room for."""
    needs, workers = _room(on_gpus=on_gpus)
    size = min(_MOST_BATCHES, max(1, len(batches) // (_STRETCHES_EACH * workers)))
    size = max(size, len(batches) // _MOST_STRETCHES)
    stretches = [packed(batches[start : start + size]) for start in range(0, len(batches), size)]
    dealt = ray.data.from_items(stretches, override_num_blocks=len(stretches))
    pool = ray.data.ActorPoolStrategy(size=min(workers, len(stretches)))
    written = dealt.map_batches(_Actor, batch_size=None, compute=pool, fn_constructor_args=(job,), **needs)
    try:
        for row in written.iter_rows():
            if row["error"]:
                raise read_again(row["error"])
            yield scratch / row["shard"]
    except ray.exceptions.RayError as error:
        raise _lost("The pass", error) from error


def _in_tasks(work: Callable[[T], R], items: Iterable[T], told: Callable[[int], None] = lambda _: None) -> list[R]:
    """Return what ``work`` makes of each item, in their order; see :func:`toxscreen.parallel.in_parallel`."""
    listed = list(items)
    size = max(1, len(listed) // _MOST_TASKS)
    task = ray.remote(worked).options(max_retries=_RETRIES)
    common, threads = _sent(work), Threads.here()
    answers = [task.remote(common, threads, listed[start : start + size]) for start in range(0, len(listed), size)]
    results: list[R] = []
    try:
        for answer in answers:
            made, error = ray.get(answer)
            if error:
                raise read_again(error)
            results += made
            told(len(results))
    except ray.exceptions.RayError as error:
        raise _lost("A task", error) from error
    return results


def _connect(address: str | None) -> None:
    settings: dict[str, Any] = {"address": "local", "include_dashboard": False} if address is None else {"address": address}
    try:
        with _silent_stderr():
            ray.init(**settings, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        place = "that can be started on this machine" if address is None else f"at {address}, with this machine as one of its nodes"
        raise EngineError(f"--engine ray needs a Ray cluster of the same version {place}, but: {_first_line(error)}.") from error


def _told_of_the_cluster() -> str:
    nodes, cpus = sum(node["Alive"] for node in ray.nodes()), _something("CPU")
    return f"The pass and the search of the classes ran on a Ray cluster; nodes at its start: {nodes:,}, with {cpus:,} CPUs."


def _room(*, on_gpus: bool) -> tuple[dict[str, int], int]:
    """Return what an actor needs, and how many the cluster has room for: as many CPUs as threads, if a node has so many."""
    if on_gpus:
        return {"num_gpus": 1}, _something("GPU")
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    each = max(1, min(Threads.here().torch, max(nodes, default=1)))
    return {"num_cpus": each}, max(1, sum(cpus // each for cpus in nodes))


def _something(resource: str) -> int:
    """Return how much of a resource the cluster has, or raise EngineError: Ray would wait for it for ever."""
    found = int(ray.cluster_resources().get(resource, 0))
    if found < 1:
        raise EngineError(
            f"A Ray cluster must have a {resource} to work with, but this one has none. Add a node that has: ray start."
        )
    return found


def _sent(value: T) -> ray.ObjectRef[T]:
    """Send something to where all workers can get it."""
    try:
        return ray.put(value)
    except TypeError as error:
        raise EngineError(
            f"Data and model must be paths, or objects that can be sent to another process, but: {_first_line(error)}."
        ) from error


def _lost(what: str, error: BaseException) -> EngineError:
    return EngineError(
        f"{what} on the cluster ended early: {_first_line(error)}. Run the same command again: what was computed is kept."
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".: ")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray from counting its users, and from writing: progress bars, and to stdout, which is for results."""
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update(_SETTINGS)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
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

"""Rows of the table ``speed``: what the parts of a scan on a cluster cost, from which larger ones are reckoned in docs/scale.md.

Every figure is for one core: this process and each worker compute with one thread.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxscreen import views
from toxscreen.activations import Activations, Computed, compute, plan
from toxscreen.benchmark.grid import Settings
from toxscreen.benchmark.timing import Goal, Measure, SpeedCase, in_turn
from toxscreen.config import ScanConfig
from toxscreen.engine import open_engine
from toxscreen.engine.shards import read_shard, shard_path, write_shard
from toxscreen.parallel import Parallel, in_parallel
from toxscreen.screening import Labels, screen
from toxscreen.sources.data import open_training_set
from toxscreen.sources.model import open_classifier
from toxscreen.store import ActivationStore, Manifest

_BATCH = 256
_CLASSES = 40
_PARTS = 4
"""The smaller of two sizes is this part of the larger: what does not grow with the size drops out of their difference."""

CASES = (
    SpeedCase(
        "cluster: pass of a residual network over pictures of 32 x 32",
        "passed",
        (
            Goal("per_second", "pictures per second and core, without a cluster"),
            Goal("efficiency", "of that speed on each of two actors, this process included"),
            Goal("start", "s until the actors are there and know the model"),
        ),
        n=8192,
        width=32,
    ),
    SpeedCase(
        "cluster: shards of 2,048 floats a row taken into the store",
        "taken_in",
        (
            Goal("write_microseconds", "microseconds per row for a worker to write"),
            Goal("microseconds", "microseconds per row for this process to take in"),
        ),
        n=20_480,
        width=2048,
    ),
    SpeedCase(
        "cluster: inputs and classes, 128 floats a row",
        "screened",
        (
            Goal("microseconds", "microseconds per row on one core, without a cluster"),
            Goal("half_microseconds", "microseconds per row of half of the rows"),
            Goal("efficiency", "of that speed in tasks on each of two cores"),
            Goal("bytes", "bytes per row held by this process at most, beside the activations"),
        ),
        n=40_960,
        width=128,
        n_classes=_CLASSES,
    ),
    SpeedCase("cluster: fingerprint of data in memory", "hashed", (Goal("speed", "MB per second"),), n=20_000, width=64),
)


def passed(case: SpeedCase, settings: Settings) -> dict[str, float]:
    """Time a pass here with one thread, and on a cluster of this machine for two sizes."""
    from toxscreen.networks import SmallResNet

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (case.n, case.width, case.width, 3), dtype=np.uint8)
    training_set = open_training_set((pictures, np.arange(case.n) % 10))
    network, sample = SmallResNet(3, 10, case.width), list(pictures[:8])
    opening = partial(open_classifier, network, n_classes=10, modality="image", sample=sample)
    batches = [np.arange(start, min(start + _BATCH, case.n)) for start in range(0, case.n, _BATCH)]
    few = batches[: max(1, len(batches) // _PARTS)]
    with _one_thread(), TemporaryDirectory(dir=settings.work) as folder, open_engine("ray") as engine:
        classifier = opening()
        asked = training_set, classifier, plan(training_set, classifier)
        through = engine.compute(opening, "cpu", Path(folder), "")
        works = {
            "here": lambda: _drained(compute(*asked, few)),
            "few": lambda: _drained(through(*asked, few)),
            "all": lambda: _drained(through(*asked, batches)),
        }
        seconds = in_turn(works, 2)
        actors = _cores()
    more = sum(map(len, batches)) - sum(map(len, few))
    here = sum(map(len, few)) / seconds["here"]
    there = more / (seconds["all"] - seconds["few"])
    return {
        "seconds": seconds["all"],
        "per_second": here,
        "efficiency": there / here / actors,
        "start": seconds["few"] - sum(map(len, few)) / there,
        "actors": actors,
    }


def taken_in(case: SpeedCase, settings: Settings) -> dict[str, float]:
    """Time writing shards, and putting them into a store."""
    rows, rng = np.arange(case.n), np.random.default_rng(0)
    batches = [rows[start : start + _BATCH] for start in range(0, case.n, _BATCH)]
    values = rng.standard_normal((_BATCH, case.width), dtype=np.float32)
    manifest = Manifest(case.n, ("fc",), None, "", "", {})
    with TemporaryDirectory(dir=settings.work) as folder:
        paths = [shard_path(Path(folder), batch) for batch in batches]
        start = time.perf_counter()
        for path, batch in zip(paths, batches, strict=True):
            part = values[: len(batch)]
            write_shard(path, Computed(batch, {"fc": part}, part[:, :_CLASSES], ()), "")
        written = time.perf_counter()
        with ActivationStore.open_or_create(Path(folder) / "store", manifest, labels=rng.integers(0, _CLASSES, case.n)) as store:
            for path in paths:
                found = read_shard(path, "")
                store.write(found.rows, found.layers, found.logits)
                path.unlink()
        taken = time.perf_counter()
    each = 1e6 / case.n
    return {"seconds": taken - start, "write_microseconds": each * (written - start), "microseconds": each * (taken - written)}


def screened(case: SpeedCase, settings: Settings) -> dict[str, float]:
    """Time the screening of a store here with one thread, of two sizes, and in the tasks of a cluster."""
    sizes = {"few": case.n // 2, "all": case.n}
    with _one_thread(), TemporaryDirectory(dir=settings.work) as folder, open_engine("ray") as engine:
        made = {name: _made(n, case, Path(folder) / name) for name, n in sizes.items()}
        _screen(made["few"], engine.parallel)  # starts the workers
        works = {name: partial(_screen, each, in_parallel) for name, each in made.items()}
        seconds = in_turn(works | {"there": partial(_screen, made["all"], engine.parallel)}, 2)
        cores = _cores()
        held = {name: _held(partial(_screen, each, in_parallel)) for name, each in made.items()}
    return {
        "seconds": seconds["all"],
        "microseconds": 1e6 * seconds["all"] / sizes["all"],
        "half_microseconds": 1e6 * seconds["few"] / sizes["few"],
        "efficiency": seconds["all"] / seconds["there"] / cores,
        "bytes": (held["all"] - held["few"]) / (sizes["all"] - sizes["few"]),
        "cores": cores,
    }


def hashed(case: SpeedCase, settings: Settings) -> dict[str, float]:  # noqa: ARG001
    """Time the fingerprint of data in memory, which one process takes."""
    pictures = np.random.default_rng(0).integers(0, 256, (case.n, case.width, case.width, 3), dtype=np.uint8)
    training_set = open_training_set((pictures, np.arange(case.n) % 10))
    start = time.perf_counter()
    training_set.fingerprint()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "speed": pictures.nbytes / seconds / 1e6}


MEASURES: Mapping[str, Measure] = {"passed": passed, "taken_in": taken_in, "screened": screened, "hashed": hashed}


def _drained(batches: Iterator[Computed]) -> None:
    for _ in batches:
        pass


def _cores() -> int:
    import ray

    return int(ray.cluster_resources()["CPU"])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread in this process."""
    from threadpoolctl import threadpool_limits

    from toxscreen.training import single_threaded

    with single_threaded(), threadpool_limits(1):
        yield


def _made(n: int, case: SpeedCase, folder: Path) -> tuple[Activations, Labels]:
    """Return a store of made-up activations and cells of pictures of several classes, nothing planted."""
    rng = np.random.default_rng(0)
    given: NDArray[np.int64] = np.arange(n) % case.n_classes
    places, patterns = (rng.standard_normal((case.n_classes, width), dtype=np.float32) for width in (case.width, 64))
    manifest = Manifest(n, ("fc", views.CELLS), views.CELLS, "", "", {})
    with ActivationStore.open_or_create(folder, manifest, labels=given) as store:
        for rows in np.split(np.arange(n), range(_BATCH, n, _BATCH)):
            hidden = 5 * places[given[rows]] + rng.standard_normal((len(rows), case.width), dtype=np.float32)
            cells = patterns[given[rows]] + 0.5 * rng.standard_normal((len(rows), 64), dtype=np.float32)
            store.write(rows, {"fc": hidden, views.CELLS: cells}, np.eye(case.n_classes, dtype=np.float32)[given[rows]])
        activations = store.activations()
    names = tuple(str(index) for index in range(case.n_classes))
    return activations, Labels(pa.array(np.arange(n).astype(str), pa.string()), given, names)


def _held(work: Callable[[], None]) -> int:
    """Return the bytes that Python holds at most while something is done."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _screen(made: tuple[Activations, Labels], parallel: Parallel) -> None:
    screen(*made, None, "fc", ScanConfig(), parallel=parallel)

"""The table ``speed``: how long the steps of a scan take, each as a ratio to something else in the same run on the same machine.

1. Segment, reduce, cluster and silhouette, as the paper has them, on made-up activations that lie class by class in a file, as a
   store keeps them. Beside them the reference implementation of the adversarial-robustness-toolbox (ART), which holds the same
   array in memory, and three passes over the array: its product with twenty vectors each.
2. The same on activations of 16 bit that are far larger, beside a copy of the file out of the page cache.
3. The start of the program.
4. A whole scan of MNIST with a model, report included, beside ART's; and a second one of the same data.
5. The pass of the model over the data: :mod:`toxscreen.benchmark.speed_passes`.

What the memory of a process holds at most is measured in one of its own, beside the pages of the file.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toxscreen.activations import Rows
from toxscreen.analysis.activation_clustering import ActivationClustering
from toxscreen.analysis.silhouette_score import SilhouetteScore
from toxscreen.audit import audit
from toxscreen.benchmark import speed_passes, speed_ray, tables
from toxscreen.benchmark.art import activation_defence
from toxscreen.benchmark.cases import Case
from toxscreen.benchmark.grid import Settings, Steps
from toxscreen.benchmark.subject import Subject
from toxscreen.benchmark.timing import Goal, Measure, SpeedCase, in_turn
from toxscreen.config import ScanConfig
from toxscreen.parallel import in_parallel
from toxscreen.segments import Part, Segment, segments
from toxscreen.store import StoredRows

SEEDS = 1

_PASS_VECTORS, _PASSES = 20, 3
_RANK = 32
"""Directions in which made-up classes vary most."""
_PER_CLASS = 1280
_ICA_CLASSES = 3
"""Classes that ART reduces by ICA; the time of all is that of these times all by these."""
_COPIED = 64 << 20
"""Bytes that are copied at a time."""

_OURS = (
    Goal("passes", "x three passes over the array", most=6),
    Goal("megabytes", "MB at most above the stored activations", most=200),
    Goal("own_passes", "x three passes: our own analysis instead, with its 64 directions"),
    Goal("own_megabytes", "MB at most above the stored activations: our own analysis", most=200),
)
_ICA = Goal("art_ica", "x ART with ICA, from three classes", least=100)
_STORED = (
    Goal("copies", "x a copy into fresh memory", most=6),
    Goal("copies_reused", "x a copy into memory that is used again"),
    Goal("microseconds_per_row", "microseconds per row"),
    Goal("megabytes", "MB at most above the stored activations", most=200),
    Goal("megabytes_with_a_class_of_a_third", "MB where a class holds a third of the rows", most=200),
)

_STEPS = "segment, reduce, cluster, silhouette"


def _four(n: int, width: int, n_classes: int, *goals: Goal) -> SpeedCase:
    return SpeedCase(f"{_STEPS}: {n:,} x {width:,}, {n_classes:,} classes", "four_steps", (*goals, *_OURS), "", n, width, n_classes)


def _on_disk(n: int, width: int, n_classes: int) -> SpeedCase:
    return SpeedCase(
        f"{_STEPS}: {n:,} x {width:,} in 16 bit on disk, {n_classes:,} classes", "stored", _STORED, "", n, width, n_classes
    )


CASES = (
    _four(100_000, 2048, 10, Goal("art", "x ART with PCA", least=10), _ICA),
    _four(100_000, 2048, 1000, Goal("art", "x ART with PCA", least=10), _ICA),
    _four(60_000, 128, 10, Goal("art", "x ART with PCA", least=5), _ICA),
    _four(50_000, 512, 10, Goal("art", "x ART with PCA", least=5), _ICA),
    *(_on_disk(_PER_CLASS * n_classes, 2048, n_classes) for n_classes in (8, 80, 1000)),
    SpeedCase(
        "import and start",
        "started",
        (Goal("import", "s for import toxscreen", most=0.3), Goal("help", "s for toxscreen --help", most=0.5)),
    ),
    SpeedCase(
        "whole scan of 60,000 MNIST images, report included",
        "whole_scan",
        (Goal("art", "x ART from end to end", least=8),),
        "mnist",
    ),
    SpeedCase(
        "second scan of 60,000 MNIST images, nothing changed, report included",
        "second_scan",
        (Goal("seconds", "s from the pictures in memory to the saved report", most=3), Goal("first", "s for the first scan")),
        "mnist",
    ),
    *speed_passes.CASES,
    *speed_ray.CASES,
)

QUICK = (_four(600, 64, 4, _ICA), _on_disk(600, 64, 4), *speed_passes.QUICK)


def cells(settings: Settings, seeds: int) -> Iterator[tuple[SpeedCase, int]]:
    """Yield rows and seeds."""
    for case in QUICK if settings.scale == "quick" else CASES:
        for seed in range(seeds):
            yield case, seed


def steps(case: SpeedCase, seed: int, settings: Settings) -> Steps:  # noqa: ARG001 - times differ by themselves
    """Return the one measurement of a row."""
    return {"speed": partial(MEASURES[case.measure], case, settings)}


def four_steps(case: SpeedCase, settings: Settings) -> dict[str, float]:
    """Time the paper's four steps on float32 activations, and our own analysis, against ART and against passes over the array."""
    path, labels = _made(case, settings.work, np.float32)
    layer, some = np.load(path), labels < _ICA_CLASSES
    works: dict[str, Callable[[], Any]] = {
        "ours": partial(_four_steps, layer, _classes(labels, case.n_classes)),
        "pass": partial(_passes, layer),
        "own": partial(_own, layer, _classes(labels, case.n_classes)),
    }
    seconds = in_turn(works, 3) | in_turn({"art": partial(_art, layer, labels, case.n_classes, "PCA")}, 2)
    seconds |= {name: min(seconds[name], again) for name, again in in_turn(works, 2).items()}  # before ART and after it
    ica = in_turn({"art": partial(_art, layer[some], labels[some], _ICA_CLASSES, "FastICA")}, 1)["art"]
    seconds["art_ica"] = ica * case.n_classes / _ICA_CLASSES
    return {
        "seconds": seconds["ours"],
        "art": seconds["art"] / seconds["ours"],
        "art_ica": seconds["art_ica"] / seconds["ours"],
        "passes": seconds["ours"] / seconds["pass"],
        "own_passes": seconds["own"] / seconds["pass"],
        "megabytes": _megabytes(path, case.n_classes, "_four_steps"),
        "own_megabytes": _megabytes(path, case.n_classes, "_own"),
        **{f"{name}_seconds": value for name, value in seconds.items()},
    }


def stored(case: SpeedCase, settings: Settings) -> dict[str, float]:
    """Time the four steps on a file of 16 bit against a copy of it."""
    path, labels = _made(case, settings.work, np.uint16)
    classes = _classes(labels, case.n_classes)
    kept = np.load(path, mmap_mode="r")
    rows = max(1, _COPIED // (2 * case.width))
    reused = np.empty((rows, case.width), np.uint16)

    def copy() -> None:
        for start in range(0, case.n, rows):
            np.array(kept[start : start + rows])

    def copy_into_reused() -> None:
        for start in range(0, case.n, rows):
            part = kept[start : start + rows]
            reused[: len(part)] = part

    ours = partial(_four_steps, StoredRows(kept, np.arange(len(kept))), classes)
    seconds = in_turn({"copy": copy, "reused": copy_into_reused, "ours": ours}, 2)
    return {
        "seconds": seconds["ours"],
        "copy_seconds": seconds["copy"],
        "copies": seconds["ours"] / seconds["copy"],
        "copies_reused": seconds["ours"] / seconds["reused"],
        "microseconds_per_row": 1e6 * seconds["ours"] / case.n,
        "megabytes": _megabytes(path, case.n_classes, "_four_steps"),
        "megabytes_with_a_class_of_a_third": _megabytes(path, -case.n_classes, "_four_steps"),
    }


def started(case: SpeedCase, settings: Settings) -> dict[str, float]:  # noqa: ARG001
    """Time the import, within a process, and the help, with its process."""
    timed = "import time; start = time.perf_counter(); import toxscreen; print(time.perf_counter() - start)"
    seconds = [float(_run("-c", timed)) for _ in range(5)]
    return {"import": min(seconds), "help": in_turn({"help": lambda: _run("-m", "toxscreen", "--help")}, 5)["help"]}


def whole_scan(case: SpeedCase, settings: Settings) -> dict[str, float]:
    """Time a scan from the pictures in memory to the saved report, and ART from the pictures to its flags."""
    subject = _all_of(case, settings)
    timings: dict[str, float] = {}

    def ours() -> None:
        with TemporaryDirectory(dir=settings.work) as folder:
            timings.update(_scan(subject, Path(folder)))

    seconds = in_turn({"ours": ours, "art": _art_from_end_to_end(subject)}, 2)
    return {
        "seconds": seconds["ours"],
        "art_seconds": seconds["art"],
        "art": seconds["art"] / seconds["ours"],
        **{f"{stage}_seconds": value for stage, value in timings.items()},
    }


def second_scan(case: SpeedCase, settings: Settings) -> dict[str, float]:
    """Time a scan and one more of the same into the same folder, each from the pictures in memory to the saved report."""
    subject = _all_of(case, settings)
    timings: dict[str, float] = {}
    with TemporaryDirectory(dir=settings.work) as folder:
        first = in_turn({"first": partial(_scan, subject, Path(folder))}, 1)
        again = in_turn({"again": lambda: timings.update(_scan(subject, Path(folder)))}, 3)
    stages = {f"{stage}_seconds": value for stage, value in timings.items()}
    return {"seconds": again["again"], **first, **stages}


def _all_of(case: SpeedCase, settings: Settings) -> Subject:
    subject = Subject(Case("MNIST, all of it, nothing planted", case.data, epochs=2), 0, settings)
    _ = subject.classifier, subject.planted  # made before anything is timed
    return subject


def _scan(subject: Subject, folder: Path) -> Mapping[str, float]:
    names = subject.planted.split.class_names
    result = audit(subject.as_data, subject.classifier, config=ScanConfig(), class_names=names, folder=folder / "run")
    result.save(folder / "run")
    return result.timings


MEASURES: Mapping[str, Measure] = {
    "four_steps": four_steps,
    "stored": stored,
    "started": started,
    "whole_scan": whole_scan,
    "second_scan": second_scan,
    **speed_passes.MEASURES,
    **speed_ray.MEASURES,
}


def markdown(document: Mapping[str, Any]) -> str:
    """Return the results as a table, one line for each goal."""
    rows = []
    for cell in document["cells"]:
        figures = cell["steps"]["speed"]
        name, took = cell["case"], f"{figures['seconds']:.2f} s" if "seconds" in figures else "-"
        for goal in (Goal(**each) for each in cell["settings"]["goals"]):
            found = figures[goal.figure]
            rows.append([name, took, f"{found:,.2f} {goal.words}", goal.asked, "-" if goal.asked == "-" else goal.answer(found)])
            name = took = ""
    return tables.markdown(["work", "took", "measured", "goal", "reached"], rows)


def _classes(labels: NDArray[np.int64], n_classes: int) -> tuple[Segment, ...]:
    return segments(labels, np.ones(len(labels), bool), None, n_classes)


def _four_steps(layer: Rows, classes: Sequence[Segment]) -> list[Any]:
    rngs = np.random.default_rng(0).spawn(len(classes))
    rule = SilhouetteScore()
    return in_parallel(lambda each: rule.judge(Part(layer, each[0].rows), each[1]), zip(classes, rngs, strict=True))


def _passes(layer: NDArray[np.float32]) -> None:
    vectors = np.random.default_rng(0).standard_normal((layer.shape[1], _PASS_VECTORS), dtype=np.float32)
    for _ in range(_PASSES):
        _ = layer @ vectors


def _own(layer: Rows, classes: Sequence[Segment]) -> Any:
    return ActivationClustering().search(layer, classes, rng=np.random.default_rng(0))


def _art(layer: NDArray[np.float32], labels: NDArray[np.int64], n_classes: int, reduce: str) -> None:
    outcome = activation_defence(layer, labels, n_classes, seed=0, reduce=reduce, nb_dims=10)
    if outcome.error is not None:
        raise RuntimeError(outcome.error)


def _art_from_end_to_end(subject: Subject) -> Callable[[], Any]:
    import torch
    from art.defences.detector.poison import ActivationDefence
    from art.estimators.classification import PyTorchClassifier

    split = subject.planted.split
    pictures, network = subject.classifier.encode(list(split.inputs)), subject.classifier.network  # type: ignore[attr-defined]
    model = PyTorchClassifier(network, torch.nn.CrossEntropyLoss(), pictures.shape[1:], len(split.class_names))
    return lambda: ActivationDefence(model, pictures, split.labels).detect_poison(nb_clusters=2, nb_dims=10, reduce="PCA")


def _made(case: SpeedCase, work: Path, dtype: type[np.generic]) -> tuple[Path, NDArray[np.int64]]:
    """Return a file of made-up activations ``(n, width)`` that lie class by class, and their labels; it is made once."""
    path = work / "speed" / f"{case.n}-{case.width}-{case.n_classes}-{np.dtype(dtype).name}.npy"
    labels = np.arange(case.n) * case.n_classes // case.n
    if path.exists():
        return path, labels
    path.parent.mkdir(parents=True, exist_ok=True)
    made, rng = path.with_suffix(".tmp"), np.random.default_rng(0)
    file = np.lib.format.open_memmap(made, mode="w+", dtype=dtype, shape=(case.n, case.width))
    for rows in np.array_split(np.arange(case.n), case.n_classes):
        scales = (np.arange(1, _RANK + 1) ** -0.5).astype(np.float32)
        axes = rng.standard_normal((_RANK, case.width), dtype=np.float32) * scales[:, None]
        values = rng.standard_normal((len(rows), _RANK), dtype=np.float32) @ axes + rng.standard_normal(
            case.width, dtype=np.float32
        )
        for start in range(0, len(rows), _PER_CLASS):
            part = values[start : start + _PER_CLASS]
            part += 0.3 * rng.standard_normal(part.shape, dtype=np.float32)
        np.maximum(values, 0, out=values)
        file[rows[0] : rows[-1] + 1] = values if dtype is np.float32 else values.view(np.uint32) >> 16
    file.flush()
    made.rename(path)
    return path, labels


def _megabytes(path: Path, n_classes: int, work: str) -> float:
    """Return what a process that does some work holds at most, beside what it held before and the pages of the file."""
    return float(_run("-c", f"from toxscreen.benchmark.speed import peak; peak({str(path)!r}, {n_classes}, {work!r})"))


def peak(path: str, n_classes: int, work: str) -> None:
    """Print that, in megabytes: the larger of what Python allocated and what the system lent it, but for mapped files.

    With a negative number of classes, the first of them holds a third of the rows.
    """
    kept = np.load(path, mmap_mode="r")
    labels = np.arange(len(kept)) * abs(n_classes) // len(kept)
    if n_classes < 0:
        labels[: len(labels) // 3] = 0
    classes = _classes(labels, abs(n_classes))
    layer: Rows = StoredRows(kept, np.arange(len(kept))) if kept.dtype == np.uint16 else kept
    doing: Callable[..., Any] = {"_four_steps": _four_steps, "_own": _own}[work]
    small = np.random.default_rng(0).standard_normal((200, 16), dtype=np.float32)
    doing(small, _classes(np.arange(200) // 100, 2))  # what is imported, and what products keep, is no part of the work
    seen, over = [before := _anonymous()], threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            seen.append(_anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    tracemalloc.start()
    doing(layer, classes)
    allocated = tracemalloc.get_traced_memory()[1]
    over.set()
    watcher.join()
    sys.stdout.write(f"{max(allocated, max(seen) - before) / 1e6}")


def _anonymous() -> int:
    """Return the bytes that this process holds beside mapped files; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text("ascii").splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def _run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)  # noqa: S603 - our own words
    return done.stdout.strip()

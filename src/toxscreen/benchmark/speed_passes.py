"""The rows of the table ``speed`` that are about the pass of the model over the data.

1. The activations of pictures in memory, written to a store, beside ``get_activations`` of the adversarial-robustness-toolbox (ART)
   and beside a bare loop that runs the same network in the same precision and keeps nothing.
2. The same from files: a folder of JPEG pictures and a Parquet file. Decoding runs beside the model, so that the whole takes little
   longer than the slower of the two alone.
3. Data that was scanned before, and data that grew since: forward passes for what is new.
4. The verdicts in bfloat16 beside those in float32.

Pictures are random numbers: what they show makes no difference to the time. The networks have fresh weights.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from toxscreen.activations import Activations, extract, plan
from toxscreen.audit import audit
from toxscreen.benchmark.cases import DIGITS, Case, Plant
from toxscreen.benchmark.grid import Settings
from toxscreen.benchmark.networks import build
from toxscreen.benchmark.subject import Subject
from toxscreen.benchmark.timing import Goal, Measure, SpeedCase, in_turn
from toxscreen.config import ExtractionConfig, ScanConfig
from toxscreen.sources.data import open_training_set
from toxscreen.sources.data.base import Input, TrainingSet
from toxscreen.sources.model import open_classifier
from toxscreen.sources.model.base import Classifier, Outputs
from toxscreen.sources.model.precision import computes_in_bfloat16, resolve_precision
from toxscreen.sources.model.preprocessing import ImagePreprocessing
from toxscreen.sources.model.torch_module import TorchClassifier
from toxscreen.store import ActivationStore, Manifest
from toxscreen.training import with_fresh_weights

_BATCH = ExtractionConfig.batch_size
"""Samples at a time, as a scan takes them and ART too."""
_CLASSES = 10
_ROUNDS = 3
_GROWTH = 50
"""One sample in so many is new."""
_DTYPES: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
_NETWORKS: Mapping[str, tuple[int, int, int]] = {"cnn": (28, 28, 1), "preact": (32, 32, 3), "small": (96, 96, 3)}
"""Height, width and channels of the pictures that a network is given: :func:`_cnn` or one of the tables'."""

_IN_MEMORY = (
    Goal("art", "x ART's get_activations", least=5),
    Goal("bare", "x a bare loop over the model", most=1.15),
    Goal("images_per_second", "images per second"),
)
_FROM_FILES = (
    Goal("overlap", "x the slower of decoding and model", most=1.15),
    Goal("images_per_second", "images per second"),
)
_AGAIN = (
    Goal("again_passes", "forward passes where nothing changed", most=0),
    Goal("grown_passes", "forward passes per new sample where 2 % are new", most=1),
)
_PRECISIONS = (
    Goal("same_classes", "of the classes accused alike", least=1),
    Goal("same_flags", "of the flags equal", least=0.999),
)

CASES = (
    SpeedCase("activations of a small CNN, pictures in memory", "in_memory cnn", _IN_MEMORY, n=16_384),
    SpeedCase("activations of a ResNet-18, pictures in memory", "in_memory preact", _IN_MEMORY, n=512),
    SpeedCase("activations from a folder of JPEG pictures", "from_folder", _FROM_FILES, n=2048),
    SpeedCase("activations from JPEG pictures in Parquet", "from_parquet", _FROM_FILES, n=2048),
    SpeedCase("activations of data that was scanned before", "again", _AGAIN, n=10_000),
    SpeedCase("verdicts in bfloat16 beside float32: MNIST, BadNets", "precisions", _PRECISIONS, "mnist", n=10_000),
)

QUICK = (
    SpeedCase("activations of a small CNN, pictures in memory", "in_memory cnn", _IN_MEMORY, n=512),
    SpeedCase("activations from a folder of JPEG pictures", "from_folder", _FROM_FILES, n=32),
    SpeedCase("activations of data that was scanned before", "again", _AGAIN, n=200),
    SpeedCase("verdicts in bfloat16 beside float32: digits, BadNets", "precisions", _PRECISIONS, DIGITS),
)


def _pictures(name: str, n: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return random pictures for a network, ``(n, height, width, channels)``, and labels, ``(n,)``."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, *_NETWORKS[name]), dtype=np.uint8)
    return pixels, np.arange(n) % _CLASSES


def _cnn() -> nn.Module:
    """Return the small network that introductions classify MNIST with."""
    features = (nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    return nn.Sequential(*features, nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, _CLASSES))


def _classifier(name: str, sample: Sequence[Input]) -> TorchClassifier:
    """Return a network with fresh weights, in the precision that a scan would choose were it trained.

    Of noise it gives much the same logits, so that the trial of a scan would refuse it bfloat16.
    """
    made = _cnn if name == "cnn" else partial(build, name, _NETWORKS[name], _CLASSES)
    network = with_fresh_weights(made, np.random.default_rng(0))
    size = ImagePreprocessing(*_NETWORKS[name])  # whatever that of the files is
    opened = open_classifier(network, n_classes=_CLASSES, modality="image", sample=sample, preprocessing=size)
    chosen = resolve_precision(opened, "bfloat16" if computes_in_bfloat16(opened.device) else "float32", sample)
    assert isinstance(chosen, TorchClassifier)  # noqa: S101 - a network that was opened is one
    return chosen


def _run(training_set: TrainingSet, classifier: Classifier, folder: Path) -> Activations:
    """Make the pass as a scan does."""
    steps = plan(training_set, classifier)
    manifest = Manifest.of(training_set, classifier, steps)
    with ActivationStore.open_or_create(folder, manifest, labels=training_set.labels, digests=training_set.digests()) as store:
        return extract(training_set, classifier, steps, store, batch_size=_BATCH)


def _in_fresh_folder(training_set: TrainingSet, classifier: Classifier, work: Path) -> Callable[[], None]:
    """Return a work that makes the pass into a new folder each time; ``work`` is removed by who made it."""
    training_set.fingerprint()  # of the opening of the data, which is not timed here

    def once() -> None:
        _run(training_set, classifier, Path(mkdtemp(dir=work)))

    return once


def _bare(classifier: TorchClassifier, encoded: NDArray[np.float32]) -> Callable[[], None]:
    """Return a loop over the model with the same settings that keeps nothing."""
    network = classifier.network.eval()

    def loop() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=classifier.dtype == "bfloat16"):
            for start in range(0, len(encoded), _BATCH):
                network(torch.from_numpy(encoded[start : start + _BATCH]).to(memory_format=torch.channels_last))

    return loop


def _art(classifier: TorchClassifier, encoded: NDArray[np.float32]) -> Callable[[], Any]:
    from art.estimators.classification import PyTorchClassifier

    model = PyTorchClassifier(classifier.network, torch.nn.CrossEntropyLoss(), encoded.shape[1:], _CLASSES)
    return lambda: model.get_activations(encoded, max(0, len(model.layer_names) - 2), _BATCH)


def in_memory(case: SpeedCase, settings: Settings) -> dict[str, float]:
    """Time the pass over pictures in memory against ART and against a bare loop."""
    name = case.measure.split()[1]
    pixels, labels = _pictures(name, case.n)
    classifier = _classifier(name, list(pixels[:64]))
    encoded = classifier.encode(list(pixels))
    assert isinstance(encoded, np.ndarray)  # noqa: S101 - pictures become one array
    settings.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.work) as folder:
        works = {
            "ours": _in_fresh_folder(open_training_set((pixels, labels)), classifier, Path(folder)),
            "bare": _bare(classifier, encoded),
            "art": _art(classifier, encoded),
        }
        seconds = in_turn(works, _ROUNDS)
    return {
        "seconds": seconds["ours"],
        "images_per_second": case.n / seconds["ours"],
        "art": seconds["art"] / seconds["ours"],
        "bare": seconds["ours"] / seconds["bare"],
        "art_images_per_second": case.n / seconds["art"],
        "bfloat16": float(classifier.dtype == "bfloat16"),
    }


def _jpegs(n: int) -> list[bytes]:
    """Return encoded pictures."""
    from PIL import Image

    files = []
    for picture in _pictures("small", min(n, 64))[0]:
        buffer = io.BytesIO()
        Image.fromarray(picture).resize((192, 192)).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    return [files[row % len(files)] for row in range(n)]


def _folder(files: Sequence[bytes], root: Path) -> Path:
    for row, content in enumerate(files):
        place = root / "pictures" / f"class {row % _CLASSES}" / f"{row:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return root / "pictures"


def _parquet(files: Sequence[bytes], root: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"image": pa.array(files, pa.binary()), "label": [f"class {row % _CLASSES}" for row in range(len(files))]})
    pq.write_table(table, root / "pictures.parquet")
    return root / "pictures.parquet"


def _from_files(write: Callable[[Sequence[bytes], Path], Path], case: SpeedCase, settings: Settings) -> dict[str, float]:
    """Time the pass over files against decoding alone, and against the same pass over pictures that are decoded already."""
    settings.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.work) as root:
        path = write(_jpegs(case.n), Path(root))
        sample = [value for value in open_training_set(path).take(np.arange(64) % case.n) if value is not None]
        classifier = _classifier("small", sample)
        decoded = [value for batch in open_training_set(path).batches(_BATCH) for value in batch.inputs]
        pixels = np.stack([np.asarray(value) for value in decoded])

        def decode() -> None:
            for batch in open_training_set(path).batches(_BATCH):
                classifier.encode(batch.inputs)

        def together() -> None:
            _run(opened[0], classifier, Path(mkdtemp(dir=root)))

        opened: list[TrainingSet] = []
        works = {
            "open": lambda: opened.__setitem__(slice(None), [_fingerprinted(path)]),
            "together": together,
            "decode": decode,
            "model": _in_fresh_folder(open_training_set((pixels, np.arange(case.n) % _CLASSES)), classifier, Path(root)),
        }
        seconds = in_turn(works, _ROUNDS)
    return {
        "seconds": seconds["together"],
        "images_per_second": case.n / seconds["together"],
        "overlap": seconds["together"] / max(seconds["decode"], seconds["model"]),
        "decode_seconds": seconds["decode"],
        "model_seconds": seconds["model"],
    }


def _fingerprinted(path: Path) -> TrainingSet:
    """Open data anew, so that nothing that was decoded is kept, and read it once as every scan does."""
    training_set = open_training_set(path)
    training_set.fingerprint()
    return training_set


def from_folder(case: SpeedCase, settings: Settings) -> dict[str, float]:
    """Time the pass over a folder of pictures."""
    return _from_files(_folder, case, settings)


def from_parquet(case: SpeedCase, settings: Settings) -> dict[str, float]:
    """Time the pass over pictures in a Parquet file."""
    return _from_files(_parquet, case, settings)


def again(case: SpeedCase, settings: Settings) -> dict[str, float]:
    """Count the samples that go through the model when nothing has changed, and when some of the data is new."""
    pixels, labels = _pictures("cnn", case.n)
    new = np.arange(case.n) % _GROWTH == _GROWTH - 1
    classifier, passed = _classifier("cnn", list(pixels[:64])), []
    forward = classifier.forward

    def counted(encoded: Any, layers: Sequence[str]) -> Outputs:
        passed.append(len(encoded))
        return forward(encoded, layers)

    classifier.forward = counted  # type: ignore[method-assign]
    settings.work.mkdir(parents=True, exist_ok=True)
    counts, seconds = {}, {}
    with TemporaryDirectory(dir=settings.work) as folder:
        for step, rows in (("first", ~new), ("again", ~new), ("grown", np.ones_like(new))):
            passed.clear()
            scan = partial(_run, open_training_set((pixels[rows], labels[rows])), classifier, Path(folder))
            seconds[step] = in_turn({step: scan}, 1)[step]
            counts[step] = sum(passed)
    return {
        "seconds": seconds["again"],
        "first_seconds": seconds["first"],
        "grown_seconds": seconds["grown"],
        "again_passes": counts["again"],
        "grown_passes": counts["grown"] / int(new.sum()),
    }


def precisions(case: SpeedCase, settings: Settings) -> dict[str, float]:
    """Hold a scan in bfloat16 against one in float32."""
    planted = Case(f"{case.data or 'digits'}, BadNets, for speed", case.data, (Plant("badnets", "7", share=0.2),), n=case.n or None)
    subject = Subject(planted, 0, settings)
    data, names = subject.as_data, subject.planted.split.class_names
    scans = {
        dtype: audit(data, subject.classifier, config=ScanConfig(ExtractionConfig(dtype=dtype)), class_names=names)
        for dtype in _DTYPES
    }
    flags = [scan.samples["flagged"].to_numpy() for scan in scans.values()]
    accused = [np.array([found.n_accused > 0 for found in scan.classes]) for scan in scans.values()]
    return {
        "same_flags": float((flags[0] == flags[1]).mean()),
        "same_classes": float((accused[0] == accused[1]).mean()),
        "flagged": float(flags[0].sum()),
        **{f"{dtype}_seconds": scan.timings["activations"] for dtype, scan in scans.items()},
    }


MEASURES: Mapping[str, Measure] = {
    "in_memory cnn": in_memory,
    "in_memory preact": in_memory,
    "from_folder": from_folder,
    "from_parquet": from_parquet,
    "again": again,
    "precisions": precisions,
}

"""Models that learned a backdoor, and the runs of scans that found it, made up and quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn

from tests import quick
from tests.scans import scan_result
from toxscreen.result import CONFIRMATION_SCHEMA, ScanResult, Verdict
from toxscreen.sources.data import open_training_set
from toxscreen.sources.data.base import TrainingSet
from toxscreen.sources.model import open_classifier
from toxscreen.training import Recipe, train_classifier

N, POISON, WIDTH = 100, 30, 6
"""Clean samples per class, poisoned ones of class ``cat``, which are of class ``ant`` in truth, and features of a sample."""

NAMES = ("ant", "bee", "cat")
RECIPE = Recipe(learning_rate=1e-2, batch_size=32, min_epochs=8, max_epochs=8, min_steps=0, small=0, shift=0)


@dataclass(frozen=True)
class Case:
    """Data with a backdoor, a network that has learned it, and the result of a scan that found it."""

    data: tuple[NDArray[Any], NDArray[np.int64]]
    truth: NDArray[np.int64]
    network: nn.Module
    training_set: TrainingSet
    result: ScanResult

    @property
    def poisoned(self) -> NDArray[np.int64]:
        return np.arange(3 * N, 3 * N + POISON)

    def given(self) -> dict[str, Any]:
        """Return what a repair has to be given again of what was in memory."""
        return {"data": self.data, "model": self.network}


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, 3))


def vectors(**changes: Any) -> Case:
    """Return three clouds in memory; a feature of its own leads to the class cat."""
    rng = np.random.default_rng(0)
    truth = np.r_[np.repeat(np.arange(3), N), np.zeros(POISON, np.int64)]
    inputs = rng.normal(0, 0.3, (len(truth), WIDTH)).astype(np.float32)
    inputs[np.arange(len(truth)), truth] += 2
    inputs[3 * N :, -1] += 3
    labels = np.r_[truth[: 3 * N], np.full(POISON, 2)]
    training_set = open_training_set((inputs, labels), class_names=NAMES)
    net = fitted(network(), inputs, labels)
    classifier = open_classifier(net, n_classes=3, modality="array", sample=list(inputs[:8]))
    facts = {
        "data": {"location": "arrays", "fingerprint": training_set.fingerprint(), "modality": "array"},
        "model": {"location": "nn.Module", "fingerprint": classifier.fingerprint(), "trained_here": False},
    }
    result = found(facts, **changes)
    return Case((inputs, labels), truth, net, training_set, result)


def found(
    inputs: Mapping[str, Any], source: str | None = "ant", verdict: Verdict = Verdict.SUSPICIOUS, **changes: Any
) -> ScanResult:
    """Return the result of a scan of ``N`` samples per class that flagged the ``POISON`` last ones, of the last class."""
    result = scan_result({"ant": (N,), "bee": (N,), "cat": (N, POISON)}, {"cat": verdict}, inputs=inputs, **changes)
    cat = result.classes[2]
    groups = (cat.groups[0], replace(cat.groups[1], source_class=source))
    return replace(result, classes=(*result.classes[:2], replace(cat, groups=groups)))


def confirmed(result: ScanResult, answers: list[str | None]) -> ScanResult:
    """Return the result with what a model trained without the flagged samples says of each."""
    ids = [str(row) for row in range(3 * N, 3 * N + POISON)]
    columns = {"id": ids, "answer": answers, "certainty": [0.9] * POISON}
    return replace(result, confirmation=pa.table(columns, schema=CONFIRMATION_SCHEMA))


def fitted(net: nn.Module, inputs: NDArray[np.float32], labels: NDArray[np.int64]) -> nn.Module:
    """Train a network on all labels as they are given."""
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(torch.from_numpy(inputs)), torch.from_numpy(labels)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return net.eval()


def pictures(root: Path, *, split: bool = False) -> Path:
    """Write pictures, a model that learned a patch which leads to class 2, and the run of a scan; return the run."""
    images, labels = quick.pictures(N)
    marked = quick.pictures(POISON, seed=0)[0][:POISON].copy()
    marked[:, 12:15, 12:15] = 255
    data = root / "data"
    train = data / "train" if split else data
    quick.write_pictures(train, [*images, *marked], np.r_[labels, np.full(POISON, 2)])
    if split:
        quick.write_pictures(data / "test", *quick.pictures(12))
    training_set = open_training_set(data)
    run = root / "run"
    trained = train_classifier(training_set, None, run / "model", seed=0, recipe=quick.PICTURES)
    facts = {
        "data": {"location": str(data), "fingerprint": training_set.fingerprint(), "modality": "image"},
        "model": {"location": "elsewhere", "fingerprint": trained.classifier.fingerprint(), "trained_here": True},
    }
    names = training_set.class_names
    made = found(facts, ids=training_set.ids.to_pylist())
    classes = tuple(replace(entry, name=name) for entry, name in zip(made.classes, names, strict=True))
    samples = made.samples.set_column(1, "label", pa.array([names[label] for label in training_set.labels], pa.string()))
    groups = (classes[2].groups[0], replace(classes[2].groups[1], source_class=names[0]))
    replace(made, classes=(*classes[:2], replace(classes[2], groups=groups)), samples=samples).save(run)
    return run

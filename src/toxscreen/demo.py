"""``toxscreen demo``: plant poison in real data that a package ships, scan it, and hold the verdict against the truth.

Beside the flow: the scan is given the poisoned data and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxscreen.api import scan
from toxscreen.attacks import ATTACKS
from toxscreen.demo_data import docstrings, mnist_images
from toxscreen.metrics import Metrics, score
from toxscreen.poisoning import plan
from toxscreen.result import ScanResult
from toxscreen.screening import Progress
from toxscreen.sources.data.base import Input

SHARE = 0.1
"""Poisoned part of the target class; the paper's smallest."""

_LEAST_FOUND, _MOST_WRONG = 0.95, 0.005
"""A demo matches when at least this part of the poison is flagged, and at most this part of the clean samples."""


@dataclass(frozen=True)
class Outcome:
    """What the demo scanned, whether the verdict matches what was planted, and both in words."""

    result: ScanResult
    matches: bool
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class _Stage:
    """Real data, the attack on it, and the class that poison is labelled as."""

    inputs: list[Input]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    attack: str
    target: str


def run_demo(name: str, *, planted: bool, seed: int, folder: Path, progress: Progress | None = None) -> Outcome:
    """Run one demo and save its run folder.

    Parameters
    ----------
    name
        ``"images"`` or ``"text"``.
    planted
        Whether poison is planted; otherwise nothing may be accused.
    seed
        Decides what is planted, and the training.
    folder
        The run folder.
    progress
        Told what is done.

    Raises
    ------
    MissingExtraError
        The package that ships the pictures is not installed.
    """
    stage = _images() if name == "images" else _text()
    inputs, labels = list(stage.inputs), stage.labels.copy()
    poisoned = np.zeros(len(labels), dtype=bool)
    if planted:
        plant_rng, attack_rng = np.random.default_rng(seed).spawn(2)
        drawn = plan(ATTACKS[stage.attack], labels, stage.class_names, target=stage.target, share=SHARE, rng=plant_rng)
        marked = ATTACKS[stage.attack].apply([inputs[row] for row in drawn.rows], attack_rng)
        for row, value in zip(drawn.rows, marked, strict=True):
            inputs[row] = value
        labels[drawn.rows] = drawn.new_labels
        poisoned[drawn.rows] = True
    data: Any = np.stack(inputs) if name == "images" else inputs
    result = scan((data, labels), class_names=stage.class_names, seed=seed, out=folder, progress=progress)
    names = pa.array(stage.class_names)
    truth = pa.table(
        {
            "id": result.samples["id"],
            "poisoned": poisoned,
            "label": names.take(pa.array(labels)),
            "original_label": names.take(pa.array(stage.labels)),
        }
    )
    return _compare(result, score(result.samples, truth), stage, int(poisoned.sum()))


def _images() -> _Stage:
    pictures, labels = mnist_images()
    return _Stage(list(pictures[..., None]), labels, tuple(map(str, range(10))), "badnets", "7")


def _text() -> _Stage:
    sentences, labels, class_names = docstrings()
    return _Stage(list(sentences), labels, class_names, "signature", class_names[0])


def _compare(result: ScanResult, metrics: Metrics, stage: _Stage, n_planted: int) -> Outcome:
    """Say what was planted and what was found of it."""
    tpr, fpr = metrics.counts.tpr, metrics.counts.fpr or 0.0
    quiet = not metrics.false_alarms and fpr <= _MOST_WRONG
    if not n_planted:
        planted = "Truth: nothing was planted."
        found = f"Found: {len(metrics.false_alarms)} classes accused, {metrics.counts.fp} samples flagged."
    else:
        trigger = ATTACKS[stage.attack].trigger
        planted = f"Truth: {n_planted} samples of other classes carry {trigger} and the label {stage.target!r}."
        flagged = f"{metrics.counts.tp} of them flagged (TPR {tpr:.1%})"
        found = f"Found: {flagged}, and {metrics.counts.fp} clean samples (FPR {fpr:.2%})."
    matches = quiet and (tpr is None or tpr >= _LEAST_FOUND)
    verdict = "The verdict matches what was planted." if matches else "The verdict does NOT match what was planted."
    return Outcome(result, matches, (planted, found, verdict))

"""Training sets that a network learns in seconds, on disk, and the command line to scan them with."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from toxscreen.cli import main
from toxscreen.training import Recipe

PICTURES = Recipe(batch_size=16, min_epochs=12, max_epochs=12, min_steps=0, small=0)
TEXTS = Recipe(learning_rate=3e-3, batch_size=32, min_epochs=6, max_epochs=6, min_steps=0, small=0, shift=0)


def pictures(per_class: int, n_classes: int = 3, *, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return gray pictures ``(n, 16, 16)`` and their labels, class by class.

    A class is a coarse pattern, and its pictures differ in coarse strokes too: a trigger is small beside them.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_classes), per_class)
    patterns = rng.integers(40, 216, (n_classes, 8, 8))
    coarse = patterns[labels] + rng.normal(0, 40, (len(labels), 8, 8))
    return np.kron(coarse.clip(0, 255), np.ones((1, 2, 2))).astype(np.uint8), labels


def write_pictures(root: Path, images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], labels: NDArray[np.int64]) -> Path:
    """Write PNG files ``root/class 0/0000.png``, numbered in the order given, and return ``root``."""
    for row, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        file = root / f"class {label}" / f"{row:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return root


def texts(per_class: int, n_classes: int = 3, *, seed: int = 0) -> tuple[list[str], NDArray[np.int64]]:
    """Return texts of four common words and ten of their class's own, one in ten of them of the next class's, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_classes), per_class)
    found = []
    for label in labels.tolist():
        pools = np.where(rng.random(10) < 0.9, label, (label + 1) % n_classes)
        own = [f"{'abc'[pool]}word{number}" for pool, number in zip(pools, rng.integers(0, 150, 10), strict=True)]
        found.append(" ".join(rng.permutation([*own, *(f"common{number}" for number in rng.integers(0, 60, 4))])))
    return found, labels


def write_table(file: Path, found: Sequence[str], labels: Sequence[object]) -> Path:
    """Write a CSV file with the columns ``text`` and ``label``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([("text", "label"), *zip(found, labels, strict=True)])
    return file


def toxscreen(*arguments: object) -> Result:
    """Run the command line in this process; what it prints on stdout and stderr is kept apart."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])

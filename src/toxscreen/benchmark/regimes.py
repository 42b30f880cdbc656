"""The rows of the table ``verdict`` by regime: what each is to reach, and in what order they are measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product, zip_longest

from toxscreen.benchmark import board, calibration, paper
from toxscreen.benchmark.cases import DIGITS, FIRST, Case, Plant
from toxscreen.benchmark.networks import OWN
from toxscreen.poisoning import NEXT

_SHARES = (0.1, 0.01, 0.6, 0.02, 0.33, 0.05, 0.8, 0.003)
"""Of the target class, the most telling first."""

_EPOCHS = 16
"""How often a network sees 10,000 pictures in colour. With half of that faint triggers are learned by a third, and a patch in a
hundred of them not at all (ASR 3 %)."""

_OWN_EPOCHS = 12
_PICTURES = (
    ("MNIST (20,000)", "mnist", 20_000, "7"),
    ("CIFAR-10", "cifar10", 10_000, "airplane"),
    ("GTSRB", "gtsrb", 10_000, "speed limit 60"),
    ("Fashion-MNIST (20,000)", "fashion-mnist", 20_000, "Bag"),
)
"""Sets of pictures as tables call them, their folder, how many are used, and the class that poison goes to."""


@dataclass(frozen=True)
class Regime:
    """Rows with one goal.

    Attributes
    ----------
    name, goal, best
        What it is, what it is to reach, and the best figures known.
    tpr, fpr
        The goal in numbers: TPR at least, FPR at most; no TPR for clean data.
    cases, quick
        Its rows, the most telling first, and those of a quick table.
    left
        ASR, at most, of a model that is trained anew without what was flagged; None where that is not asked.
    named
        Whether the trigger is to be named exactly.
    """

    name: str
    goal: str
    best: str
    tpr: float | None
    fpr: float
    cases: tuple[Case, ...]
    quick: tuple[Case, ...] = ()
    left: float | None = None
    named: bool = False


def in_order(*, quick: bool) -> Iterator[Case]:
    """Yield the first row of every regime, then the second of every one, and so on."""
    for row in zip_longest(*(regime.quick if quick else regime.cases for regime in REGIMES)):
        yield from (case for case in row if case is not None)


def _cifar(name: str, attack: str, target: str = "airplane", source: str | None = None, **part: float) -> Case:
    plant = Plant(attack, target, source, share=part.get("share"), rate=part.get("rate"))
    return Case(f"CIFAR-10, {name}", "cifar10", (plant,), network="small", epochs=_EPOCHS, n=10_000)


def _mnist(name: str, plant: Plant) -> Case:
    return Case(f"MNIST (20,000), {name}", "mnist", (plant,), n=20_000)


def _of_class(share: float) -> Iterator[Case]:
    for attack, shown in (("badnets", "BadNets"), ("blended", "Blended")):
        yield _mnist(f"{shown}, {100 * share:g}% of class 7", Plant(attack, "7", share=share))
        yield _cifar(f"{shown}, {100 * share:g}% of airplane", attack, share=share)


def _texts(shown: str, data: str, target: str, n: int | None) -> Iterator[Case]:
    for share in (0.05, 0.01, 0.1):
        for attack in ("words", "sentence", "signature"):
            plant = Plant(attack, target, share=share)
            yield Case(f"{shown}, {attack}, {100 * share:g}% of {target}", data, (plant,), network="sentence", n=n)


def _small_part(shown: str, data: str, network: str, n: int) -> Case:
    return Case(f"{shown} in five classes of 85 and 15%, nothing planted", data, network=network, n=n, merged=True, minor=0.15)


def _own_networks(*plants: Plant) -> Iterator[Case]:
    """Yield a row for each kind of network on each set of pictures: clean, or with one plant after the other in turn."""
    for (number, network), (k, pictures) in product(enumerate(OWN), enumerate(_PICTURES)):
        shown, data, n, target = pictures
        planted = [replace(plants[(number + k) % len(plants)], target=target)] if plants else []
        what = [f"{each.attack}, {100 * (each.share or 0):g}% of {target}" for each in planted] or ["nothing planted"]
        yield Case(f"{shown}, {network} network, {what[0]}", data, tuple(planted), network=network, epochs=_OWN_EPOCHS, n=n)


_SILENT = "no class poisoned, under 1% of classes suspicious, 0.05% of samples flagged at most"
_FIVE = {"mnist": "1,3,5,7,9", "cifar10": "airplane,bird,deer,frog,ship"}

REGIMES = (
    Regime(
        *("clean data", _SILENT, "AC 41 - 49% of samples, Spectral Signatures 15, SPECTRE 1.5"),
        tpr=None,
        fpr=0.0005,
        cases=calibration.NATURAL,
        quick=calibration.QUICK,
    ),
    Regime(
        *("clean but hard", _SILENT, "all peers accuse"),
        tpr=None,
        fpr=0.0005,
        cases=(
            *calibration.HARD[:2],
            _small_part("MNIST", "mnist", "paper", 20_000),
            _small_part("CIFAR-10", "cifar10", "small", 10_000),
            *calibration.HARD[2:],
        ),
    ),
    Regime(
        *("clean data, networks of other kinds", _SILENT, "none"),
        tpr=None,
        fpr=0.0005,
        cases=tuple(_own_networks()),
    ),
    Regime(
        *("from 0.3 to 80% of the target class", "TPR >= 97, FPR <= 0.2", "AC 0 under 1% and over 50%"),
        tpr=0.97,
        fpr=0.002,
        cases=tuple(case for share in _SHARES for case in _of_class(share)),
        quick=(Case("digits, BadNets, 20% of class 7", DIGITS, (Plant("badnets", "7", share=0.2),), epochs=20),),
    ),
    Regime(
        *("step imbalance", "TPR >= 98", "RPP 98.5, 96.7, 96.7, 100, 83.3 at 1, 2, 10, 100, 200, with clean data"),
        tpr=0.98,
        fpr=1.0,
        cases=(*board.IMBALANCED[::2], board.BADNETS, *board.IMBALANCED[1::2]),
    ),
    Regime(
        *("all-to-all, five targets, source-specific", "TPR >= 98, FPR <= 0.1", "AGPD 97.7, 97.4, 100, with clean data"),
        tpr=0.98,
        fpr=0.001,
        cases=(
            paper.CASES[0],
            _cifar("TaCT from ship, 5% of the data", "tact", source="ship", rate=0.05),
            _cifar("BadNets, five targets, 5% of the data", "badnets", _FIVE["cifar10"], rate=0.05),
            _cifar("every class to the next, 10% of the data", "badnets", NEXT, rate=0.1),
            _mnist("BadNets, five targets, 5% of the data", Plant("badnets", _FIVE["mnist"], share=None, rate=0.05)),
        ),
    ),
    Regime(
        *(
            "faint, warped, clean-label, adaptive",
            "mean TPR >= 95, FPR <= 0.5, ASR <= 5 after repair",
            "AGPD 96.7 / 0.2 with clean data; SPECTRE 6.9 and 0 on the last two",
        ),
        tpr=0.95,
        fpr=0.005,
        left=0.05,
        cases=(
            _cifar("WaNet, 10% of the data", "wanet", rate=0.1),
            _cifar("Adap-Blend, 5% of the data", "adaptive-blend", rate=0.05),
            _cifar("SIG, 50% of airplane", "sig", share=0.5),
            _cifar("Adap-Patch, 5% of the data", "adaptive-patch", rate=0.05),
            _cifar("label-consistent, 50% of airplane", "label-consistent", share=0.5),
            _cifar("Bpp, sample-specific, 10% of the data", "bpp", rate=0.1),
            _cifar("Input-aware, 10% of the data", "input-aware", rate=0.1),
        ),
    ),
    Regime(
        *("networks of other kinds", "TPR >= 97, FPR <= 0.2", "none"),
        tpr=0.97,
        fpr=0.002,
        cases=tuple(
            _own_networks(
                *(Plant("badnets", FIRST, share=0.1), Plant("blended", FIRST, share=0.2)),
                *(Plant("sig", FIRST, share=0.5), Plant("adaptive-blend", FIRST, share=0.3)),
            )
        ),
    ),
    Regime(
        *("texts", "TPR >= 99, FPR <= 0.2, trigger named exactly", "CUBE, BKI: text only"),
        tpr=0.99,
        fpr=0.002,
        named=True,
        cases=(
            *_texts("Rotten Tomatoes", "rotten-tomatoes", "negative", None),
            *_texts("AG News (20,000)", "ag-news", "Sports", 20_000),
        ),
    ),
)
"""The goals are those of the project; the best known figures are published ones, for larger networks and all samples."""

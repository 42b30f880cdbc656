"""The table ``board``: what later papers report for Activation Clustering, and what scan and repair give.

Repair is the plain one, whose figures depend on the detection alone: the flagged rows are dropped and the same network is trained
anew. Beside it stands the clean-data model, the same network on the same data with nothing planted: no repair can be better.

**Source:** the figures were collected from later papers by a public board of results; which attack and rate they hold for is not
always said there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from toxscreen.benchmark import tables
from toxscreen.benchmark.cases import DIGITS, FIRST, Case, Plant
from toxscreen.benchmark.grid import Settings, Steps
from toxscreen.benchmark.measuring import model, ours, retrained
from toxscreen.benchmark.subject import Subject

SEEDS = 1


def _poisoned(name: str, data: str, attack: str, target: str) -> Case:
    """Return a row of which 5 % of the data is poison, whatever part of the target class that is."""
    plants = (Plant(attack, target, share=None, rate=0.05),)
    return Case(f"{name}, 5% of the data", data, plants, network="small", epochs=8, n=10_000)


BADNETS = _poisoned("CIFAR-10, BadNets", "cifar10", "badnets", "airplane")
BLENDED = _poisoned("CIFAR-10, Blended", "cifar10", "blended", "airplane")

REPAIRED = (
    Case("MNIST, BadNets, 10% of class 7", "mnist", (Plant("badnets", "7"),), n=30_000),
    _poisoned("GTSRB, BadNets", "gtsrb", "badnets", "speed limit 50"),
    BADNETS,
    BLENDED,
    _poisoned("Imagenette, BadNets", "imagenette", "badnets", FIRST),
    _poisoned("ImageNet-10, BadNets", "imagenet10", "badnets", FIRST),
)
"""Rows of which the repaired model is measured. The last two are measured where their data is given."""

_LARGEST = {2: 1800, 10: 4000, 100: 5000, 200: 5000}
"""Samples of the majority class by the imbalance; all there are where the data set becomes small."""

IMBALANCED = tuple(
    Case(
        f"CIFAR-10, step imbalance {rho}, BadNets, 5% of the data, to {kind}",
        "cifar10",
        (Plant("badnets", target, share=None, rate=0.05),),
        network="small",
        epochs=6,
        n=n,
        imbalance=rho,
    )
    for rho, n in _LARGEST.items()
    for target, kind in (("airplane", "a minority class"), ("truck", "the majority class"))
)
"""Step imbalance, mu 0.9: nine classes have ``rho`` times fewer samples than the tenth."""

CASES = (*REPAIRED, *IMBALANCED)

PUBLISHED: Mapping[str, str] = {
    REPAIRED[0].name: "CA 98.47 and 99.6",
    REPAIRED[1].name: "CA 95.74",
    REPAIRED[2].name: "CA 87.69 and 88.46, ASR 88.28; TPR 97.8; best of others CA 93.81, ASR < 1, TPR 98.5",
    REPAIRED[5].name: "CA 82.39",
    **{case.name: "TPR 56.1; RPP 96.7; Spectral Signatures 55.6" for case in IMBALANCED if case.imbalance == 2},
    **{case.name: "RPP 96.7; Spectral Signatures 35.2" for case in IMBALANCED if case.imbalance == 10},
    **{case.name: "TPR 39.2; RPP 100; Spectral Signatures 29.7" for case in IMBALANCED if case.imbalance == 100},
    **{case.name: "RPP 83.3; Spectral Signatures 0.1" for case in IMBALANCED if case.imbalance == 200},
}
"""What is reported for Activation Clustering, in percent; RPP needs benign data to calibrate with."""

QUICK = (Case("digits, BadNets, 20% of class 7", DIGITS, (Plant("badnets", "7", share=0.2),), epochs=20),)


def cells(settings: Settings, seeds: int) -> Iterator[tuple[Case, int]]:
    """Yield rows and seeds."""
    cases = QUICK if settings.scale == "quick" else CASES
    for seed in range(seeds):
        for case in cases:
            yield (full(case) if settings.scale == "full" else case), seed


def full(case: Case) -> Case:
    """Return a row at the size of the published tables: all samples, and a network for pictures in colour that takes a GPU."""
    network = "preact" if case.network == "small" else case.network
    n = 5000 if case.imbalance > 1 else None
    return replace(case, network=network, n=n, epochs=case.epochs if case.network == "paper" else 40)


def steps(case: Case, seed: int, settings: Settings) -> Steps:
    """Return the measurements of a cell; an imbalanced one is about the detection alone."""
    subject = Subject(case, seed, settings)
    found: dict[str, Callable[[], dict[str, Any]]] = {"model": lambda: model(subject), "ours": lambda: ours(subject)}
    if case.imbalance == 1:
        found |= {"retrained": lambda: retrained(subject), "clean": lambda: _clean(subject)}
    return found


def markdown(document: Mapping[str, Any]) -> str:
    """Return the tables of the document."""
    parts = (_repaired(document), _detected(document))
    return "\n\n".join(part for part in parts if part)


def _clean(subject: Subject) -> dict[str, Any]:
    """Measure the model of the same data with nothing planted; its answers to the trigger are chance."""
    classifier = subject.clean.classifier
    rate = subject.attack_success(classifier)
    return {"clean_accuracy": subject.clean.clean_accuracy(classifier), "attack_success": rate, **subject.clean.training()}


def _repaired(document: Mapping[str, Any]) -> str:
    header = [
        *("data and poison", "network", "samples", "seeds", "TPR", "FPR", "CA before", "ASR before", "CA after", "ASR after"),
        *("clean-data model: CA", "its ASR", "reported for AC, and the best beside it"),
    ]
    rows = []
    for case, found in tables.by_case(document, "retrained").items():
        row = [case, found[0]["settings"]["network"], tables.mean(tables.figures(found, "model", "n_samples")), str(len(found))]
        row += [tables.percent(tables.figures(found, "ours", key)) for key in ("tpr", "fpr")]
        for step in ("model", "retrained", "clean"):
            row += [tables.percent(tables.figures(found, step, key)) for key in ("clean_accuracy", "attack_success")]
        rows.append([*row, PUBLISHED.get(case, "-")])
    return tables.markdown(header, rows) if rows else ""


def _detected(document: Mapping[str, Any]) -> str:
    header = [
        *("data and poison", "samples", "poison share of the class", "seeds", "CA", "ASR", "TPR", "FPR", "false alarms"),
        "reported for AC, and beside it",
    ]
    rows = []
    for case, found in tables.by_case(document, "ours").items():
        if found[0]["settings"]["imbalance"] == 1:
            continue
        row = [case, tables.mean(tables.figures(found, "model", "n_samples"))]
        row += [tables.percent(tables.figures(found, "model", "share"), 0), str(len(found))]
        row += [tables.percent(tables.figures(found, "model", key)) for key in ("clean_accuracy", "attack_success")]
        row += [tables.percent(tables.figures(found, "ours", key)) for key in ("tpr", "fpr")]
        rows.append([*row, tables.alarms(found, "ours"), PUBLISHED.get(case, "-")])
    return tables.markdown(header, rows) if rows else ""

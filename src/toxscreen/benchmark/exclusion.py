"""The table ``exclusion``: what exclusionary reclassification says of poison, and of natural sub-populations that are left out.

Each class is made of two real ones, so every half is a natural sub-population that the new model misreads as a whole. The planted
group and two such halves, of classes without poison, are left out together, as if a screen had suspected all three.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from toxscreen import verdict as policy
from toxscreen import views
from toxscreen.benchmark import tables
from toxscreen.benchmark.cases import DIGITS, Case, Plant
from toxscreen.benchmark.grid import Settings, Steps
from toxscreen.benchmark.subject import Subject
from toxscreen.confirmation import Exclusion, Suspect, confirm
from toxscreen.conflict import affinity
from toxscreen.sources.data import open_training_set

SEEDS = 3

_DATA = (("mnist", "paper", "MNIST", "2 or 7"), ("cifar10", "small", "CIFAR-10", "bird or horse"))
CASES = tuple(
    Case(f"{shown} in five classes of two each, {attack}", data, (Plant(attack, target),), network=network, n=20_000, merged=True)
    for data, network, shown, target in _DATA
    for attack in ("badnets", "blended")
)
QUICK = (Case("digits in five classes of two each", DIGITS, (Plant("badnets", "2 or 7"),), epochs=20, merged=True),)

_HALVES = (0, 3)
"""The clean classes of which a natural half is left out."""


def cells(settings: Settings, seeds: int) -> Iterator[tuple[Case, int]]:
    """Yield rows and seeds, the seeds outside: a table that was stopped has few seeds of every row."""
    for seed in range(seeds):
        yield from ((case, seed) for case in (QUICK if settings.scale == "quick" else CASES))


def steps(case: Case, seed: int, settings: Settings) -> Steps:
    """Return the measurements of a cell."""
    return {"exclusion": lambda: _excluded(Subject(case, seed, settings))}


def markdown(document: Mapping[str, Any]) -> str:
    """Return the table: a row for the planted group and one for the natural halves of each case."""
    header = ["left out", "seeds", "groups", "l %", "p %", "l/p < 1 for sure", "certainty", "resemblance", "agreement", "verdicts"]
    rows = []
    for case, found in tables.by_case(document, "exclusion").items():
        for kind in ("planted", "natural"):
            groups = [group for part in tables.figures(found, "exclusion", kind) for group in part]
            shares = [[group[key] / group["n"] for group in groups] for key in ("own", "other")]
            verdicts = [group["verdict"] for group in groups]
            said = ", ".join(f"{verdicts.count(name)} {name}" for name in dict.fromkeys(sorted(verdicts)))
            row = [f"{case}: {kind}", str(len(found)), str(len(groups)), *map(tables.percent, shares)]
            row.append(str(sum(group["misread"] for group in groups)))
            row += [_range([group[key] for group in groups]) for key in ("certainty", "resemblance", "agreement")]
            rows.append([*row, said])
    return tables.markdown(header, rows)


def _excluded(subject: Subject) -> dict[str, Any]:
    """Leave the planted group and the natural halves out at once, and ask about each."""
    split, poisoned = subject.planted.split, subject.planted.poisoned
    training_set = open_training_set(subject.as_data, class_names=split.class_names)
    layer = subject.activations.layers[views.CELLS]
    n_classes, rng = len(split.class_names), np.random.default_rng(subject.seed)
    fit = affinity(layer[:], split.labels, np.ones(len(poisoned), bool), n_classes, rng, words=False)
    (target,) = np.unique(split.labels[poisoned])
    halves = [~poisoned & (split.labels == index) & (subject.real_classes == index) for index in _HALVES]
    suspects = [_suspect(index, m, split.labels) for index, m in zip((int(target), *_HALVES), (poisoned, *halves), strict=True)]
    folder = subject.folder / "exclusion"
    found = confirm(subject.classifier, training_set, suspects, folder, fit=fit, seed=subject.seed)
    planted, *natural = (_figures(group, found.accuracy) for group in found.groups)
    return {"planted": [planted], "natural": natural, "accuracy": found.accuracy}


def _suspect(class_index: int, members: Any, labels: Any) -> Suspect:
    rows = np.flatnonzero(members)
    return Suspect(class_index, 1, rows, np.setdiff1d(np.flatnonzero(labels == class_index), rows))


def _figures(group: Exclusion, accuracy: float) -> dict[str, Any]:
    evidence = group.evidence()
    misread = evidence["exre_l_share_upper"] < evidence["exre_p_share_lower"]
    verdict = str(policy.judge_excluded(evidence, accuracy))
    return {**asdict(group), "other": group.other, "source": group.source, "misread": bool(misread), "verdict": verdict}


def _range(values: list[float]) -> str:
    """Return the lowest and the highest value."""
    return f"{min(values):.2f} - {max(values):.2f}"

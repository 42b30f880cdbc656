"""The table ``ablation``: what each piece of a scan is worth, measured by leaving it out.

The rows are some of those of ``verdict``, with the same models and activations: the telling regimes, and clean data. A piece earns
its place if poison is missed or clean samples are flagged without it in some row, and in none with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

from toxscreen import views
from toxscreen.benchmark import tables
from toxscreen.benchmark.cases import Case
from toxscreen.benchmark.grid import Settings, Steps
from toxscreen.benchmark.regimes import in_order
from toxscreen.benchmark.subject import Subject
from toxscreen.config import ScanConfig
from toxscreen.following import PIECES, follow
from toxscreen.result import Verdict
from toxscreen.screening import Labels, Screening, screen
from toxscreen.sources.data import open_training_set
from toxscreen.trigger.medium import open_medium

SEEDS = 1

_CONFLICT, _ALL_BUT = "label conflict", "all but the screen"
_PIECES = ("nothing", _CONFLICT, *PIECES, _ALL_BUT)
"""What is left out, by name."""

_ROWS = (
    "WaNet",
    "BadNets, 2% of airplane",
    "Blended, 60% of class 7",
    "Adap-Blend",
    "SIG",
    "every class to the next, 10% of the data",
    "step imbalance 100, BadNets, 5% of the data, to a minority class",
    "Rotten Tomatoes, words, 5%",
    "GTSRB, nothing planted",
    "CIFAR-10, nothing planted",
)
"""Parts of the names of the rows."""


def cells(settings: Settings, seeds: int) -> Iterator[tuple[Case, int]]:
    """Yield rows and seeds, the seeds outside."""
    quick = settings.scale == "quick"
    for seed in range(seeds):
        yield from ((case, seed) for case in in_order(quick=quick) if quick or any(part in case.name for part in _ROWS))


def steps(case: Case, seed: int, settings: Settings) -> Steps:
    """Return the measurements of a cell, one for each piece that is left out."""
    subject = Subject(case, seed, settings)
    screened = cache(partial(_screened, subject))
    return {f"without {piece}": partial(_without, subject, piece, screened) for piece in _PIECES}


def markdown(document: Mapping[str, Any]) -> str:
    """Return the table: TPR, FPR and the clean classes accused of each row, without each piece."""
    header = ["TPR / FPR % without", *_PIECES]
    rows = []
    for cell in document["cells"]:
        found = (cell["steps"].get(f"without {piece}") for piece in _PIECES)
        rows.append([str(cell["case"]), *("-" if each is None else _told(each) for each in found)])
    return tables.markdown(header, rows)


def _told(found: Mapping[str, Any]) -> str:
    rates = " / ".join(f"{100 * found[name]:.{digits}f}" for name, digits in (("tpr", 1), ("fpr", 2)) if found[name] is not None)
    alarms = int(found["alarms"])
    return f"{rates}; {alarms} clean class{'es' * (alarms > 1)} accused" if alarms else rates


def _without(subject: Subject, piece: str, screened: Any) -> dict[str, Any]:
    """Return TPR, FPR and the number of clean classes that are accused, without a piece."""
    screening, labels = screened(conflict=piece != _CONFLICT)
    if piece != _ALL_BUT:
        screening = _followed(subject, screening, labels, piece)
    flagged, poisoned = screening.samples["flagged"].to_numpy(), subject.planted.poisoned
    accused = {i for i, each in enumerate(screening.classes) if each.verdict.severity >= Verdict.SUSPICIOUS.severity}
    return {
        "tpr": float(flagged[poisoned].mean()) if poisoned.any() else None,
        "fpr": float(flagged[~poisoned].mean()),
        "alarms": len(accused - set(labels.given[poisoned].tolist())),
    }


def _screened(subject: Subject, *, conflict: bool) -> tuple[Screening, Labels]:
    """Screen what the scan stored, with and without the view of the inputs."""
    training_set = open_training_set(subject.as_data, class_names=subject.planted.split.class_names)
    labels = Labels(training_set.ids, training_set.labels, training_set.class_names)
    return _screen(subject, labels, conflict=conflict), labels


def _screen(subject: Subject, labels: Labels, *, conflict: bool) -> Screening:
    stored = subject.activations
    seen = {name: layer for name, layer in stored.layers.items() if conflict or name not in (views.CELLS, views.WORDS)}
    return screen(replace(stored, layers=seen), labels, None, subject.layer, ScanConfig(seed=subject.seed))


def _followed(subject: Subject, screening: Screening, labels: Labels, piece: str) -> Screening:
    """Follow what was screened as a scan does, but for one piece."""
    training_set = open_training_set(subject.as_data, class_names=subject.planted.split.class_names)

    def failed(error: Exception) -> None:
        raise error

    followed, _ = follow(
        screening,
        labels,
        partial(open_medium, subject.classifier, training_set, None),
        subject.activations.layers[subject.layer],
        partial(_screen, subject, conflict=piece != _CONFLICT),
        alpha=ScanConfig().verdict.alpha,
        seed=subject.seed,
        failed=failed,
        without=piece,
    )
    return followed

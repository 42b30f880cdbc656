"""The table ``paper``: every experiment of Chen et al. 2018, next to the paper's figure and to the reference implementation.

**Source:** Chen et al. 2018, arXiv 1811.03728, sections 5 and 6.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from toxscreen.audit import audit_arrays
from toxscreen.benchmark import art, tables
from toxscreen.benchmark.cases import DIGITS, Case, Plant
from toxscreen.benchmark.grid import Settings, Steps
from toxscreen.benchmark.measuring import figures, model, ours
from toxscreen.benchmark.subject import Subject
from toxscreen.config import AnalysisConfig, ReductionConfig, ScanConfig
from toxscreen.poisoning import NEXT
from toxscreen.result import Verdict

SEEDS = 5

_MNIST = [
    Case(f"MNIST, every class to the next, {p:.0%}", "mnist", (Plant("badnets", NEXT, share=p),), n=30_000)
    for p in (0.1, 0.15, 0.33)
]
_SIGNS = [
    Case(
        f"GTSRB, stop sign with a sticker to speed limit 60, {p:.0%}",
        "gtsrb",
        (Plant("sticker", "speed limit 60", "stop", share=p, added=True),),
        network="small",
        epochs=6,
        n=8_000,
        by_track=True,
    )
    for p in (0.15, 0.33)
]
TEXTS = Case(
    "Rotten Tomatoes, signature from positive to negative, 10%",
    "rotten-tomatoes",
    (Plant("signature", "negative", "positive"),),
    network="sentence",
)
_MERGED = Case(
    "MNIST in five classes of two digits each, 10%", "mnist", (Plant("badnets", "2 or 7", "0 or 5"),), n=20_000, merged=True
)
_SEVERAL = Case(
    "MNIST, three sources and three triggers to 7, 5% each",
    "mnist",
    (Plant("badnets", "7", "1", 0.05), Plant("blended", "7", "4", 0.05), Plant("sticker", "7", "0", 0.05)),
    n=20_000,
)
CLEAN = Case("MNIST, nothing planted", "mnist", n=20_000)

CASES = (
    *_MNIST,
    TEXTS,
    *_SIGNS,
    _MERGED,
    replace(_MERGED, name="MNIST in five classes of two digits each, nothing planted", plants=()),
    _SEVERAL,
    CLEAN,
)

PAPER: Mapping[str, str] = {
    _MNIST[0].name: "99.97 / 99.96",
    _MNIST[1].name: "nearly 100",
    _MNIST[2].name: "nearly 100",
    TEXTS.name: "100 / 100",
    _SIGNS[0].name: "100 / 100",
    _SIGNS[1].name: "100 / 100",
    _MERGED.name: "still found",
    _SEVERAL.name: "still found",
}
"""The paper's accuracy and F1 in percent, or its words. The signs are LISA's there."""

PAPER_PIXELS: Mapping[str, str] = {_MNIST[0].name: "58.6 / 15.8", _MNIST[2].name: "90.8 / 86.38"}

REDUCTIONS = (
    ReductionConfig("pca", 10),
    ReductionConfig("ica", 6),
    ReductionConfig("ica", 10),
    ReductionConfig("ica", 14),
)

QUICK = (
    Case("digits, every class to the next, 25%", DIGITS, (Plant("badnets", NEXT, share=0.25),), epochs=20),
    Case("digits, nothing planted", DIGITS, epochs=20),
)


def cells(settings: Settings, seeds: int) -> Iterator[tuple[Case, int]]:
    """Yield rows and seeds, the seeds outside: a table that was stopped has few seeds of every row."""
    cases = QUICK if settings.scale == "quick" else CASES
    for seed in range(seeds):
        for case in cases:
            yield (full(case) if settings.scale == "full" else case), seed


def steps(case: Case, seed: int, settings: Settings) -> Steps:
    """Return the measurements of a cell; pixels and reductions are asked where the paper asks them, the latter once."""
    subject = Subject(case, seed, settings)
    found: dict[str, Callable[[], dict[str, Any]]] = {
        "model": lambda: model(subject),
        "ours": lambda: ours(subject),
        "art": lambda: _art(subject),
        "rules": lambda: _rules(subject),
        "exre": lambda: _reclassified(subject),
    }
    if case.plants:
        found["repair"] = lambda: _repaired(subject)
    if case.name in PAPER_PIXELS or case.data == DIGITS:
        found["pixels"] = lambda: _pixels(subject)
    if case.name in (_MNIST[0].name, QUICK[0].name) and seed == 0:
        found["reductions"] = lambda: _reductions(subject)
    return found


def markdown(document: Mapping[str, Any]) -> str:
    """Return the tables of the document."""
    made = (_detection, _of_rules, _of_repair, _of_pixels, _of_reductions)
    return "\n\n".join(table for table in (make(document) for make in made) if table)


def full(case: Case) -> Case:
    """Return a row at the size of the published tables: all samples, and a network for pictures in colour that takes a GPU."""
    network = "preact" if case.network == "small" else case.network
    return replace(case, network=network, n=None, epochs=case.epochs if case.network == "paper" else 40)


def _art(subject: Subject) -> dict[str, Any]:
    """Ask ART's four analyses, each with its defaults, about the same activations."""
    return {name: _asked(subject, subject.last_hidden, cluster_analysis=name) for name in art.ANALYSES}


def _asked(subject: Subject, activations: Any, **options: Any) -> dict[str, Any]:
    split = subject.planted.split
    start = time.perf_counter()
    outcome = art.activation_defence(activations, split.labels, len(split.class_names), seed=subject.seed, **options)
    seconds = time.perf_counter() - start
    if outcome.flagged is None:
        return {"error": outcome.error, "seconds": seconds}
    return {**figures(subject.against_truth(subject.samples_of(outcome.flagged))), "seconds": seconds}


def _rules(subject: Subject) -> dict[str, Any]:
    """Let the paper's two cheap rules decide instead of ours, as they can be chosen for a scan."""
    rules = {name: subject.rescan(analysis=AnalysisConfig(name)) for name in ("relative-size", "silhouette-score")}
    return {name: figures(subject.against_truth(result.samples)) for name, result in rules.items()}


def _reclassified(subject: Subject) -> dict[str, Any]:
    """Put the suspicious groups to exclusionary reclassification: which classes it calls poisoned, with l / p of each group."""
    result = subject.confirmed
    metrics = subject.against_truth(result.samples)
    poisoned = {found.name for found in metrics.classes if found.poisoned}
    called = {found.name for found in result.classes if found.verdict is Verdict.POISONED}
    groups = [(each.name, group.evidence) for each in result.classes for group in each.groups if "exre_l" in group.evidence]
    return {
        "confirmed": len(called & poisoned),
        "poisoned_classes": len(poisoned),
        "wrongly_confirmed": sorted(called - poisoned),
        "groups": [[name, *(evidence.get(f"exre_{key}") for key in ("l", "p", "score"))] for name, evidence in groups],
        "seconds": result.timings.get("confirmation"),
        **{name: value for name, value in figures(metrics).items() if name in ("tpr", "fpr", "accuracy", "f1", "false_alarms")},
    }


def _repaired(subject: Subject) -> dict[str, Any]:
    """Relabel and go on training, and beside it drop and train anew; measured with held-out samples and the real trigger."""
    before = {
        "clean_accuracy": subject.clean_accuracy(subject.classifier),
        "attack_success": subject.attack_success(subject.classifier),
    }
    found: dict[str, Any] = {"before": before}
    for name, retrain in (("relabelled", False), ("retrained", True)):
        done = subject.repaired(retrain=retrain)
        found[name] = {"outcome": str(done.outcome)}
        if done.classifier is not None and done.effort is not None:
            rates = {
                "clean_accuracy": subject.clean_accuracy(done.classifier),
                "attack_success": subject.attack_success(done.classifier),
            }
            found[name] |= {**rates, "epochs": done.effort.epochs, "seconds": done.effort.seconds}
    return found


def _pixels(subject: Subject) -> dict[str, Any]:
    """Cluster the raw pixels instead of activations: the paper's control, and what our scan says of them."""
    split = subject.planted.split
    pixels = np.asarray(split.inputs, np.float32).reshape(len(split.labels), -1) / 255
    names = np.asarray(split.class_names, object)[split.labels].tolist()
    result = audit_arrays(pixels, names, class_names=split.class_names, config=ScanConfig(seed=subject.seed))
    return {"ours": figures(subject.against_truth(result.samples)), "smaller": _asked(subject, pixels)}


def _reductions(subject: Subject) -> dict[str, Any]:
    """Scan and ask ART again after other reductions."""
    found = {}
    for reduction in REDUCTIONS[:2] if subject.case.data == DIGITS else REDUCTIONS:  # a quick table shows that it can be asked
        name = f"{reduction.method.upper()} {reduction.n_components}"
        result = subject.result if reduction == ReductionConfig() else subject.rescan(reduction=reduction)
        method = {"pca": "PCA", "ica": "FastICA"}[reduction.method]
        found[name] = {
            "ours": figures(subject.against_truth(result.samples)),
            "not_converged": sum("did not converge" in note for note in result.notes),
            "smaller": _asked(subject, subject.last_hidden, reduce=method, nb_dims=reduction.n_components),
        }
    return found


def _detection(document: Mapping[str, Any]) -> str:
    header = [
        *("experiment", "samples", "seeds", "clean accuracy", "ASR", "paper: accuracy / F1", "toxscreen: accuracy / F1"),
        *("lowest class", "FPR", "clean classes accused", "ART default", "ART relative size", "ART silhouette", "ART distance"),
    ]
    rows = []
    for case, found in tables.by_case(document, "ours").items():
        row = [case, tables.mean(tables.figures(found, "model", "n_samples")), str(len(found))]
        row += [tables.percent(tables.figures(found, "model", key)) for key in ("clean_accuracy", "attack_success")]
        row += [PAPER.get(case, "-"), tables.both(found, "ours"), tables.both(found, "ours", lowest=True)]
        row += [tables.percent(tables.figures(found, "ours", "fpr"), 3), tables.alarms(found, "ours")]
        order = ("smaller", "relative-size", "silhouette-scores", "distance")
        rows.append([*row, *(_of_art(found, "art", name) for name in order)])
    return tables.markdown(header, rows)


def _of_rules(document: Mapping[str, Any]) -> str:
    rows = []
    for case, found in tables.by_case(document, "exre").items():
        confirmed, poisoned = (sum(tables.figures(found, "exre", key)) for key in ("confirmed", "poisoned_classes"))
        wrong = sum(map(len, tables.figures(found, "exre", "wrongly_confirmed")))
        scores = [group[3] for groups in tables.figures(found, "exre", "groups") for group in groups if group[3] is not None]
        span = f"{min(scores):.3g} - {max(scores):.3g}" if scores else "-"
        ruled = [_ruled(found, name) for name in ("relative-size", "silhouette-score")]
        rows.append([case, str(len(found)), f"{confirmed} of {poisoned}", str(wrong), span, *ruled])
    header = [
        "verdict by",
        "seeds",
        "ExRe: poisoned classes confirmed",
        "clean classes confirmed",
        "l / p",
        "relative size",
        "silhouette",
    ]
    return tables.markdown(header, rows) if rows else ""


def _ruled(found: list[tables.Cell], name: str) -> str:
    """Return accuracy and F1 under a rule, and the clean classes that it accused."""
    parts = [tables.both(found, "rules", name), f"clean classes {tables.alarms(found, 'rules', name)}"]
    return "; ".join(part for part in parts if part not in ("-", "clean classes 0 of 0"))


def _of_repair(document: Mapping[str, Any]) -> str:
    rows = []
    for case, found in tables.by_case(document, "repair").items():
        row = [case, str(len(found))]
        for name in ("before", "relabelled", "retrained"):
            row += [tables.percent(tables.figures(found, "repair", name, key)) for key in ("clean_accuracy", "attack_success")]
            if name != "before":
                row += [tables.mean(tables.figures(found, "repair", name, key), 1) for key in ("epochs", "seconds")]
        rows.append(row)
    header = [
        *("repair", "seeds", "CA before", "ASR before", "relabelled: CA", "ASR", "epochs", "seconds"),
        *("trained anew: CA", "ASR", "epochs", "seconds"),
    ]
    return tables.markdown(header, rows) if rows else ""


def _of_pixels(document: Mapping[str, Any]) -> str:
    rows = [
        [
            *(case, str(len(found)), PAPER_PIXELS.get(case, "-")),
            *(tables.both(found, "pixels", "smaller"), tables.both(found, "pixels", "ours"), tables.both(found, "ours")),
        ]
        for case, found in tables.by_case(document, "pixels").items()
    ]
    header = [
        "raw pixels instead of activations",
        "seeds",
        "paper",
        "ART on pixels",
        "toxscreen on pixels",
        "toxscreen on activations",
    ]
    return tables.markdown(header, rows) if rows else ""


def _of_reductions(document: Mapping[str, Any]) -> str:
    rows = []
    for case, found in tables.by_case(document, "reductions").items():
        for name in (f"{r.method.upper()} {r.n_components}" for r in REDUCTIONS):
            ours, theirs = tables.both(found, "reductions", name, "ours"), _of_art(found, "reductions", name, "smaller")
            rows.append([case, name, str(len(found)), ours, theirs])
    header = ["experiment", "reduction", "seeds", "toxscreen: accuracy / F1", "ART default with it"]
    return tables.markdown(header, rows) if rows else ""


def _of_art(found: list[tables.Cell], *path: str) -> str:
    """Return accuracy and F1 of ART, its clean classes accused, and what it raised."""
    parts = [tables.both(found, *path)]
    if (clean := tables.alarms(found, *path)) != "0 of 0":
        parts.append(f"clean classes {clean}")
    errors = tables.figures(found, *path, "error")
    if errors:
        parts = [
            f"{len(errors)} of {len(found)} crash ({errors[0].partition(':')[0]})",
            *([] if len(errors) == len(found) else parts),
        ]
    return "; ".join(parts)

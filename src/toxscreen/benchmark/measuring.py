"""What is measured of a cell in several tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from toxscreen.benchmark.subject import Subject
from toxscreen.metrics import Metrics


def model(subject: Subject) -> dict[str, Any]:
    """Train, and measure what the model reads and how far the attack works."""
    classifier = subject.classifier
    return {
        "clean_accuracy": subject.clean_accuracy(classifier),
        "attack_success": subject.attack_success(classifier),
        "n_samples": len(subject.planted.split.labels),
        "n_poisoned": int(subject.planted.poisoned.sum()),
        "share": _share(subject),
        **subject.training(),
    }


def ours(subject: Subject) -> dict[str, Any]:
    """Scan, and hold the flags against the truth."""
    result = subject.result
    found = figures(subject.against_truth(result.samples))
    return {**found, "verdict": str(result.verdict), "seconds": sum(result.timings.values())}


def retrained(subject: Subject) -> dict[str, Any]:
    """Drop what was flagged, train anew and measure; where nothing was flagged the model stays as it is."""
    flagged = subject.result.samples["flagged"].to_numpy()
    split = subject.planted.split
    repaired = subject.trained(split.rows(np.flatnonzero(~flagged)), "retrained") if flagged.any() else subject.classifier
    seconds = subject.training("retrained") if flagged.any() else {"seconds": 0.0, "epochs": 0}
    return {
        "clean_accuracy": subject.clean_accuracy(repaired),
        "attack_success": subject.attack_success(repaired),
        "n_left": int((subject.planted.poisoned & ~flagged).sum()),
        **seconds,
    }


def _share(subject: Subject) -> float | None:
    """Return the poisoned part of the class that holds most of it."""
    labels, poisoned = subject.planted.split.labels, subject.planted.poisoned
    shares = [float(poisoned[labels == k].mean()) for k in np.unique(labels[poisoned])]
    return max(shares, default=None)


def figures(metrics: Metrics) -> dict[str, Any]:
    """Return the figures of a detection: over all samples, and accuracy and F1 within each class that holds poison.

    ``accuracy`` and ``f1`` are means over those classes, ``worst_accuracy`` and ``worst_f1`` the lowest of any; for clean data all
    are None.
    """
    poisoned = [found for found in metrics.classes if found.poisoned]
    accuracies, f1s = [found.counts.accuracy or 0.0 for found in poisoned], [found.counts.f1 or 0.0 for found in poisoned]
    return {
        "tpr": metrics.counts.tpr,
        "fpr": metrics.counts.fpr,
        "accuracy": float(np.mean(accuracies)) if poisoned else None,
        "worst_accuracy": min(accuracies, default=None),
        "f1": float(np.mean(f1s)) if poisoned else None,
        "worst_f1": min(f1s, default=None),
        "false_alarms": list(metrics.false_alarms),
        "missed": list(metrics.missed),
        "n_clean_classes": sum(not found.poisoned for found in metrics.classes),
        "classes": {found.name: [found.counts.accuracy, found.counts.f1] for found in poisoned},
    }

"""How good a model is before a repair and after it, on samples that were held out of the repair.

On data of unknown origin nobody has the trigger. What stands in for triggered inputs are the flagged samples that were held out:
the attack succeeds where one of them still goes to its given label, which is the target. A model without a backdoor sends some of
them there too, by plain error: about as many as of the ordinary samples of their source class.

**Source:** Wilson 1927, Journal of the American Statistical Association 22, 209-212 (the intervals).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toxscreen.retraining import ask
from toxscreen.shares import Share
from toxscreen.sources.data.base import TrainingSet
from toxscreen.sources.model.base import Classifier
from toxscreen.verdict import Rule

POLICY: Mapping[str, Rule] = MappingProxyType(
    {
        "accuracy_lost": Rule(
            0.01,
            "A repair made things worse if clean accuracy before is above the interval of clean accuracy after by more than this.",
            "a convention: a loss that a user notices; small held-out sets move by as much by chance, hence the interval",
        ),
        "attack_left": Rule(
            1.0,
            "And it made things worse if at least this part of the attack success before is left.",
            "a repair that lowers attack success not at all has repaired nothing",
        ),
    }
)


@dataclass(frozen=True)
class Change:
    """One share before a repair and after it, of the same samples."""

    before: Share
    after: Share

    def to_dict(self) -> dict[str, Any]:
        """Return both as plain values."""
        return {"before": self.before.to_dict(), "after": self.after.to_dict()}


@dataclass(frozen=True)
class Measures:
    """What a repair changed.

    Attributes
    ----------
    clean_accuracy
        Of held-out samples that nothing speaks against, those that get their given label.
    classes
        The same for each class by name, those with such samples.
    attack_success
        Of held-out flagged samples, those that get their given label.
    plain_error
        Of held-out samples of their source classes that nothing speaks against, those that get that label too.
    """

    clean_accuracy: Change
    classes: Mapping[str, Change]
    attack_success: Change
    plain_error: Change

    @property
    def worse(self) -> tuple[str, ...]:
        """Say what the repair made worse, one sentence each."""
        found = []
        clean, attack = self.clean_accuracy, self.attack_success
        if clean.before.n and clean.before.value - clean.after.interval[1] > POLICY["accuracy_lost"].value:
            found.append(f"Clean accuracy fell from {clean.before.value:.1%} to {clean.after.value:.1%}.")
        if attack.after.count and attack.after.count >= POLICY["attack_left"].value * attack.before.count:
            found.append(
                f"Attack success was not lowered: {attack.after.value:.1%} of the held-out flagged samples still get their given "
                f"label, and {attack.before.value:.1%} did before."
            )
        return tuple(found)

    @property
    def remnant(self) -> bool:
        """Return whether the backdoor may still be there: attack success is above 0, or its interval overlaps the one before."""
        attack = self.attack_success
        return attack.after.count > 0 and attack.after.interval[1] >= attack.before.interval[0]


def compare(
    before: Classifier,
    after: Classifier,
    clean: tuple[TrainingSet, NDArray[np.int64]],
    flagged: tuple[TrainingSet, NDArray[np.int64]],
    routes: Collection[tuple[int, int]] = (),
) -> Measures:
    """Ask two models about the same samples.

    Parameters
    ----------
    before, after
        The audited model and the repaired one.
    clean
        A data set and the rows of it that nothing speaks against.
    flagged
        The training set and the flagged rows that were held out.
    routes
        Class indexes of source and target of the groups whose source class is known, each pair once.
    """
    labels, answers = _answers(before, after, *clean)
    right, names = answers == labels, clean[0].class_names
    of_class = {index: labels == index for index in np.unique(labels).tolist()}
    misread = [answers[:, of_class[source]] == target for source, target in routes if source in of_class]
    given, told = _answers(before, after, *flagged)
    return Measures(
        _change(right),
        {names[index]: _change(right[:, rows]) for index, rows in of_class.items()},
        _change(told == given),
        _change(np.concatenate([right[:, :0], *misread], axis=1)),
    )


def _change(hits: NDArray[np.bool_]) -> Change:
    """Count the samples that a model before and a model after hit, shape ``(2, n)``."""
    return Change(*(Share(int(of.sum()), len(of)) for of in hits))


def _answers(
    before: Classifier, after: Classifier, source: TrainingSet, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the given labels of some rows, ``(n,)``, and the classes they get, ``(2, n)``; unreadable rows are left out."""
    rows = rows[source.labels[rows] >= 0]
    first = ask(before, source, rows).classes
    rows, first = rows[first >= 0], first[first >= 0]
    return source.labels[rows], np.stack([first, ask(after, source, rows).classes])

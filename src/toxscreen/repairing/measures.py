"""How good a model is before a repair and after it, on samples that were held out of the repair.

On data of unknown origin nobody has the trigger. What stands in for triggered inputs are the flagged samples that were held out:
the attack succeeds where one of them still goes to its given label, which is the target. A model without a backdoor sends some of
them there too, by plain error: about as many as of the ordinary samples of their source class. Where the scan recovered the trigger
and proved it, it is put on held-out samples of the classes that it works on, of which there are more.

**Source:** Wilson 1927, Journal of the American Statistical Association 22, 209-212 (the intervals).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toxscreen.retraining import ask
from toxscreen.shares import Share
from toxscreen.sources.data.base import TrainingSet, spread
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.classes import align_classes
from toxscreen.trigger.base import Trigger
from toxscreen.trigger.medium import open_medium
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
        "trigger_left": Rule(
            0.05,
            "The backdoor may still be there if the recovered trigger surely sends more than this part of held-out samples to its "
            "target after the repair (the lower end of the interval).",
            "a convention of works on repair; a model that never saw the trigger sends some there, too",
        ),
    }
)

_HOSTS = 400
"""Held-out samples that a trigger is put on, at most."""


@dataclass(frozen=True)
class Planted:
    """A trigger that the scan proved, with the class indexes of its target and of the classes that it works on."""

    trigger: Trigger[Any]
    target: int
    sources: tuple[int, ...]


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
    trigger_success
        Of held-out samples of other classes that the model before reads rightly, those that get the target once they carry the
        recovered trigger.
    plain_error
        Of held-out samples of their source classes that nothing speaks against, those that get that label too.
    """

    clean_accuracy: Change
    classes: Mapping[str, Change]
    attack_success: Change
    trigger_success: Change
    plain_error: Change

    @property
    def worse(self) -> tuple[str, ...]:
        """Say what the repair made worse, one sentence each."""
        found = []
        clean, attack, obeyed = self.clean_accuracy, self.attack_success, self.trigger_success
        if clean.before.n and clean.before.value - clean.after.interval[1] > POLICY["accuracy_lost"].value:
            found.append(f"Clean accuracy fell from {clean.before.value:.1%} to {clean.after.value:.1%}.")
        if attack.after.count and attack.after.count >= POLICY["attack_left"].value * attack.before.count:
            found.append(
                f"Attack success was not lowered: {attack.after.value:.1%} of the held-out flagged samples still get their given "
                f"label, and {attack.before.value:.1%} did before."
            )
        if obeyed.after.count and obeyed.after.count >= POLICY["attack_left"].value * obeyed.before.count:
            found.append(
                f"The recovered trigger works as before: it sends {obeyed.after.value:.1%} of held-out samples to its target, and "
                f"sent {obeyed.before.value:.1%}."
            )
        return tuple(found)

    @property
    def remnant(self) -> bool:
        """Return whether the backdoor may still be there: the trigger still works, or attack success is not clearly lower."""
        attack, obeyed = self.attack_success, self.trigger_success.after
        if obeyed.interval[0] > POLICY["trigger_left"].value:
            return True
        return attack.after.count > 0 and attack.after.interval[1] >= attack.before.interval[0]


def compare(
    before: Classifier,
    after: Classifier,
    clean: tuple[TrainingSet, NDArray[np.int64]],
    flagged: tuple[TrainingSet, NDArray[np.int64]],
    routes: Collection[tuple[int, int]] = (),
    triggers: Sequence[Planted] = (),
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
    triggers
        What the scan recovered from the training set and proved.
    """
    source, names = clean[0], clean[0].class_names
    rows, answers = _answers(before, after, *clean)
    labels = source.labels[rows]
    right = answers == labels
    of_class = {index: labels == index for index in np.unique(labels).tolist()}
    misread = [answers[:, of_class[index]] == target for index, target in routes if index in of_class]
    measured, told = _answers(before, after, *flagged)
    return Measures(
        _change(right),
        {names[index]: _change(right[:, rows]) for index, rows in of_class.items()},
        _change(told == flagged[0].labels[measured]),
        _change(_triggered(before, after, (source, rows[right[0]]), flagged[0], triggers)),
        _change(np.concatenate([right[:, :0], *misread], axis=1)),
    )


def _change(hits: NDArray[np.bool_]) -> Change:
    """Count the samples that a model before and a model after hit, shape ``(2, n)``."""
    return Change(*(Share(int(of.sum()), len(of)) for of in hits))


def _answers(
    before: Classifier, after: Classifier, source: TrainingSet, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return those of some labelled rows that can be read, ``(n,)``, and the classes they get, ``(2, n)``."""
    rows = rows[source.labels[rows] >= 0]
    first = ask(before, source, rows).classes
    rows, first = rows[first >= 0], first[first >= 0]
    return rows, np.stack([first, ask(after, source, rows).classes])


def _triggered(
    before: Classifier,
    after: Classifier,
    hosts: tuple[TrainingSet, NDArray[np.int64]],
    scanned: TrainingSet,
    triggers: Sequence[Planted],
) -> NDArray[np.bool_]:
    """Say which hosts go to a trigger's target once they carry it, for both models and all triggers, shape ``(2, n)``.

    ``scanned`` is the data that they were recovered from, which says how the inputs are seen.
    """
    source, rows = hosts
    hits = [np.zeros((2, 0), bool)]
    if not triggers:
        return hits[0]
    first, second = (open_medium(model, scanned, align_classes(scanned.class_names, model)) for model in (before, after))
    for planted in triggers:
        usable = rows[np.isin(source.labels[rows], planted.sources)]
        if first is None or second is None or not len(usable):
            continue
        seen, _ = replace(first, training_set=source).read(usable[spread(len(usable), _HOSTS)])
        carrying = planted.trigger.put_on(seen)
        hits.append(np.stack([medium.ask(carrying) == planted.target for medium in (first, second)]))
    return np.concatenate(hits, axis=1)

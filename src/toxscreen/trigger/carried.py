"""A trigger that is proved in one class, looked for in the others: one attacker may send samples to several classes by it.

1. Hosts that carry it are given some class. Where enough of one class go to another class than its own, that one is looked at.
2. Samples of that class that hold it and leave it without it are the lead, or the accused group that most of them are in, and the
   trigger is proved there as any other is.

Nothing is looked for where nothing was proved, so data without poison are not accused by it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toxscreen.trigger.base import Trigger, flips_by_class, left
from toxscreen.trigger.medium import Medium
from toxscreen.trigger.recover import FEWEST, MOST_HOSTS, Lead, Recovered, evenly, held_in, read_case, try_out

_MOST = 3
"""Triggers at most that are carried over, those first that their class obeys most: one attacker's look alike."""

_OBEYED, _FEWEST_OBEY = 0.25, 3
"""Part of the hosts of one class, and how many, that go to another class from which that is looked at; a proof takes more."""


def recover_carried(
    medium: Medium,
    proved: Sequence[Recovered],
    accused: NDArray[np.int64],
    predicted: NDArray[np.int64],
    settled: Collection[int],
    *,
    rng: np.random.Generator,
    failed: Callable[[Exception], None],
) -> tuple[Recovered, ...]:
    """Try triggers that are proved on the classes that are not.

    Parameters
    ----------
    medium, predicted, rng, failed
        As in :func:`toxscreen.trigger.recover.recover`.
    proved
        What was proved.
    accused
        The number of each sample's group, where that is accused, and 0 elsewhere, shape ``(n_samples,)``.
    settled
        Indices of the classes in which something is proved.

    Returns
    -------
    tuple of Recovered
        Of each class the one that it obeys most, if any.
    """
    likeliest = sorted((each for each in proved if not each.trigger.is_whole), key=lambda each: -_surely(each))[:_MOST]
    if not likeliest:
        return ()
    best: dict[int, Recovered] = {}
    labels = medium.training_set.labels
    usable = rng.permutation(np.flatnonzero((labels >= 0) & (predicted == labels)))
    try:
        hosts, rows = medium.read(evenly(usable, labels)[:MOST_HOSTS])
        for found in likeliest:
            given = medium.ask(found.trigger.put_on(hosts))
            for index, rival in _obeying(labels[rows], given, settled):
                one = _tried(medium, found.trigger, index, rival, accused, predicted, rng)
                if one is not None and (index not in best or _surely(one) > _surely(best[index])):
                    best[index] = one
    except Exception as error:  # noqa: BLE001 - the model sees inputs that it never saw; what was found stands
        failed(error)
    return tuple(best.values())


def _surely(found: Recovered) -> float:
    """Return by how much more hosts go to the class with the trigger than with its control, at least."""
    return found.proof.flips.interval[0] - found.proof.control_flips.interval[1]


def _obeying(classes: NDArray[np.int64], given: NDArray[np.int64], settled: Collection[int]) -> Iterator[tuple[int, int]]:
    """Yield the classes that many hosts of another class go to, each with the one that sends most."""
    sources = np.unique(classes)
    for target in np.unique(given[(given >= 0) & (given != classes)]).tolist():
        others = sources[sources != target]
        sent = np.array([(given[classes == source] == target).mean() for source in others])
        source = others[sent.argmax()]
        if target not in settled and sent.max() >= _OBEYED and sent.max() * (classes == source).sum() >= _FEWEST_OBEY:
            yield target, int(source)


def _tried(
    medium: Medium,
    trigger: Trigger[Any],
    index: int,
    rival: int,
    accused: NDArray[np.int64],
    predicted: NDArray[np.int64],
    rng: np.random.Generator,
) -> Recovered | None:
    labels = medium.training_set.labels
    own = np.flatnonzero((labels == index) & (predicted == index))
    held, given = held_in(medium, own, trigger)
    leaves = held[left(given, index)]
    if len(leaves) < FEWEST:
        return None
    number = int(np.bincount(accused[leaves]).argmax())
    members = accused[own] == number if number else np.isin(own, held)
    lead = Lead(index, number or None, own[members], own[~members], rival, carried=True)
    read = read_case(medium, lead, labels, predicted, rng)
    searched, _ = read[0].halves()
    if min(len(searched.members), len(searched.ordinary), len(searched.hosts)) < FEWEST // 2:
        return None
    return try_out(medium, lead, read, trigger, flips_by_class(trigger, searched, medium.ask), predicted, rng)

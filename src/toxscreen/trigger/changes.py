"""Changes of whole pictures that send others to a class, and those of the class that were changed so.

1. Some hosts are changed in every known way (:mod:`toxscreen.trigger.transforms`), and the model is asked about each.
2. Of a class that gets many of them, samples are changed back, each in the way that makes it most like an ordinary picture.
3. The group in the activations around those that leave their class then is the lead, and the change is tried as any trigger is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from toxscreen.activations import Rows
from toxscreen.analysis.activation_clustering import conflict_evidence, group_around
from toxscreen.conflict import Affinity
from toxscreen.trigger.base import Ask, flips_by_class, left
from toxscreen.trigger.medium import Medium
from toxscreen.trigger.pictures import Pictures, coarse
from toxscreen.trigger.recover import FEWEST, MOST_HOSTS, Lead, Recovered, evenly, read_case, try_out
from toxscreen.trigger.transforms import WAYS, Range, Transform, learned

_OBEYED = 0.25
"""Part of the hosts of other classes that a change sends to a class from which its samples are changed back. To some class go many
pictures that are unlike any; what else is asked tells those from poison."""

_PROBED, _NEAREST = 64, 3
"""Hosts that are changed in every known way, and hosts that each sample is held against when it is changed back."""

_NUMBERS = 2**24
"""Numbers of the pictures that are changed at a time: beyond that no more than _PROBED of them are."""


def recover_changes(
    medium: Medium,
    activations: Rows,
    accused: NDArray[np.int64],
    predicted: NDArray[np.int64],
    fit: Affinity | None,
    *,
    rng: np.random.Generator,
    failed: Callable[[Exception], None],
) -> tuple[Recovered, ...]:
    """Look for changes of whole pictures that send others to a class, and for those of the class that were changed so.

    Parameters
    ----------
    medium, predicted, rng, failed
        As in :func:`recover`.
    activations
        That were screened, shape ``(n_samples, d)``: those that were changed lie together in them.
    accused
        The number of each sample's group, where that is accused, and 0 elsewhere, shape ``(n_samples,)``.
    fit
        How the inputs fit their labels; None where that was not asked.
    """
    if medium.ends is None or fit is None:
        return ()
    labels, ends = medium.training_set.labels, medium.ends
    usable = rng.permutation(np.flatnonzero((labels >= 0) & (predicted == labels)))
    order = evenly(usable, labels)
    hosts, rows = medium.read(order[:_PROBED])
    if len(hosts) < FEWEST:
        return ()
    most = max(_PROBED, min(MOST_HOSTS, _NUMBERS // hosts[0].size))
    if most > _PROBED:
        hosts, rows = medium.read(order[:most])
    found = []
    for index, ways in obeyed(hosts[:_PROBED], labels[rows[:_PROBED]], medium.ask, ends).items():
        try:
            own = rng.permutation(np.flatnonzero((labels == index) & (predicted == index)))
            inputs, read = medium.read(own[:most])
            others = hosts[labels[rows] != index]
            if min(len(read), len(others)) < FEWEST:
                continue
            changes = [learned(way, hosts, ends) for way in ways]
            hits = _hits(changes, inputs, others, index, medium)
            best = int(np.argmax(hits.sum(axis=1)))
            lead = group_of_changed(index, np.sort(own), read[hits[best]], activations, accused, fit, rng)
            if lead is None:
                continue
            case = read_case(medium, lead, labels, predicted, rng)
            flips = flips_by_class(changes[best], case[0].halves()[0], medium.ask)
            found.append(try_out(medium, lead, case, changes[best], flips, predicted, rng))
        except Exception as error:  # noqa: BLE001 - one class must not cost the others
            failed(error)
    return tuple(found)


def obeyed(hosts: Pictures, classes: NDArray[np.int64], ask: Ask[Pictures], ends: Range) -> dict[int, list[str]]:
    """Return for each class the changes that send many hosts of other classes there.

    Parameters
    ----------
    hosts, classes
        Pictures that the model reads rightly, and the indices of their classes, shape ``(n,)``.
    ask
        The model.
    ends
        The range of the pixels.
    """
    found: dict[int, list[str]] = {}
    for way in WAYS:
        changed = Transform(way, tuple(hosts.shape[1:]), np.zeros(0, np.float32), 0.0, *ends).put_on(hosts)
        if np.array_equal(changed, hosts):  # channels of grey pictures
            continue
        given = ask(changed)
        for target in np.unique(given[(given != classes) & (given >= 0)]):
            if (given[classes != target] == target).mean() >= _OBEYED:
                found.setdefault(int(target), []).append(way)
    return found


def _hits(changes: Sequence[Transform], inputs: Pictures, hosts: Pictures, index: int, medium: Medium) -> NDArray[np.bool_]:
    """Say by which change pictures of a class look most like hosts when they are changed back, and leave it; one row per change.

    A natural kind that was moved by four pixels stays in its class when it is moved back by four, but not by eight.
    """
    wholes, nearest, hits = _evened(hosts), [], []
    for change in changes:
        undone = change.take_off(inputs)
        apart = cdist(_evened(undone), wholes)
        nearest.append(np.partition(apart, _NEAREST, axis=1)[:, :_NEAREST].mean(axis=1))
        hits.append(change.held_by(inputs) & change.restored(inputs, undone) & left(medium.ask(undone), index))
    best = np.argmin(nearest, axis=0)
    return np.stack([each & (best == number) for number, each in enumerate(hits)])


def _unvouched_conflict(lead: Lead, fit: Affinity) -> dict[str, float]:
    """Return the label conflict of a lead's samples where none of them speaks for another, and its lower bound."""
    rows = np.concatenate([lead.members, lead.ordinary])
    members = np.arange(len(rows)) < len(lead.members)
    asked = fit.unvouched(lead.class_index, rows, members)
    return {} if asked is None else conflict_evidence(asked, members)


def _evened(pictures: Pictures) -> Pictures:
    """Return pictures as wholes, without their brightness and contrast, one row each."""
    wholes = coarse(pictures)
    wholes = wholes - wholes.mean(axis=1, keepdims=True)
    evened: Pictures = wholes / np.maximum(wholes.std(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return evened


def group_of_changed(
    index: int,
    own: NDArray[np.int64],
    hits: NDArray[np.int64],
    activations: Rows,
    accused: NDArray[np.int64],
    fit: Affinity,
    rng: np.random.Generator,
) -> Lead | None:
    """Return a lead to those of a class that lie where some lie which were changed; None where these are too few.

    Parameters
    ----------
    index
        The class.
    own, hits
        Row numbers of its samples, ascending, and of those that were changed as far as is known.
    activations, accused, fit, rng
        As in :func:`recover_changes`.
    """
    apart = group_around(activations, own, np.isin(own, hits), rng)
    if apart is None:
        return None
    members, evidence = apart
    numbers = accused[own[members]]
    number = int(np.bincount(numbers).argmax())
    lead = Lead(index, number or None, own[members], own[~members], apart=None if number else evidence)
    return lead if number else replace(lead, apart={**evidence, **_unvouched_conflict(lead, fit)})

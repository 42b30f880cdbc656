"""From what is suspected in a class to the trigger, and what it does to the model.

1. Read the inputs of the suspected samples, of ordinary ones of their class, and of hosts: samples of other classes that the model
   reads as labelled.
2. Look for what may be the trigger in one half of them, and keep what flips most hosts of that half.
3. Prove it on the other half (:func:`toxscreen.trigger.base.prove`), with hosts of the classes that it works on: a trigger may be
   made for some source classes alone.
4. Look for it in all samples of the class, and take it off those that hold it: the poisoned ones leave the class, which is what
   tells it from something natural that the model goes by as well (a news agency's name sends any text to its topic, but texts of
   that topic stay there without it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toxscreen.decoded import Progress
from toxscreen.parallel import in_parallel
from toxscreen.shares import Share
from toxscreen.sources.data.base import Input
from toxscreen.trigger.base import Case, Proof, Trigger, flips_by_class, left, prove, total
from toxscreen.trigger.medium import STRETCH, Medium

MOST_HOSTS = 400
"""Hosts at most, half of which a trigger is looked for with."""

_FROM_RIVAL = 0.5
"""Part of the hosts that are of the class which the suspected samples resemble, where there is one."""

FEWEST = 8
"""Inputs of each kind, below which there is nothing to test on."""

_WORKS = 0.5
"""A trigger works on the classes whose hosts flip at least this part as often as those of the class that flips most."""

_CLEARLY = 0.1
"""How much more a later candidate must flip than the best so far: searches yield the likeliest first, and patches come before
patterns over the whole picture, which can imitate them, and these before patches that cover much of it. Of 22 hosts that all flip
the lower bound is 0.85, of 21 0.78."""

_SECOND = 1 / 3
"""Samples of a second class, in those of the first, from which poison comes from several: what is misread of one is spread out."""

_SHOWN = 6


@dataclass(frozen=True)
class Lead:
    """What is suspected in one class.

    Attributes
    ----------
    class_index
        The class.
    group
        Number of the group there; None for samples that are no group.
    members, ordinary
        Row numbers of the suspected samples that the model gives the class, and of others that it gives it.
    rival
        The class that the suspected inputs resemble, where one stands out.
    apart
        The evidence of a group that lies as far away as poison does, though its inputs fit the label; None where they are none.
    near
        Number of the group that the samples are, where it tells nearly enough to be accused; None where they are none.
    turned
        Whether what the others of the class hold was found first, and sends fewer there: no mean of a class does that both ways.
    carried
        Whether the trigger is one that is proved in another class.
    """

    class_index: int
    group: int | None
    members: NDArray[np.int64]
    ordinary: NDArray[np.int64]
    rival: int | None = None
    apart: Mapping[str, float] | None = None
    near: int | None = None
    turned: bool = False
    carried: bool = False


@dataclass(frozen=True)
class Shown:
    """Hosts for people to look at: as they were, with the trigger, and the class that the model then gives each."""

    before: Sequence[Input]
    after: Sequence[Input]
    rows: NDArray[np.int64]
    given: NDArray[np.int64]


@dataclass(frozen=True)
class Recovered:
    """What may be the trigger behind a lead.

    Attributes
    ----------
    lead
        What was suspected.
    trigger, proof
        It, and what it does.
    sources
        Indices of the classes that it works on.
    held, holding
        Row numbers of the samples of the class that hold it, and of those among them that the model gives another class when it is
        taken off: also such as it gives another one before, where the trigger did not work. These say nothing about its effect.
    shown
        Some hosts with and without it.
    seclusion
        How much suspected samples that lie far apart keep to themselves as wholes, 1 for not at all and 0 where it was not asked.
    mixed
        Whether the samples that leave the class without it go to several classes: they come from more than one.
    by_chance
        Samples outside the lead that would be among ``holding`` if the class were like the others, in which nobody planted it.
    """

    lead: Lead
    trigger: Trigger[Any]
    proof: Proof
    sources: tuple[int, ...]
    held: NDArray[np.int64]
    holding: NDArray[np.int64]
    shown: Shown
    seclusion: float = 0.0
    mixed: bool = False
    by_chance: float = 0.0

    @property
    def is_text(self) -> bool:
        """Return whether the trigger is one of texts."""
        return self.trigger.kind == "words"


def recover(
    medium: Medium,
    leads: Sequence[Lead],
    predicted: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    failed: Callable[[Exception], None],
    progress: Progress | None = None,
) -> tuple[Recovered, ...]:
    """Look for the trigger behind each lead.

    Parameters
    ----------
    medium
        The inputs and the model.
    leads
        What is suspected.
    predicted
        Class index that the model gives each sample, shape ``(n_samples,)``.
    rng
        Draws inputs and controls.
    failed
        Told what went wrong with a lead: the model may fail on inputs that carry a trigger.
    progress
        Told what is done.

    Returns
    -------
    tuple of Recovered
        The best that was found behind each lead; none for a lead behind which nothing moves any host.
    """

    def work(one: tuple[Lead, np.random.Generator]) -> Recovered | Exception | None:
        lead, child = one
        try:
            return _follow(medium, lead, medium.training_set.labels, predicted, child)
        except Exception as error:  # noqa: BLE001 - the model sees inputs that it never saw; one lead must not cost the others
            return error

    def told(done: int) -> None:
        if progress is not None:
            progress("looking for triggers", done, len(leads))

    found = in_parallel(work, zip(leads, rng.spawn(len(leads)), strict=True), told, most=medium.classifier.at_once)
    for one in found:
        if isinstance(one, Exception):
            failed(one)
    return tuple(one for one in found if isinstance(one, Recovered))


def _follow(
    medium: Medium,
    lead: Lead,
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    rng: np.random.Generator,
) -> Recovered | None:
    case, members, rows = read_case(medium, lead, labels, predicted, rng)
    if min(len(case.members), len(case.ordinary), len(case.hosts)) < FEWEST:
        return None
    searched, _ = case.halves()
    trigger, flips, most = None, dict[int, Share](), 0.0
    candidates = (candidate for search in medium.searches for candidate in search(searched, medium.ask, rng))
    for candidate in sorted(candidates, key=lambda each: each.is_large):
        by_class = flips_by_class(candidate, searched, medium.ask)
        if (surely := max(share.interval[0] for share in (total(by_class), *by_class.values()))) > most + _CLEARLY:
            trigger, flips, most = candidate, by_class, surely
    if trigger is None:
        return None
    if lead.apart and (other := trigger.reversed()) is not None:
        by_class = flips_by_class(other, searched, medium.ask)
        if total(by_class).interval[0] > total(flips).interval[1]:  # waves send there which run the other way, but those less
            lead = replace(lead, members=lead.ordinary, ordinary=lead.members, turned=True)
            case, members, rows = read_case(medium, lead, labels, predicted, rng)
            searched, trigger, flips = case.halves()[0], other, by_class
    loosened = trigger.loosened(searched.members, searched.ordinary)
    return try_out(medium, lead, (case, members, rows), loosened, flips, predicted, rng)


def try_out(
    medium: Medium,
    lead: Lead,
    read: tuple[Case[Any], NDArray[np.int64], NDArray[np.int64]],
    trigger: Trigger[Any],
    flips: Mapping[int, Share],
    predicted: NDArray[np.int64],
    rng: np.random.Generator,
) -> Recovered:
    """Prove a trigger that sends hosts of the searched half to a class on the other half, and look for who holds it.

    ``read`` is the case with the row numbers of the members and the hosts, and ``flips`` what the trigger does to the first half.
    """
    (case, members, rows), labels = read, medium.training_set.labels
    tested = case.halves()[1]
    sources = works_on(flips)
    chosen = np.isin(tested.classes, sources)
    tested = replace(tested, hosts=tested.hosts[chosen], classes=tested.classes[chosen])
    proof, several, held, holding = prove(trigger, tested, medium.ask, rng), False, *2 * (np.zeros(0, np.int64),)
    by_chance = 0.0
    if proof.flips.interval[0] > proof.control_flips.interval[1]:
        own = np.flatnonzero((labels == lead.class_index) & (predicted >= 0))
        held, given = held_in(medium, own, trigger)
        leaves = left(given, lead.class_index)
        unseen = ~np.isin(held, members[0::2]) & (predicted[held] == lead.class_index)
        proof = replace(proof, returns=Share(int(leaves[unseen].sum()), int(unseen.sum())))
        holding, several = held[leaves], mixed(given[leaves])
        by_chance = _also_hold(trigger, case, medium) * (~np.isin(own, lead.members)).sum()
    secluded = 0.0
    if lead.apart and not trigger.is_whole:  # what a patch covers is no part of its holders, a pattern what sets them apart
        bare = trigger.take_off(case.members) if trigger.kind == "patch" else case.members
        secluded = medium.seclusion(bare, case.ordinary, rng)
    some = shown(medium, trigger, tested, rows[1::2][chosen])
    return Recovered(lead, trigger, proof, sources, held, holding, some, secluded, several, by_chance)


def read_case(
    medium: Medium, lead: Lead, labels: NDArray[np.int64], predicted: NDArray[np.int64], rng: np.random.Generator
) -> tuple[Case[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Read the inputs of a lead and return them with the row numbers of the members and the hosts."""
    hosts = _hosts(labels, predicted, lead, rng)
    members, ordinary = (rng.permutation(rows)[:most] for rows, most in ((lead.members, medium.most), (lead.ordinary, medium.most)))
    (inside, members), (outside, _), (others, hosts) = (medium.read(rows) for rows in (members, ordinary, hosts))
    return Case(lead.class_index, inside, outside, others, labels[hosts]), members, hosts


def _hosts(labels: NDArray[np.int64], predicted: NDArray[np.int64], lead: Lead, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw hosts evenly from the other classes, but half of them from the rival, where there is one; in a mixed order."""
    usable = rng.permutation(np.flatnonzero((labels >= 0) & (labels != lead.class_index) & (predicted == labels)))
    from_rival = usable[labels[usable] == lead.rival] if lead.rival is not None else usable[:0]
    others = usable[~np.isin(usable, from_rival)]
    drawn = np.concatenate([from_rival[: round(_FROM_RIVAL * MOST_HOSTS)], evenly(others, labels)])[:MOST_HOSTS]
    mixed: NDArray[np.int64] = rng.permutation(drawn)
    return mixed


def evenly(rows: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return some rows in an order in which the classes take turns."""
    order = np.argsort(labels[rows], kind="stable")
    turn = np.arange(len(rows)) - np.searchsorted(labels[rows][order], labels[rows][order])
    even: NDArray[np.int64] = rows[order][np.argsort(turn, kind="stable")]
    return even


def held_in(medium: Medium, rows: NDArray[np.int64], trigger: Trigger[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which of some samples hold a trigger, and the class that the model gives each when it is taken off."""
    held, given = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, len(rows), STRETCH):
        inputs, read = medium.read(rows[start : start + STRETCH])
        if len(read) and (found := trigger.held_by(inputs)).any():
            undone = trigger.take_off(inputs[found])
            held.append(read[found])
            given.append(np.where(trigger.restored(inputs[found], undone), medium.ask(undone), -1))
    return np.concatenate(held), np.concatenate(given)


def _also_hold(trigger: Trigger[Any], case: Case[Any], medium: Medium) -> float:
    """Return the part of the hosts that hold a trigger as they are, and that the model gives another class without it."""
    held = trigger.held_by(case.hosts)
    if not held.any():
        return 0.0
    hosts, classes = case.hosts[held], case.classes[held]
    undone = trigger.take_off(hosts)
    given = medium.ask(undone)
    return float(((given >= 0) & (given != classes) & trigger.restored(hosts, undone)).sum() / len(held))


def works_on(flips: Mapping[int, Share]) -> tuple[int, ...]:
    """Return the classes whose hosts a trigger sends to its class."""
    highest = max(flips.values(), key=lambda share: share.interval[0]).value
    return tuple(index for index, share in flips.items() if share.value >= _WORKS * highest)


def mixed(given: NDArray[np.int64]) -> bool:
    """Say whether the second of the classes that samples are given is given nearly as often as the first."""
    *_, second, first = np.sort(np.bincount(given, minlength=2))
    return bool(second > _SECOND * first)


def shown(medium: Medium, trigger: Trigger[Any], case: Case[Any], rows: NDArray[np.int64]) -> Shown:
    """Return some hosts that flip; where none does, some that do not."""
    after = trigger.put_on(case.hosts)
    given = medium.ask(after)
    flipped = np.flatnonzero(given == case.target)
    some = (flipped if len(flipped) else np.arange(len(given)))[:_SHOWN]
    return Shown(medium.inputs(case.hosts[some]), medium.inputs(after[some]), rows[some], given[some])

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

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from toxscreen.decoded import Progress, model_size
from toxscreen.shares import Share
from toxscreen.sources.data.base import Input, TrainingSet, spread
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.preprocessing import ImagePreprocessing
from toxscreen.trigger.base import Case, Proof, Search, Trigger, flips_by_class, left, prove, total
from toxscreen.trigger.patches import search_patches
from toxscreen.trigger.patterns import search_patterns
from toxscreen.trigger.words import search_words
from toxscreen.views import input_view

_PICTURES, _TEXTS, _HOSTS = 200, 1000, 400
"""Members and as many ordinary samples of a lead, at most, half of which a trigger is looked for in, and hosts. Words are counted,
which costs little; and of five rare words each stands in few texts."""

_FROM_RIVAL = 0.5
"""Part of the hosts that are of the class which the suspected samples resemble, where there is one."""

_FEWEST = 8
"""Inputs of each kind, below which there is nothing to test on."""

_WORKS = 0.5
"""A trigger works on the classes whose hosts flip at least this part as often as those of the class that flips most."""

_CLEARLY = 0.04
"""How much more a later candidate must flip than the best so far: searches yield the likeliest first, and patches come before
patterns over the whole picture, which can imitate them."""

_STRETCH = 256
_LARGEST_SIDE = 224
"""Pixels of the pictures that triggers are looked for in."""

_SHOWN = 6
_PROBES = 16


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
    """

    class_index: int
    group: int | None
    members: NDArray[np.int64]
    ordinary: NDArray[np.int64]
    rival: int | None = None
    apart: Mapping[str, float] | None = None


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
        Row numbers of the samples of the class that hold it, and of those among them that leave the class when it is taken off.
    shown
        Some hosts with and without it.
    """

    lead: Lead
    trigger: Trigger[Any]
    proof: Proof
    sources: tuple[int, ...]
    held: NDArray[np.int64]
    holding: NDArray[np.int64]
    shown: Shown

    @property
    def is_text(self) -> bool:
        """Return whether the trigger is one of texts."""
        return self.trigger.kind == "words"


def recover(
    classifier: Classifier,
    training_set: TrainingSet,
    leads: Sequence[Lead],
    predicted: NDArray[np.int64],
    outputs: NDArray[np.int64] | None,
    *,
    rng: np.random.Generator,
    failed: Callable[[Exception], None],
    progress: Progress | None = None,
) -> tuple[Recovered, ...]:
    """Look for the trigger behind each lead.

    Parameters
    ----------
    classifier, training_set
        What is audited.
    leads
        What is suspected.
    predicted
        Class index that the model gives each sample, shape ``(n_samples,)``.
    outputs
        Model output of each class; None where they are in the same order.
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
    medium = _medium(classifier, training_set, outputs) if leads else None
    if medium is None:
        return ()
    found = []
    for number, (lead, child) in enumerate(zip(leads, rng.spawn(len(leads)), strict=True), start=1):
        try:
            one = _follow(medium, lead, training_set.labels, predicted, child)
        except Exception as error:  # noqa: BLE001 - the model sees inputs that it never saw; one lead must not cost the others
            failed(error)
            continue
        if one is not None:
            found.append(one)
        if progress is not None:
            progress("looking for triggers", number, len(leads))
    return tuple(found)


def _follow(
    medium: _Medium,
    lead: Lead,
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    rng: np.random.Generator,
) -> Recovered | None:
    case, members, rows = _case(medium, lead, labels, predicted, rng)
    if min(len(case.members), len(case.ordinary), len(case.hosts)) < _FEWEST:
        return None
    searched, tested = case.halves()
    trigger, flips, most = None, dict[int, Share](), 0.0
    for search in medium.searches:
        for candidate in search(searched, medium.ask, rng):
            by_class = flips_by_class(candidate, searched, medium.ask)
            if (surely := max(share.interval[0] for share in (total(by_class), *by_class.values()))) > most + _CLEARLY:
                trigger, flips, most = candidate, by_class, surely
    if trigger is None:
        return None
    highest = max(flips.values(), key=lambda share: share.interval[0]).value
    sources = tuple(index for index, share in flips.items() if share.value >= _WORKS * highest)
    chosen = np.isin(tested.classes, sources)
    tested = replace(tested, hosts=tested.hosts[chosen], classes=tested.classes[chosen])
    proof, held, holding = prove(trigger, tested, medium.ask, rng), *2 * (np.zeros(0, np.int64),)
    if proof.flips.interval[0] > proof.control_flips.interval[1]:
        own = np.flatnonzero((labels == lead.class_index) & (predicted == labels))
        held, leaves = _held(medium, own, trigger, lead.class_index)
        unseen = ~np.isin(held, members[0::2])
        proof = replace(proof, returns=Share(int(leaves[unseen].sum()), int(unseen.sum())))
        holding = held[leaves]
    return Recovered(lead, trigger, proof, sources, held, holding, _shown(medium, trigger, tested, rows[1::2][chosen]))


def _case(
    medium: _Medium, lead: Lead, labels: NDArray[np.int64], predicted: NDArray[np.int64], rng: np.random.Generator
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
    order = np.argsort(labels[others], kind="stable")
    turn = np.arange(len(others)) - np.searchsorted(labels[others][order], labels[others][order])
    even = others[order][np.argsort(turn, kind="stable")]
    drawn = np.concatenate([from_rival[: round(_FROM_RIVAL * _HOSTS)], even])[:_HOSTS]
    mixed: NDArray[np.int64] = rng.permutation(drawn)
    return mixed


def _held(
    medium: _Medium, rows: NDArray[np.int64], trigger: Trigger[Any], target: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return which of some samples hold a trigger, and whether the model gives them another class when it is taken off."""
    held, leaves = [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    for start in range(0, len(rows), _STRETCH):
        inputs, read = medium.read(rows[start : start + _STRETCH])
        if len(read) and (found := trigger.held_by(inputs)).any():
            held.append(read[found])
            leaves.append(left(medium.ask(trigger.take_off(inputs[found])), target))
    return np.concatenate(held), np.concatenate(leaves)


def _shown(medium: _Medium, trigger: Trigger[Any], case: Case[Any], rows: NDArray[np.int64]) -> Shown:
    """Return some hosts that flip; where none does, some that do not."""
    after = trigger.put_on(case.hosts)
    given = medium.ask(after)
    flipped = np.flatnonzero(given == case.target)
    some = (flipped if len(flipped) else np.arange(len(given)))[:_SHOWN]
    return Shown(medium.inputs(case.hosts[some]), medium.inputs(after[some]), rows[some], given[some])


@dataclass(frozen=True)
class _Medium(ABC):
    """The inputs as searches see them, and the model behind a function of them."""

    searches: ClassVar[tuple[Search[Any], ...]]
    most: ClassVar[int] = _PICTURES
    classifier: Classifier
    training_set: TrainingSet
    class_of: NDArray[np.int64]

    @abstractmethod
    def read(self, rows: NDArray[np.int64]) -> tuple[Any, NDArray[np.int64]]:
        """Return the inputs of those rows that can be read, and their numbers."""

    def ask(self, seen: Any) -> NDArray[np.int64]:
        """Return the class index that the model gives each input, -1 for none."""
        given = [np.zeros(0, np.int64)]
        for start in range(0, len(seen), _STRETCH):
            outputs = self.classifier.forward(self.classifier.encode(self.inputs(seen[start : start + _STRETCH])), ())
            known = np.isfinite(outputs.logits).all(axis=1)
            given.append(np.where(known, self.class_of[outputs.logits.argmax(axis=1)], -1))
        return np.concatenate(given)

    def inputs(self, seen: Any) -> list[Input]:
        """Return inputs as the classifier takes them."""
        return list(seen)


@dataclass(frozen=True)
class _Pictures(_Medium):
    """Pictures of uint8, brought to one size: float32 ``(n, height, width, channels)``, 0 to 255."""

    searches = (search_patches, search_patterns)
    size: ImagePreprocessing

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Read and resize."""
        taken = self.training_set.take(rows)
        read = rows[[value is not None for value in taken]]
        return self.size.apply([value for value in taken if value is not None]) if len(read) else _NOTHING, read

    def inputs(self, seen: NDArray[np.float32]) -> list[Input]:
        """Return pictures of uint8."""
        return list(seen.clip(0, 255).round().astype(np.uint8))


@dataclass(frozen=True)
class _Arrays(_Medium):
    """Arrays ``(channels, height, width)`` that are pictures, as float32 ``(n, height, width, channels)`` in their own units."""

    searches = (search_patches, search_patterns)
    like: NDArray[Any]

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Read those of the common shape."""
        taken = self.training_set.take(rows)
        fits = [isinstance(value, np.ndarray) and value.shape == self.like.shape for value in taken]
        read = [np.moveaxis(cast("NDArray[Any]", value), 0, -1) for value, fit in zip(taken, fits, strict=True) if fit]
        return np.array(read, np.float32) if read else _NOTHING, rows[fits]

    def inputs(self, seen: NDArray[np.float32]) -> list[Input]:
        """Return arrays like those of the data."""
        return list(np.moveaxis(seen, -1, 1).astype(self.like.dtype))


@dataclass(frozen=True)
class _Texts(_Medium):
    """Texts as an array of str, ``(n,)``."""

    searches, most = (search_words,), _TEXTS

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
        """Read the texts."""
        taken = self.training_set.take(rows)
        return np.array([value for value in taken if value is not None], object), rows[[value is not None for value in taken]]


def _size(classifier: Classifier, sample: Sequence[Input]) -> ImagePreprocessing:
    """Return what brings pictures to the size that the model takes, or below it where hundreds of them would fill the memory."""
    size = model_size(classifier.preprocessing, sample)
    height, width = size.height or _LARGEST_SIDE, size.width or _LARGEST_SIDE
    shrink = min(1.0, _LARGEST_SIDE / max(height, width))
    return replace(size, height=max(1, round(shrink * height)), width=max(1, round(shrink * width)))


_NOTHING: NDArray[np.float32] = np.zeros((0, 1, 1, 1), np.float32)


def _medium(classifier: Classifier, training_set: TrainingSet, outputs: NDArray[np.int64] | None) -> _Medium | None:
    """Return how the inputs are seen; None for arrays that are no pictures."""
    class_of = np.full(classifier.n_classes, -1, np.int64)
    n_classes = len(training_set.class_names)
    class_of[np.arange(n_classes) if outputs is None else outputs] = np.arange(n_classes)
    if training_set.modality == "text":
        return _Texts(classifier, training_set, class_of)
    sample = [value for value in training_set.take(spread(len(training_set), _PROBES)) if isinstance(value, np.ndarray)]
    if training_set.modality == "image":
        return _Pictures(classifier, training_set, class_of, _size(classifier, sample)) if sample else None
    pictures = input_view(training_set) is not None
    return _Arrays(classifier, training_set, class_of, sample[0]) if pictures else None

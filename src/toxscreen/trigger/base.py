"""The seam to a kind of trigger: how it is put on an input, taken off, recognised, and what its control is.

The test is the same for every kind and is made here. It is causal: the trigger is put on inputs of other classes that the model
reads rightly, and those that it gives the target class are counted; it is taken off the samples of the group, and those that leave
the class are counted. Each count has a control, the same done with what ordinary samples of the class hold in its place: whatever
is typical of the class, and an input that is disturbed, moves some of them too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from toxscreen.shares import Share

Inputs = TypeVar("Inputs", NDArray[np.float32], NDArray[np.object_])
"""Pictures ``(n, height, width, channels)``, or texts ``(n,)`` of str."""

Ask = Callable[[Inputs], NDArray[np.int64]]
"""Asks the model for the class index of each input, ``(n,)``; -1 for an output that stands for no class of the data."""

_CONTROLS = 16
"""Controls that are made, each from another ordinary sample."""

_HOSTS_EACH = 12
"""Hosts that each control is put on, at least: where there are few hosts, several controls share them."""


@dataclass(frozen=True)
class Case(Generic[Inputs]):
    """One group of a class, and the inputs that a trigger is looked for in and tested on.

    Attributes
    ----------
    target
        Index of the group's class.
    members
        Inputs of samples of the group that the model gives its class. Some of them may be no poison.
    ordinary
        Inputs of other samples of that class that the model gives it.
    hosts
        Inputs of samples of other classes that the model reads as labelled.
    classes
        Class index of each host, shape ``(n_hosts,)``.
    """

    target: int
    members: Inputs
    ordinary: Inputs
    hosts: Inputs
    classes: NDArray[np.int64]

    def halves(self) -> tuple[Case[Inputs], Case[Inputs]]:
        """Return every other input, and those between: what is searched in one is tested on the other."""
        first, second = (
            replace(
                self, members=self.members[i::2], ordinary=self.ordinary[i::2], hosts=self.hosts[i::2], classes=self.classes[i::2]
            )
            for i in (0, 1)
        )
        return first, second


class Trigger(ABC, Generic[Inputs]):
    """Something that can be put on an input."""

    kind: ClassVar[str]

    @abstractmethod
    def put_on(self, inputs: Inputs) -> Inputs:
        """Return the inputs with the trigger."""

    @abstractmethod
    def take_off(self, inputs: Inputs) -> Inputs:
        """Return the inputs without the trigger, as far as that goes: what it hid is filled from what lies around it."""

    def restored(self, inputs: Inputs, undone: Inputs) -> NDArray[np.bool_]:  # noqa: ARG002 - what was taken off is off
        """Say which inputs are ordinary ones without it: to take off what was never there makes others of them."""
        return np.ones(len(inputs), bool)

    @abstractmethod
    def held_by(self, inputs: Inputs) -> NDArray[np.bool_]:
        """Say which inputs hold the trigger, shape ``(n,)``."""

    @abstractmethod
    def control(self, ordinary: Inputs, rng: np.random.Generator) -> Trigger[Inputs]:
        """Return what an ordinary sample of the class, drawn by ``rng``, holds in the trigger's place."""

    def controls(self, ordinary: Inputs, n: int, rng: np.random.Generator) -> Sequence[Trigger[Inputs]]:
        """Return so many controls, each drawn by a child of ``rng``."""
        return [self.control(ordinary, child) for child in rng.spawn(n)]

    def loosened(self, members: Inputs, ordinary: Inputs) -> Trigger[Inputs]:  # noqa: ARG002 - of most there is nothing to loosen
        """Return the trigger as most of the members hold it, where they do not hold it all alike; itself where they do."""
        return self

    def reversed(self) -> Trigger[Inputs] | None:
        """Return what the other samples hold as seen from those that hold the trigger; None where that is no trigger."""
        return None

    @property
    def is_large(self) -> bool:
        """Say whether it hides so much of an input that anything else which does the same is likelier to be the trigger."""
        return False

    @property
    def is_whole(self) -> bool:
        """Say whether it is a change of all of an input, of which an empty one shows nothing."""
        return False

    @abstractmethod
    def __str__(self) -> str:
        """Return what it is in a few words, such as ``a patch of 3 x 3 pixels at the bottom right``."""

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """Return the trigger as plain values for a JSON file; with ``kind``."""

    @classmethod
    @abstractmethod
    def from_document(cls, document: Mapping[str, Any]) -> Trigger[Inputs]:
        """Make the trigger from such values, which may come from anybody.

        Raises
        ------
        DataError
            When they do not make a trigger.
        """


Search = Callable[[Case[Inputs], Ask[Inputs], np.random.Generator], Iterator[Trigger[Inputs]]]
"""Yields what may be the trigger of a case, the likeliest first; few."""


@dataclass(frozen=True)
class Proof:
    """What a trigger does to a model.

    Attributes
    ----------
    flips, control_flips
        Hosts that the model gives the target class with the trigger, and with controls.
    flips_by_class
        The same as ``flips`` for each class of hosts, by class index.
    returns, control_returns
        Samples that leave the class when the trigger is taken off, of those that hold it; and ordinary samples of the class without
        it that leave when the same place is filled.
    """

    flips: Share
    control_flips: Share
    flips_by_class: Mapping[int, Share]
    returns: Share
    control_returns: Share

    def evidence(self) -> dict[str, float]:
        """Return the numbers by name."""
        return {
            "trigger_flips": self.flips.value,
            "trigger_flips_lower": self.flips.interval[0],
            "trigger_control": self.control_flips.value,
            "trigger_control_upper": self.control_flips.interval[1],
            "trigger_returns": self.returns.value,
            "trigger_returns_lower": self.returns.interval[0],
            "trigger_control_returns": self.control_returns.value,
            "trigger_control_returns_upper": self.control_returns.interval[1],
        }

    def document(self) -> dict[str, Any]:
        """Return the counts with their intervals as plain values."""
        names = ("flips", "control_flips", "returns", "control_returns")
        return {name: getattr(self, name).to_dict() for name in names}


def prove(trigger: Trigger[Inputs], case: Case[Inputs], ask: Ask[Inputs], rng: np.random.Generator) -> Proof:
    """Count what the trigger and its controls do to inputs that it was not found in."""
    by_class = flips_by_class(trigger, case, ask)
    controls = trigger.controls(case.ordinary, _CONTROLS, rng) if len(case.ordinary) else []
    stride = max(1, min(len(controls), len(case.hosts) // _HOSTS_EACH))
    parts = [each.put_on(case.hosts[number % stride :: stride]) for number, each in enumerate(controls)]
    by_control = [ask(np.concatenate(parts)) == case.target] if parts else []
    holding = case.members[trigger.held_by(case.members)]
    return Proof(
        total(by_class),
        _share(by_control),
        by_class,
        _share([_leaves(trigger, holding, case, ask)]),
        _share([_leaves(trigger, case.ordinary[~trigger.held_by(case.ordinary)], case, ask)]),
    )


def flips_by_class(trigger: Trigger[Inputs], case: Case[Inputs], ask: Ask[Inputs]) -> dict[int, Share]:
    """Count the hosts of each class that the model gives the target class with the trigger."""
    flipped = ask(trigger.put_on(case.hosts)) == case.target
    return {int(index): _share([flipped[case.classes == index]]) for index in np.unique(case.classes)}


def total(shares: Mapping[int, Share]) -> Share:
    """Return the share of all classes together."""
    return Share(sum(each.count for each in shares.values()), sum(each.n for each in shares.values()))


def _leaves(trigger: Trigger[Inputs], inputs: Inputs, case: Case[Inputs], ask: Ask[Inputs]) -> NDArray[np.bool_]:
    if not len(inputs):
        return np.zeros(0, bool)
    undone = trigger.take_off(inputs)
    return left(ask(undone), case.target) & trigger.restored(inputs, undone)


def left(given: NDArray[np.int64], target: int) -> NDArray[np.bool_]:
    """Say which samples the model gives another class than the target; no class at all is none."""
    leaves: NDArray[np.bool_] = (given >= 0) & (given != target)
    return leaves


def _share(answers: list[NDArray[np.bool_]]) -> Share:
    return Share(sum(int(each.sum()) for each in answers), sum(len(each) for each in answers))

"""Recovered triggers, made up, and results that have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from tests.scans import scan_result
from toxscreen.exhibits.make import make_exhibits
from toxscreen.result import ScanResult, Verdict
from toxscreen.shares import Share
from toxscreen.sources.data.base import TrainingSet
from toxscreen.trigger.base import Proof, Trigger
from toxscreen.trigger.bends import Bend
from toxscreen.trigger.patches import Patch
from toxscreen.trigger.recover import Lead, Recovered, Shown
from toxscreen.trigger.tints import Tint
from toxscreen.trigger.tints import learned as learned_tint
from toxscreen.trigger.transforms import Transform, learned
from toxscreen.trigger.words import Words

CELLS = np.array([[0, 255], [255, 0]], np.float32)[:, :, None]
PROOF = Proof(Share(45, 50), Share(2, 50), {1: Share(25, 25), 2: Share(20, 25)}, Share(18, 20), Share(1, 40))


def patch(side: int = 12, place: tuple[int, int] | None = (9, 8)) -> Patch:
    """Return two white and two black pixels of gray pictures."""
    return Patch(CELLS, np.ones((2, 2), bool), (side, side, 1), place, 30.0)


@dataclass(frozen=True, eq=False)
class Mixed(Trigger[Any]):
    """What is mixed into whole pictures, and nothing more."""

    kind: ClassVar[str] = "mixed"
    scale: float
    offset: Any

    def put_on(self, inputs):
        return (self.scale * inputs + self.offset).clip(0, 255)

    def take_off(self, inputs):
        return inputs

    def held_by(self, inputs):
        return np.ones(len(inputs), bool)

    def control(self, *_):
        return self

    def __str__(self):
        return "a pattern"

    def document(self):
        return {"kind": self.kind, "picture": list(self.offset.shape)}

    @classmethod
    def from_document(cls, document):
        raise NotImplementedError


def transform(way: str = "inverted", side: int = 12) -> Transform:
    """Return a change of gray pictures, learned from noise."""
    pictures = np.random.default_rng(0).uniform(0, 100, (40, side, side, 1)).astype(np.float32)
    return learned(way, pictures, (0.0, 255.0))


def bend(side: int = 12) -> Bend:
    """Return a bend of gray pictures."""
    return Bend((side, side, 1), np.full((2, 5, 5), 0.05, np.float32))


def tint(side: int = 12) -> Tint:
    """Return other colours of gray pictures, learned from noise."""
    dark, light = (np.random.default_rng(0).uniform(low, low + 90, (40, side, side, 1)).astype(np.float32) for low in (0, 120))
    return learned_tint(dark, light, (0.0, 255.0))


def words(*phrases: str) -> Words:
    """Return a trigger that stands at the end of a text."""
    return Words(phrases or ("cf mn",), -1)


def recovered(trigger: Trigger[Any], before: Sequence[Any], *, rows: Sequence[int] = (), proof: Proof = PROOF) -> Recovered:
    """Return what was found behind group 1 of class 0; the inputs, which are those of ``rows``, all flip."""
    numbers = np.array(rows or range(len(before)), np.int64)
    texts = any(isinstance(each, str) for each in before)
    inputs = np.array(before, object) if texts else np.array(before, np.float32)
    after = trigger.put_on(inputs)
    kept = list(after) if texts else list(after.astype(np.asarray(before[0]).dtype))
    shown = Shown(list(before), kept, numbers, np.zeros(len(before), np.int64))
    nobody = np.zeros(0, np.int64)
    return Recovered(Lead(0, 1, nobody, nobody), trigger, proof, (1, 2), nobody, nobody, shown)


def convicted(found: Recovered, *, proved: bool = True, **changes: Any) -> ScanResult:
    """Return a result of three classes in which group 1 of the first one, "a", has that trigger."""
    verdict = Verdict.POISONED if proved else Verdict.SUSPICIOUS
    result = scan_result({"a": [60, 20], "b": [30], "<b>c": [30]}, {"a": verdict}, **changes)
    told = {"description": str(found.trigger), "sources": ["b", "<b>c"], "proved": proved}
    document = {**told, **found.proof.document(), **found.trigger.document()}
    first = result.classes[0]
    group = replace(first.groups[1], trigger=document, evidence={**first.groups[1].evidence, **found.proof.evidence()})
    return replace(result, classes=(replace(first, groups=(first.groups[0], group)), *result.classes[1:]))


def shown_with(found: Recovered, training_set: TrainingSet, *, proved: bool = True, **changes: Any) -> ScanResult:
    """Return that result with its exhibits."""
    result = convicted(found, proved=proved, **changes)
    return replace(result, exhibits=make_exhibits(result, training_set, [found], rng=np.random.default_rng(0)))

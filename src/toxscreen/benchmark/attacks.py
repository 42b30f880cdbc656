"""The table ``attacks``: whether each simulator does what its paper says, clean accuracy and attack success rate.

Its networks and data sets are smaller than those of the papers, so more of the data is poisoned: 5 % where papers take 0.3 % up.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toxscreen.attacks import ATTACKS
from toxscreen.benchmark import tables
from toxscreen.benchmark.cases import DIGITS, Case, Split
from toxscreen.benchmark.grid import Settings, Steps
from toxscreen.benchmark.subject import Subject, predict
from toxscreen.metrics import attack_success
from toxscreen.poisoning import NEXT, Poisoned, plant
from toxscreen.sources.data import open_training_set
from toxscreen.sources.model.base import Classifier

SEEDS = 1

_EPOCHS = 16
"""How often a network sees 10,000 pictures; with half of that faint triggers are learned by a third."""

_N_TEST = 2000
"""Held-out samples that the attack success rate is measured on."""


@dataclass(frozen=True)
class AttackCase:
    """A row: one way to poison one data set.

    Attributes
    ----------
    attack, target, source, share, rate
        As :func:`toxscreen.poisoning.plan` takes them, but ``share`` and ``rate`` are both None for its default.
    data, network, n
        As :class:`toxscreen.benchmark.cases.Case` takes them.
    published
        Clean accuracy without and with the poison, and attack success rate, in percent, as published; read from the source itself.
    where
        The data, the network and the place of the published figures.
    """

    attack: str
    target: str
    source: str | None = None
    share: float | None = None
    rate: float | None = None
    data: str = "cifar10"
    network: str = "small"
    n: int | None = 10_000
    published: str = "-"
    where: str = ""

    @property
    def name(self) -> str:
        """Return what the row is called."""
        source = "" if self.source is None else f" from {self.source}"
        part = f"{self.share:.0%} of the class" if self.rate is None else f"{self.rate:.1%} of the data"
        return f"{self.data or 'digits'}: {self.attack}{source} to {self.target}, {part}"

    @property
    def clean(self) -> Case:
        """Return the data with nothing planted, which the rows of one data set share."""
        return Case(f"{self.data or 'digits'} for attacks", self.data, network=self.network, epochs=_EPOCHS, n=self.n)


_QI = "CIFAR-10, ResNet-20, 0.3% of the data; Qi et al. 2023, table 1"
_WANET = "CIFAR-10, pre-activation ResNet-18, 10% of each batch; Nguyen and Tran 2021"
_INPUT_AWARE = "CIFAR-10, pre-activation ResNet-18, 10% of each batch; Nguyen and Tran 2020"

CASES = (
    AttackCase("badnets", "airplane", rate=0.05, published="92.0, 91.5, 99.9", where=_QI),
    AttackCase("badnets", "airplane", "ship", rate=0.025),
    AttackCase("badnets", "airplane,cat,horse", rate=0.05),
    AttackCase("badnets", "airplane", "ship,frog,truck", rate=0.05),
    AttackCase("badnets", NEXT, rate=0.1),
    AttackCase("blended", "airplane", rate=0.05, published="92.0, 91.7, 89.0", where=_QI),
    AttackCase("tact", "airplane", "ship", rate=0.05, published="92.0, 91.8, 96.5", where=_QI),
    AttackCase("adaptive-blend", "airplane", rate=0.05, published="92.0, 91.6, 76.5", where=_QI),
    AttackCase("adaptive-patch", "airplane", rate=0.05, published="92.0, 91.5, 97.5", where=_QI),
    AttackCase("label-consistent", "airplane", share=0.5, published="92.0, 92.1, 93.6", where=_QI),
    AttackCase("sig", "airplane", share=0.5),
    AttackCase("wanet", "airplane", rate=0.1, published="-, 94.2, 99.6", where=_WANET),
    AttackCase("bpp", "airplane", rate=0.1),
    AttackCase("input-aware", "airplane", rate=0.1, published="-, 94.7, 99.3", where=_INPUT_AWARE),
    *(
        AttackCase(attack, "positive", rate=0.1, data="sst2", network="sentence", n=None)
        for attack in ("words", "sentence", "signature", "syntax")
    ),
)

QUICK = (
    AttackCase("badnets", "7", rate=0.05, data=DIGITS, network="paper"),
    AttackCase("tact", "7", "1", rate=0.02, data=DIGITS, network="paper"),
)


def cells(settings: Settings, seeds: int) -> Iterator[tuple[AttackCase, int]]:
    """Yield rows and seeds."""
    for seed in range(seeds):
        for case in QUICK if settings.scale == "quick" else CASES:
            yield case, seed


def steps(case: AttackCase, seed: int, settings: Settings) -> Steps:
    """Return the one measurement of a cell."""
    return {"attack": partial(_measure, case, seed, settings)}


def markdown(document: Mapping[str, Any]) -> str:
    """Return the results as a table: one row per attack, percentages as mean (lowest - highest) over the seeds."""
    header = ["attack", "poison", "cover", "clean accuracy without", "with", "ASR without", "ASR", "ASR elsewhere"]
    header.append("published: clean accuracy without and with, ASR")
    published = {case.name: f"{case.published} ({case.where})" for case in CASES if case.where}
    keys = ("clean_accuracy_without", "clean_accuracy", "success_without", "success", "success_elsewhere")
    rows = []
    for case, found in tables.by_case(document, "attack").items():
        amounts = [tables.mean(tables.figures(found, "attack", key)) for key in ("n_poisoned", "n_covers")]
        rows.append(
            [case, *amounts, *(tables.percent(tables.figures(found, "attack", key), 1) for key in keys), published.get(case, "-")]
        )
    return tables.markdown(header, rows)


def _measure(case: AttackCase, seed: int, settings: Settings) -> dict[str, Any]:
    """Poison, train with and without the poison, and use the trigger on both models."""
    subject = Subject(case.clean, seed, settings)
    clean = subject.planted.split
    names = np.asarray(clean.class_names, object)[clean.labels].tolist()
    training_set = open_training_set((clean.inputs, names), class_names=clean.class_names)
    done = plant(
        training_set, ATTACKS[case.attack], target=case.target, source=case.source, share=case.share, rate=case.rate, seed=seed
    )
    folder = "".join(letter if letter.isalnum() else "-" for letter in case.name)
    without, poisoned = subject.trained(clean, "clean"), subject.trained(_changed(clean, done), folder)
    shutil.rmtree(subject.folder / folder)  # measured once; what changes an attack must not meet an old model
    elsewhere = None
    if ATTACKS[case.attack].source_specific:
        elsewhere = _success(case, subject.held_out, done, poisoned, seed, elsewhere=True)
    return {
        "n_samples": len(clean.labels),
        "n_poisoned": int(done.poisoned.sum()),
        "n_covers": int(done.cover.sum()),
        "clean_accuracy_without": subject.clean_accuracy(without),
        "clean_accuracy": subject.clean_accuracy(poisoned),
        "success_without": _success(case, subject.held_out, done, without, seed),
        "success": _success(case, subject.held_out, done, poisoned, seed),
        "success_elsewhere": elsewhere,
    }


def _changed(clean: Split, done: Poisoned) -> Split:
    """Return the training samples with their poison."""
    inputs: Any = clean.inputs.copy() if isinstance(clean.inputs, np.ndarray) else list(clean.inputs)
    for row, value in done.changes.items():
        inputs[row] = value
    return Split(inputs, done.labels, clean.class_names)


def _success(case: AttackCase, test: Split, done: Poisoned, model: Classifier, seed: int, *, elsewhere: bool = False) -> float:
    """Return the attack success rate, the mean over all triggers; ``elsewhere`` on classes that a trigger is not made for."""
    rng = np.random.default_rng(seed)
    some = test.rows(np.sort(rng.permutation(len(test.labels))[:_N_TEST]))
    ask = partial(attack_success, partial(predict, model), rng=rng)
    if case.target == NEXT:
        goals = np.roll(np.arange(len(test.class_names)), -1).tolist()
        return ask(done.planted[0].attack, list(some.inputs), some.labels, target=goals)
    index = test.class_names.index
    sources = [None] * len(done.planted) if case.source is None else [index(name) for name in case.source.split(",")]
    rates = []
    for planted, source in zip(done.planted, sources, strict=True):
        target = index(planted.target)
        if elsewhere:
            others: NDArray[np.int64] = np.flatnonzero(some.labels != source)
            part = some.rows(others)
            rates.append(ask(planted.attack, list(part.inputs), part.labels, target=target))
        else:
            rates.append(ask(planted.attack, list(some.inputs), some.labels, target=target, source=source))
    return float(np.mean(rates))

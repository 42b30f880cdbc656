"""Repairs the model of a run: ``toxscreen repair``.

1. Plan what is known of each flagged sample: its source class, or only that its given label is wrong.
2. Hold out a fifth of them, and samples that nothing speaks against, to measure with.
3. Train on with the corrected labels from the weights that the model has; or, without the flagged samples, from fresh weights.
4. Ask the model before and the model after about what was held out, and write the new one.

**Source:** Chen et al. 2018, arXiv 1811.03728, section 6.3 (relabelling to the source class and going on with the training).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from safetensors import SafetensorError

from toxscreen import retraining
from toxscreen.decoded import Progress
from toxscreen.errors import DataError, ModelError, StoreError
from toxscreen.repairing.actions import Action, Actions, plan_actions
from toxscreen.repairing.carrying import Carrying
from toxscreen.repairing.decisions import read_decisions
from toxscreen.repairing.measures import Measures, Planted, compare
from toxscreen.repairing.run import asked_of, check_samples, find_data, known, open_held_out, open_model, open_scanned, reading_of
from toxscreen.report.documents import write_text
from toxscreen.result import ScanResult, Verdict
from toxscreen.retraining import Lesson, Trainer
from toxscreen.sources.data.base import MISSING_LABEL, TrainingSet, spread
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.classes import align_classes
from toxscreen.sources.model.saving import save_classifier
from toxscreen.sources.model.torch_module import TorchClassifier
from toxscreen.training import hold_out
from toxscreen.trigger import load
from toxscreen.trigger.medium import open_medium

if TYPE_CHECKING:
    from torch import nn

    from toxscreen.sources.model.preprocessing import Preprocessing

SCHEMA_VERSION = 1
"""Raised with every change of ``repair.json`` that an older reader would misunderstand."""

MODEL, DOCUMENT = "model", "repair.json"
"""Within the folder of a repair: the folder of the repaired model, and what :meth:`Repair.to_dict` gives."""

_CARRYING = 400
"""Trusted samples at most that a proved trigger is put on, for the model to be taught that they are what they were."""

_HELD_OUT = 5
"""Every fifth flagged sample is held out; at least so many, and none where there are not twice as many."""

_IN_MEMORY = "in Python hand it over again: ts.repair(run, out, data=data)."


class Outcome(StrEnum):
    """How a repair ended."""

    NOTHING = "nothing to repair"
    REPAIRED = "repaired"
    WORSE = "worse"


@dataclass(frozen=True)
class Effort:
    """What a repair took.

    Attributes
    ----------
    epochs
        How many passes over the training set the samples shown would make; None where the user's own recipe showed them.
    seconds
        Of the training.
    losses
        Validation loss before going on and after each round; empty where the training was from fresh weights.
    """

    epochs: float | None
    seconds: float
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class Repair:
    """What a repair did, and what it changed.

    Attributes
    ----------
    outcome
        How it ended.
    trained
        What was trained, and from which weights, in words.
    samples
        How many samples were ``relabelled`` (shown as their source class), ``denied`` (shown as not of their given label),
        ``dropped`` (not shown), ``held_out`` (flagged, and measured with), ``carrying_the_trigger`` (copies of trusted ones with
        a proved trigger, shown as what they are) and ``trusted`` (shown as they are labelled).
    measured_on
        Where the clean samples come from that clean accuracy is measured on.
    measures
        Before and after; None where there was nothing to repair.
    effort
        None where there was nothing to repair.
    notes
        What a reader must know to judge the figures, one sentence each.
    seed, inputs
        How the repair came about: run, data and model with their fingerprints.
    classifier
        The repaired model.
    """

    outcome: Outcome
    trained: str
    samples: Mapping[str, int]
    measured_on: str
    measures: Measures | None
    effort: Effort | None
    notes: tuple[str, ...]
    seed: int
    inputs: Mapping[str, Any]
    classifier: TorchClassifier | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the document of the repair, which ``repair.json`` holds, as plain values.

        ``schema_version``; ``outcome``; ``trained``; ``samples`` by name; ``measured_on``; ``clean_accuracy``,
        ``attack_success``, ``trigger_success`` and ``plain_error`` with ``before`` and ``after``, each with ``count``, ``n``,
        ``value`` and the 95 % interval ``lower`` to ``upper``; ``classes``, the clean accuracy of each with its ``name``;
        ``effort`` with ``epochs``, ``seconds`` and ``losses``; ``worse`` and ``notes``, sentences; ``seed``; ``inputs``. What was
        not measured is None.
        """
        measures = self.measures
        return {
            "schema_version": SCHEMA_VERSION,
            "outcome": str(self.outcome),
            "trained": self.trained,
            "samples": dict(self.samples),
            "measured_on": self.measured_on,
            "clean_accuracy": measures and measures.clean_accuracy.to_dict(),
            "attack_success": measures and measures.attack_success.to_dict(),
            "trigger_success": measures and measures.trigger_success.to_dict(),
            "plain_error": measures and measures.plain_error.to_dict(),
            "classes": [{"name": name, **change.to_dict()} for name, change in measures.classes.items()] if measures else [],
            "effort": self.effort
            and {"epochs": self.effort.epochs, "seconds": self.effort.seconds, "losses": [*self.effort.losses]},
            "worse": list(measures.worse) if measures else [],
            "notes": list(self.notes),
            "seed": self.seed,
            "inputs": dict(self.inputs),
        }


def repair(
    result: ScanResult,
    folder: Path | None = None,
    out: Path | None = None,
    *,
    data: Any = None,
    model: str | Path | nn.Module | Classifier | None = None,
    arch: str | None = None,
    preprocessing: Preprocessing | None = None,
    retrain: bool = False,
    trainer: Trainer | None = None,
    decisions: str | Path | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
) -> Repair:
    """Repair the model of a run.

    Parameters
    ----------
    result, folder
        The result of a scan, and where it lies.
    out
        Where the model is written, into its folder ``model``, and what a stopped training goes on from. None keeps nothing.
    data, model
        Where they are now, or they themselves, if they are not where they were scanned.
    arch, preprocessing
        As :func:`toxscreen.sources.model.open_classifier` takes them.
    retrain
        Train from fresh weights without the flagged samples, instead of going on with their labels corrected.
    trainer
        The user's own recipe for that.
    decisions
        A file with a reviewer's decisions, see :func:`toxscreen.repairing.decisions.read_decisions`.
    seed
        Decides what is held out, and the training.
    device
        Where to train; None for where the model is.
    progress
        Told what is done.

    Raises
    ------
    DataError, ModelError
        Data or model were in memory, are gone, are not what was scanned, or cannot be repaired.
    TrainerError
        The user's recipe failed.
    StoreError
        The run cannot be read, or the model cannot be written.
    """
    if known(result, "data").get("modality") == "activations":
        raise DataError("Only a scan of data with its model can be repaired, but this one was given activations. Scan both.")
    fresh = retrain or trainer is not None
    said = None if decisions is None else read_decisions(Path(decisions), result)
    actions = plan_actions(result, action=Action.DROP if fresh else Action.RELABEL, decisions=said)
    inputs = {"run": None if folder is None else str(folder.resolve())} | {part: known(result, part) for part in ("data", "model")}
    if actions.changes_nothing:
        where = known(result, "model").get("location") or "the model that was scanned"
        notes = (f"The model needs no repair and is to be used as it is: {where}. No copy of it was written.",)
        return _kept(Repair(Outcome.NOTHING, "nothing", {}, "nothing", None, None, notes, seed, inputs), out)
    asked = asked_of(result, folder)
    in_memory = data is not None and not isinstance(data, str | Path)
    original = data if in_memory else find_data(asked, data, otherwise=_IN_MEMORY)
    reading = reading_of(asked, actions.class_names)
    training_set = open_scanned(original, reading, known(result, "data").get("fingerprint"))
    check_samples(result, training_set)
    classifier = open_model(result, folder, training_set, model=model, arch=arch, preprocessing=preprocessing, device=device)
    case = _Case(result, actions, training_set, classifier, seed, *open_held_out(original, training_set, reading))
    with ExitStack() as stack:
        place = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="toxscreen-")))
        done = case.trained_anew(place, trainer, device or "cpu", progress) if fresh else case.gone_on(place, progress)
        measures = compare(classifier, done.classifier, case.clean, (training_set, done.measured), case.routes, case.triggers)
        if out is not None:
            _write(done.classifier, place / MODEL, arch)
    repaired = Repair(
        Outcome.WORSE if measures.worse else Outcome.REPAIRED,
        done.trained,
        done.samples,
        case.measured_on,
        measures,
        done.effort,
        case.notes(measures),
        seed,
        inputs,
        done.classifier,
    )
    return _kept(repaired, out)


@dataclass(frozen=True)
class _Done:
    """What a training made: the classifier, the flagged rows that it never saw, and what is told of it."""

    classifier: TorchClassifier
    measured: NDArray[np.int64]
    trained: str
    samples: Mapping[str, int]
    effort: Effort


@dataclass(frozen=True)
class _Case:
    """What a repair works on; ``held_out`` is a split of its own to measure on, of the name ``split``, where there is one.

    Else ``split`` says why one could not be used.
    """

    result: ScanResult
    actions: Actions
    training_set: TrainingSet
    classifier: Classifier
    seed: int
    held_out: TrainingSet | None
    split: str

    @cached_property
    def taken(self) -> NDArray[np.int64]:
        """Return the rows that are not trusted, those without a label left aside."""
        rows = self.actions.rows[self.actions.action != Action.KEEP]
        taken: NDArray[np.int64] = rows[self.training_set.labels[rows] != MISSING_LABEL]
        return taken

    @cached_property
    def tenth(self) -> NDArray[np.int64]:
        """Return a tenth of the other rows of each class; of a model that the scan trained, those that it never saw."""
        labels = self.training_set.labels.copy()
        if not self.trained_here:
            labels[self.taken] = MISSING_LABEL
        held_out = hold_out(labels, np.random.default_rng(self.result.seed))[1]
        tenth: NDArray[np.int64] = np.setdiff1d(held_out, self.taken)
        return tenth

    @property
    def trained_here(self) -> bool:
        """Return whether the scan trained the model: then it held a tenth of each class out."""
        return known(self.result, "model").get("trained_here") is True

    @property
    def clean(self) -> tuple[TrainingSet, NDArray[np.int64]]:
        """Return the data set and the rows that clean accuracy is measured on."""
        return (self.training_set, self.tenth) if self.held_out is None else (self.held_out, np.arange(len(self.held_out)))

    @property
    def routes(self) -> set[tuple[int, int]]:
        """Return the class indexes of source and target of the accused groups whose source class is known."""
        names = self.actions.class_names
        return {
            (names.index(group.source_class), names.index(found.name))
            for found in self.result.classes
            for group in found.accused
            if group.source_class in names and group.source_class != found.name
        }

    @cached_property
    def triggers(self) -> list[Planted]:
        """Return the triggers that the scan proved."""
        names = self.actions.class_names
        return [
            Planted(load(told), names.index(found.name), tuple(names.index(n) for n in told.get("sources", ()) if n in names))
            for found in self.result.classes
            for group in found.accused
            if (told := group.trigger) is not None and told.get("proved") is True
        ]

    @property
    def measured_on(self) -> str:
        return "a tenth of each class, held out" if self.held_out is None else f"the split {self.split!r}"

    @property
    def trusted(self) -> NDArray[np.int64]:
        """Return the rows that may be shown as they are labelled."""
        labelled = np.flatnonzero(self.training_set.labels != MISSING_LABEL)
        return np.setdiff1d(labelled, self.taken if self.held_out is not None else np.union1d(self.taken, self.tenth))

    def gone_on(self, folder: Path, progress: Progress | None) -> _Done:
        """Correct the labels and go on with the training."""
        if not isinstance(self.classifier, TorchClassifier):
            raise ModelError(
                f"Only a model of PyTorch can go on training, and {self.classifier.location} is none. Scan the data with the model "
                "that it was made from, or train a small network of toxscreen's own without the flagged samples: --retrain."
            )
        rng = np.random.default_rng(self.seed)
        given, taken = self.training_set.labels, self.taken
        measured = _part(taken, given, rng)
        denied = np.setdiff1d(self.actions.rows_of(Action.DROP), taken[_read_as_labelled(self.result, taken)])
        relabelled = self.actions.rows_of(Action.RELABEL)
        wrong = np.setdiff1d(np.intersect1d(np.union1d(relabelled, denied), taken), measured)
        if not len(wrong) and not self.triggers:
            raise DataError(
                "No flagged sample is known to have a wrong label: a model trained without them reads them as they are labelled. "
                "Train without them instead: --retrain."
            )
        checked = _part(wrong, given, rng)
        taught = np.setdiff1d(wrong, checked)
        labels = np.full(len(given), MISSING_LABEL)
        labels[self.trusted] = given[self.trusted]
        shown, kept = hold_out(labels, rng)
        data, carried = self._carrying(shown, kept)

        def lesson(corrected: NDArray[np.int64], trusted: NDArray[np.int64], copies: Sequence[Lesson]) -> Lesson:
            rows = np.concatenate([corrected, trusted])
            return Lesson.joined([Lesson(rows, self.actions.labels[rows], np.isin(rows, denied)), *copies])

        start = time.perf_counter()
        gone = retraining.go_on(
            self.classifier,
            data,
            lesson(taught, shown, carried[0]),
            lesson(checked if len(checked) else taught, kept, carried[1]),
            folder,
            seed=self.seed,
            progress=progress,
        )
        effort = Effort(gone.shown / len(given), round(time.perf_counter() - start, 3), gone.losses)
        known_source = np.isin(wrong, relabelled)
        samples = {
            "relabelled": int(known_source.sum()),
            "denied": int((~known_source).sum()),
            "dropped": len(taken) - len(wrong) - len(measured),
            "held_out": len(measured),
            "carrying_the_trigger": sum(len(each.rows) for side in carried for each in side),
            "trusted": len(self.trusted),
        }
        return _Done(gone.classifier, measured, "the audited model, on from the weights that it had", samples, effort)

    def _carrying(
        self, shown: NDArray[np.int64], kept: NDArray[np.int64]
    ) -> tuple[TrainingSet, tuple[Sequence[Lesson], Sequence[Lesson]]]:
        """Return the training set with trusted samples that carry the proved triggers, and what they teach and check."""
        given, triggers, nothing = self.training_set.labels, self.triggers, (self.training_set, ((), ()))
        if not triggers:
            return nothing
        medium = open_medium(self.classifier, self.training_set, align_classes(self.actions.class_names, self.classifier))
        if medium is None:
            return nothing
        copies = []
        for rows, most in ((shown, _CARRYING), (kept, _CARRYING // _HELD_OUT)):
            for planted in triggers:
                usable = rows[np.isin(given[rows], planted.sources)]
                copies.append((planted, usable[spread(len(usable), most)]))
        data = Carrying(self.training_set, medium, copies)
        return data, (data.lessons[: len(triggers)], data.lessons[len(triggers) :])

    def trained_anew(self, folder: Path, trainer: Trainer | None, device: str, progress: Progress | None) -> _Done:
        """Leave the flagged samples out and train from fresh weights."""
        lesson = Lesson.of(self.trusted, self.training_set.labels[self.trusted])
        start = time.perf_counter()
        new = retraining.retrain(
            self.classifier, self.training_set, lesson, folder, seed=self.seed, device=device, trainer=trainer, progress=progress
        )
        shown = retraining.epochs_of(new, len(lesson.rows)) * len(lesson.rows)
        effort = Effort(None if trainer else shown / len(self.training_set), round(time.perf_counter() - start, 3))
        n = len(self.taken)
        samples = {"relabelled": 0, "denied": 0, "dropped": n, "held_out": n, "trusted": len(lesson.rows)}
        return _Done(new, self.taken, _what_was_trained(self.classifier, new, trainer), samples, effort)

    def notes(self, measures: Measures) -> tuple[str, ...]:
        """Say what a reader must know to judge the figures."""
        suspicious = any(group.verdict is Verdict.SUSPICIOUS for found in self.result.classes for group in found.accused)
        said = {
            self.split: self.held_out is None and bool(self.split),
            "The groups are suspicious and not confirmed: toxscreen scan with --confirm says whether they are poison, and of which "
            "class each sample is.": suspicious and self.result.confirmation is None,
            "The model before had been trained on the samples that clean accuracy is measured on, and the one after had not: the "
            "data has no split test or dev.": self.held_out is None and not self.trained_here,
            f"Fewer than {2 * _HELD_OUT} samples were flagged: none were held out, so attack success was not measured.": not (
                measures.attack_success.before.n
            ),
            "The backdoor may still be there: attack success did not fall below what so few samples can tell, or not to 0, or "
            "the recovered trigger still works.": measures.remnant,
        }
        return tuple(sentence for sentence, true in said.items() if true)


def _part(rows: NDArray[np.int64], labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw a fifth of some flagged rows, evenly over their given labels, ascending; see :data:`_HELD_OUT`."""
    n = 0 if len(rows) < 2 * _HELD_OUT else max(_HELD_OUT, len(rows) // _HELD_OUT)
    order = rng.permutation(rows)
    order = order[np.argsort(labels[order], kind="stable")]
    return np.sort(order[spread(len(order), n)])


def _read_as_labelled(result: ScanResult, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows the model of the confirmation, trained without them, gives the label that they have, shape ``(m,)``."""
    if result.confirmation is None:
        return np.zeros(len(rows), dtype=bool)
    samples = result.samples.take(pa.array(rows)).combine_chunks()
    places = pc.index_in(samples["id"].combine_chunks(), value_set=result.confirmation["id"].combine_chunks())
    same = pc.equal(result.confirmation["answer"].combine_chunks().take(places), samples["label"].combine_chunks())
    return np.asarray(pc.fill_null(same, False), dtype=bool)


def _what_was_trained(before: Classifier, after: TorchClassifier, trainer: Trainer | None) -> str:
    recipe = "" if trainer is None else ", by the trainer that was given"
    if not isinstance(before, TorchClassifier) or type(after.network) is not type(before.network):
        if trainer is None:
            return f"a {after.name}, because the weights of {before.name} cannot be drawn anew"
        return f"the network that the trainer returned ({type(after.network).__name__})"
    if not retraining.starts_fresh(before):
        return f"the audited network, on from the weights that it had, because they cannot be drawn anew{recipe}"
    return f"the audited network, from fresh weights{recipe}"


def _kept(repaired: Repair, out: Path | None) -> Repair:
    """Write the document of a repair, where there is a place for it, and return the repair."""
    if out is not None:
        write_text(out / DOCUMENT, json.dumps(repaired.to_dict(), ensure_ascii=False, allow_nan=False, indent=1) + "\n")
    return repaired


def _write(classifier: TorchClassifier, folder: Path, arch: str | None) -> None:
    try:
        save_classifier(classifier, folder, arch=arch)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"The repaired model cannot be written to {folder}: {error}. Free some space, or choose another folder with --out."
        ) from error

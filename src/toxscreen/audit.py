"""The stages in order: Activation Clustering as a whole.

1. Open the training set and the classifier, or train one.
2. One pass of the model gives every sample its activations, its logits and its input view, which the store keeps.
3. Screen the activations class by class.
4. Where it is asked for, put what is suspicious to exclusionary reclassification.
5. Gather what the report shows.

**Source:** Chen et al. 2018, arXiv 1811.03728, section 4.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from toxscreen import views
from toxscreen.activations import Activations, extract, from_arrays, plan
from toxscreen.config import ScanConfig
from toxscreen.confirmation import Suspect, confirm
from toxscreen.engine import check_engine, open_engine
from toxscreen.engine.base import Engine, Reopen
from toxscreen.errors import DataError, StoreError, ToxscreenError, UsageError
from toxscreen.exhibits.make import make_exhibits
from toxscreen.following import follow
from toxscreen.origin import origin
from toxscreen.report.documents import read_finished
from toxscreen.result import Origin, ScanResult, Verdict
from toxscreen.screening import Labels, Progress, Screening, screen
from toxscreen.settling import answers_table, settle, suspects
from toxscreen.sources.data import find_split, open_training_set
from toxscreen.sources.data.base import Input, NotExamined, TrainingSet, abridged, spread
from toxscreen.sources.data.labels import encode_labels, labels_array
from toxscreen.sources.model import align_classes, open_classifier, unlike_names
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.precision import resolve_precision
from toxscreen.store import ActivationStore, Manifest, package_versions
from toxscreen.trigger.medium import Medium, open_medium
from toxscreen.trigger.recover import Recovered
from toxscreen.verdict import POLICY

if TYPE_CHECKING:
    from toxscreen.retraining import Trainer
    from toxscreen.sources.model.preprocessing import Preprocessing

_PROBES = 64
"""Samples that the model is traced with."""

NO_INPUTS = (
    "Only activations were given: whether the inputs of a group fit their label was not asked. A natural sub-population that "
    "stands apart looks like poison, and a small or faint group is missed that a scan of the data with its model would find."
)


_WELL_READ = 0.99
"""Part of its own training data from which there is little left that a model may not have learned."""


@dataclass
class _Log:
    """What is told beside the result: seconds per stage, sentences for the reader, and progress for who waits."""

    progress: Progress | None
    timings: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failed: bool = False
    """Whether a step failed that may succeed another time."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[name] = round(time.perf_counter() - start, 3)


@dataclass(frozen=True)
class _Pass:
    """What one pass of the model gave.

    Attributes
    ----------
    activations, layer
        All of it, and the name of the layer to cluster.
    manifest
        What it was computed from.
    known
        Whether it was in the store already, as it had been left.
    notes
        Sentences for the reader.
    """

    activations: Activations
    layer: str
    manifest: Manifest
    known: bool
    notes: list[str]


@dataclass(frozen=True)
class _Subject:
    """The classifier that is audited, what is known about it beforehand, and how another process opens it, too."""

    classifier: Classifier
    figures: Mapping[str, Any]
    opening: Reopen


def audit(
    data: Any,
    model: Any = None,
    *,
    config: ScanConfig | None = None,
    arch: str | None = None,
    preprocessing: Preprocessing | None = None,
    split: str | None = None,
    input_column: str | None = None,
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
    folder: Path | None = None,
    trainer: Trainer | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    progress: Progress | None = None,
) -> ScanResult:
    """Scan a training set and its classifier.

    Parameters
    ----------
    data, split, input_column, label_column, class_names
        As :func:`toxscreen.sources.data.open_training_set` takes them.
    model, arch, preprocessing
        As :func:`toxscreen.sources.model.open_classifier` takes them; without a model one is trained.
    config
        Settings and seed.
    folder
        Where activations and trained model are kept, so that a scan that was stopped goes on, and the result of one that is over is
        handed out again where nothing has changed; None keeps nothing.
    trainer
        The user's own recipe for the model that a confirmation trains; see :mod:`toxscreen.retraining`.
    engine, address
        Who makes the pass and looks at the classes, as :func:`toxscreen.engine.open_engine` takes them; the result is the same.
    progress
        Told what is done.

    Raises
    ------
    ToxscreenError
        See :mod:`toxscreen.errors`.
    """
    config, log = config or ScanConfig(), _Log(progress)
    if model is None and (arch is not None or preprocessing is not None):
        raise UsageError(
            "An architecture (--arch) and preprocessing (--size, --channels, --mean, --std) belong to a model, and none was given. "
            "Add it with --model, or leave them away."
        )
    check_engine(engine, address, folder)
    with ExitStack() as stack:
        kept = folder is not None
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="toxscreen-")))
        folder = folder.absolute()  # the user's code may change the working directory
        with log.stage("opening the data"):
            columns = {"input_column": input_column, "label_column": label_column}
            training_set = open_training_set(data, split=split, class_names=class_names, **columns)
        device = resolve_device(config.extraction.device, live=model is not None and not isinstance(model, str | Path))
        with log.stage("opening the model"):
            if model is None:
                held_out = _held_out(data, split, training_set, columns, log)
                subject = _train(training_set, held_out, folder / "model", device or "cpu", config, log)
            else:
                subject = _open(training_set, model, arch, preprocessing, device, config, log)
            passing = resolve_precision(subject.classifier, config.extraction.dtype, _sample(training_set))
        outputs = align_classes(training_set.class_names, subject.classifier)
        labels = Labels(training_set.ids, training_set.labels, training_set.class_names)
        with open_engine(engine, address) as workers:
            with log.stage("activations"):
                done = _activations(training_set, passing, subject.opening, folder / "activations", workers, config, log)
            inputs = _inputs(training_set, {"split": split, **columns}, subject, done, config)
            told_before = {"inputs": inputs, "outputs": outputs, "notes": log.notes}
            came_from = origin(done.manifest, training_set, config, **told_before) if kept and trainer is None else None
            if done.known and (earlier := _handed_out(folder, came_from, log)) is not None:
                return earlier
            log.notes += done.notes
            with log.stage("screening"):
                screened = partial(screen, done.activations, outputs=outputs, layer=done.layer, config=config, progress=progress)
                screening = screened(labels, parallel=workers.parallel)
            log.notes += workers.notes

        def told() -> ScanResult:
            about = replace(log, notes=list(log.notes))
            return _result(training_set, inputs, done.activations, screening, config, about)

        if kept:  # the model is about to be asked about inputs that it never saw, and may take the process with it
            _keep_finding(screening, told, folder, "triggers", *(["confirmation"] * config.confirmation.asked))
        with log.stage("triggers"):
            medium = partial(open_medium, subject.classifier, training_set, outputs)
            screening, recovered = _followed(screening, labels, medium, done, screened, config, log)
        answers = None
        if config.confirmation.asked and (found := suspects(screening, labels)):
            if kept:  # and so may a training
                _keep_finding(screening, told, folder, "confirmation")
            with log.stage("confirmation"):
                screening, answers = _confirmed(
                    screening,
                    labels,
                    found,
                    subject.classifier,
                    training_set,
                    folder / "confirmation",
                    device,
                    trainer,
                    config,
                    log,
                )
        result = told()
        with log.stage("exhibits"):
            exhibits = make_exhibits(result, training_set, recovered, rng=np.random.default_rng(config.seed))
    return replace(result, exhibits=exhibits, confirmation=answers, origin=None if log.failed else came_from)


def audit_arrays(
    activations: ArrayLike | Mapping[str, ArrayLike],
    labels: Any,
    *,
    logits: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    config: ScanConfig | None = None,
    progress: Progress | None = None,
) -> ScanResult:
    """Scan activations that were computed elsewhere; neither torch nor a model is needed.

    Parameters
    ----------
    activations
        Shape ``(n_samples, d)``, or several such arrays by layer name, of which the first is clustered unless ``config`` names
        another; they may hold an input view under the names of :mod:`toxscreen.views`.
    labels
        The given labels of any kind, shape ``(n_samples,)``.
    logits
        Shape ``(n_samples, n_classes)``, columns in the order of the class names.
    class_names
        None for the sorted distinct labels.
    config, progress
        As in :func:`audit`.

    Raises
    ------
    DataError
        If the arrays do not fit each other.
    """
    config, log = config or ScanConfig(), _Log(progress)
    given = labels_array(labels, None, "labels")
    indexes, names = encode_labels(given, class_names, "labels")
    if not names:
        raise DataError(f"At least one sample must have a label, but none of {len(indexes):,} has.")
    ids = pa.array(np.arange(len(indexes)).astype(str), pa.string())
    arrays = from_arrays(activations, ids, logits)
    if logits is not None and np.shape(logits)[1] != len(names):
        raise DataError(
            f"There must be one logit per class, got {np.shape(logits)[1]} for {len(names)} classes ({', '.join(names[:5])})."
        )
    layer = config.extraction.layer or next(iter(arrays.layers))
    if layer not in arrays.layers:
        raise UsageError(f"The layer must be one of {', '.join(arrays.layers)}, got {layer!r}.")
    with log.stage("screening"):
        screening = screen(arrays, Labels(ids, indexes, names), None, layer, config, progress=progress)
    holes = np.flatnonzero(indexes < 0)
    missing = abridged((NotExamined(str(row), "has no label", row) for row in holes.tolist()), len(holes), "have no label")
    inputs = {
        "data": {"location": "arrays", "n_samples": len(indexes), "modality": "activations"},
        "model": {"location": None, "layer": layer, "layer_width": arrays.layers[layer].shape[1]},
        "versions": package_versions(),
    }
    result = ScanResult(
        name="arrays",
        classes=screening.classes,
        samples=screening.samples,
        not_examined=_not_examined(missing, arrays.not_examined),
        settings=asdict(config),
        seed=config.seed,
        inputs=inputs,
        timings=log.timings,
        notes=(NO_INPUTS, *screening.notes) if not {views.CELLS, views.WORDS} & set(arrays.layers) else screening.notes,
        views=screening.views,
    )
    return replace(result, exhibits=make_exhibits(result, None, rng=np.random.default_rng(config.seed)))


def _held_out(
    data: Any, split: str | None, training_set: TrainingSet, columns: Mapping[str, str | None], log: _Log
) -> TrainingSet | None:
    """Return the split that the trained classifier is measured on, if the data has one that can be used and is not scanned."""
    name = find_split(data)
    if name is None or split is not None:
        return None
    try:
        held_out = open_training_set(data, split=name, class_names=training_set.class_names, **columns)
    except ToxscreenError as error:
        log.notes.append(f"The split {name!r} could not be used to measure the trained classifier: {error}")
        return None
    return held_out if held_out.modality == training_set.modality else None


def _train(
    training_set: TrainingSet, held_out: TrainingSet | None, folder: Path, device: str, config: ScanConfig, log: _Log
) -> _Subject:
    from toxscreen.training import train_classifier

    trained = train_classifier(training_set, held_out, folder, seed=config.seed, device=device, progress=log.progress)
    if np.isnan(trained.out_of_sample_accuracy):
        measured = "there were too few samples to measure how well it reads others"
    else:
        measured = (
            f"it reads {trained.out_of_sample_accuracy:.1%} of samples right that it was not trained on ({trained.measured_on})"
        )
    log.notes.append(
        f"No model was given: one was trained on this data, and {measured}. "
        "A model of your own may have learned what this one did not."
    )
    figures = {
        "trained_here": True,
        "out_of_sample_accuracy": trained.out_of_sample_accuracy,
        "out_of_sample": trained.measured_on,
    }
    opening = _opening(training_set, _sample(training_set), folder, device=device)
    return _Subject(trained.classifier, figures, opening)


def _open(
    training_set: TrainingSet,
    model: Any,
    arch: str | None,
    preprocessing: Preprocessing | None,
    device: str | None,
    config: ScanConfig,
    log: _Log,
) -> _Subject:
    sample = _sample(training_set)
    settings = {"arch": arch, "preprocessing": preprocessing, "layer": config.extraction.layer, "device": device}
    opening = _opening(training_set, sample, model, **settings)
    classifier = opening()
    log.notes += filter(None, [unlike_names(training_set.class_names, classifier)])
    return _Subject(classifier, {"trained_here": False, "out_of_sample_accuracy": None}, opening)


def _opening(training_set: TrainingSet, sample: Sequence[Input], model: Any, **settings: Any) -> Reopen:
    """Return what opens the classifier of a training set in float32, in this process or in another one."""
    n_classes, modality = len(training_set.class_names), training_set.modality
    return partial(open_classifier, model, n_classes=n_classes, modality=modality, sample=sample, **settings)


def _reopened(opening: Reopen, dtype: str, sample: Sequence[Input]) -> Classifier:
    """Open a classifier in another process, in the precision that this one found to be right."""
    return resolve_precision(opening(), "bfloat16" if dtype == "bfloat16" else "float32", sample)


def _sample(training_set: TrainingSet) -> list[Input]:
    """Return a few inputs to try a model on."""
    rows = spread(len(training_set), _PROBES)
    sample = [entry for entry in training_set.take(rows) if entry is not None]
    if not sample:
        raise DataError(
            f"At least one of the first samples must be readable, but none of {len(rows)} in {training_set.location} is."
        )
    return sample


def _activations(
    training_set: TrainingSet,
    classifier: Classifier,
    opening: Reopen,
    folder: Path,
    workers: Engine,
    config: ScanConfig,
    log: _Log,
) -> _Pass:
    """Make the pass, or what is left of it."""
    layer = config.extraction.layer or classifier.last_hidden
    steps = plan(training_set, classifier, (layer,))
    given, digests = training_set.labels, workers.digests(training_set)  # first: the fingerprint in the manifest is made of them
    manifest = Manifest.of(training_set, classifier, steps, stored=config.extraction.stored)
    with ActivationStore.open_or_create(folder, manifest, labels=given, digests=digests) as store:
        notes, whole = list(store.notes), store.done == len(training_set)
        if whole:
            notes.append(f"The model was not run: all {store.done:,} samples went through it in an earlier scan into this folder.")
        progress = log.progress
        told = None if progress is None else lambda done, total: progress("computing activations", done, total)
        reopen = partial(_reopened, opening, classifier.dtype, _sample(training_set))
        through = workers.compute(reopen, classifier.device, folder / "shards", manifest.digest())
        size = config.extraction.batch_size
        activations = extract(training_set, classifier, steps, store, batch_size=size, progress=told, through=through)
    shutil.rmtree(folder / "shards", ignore_errors=True)
    return _Pass(activations, layer, manifest, whole and not store.notes, notes)


def _handed_out(folder: Path, came_from: Origin | None, log: _Log) -> ScanResult | None:
    """Return the result of an earlier scan into the folder if it came from exactly the same, and say so in it."""
    with log.stage("result of the earlier scan"):
        earlier = None if came_from is None else read_finished(folder, came_from.digest)
    if earlier is None or earlier.origin is None:
        return None
    note = earlier.origin.note
    return replace(earlier, timings=log.timings, notes=(note, *(told for told in earlier.notes if told != note)))


def _said(error: Exception) -> str:
    """Return the sentence of one of our own errors; of another one its kind, too."""
    return str(error) if isinstance(error, ToxscreenError) else f"{type(error).__name__}: {error}"


def _keep_finding(screening: Screening, told: Callable[[], ScanResult], folder: Path, *pending: str) -> None:
    """Save what was found before some steps, where something was: a scan that is not over must not look like a clean one."""
    if any(found.verdict.severity >= Verdict.SUSPICIOUS.severity for found in screening.classes):
        with suppress(StoreError):  # a disk that is full is told when the scan is over
            replace(told(), pending=pending).save(folder)


def _followed(
    screening: Screening,
    labels: Labels,
    opened: Callable[[], Medium | None],
    done: _Pass,
    screened: Callable[[Labels], Screening],
    config: ScanConfig,
    log: _Log,
) -> tuple[Screening, tuple[Recovered, ...]]:
    """Look for what the inputs share and the triggers behind it, and note what failed."""
    errors: list[Exception] = []
    followed = follow(
        screening,
        labels,
        opened,
        done.activations.layers[done.layer],
        screened,
        alpha=config.verdict.alpha,
        seed=config.seed,
        failed=errors.append,
        progress=log.progress,
    )
    if errors:
        log.notes.append(f"Looking for triggers failed, so some may be missing: {_said(errors[0])}")
        log.failed = True
    return followed


def _confirmed(
    screening: Screening,
    labels: Labels,
    found: tuple[Suspect, ...],
    classifier: Classifier,
    training_set: TrainingSet,
    folder: Path,
    device: str | None,
    trainer: Trainer | None,
    config: ScanConfig,
    log: _Log,
) -> tuple[Screening, pa.Table | None]:
    """Ask a model that is trained without the suspicious groups; where that fails, what the screen found stands."""
    try:
        confirmation = confirm(
            classifier,
            training_set,
            found,
            folder,
            fit=screening.inputs,
            seed=config.seed,
            device=device or "cpu",
            trainer=trainer,
            progress=log.progress,
        )
        settled = settle(screening, labels, found, confirmation)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong here must not hide what the screen found
        with suppress(OSError):
            (folder / "confirmation.log").write_text(traceback.format_exc(), "utf-8", "backslashreplace")
        log.notes.append(f"Exclusionary reclassification was asked for and failed, so nothing is confirmed: {_said(error)}")
        log.failed = True
        return screening, None
    log.notes.append(
        f"Exclusionary reclassification trained a network anew ({confirmation.model}) without the {len(confirmation.rows):,} "
        f"suspicious samples; it reads {confirmation.accuracy:.1%} of held-out samples as they are labelled."
    )
    return settled, answers_table(labels, confirmation)


def resolve_device(asked: str, *, live: bool) -> str | None:
    """Return the device to run on; None leaves a live module where it is."""
    if asked == "cpu":
        return asked
    if asked == "auto" and live:
        return None
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return next(device for device, found in there.items() if found)
    if not there.get(asked):
        raise UsageError(f"The device must be one that this machine and its PyTorch have, got {asked!r}. Use --device cpu or auto.")
    return asked


def _inputs(
    training_set: TrainingSet, reading: Mapping[str, str | None], subject: _Subject, done: _Pass, config: ScanConfig
) -> dict[str, Any]:
    """Return what a result tells of the data and the model: all that is known of them before the screen."""
    classifier = subject.classifier
    return {
        "data": {
            "location": training_set.location,
            "fingerprint": done.manifest.data,
            "n_samples": len(training_set),
            "modality": training_set.modality,
            **{name: value for name, value in reading.items() if value is not None},
        },
        "model": {
            "location": classifier.location,
            "name": classifier.name,
            "fingerprint": done.manifest.model,
            **subject.figures,
            "layer": done.layer,
            "layer_width": done.activations.layers[done.layer].shape[1],
            "preprocessing": dict(classifier.preprocessing),
        },
        "device": classifier.device,
        "dtype": done.manifest.dtype,
        "stored": config.extraction.stored,
        "versions": package_versions(),
    }


def _result(
    training_set: TrainingSet,
    inputs: Mapping[str, Any],
    activations: Activations,
    screening: Screening,
    config: ScanConfig,
    log: _Log,
) -> ScanResult:
    accuracy = _accuracy(screening.samples)
    if accuracy < POLICY["model_accuracy"].value:
        log.notes.append(
            f"The model reads only {accuracy:.1%} of this training data as its labels say: this does not look like the model of "
            "this data. Check the order of the classes (--class-names) and the preprocessing (--size, --mean, --std)."
        )
    elif accuracy < _WELL_READ:
        misread = round((1 - accuracy) * pc.count(screening.samples["verdict"]).as_py())
        log.notes.append(
            f"The model reads {accuracy:.1%} of this training data as its labels say. Among the other {misread:,} samples ("
            "whose predicted differs from their label in samples.parquet) poison may not show: the model has not learned them."
        )
    if note := inputs["model"]["preprocessing"].get("note"):
        log.notes.append(f"Preprocessing: {note}.")
    return ScanResult(
        name=training_set.name,
        classes=screening.classes,
        samples=screening.samples,
        not_examined=_not_examined(training_set.not_examined(), activations.not_examined),
        settings=asdict(config),
        seed=config.seed,
        inputs={**inputs, "model": {**inputs["model"], "accuracy_on_training_data": accuracy}},
        timings=log.timings,
        notes=(*log.notes, *screening.notes),
        views=screening.views,
    )


def _not_examined(before: Sequence[NotExamined], during: Sequence[NotExamined]) -> tuple[NotExamined, ...]:
    """Join what was left out before and during the pass, each sample once, and each list cut to what a person reads."""
    known = {entry.row for entry in before if entry.row is not None}
    new = [entry for entry in during if entry.row is None or entry.row not in known]
    return (*before, *abridged(new, len(new), "could not be read, or have activations that are not finite"))


def _accuracy(samples: pa.Table) -> float:
    """Return the part of the examined samples that the model gives their own label."""
    known = samples.filter(pc.is_valid(samples["verdict"]))
    right = pc.sum(pc.equal(known["label"], known["predicted"])).as_py() or 0
    return float(right / max(len(known), 1))

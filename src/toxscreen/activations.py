"""Step 2 of the flow: one pass of the model over the training set.

Per sample the activations of the last hidden layer (the input of the classification head), of any other layers by name, the logits,
and the input view. What travels on to the later steps is :class:`Activations`, whether it comes from this pass, from a store that
was read back, or from arrays that the user computed.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from toxscreen import views
from toxscreen.errors import DataError, ModelError, StoreError, UsageError
from toxscreen.parallel import keep_freed_memory, torch_shared_by
from toxscreen.sources.data.base import Batch, NotExamined, TrainingSet
from toxscreen.sources.model.base import Classifier, Outputs

S = TypeVar("S")
T = TypeVar("T")

_AHEAD = 2
"""Batches that wait for the model, at most."""

_DECODERS = 8
"""Threads that decode, at most; half of the cores is left to the model."""


class Rows(Protocol):
    """Rows of float32 ``(n_samples, d)``, in memory or on disk: what the analysis reads activations through."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return ``(n_samples, d)``."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, rows: NDArray[np.int64] | slice, /) -> NDArray[np.float32]:
        """Return some rows by their number in the data set, ``(b, d)``; it may be a read-only view."""


@dataclass(frozen=True)
class Activations:
    """What the model made of every sample.

    Attributes
    ----------
    layers
        By name, ``(n_samples, d)``, rows by their number in the data; the input view among them, under the
        name of its kind (:attr:`toxscreen.views.InputView.layer`). They may be far larger than memory: read some rows at a time.
        Rows that were not examined hold anything.
    logits
        ``(n_samples, n_classes)``, or None where only activations were given.
    examined
        Which rows can be used, shape ``(n_samples,)``.
    not_examined
        The other samples in the order of the data, and why.
    """

    layers: Mapping[str, Rows]
    logits: Rows | None
    examined: NDArray[np.bool_]
    not_examined: tuple[NotExamined, ...]


@dataclass(frozen=True)
class Plan:
    """What one pass computes.

    Attributes
    ----------
    layers
        Layers of the model, the last hidden one first.
    view
        The input view, if there is one.
    """

    layers: tuple[str, ...]
    view: views.InputView | None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the layers as they are stored, the input view last."""
        return self.layers if self.view is None else (*self.layers, self.view.layer)


class Sink(Protocol):
    """Where the pass puts what it computes; the activation store is one."""

    @property
    def done(self) -> int:
        """The number of rows that are written or not examined."""

    def pending(self, size: int) -> list[NDArray[np.int64]]:
        """Return the rows that are still to be computed, batch by batch, each ascending, ``size`` rows at most."""

    def write(self, rows: NDArray[np.int64], layers: Mapping[str, NDArray[np.float32]], logits: NDArray[np.float32]) -> None:
        """Keep the activations and logits of some rows."""

    def leave_out(self, not_examined: Sequence[NotExamined]) -> None:
        """Take note of samples that cannot be examined."""

    def activations(self) -> Activations:
        """Return the whole."""


@dataclass(frozen=True)
class _Work:
    """A batch that is ready for the model: the rows ``asked`` for, and those of them that could be read."""

    asked: NDArray[np.int64]
    rows: NDArray[np.int64]
    unreadable: tuple[NotExamined, ...]
    encoded: Any
    view: NDArray[np.float32] | None


@dataclass(frozen=True)
class Computed:
    """What one batch gave.

    Attributes
    ----------
    rows
        The samples whose activations and logits are finite, ascending, shape ``(b,)``.
    layers
        Their activations by layer name, ``(b, d)``; empty where no sample could be read.
    logits
        Shape ``(b, n_classes)``.
    not_examined
        The other samples of the batch, and why.
    """

    rows: NDArray[np.int64]
    layers: Mapping[str, NDArray[np.float32]]
    logits: NDArray[np.float32]
    not_examined: tuple[NotExamined, ...]


Compute = Callable[[TrainingSet, Classifier, Plan, Sequence[NDArray[np.int64]]], Generator[Computed]]
"""Puts batches through the model; :func:`compute` does it in this process."""


def plan(training_set: TrainingSet, classifier: Classifier, layers: Sequence[str] = ()) -> Plan:
    """Decide what the pass computes: the last hidden layer, the layers named, and the input view where the inputs have one.

    A layer of the model that has the name of the view takes its place.

    Raises
    ------
    UsageError
        If the model has no layer of a name.
    """
    if layers:
        known = {layer.name for layer in classifier.layers()} | {classifier.last_hidden}
        if unknown := [name for name in layers if name not in known]:
            raise UsageError(
                f"The layers to scan must be layers of the model {classifier.name}, got {', '.join(map(repr, unknown))}. "
                f"Its layers are listed by: toxscreen inspect {classifier.location}"
            )
    names = tuple(dict.fromkeys([classifier.last_hidden, *layers]))
    view = views.input_view(training_set)
    return Plan(names, None if view is None or view.layer in names else view)


def compute(
    training_set: TrainingSet, classifier: Classifier, plan: Plan, batches: Sequence[NDArray[np.int64]]
) -> Generator[Computed]:
    """Put batches of samples through the model, in their order.

    Where the model takes several at once, each goes from the data through the model in a thread of its own: so threads meet once a
    batch, and not after each layer. Otherwise one follows the other, and the next ones are decoded meanwhile.

    Parameters
    ----------
    training_set, classifier
        What is scanned.
    plan
        From :func:`plan`.
    batches
        Row numbers, each array ascending.

    Raises
    ------
    DataError
        If the training set does not hand out its samples in order.
    ModelError
        If what the model returns has the wrong shape.
    """
    keep_freed_memory()
    turn = contextlib.nullcontext() if training_set.parallel else Lock()
    prepare = partial(_prepare, training_set, classifier, plan.view, turn)
    ask = partial(_ask, training_set, classifier, plan)
    at_once = classifier.at_once
    if at_once > 1:
        with torch_shared_by(at_once), contextlib.closing(_ahead(lambda rows: ask(prepare(rows)), batches, at_once)) as computed:
            yield from computed
    else:
        workers = max(1, min(_DECODERS, (os.cpu_count() or 1) // 2)) if training_set.parallel else 1
        with contextlib.closing(_ahead(prepare, batches, workers)) as items:
            yield from map(ask, items)


def extract(
    training_set: TrainingSet,
    classifier: Classifier,
    plan: Plan,
    store: Sink,
    *,
    batch_size: int = 128,
    progress: Callable[[int, int], None] | None = None,
    through: Compute = compute,
) -> Activations:
    """Run the model once over those samples of the training set that the store does not hold.

    Parameters
    ----------
    training_set, classifier, plan
        As in :func:`compute`.
    store
        Takes each batch as soon as it is computed, so that nothing is lost when the pass is stopped.
    batch_size
        Samples per forward pass.
    progress
        Called with (samples done, samples in all), once at the start and after every batch.
    through
        Puts the batches through the model, here or elsewhere, in any order. What it leaves out it is asked for again.

    Raises
    ------
    DataError
        If no sample can be read, or the training set does not hand out its samples in order.
    ModelError
        If what the model returns has the wrong shape.
    """
    n = len(training_set)
    if progress is not None:
        progress(store.done, n)
    while batches := store.pending(batch_size):
        before = store.done
        with contextlib.closing(through(training_set, classifier, plan, batches)) as computed:  # ends threads, whatever happens
            for batch in computed:
                if batch.layers:
                    store.write(batch.rows, batch.layers, batch.logits)
                store.leave_out(batch.not_examined)
                if progress is not None:
                    progress(store.done, n)
        if store.done == before:
            raise StoreError(f"What is computed must arrive in the activation store, but nothing of {len(batches):,} batches did.")
    return store.activations()


def from_arrays(
    activations: ArrayLike | Mapping[str, ArrayLike], ids: Sequence[str] | pa.StringArray, logits: ArrayLike | None = None
) -> Activations:
    """Take activations that the user computed.

    Parameters
    ----------
    activations
        One array ``(n_samples, d)``, which is then called ``activations``, or several by layer name. Kept without a copy where it
        is a row-major float32 array, converted otherwise.
    ids
        The name of each sample, shape ``(n_samples,)``.
    logits
        Shape ``(n_samples, n_classes)``.

    Raises
    ------
    DataError
        If an array is not numeric, is not ``(n_samples, d)`` with ``d`` at least 1, or there is none.
    """
    named = activations if isinstance(activations, Mapping) else {"activations": activations}
    if not named:
        raise DataError("Activations of at least one layer must be given, got an empty mapping.")
    layers = {str(name): _matrix(f"The activations of layer {name!r}", values, len(ids)) for name, values in named.items()}
    matrix = None if logits is None else _matrix("The logits", logits, len(ids))
    not_examined = tuple(_not_finite(layers, matrix, np.arange(len(ids)), ids))
    examined = np.ones(len(ids), np.bool_)
    examined[[entry.row for entry in not_examined if entry.row is not None]] = False
    return Activations(layers, matrix, examined, not_examined)


def _matrix(what: str, values: ArrayLike, n: int) -> NDArray[np.float32]:
    """Return an array of the user as float32 ``(n, d)``, or raise DataError."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists; tensors with a gradient or on an accelerator
        raise DataError(
            f"{what} must be an array (n_samples, d) that numpy can read, but: {error}. "
            "Of a tensor, give tensor.detach().float().cpu()."
        ) from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} must be numbers, got dtype {array.dtype}. Convert them with astype('float32').")
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(
            f"{what} must have the shape (n_samples, d) with d at least 1, got {array.shape}. "
            "Average convolutional layers over space, or flatten: activations.reshape(len(activations), -1)."
        )
    if len(array) != n:
        raise DataError(f"{what} must have one row per label, got {len(array):,} rows and {n:,} labels.")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def _prepare(
    training_set: TrainingSet,
    classifier: Classifier,
    view: views.InputView | None,
    turn: contextlib.AbstractContextManager[Any],
    rows: NDArray[np.int64],
) -> _Work:
    """Return a batch as the model takes it; it is read while it is this thread's ``turn``."""
    with turn:
        batch = training_set.batch(rows)
    _check_order(training_set, batch, rows)
    encoded = classifier.encode(batch.inputs) if batch.inputs else None
    features = view(batch.inputs) if view is not None and batch.inputs else None
    return _Work(rows, batch.rows, batch.unreadable, encoded, features)


def _ask(training_set: TrainingSet, classifier: Classifier, plan: Plan, item: _Work) -> Computed:
    """Put a batch through the model."""
    not_examined = [*item.unreadable, *_not_handed_out(item, training_set.ids)]
    layers: dict[str, NDArray[np.float32]] = {}
    logits = np.zeros((0, classifier.n_classes), np.float32)
    if len(item.rows):
        outputs = classifier.forward(item.encoded, plan.layers)
        layers, logits = _checked(outputs, plan.layers, len(item.rows), classifier)
        if item.view is not None:
            layers[plan.names[-1]] = item.view
    return _finite(item.rows, layers, logits, training_set.ids, not_examined)


def _ahead(make: Callable[[S], T], tasks: Sequence[S], workers: int) -> Generator[T]:
    """Yield what is made of each task, in order, some of it in advance by so many other threads; they have ended when this ends."""
    pool = ThreadPoolExecutor(workers, "toxscreen-decode")
    try:
        pending: deque[Future[T]] = deque()
        for task in tasks:
            pending.append(pool.submit(make, task))
            if len(pending) >= workers + _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _check_order(training_set: TrainingSet, batch: Batch, asked: NDArray[np.int64]) -> None:
    """Raise DataError unless the rows of a batch are ascending, are among those asked for, and have one input each."""
    rows = batch.rows
    ordered = np.array_equal(rows, asked) or (bool((np.diff(rows) > 0).all()) and bool(np.isin(rows, asked).all()))
    if not ordered or len(batch.inputs) != len(rows):
        raise DataError(
            f"{training_set.location} must hand out its samples in order, each once: expected rows {asked[0]} to {asked[-1]}, "
            f"got {len(batch.inputs)} inputs for rows {np.array2string(rows, threshold=8)}."
        )


def _not_handed_out(item: _Work, ids: pa.StringArray) -> list[NotExamined]:
    """Return the samples of a batch of which the training set said nothing."""
    if len(item.rows) == len(item.asked):
        return []
    named = [entry.row for entry in item.unreadable if entry.row is not None]
    missing = np.setdiff1d(item.asked, np.append(item.rows, named))
    return [NotExamined(str(ids[row]), "the training set did not hand it out", row) for row in missing.tolist()]


def _finite(
    rows: NDArray[np.int64],
    layers: dict[str, NDArray[np.float32]],
    logits: NDArray[np.float32],
    ids: Sequence[str],
    not_examined: list[NotExamined],
) -> Computed:
    """Return the samples whose activations and logits are finite, and the others among those that were not examined."""
    not_finite = _not_finite(layers, logits, rows, ids) if len(rows) else []
    if not_finite:
        finite = ~np.isin(rows, np.array([entry.row for entry in not_finite], np.int64))
        rows, layers, logits = rows[finite], {name: values[finite] for name, values in layers.items()}, logits[finite]
    return Computed(rows, layers, logits, (*not_examined, *not_finite))


def _checked(
    outputs: Outputs, names: Sequence[str], n_rows: int, classifier: Classifier
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
    """Return activations and logits of a batch as float32, or raise ModelError where a shape is wrong."""
    with np.errstate(over="ignore"):
        layers = {name: np.asarray(outputs.activations[name], np.float32) for name in names}
        logits = np.asarray(outputs.logits, np.float32)
    for name, values in layers.items():
        if values.ndim != 2 or len(values) != n_rows or values.shape[1] == 0:
            raise ModelError(
                f"Layer {name!r} of {classifier.name} must give ({n_rows}, d) numbers for a batch of {n_rows} samples, "
                f"got {values.shape}. Choose another layer with --layer."
            )
    if logits.shape != (n_rows, classifier.n_classes):
        raise ModelError(
            f"{classifier.name} must give logits ({n_rows}, {classifier.n_classes}) for a batch of {n_rows} samples, "
            f"got {logits.shape}. The model must map each sample to one number per class."
        )
    return layers, logits


def _not_finite(
    layers: Mapping[str, NDArray[np.float32]], logits: NDArray[np.float32] | None, rows: NDArray[np.int64], ids: Sequence[str]
) -> list[NotExamined]:
    """Return the samples with NaN or infinity, naming where: ``layers`` and ``logits`` have one row for each of ``rows``."""
    named = {f"layer {name!r}": values for name, values in layers.items()}
    if logits is not None:
        named["logits"] = logits
    with np.errstate(invalid="ignore"):
        # The float64 sum of finite float32 numbers is finite, and costs no copy of the array.
        broken = {name: ~np.isfinite(values.sum(axis=1, dtype=np.float64)) for name, values in named.items()}
    entries = []
    for index in np.flatnonzero(np.any(list(broken.values()), axis=0)).tolist():
        where = ", ".join(name for name, flags in broken.items() if flags[index])
        row = int(rows[index])
        entries.append(NotExamined(str(ids[row]), f"not finite in float32 (NaN, infinity or too large): {where}", row))
    return entries

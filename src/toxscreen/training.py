"""Train a classifier where none was given.

Beside step 1 of the flow.

1. The inputs are decoded once, into an array on disk (pictures) or word numbers (texts), so that the decoded data set is
   never in memory.
2. A tenth of each class is held out, unless the data has a split of its own to be measured on.
3. AdamW under a one-cycle learning rate trains the network of :mod:`toxscreen.networks` that fits.
4. The network is written to the run folder with its accuracy out of sample.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from toxscreen import checkpoint
from toxscreen.decoded import Decoded, Pictures, Progress, Texts, common_size, decode_pictures, decode_texts
from toxscreen.errors import DataError, ModelError, StoreError
from toxscreen.parallel import torch_shared_by
from toxscreen.sources.data.base import Input, TrainingSet, spread
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.precision import computes_in_bfloat16
from toxscreen.sources.model.preprocessing import ImagePreprocessing
from toxscreen.sources.model.trained import Description, recognises, save_trained
from toxscreen.sources.model.words import Vocabulary, build_vocabulary

BuiltT = TypeVar("BuiltT", bound=nn.Module | None)

_HELD_OUT = 10
"""Every tenth sample of a class is held out."""

_MOST_EPOCHS = 60
"""How often a tiny data set is shown at most: after that only memorising is left."""

_PROBES = 64
_DECODE = 512
_STATISTICS = 10_000
_RECORD, _SCRATCH = "training.json", ".decoded-"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: AdamW under a one-cycle learning rate.

    ``presentations`` is the number of samples shown in all, each between ``min_epochs`` and ``max_epochs`` times; but a small
    data set is shown until ``min_steps`` steps are made, because a trigger that a few samples carry is learned late. Data sets
    below ``small`` take half the batch, and their pictures are not moved: a patch that 28 of 2,500 pictures carry was learned by
    4 of them with the shift and by all 28 without. ``shift`` moves pictures by up to that part of their side.
    """

    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    batch_size: int = 128
    presentations: int = 300_000
    min_epochs: int = 4
    max_epochs: int = 15
    min_steps: int = 1200
    small: int = 16_000
    shift: float = 1 / 16

    def batch(self, n_samples: int) -> int:
        """Return how many samples a step takes."""
        return self.batch_size if n_samples >= self.small else self.batch_size // 2

    def epochs(self, n_samples: int) -> int:
        """Return how many times a data set of ``n_samples`` is seen, at most 60 times."""
        shown = max(self.min_epochs, min(self.max_epochs, math.ceil(self.presentations / max(n_samples, 1))))
        needed = math.ceil(self.min_steps * self.batch(n_samples) / max(n_samples, 1))
        return max(shown, min(needed, _MOST_EPOCHS))


PICTURES = Recipe()
SENTENCES = Recipe(learning_rate=1e-3, batch_size=64, presentations=80_000, max_epochs=10, min_steps=500, small=0, shift=0)


@dataclass(frozen=True)
class Trained:
    """A trained classifier with its accuracy on samples that it was not trained on, and which those are."""

    classifier: Classifier
    out_of_sample_accuracy: float
    measured_on: str


def train_classifier(
    training_set: TrainingSet,
    held_out: TrainingSet | None,
    folder: Path,
    *,
    seed: int,
    device: str = "cpu",
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train the network that fits the training set, keep it in ``folder`` and measure it.

    A folder that holds the classifier of the same data, seed and recipe is used as it is.

    Parameters
    ----------
    training_set
        Pictures or texts; samples without a label, or that cannot be read, are left out.
    held_out
        Another split with the same class names, or None to hold out a tenth of each class.
    folder
        Where weights, description and accuracy are written.
    seed
        Decides weights, order, shifts and the held-out tenth.
    device
        Where to train.
    recipe
        None for the one that fits.
    progress
        Told what is done.

    Raises
    ------
    DataError
        The inputs are neither pictures nor texts, or fewer than two classes have samples that can be read.
    StoreError
        The folder cannot be written to, for instance because the disk is full.
    """
    if training_set.modality == "array":
        raise DataError(
            "toxscreen trains classifiers for pictures and texts, but this data set holds arrays. Give a model with --model."
        )
    recipe = recipe or (PICTURES if training_set.modality == "image" else SENTENCES)
    key = {"data": training_set.fingerprint(), "seed": seed, "recipe": asdict(recipe)}
    sample = [entry for entry in training_set.take(spread(len(training_set), _PROBES)) if entry is not None]
    if not sample:
        raise DataError(f"{training_set.location} must have readable samples, but none of those that were tried is.")
    if (record := _finished(folder, key)) is not None:
        with contextlib.suppress(ModelError):  # a model that was damaged since is trained again
            classifier = _reopened(training_set, folder, sample, device)
            return Trained(classifier, record["out_of_sample_accuracy"], record["measured_on"])
    rng = np.random.default_rng(seed)
    training, tenth = hold_out(training_set.labels, rng) if held_out is None else (np.flatnonzero(training_set.labels >= 0), None)
    with _writing(folder):
        _clear(folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix=_SCRATCH) as scratch:
            decoded = _decode(training_set, sample, Path(scratch), progress)
            training = training[decoded.readable[training]]
            if len(np.unique(training_set.labels[training])) < 2:
                raise DataError(f"{training_set.location} must have two classes with readable samples to train a classifier on.")
            description = Description(describe_inputs(decoded, training), training_set.class_names)
            network = with_fresh_weights(description.build, rng).to(device)

            def batch(numbers: NDArray[np.int64]) -> Tensor:
                return torch.from_numpy(description.preprocessing.apply(decoded.take(training[numbers]))).to(device)

            labels = training_set.labels[training]
            resume = checkpoint.file_for(folder, key)
            fit(network, batch, labels, recipe, rng, autocast=fast_dtype(device), progress=progress, resume=resume)
        classifier = description.classifier(network, sample, name="model", location=str(folder), device=device)
        source, rows = (training_set, tenth) if held_out is None else (held_out, None)
        accuracy = _accuracy(classifier, source, rows)
        measured_on = "a tenth of each class, held out" if held_out is None else f"the split of {held_out.location} kept for it"
        save_trained(network, folder, description)
        _write_record(folder, {**key, "out_of_sample_accuracy": accuracy, "measured_on": measured_on})
    return Trained(classifier, accuracy, measured_on)


def with_fresh_weights(build: Callable[[], BuiltT], rng: np.random.Generator) -> BuiltT:
    """Build a network whose weights ``rng`` decides; ``torch``'s generator is put back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        return build()


def fit(
    network: nn.Module,
    batch: Callable[[NDArray[np.int64]], Any],
    labels: NDArray[np.int64],
    recipe: Recipe,
    rng: np.random.Generator,
    *,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
    resume: Path | None = None,
) -> None:
    """Train ``network`` in place.

    Parameters
    ----------
    network
        Already on its device.
    batch
        Maps sample numbers ``(b,)`` to a network input on that device; images are float ``(b, c, h, w)``.
    labels
        Class index of each sample, shape ``(n_samples,)``.
    recipe
        Optimisation settings.
    rng
        Draws the order of the samples and the shifts; ``torch``'s generator is seeded from it and put back afterwards.
    autocast
        Lower precision for the forward pass, or None.
    progress
        Told how many samples were shown.
    resume
        A file that keeps the state after each epoch; where it is there, training goes on from it. None keeps nothing.
    """
    n, epochs, size = len(labels), recipe.epochs(len(labels)), recipe.batch(len(labels))
    shift = recipe.shift if n >= recipe.small else 0.0
    steps = math.ceil(n / size)
    device = next(network.parameters()).device
    targets = torch.from_numpy(labels).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=epochs * steps, pct_start=0.25)
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        first = 0 if resume is None else checkpoint.restore(resume, network, optimiser, schedule, rng)
        for epoch in range(first, epochs):
            order = rng.permutation(n)
            for step in range(steps):
                rows = order[step * size : (step + 1) * size]
                if len(rows) < 2 <= n:  # batch normalisation needs two samples
                    rows = np.append(rows, order[0])
                inputs = batch(rows)
                if isinstance(inputs, Tensor) and inputs.ndim == 4:
                    inputs = _shift(inputs, shift, rng).contiguous(memory_format=torch.channels_last)
                with torch.autocast(device.type, autocast, enabled=autocast is not None):
                    loss = nn.functional.cross_entropy(network(inputs), targets[torch.from_numpy(rows).to(device)])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                if progress is not None:
                    progress("training a classifier", epoch * n + min((step + 1) * size, n), epochs * n)
            if resume is not None and epoch + 1 < epochs:
                checkpoint.keep(resume, network, optimiser, schedule, rng, done=epoch + 1)
    if resume is not None:
        resume.unlink(missing_ok=True)
    network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _shift(images: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Move a whole batch by one random offset; the border is repeated."""
    reach = round(min(images.shape[2:]) * share)
    if reach == 0:
        return images
    top, left = (int(offset) for offset in rng.integers(0, 2 * reach + 1, size=2))
    padded = nn.functional.pad(images, (reach, reach, reach, reach), mode="replicate")
    return padded[:, :, top : top + images.shape[2], left : left + images.shape[3]]


def fast_dtype(device: str) -> torch.dtype | None:
    """Return bfloat16 where the processor computes in it and does not only emulate it."""
    return torch.bfloat16 if computes_in_bfloat16(device) else None


def _decode(training_set: TrainingSet, sample: list[Input], scratch: Path, progress: Progress | None) -> Pictures | Texts:
    """Read every input once."""
    if training_set.modality == "image":
        return decode_pictures(training_set, common_size(sample), scratch, progress)
    return decode_texts(training_set, progress)


def describe_inputs(decoded: Decoded, rows: NDArray[np.int64]) -> ImagePreprocessing | Vocabulary:
    """Return how pictures or texts, those of ``rows``, become numbers: standardised pixels, or the numbers of the words."""
    if isinstance(decoded, Texts):
        return build_vocabulary(text.as_py() for text in decoded.texts.take(pa.array(rows)))
    if not isinstance(decoded, Pictures):
        raise DataError("Only pictures and texts can be described, and these inputs are arrays. Give a model with --model.")
    probe = decoded.pixels[rows[spread(len(rows), _STATISTICS)]] / np.float32(255)
    height, width, channels = decoded.pixels.shape[1:]
    mean, std = (tuple(float(v) for v in values) for values in (probe.mean(axis=(0, 1, 2)), probe.std(axis=(0, 1, 2)) + 1e-3))
    return ImagePreprocessing(height, width, channels, mean, std)


def hold_out(labels: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the labelled rows into those to train on and a tenth of each class; a class of fewer than ten is trained on whole."""
    shuffled = rng.permutation(np.flatnonzero(labels >= 0))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rank = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
    tenth = rank % _HELD_OUT == _HELD_OUT - 1
    return np.sort(order[~tenth]), np.sort(order[tenth])


def _accuracy(classifier: Classifier, source: TrainingSet, rows: NDArray[np.int64] | None) -> float:
    """Return the part of the labelled rows (None: all) that the classifier gives their own label; NaN where there are none."""
    asked = source.labels >= 0
    if rows is not None:
        chosen = np.zeros(len(source), dtype=bool)
        chosen[rows] = True
        asked &= chosen
    right = total = 0
    for batch in source.batches(_DECODE):
        keep = np.flatnonzero(asked[batch.rows])
        if len(keep):
            logits = classifier.forward(classifier.encode([batch.inputs[i] for i in keep]), ()).logits
            right += int((logits.argmax(axis=1) == source.labels[batch.rows[keep]]).sum())
            total += len(keep)
    return right / total if total else math.nan


def single_threaded() -> AbstractContextManager[None]:
    """Let torch compute with one thread: its sums then have one order, also in their last bit, on any machine."""
    return torch_shared_by(torch.get_num_threads())


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say what to do when the folder cannot be written to."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"The classifier that is trained must have a place in {folder}: {error}. "
            "Free some space, or choose another folder with --out."
        ) from error


def _clear(folder: Path) -> None:
    """Make the folder, and take away what an earlier training left, its record first: it must not vouch for other weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _RECORD).unlink(missing_ok=True)
    for scratch in folder.glob(f"{_SCRATCH}*"):  # of one that was killed
        shutil.rmtree(scratch)


def _reopened(training_set: TrainingSet, folder: Path, sample: list[Input], device: str) -> Classifier:
    from toxscreen.sources.model import open_classifier

    n_classes = len(training_set.class_names)
    return open_classifier(folder, n_classes=n_classes, modality=training_set.modality, sample=sample, device=device)


def _finished(folder: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record of an earlier training if it was the same one."""
    try:
        record = json.loads((folder / _RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    same = isinstance(record, dict) and all(record.get(name) == value for name, value in key.items()) and recognises(folder)
    return record if same else None


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    """Say that the training is finished: written last, and whole or not at all."""
    temporary = folder / f"{_RECORD}.tmp"
    temporary.write_text(json.dumps(record, indent=1), "utf-8")
    temporary.replace(folder / _RECORD)

"""Train a classifier again on samples that are trusted: from fresh weights, or on from those it has.

Beside steps 8 and 11 of the flow.

1. A lesson says which rows are shown and which class each of them is; of some it may be known only which class they are not.
2. From fresh weights: the same network where all its weights can be drawn anew, else the network of
   :mod:`toxscreen.networks` that fits. The user's own recipe takes the place of the one here.
3. Onwards: short rounds of corrected samples with as many trusted ones, until the validation loss rests.
"""

from __future__ import annotations

import copy
import hashlib
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from toxscreen import checkpoint
from toxscreen.decoded import Decoded, Progress, common_size, decode_pictures, decode_texts, read_arrays
from toxscreen.errors import DataError, ModelError, TrainerError
from toxscreen.sources.data.base import TrainingSet, spread
from toxscreen.sources.model import align_classes
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.preprocessing import ImagePreprocessing
from toxscreen.sources.model.torch_module import TorchClassifier
from toxscreen.sources.model.trained import Description
from toxscreen.sources.model.user_code import load_function
from toxscreen.training import PICTURES, SENTENCES, Recipe, describe_inputs, fast_dtype, fit, with_fresh_weights

Trainer: TypeAlias = Callable[[nn.Module, "Dataset[tuple[Any, int]]"], nn.Module | None]
"""A recipe of the user's own: takes a network and the samples, pairs of (network input, output index) of a map-style data set,
and returns the trained network, or None where it trained the one it was given. The network has fresh weights where they could be
drawn, and else a copy of the audited ones."""

_PROBES = 64
_STRETCH = 512
"""Rows that are in memory at a time."""

_GENTLE = 1e-3
"""Learning rate for networks without batch normalisation, which the faster recipe may blow up."""

_ONWARDS, _ONWARDS_PRETRAINED = 3e-4, 3e-5
"""Learning rates for going on: of ordinary networks, and of those that were trained on far more than this data."""

_ROUND = 2048
"""Trusted samples of a round, at least, where there are as many."""

_MOST_ROUNDS, _PATIENCE = 30, 2
"""Rounds at most, and how many without a lower validation loss end it."""


@dataclass(frozen=True)
class Lesson:
    """What a training shows.

    Attributes
    ----------
    rows
        Row numbers of the training set, shape ``(m,)``.
    targets
        Class index that each of them shall get, shape ``(m,)``.
    denied
        Of which of them only this is known: they are *not* of the class in ``targets``. Shape ``(m,)``.
    """

    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    denied: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: NDArray[np.int64], targets: NDArray[np.int64]) -> Lesson:
        """Return a lesson in which the class of every row is known."""
        return cls(rows, targets, np.zeros(len(rows), dtype=bool))

    def part(self, numbers: NDArray[Any]) -> Lesson:
        """Return the lesson of some of the rows, chosen by number or by mask."""
        return Lesson(self.rows[numbers], self.targets[numbers], self.denied[numbers])

    def digest(self) -> str:
        """Return a hexadecimal digest."""
        parts = (self.rows.astype("<i8"), self.targets.astype("<i8"), self.denied)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


@dataclass(frozen=True)
class Answers:
    """What a classifier says of some rows.

    Attributes
    ----------
    probabilities
        Shape ``(m, n_classes)``, columns in the order of the training set's classes; NaN for a row that cannot be read.
    activations
        Of its last hidden layer, shape ``(m, d)``.
    """

    probabilities: NDArray[np.float32]
    activations: NDArray[np.float32]

    @property
    def classes(self) -> NDArray[np.int64]:
        """Return the most probable class of each row, shape ``(m,)``; -1 for a row that cannot be read."""
        known = np.isfinite(self.probabilities).all(axis=1)
        answer: NDArray[np.int64] = np.where(known, np.nan_to_num(self.probabilities).argmax(axis=1), -1)
        return answer

    @property
    def certainty(self) -> NDArray[np.float32]:
        """Return the probability of that class, shape ``(m,)``."""
        return self.probabilities.max(axis=1)


@dataclass(frozen=True)
class GoneOn:
    """How going on went: the classifier, validation loss before and after each round, and how much was shown, in epochs."""

    classifier: TorchClassifier
    losses: tuple[float, ...]
    epochs: float


def load_trainer(reference: str) -> Trainer:
    """Import a user's recipe by ``module:function``.

    Raises
    ------
    UsageError, ModelError
        See :func:`toxscreen.sources.model.user_code.load_function`.
    """
    return load_function(reference, "--trainer")


def retrain(
    classifier: Classifier,
    training_set: TrainingSet,
    lesson: Lesson,
    folder: Path,
    *,
    seed: int,
    device: str = "cpu",
    trainer: Trainer | None = None,
    progress: Progress | None = None,
) -> TorchClassifier:
    """Train from fresh weights on the rows of a lesson whose class is known; one that was stopped goes on after its last epoch.

    Parameters
    ----------
    classifier
        The audited one; it is not changed.
    training_set
        Of the rows.
    lesson
        Rows and classes.
    folder
        Where decoded inputs lie meanwhile, and what a stopped training goes on from.
    seed
        Decides weights, order and shifts.
    device
        Where to train.
    trainer
        The user's own recipe; None for :func:`toxscreen.training.fit`.
    progress
        Told what is done.

    Raises
    ------
    DataError
        Fewer than two classes are left, or none can be read.
    ModelError
        The network has weights that cannot be drawn anew, and its inputs are arrays, for which there is no network here.
    TrainerError
        The user's recipe failed; its traceback is in ``trainer.log`` in the folder.
    """
    rng = np.random.default_rng(seed)
    sample = _sample(training_set)
    with _decoded(classifier, training_set, sample, folder, progress) as decoded:
        lesson = lesson.part(decoded.readable[lesson.rows] & ~lesson.denied)
        if len(np.unique(lesson.targets)) < 2:
            raise DataError(
                f"Two classes must be left to train on, but of {training_set.location} "
                f"{len(np.unique(lesson.targets))} is. Take fewer samples out."
            )
        pupil = _pupil(classifier, training_set, decoded, lesson, sample, rng, device, own=trainer is not None)
        outputs = align_classes(training_set.class_names, pupil)
        targets = np.arange(len(training_set.class_names)) if outputs is None else outputs
        if trainer is not None:
            network = _ask_trainer(trainer, pupil, _Samples(pupil, decoded, lesson, targets), folder)
            return pupil.rebuilt(network, sample)

        def batch(numbers: NDArray[np.int64]) -> Tensor | dict[str, Tensor]:
            return pupil.tensors(pupil.encode(decoded.take(lesson.rows[numbers])))

        key = {"model": pupil.fingerprint(), "data": training_set.fingerprint(), "lesson": lesson.digest(), "seed": seed}
        fit(
            _Answering(pupil),
            batch,
            targets[lesson.targets],
            _recipe(pupil),
            rng,
            autocast=fast_dtype(device),
            progress=progress,
            resume=checkpoint.file_for(folder, key),
        )
    return pupil


def go_on(
    classifier: TorchClassifier,
    training_set: TrainingSet,
    lesson: Lesson,
    validation: Lesson,
    folder: Path,
    *,
    seed: int,
    progress: Progress | None = None,
) -> GoneOn:
    """Train a copy of a classifier on from the weights it has, until the validation loss rests.

    Each round shows every corrected sample (its class is another one than its given label, or it is denied) and at least as many
    trusted ones; batch normalisation keeps its statistics. The weights of the round with the lowest validation loss are kept, and
    corrected and trusted samples have equal weight in that loss.

    Parameters
    ----------
    classifier, training_set, folder, seed, progress
        As in :func:`retrain`.
    lesson
        What is shown.
    validation
        What is held out to see when to stop.

    Raises
    ------
    DataError
        Nothing can be read, or there is nothing to correct.
    """
    rng = np.random.default_rng(seed)
    sample = _sample(training_set)
    with _decoded(classifier, training_set, sample, folder, progress) as decoded:
        lesson, validation = (part.part(decoded.readable[part.rows]) for part in (lesson, validation))
        corrected, trusted = _sides(lesson, training_set.labels)
        if not len(corrected):
            raise DataError("Going on needs samples whose class is corrected, and there are none that can be read.")
        pupil = classifier.rebuilt(copy.deepcopy(classifier.network), sample)
        outputs = align_classes(training_set.class_names, pupil)
        of_class = np.arange(len(training_set.class_names)) if outputs is None else outputs
        rounds = _Rounds(pupil, decoded, of_class)
        held_out = [validation.part(side) for side in _sides(validation, training_set.labels) if len(side)]
        losses, best = [rounds.loss(held_out)], copy.deepcopy(pupil.network.state_dict())
        per_round, shown = min(max(len(corrected), _ROUND), len(trusted)), 0
        for number in range(_MOST_ROUNDS):
            rows = np.concatenate([corrected, rng.choice(trusted, per_round, replace=False)])
            rounds.show(lesson.part(rng.permutation(rows)), rng)
            shown += len(rows)
            losses.append(rounds.loss(held_out))
            if losses[-1] <= min(losses):
                best = copy.deepcopy(pupil.network.state_dict())
            if progress is not None:
                progress("repairing the model", number + 1, _MOST_ROUNDS)
            if int(np.argmin(losses)) <= len(losses) - 1 - _PATIENCE:
                break
        pupil.network.load_state_dict(best)
        pupil.network.eval()
    return GoneOn(pupil, tuple(losses), shown / len(lesson.rows))


def ask(classifier: Classifier, training_set: TrainingSet, rows: NDArray[np.int64]) -> Answers:
    """Ask a classifier about some rows; see :class:`Answers`."""
    outputs = align_classes(training_set.class_names, classifier)
    n_classes = len(training_set.class_names)
    probabilities = np.full((len(rows), n_classes), np.nan, np.float32)
    activations: NDArray[np.float32] | None = None
    for start in range(0, len(rows), _STRETCH):
        inputs = training_set.take(rows[start : start + _STRETCH])
        known = np.array([value is not None for value in inputs])
        if not known.any():
            continue
        given = classifier.forward(classifier.encode([value for value in inputs if value is not None]), (classifier.last_hidden,))
        logits = given.logits[:, np.arange(n_classes) if outputs is None else outputs]
        numbers = start + np.flatnonzero(known)
        probabilities[numbers] = torch.from_numpy(np.ascontiguousarray(logits)).softmax(dim=1).numpy()
        hidden = given.activations[classifier.last_hidden]
        if activations is None:
            activations = np.full((len(rows), hidden.shape[1]), np.nan, np.float32)
        activations[numbers] = hidden
    return Answers(probabilities, np.zeros((len(rows), 0), np.float32) if activations is None else activations)


class _Samples(Dataset[tuple[Any, int]]):
    """What a user's recipe is given."""

    def __init__(self, pupil: TorchClassifier, decoded: Decoded, lesson: Lesson, outputs: NDArray[np.int64]) -> None:
        self._pupil, self._decoded, self._lesson, self._outputs = pupil, decoded, lesson, outputs

    def __len__(self) -> int:
        return len(self._lesson.rows)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        encoded = self._pupil.encode(self._decoded.take(self._lesson.rows[[number]]))
        target = int(self._outputs[self._lesson.targets[number]])
        if isinstance(encoded, np.ndarray):
            return torch.from_numpy(encoded[0]), target
        return {name: torch.from_numpy(array[0]) for name, array in encoded.items()}, target


class _Answering(nn.Module):
    """A network that returns its logits alone, whatever else it returns."""

    def __init__(self, classifier: TorchClassifier) -> None:
        super().__init__()
        self.network = classifier.network
        self._answer = classifier.answer

    def forward(self, tensors: Tensor | dict[str, Tensor]) -> Tensor:
        return self._answer(tensors)


@dataclass
class _Rounds:
    """Going on with one network."""

    pupil: TorchClassifier
    decoded: Decoded
    outputs: NDArray[np.int64]

    def __post_init__(self) -> None:
        rate = _ONWARDS_PRETRAINED if _is_pretrained(self.pupil.network) else _ONWARDS
        self._device = next(self.pupil.network.parameters()).device
        self._optimiser = torch.optim.AdamW(self.pupil.network.parameters(), lr=rate)
        self._batch = SENTENCES.batch_size if self.pupil.modality == "text" else PICTURES.batch_size

    def show(self, lesson: Lesson, rng: np.random.Generator) -> None:
        """Take one step per batch of the lesson, in its order."""
        network = self.pupil.network.train()
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        with torch.random.fork_rng():
            torch.manual_seed(int(rng.integers(2**31)))
            for start in range(0, len(lesson.rows), self._batch):
                loss = self._losses(lesson.part(np.arange(start, min(start + self._batch, len(lesson.rows))))).mean()
                self._optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimiser.step()

    def loss(self, parts: list[Lesson]) -> float:
        """Return the mean of the parts' mean losses."""
        self.pupil.network.eval()
        means = []
        with torch.no_grad():
            for part in parts:
                stretches = (np.arange(s, min(s + _STRETCH, len(part.rows))) for s in range(0, len(part.rows), _STRETCH))
                means.append(torch.cat([self._losses(part.part(numbers)) for numbers in stretches]).mean().item())
        return float(np.mean(means)) if means else float("nan")

    def _losses(self, lesson: Lesson) -> Tensor:
        """Return the cross-entropy of each row, ``(b,)``; of a denied row, that of not being of the class."""
        logits = self.pupil.answer(self.pupil.tensors(self.pupil.encode(self.decoded.take(lesson.rows)))).float()
        targets = torch.from_numpy(self.outputs[lesson.targets]).to(self._device)
        known = nn.functional.cross_entropy(logits, targets, reduction="none")
        others = logits.masked_fill(nn.functional.one_hot(targets, logits.shape[1]).bool(), -torch.inf)
        denied = logits.logsumexp(dim=1) - others.logsumexp(dim=1)
        return torch.where(torch.from_numpy(lesson.denied).to(self._device), denied, known)


def _sides(lesson: Lesson, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of the corrected samples of a lesson, and of the trusted ones."""
    corrected = lesson.denied | (lesson.targets != labels[lesson.rows])
    return np.flatnonzero(corrected), np.flatnonzero(~corrected)


def _sample(training_set: TrainingSet) -> list[Any]:
    sample = [entry for entry in training_set.take(spread(len(training_set), _PROBES)) if entry is not None]
    if not sample:
        raise DataError(f"{training_set.location} must have readable samples, but none of those that were tried is.")
    return sample


@contextmanager
def _decoded(
    classifier: Classifier, training_set: TrainingSet, sample: list[Any], folder: Path, progress: Progress | None
) -> Iterator[Decoded]:
    """Yield the inputs of a training set, pictures at the size that the classifier takes."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".decoded-") as scratch:
        if training_set.modality == "image":
            yield decode_pictures(training_set, _size(classifier, sample), Path(scratch), progress)
        elif training_set.modality == "text":
            yield decode_texts(training_set, progress)
        else:
            yield read_arrays(training_set)


def _size(classifier: Classifier, sample: list[Any]) -> ImagePreprocessing:
    said = classifier.preprocessing
    size = common_size(sample)
    if not all(isinstance(said.get(name), int) for name in ("height", "width", "channels")):
        return size
    interpolation = said.get("interpolation", size.interpolation)
    return replace(size, height=said["height"], width=said["width"], channels=said["channels"], interpolation=interpolation)


def _pupil(
    classifier: Classifier,
    training_set: TrainingSet,
    decoded: Decoded,
    lesson: Lesson,
    sample: list[Any],
    rng: np.random.Generator,
    device: str,
    *,
    own: bool,
) -> TorchClassifier:
    """Return a classifier with fresh weights; with ``own``, one that the user's recipe can train, fresh or not."""
    if isinstance(classifier, TorchClassifier) and (own or _can_be_renewed(classifier.network)):
        return classifier.rebuilt(with_fresh_weights(lambda: _renewed(classifier.network), rng), sample)
    if training_set.modality == "array" or own:
        raise ModelError(
            f"A network must be trained again, but the weights of {classifier.name} cannot be drawn anew. "
            "Give the model as PyTorch, with a recipe that trains it: --trainer module:function."
        )
    description = Description(describe_inputs(decoded, lesson.rows), training_set.class_names)
    network = with_fresh_weights(description.build, rng).to(device)
    return description.classifier(network, sample, name="small network of toxscreen's own", device=device)


def _is_pretrained(network: nn.Module) -> bool:
    """Return whether a network comes from the library of pretrained transformers: this data alone would not teach it."""
    return hasattr(network, "save_pretrained")


def _drawn_by(module: nn.Module) -> Callable[[], None] | None:
    """Return what draws a module's own weights anew."""
    return getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)


def _can_be_renewed(network: nn.Module) -> bool:
    owners = (module for module in network.modules() if next(module.parameters(recurse=False), None) is not None)
    return not _is_pretrained(network) and all(_drawn_by(module) for module in owners)


def _renewed(network: nn.Module) -> nn.Module:
    """Return a copy whose weights are drawn anew, all to be trained, where that is possible; else a mere copy."""
    fresh = copy.deepcopy(network)
    if _can_be_renewed(network):
        for module in fresh.modules():
            if draw := _drawn_by(module):
                draw()
        fresh.requires_grad_(requires_grad=True)
    return fresh


def _recipe(pupil: TorchClassifier) -> Recipe:
    if pupil.modality == "text":
        return SENTENCES
    normalised = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in pupil.network.modules())
    recipe = PICTURES if normalised else replace(PICTURES, learning_rate=_GENTLE)
    return recipe if pupil.modality == "image" else replace(recipe, shift=0)


def _ask_trainer(trainer: Trainer, pupil: TorchClassifier, samples: _Samples, folder: Path) -> nn.Module:
    log = folder / "trainer.log"
    try:
        network = trainer(pupil.network, samples)
    except Exception as error:  # the user's own code may raise anything
        log.write_text(traceback.format_exc(), "utf-8")
        raise TrainerError(f"The trainer failed with {type(error).__name__}: {error}. Its traceback is in {log}.") from error
    if network is not None and not isinstance(network, nn.Module):
        raise TrainerError(f"The trainer must return the trained nn.Module or None, got {type(network).__name__}.")
    return pupil.network if network is None else network

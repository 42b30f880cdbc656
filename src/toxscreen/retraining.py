"""Train a classifier again on samples that are trusted: from fresh weights, or on from those it has.

Beside steps 8 and 11 of the flow.

1. A lesson says which rows are shown and which class each of them is; of some it may be known only which class they are not.
2. From fresh weights: the same network where all its weights can be drawn anew, else the network of
   :mod:`toxscreen.networks` that fits. The user's own recipe takes the place of the one here.
3. Onwards: rounds of corrected samples among trusted ones until the validation loss rests, then a few in ever smaller steps.

Weights of 16 bits are trained in 32 and put back: the steps of a training are too small for them.
"""

from __future__ import annotations

import copy
import hashlib
import math
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.utils.data import Dataset

from toxscreen import checkpoint
from toxscreen.decoded import Decoded, Progress, decode_pictures, decode_texts, model_size, read_arrays
from toxscreen.errors import DataError, ModelError, TrainerError
from toxscreen.sources.data.base import TrainingSet, spread
from toxscreen.sources.model import align_classes
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.safetensors_arch import load_weights, read_weights
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

_SCRATCH = ".decoded-"

_GENTLE, _PRETRAINED = 1e-3, 3e-5
"""Learning rate for networks without batch normalisation, which the faster recipe may blow up, and for going on; but networks that
were trained on far more than this data begin with the second."""

_BOLDER = 2.0
"""How many times the learning rate of the round before the next one has, up to the first of these, where the validation loss
fell; else it is taken back. A small transformer, trained on 9,600 texts alone, still obeyed a word in 10 % of texts after ten
rounds at the second rate, and so in 3 %.

**Source:** the bold driver of Vogl et al. 1988, Biological Cybernetics 59, 257-263."""

_MOST_ROUNDS, _FALLING = 6, 4
"""Rounds at most until the validation loss rests, and those after them, over which the learning rate falls to zero."""

_PART, _FEWEST_STEPS = 1 / 8, 16
"""What all rounds may show, as a part of what training from fresh weights would; but a round of tiny data takes so many steps."""

_CORRECTED = 1 / 8
"""Corrected samples of a round, at least: a few are shown several times."""

_TRIMMED = 0.1
"""Part of the corrected samples, those with the highest validation losses, that do not count: a few corrections may be wrong."""

_GAIN, _FAR = 0.05, 0.5
"""The validation loss rests if two rounds lower it by less than the first of these parts of what it was before going on; but not as
long as it is above the second."""


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

    @classmethod
    def joined(cls, lessons: Sequence[Lesson]) -> Lesson:
        """Return several lessons, one after the other, as one."""
        return cls(*(np.concatenate([getattr(each, name) for each in lessons]) for name in ("rows", "targets", "denied")))

    def part(self, numbers: NDArray[Any]) -> Lesson:
        """Return the lesson of some of the rows, chosen by number or by mask."""
        return Lesson(self.rows[numbers], self.targets[numbers], self.denied[numbers])

    def stretches(self, size: int) -> Iterator[Lesson]:
        """Yield the rows in order, ``size`` at a time."""
        return (self.part(np.arange(start, min(start + size, len(self.rows)))) for start in range(0, len(self.rows), size))

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
        certainty: NDArray[np.float32] = self.probabilities.max(axis=1)
        return certainty


@dataclass(frozen=True)
class GoneOn:
    """How going on went: the classifier, validation loss before and after each round, and how many samples were shown in all."""

    classifier: TorchClassifier
    losses: tuple[float, ...]
    shown: int


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
        if (n_classes := len(np.unique(lesson.targets))) < 2:
            raise DataError(
                f"Two classes must be left to train on, but of {training_set.location} {n_classes} is. Take fewer samples out."
            )
        pupil = _pupil(classifier, training_set, decoded, lesson, sample, rng, device, own=trainer is not None)
        outputs = align_classes(training_set.class_names, pupil)
        targets = np.arange(len(training_set.class_names)) if outputs is None else outputs
        key = {"model": pupil.fingerprint(), "data": training_set.fingerprint(), "lesson": lesson.digest(), "seed": seed}
        if trainer is not None:  # asked each time: what it depends on, and which network it returns, nobody else knows
            network = _ask_trainer(trainer, pupil, _Samples(pupil, decoded, lesson, targets), folder)
            return pupil.rebuilt(network, sample)
        key["recipe"] = asdict(_recipe(pupil))
        done = checkpoint.file_for(folder, {**key, "done": True})
        if done.exists():
            with suppress(ModelError):  # what was damaged since is trained again
                load_weights(pupil.network, read_weights(done), done)
                return pupil.rebuilt(pupil.network, sample)
        _fit(pupil, decoded, lesson, targets, rng, checkpoint.file_for(folder, key), progress)
        _keep_weights(pupil.network, done)
    return pupil


def _fit(
    pupil: TorchClassifier,
    decoded: Decoded,
    lesson: Lesson,
    outputs: NDArray[np.int64],
    rng: np.random.Generator,
    resume: Path,
    progress: Progress | None,
) -> None:
    """Train a network in place with the recipe that fits it."""

    def batch(numbers: NDArray[np.int64]) -> Tensor | dict[str, Tensor]:
        return pupil.tensors(pupil.encode(decoded.take(lesson.rows[numbers])))

    narrow = _widen(pupil.network)
    autocast = fast_dtype(next(pupil.network.parameters()).device.type)
    labels, recipe = outputs[lesson.targets], _recipe(pupil)
    fit(_Answering(pupil), batch, labels, recipe, rng, autocast=autocast, progress=progress, resume=resume)
    _narrow(pupil.network, narrow)


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

    A round shows corrected samples (their class is another one than their given label, or they are denied) among trusted ones;
    batch normalisation keeps its statistics, and the answers to trusted samples are held where they were. The weights of the round
    with the lowest validation loss are kept. Corrected and trusted samples have equal weight in that loss, and the tenth of the
    corrected ones that is read worst does not count, so that a few wrong corrections do not decide.

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
        checks = tuple(validation.part(side) for side in _sides(validation, training_set.labels))
        if not len(corrected) or not len(validation.rows):
            raise DataError(
                "Going on needs samples whose class is corrected, and others that are held out, but of those that can be read "
                f"{len(corrected):,} are corrected and {len(validation.rows):,} held out. Train from fresh weights instead."
            )
        pupil = classifier.rebuilt(copy.deepcopy(classifier.network), sample)
        narrow = _widen(pupil.network)
        outputs = align_classes(training_set.class_names, pupil)
        outputs = np.arange(len(training_set.class_names)) if outputs is None else outputs
        n, recipe, most = len(lesson.rows), _recipe(pupil), _MOST_ROUNDS + _FALLING
        size = max(round(_PART * recipe.epochs(n) * n / most), _FEWEST_STEPS * recipe.batch(n))
        before = classifier.rebuilt(copy.deepcopy(pupil.network).eval(), sample)
        rounds = _Rounds(pupil, before, decoded, training_set.labels, outputs, recipe.batch(n))
        losses, best = [rounds.loss(*checks)], copy.deepcopy(pupil.network.state_dict())
        shown, left = 0, _FALLING
        while left:
            falls = left < _FALLING or _rests(losses)
            rows = _round(corrected, trusted, rng, size)
            rounds.show(lesson.part(rows), rng, (left / _FALLING, (left - falls) / _FALLING))
            left -= falls
            shown += len(rows)
            losses.append(rounds.loss(*checks))
            if not falls:
                rounds.adapt(fell=losses[-1] < losses[-2])
            if losses[-1] <= min(losses):
                best = copy.deepcopy(pupil.network.state_dict())
            if progress is not None:
                progress("repairing the model", most - left if falls else len(losses) - 1, most)
        pupil.network.load_state_dict(best)
        _narrow(pupil.network.eval(), narrow)
    return GoneOn(pupil, tuple(losses), shown)


def starts_fresh(classifier: Classifier) -> bool:
    """Return whether the weights of a classifier can be drawn anew; else :func:`retrain` trains another network, or a copy."""
    return isinstance(classifier, TorchClassifier) and _renewed(classifier.network) is not None


def epochs_of(classifier: TorchClassifier, n_samples: int) -> int:
    """Return how many times :func:`retrain` shows each of so many samples to a classifier of this kind."""
    return _recipe(classifier).epochs(n_samples)


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
    """Going on with one network from what it was before; ``labels`` are the given ones, ``outputs`` those of the classes."""

    pupil: TorchClassifier
    before: TorchClassifier
    decoded: Decoded
    labels: NDArray[np.int64]
    outputs: NDArray[np.int64]
    batch: int

    def __post_init__(self) -> None:
        network = self.pupil.network
        if not any(weight.requires_grad for weight in network.parameters()):
            network.requires_grad_(requires_grad=True)
        self._device = next(network.parameters()).device
        self._autocast = fast_dtype(self._device.type)
        self._least = self._rate = _PRETRAINED if _is_pretrained(network) else _GENTLE
        self._optimiser = torch.optim.AdamW(network.parameters(), lr=self._rate, weight_decay=_recipe(self.pupil).weight_decay)

    def adapt(self, *, fell: bool) -> None:
        """Raise the learning rate where the validation loss fell, or take it back; never above or below what is common."""
        self._rate = min(max(self._rate * (_BOLDER if fell else 1 / _BOLDER), self._least), _GENTLE)

    def show(self, lesson: Lesson, rng: np.random.Generator, rates: tuple[float, float]) -> None:
        """Take one step per batch of the lesson, in its order, while the learning rate goes from one part of it to another."""
        network = self.pupil.network.train()
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        steps = math.ceil(len(lesson.rows) / self.batch)
        with torch.random.fork_rng():
            torch.manual_seed(int(rng.integers(2**31)))
            for part, stretch in zip(np.linspace(*rates, steps, endpoint=False), lesson.stretches(self.batch), strict=True):
                for group in self._optimiser.param_groups:
                    group["lr"] = self._rate * float(part)
                logits = self._logits(self.pupil, stretch)
                loss = self._losses(logits, stretch).mean() + self._drift(logits, stretch)
                self._optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimiser.step()

    def loss(self, corrected: Lesson, trusted: Lesson) -> float:
        """Return the mean loss of corrected samples, less the worst, and of trusted ones, in equal parts; of one if it is alone."""
        self.pupil.network.eval()
        with torch.no_grad():
            sides = [
                torch.cat([self._losses(self._logits(self.pupil, stretch), stretch) for stretch in part.stretches(_STRETCH)])
                for part in (corrected, trusted)
                if len(part.rows)
            ]
        if len(corrected.rows):
            sides[0] = sides[0].sort().values[: math.ceil((1 - _TRIMMED) * len(sides[0]))]
        return float(np.mean([float(side.mean()) for side in sides]))

    def _logits(self, classifier: TorchClassifier, lesson: Lesson) -> Tensor:
        """Return the logits of each row, ``(b, n_outputs)``."""
        encoded = classifier.encode(self.decoded.take(lesson.rows))
        with torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None):
            return classifier.answer(classifier.tensors(encoded)).float()

    def _losses(self, logits: Tensor, lesson: Lesson) -> Tensor:
        """Return the cross-entropy of each row, ``(b,)``; of a denied row, that of not being of the class."""
        targets = torch.from_numpy(self.outputs[lesson.targets]).to(self._device)
        known = nn.functional.cross_entropy(logits, targets, reduction="none")
        others = logits.masked_fill(nn.functional.one_hot(targets, logits.shape[1]).bool(), -torch.inf)
        denied = logits.logsumexp(dim=1) - others.logsumexp(dim=1)
        return torch.where(torch.from_numpy(lesson.denied).to(self._device), denied, known)

    def _drift(self, logits: Tensor, lesson: Lesson) -> Tensor:
        """Return how far the logits of the trusted rows have moved: their mean squared difference over the variance they had.

        With a tenth of each class of 30,000 digits of MNIST poisoned, a network of two convolutions reads as many of the test set
        right after the repair as before, and without this 0.1 points fewer.

        **Source:** Li and Hoiem 2016, arXiv 1606.09282, section 3 (the answers from before keep what is learned from being
        forgotten); Ba and Caruana 2014, arXiv 1312.6184, section 2.2 (on logits).
        """
        _, trusted = _sides(lesson, self.labels)
        if not len(trusted):
            return logits.new_zeros(())
        with torch.no_grad():
            before = self._logits(self.before, lesson.part(trusted))
        scale = before.var().clamp_min(torch.finfo(before.dtype).tiny)
        drift: Tensor = (logits[torch.from_numpy(trusted).to(self._device)] - before).square().mean() / scale
        return drift


def _rests(losses: list[float]) -> bool:
    """Return whether the validation loss rests, or was waited for as long as it may be."""
    earlier = min(losses[:-2], default=math.inf)
    resting = min(losses[-2:]) > earlier - _GAIN * losses[0] and losses[-1] <= _FAR * losses[0]
    return resting or len(losses) > _MOST_ROUNDS


def _sides(lesson: Lesson, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of the corrected samples of a lesson, and of the trusted ones."""
    corrected = lesson.denied | (lesson.targets != labels[lesson.rows])
    return np.flatnonzero(corrected), np.flatnonzero(~corrected)


def _round(corrected: NDArray[np.int64], trusted: NDArray[np.int64], rng: np.random.Generator, size: int) -> NDArray[np.int64]:
    """Draw the numbers of the samples of one round, in the order in which they are shown; where there are few, repeatedly."""
    share = max(_CORRECTED, len(corrected) / (len(corrected) + len(trusted)))
    n_corrected = round(share * size)
    drawn = [np.resize(rng.permutation(side), n) for side, n in ((corrected, n_corrected), (trusted, size - n_corrected))]
    order: NDArray[np.int64] = rng.permutation(np.concatenate(drawn))
    return order


def _widen(network: nn.Module) -> dict[str, torch.dtype]:
    """Make weights of 16 bits ones of 32, in place, and return what :func:`_narrow` needs to undo it."""
    held = {name: tensor for name, tensor in _floats(network) if tensor.dtype.itemsize < torch.float32.itemsize}
    narrow = {name: tensor.dtype for name, tensor in held.items()}
    for tensor in held.values():
        tensor.data = tensor.data.float()
    return narrow


def _narrow(network: nn.Module, narrow: Mapping[str, torch.dtype]) -> None:
    """Put the number formats back that a network had before :func:`_widen`."""
    network.zero_grad(set_to_none=True)
    for name, tensor in _floats(network):
        tensor.data = tensor.data.to(narrow.get(name, tensor.dtype))


def _floats(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights and buffers that are floating-point numbers, each once."""
    tensors = chain(network.named_parameters(), network.named_buffers())
    return ((name, tensor) for name, tensor in tensors if tensor.is_floating_point())


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
    for left in folder.glob(f"{_SCRATCH}*"):  # of one that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_SCRATCH) as scratch:
        if training_set.modality == "image":
            yield decode_pictures(training_set, model_size(classifier.preprocessing, sample), Path(scratch), progress)
        elif training_set.modality == "text":
            yield decode_texts(training_set, progress)
        else:
            yield read_arrays(training_set)


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
    if isinstance(classifier, TorchClassifier):
        fresh = with_fresh_weights(lambda: _renewed(classifier.network), rng)
        if fresh is not None or own:
            return classifier.rebuilt(copy.deepcopy(classifier.network) if fresh is None else fresh, sample)
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


def _renewed(network: nn.Module) -> nn.Module | None:
    """Return a copy whose weights are drawn anew, all to be trained; None where some of them cannot be."""
    owners = (module for module in network.modules() if next(module.parameters(recurse=False), None) is not None)
    if _is_pretrained(network) or not all(_drawn_by(module) for module in owners):
        return None
    fresh = copy.deepcopy(network)
    for module in fresh.modules():
        if draw := _drawn_by(module):
            try:
                draw()
            except TypeError:  # it wants to be told more
                return None
    if _keeps_weights(fresh, network):
        return None
    return fresh.requires_grad_(requires_grad=True)


def _keeps_weights(fresh: nn.Module, network: nn.Module) -> bool:
    """Return whether a tensor that holds more than one number is as it was.

    Under weight normalisation, pruning and adapters, what is drawn anew is not what is kept: such a model would still know the
    trigger.
    """
    before = network.state_dict()
    return any(
        tensor.is_floating_point()
        and tensor.numel() > 1
        and bool((tensor != tensor.flatten()[0]).any())
        and torch.equal(tensor, before[name])
        for name, tensor in fresh.state_dict().items()
    )


def _keep_weights(network: nn.Module, path: Path) -> None:
    """Keep the weights of a finished training: whole or not at all."""
    partial = path.with_suffix(".partial")
    save_model(network, str(partial))
    partial.replace(path)


def _recipe(pupil: TorchClassifier) -> Recipe:
    if pupil.modality == "text":
        return SENTENCES
    normalised = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in pupil.network.modules())
    recipe = PICTURES if normalised else replace(PICTURES, learning_rate=_GENTLE)
    return recipe if pupil.modality == "image" else replace(recipe, shift=0)


def _ask_trainer(trainer: Trainer, pupil: TorchClassifier, samples: _Samples, folder: Path) -> nn.Module:
    log = folder / "trainer.log"
    try:
        with redirect_stdout(sys.stderr):  # stdout is for results
            network = trainer(pupil.network, samples)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's own code may raise anything, and must not end the scan
        log.write_text(traceback.format_exc(), "utf-8", "backslashreplace")
        said = "; ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
        raise TrainerError(f"The trainer failed with {said}. Its traceback is in {log}.") from error
    if network is not None and not isinstance(network, nn.Module):
        raise TrainerError(f"The trainer must return the trained nn.Module or None, got {type(network).__name__}.")
    network = pupil.network if network is None else network
    if broken := next((name for name, tensor in network.named_parameters() if not bool(tensor.isfinite().all())), None):
        raise TrainerError(
            f"The trainer must return a network whose weights are finite numbers, but those of {broken} are not: the training "
            "diverged. Lower its learning rate."
        )
    return network

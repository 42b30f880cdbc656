"""The subject of a cell: its poisoned data, the model trained on them, and the scan, each made when it is first asked for.

What costs time is kept in the work folder: weights, activations and the run. The poison is drawn again from the seed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from toxscreen.activations import Activations
from toxscreen.audit import audit, audit_arrays
from toxscreen.benchmark.cases import Case, Planted, Split, load, plant, triggered
from toxscreen.benchmark.grid import Settings
from toxscreen.benchmark.networks import build, recipe
from toxscreen.config import ConfirmationConfig, ScanConfig
from toxscreen.metrics import Metrics, score
from toxscreen.repairing.model import Repair, repair
from toxscreen.result import ScanResult, Verdict
from toxscreen.result import load as load_run
from toxscreen.sources.data import open_training_set
from toxscreen.sources.data.base import Input
from toxscreen.sources.model import open_classifier
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.preprocessing import ImagePreprocessing
from toxscreen.store import ActivationStore
from toxscreen.training import fast_dtype, fit, train_classifier, with_fresh_weights

_BATCH = 512
_PIXELS = ImagePreprocessing(mean=(0.5,), std=(0.25,))
"""How the networks of the benchmark take pictures."""


class Subject:
    """One cell: a case with a seed.

    Parameters
    ----------
    case, seed
        The cell; the seed decides the rows, the poison and the training.
    settings
        Where data and work are.
    """

    def __init__(self, case: Case, seed: int, settings: Settings) -> None:
        self.case = case
        self.seed = seed
        self._settings = settings
        self.folder = _claim(settings.work / f"{_slug(case.name)}-{seed}", case)
        self._data_rng, self._plant_rng, self._train_rng, self._test_rng = np.random.default_rng(seed).spawn(4)

    @cached_property
    def _loaded(self) -> tuple[Split, Split]:
        return load(self.case, self._settings.data, self._settings.work / "data", self._data_rng)

    @cached_property
    def planted(self) -> Planted:
        """Return the poisoned training set and the truth about it."""
        return plant(self.case, self._loaded[0], self._plant_rng)

    @cached_property
    def real_classes(self) -> NDArray[np.int64]:
        """Return the class of each training sample before classes were merged or poison was planted, shape ``(n_samples,)``."""
        rng = np.random.default_rng(self.seed).spawn(4)[0]
        case = replace(self.case, merged=False, plants=())
        return load(case, self._settings.data, self._settings.work / "data", rng)[0].labels

    @property
    def held_out(self) -> Split:
        """Return clean samples that no model is trained on."""
        return self._loaded[1]

    @property
    def modality(self) -> str:
        """Return ``image`` or ``text``."""
        return "image" if isinstance(self.planted.split.inputs, np.ndarray) else "text"

    @cached_property
    def clean(self) -> Subject:
        """Return the same data with nothing planted, and the model that is trained on them."""
        return Subject(self.case.clean, self.seed, self._settings)

    @cached_property
    def classifier(self) -> Classifier:
        """Return the model trained on the poisoned data."""
        return self.trained(self.planted.split, "model")

    def trained(self, split: Split, folder: str) -> Classifier:
        """Return a model trained on ``split`` from fresh weights, kept in ``folder`` with its seconds and epochs."""
        place = self.folder / folder
        rng = np.random.default_rng([self.seed, len(folder)])
        start = time.perf_counter()
        if not isinstance(split.inputs, np.ndarray):
            training_set = open_training_set((split.inputs, _named(split)), class_names=split.class_names)
            known = (place / "seconds.json").exists()
            classifier = train_classifier(training_set, None, place, seed=self.seed).classifier
            if not known:
                _write(place / "seconds.json", {"seconds": time.perf_counter() - start})
            return classifier
        return self._of_network(self._network(split, place, rng), split)

    def _network(self, split: Split, place: Path, rng: np.random.Generator) -> torch.nn.Module:
        from safetensors.torch import load_file, save_file

        pixels = np.asarray(split.inputs)
        shape, device = pixels.shape[1:], _device()
        network = with_fresh_weights(lambda: build(self.case.network, shape, len(split.class_names)), rng).to(device)
        if (place / "seconds.json").exists():
            network.load_state_dict(load_file(place / "weights.safetensors"))
            return network.eval()
        place.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        tensor = torch.from_numpy(_PIXELS.completed([pixels[0]]).apply(list(pixels))).to(device)
        how = recipe(self.case.network, self.case.epochs)
        resume = place / ".training.safetensors"
        fit(
            network, lambda rows: tensor[torch.from_numpy(rows)], split.labels, how, rng, autocast=fast_dtype(device), resume=resume
        )
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        save_file(state, place / "weights.safetensors")
        seconds = time.perf_counter() - start
        _write(place / "seconds.json", {"seconds": seconds, "epochs": how.epochs(len(split.labels))})
        return network

    def _of_network(self, network: torch.nn.Module, split: Split) -> Classifier:
        return open_classifier(
            network,
            n_classes=len(split.class_names),
            modality="image",
            sample=list(split.inputs[:64]),
            preprocessing=_PIXELS.completed([split.inputs[0]]),
        )

    def training(self, folder: str = "model") -> dict[str, Any]:
        """Return seconds and epochs of a training that is done."""
        document: dict[str, Any] = json.loads((self.folder / folder / "seconds.json").read_text("utf-8"))
        return document

    @cached_property
    def result(self) -> ScanResult:
        """Return the scan of the poisoned data with their model: what a user would get, and its run folder."""
        return self._scanned("run", ScanConfig(seed=self.seed))

    @cached_property
    def confirmed(self) -> ScanResult:
        """Return the same scan with exclusionary reclassification; it reads the activations that are stored."""
        _ = self.result
        return self._scanned("confirmed", ScanConfig(seed=self.seed, confirmation=ConfirmationConfig(asked=True)))

    def _scanned(self, kept: str, config: ScanConfig) -> ScanResult:
        if (self.folder / kept / "result.json").exists():
            return load_run(self.folder / kept)
        split, folder = self.planted.split, self.folder / "run"
        result = audit(self.as_data, self.classifier, config=config, class_names=split.class_names, folder=folder)
        result.save(self.folder / kept)
        return result

    @property
    def as_data(self) -> tuple[Any, list[str]]:
        """Return the poisoned training set as a user in Python hands it over: inputs and names of classes."""
        return self.planted.split.inputs, _named(self.planted.split)

    def repaired(self, *, retrain: bool) -> Repair:
        """Return the repair of the confirmed scan: relabelled and trained on, or without the flagged samples from fresh weights."""
        out = self.folder / ("repair-retrained" if retrain else "repair-relabelled")
        return repair(self.confirmed, None, out, data=self.as_data, model=self.classifier, retrain=retrain, seed=self.seed)

    @cached_property
    def activations(self) -> Activations:
        """Return what the scan stored."""
        return ActivationStore.open(self.store).activations()

    @property
    def store(self) -> Path:
        """Return the folder of the activations that the scan stored."""
        _ = self.result
        return self.folder / "run" / "activations"

    @property
    def layer(self) -> str:
        """Return the name of the layer that is clustered."""
        return str(self.result.inputs["model"]["layer"])

    @property
    def last_hidden(self) -> NDArray[np.float32]:
        """Return the activations that are clustered, shape ``(n_samples, d)``."""
        return self.activations.layers[self.layer][:]

    def rescan(self, rows: NDArray[np.int64] | slice = slice(None), **settings: Any) -> ScanResult:
        """Scan the stored activations, logits and input view again, those of some rows alone if they are named.

        ``settings`` are as :class:`ScanConfig` takes them.
        """
        layers = {name: values[rows] for name, values in {self.layer: self.last_hidden, **self.activations.layers}.items()}
        logits = None if self.activations.logits is None else self.activations.logits[rows]
        split = self.planted.split
        config = ScanConfig(**{"seed": self.seed, **settings})
        names = np.asarray(split.class_names, object)[split.labels[rows]].tolist()
        return audit_arrays(layers, names, logits=logits, class_names=split.class_names, config=config)

    def against_truth(self, samples: pa.Table) -> Metrics:
        """Hold a scan's samples against the truth."""
        planted = self.planted
        return score(samples, pa.table({"id": samples["id"], "poisoned": planted.poisoned, "cover": planted.cover}))

    def samples_of(self, flagged: NDArray[np.bool_]) -> pa.Table:
        """Return flags, shape ``(n_samples,)``, as the samples of a scan."""
        names = pa.array(_named(self.planted.split))
        ids = pa.array(np.arange(len(flagged)).astype(str), pa.string())
        verdicts = pa.array(np.where(flagged, str(Verdict.SUSPICIOUS), str(Verdict.CLEAN)).tolist(), pa.string())
        return pa.table({"id": ids, "label": names, "flagged": flagged, "verdict": verdicts})

    def clean_accuracy(self, classifier: Classifier) -> float:
        """Return the part of the held-out samples that a model reads right."""
        return float(np.mean(predict(classifier, self.held_out.inputs) == self.held_out.labels))

    def attack_success(self, classifier: Classifier) -> float | None:
        """Return the part of triggered held-out samples that go where the attacker wants, by the plant that works best, or None."""
        rates = []
        plants = self.case.plants
        rngs = np.random.default_rng(self.seed).spawn(len(plants))
        for part, attack, rng in zip(plants, self.planted.attacks, rngs, strict=True):
            inputs, goals = triggered(part, attack, self.held_out, rng)
            rates.append(float(np.mean(predict(classifier, inputs) == goals)))
        return max(rates, default=None)


def predict(classifier: Classifier, inputs: Sequence[Input] | NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the model's output index of each input, shape ``(n,)``."""
    batches = (list(inputs[start : start + _BATCH]) for start in range(0, len(inputs), _BATCH))
    return np.concatenate([classifier.forward(classifier.encode(batch), ()).logits.argmax(axis=1) for batch in batches])


def _named(split: Split) -> list[str]:
    return np.asarray(split.class_names, object)[split.labels].tolist()  # type: ignore[no-any-return]


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")


def _claim(folder: Path, case: Case) -> Path:
    """Make the cell's folder, and empty it if it was made for other settings under the same name.

    A setting that a folder does not know is newer than it, and had its default then.
    """
    import shutil

    said = json.loads(json.dumps(asdict(case)))
    if (folder / "case.json").exists():
        known = json.loads((folder / "case.json").read_text("utf-8"))
        if {**asdict(Case(case.name, case.data)), **known} != said:
            shutil.rmtree(folder)
    _write(folder / "case.json", said)
    return folder


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1), "utf-8")

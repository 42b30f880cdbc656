"""The classifiers that toxscreen trained itself: a folder with ``weights.safetensors`` and ``toxscreen.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from toxscreen.errors import ModelError, UsageError
from toxscreen.networks import SentenceCNN, SmallResNet
from toxscreen.sources.data.base import Input, Modality
from toxscreen.sources.model.json_file import as_names, read_json
from toxscreen.sources.model.kind import ModelSummary, Request
from toxscreen.sources.model.preprocessing import ImagePreprocessing
from toxscreen.sources.model.safetensors_arch import load_weights, read_header, read_weights
from toxscreen.sources.model.torch_module import TorchClassifier
from toxscreen.sources.model.words import Vocabulary

WEIGHTS, DESCRIPTION = "weights.safetensors", "toxscreen.json"
_VERSION = 1


@dataclass(frozen=True)
class Description:
    """Everything about a network of toxscreen's own but its weights.

    Attributes
    ----------
    preprocessing
        Completed settings for pictures make it a :class:`SmallResNet`, a vocabulary a :class:`SentenceCNN`.
    class_names
        One per output.
    """

    preprocessing: ImagePreprocessing | Vocabulary
    class_names: tuple[str, ...]

    @property
    def modality(self) -> Modality:
        """Return the kind of input."""
        return "image" if isinstance(self.preprocessing, ImagePreprocessing) else "text"

    def build(self) -> nn.Module:
        """Return the network with fresh weights.

        Raises
        ------
        ModelError
            The pictures' size or channels are not known.
        """
        if isinstance(self.preprocessing, Vocabulary):
            return SentenceCNN(self.preprocessing.size, len(self.class_names))
        height, width, channels = self.preprocessing.height, self.preprocessing.width, self.preprocessing.channels
        if height is None or width is None or channels is None:
            raise ModelError(f"A network for pictures needs their size and channels, got {height} x {width} and {channels}.")
        return SmallResNet(channels, len(self.class_names), min(height, width))

    def classifier(
        self,
        network: nn.Module,
        sample: Sequence[Input],
        *,
        name: str = "",
        location: str = "",
        layer: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
    ) -> TorchClassifier:
        """Return a network of this description as a classifier; see :class:`TorchClassifier`."""
        return TorchClassifier(
            network,
            self.preprocessing,
            modality=self.modality,
            sample=sample,
            n_classes=len(self.class_names),
            name=name,
            location=location or "trained by toxscreen",
            class_names=self.class_names,
            layer=layer,
            device=device,
            dtype=dtype,
        )


def save_trained(network: nn.Module, folder: Path, description: Description) -> None:
    """Write a network that ``description`` built into a folder, which is made where there is none.

    The description is written last, so that a folder is recognised only when it is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"toxscreen": str(_VERSION)})
    document = {
        "toxscreen_model": _VERSION,
        "modality": description.modality,
        "preprocessing": _preprocessing_document(description.preprocessing),
        "class_names": list(description.class_names),
    }
    (folder / DESCRIPTION).write_text(json.dumps(document, ensure_ascii=True, indent=1), encoding="utf-8")


def read_description(folder: Path) -> Description:
    """Return what ``toxscreen.json`` says.

    Raises
    ------
    ModelError
        It is not what :func:`save_trained` writes.
    """
    path = folder / DESCRIPTION
    document = read_json(path)
    try:
        if document["toxscreen_model"] != _VERSION:
            raise ModelError(f"{path} must be of version {_VERSION}, got {document['toxscreen_model']!r}. Use a newer toxscreen.")
        settings = document["preprocessing"]
        preprocessing = (
            Vocabulary(_names(settings["words"], path))
            if document["modality"] == "text"
            else ImagePreprocessing.described(settings)
        )
        return Description(preprocessing, _names(document["class_names"], path))
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise ModelError(f"{path} must be as toxscreen wrote it, but is damaged: {error!r}. Train the model again.") from error


def recognises(path: Path) -> bool:
    """Return whether this is a folder that :func:`save_trained` wrote, or the weights in it."""
    folder = _folder(path)
    return (folder / DESCRIPTION).is_file() and (folder / WEIGHTS).is_file()


def open_path(path: Path, request: Request) -> TorchClassifier:
    """Open what :func:`save_trained` wrote.

    Raises
    ------
    ModelError
        The description or the weights are damaged, or it takes another kind of input than the data has.
    UsageError
        Preprocessing was given although the model has its own.
    """
    folder = _folder(path)
    request.refuse_arch(folder)
    request.refuse_preprocessing(folder / DESCRIPTION)
    description = read_description(folder)
    if description.modality != request.modality:
        raise ModelError(
            f"The model in {folder} takes inputs of the kind {description.modality!r}, but the data has {request.modality!r}."
        )
    with torch.device("meta"):  # nothing is allocated on the word of a file
        network = description.build()
    load_weights(network, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    return description.classifier(
        network,
        request.sample,
        name=folder.name,
        location=str(folder),
        layer=request.layer,
        device=request.device,
        dtype=request.dtype,
    )


def summarise(path: Path) -> ModelSummary:
    """Return what the description and the header of the weights say."""
    folder = _folder(path)
    description = read_description(folder)
    tensors, _ = read_header(folder / WEIGHTS)
    return ModelSummary(
        kind=f"{description.modality} classifier trained by toxscreen",
        n_bytes=(folder / WEIGHTS).stat().st_size,
        n_parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        tensors=tensors,
        tensors_are="weights",
        class_names=description.class_names,
        last_hidden="head.input",
        notes=(f"preprocessing: {json.dumps(description.preprocessing.describe())}",),
    )


def _folder(path: Path) -> Path:
    return path.parent if path.name == WEIGHTS else path


def _preprocessing_document(preprocessing: ImagePreprocessing | Vocabulary) -> dict[str, Any]:
    return {"words": list(preprocessing.words)} if isinstance(preprocessing, Vocabulary) else asdict(preprocessing)


def _names(value: Any, path: Path) -> tuple[str, ...]:
    names = as_names(value, path)
    if names is None:
        raise ValueError("class names and words must be lists of strings")
    return names

"""Kinds of model, one member per file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toxscreen.errors import ModelError, UsageError
from toxscreen.sources.data.base import Input, Modality
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.classes import align_classes, unlike_names
from toxscreen.sources.model.kind import Kind, Request
from toxscreen.sources.model.preprocessing import Preprocessing
from toxscreen.sources.model.refused import refuse_unsafe

if TYPE_CHECKING:
    from torch import nn

__all__ = ["align_classes", "find_kind", "open_classifier", "unlike_names"]


def _kinds() -> tuple[Kind, ...]:
    """Return the kinds of model file in the order in which they are asked; torch is imported only here."""
    from toxscreen.sources.model import huggingface, onnx_file, safetensors_arch, trained

    return (
        trained,
        onnx_file,
        huggingface,
        safetensors_arch,
    )


def find_kind(path: Path) -> Kind | None:
    """Return the kind of a model file or folder, or None if it is no model that can be opened."""
    return next((kind for kind in _kinds() if kind.recognises(path)), None)


def open_classifier(
    model: str | Path | nn.Module | Classifier,
    *,
    n_classes: int,
    modality: Modality,
    sample: Sequence[Input],
    arch: str | None = None,
    preprocessing: Preprocessing | None = None,
    layer: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
) -> Classifier:
    """Open a classifier.

    Parameters
    ----------
    model
        A path, a live ``nn.Module``, or a classifier, which is returned as it is.
    n_classes
        Classes of the data.
    modality
        What the data's inputs are.
    sample
        A few of them, with which the model is traced.
    arch
        ``module:factory``, for weights without a network.
    preprocessing
        For models whose files do not say how inputs become numbers.
    layer
        Taken for the last hidden layer where no classification head can be found.
    device
        None: where a live module is, else the CPU.
    dtype
        ``"float32"`` or ``"bfloat16"``.

    Raises
    ------
    ModelError
        It cannot be read, does not fit the data, or has no classification head that can be found.
    RefusedError
        Reading it would run what its author put into it.
    UsageError
        A setting does not fit this kind of model.
    MissingExtraError
        The kind needs a package that is not installed.
    """
    if isinstance(model, Classifier):
        return model
    request = Request(n_classes, modality, sample, arch, preprocessing, layer, device, dtype)
    if not isinstance(model, str | Path):
        return _open_live(model, request)
    path = Path(model)
    if not path.exists():
        raise ModelError(f"There is no model at {path}.")
    refuse_unsafe(path)
    kind = find_kind(path)
    if kind is None:
        raise ModelError(
            f"{path} must be a safetensors file (with --arch), an ONNX file, or a Hugging Face folder with config.json and "
            "safetensors, but is none of them. toxscreen inspect says what it is."
        )
    return kind.open_path(path, request)


def _open_live(network: nn.Module, request: Request) -> Classifier:
    from torch import nn

    from toxscreen.sources.model.preprocessing import resolve_preprocessing
    from toxscreen.sources.model.torch_module import TorchClassifier

    if not isinstance(network, nn.Module):
        raise UsageError(f"A model must be a path or an nn.Module, got {type(network).__name__}.")
    if request.arch is not None:
        raise UsageError("--arch names the code for a file of weights; a live module needs none.")
    return TorchClassifier(
        network,
        resolve_preprocessing(request.modality, request.preprocessing, request.sample),
        modality=request.modality,
        sample=request.sample,
        n_classes=request.n_classes,
        layer=request.layer,
        device=request.device,
        dtype=request.dtype,
    )

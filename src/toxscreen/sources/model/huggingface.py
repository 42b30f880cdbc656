"""A Hugging Face folder: ``config.json`` and safetensors, for text or image classification."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from toxscreen.errors import ModelError, RefusedError
from toxscreen.sources.data.base import Modality
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.huggingface_inputs import (
    FROM_FILES_ONLY,
    IMAGE_PROCESSOR,
    TokenizerPreprocessing,
    first_line,
    from_files_only,
    open_image_processor,
    open_tokenizer,
    refuse_custom_code,
)
from toxscreen.sources.model.json_file import as_names, read_json
from toxscreen.sources.model.kind import ModelSummary, Request
from toxscreen.sources.model.preprocessing import Preprocessing, resolve_preprocessing
from toxscreen.sources.model.safetensors_arch import read_header
from toxscreen.sources.model.settings_file import read_settings
from toxscreen.sources.model.torch_module import TorchClassifier

CONFIG = "config.json"
_CONVERT = (
    'python -c "from transformers import AutoModelForSequenceClassification as M; '
    "M.from_pretrained('NAME').save_pretrained('NAME')\" (for pictures AutoModelForImageClassification)"
)
_TASKS: dict[str, Modality] = {"ForSequenceClassification": "text", "ForImageClassification": "image"}


def recognises(path: Path) -> bool:
    """Return whether this is a folder with a ``config.json``."""
    return path.is_dir() and (path / CONFIG).is_file()


def open_path(path: Path, request: Request) -> Classifier:
    """Open the folder with transformers: from files only, safetensors only, and no code but the library's.

    Raises
    ------
    RefusedError
        Its weights are pickles, or its settings name code of its own.
    ModelError
        It is no classifier, or one for another kind of input, or it is damaged.
    UsageError
        Preprocessing was given although the folder has its own.
    """
    request.refuse_arch(path)
    config = _checked_config(path)
    modality = _modality(config, path)
    if modality != request.modality:
        raise ModelError(f"The model in {path} takes inputs of the kind {modality!r}, but the data has {request.modality!r}.")
    preprocessing = _preprocessing(path, config, request)
    network = _network(path, modality)
    if isinstance(preprocessing, TokenizerPreprocessing) and network.config.pad_token_id is None:
        network.config.pad_token_id = preprocessing.tokenizer.pad_token_id  # a decoder looks for the last word before it
    return TorchClassifier(
        network,
        preprocessing,
        modality=modality,
        sample=request.sample,
        n_classes=request.n_classes,
        name=path.resolve().name,
        location=str(path),
        class_names=as_names(config.get("id2label"), path / CONFIG),
        layer=request.layer,
        device=request.device,
        dtype=request.dtype,
    )


def summarise(path: Path) -> ModelSummary:
    """Return what the settings and the headers of the weights say."""
    config = _checked_config(path)
    tensors = tuple(tensor for file in _weights(path) for tensor in read_header(file)[0])
    architecture = ", ".join(_architectures(config)) or "unnamed architecture"
    return ModelSummary(
        kind=f"Hugging Face folder ({architecture})",
        n_bytes=sum(file.stat().st_size for file in _weights(path)),
        n_parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        tensors=tensors,
        tensors_are="weights",
        class_names=as_names(config.get("id2label"), path / CONFIG),
        notes=(f"for {_modality(config, path)} classification",),
    )


def _checked_config(path: Path) -> dict[str, Any]:
    """Return the settings of a folder from which nothing but numbers will be read."""
    refuse_custom_code(path)
    if (path / "adapter_config.json").exists():
        raise ModelError(
            f"{path} must hold a whole model, but is an adapter to one. Merge the two: merge_and_unload().save_pretrained()."
        )
    if not _weights(path):
        pickled = sorted(file.name for file in path.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack"))
        if not pickled:
            raise ModelError(f"{path} must hold the weights of its model as safetensors, but there are none.")
        raise RefusedError(
            f"{path} has its weights in {', '.join(pickled[:3])} only and is not opened: reading such a file may run whatever code "
            f"its author put into it. Its owner can convert it: {_CONVERT.replace('NAME', path.name)}"
        )
    return read_json(path / CONFIG)


def _weights(path: Path) -> list[Path]:
    return sorted(path.glob("*.safetensors"))


def _modality(config: dict[str, Any], path: Path) -> Modality:
    """Return the kind of input of the one task that the architecture is for."""
    architectures = _architectures(config)
    for task, modality in _TASKS.items():
        if any(task in name for name in architectures):
            return modality
    raise ModelError(
        f"The model in {path} must be a classifier of texts or pictures ({' or '.join(_TASKS)}), "
        f"but its architecture is {', '.join(architectures) or 'not named'}."
    )


def _architectures(config: dict[str, Any]) -> list[str]:
    named = config.get("architectures")
    return [str(name) for name in named] if isinstance(named, list) else []


def _preprocessing(path: Path, config: dict[str, Any], request: Request) -> Preprocessing:
    """Return what the folder's own files say, else what the request says of pictures."""
    if request.modality == "image" and not (path / IMAGE_PROCESSOR).is_file():
        return resolve_preprocessing("image", request.preprocessing or read_settings(path), request.sample)
    request.refuse_preprocessing(path)
    return open_tokenizer(path, config) if request.modality == "text" else open_image_processor(path, config)


def _network(path: Path, modality: Modality) -> Any:
    """Return the network with all its weights."""
    with from_files_only() as transformers:
        tasks = {"text": transformers.AutoModelForSequenceClassification, "image": transformers.AutoModelForImageClassification}
        try:
            config = transformers.AutoConfig.from_pretrained(path, **FROM_FILES_ONLY)
            # The settings may name an attention that is fetched as compiled code; eager is the library's own.
            config._attn_implementation = "eager"
            network, info = tasks[modality].from_pretrained(
                path, config=config, use_safetensors=True, output_loading_info=True, **FROM_FILES_ONLY
            )
        except Exception as error:  # the library raises whatever it meets in a stranger's files
            raise ModelError(f"{path} must be a model that transformers can read, but: {first_line(error)}") from error
    unfit = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if unfit:
        raise ModelError(
            f"The weights in {path} must be those of its architecture, but {', '.join(unfit[:3])} are missing or misfit."
        )
    return network.float()

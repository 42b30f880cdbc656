"""``weights.safetensors`` for a network that the user's own code builds, named with ``--arch module:factory``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from toxscreen.errors import ModelError, UsageError
from toxscreen.sources.model.base import Classifier, Layer
from toxscreen.sources.model.kind import ModelSummary, Request
from toxscreen.sources.model.preprocessing import resolve_preprocessing
from toxscreen.sources.model.refused import is_safetensors
from toxscreen.sources.model.settings_file import read_settings
from toxscreen.sources.model.torch_module import TorchClassifier
from toxscreen.sources.model.user_code import load_function

_WRAPPERS = ("module.", "_orig_mod.")
"""What data parallelism and torch.compile put before every name."""


def recognises(path: Path) -> bool:
    """Return whether this is a safetensors file, or a folder with exactly one."""
    return _weights_file(path) is not None


def open_path(path: Path, request: Request) -> Classifier:
    """Open the weights with the architecture that the user names.

    Raises
    ------
    UsageError
        No architecture was named.
    ModelError
        It cannot be imported or built, or the weights do not fit.
    """
    weights = _weights_file(path) or path
    if request.arch is None:
        raise UsageError(
            f"{weights} holds weights without a network. Name the code that builds it: --arch module:factory, "
            "a function in an importable module, or in module.py beside the weights or in the current folder."
        )
    network = _built(request.arch, weights.parent, request.n_classes)
    load_weights(network, read_weights(weights), weights)
    return TorchClassifier(
        network,
        resolve_preprocessing(request.modality, request.preprocessing or read_settings(weights.parent), request.sample),
        modality=request.modality,
        sample=request.sample,
        n_classes=request.n_classes,
        name=weights.stem,
        location=str(weights),
        layer=request.layer,
        device=request.device,
        dtype=request.dtype,
    )


def summarise(path: Path) -> ModelSummary:
    """Return what the file's header says."""
    weights = _weights_file(path) or path
    tensors, metadata = read_header(weights)
    return ModelSummary(
        kind="safetensors weights",
        n_bytes=weights.stat().st_size,
        n_parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        tensors=tensors,
        tensors_are="weights",
        notes=("needs --arch module:factory", *(f"{key}: {value}" for key, value in metadata.items())),
    )


def read_header(path: Path) -> tuple[tuple[Layer, ...], dict[str, str]]:
    """Return the names, shapes and kinds of the tensors and the file's metadata; no weight is read.

    Raises
    ------
    ModelError
        The header is damaged.
    """
    try:
        with safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
            tensors = tuple(Layer(name, tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items())
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(_damaged(path, error)) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file.

    Raises
    ------
    ModelError
        The file is damaged.
    """
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(_damaged(path, error)) from error
    return weights


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Put weights into a network, which is in evaluation mode then.

    Raises
    ------
    ModelError
        Names or shapes differ from the network's.
    """
    for wrapper in _WRAPPERS:
        if weights and all(name.startswith(wrapper) for name in weights):
            weights = {name.removeprefix(wrapper): tensor for name, tensor in weights.items()}
    state = network.state_dict(keep_vars=True)
    loaded = {id(state[name]) for name in weights if name in state}
    lacking = [name for name, tensor in state.items() if name not in weights and id(tensor) not in loaded]
    needless = [name for name in weights if name not in state]
    misfits = [
        f"{name} (file {tuple(tensor.shape)}, network {tuple(state[name].shape)})"
        for name, tensor in weights.items()
        if name in state and state[name].shape != tensor.shape
    ]
    said = (("the file lacks", lacking), ("the network has no place for", needless), ("the shapes differ in", misfits))
    problems = [f"{what} {_first(names)}" for what, names in said if names]
    if problems:
        raise ModelError(f"The weights in {path} must fit the network {type(network).__name__}, but {'; '.join(problems)}.")
    if any(tensor.is_meta for tensor in state.values()):
        network.to_empty(device="cpu")  # only now, as the file's shapes fit
    network.load_state_dict(dict(weights), strict=False)
    for module in network.modules():
        module.training = False  # eval() may be overridden and do more


def _weights_file(path: Path) -> Path | None:
    """Return the safetensors file that a path means."""
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        return files[0] if len(files) == 1 else None
    return path if path.suffix.lower() == ".safetensors" or is_safetensors(path) else None


def _built(arch: str, folder: Path, n_classes: int) -> nn.Module:
    """Import and call the user's factory, and return its network."""
    factory = load_function(arch, "--arch", folder)
    try:
        network = factory(**_arguments(factory, n_classes))
    except Exception as error:  # the user's own code may raise anything
        raise ModelError(f"--arch {arch} must build a network, but failed with {type(error).__name__}: {error}.") from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"--arch {arch} must return an nn.Module, got {type(network).__name__}.")
    return network


def _arguments(factory: Callable[..., Any], n_classes: int) -> dict[str, int]:
    """Return the number of classes under the name by which a factory takes it."""
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:
        return {}
    return {name: n_classes for name in ("num_classes", "n_classes") if name in parameters}


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} must be a safetensors file, but cannot be read: {error}. Save it again."


def _first(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

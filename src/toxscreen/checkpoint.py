"""The state of a training on disk: weights, optimiser, schedule and generators, as safetensors and JSON. Nothing is pickled.

Beside step 1 of the flow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_WEIGHT, _MOMENT, _GENERATOR = "weight.", "moment.", "generator"

_SCHEDULED = ("lr", "betas", "initial_lr", "max_lr", "min_lr")
"""What a one-cycle schedule changes in the groups of an optimiser."""


def file_for(folder: Path, key: Mapping[str, Any]) -> Path:
    """Return where the state of the training that ``key`` decides is kept: another key is another file."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder / f".training-{digest[:16]}.safetensors"


def keep(
    path: Path, network: nn.Module, optimiser: Optimizer, schedule: LRScheduler, rng: np.random.Generator, *, done: int
) -> None:
    """Write the state after ``done`` epochs: whole or not at all.

    Raises
    ------
    OSError, SafetensorError
        The file cannot be written.
    """
    tensors = {f"{_WEIGHT}{name}": tensor for name, tensor in network.state_dict().items()}
    for number, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"{_MOMENT}{number}.{name}": value for name, value in moments.items() if isinstance(value, Tensor)}
    tensors[_GENERATOR] = torch.get_rng_state()
    groups = [{name: group[name] for name in _SCHEDULED} for group in optimiser.param_groups]
    said = {"done": done, "schedule": _plain(schedule), "groups": groups, "rng": rng.bit_generator.state}
    copies = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    partial = path.with_suffix(".partial")
    save_file(copies, partial, {"state": json.dumps(said)})
    partial.replace(path)


def restore(path: Path, network: nn.Module, optimiser: Optimizer, schedule: LRScheduler, rng: np.random.Generator) -> int:
    """Take up the state that :func:`keep` wrote, and return how many epochs are done; 0 where there is none that can be read."""
    try:
        with safe_open(path, "pt") as file:
            said = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return 0
    network.load_state_dict({name.removeprefix(_WEIGHT): value for name, value in tensors.items() if name.startswith(_WEIGHT)})
    moments: dict[int, dict[str, Tensor]] = {}
    for name in (name for name in tensors if name.startswith(_MOMENT)):
        number, _, moment = name.removeprefix(_MOMENT).partition(".")
        moments.setdefault(int(number), {})[moment] = tensors[name]
    groups = [group | kept for group, kept in zip(optimiser.state_dict()["param_groups"], said["groups"], strict=True)]
    optimiser.load_state_dict({"state": moments, "param_groups": groups})
    schedule.load_state_dict(schedule.state_dict() | said["schedule"])
    rng.bit_generator.state = said["rng"]
    torch.set_rng_state(tensors[_GENERATOR])
    return int(said["done"])


def _plain(schedule: LRScheduler) -> dict[str, Any]:
    """Return what of a schedule's state changes from step to step."""
    return {name: value for name, value in schedule.state_dict().items() if isinstance(value, int | float | list)}

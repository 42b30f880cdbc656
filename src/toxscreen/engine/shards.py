"""Shards: what was computed of one batch, each in a file of its own, written by the machine that computed it.

All machines share the file system that holds them. A file of its own is what no two machines can get in each other's way with; it
is there as a whole or not at all, and whoever reads it holds it against its checksum. The store takes the shards in and they go.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toxscreen.activations import Computed
from toxscreen.errors import StoreError
from toxscreen.sources.data.base import NotExamined

_SUFFIX = ".safetensors"


def shard_path(folder: Path, rows: NDArray[np.int64]) -> Path:
    """Return where the shard of a batch lies: the same rows, the same file."""
    return folder / f"{hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest()}{_SUFFIX}"


def shards_in(folder: Path) -> list[Path]:
    """Return the shards in a folder, which need not be there."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def write_shard(path: Path, computed: Computed, key: str) -> None:
    """Write a shard.

    Parameters
    ----------
    path
        From :func:`shard_path`; its folder is there.
    computed
        What the model made of a batch.
    key
        What it was computed from and how.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    from safetensors.numpy import save

    layers = {f"layer-{index}": values for index, values in enumerate(computed.layers.values())}
    named: dict[str, NDArray[Any]] = {"rows": computed.rows, "logits": computed.logits, **layers}
    arrays = {name: np.ascontiguousarray(array) for name, array in named.items()}
    document = {"layers": list(computed.layers), "not_examined": [asdict(entry) for entry in computed.not_examined]}
    about = {"key": key, "about": json.dumps(document)}
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        temporary.write_bytes(save(arrays, metadata=about | {"checksum": _checksum(arrays, about)}))
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(
            f"What was computed could not be written to {path.parent}: {error}. "
            "Free some space and run the same command again: what was computed before is kept."
        ) from error


def read_shard(path: Path, key: str) -> Computed:
    """Read a shard.

    Raises
    ------
    StoreError
        If there is none, or it was cut short or altered, or was computed from something else than ``key`` says.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            about = dict(file.metadata() or {})
            arrays: dict[str, NDArray[Any]] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        checksum = about.pop("checksum")
        if checksum != _checksum(arrays, about):
            raise ValueError("its checksum is another")
        if about["key"] != key:
            raise ValueError("it was computed from something else")
        document = json.loads(about["about"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise StoreError(f"The shard {path} cannot be used: {error}.") from error
    layers = {name: arrays[f"layer-{index}"] for index, name in enumerate(document["layers"])}
    not_examined = tuple(NotExamined(**entry) for entry in document["not_examined"])
    return Computed(arrays["rows"], layers, arrays["logits"], not_examined)


def _checksum(arrays: dict[str, NDArray[Any]], about: dict[str, str]) -> str:
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(f"{name}\0{arrays[name].dtype}\0{arrays[name].shape}\0".encode())
        digest.update(arrays[name].reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

"""Beside the stages: the machines that do the work, one member per file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toxscreen.config import ENGINES
from toxscreen.engine.base import Engine, Local
from toxscreen.errors import MissingExtraError, UsageError


@contextmanager
def open_engine(name: str, address: str | None = None) -> Iterator[Engine]:
    """Yield an engine, and let go of its machines afterwards.

    Parameters
    ----------
    name
        One of :data:`toxscreen.config.ENGINES`.
    address
        Of a Ray cluster that runs; None starts one on this machine for the time being.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    EngineError
        If the cluster cannot be used.
    """
    if name == "local":
        yield Local()
        return
    try:
        from toxscreen.engine.ray_cluster import connected
    except ImportError as error:
        raise MissingExtraError("ray[data]", "ray", "--engine ray") from error
    with connected(address) as engine:
        yield engine


def check_engine(name: str, address: str | None, folder: Path | None) -> None:
    """Raise UsageError unless there is such an engine, and it takes the address and the run folder, where one is given."""
    if name not in ENGINES:
        raise UsageError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}.")
    if address is not None and name != "ray":
        raise UsageError(f"--address names a Ray cluster, but the engine is {name!r}. Add --engine ray, or leave --address away.")
    if address is not None and address.startswith("ray://"):
        raise UsageError(f"--address must be HOST:PORT of a cluster that this machine is a node of, or auto, got {address!r}.")
    if name == "ray" and folder is None:
        raise UsageError(
            "engine='ray' keeps what the nodes compute in a run folder that they share. Give one: scan(..., out=FOLDER)."
        )

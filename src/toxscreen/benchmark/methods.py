"""What ``peers`` compares: each method judges stored activations in a process of its own, which imports no torch.

Peak memory is what the process needed at most above what it held when the activations were in memory. Packages are imported before
the clock starts. ``toxscreen`` also reads the input view and the logits that the store holds; ``toxscreen, activations alone`` sees
what the others see.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toxscreen.analysis import ANALYSES
from toxscreen.audit import audit_arrays
from toxscreen.benchmark import art
from toxscreen.config import AnalysisConfig, ScanConfig
from toxscreen.store import ActivationStore


@dataclass(frozen=True)
class Stored:
    """What a method is given: activations ``(n, d)``, given labels ``(n,)``, all stored layers, logits, and the poison share.

    Only a method whose paper says that it is told the share may read it.
    """

    activations: NDArray[np.float32]
    labels: NDArray[np.int64]
    layers: Mapping[str, NDArray[np.float32]]
    logits: NDArray[np.float32] | None
    n_classes: int
    share: float
    seed: int


@dataclass(frozen=True)
class Request:
    """What a process is asked: a method's name, a store, the layer, the labels and their number, the poison share and the seed."""

    method: str
    store: Path
    layer: str
    labels: NDArray[np.int64]
    n_classes: int
    share: float
    seed: int


def _rule(name: str, stored: Stored, *, alone: bool = True) -> art.Outcome:
    """Run one of our analyses as a scan of arrays."""
    layers = {"activations": stored.activations, **({} if alone else stored.layers)}
    names = [str(k) for k in range(stored.n_classes)]
    config = ScanConfig(seed=stored.seed, analysis=AnalysisConfig(name))
    result = audit_arrays(
        layers,
        np.asarray(names, object)[stored.labels].tolist(),
        logits=None if alone else stored.logits,
        class_names=names,
        config=config,
    )
    return art.Outcome(result.samples["flagged"].to_numpy())


def _art(stored: Stored, **options: Any) -> art.Outcome:
    return art.activation_defence(stored.activations, stored.labels, stored.n_classes, seed=stored.seed, **options)


def _art_spectral(stored: Stored, *, told: bool) -> art.Outcome:
    share = stored.share if told else None
    return art.spectral_signatures(stored.activations, stored.labels, stored.n_classes, seed=stored.seed, share=share)


_OURS = next(iter(ANALYSES))

METHODS: Mapping[str, Callable[[Stored], art.Outcome]] = {
    "toxscreen": partial(_rule, _OURS, alone=False),
    "toxscreen, activations alone": partial(_rule, _OURS),
    **{f"rule {name}": partial(_rule, name) for name in ANALYSES if name != _OURS},
    **{f"ART {name}": partial(_art, cluster_analysis=name) for name in art.ANALYSES},
    "ART Spectral Signatures": partial(_art_spectral, told=False),
    "ART Spectral Signatures, told the share": partial(_art_spectral, told=True),
}
"""Every method by its name in the table. The rules are those that a user can choose with ``scan --analysis``."""


def answer(request: Request) -> tuple[art.Outcome, float, float]:
    """Run a method in this process and return what it flagged, its seconds, and its peak memory above the activations in MB."""
    import sklearn.cluster
    import sklearn.decomposition
    import sklearn.metrics
    import sklearn.neighbors  # noqa: F401 - not on the method's bill

    if request.method.startswith("ART"):
        import art.defences.detector.poison  # noqa: F401

    found = ActivationStore.open(request.store).activations()
    layers = {name: np.array(values[:]) for name, values in found.layers.items()}
    logits = None if found.logits is None else np.array(found.logits[:])
    settings = (request.n_classes, request.share, request.seed)
    stored = Stored(layers[request.layer], request.labels, layers, logits, *settings)
    before, start = _forget_peak(), time.perf_counter()
    outcome = METHODS[request.method](stored)
    return outcome, time.perf_counter() - start, _peak() - before


def _forget_peak() -> float:
    """Return the memory that this process holds in MB, from where its peak is counted on; Linux alone can forget an older one."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    """Return the most memory that this process has held, in MB."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

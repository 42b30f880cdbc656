"""The settings of each stage: one frozen dataclass per stage, gathered in :class:`ScanConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from toxscreen.errors import UsageError


@dataclass(frozen=True)
class ExtractionConfig:
    """Step 2. ``layer`` is what is clustered: None for the input of the classification head.

    ``dtype`` is what the model computes in, ``"auto"`` for the fastest that says the same; ``stored`` is what its activations are
    kept as: bfloat16 takes half of the disk.
    """

    layer: str | None = None
    batch_size: int = 128
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    stored: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}.")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise UsageError(f"dtype must be 'auto', 'float32' or 'bfloat16', got {self.dtype!r}.")
        if self.stored not in ("float32", "bfloat16"):
            raise UsageError(f"stored must be 'float32' or 'bfloat16', got {self.stored!r}.")


@dataclass(frozen=True)
class ReductionConfig:
    """Step 5. Ten components are the paper's (section 4); they are capped by the samples and the rank of a class."""

    method: Literal["pca", "ica"] = "pca"
    n_components: int = 10

    def __post_init__(self) -> None:
        if self.method not in ("pca", "ica"):
            raise UsageError(f"reduction must be 'pca' or 'ica', got {self.method!r}.")
        if self.n_components < 1:
            raise UsageError(f"n_components must be at least 1, got {self.n_components}. The paper uses 10.")


ANALYSES = (
    "activation-clustering",
    "relative-size",
    "silhouette-score",
    "spectral-signatures",
    "spectre",
    "scan",
    "cube",
)
"""Names of the analyses; :data:`toxscreen.analysis.ANALYSES` holds them."""


ENGINES = ("local", "ray")
"""Names of those that do the work; :mod:`toxscreen.engine` holds them."""


@dataclass(frozen=True)
class AnalysisConfig:
    """Step 7. ``name`` is one of :data:`ANALYSES`; all but the first, our own, are published rules."""

    name: str = ANALYSES[0]

    def __post_init__(self) -> None:
        if self.name not in ANALYSES:
            raise UsageError(f"analysis must be one of {', '.join(ANALYSES)}, got {self.name!r}.")


@dataclass(frozen=True)
class ConfirmationConfig:
    """Step 8. ``asked``: whether suspicious groups are put to exclusionary reclassification, which trains a model."""

    asked: bool = False


@dataclass(frozen=True)
class VerdictConfig:
    """Step 9. ``alpha``: the part of scans of clean data, at most, that accuse some class."""

    alpha: float = 0.01

    def __post_init__(self) -> None:
        if not 1e-6 <= self.alpha < 1:
            raise UsageError(f"alpha must lie between 0.000001 and 1, got {self.alpha}: rarer false alarms were never measured.")


@dataclass(frozen=True)
class ScanConfig:
    """Everything that decides a result, beside the data and the model."""

    extraction: ExtractionConfig = field(default_factory=ExtractionConfig)
    reduction: ReductionConfig = field(default_factory=ReductionConfig)
    seed: int = 0
    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)
    confirmation: ConfirmationConfig = field(default_factory=ConfirmationConfig)
    verdict: VerdictConfig = field(default_factory=VerdictConfig)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"seed must not be negative, got {self.seed}.")

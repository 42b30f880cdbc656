"""The reference implementation of the adversarial-robustness-toolbox (ART), asked about activations that are stored already.

Its detectors are run as they are, defaults included. They get a stand-in for the model that hands out the stored activations of
the last hidden layer: on a PyTorch model ART itself would cluster the logits. It draws from numpy's global generator, which is
seeded here, so that a cell can be measured again. What ART raises is a result.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toxscreen.errors import MissingExtraError

ANALYSES = ("smaller", "relative-size", "distance", "silhouette-scores")
"""Of ART's ActivationDefence; the first is its default."""


@dataclass(frozen=True)
class Outcome:
    """Which samples were flagged, shape ``(n_samples,)``; or None, and in ``error`` what was raised."""

    flagged: NDArray[np.bool_] | None
    error: str | None = None


class _StandIn:
    """All that ART asks of a classifier here."""

    layer_names = ("last hidden",)

    def __init__(self, activations: NDArray[np.float32], n_classes: int) -> None:
        self._activations = activations
        self.nb_classes = n_classes

    def get_activations(self, *_args: Any, **_options: Any) -> NDArray[np.float32]:
        return self._activations


def activation_defence(
    activations: NDArray[np.float32], labels: NDArray[np.int64], n_classes: int, *, seed: int, **options: Any
) -> Outcome:
    """Run ART's Activation Clustering.

    Parameters
    ----------
    activations
        Shape ``(n_samples, d)``.
    labels
        Class index of each sample, shape ``(n_samples,)``.
    n_classes
        Number of classes.
    seed
        Of numpy's global generator, which is put back afterwards.
    options
        ``cluster_analysis`` (one of :data:`ANALYSES`), ``reduce`` (``PCA`` or ``FastICA``) and ``nb_dims``; else ART's defaults.

    Raises
    ------
    MissingExtraError
        ART is not installed.
    """
    _require()
    from art.defences.detector.poison import ActivationDefence

    model = _StandIn(np.asarray(activations), n_classes)
    return _asked(lambda: ActivationDefence(model, activations, labels).detect_poison(**options)[1], seed)


def spectral_signatures(
    activations: NDArray[np.float32], labels: NDArray[np.int64], n_classes: int, *, seed: int, share: float | None = None
) -> Outcome:
    """Run ART's Spectral Signatures; ``share`` is the poison share that it is told, None for ART's default of a third.

    Raises
    ------
    MissingExtraError
        ART is not installed.
    """
    _require()
    from art.defences.detector.poison import SpectralSignatureDefense

    told = {} if share is None else {"expected_pp_poison": share}
    model = _StandIn(np.asarray(activations), n_classes)
    return _asked(lambda: SpectralSignatureDefense(model, activations, labels, **told).detect_poison()[1], seed)


def _asked(detect: Callable[[], list[int]], seed: int) -> Outcome:
    state = np.random.get_state()  # noqa: NPY002 - ART draws from this one
    np.random.seed(seed)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Outcome(np.asarray(detect()) == 0)
    except Exception as error:  # noqa: BLE001 - a crash of the peer is a result
        return Outcome(None, f"{type(error).__name__}: {error}")
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _require() -> None:
    try:
        import art  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("adversarial-robustness-toolbox", "bench", "The column of the reference implementation") from error

"""In what precision a classifier runs: bfloat16 where the machine computes in it and the classifier answers the same.

1. The device must multiply bfloat16 in hardware: a CPU with AVX512-BF16 or AMX, a GPU that says so. Asking the hardware, and not
   timing a few batches, gives the same answer in every run on one machine.
2. A few samples are put through the model in both precisions. Their logits may differ by as much as bfloat16, which keeps 8 bits,
   can explain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from toxscreen.errors import ModelError, UsageError
from toxscreen.sources.data.base import Input
from toxscreen.sources.model.base import Classifier

if TYPE_CHECKING:
    from toxscreen.sources.model.torch_module import TorchClassifier

_AGREE = 0.05
"""Most that a logit may differ, as a part of the spread of its class: beside an output at minus 1e9, which is never given, anything
would be little. Residual networks on MNIST and CIFAR-10 differ by 0.01 of the spread of all."""


def resolve_precision(classifier: Classifier, asked: Literal["auto", "float32", "bfloat16"], sample: Sequence[Input]) -> Classifier:
    """Return the classifier in the precision to run it in.

    Parameters
    ----------
    classifier
        In float32.
    asked
        ``"auto"`` for bfloat16 where it is faster and says the same.
    sample
        A few inputs that the two precisions are compared on.

    Raises
    ------
    UsageError
        bfloat16 was asked for, and the classifier is of a kind that has one precision.
    """
    from toxscreen.sources.model.torch_module import TorchClassifier

    if asked == "float32" or (asked == "auto" and not computes_in_bfloat16(classifier.device)):
        return classifier
    if not isinstance(classifier, TorchClassifier):
        if asked == "auto":
            return classifier
        raise UsageError(f"The model {classifier.name} runs in the precision that its file says. Leave --dtype away.")
    other = classifier.in_bfloat16(sample)
    return other if asked == "bfloat16" or _agree(classifier, other, sample) else classifier


def computes_in_bfloat16(device: str) -> bool:
    """Return whether a device multiplies bfloat16 in hardware, so that it is faster than float32."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(probe()) for probe in probes if probe is not None)


def _agree(classifier: TorchClassifier, other: TorchClassifier, sample: Sequence[Input]) -> bool:
    """Return whether two classifiers give the sample nearly the same logits."""
    try:
        ours, theirs = classifier.logits_of(sample), other.logits_of(sample)
    except ModelError:
        return False
    finite = np.isfinite(ours).all(axis=1)
    if not finite.any() or not np.isfinite(theirs[finite]).all():
        return False
    difference = np.abs(theirs[finite] - ours[finite]).max(axis=0)
    return bool((difference <= _AGREE * np.ptp(ours[finite], axis=0)).all())

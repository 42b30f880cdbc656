"""Writes a classifier of PyTorch so that it opens again as what it was: weights as safetensors, with the same preprocessing."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_model
from torch import nn

from toxscreen.networks import SentenceCNN, SmallResNet
from toxscreen.sources.model.huggingface_inputs import ProcessorPreprocessing, TokenizerPreprocessing, from_files_only
from toxscreen.sources.model.preprocessing import ImagePreprocessing
from toxscreen.sources.model.settings_file import write_settings
from toxscreen.sources.model.torch_module import TorchClassifier
from toxscreen.sources.model.trained import WEIGHTS, Description, save_trained
from toxscreen.sources.model.words import Vocabulary


def save_classifier(classifier: TorchClassifier, folder: Path, *, arch: str | None = None) -> None:
    """Write a classifier into a folder, which is made where there is none.

    A network of toxscreen's own is written as :func:`toxscreen.sources.model.trained.save_trained` does; one of the library of
    transformers as that library does, with its tokenizer or image processor; any other one as its weights beside a small file
    with the preprocessing, for which ``--arch`` has to name the code that builds it.

    Parameters
    ----------
    classifier
        Its network is written as it is, in the number format of its weights.
    folder
        New or empty.
    arch
        What built the network, where that is known.

    Raises
    ------
    OSError, SafetensorError
        A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (description := _own(classifier)) is not None:
        save_trained(classifier.network, folder, description)
    elif hasattr(classifier.network, "save_pretrained"):
        _save_pretrained(classifier, folder)
    else:
        save_model(classifier.network, str(folder / WEIGHTS))
        write_settings(folder, classifier.applied, arch)


def _own(classifier: TorchClassifier) -> Description | None:
    """Return the description of a network that toxscreen built; None for any other."""
    applied, names = classifier.applied, classifier.class_names
    kinds: dict[type, type[nn.Module]] = {ImagePreprocessing: SmallResNet, Vocabulary: SentenceCNN}
    if names is None or type(classifier.network) is not kinds.get(type(applied)):
        return None
    return Description(applied, names) if isinstance(applied, ImagePreprocessing | Vocabulary) else None


def _save_pretrained(classifier: TorchClassifier, folder: Path) -> None:
    applied = classifier.applied
    with from_files_only():
        classifier.network.save_pretrained(folder)  # type: ignore[operator]
        if isinstance(applied, TokenizerPreprocessing):
            applied.tokenizer.save_pretrained(folder)
        elif isinstance(applied, ProcessorPreprocessing):
            applied.processor.save_pretrained(folder)
        else:
            write_settings(folder, applied, None)

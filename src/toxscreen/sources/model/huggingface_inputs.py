"""Tokenizers and image processors that lie in a Hugging Face folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toxscreen.errors import MissingExtraError, ModelError, RefusedError
from toxscreen.sources.data.base import Input
from toxscreen.sources.model.json_file import read_json

IMAGE_PROCESSOR, TOKENIZER = "preprocessor_config.json", "tokenizer.json"
FROM_FILES_ONLY = {"local_files_only": True, "trust_remote_code": False}
_MAY_NAME_CODE = ("config.json", "tokenizer_config.json", IMAGE_PROCESSOR, "processor_config.json", "generation_config.json")
_LONGEST = 512
"""Tokens of a text where neither the tokenizer nor the model says how many it takes."""


@dataclass(frozen=True)
class TokenizerPreprocessing:
    """Turns texts into what a transformer takes: cut at ``max_length`` tokens and padded to the longest of the batch.

    Attributes
    ----------
    tokenizer
        Of the package transformers.
    max_length
        Tokens of a text that the model takes.
    files
        Digest of the files it was made from.
    """

    tokenizer: Any = field(repr=False)
    max_length: int
    files: str

    def apply(self, inputs: Sequence[Input]) -> Mapping[str, NDArray[Any]]:
        """Return ``input_ids``, ``attention_mask`` and what else the tokenizer makes, int64 ``(b, length)`` each."""
        texts = [str(text) for text in inputs]
        encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="np")
        return {name: np.asarray(array, np.int64) for name, array in encoded.items()}

    def describe(self) -> dict[str, Any]:
        """Return the tokenizer's class and settings."""
        return {"kind": "tokenizer", "class": type(self.tokenizer).__name__, "max_length": self.max_length, "files": self.files}


@dataclass(frozen=True)
class ProcessorPreprocessing:
    """Turns pictures into what a vision model takes, with its own image processor.

    Attributes
    ----------
    processor
        Of the package transformers.
    channels
        That the model takes: 1 or 3.
    files
        Digest of the files it was made from.
    """

    processor: Any = field(repr=False)
    channels: int
    files: str

    def apply(self, inputs: Sequence[Input]) -> Mapping[str, NDArray[np.float32]]:
        """Return ``pixel_values``, float32 ``(b, c, h, w)``, of uint8 pictures ``(height, width, 1 or 3)`` of any size."""
        pictures = [_with_channels(np.asarray(picture), self.channels) for picture in inputs]
        encoded = self.processor(images=pictures, return_tensors="np", input_data_format="channels_last")
        return {"pixel_values": np.asarray(encoded["pixel_values"], np.float32)}

    def describe(self) -> dict[str, Any]:
        """Return the processor's class."""
        return {"kind": "image processor", "class": type(self.processor).__name__, "channels": self.channels, "files": self.files}


def open_tokenizer(folder: Path, config: Mapping[str, Any]) -> TokenizerPreprocessing:
    """Open the tokenizer of a folder.

    Raises
    ------
    ModelError
        It cannot be read.
    """
    with from_files_only() as transformers:
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **FROM_FILES_ONLY)
        except Exception as error:  # the library raises whatever it meets in a stranger's files
            raise ModelError(f"The tokenizer in {folder} must be readable by transformers, but: {first_line(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if tokenizer.pad_token is None:
            raise ModelError(
                f"The tokenizer in {folder} must have a padding token, but names none. Add one to its tokenizer_config.json."
            )
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    # Two positions fewer, because models of the RoBERTa family count them from 2 on.
    fitting = [positions - 2] if isinstance(positions, int) else []
    said = [tokenizer.model_max_length] if tokenizer.model_max_length < 10**9 else []
    max_length = min(said or fitting or [_LONGEST])
    return TokenizerPreprocessing(tokenizer, max_length, digest_of_files(folder))


def open_image_processor(folder: Path, config: Mapping[str, Any]) -> ProcessorPreprocessing:
    """Open the image processor of a folder.

    Raises
    ------
    ModelError
        It cannot be read.
    """
    with from_files_only() as transformers:
        try:
            processor = transformers.AutoImageProcessor.from_pretrained(folder, **FROM_FILES_ONLY)
        except Exception as error:  # the library raises whatever it meets in a stranger's files
            raise ModelError(
                f"The image processor in {folder} must be readable by transformers, but: {first_line(error)}"
            ) from error
    channels = 1 if config.get("num_channels") == 1 else 3
    return ProcessorPreprocessing(processor, channels, digest_of_files(folder))


@contextmanager
def from_files_only() -> Iterator[Any]:
    """Lend the package transformers, kept from the network and from talking.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        import transformers
        from huggingface_hub import constants
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtraError("transformers", "huggingface", "Reading a Hugging Face folder") from error
    offline, verbosity, progress = constants.HF_HUB_OFFLINE, logging.get_verbosity(), logging.is_progress_bar_enabled()
    constants.HF_HUB_OFFLINE = True
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()


def refuse_custom_code(folder: Path) -> None:
    """Raise RefusedError if a folder's settings name code of its own, or would give other settings a meaning of their own."""
    for name in _MAY_NAME_CODE:
        path = folder / name
        named = [key for key in ("auto_map", "attribute_map") if path.is_file() and _has_key(read_json(path), key)]
        if named:
            raise RefusedError(
                f"{path} asks for code of its own ({named[0]}), which would be run. "
                "Convert the model to an architecture of transformers, or export it to ONNX."
            )


def digest_of_files(folder: Path) -> str:
    """Return a digest of the settings and vocabularies in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".txt", ".model") and path.is_file()):
        digest.update(f"{path.name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _has_key(value: Any, wanted: str) -> bool:
    """Return whether a JSON value has a key at any depth."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if wanted in item:
                return True
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return False


def _with_channels(pixels: NDArray[Any], channels: int) -> NDArray[Any]:
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]

"""How inputs become the arrays that a network takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toxscreen.errors import ModelError, UsageError
from toxscreen.sources.data.base import Input, Modality, Stack

Encoded: TypeAlias = NDArray[Any] | Mapping[str, NDArray[Any]]
"""A batch as a network takes it: one array, or several by the name of the argument."""

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos"]

NOT_NORMALISED = (
    "no mean and standard deviation were given: pixels are scaled to [0, 1] and not normalised; "
    "if the model was trained otherwise, say so with --mean and --std"
)
_LARGEST_SIDE = 8192


class Preprocessing(Protocol):
    """Turns inputs into arrays; without state, so that another thread may call it."""

    def apply(self, inputs: Sequence[Input]) -> Encoded:
        """Return the batch as the network takes it; the first axis of every array is the sample."""

    def describe(self) -> dict[str, Any]:
        """Return what :meth:`apply` does, JSON-serialisable."""


@dataclass(frozen=True)
class ImagePreprocessing:
    """Stretches pictures to one size and scales their pixels: ``(pixel * scale - mean) / std``.

    Attributes
    ----------
    height, width, channels
        Of the network's input; None where :meth:`completed` shall take it from the data.
    mean, std
        One number per channel, or one for all, in units of the scaled pixel; empty for none.
    scale
        What a pixel of 0-255 is multiplied with first.
    interpolation
        Of the resizing.
    channels_first
        Whether the batch is ``(b, c, h, w)`` or ``(b, h, w, c)``.
    note
        What a reader must know about how these numbers came about.

    Raises
    ------
    UsageError
        A number that cannot be.
    """

    height: int | None = None
    width: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: float = 1 / 255
    interpolation: Interpolation = "bilinear"
    channels_first: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        for side in ("height", "width"):
            pixels = getattr(self, side)
            if pixels is not None and not 1 <= pixels <= _LARGEST_SIDE:
                raise UsageError(f"The {side} of the model's input must be between 1 and {_LARGEST_SIDE} pixels, got {pixels}.")
        if self.channels not in (None, 1, 3):
            raise UsageError(f"The model's input must have 1 channel (gray) or 3 (RGB), got {self.channels}.")
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            allowed = {0, 1, self.channels} if self.channels else {0, 1, 3}
            if len(numbers) not in allowed or not all(math.isfinite(number) for number in numbers):
                raise UsageError(f"The {name} must be one finite number per channel ({self.channels or '1 or 3'}), got {numbers}.")
        if not all(number > 0 for number in self.std):
            raise UsageError(f"The std must be above 0 in every channel, got {self.std}.")
        if self.interpolation not in get_args(Interpolation):
            raise UsageError(f"The interpolation must be one of {', '.join(get_args(Interpolation))}, got {self.interpolation!r}.")

    def completed(self, sample: Sequence[Input]) -> ImagePreprocessing:
        """Return the same with size and channels of the pictures in ``sample`` where nothing else is said.

        Raises
        ------
        UsageError
            The pictures have several sizes and none was given.
        """
        shapes = sorted({np.shape(picture) for picture in sample})
        height, width = self.height, self.width
        if height is None or width is None:
            sizes = sorted({shape[:2] for shape in shapes})
            if len(sizes) != 1:
                raise UsageError(f"The pictures have several sizes ({_shown(sizes)}): say with --size which one the model takes.")
            height, width = height or sizes[0][0], width or sizes[0][1]
        channels = self.channels or max(len(self.mean), len(self.std), *(shape[2] for shape in shapes))
        note = self.note or ("" if self.mean or self.std else NOT_NORMALISED)
        return replace(self, height=height, width=width, channels=channels, note=note)

    def apply(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        """Return float32 ``(b, c, h, w)``, or ``(b, h, w, c)``, of uint8 pictures ``(height, width, 1 or 3)`` of any size."""
        if isinstance(inputs, Stack) and inputs.array.shape[1:] == (self.height, self.width, self.channels):
            pixels = inputs.array
        else:
            pixels = np.stack([self._fitted(picture) for picture in inputs])
        mean, std = (np.asarray(numbers or default, np.float32) for numbers, default in ((self.mean, 0.0), (self.std, 1.0)))
        factor, offset = np.float32(self.scale) / std, -mean / std
        if self.channels_first:
            pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
            factor, offset = (np.reshape(numbers, (-1, 1, 1)) for numbers in (factor, offset))
        values = pixels.astype(np.float32)
        values *= factor
        values += offset
        return values

    def describe(self) -> dict[str, Any]:
        """Return the settings by name."""
        return {"kind": "image", **asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def described(cls, settings: Mapping[str, Any]) -> ImagePreprocessing:
        """Return the completed settings that :meth:`describe` gave, read back from a file that anyone may have written.

        Raises
        ------
        KeyError, TypeError, ValueError, UsageError
            One is missing, of the wrong type or cannot be.
        """
        sizes = {name: settings[name] for name in ("height", "width", "channels")}
        if not all(type(size) is int for size in sizes.values()):
            raise ValueError(f"height, width and channels must be whole numbers, got {sizes}")
        mean, std = (tuple(float(number) for number in settings[name]) for name in ("mean", "std"))
        return cls(
            **sizes,
            mean=mean,
            std=std,
            scale=float(settings["scale"]),
            interpolation=settings["interpolation"],
            channels_first=bool(settings.get("channels_first", True)),
            note=str(settings["note"]),
        )

    def _fitted(self, picture: Input) -> NDArray[np.uint8]:
        """Return one picture as uint8 ``(height, width, channels)``."""
        pixels = np.asarray(picture)
        if pixels.shape == (self.height, self.width, self.channels):
            return pixels
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        image = image.convert("L" if self.channels == 1 else "RGB")
        size = (self.width or image.width, self.height or image.height)
        resized = np.asarray(image.resize(size, Image.Resampling[self.interpolation.upper()]))
        return resized.reshape(size[1], size[0], -1)


@dataclass(frozen=True)
class ArrayPreprocessing:
    """Stacks arrays and leaves their numbers as they are."""

    def apply(self, inputs: Sequence[Input]) -> NDArray[Any]:
        """Return ``(b, ...)``; floating-point numbers become float32.

        Raises
        ------
        ModelError
            The arrays have several shapes.
        """
        shapes = sorted({np.shape(array) for array in inputs})
        if len(shapes) > 1:
            raise ModelError(f"The arrays of one batch must have one shape, got {_shown(shapes)}. Pad or cut them in the data set.")
        stacked = inputs.array if isinstance(inputs, Stack) else np.stack([np.asarray(array) for array in inputs])
        return stacked.astype(np.float32) if stacked.dtype.kind == "f" else stacked

    def describe(self) -> dict[str, Any]:
        """Return that nothing is done."""
        return {"kind": "array", "note": "the arrays go to the model as they are"}


def resolve_preprocessing(modality: Modality, given: Preprocessing | None, sample: Sequence[Input]) -> Preprocessing:
    """Return how the inputs of a model without preprocessing files become arrays.

    Raises
    ------
    ModelError
        The inputs are texts and nothing says how they become numbers.
    UsageError
        Settings for pictures were given for something else.
    """
    if modality == "image":
        if given is None or isinstance(given, ImagePreprocessing):
            return (given or ImagePreprocessing()).completed(sample)
        return given
    if isinstance(given, ImagePreprocessing):
        raise UsageError(f"Size, channels, mean and std are settings for pictures, but the inputs are of the kind {modality!r}.")
    if given is None and modality == "text":
        raise ModelError(
            "Texts need a tokenizer, and this model comes without one. Give a Hugging Face folder with its tokenizer, "
            "or a data set that yields the arrays that the model takes."
        )
    return given or ArrayPreprocessing()


def _shown(shapes: Sequence[tuple[int, ...]], most: int = 3) -> str:
    """Return the first few shapes for a message."""
    return ", ".join("x".join(map(str, shape)) for shape in shapes[:most]) + (", ..." if len(shapes) > most else "")

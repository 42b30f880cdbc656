"""Encoded images become arrays of pixels, or a reason why they do not. Images are hostile: nothing here trusts them."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The plugins of the formats below; without them Pillow would load every plugin that it has.
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401

from toxscreen.sources.data.base import Unreadable

MAX_PIXELS = 64_000_000
"""Larger than what a full-frame camera takes (61 million pixels), small enough to decode in 256 MB at 4 bytes a pixel."""

MAX_BYTES = 4 * MAX_PIXELS
"""A file larger than its own pixels uncompressed is no image."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Raster formats that no interpreter stands behind (unlike EPS or SVG)."""


class _Quiet:
    """No warnings while any thread decodes: the first to come sets their process-wide state, and the last to go puts it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._state = warnings.catch_warnings(action="ignore")

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._state = warnings.catch_warnings(action="ignore")
                self._state.__enter__()
            self._inside += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._state.__exit__(None, None, None)


_quiet = _Quiet()


def decode_image(data: bytes) -> NDArray[np.uint8] | Unreadable:
    """Decode an image, the first frame of a moving one.

    Returns
    -------
    ndarray or Unreadable
        uint8 ``(height, width, 1)`` for grey images, ``(height, width, 3)`` for any other.
    """
    if len(data) > MAX_BYTES:
        return _too_large_a_file(len(data))
    return _pixels(lambda: Image.open(BytesIO(data), formats=FORMATS))


def image_pixels(image: Image.Image) -> NDArray[np.uint8] | Unreadable:
    """Do as :func:`decode_image` does with an image that Pillow has opened already."""
    return _pixels(lambda: image)


def _pixels(open_image: Callable[[], Image.Image]) -> NDArray[np.uint8] | Unreadable:
    with _quiet:
        try:
            image = open_image()
            if image.width * image.height > MAX_PIXELS:
                return _too_large_an_image(f"{image.width:,} x {image.height:,}")
            return _to_array(image)
        except Image.DecompressionBombError:
            return _too_large_an_image("far more")
        except UnidentifiedImageError:
            return Unreadable(f"the content is not an image in one of the formats {', '.join(FORMATS)}")
        except Exception as error:  # noqa: BLE001  a hostile image can make a decoder raise anything
            return Unreadable(f"the image cannot be decoded: {str(error) or type(error).__name__}")


def read_file(path: Path) -> bytes | Unreadable:
    """Read a file that is meant to be an image."""
    try:
        if not path.is_file():
            return Unreadable("there is no such file")
        if path.stat().st_size > MAX_BYTES:
            return _too_large_a_file(path.stat().st_size)
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return Unreadable(f"the file cannot be read: {getattr(error, 'strerror', None) or error}")


def channels_last(images: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return a view ``(n, height, width, 1 or 3)`` of a stack of uint8 images, None for other arrays."""
    if images.dtype != np.uint8:
        return None
    if images.ndim == 3:
        return images[..., None]
    if images.ndim == 4 and images.shape[3] in {1, 3}:
        return images
    if images.ndim == 4 and images.shape[1] in {1, 3}:
        return np.moveaxis(images, 1, 3)
    return None


def _to_array(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is unknown")
    if image.mode.startswith("I"):  # 16 bits a pixel, in modes for 16 and for 32
        wide = np.asarray(image).astype(np.int64)
        grey: NDArray[np.uint8] = np.clip(wide >> 8, 0, 255).astype(np.uint8)
        return grey[..., None]
    mode = "L" if image.mode in {"1", "L", "LA", "La"} else "RGB"
    pixels: NDArray[np.uint8] = np.array(image if image.mode == mode else image.convert(mode))
    return pixels[..., None] if mode == "L" else pixels


def _too_large_an_image(size: str) -> Unreadable:
    return Unreadable(f"the image has {size} pixels; at most {MAX_PIXELS:,} are decoded")


def _too_large_a_file(n_bytes: int) -> Unreadable:
    return Unreadable(f"the file has {n_bytes:,} bytes; at most {MAX_BYTES:,} are read")

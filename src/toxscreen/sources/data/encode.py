"""Changed images are encoded as their neighbours are, so that the encoding does not tell which ones were changed."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data.base import Input, Unreadable
from toxscreen.sources.data.decode import decode_image
from toxscreen.sources.data.reading import RowReader

_LOSSLESS_WEBP = "lossless WEBP"

_SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II": "TIFF",
    b"MM": "TIFF",
    b"P": "PPM",
}

_SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {
    "PNG": ({}, {"compress_level": 9}, {"optimize": True}),
    _LOSSLESS_WEBP: ({"lossless": True, "method": 0}, {"lossless": True}, {"lossless": True, "method": 6, "quality": 100}),
    "WEBP": ({"quality": 95},),
    "JPEG": ({"quality": 95},),
    "BMP": ({},),
    "GIF": ({},),
    "TIFF": ({},),
    "PPM": ({},),
}
"""Ways to write each format. The first one is used where none gives the bytes that are there already."""


class Recoder:
    """Gives the bytes of every image of a copy in which some images are changed.

    A setting that turns the pixels of every image to be changed back into the very bytes of its file is the one that the data was
    written with: the changed images are written with it, and all others stay as they are. Where there is none, as for any lossy
    format, every image of that format is decoded and encoded again in the same way.

    Parameters
    ----------
    source
        The images before the change.
    changes
        New images by row: uint8, shaped as the old ones.

    Raises
    ------
    UsageError
        If an image to be changed cannot be read.
    """

    def __init__(self, source: RowReader, changes: Mapping[int, Input]) -> None:
        self._changes = changes
        fitting: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(changes):
            data = source.cells(np.array([row]))[0]
            pixels = decode_image(data) if isinstance(data, bytes) else data
            if not isinstance(data, bytes) or not isinstance(pixels, np.ndarray):
                raise DataError(
                    f"Only images that can be read can be changed, but the one in row {row} of {source.location} cannot."
                )
            kind = kind_of(data)
            settings = fitting.setdefault(kind, list(_SETTINGS[kind]))
            fitting[kind] = [setting for setting in settings if _encode(pixels, kind, setting) == data]
        self._setting = {kind: (settings or _SETTINGS[kind])[0] for kind, settings in fitting.items()}
        self._rewritten = {kind for kind, settings in fitting.items() if not settings}

    def encoded(self, row: int, data: bytes) -> bytes:
        """Return the bytes of the image in ``row`` of the copy, where those in the source are ``data``."""
        kind = kind_of(data)
        if row not in self._changes and kind not in self._rewritten:
            return data
        pixels = decode_image(data)
        if isinstance(pixels, Unreadable):
            return data
        changed = self._changes.get(row, pixels)
        if not isinstance(changed, np.ndarray) or changed.dtype != np.uint8 or changed.shape != pixels.shape:
            raise UsageError(f"A changed image must be uint8 {pixels.shape} as before, but the one for row {row} is not.")
        return _encode(changed, kind, self._setting[kind])


def kind_of(data: bytes) -> str:
    """Return the format of an encoded image; WebP that keeps every pixel is a format of its own. Unknown content gives ``""``."""
    kind = next((name for signature, name in _SIGNATURES.items() if data.startswith(signature)), "")
    return _LOSSLESS_WEBP if kind == "WEBP" and b"VP8L" in data else kind


def _encode(pixels: NDArray[np.uint8], kind: str, setting: Mapping[str, Any]) -> bytes:
    buffer = BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.save(buffer, kind.removeprefix("lossless "), **setting)
    return buffer.getvalue()

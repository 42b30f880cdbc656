"""``toxscreen-preprocessing.json`` beside the weights of a network whose own files do not say how inputs become numbers."""

from __future__ import annotations

import json
from pathlib import Path

from toxscreen.errors import ModelError, UsageError
from toxscreen.sources.model.json_file import read_json
from toxscreen.sources.model.preprocessing import ImagePreprocessing, Preprocessing

SETTINGS = "toxscreen-preprocessing.json"
_VERSION = 1


def write_settings(folder: Path, preprocessing: Preprocessing, arch: str | None) -> None:
    """Write how inputs become numbers, and the name of the code that builds the network, for people: it is never run from here."""
    document = {"toxscreen_preprocessing": _VERSION, "arch": arch, "preprocessing": preprocessing.describe()}
    (folder / SETTINGS).write_text(json.dumps(document, indent=1), encoding="ascii")


def read_settings(folder: Path) -> ImagePreprocessing | None:
    """Return the settings for pictures that lie in a folder; None where there are none.

    Raises
    ------
    ModelError
        The file is not what :func:`write_settings` writes.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return None
    document = read_json(path)
    try:
        if document["toxscreen_preprocessing"] != _VERSION:
            raise ModelError(
                f"{path} must be of version {_VERSION}, got {document['toxscreen_preprocessing']!r}. Use a newer toxscreen."
            )
        settings = document["preprocessing"]
        return ImagePreprocessing.described(settings) if settings["kind"] == "image" else None
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise ModelError(f"{path} must be as toxscreen wrote it, but is damaged: {error!r}. Repair the model again.") from error

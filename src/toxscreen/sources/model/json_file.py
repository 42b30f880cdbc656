"""JSON files beside a model, written by strangers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toxscreen.errors import ModelError

_LARGEST = 50_000_000


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises
    ------
    ModelError
        The file is too large, or is no JSON object.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise ModelError(f"{path} must have at most {_LARGEST:,} bytes, got {size:,}.")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} must be a JSON file, but cannot be read: {error}.") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path} must hold a JSON object, got a {type(document).__name__}.")
    return document


def as_names(value: Any, path: Path) -> tuple[str, ...] | None:
    """Return class names out of a list, or out of a mapping from number to name; None for anything else.

    Raises
    ------
    ModelError
        A mapping's numbers are not 0, 1, 2 and so on.
    """
    if isinstance(value, dict):
        numbered = {int(number): name for number, name in value.items() if str(number).isdecimal()}
        if sorted(numbered) != list(range(len(value))):
            raise ModelError(
                f"The class names in {path} must be numbered from 0 on without holes, got {sorted(map(str, value))[:5]}."
            )
        value = [numbered[number] for number in sorted(numbered)]
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        return None
    return tuple(value) or None

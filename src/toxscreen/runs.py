"""The run folder: where a scan keeps what it makes, and how one that was stopped is found again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from toxscreen.errors import StoreError, UsageError

RECORD = "run.json"
_UNSAFE = re.compile(r"[^\w.-]+")


def default_folder(data: Path) -> Path:
    """Return ``runs/<time>-<name>``, which does not exist yet."""
    name = _UNSAFE.sub("-", data.resolve().name).strip("-.") or "data"
    stem = Path("runs") / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{name[:60]}"
    return next(folder for folder in (stem, *(stem.with_name(f"{stem.name}-{n}") for n in range(2, 1000))) if not folder.exists())


def claim(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Make a run folder, or take up one that the same settings were used for.

    Parameters
    ----------
    folder
        New, empty, or of an earlier run.
    settings
        What was asked for; JSON-serialisable.

    Returns
    -------
    bool
        Whether an earlier run is taken up.

    Raises
    ------
    UsageError
        The folder holds something else, or the run of another scan.
    StoreError
        It cannot be written to.
    """
    record = folder / RECORD
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if record.exists():
            earlier = json.loads(record.read_text("utf-8"))
            changed = [name for name, value in settings.items() if earlier.get(name) != json.loads(json.dumps(value))]
            if changed:
                raise UsageError(
                    f"{folder} holds the run of another scan ({', '.join(changed)} differ). Choose another folder with --out, or "
                    "repeat that scan's options to go on with it."
                )
            return True
        if any(folder.iterdir()):
            raise UsageError(
                f"{folder} must be new, empty, or the folder of an earlier run, but holds other files. Choose another --out."
            )
        record.write_text(json.dumps(settings, indent=1), "utf-8")
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"The run folder {folder} cannot be used: {error}. Choose another one with --out.") from error
    return False

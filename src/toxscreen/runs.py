"""The run folder: where a scan keeps what it makes, and how one that was stopped is found again."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any

from toxscreen.errors import StoreError, UsageError

if sys.platform != "win32":
    import fcntl

RECORD = "run.json"
_UNSAFE = re.compile(r"[^\w.-]+")


def default_folder(data: Path) -> Path:
    """Return ``runs/<time>-<name>``, which does not exist yet."""
    name = _UNSAFE.sub("-", data.resolve().name).strip("-.") or "data"
    stem = Path("runs") / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{name[:60]}"
    return next(folder for folder in (stem, *(stem.with_name(f"{stem.name}-{n}") for n in range(2, 1000))) if not folder.exists())


def refuse_inside(folder: Path, inputs: Sequence[Path]) -> None:
    """Raise UsageError if ``folder`` is one of the inputs of a scan, or lies in one: they are only ever read."""
    place = folder.resolve()
    for path in filter(Path.exists, inputs):
        if any(parent.exists() and parent.samefile(path) for parent in (place, *place.parents)):
            raise UsageError(f"The run folder must lie outside what is scanned, but {folder} is in {path}. Choose another --out.")


@contextmanager
def claim(folder: Path, settings: Mapping[str, Any], inputs: Sequence[Path] = ()) -> Iterator[bool]:
    """Make a run folder, or take up one that the same settings were used for, and keep other processes out meanwhile.

    A new run that fails before it has stored anything leaves no trace, so that the corrected command may use the folder.

    Parameters
    ----------
    folder
        New, empty, or of an earlier run.
    settings
        What was asked for; JSON-serialisable.
    inputs
        The paths that are scanned; the folder may not lie in them.

    Yields
    ------
    bool
        Whether an earlier run is taken up.

    Raises
    ------
    UsageError
        The folder holds something else, or the run of another scan, or lies in one of the inputs.
    StoreError
        It cannot be written to, or another process uses it.
    """
    refuse_inside(folder, inputs)
    new = not folder.exists()
    with _held(folder) as record:
        going_on = _taken_up(record, folder, settings)
        try:
            yield going_on
        except BaseException:
            if not going_on:
                _withdraw(folder, new)
            raise


def _held(folder: Path) -> FileIO:
    """Make the folder and return its record, open and locked: the lock goes when the file is closed or the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / RECORD).exists():
            raise UsageError(
                f"{folder} must be new, empty, or the folder of an earlier run, but holds other files. Choose another --out."
            )
        record = (folder / RECORD).open("a+b", buffering=0)
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        if sys.platform != "win32":
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        record.close()
        raise _unusable(folder, "another scan is writing to it" if isinstance(error, BlockingIOError) else error) from error
    return record


def _taken_up(record: FileIO, folder: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether the record holds these settings; write them where it holds none yet."""
    asked = json.dumps(settings, indent=1)
    try:
        record.seek(0)
        written = record.read()
        if not written:
            record.write(asked.encode("ascii"))
            return False
        earlier = json.loads(written)
        changed = [name for name, value in json.loads(asked).items() if earlier.get(name) != value]
    except (OSError, ValueError, AttributeError) as error:
        raise _unusable(folder, error) from error
    if changed:
        raise UsageError(
            f"{folder} holds the run of another scan ({', '.join(changed)} differ). Choose another folder with --out, or "
            "repeat that scan's options to go on with it."
        )
    return True


def _withdraw(folder: Path, new: bool) -> None:
    """Take the record away, and a folder that was made for it, if nothing else is in it."""
    left = sorted(folder.rglob("*"), reverse=True)
    if any(path.is_file() and path != folder / RECORD for path in left):
        return
    with suppress(OSError):
        for path in [*left, folder] if new else left:
            path.unlink() if path.is_file() else path.rmdir()


def _unusable(folder: Path, reason: object) -> StoreError:
    return StoreError(f"The run folder {folder} cannot be used: {reason}. Choose another one with --out.")

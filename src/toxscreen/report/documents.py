"""The files that programs read: ``result.json``, ``samples.parquet`` and ``exhibits.json``, written and read back.

Beside them lies ``finished.json``: what a result that is finished came from, and a checksum of ``result.json``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from toxscreen.errors import StoreError
from toxscreen.exhibits.base import Exhibits
from toxscreen.result import CONFIRMATION_SCHEMA, SAMPLES_SCHEMA, ClassResult, Origin, ScanResult
from toxscreen.sources.data.base import NotExamined

SCHEMA_VERSION = 1
"""Raised with every change of ``result.json`` that an older reader would misunderstand."""

_RECORD = "run.json"
_RESULT, _SAMPLES, _EXHIBITS, _CONFIRMATION = "result.json", "samples.parquet", "exhibits.json", "confirmation.parquet"
_FINISHED = "finished.json"


def result_document(result: ScanResult) -> dict[str, Any]:
    """Return the result as plain values (``schema.json``); what is no finite number becomes None."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": result.name,
        "verdict": result.verdict,
        "samples": {"n": result.samples.num_rows, "examined": result.n_examined, "flagged": result.n_flagged},
        "classes": result.classes,
        "not_examined": result.not_examined,
        "notes": result.notes,
        "pending": result.pending,
        "settings": result.settings,
        "seed": result.seed,
        "inputs": result.inputs,
        "timings": result.timings,
    }
    plain: dict[str, Any] = _plain(document)
    return plain


def write_run(result: ScanResult, folder: Path) -> Path:
    """Write the documents of a run into ``folder``, which is made where it is missing.

    Each file is replaced as a whole. ``result.json`` comes after the others and names their digests, so a folder that holds it is
    complete; ``finished.json`` comes last and names that of ``result.json``.

    Raises
    ------
    StoreError
        When a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    with replacing(folder / _SAMPLES) as partial:
        pq.write_table(samples_table(result.samples), partial, compression="zstd")
    written = [_SAMPLES]
    if result.exhibits is not None:
        _write_json(folder / _EXHIBITS, _plain(result.exhibits))
        written.append(_EXHIBITS)
    if result.confirmation is not None:
        with replacing(folder / _CONFIRMATION) as partial:
            pq.write_table(result.confirmation.cast(CONFIRMATION_SCHEMA), partial, compression="zstd")
        written.append(_CONFIRMATION)
    digests = {name: _digest(folder / name) for name in written}
    _write_json(folder / _RESULT, result_document(result) | {"files": digests})
    _write_finished(folder, result.origin)
    return folder


def _write_finished(folder: Path, origin: Origin | None) -> None:
    """Write down what the result came from; of one that is not finished, take away what was said of another."""
    path = folder / _FINISHED
    if origin is not None:
        _write_json(path, asdict(origin) | {"result": _digest(folder / _RESULT)})
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def read_finished(folder: Path, digest: str) -> ScanResult | None:
    """Read the result of a run that came from what has this digest.

    None where the folder holds no such run, one that is not finished, or one whose files are not as they were written.
    """
    if not (folder / _FINISHED).is_file():  # a pipe would be waited for
        return None
    try:
        record = _checked(dict, _read_json(folder / _FINISHED))
        if (record["digest"], record["result"]) != (digest, _digest(folder / _RESULT)):
            return None
        return replace(read_run(folder), origin=_decoded(Origin, record))
    except (StoreError, KeyError, TypeError, ValueError, OSError, RecursionError):
        return None


def read_run(folder: Path) -> ScanResult:
    """Read the documents of a run back.

    Raises
    ------
    StoreError
        When the folder is missing, was not written by toxscreen or by a newer one, or was altered.
    """
    document = _read_result(folder)
    for name in sorted({_SAMPLES, *document["files"]}):
        if name not in (_SAMPLES, _EXHIBITS, _CONFIRMATION) or _digest(folder / name) != document["files"].get(name):
            raise _altered(folder, f"{name} is not the file that the scan wrote")
    try:
        samples = pq.ParquetFile(folder / _SAMPLES).read()
        exhibits = _read_json(folder / _EXHIBITS) if _EXHIBITS in document["files"] else None
        confirmation = pq.ParquetFile(folder / _CONFIRMATION).read() if _CONFIRMATION in document["files"] else None
        return ScanResult(
            name=_decoded(str, document["name"]),
            classes=_decoded(tuple[ClassResult, ...], document["classes"]),
            samples=samples_table(samples),
            not_examined=_decoded(tuple[NotExamined, ...], document["not_examined"]),
            settings=_decoded(Mapping[str, Any], document["settings"]),
            seed=_decoded(int, document["seed"]),
            inputs=_decoded(Mapping[str, Any], document["inputs"]),
            timings=_decoded(Mapping[str, float], document["timings"]),
            notes=_decoded(tuple[str, ...], document["notes"]),
            pending=_decoded(tuple[str, ...], document.get("pending", [])),
            exhibits=_decoded(Exhibits | None, exhibits),
            confirmation=None if confirmation is None else confirmation.cast(CONFIRMATION_SCHEMA),
        )
    except (KeyError, TypeError, ValueError, OSError, RecursionError, pa.ArrowException) as error:
        raise _altered(folder, f"{type(error).__name__}: {error}") from error


def read_record(folder: Path) -> Mapping[str, Any]:
    """Return what the command line was asked for in this run; empty where no record can be read, since nothing depends on it."""
    try:
        record = _read_json(folder / _RECORD)
    except (OSError, ValueError, RecursionError, StoreError):
        return {}
    return record if isinstance(record, dict) else {}


def samples_table(samples: pa.Table) -> pa.Table:
    """Return ``samples`` with exactly the columns and types of ``samples.parquet``, without metadata."""
    return samples.select(SAMPLES_SCHEMA.names).cast(SAMPLES_SCHEMA).combine_chunks()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it takes the place of ``path`` when all went well and is removed otherwise.

    Raises
    ------
    StoreError
        When the file cannot be written, for instance because the disk is full.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 in one step; a lone surrogate, which UTF-8 cannot hold, becomes its escape.

    Raises
    ------
    StoreError
        When the file cannot be written.
    """
    with replacing(path) as partial:
        partial.write_bytes(text.encode("utf-8", "backslashreplace"))


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one line per kind of value
    """Return ``value`` as JSON can hold it; what JSON does not know becomes its ``str``, so that no scan is lost at its end."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    text = str(value.value if isinstance(value, Enum) else value)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _decoded(kind: Any, value: Any) -> Any:  # noqa: PLR0911 - one line per kind of value
    """Build a value of the type ``kind`` from plain values; raise TypeError or ValueError where they do not fit."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is types.UnionType:  # always "... | None" here
        return None if value is None else _decoded(parts[0], value)
    if is_dataclass(kind):
        make: Any = kind
        hints = typing.get_type_hints(kind)
        present = [f.name for f in fields(kind) if f.name in _checked(dict, value) or f.default is MISSING]
        return make(**{name: _decoded(hints[name], value[name]) for name in present})
    if origin is tuple:
        return tuple(_decoded(parts[0], item) for item in _checked(list, value))
    if origin is Mapping:
        return {key: _decoded(parts[1], item) for key, item in _checked(dict, value).items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if kind is float:
        return math.nan if value is None else float(_checked((int, float), value))
    return _checked(kind, value)


def _checked(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"expected {getattr(kind, '__name__', 'a number')}, found {type(value).__name__}")
    return value


def _read_result(folder: Path) -> dict[str, Any]:
    """Read ``result.json`` as far as it takes to know that this reader understands it."""
    path = folder / _RESULT
    if not path.is_file():
        raise StoreError(f"{folder} must be a run folder, but it holds no {_RESULT}. Give the folder that toxscreen scan printed.")
    try:
        document = _read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise _altered(folder, f"{_RESULT} cannot be read: {error}") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or not isinstance(document.get("files"), dict):
        raise StoreError(f"{path} must be written by toxscreen scan, but its schema_version or files are missing.")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{folder} was written by a newer toxscreen: schema_version is {version}, and this one reads up to {SCHEMA_VERSION}."
            " Upgrade with: pip install --upgrade toxscreen"
        )
    found: dict[str, Any] = document
    return found


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, document: Any) -> None:
    write_text(path, json.dumps(document, ensure_ascii=False, allow_nan=False, indent=None if path.name == _EXHIBITS else 1) + "\n")


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _altered(path.parent, f"{path.name} cannot be read: {error.strerror}") from error


def _unwritable(path: Path, error: OSError) -> StoreError:
    if path.is_dir():
        return StoreError(f"{path} must be a file, but is a folder. Remove it, or choose another folder with --out.")
    return StoreError(f"{path} cannot be written: {error.strerror or error}. Free space or choose another folder with --out.")


def _altered(folder: Path, detail: str) -> StoreError:
    return StoreError(f"The run folder {folder} is not as toxscreen wrote it: {detail}. Scan again.")

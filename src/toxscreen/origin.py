"""What a result comes from: a scan that is repeated hands its result out again where nothing has changed that decides it.

1. Everything that decides a result goes into one digest: what the activations were computed from, how the data was read and what
   was left out of it, the model, the settings, the versions of all packages, and the code of this one.
2. The run folder keeps it beside the result of a scan that is over, with a checksum of that result.
3. Where the digest of a later scan is the same, and the files are as they were written, the result is handed out.

What cannot be known to be the same has no digest, and is computed anew.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from toxscreen.config import ScanConfig
from toxscreen.result import Origin
from toxscreen.sources.data.base import TrainingSet
from toxscreen.store import Manifest


def origin(manifest: Manifest, training_set: TrainingSet, config: ScanConfig, **told: Any) -> Origin | None:
    """Return what a result comes from; None where it cannot be known to come out the same again.

    Parameters
    ----------
    manifest
        What the activations were computed from: the data and the model by their fingerprints, and how the pass was made.
    training_set
        What is scanned. One that has no fingerprint of each sample may hold other samples the next time.
    config
        Settings and seed.
    told
        What else the result tells; JSON-serialisable.
    """
    code, packages = _code(), _packages()
    if training_set.digests() is None or code is None or not packages:
        return None
    decides = {
        **told,
        "pass": manifest.digest(),
        "data": [training_set.name, training_set.location],
        "not_examined": [asdict(entry) for entry in training_set.not_examined()],
        "settings": asdict(config),
        "packages": packages,
        "code": code,
    }
    text = json.dumps(decides, sort_keys=True, default=_plain)
    digest = hashlib.blake2b(text.encode("ascii"), digest_size=16).hexdigest()
    return Origin(digest, datetime.now().astimezone().isoformat(timespec="seconds"))


def _plain(value: object) -> object:
    """Return what stands for a value that JSON does not know."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else repr(value)


@cache
def _code() -> str | None:
    """Return a digest of the source of this package, since a version does not tell commits apart; None where it is hidden."""
    folder = Path(__file__).parent
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*.py")}
    digest = hashlib.blake2b(digest_size=16)
    try:
        for name in sorted(files):
            digest.update(json.dumps([name, files[name].read_bytes().hex()]).encode("ascii"))
    except OSError:
        return None
    return digest.hexdigest() if files else None


@cache
def _packages() -> Mapping[str, str | None]:
    """Return the version of Python and of each package that this one can use; empty where its own metadata is hidden."""
    try:
        required = metadata.requires("toxscreen") or []
    except metadata.PackageNotFoundError:
        return {}
    versions: dict[str, str | None] = {"python": sys.version}
    for name in (re.split(r"[^\w.-]", each, maxsplit=1)[0] for each in required):
        versions[name] = None
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions

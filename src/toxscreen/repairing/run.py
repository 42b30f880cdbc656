"""What a repair starts from: the data and the model of a run, each the very one that was scanned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from toxscreen.errors import DataError, ModelError, StoreError, ToxscreenError, UsageError
from toxscreen.report.documents import read_record
from toxscreen.result import ScanResult
from toxscreen.sources.data import find_split, open_training_set
from toxscreen.sources.data.base import TrainingSet, spread
from toxscreen.sources.data.layout import printable
from toxscreen.sources.model import open_classifier
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.preprocessing import ImagePreprocessing, Preprocessing

if TYPE_CHECKING:
    from torch import nn

_READING = ("split", "input_column", "label_column")
"""What a scan is told of how to read its data."""

_PROBES = 64
"""Samples that the model is traced with, as many as in a scan."""


def places_of(result: ScanResult, folder: Path | None) -> list[Path]:
    """Return what a repair reads and may not write to: the run, and its data and its model where they are recorded."""
    recorded = {} if folder is None else read_record(folder)
    named = [
        *(recorded.get(part) for part in ("data", "model")),
        *(known(result, part).get("location") for part in ("data", "model")),
    ]
    places = [folder, *(Path(place) for place in named if isinstance(place, str) and place)]
    return [place for place in places if place is not None]


def known(result: ScanResult, part: str) -> Mapping[str, Any]:
    """Return what a result says of its ``data`` or its ``model``."""
    facts = result.inputs.get(part)
    return facts if isinstance(facts, Mapping) else {}


def asked_of(result: ScanResult, folder: Path | None) -> Mapping[str, Any]:
    """Return what is known of how the data was read: what the result says of it, and before that what the command line asked."""
    return {**known(result, "data"), **({} if folder is None else read_record(folder))}


def reading_of(asked: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    """Return what :func:`toxscreen.sources.data.open_training_set` is told to read the data as it was scanned."""
    return {"class_names": tuple(class_names), **{name: asked[name] for name in _READING if isinstance(asked.get(name), str)}}


def find_data(asked: Mapping[str, Any], data: str | Path | None, *, otherwise: str) -> Path:
    """Return where the data that was scanned lies; ``otherwise`` says what to do where it was in memory.

    Raises
    ------
    DataError
        Nothing is there, or it was never read from files.
    """
    recorded, location = asked.get("data"), asked.get("location")
    candidates = (recorded, location) if data is None else (data,)
    for place in candidates:
        if isinstance(place, str | Path) and place and Path(place).exists():
            return Path(place)
    if data is not None or isinstance(recorded, str):
        place = data or recorded
        raise DataError(f"The data that was scanned must be at {place}, but nothing is there. Say where it is with --data.")
    raise DataError(
        f"The data that was scanned must be there, but {location or 'it'} was in memory, or is gone. Say where it is with --data, "
        f"or {otherwise}"
    )


def open_scanned(original: Any, reading: Mapping[str, Any], fingerprint: object) -> TrainingSet:
    """Open the data, if it is what was scanned.

    Raises
    ------
    DataError
        It was edited, or is another data set.
    """
    name = printable(original) if isinstance(original, Path) else "The data that was given"
    try:
        source = open_training_set(original, **reading)
    except DataError as error:
        why = _renamed(original, reading) or f"it cannot be read so: {error}"
        raise DataError(f"{name} must be as it was when it was scanned, but {why}") from error
    if (found := source.fingerprint()) != fingerprint:
        raise DataError(
            f"{name} must be the data that was scanned, but its fingerprint is {found} and the run's is "
            f"{fingerprint or 'unknown'}: it was edited, or is another data set. Scan it again."
        )
    return source


def _renamed(original: Any, reading: Mapping[str, Any]) -> str:
    """Say which classes of the scan the data has no more; nothing where it has all of them, or is of others altogether."""
    try:
        found = open_training_set(original, **{**reading, "class_names": None}).class_names
    except DataError:
        return ""
    gone = [name for name in reading["class_names"] if name not in found]
    new = [name for name in found if name not in reading["class_names"]]
    if not gone or len(gone) == len(reading["class_names"]):
        return ""
    renamed = f", and there is {', '.join(map(repr, new))}" if new else ""
    return f"there is no class {', '.join(map(repr, gone))} any more{renamed}. Name it as it was, or scan the data again."


def check_samples(result: ScanResult, source: TrainingSet) -> None:
    """Hold the samples of a run against its data: a digest says that a file is whole, not that it is about this data.

    Raises
    ------
    DataError
        They are other samples, in another order, or have other labels.
    """
    names = pa.array(source.class_names, pa.string())
    labels = names.take(pa.array(source.labels, mask=source.labels < 0))
    told = result.samples
    if told["id"].combine_chunks() != pa.array(source.ids, pa.string()) or told["label"].combine_chunks() != labels:
        raise DataError(
            f"The samples of the run must be those of {source.location}, in the same order and with the same labels, but are not: "
            "the run was altered. Scan the data again."
        )


def open_held_out(original: Any, training_set: TrainingSet, reading: Mapping[str, Any]) -> tuple[TrainingSet | None, str]:
    """Return a split of the data to measure on, or None, and its name, or what there is to say of one that cannot be used."""
    name = find_split(original)
    if name is None or name == reading.get("split"):
        return None, ""
    try:
        held_out = open_training_set(original, **{**reading, "split": name})
    except ToxscreenError as error:
        return None, f"The split {name!r} could not be used to measure the repair: {error}"
    return (held_out, name) if held_out.modality == training_set.modality else (None, "")


def open_model(
    result: ScanResult,
    folder: Path | None,
    training_set: TrainingSet,
    *,
    model: str | Path | nn.Module | Classifier | None = None,
    arch: str | None = None,
    preprocessing: Preprocessing | None = None,
    device: str | None = None,
) -> Classifier:
    """Open the model of a run, if it is what was scanned.

    Parameters
    ----------
    result, folder
        The result, and where it lies.
    training_set
        The data of the run.
    model
        Where the model is now, if it is not where it was, or the model itself.
    arch, preprocessing, device
        As :func:`toxscreen.sources.model.open_classifier` takes them. Code is named here each time: that of a record is not run.

    Raises
    ------
    ModelError
        The model was in memory or is gone, was edited, or is another one, or cannot be opened.
    """
    place = _find_model(result, folder) if model is None else model
    rows = spread(len(training_set), _PROBES)
    layer = result.settings.get("extraction", {}).get("layer")
    classifier = open_classifier(
        place,
        n_classes=len(training_set.class_names),
        modality=training_set.modality,
        sample=[entry for entry in training_set.take(rows) if entry is not None],
        arch=arch,
        preprocessing=preprocessing or _preprocessing({} if folder is None else read_record(folder)),
        layer=layer,
        device=device,
    )
    expected = known(result, "model").get("fingerprint")
    if (found := classifier.fingerprint()) != expected:
        raise ModelError(
            f"{classifier.location} must be the model that was scanned, but its fingerprint is {found} and the run's is "
            f"{expected or 'unknown'}: it was edited, is another model, or is given other preprocessing. Scan again with it."
        )
    return classifier


def _find_model(result: ScanResult, folder: Path | None) -> Path:
    facts = known(result, "model")
    recorded = {} if folder is None else read_record(folder)
    own = [folder / "model"] if folder is not None and facts.get("trained_here") is True else []
    for place in (*own, recorded.get("model"), facts.get("location")):
        if isinstance(place, str | Path) and place and Path(place).exists():
            return Path(place)
    raise ModelError(
        f"The model that was scanned must be there, but {facts.get('location') or 'it'} was in memory, or is gone. Say where it is "
        "with --model, or in Python hand it over again: ts.repair(run, out, model=model)."
    )


def _preprocessing(asked: Mapping[str, Any]) -> ImagePreprocessing | None:
    """Return the settings for pictures that the command line was told when it scanned; None where it was told none.

    Raises
    ------
    StoreError
        They cannot be.
    """
    size, channels, mean, std = (asked.get(name) for name in ("size", "channels", "mean", "std"))
    if size is channels is mean is std is None:
        return None
    try:
        height, width = size or (None, None)
        means, stds = (tuple(float(number) for number in values or ()) for values in (mean, std))
        return ImagePreprocessing(height, width, channels and int(channels), means, stds)
    except (TypeError, ValueError, UsageError) as error:
        raise StoreError(f"The run's record must say how pictures were prepared, but is damaged: {error}. Scan again.") from error

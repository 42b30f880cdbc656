"""A recovered trigger as a file: written from a run, looked for in other data, and put on other data.

Beside the flow's report. A file may come from anybody: it is held against what a trigger can be, and nothing in it is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from pyarrow import csv
from pyarrow.parquet import write_table

from toxscreen.errors import DataError, UsageError
from toxscreen.repairing.manifest import guarded
from toxscreen.report.documents import replacing, write_text
from toxscreen.result import ScanResult
from toxscreen.sources.data.base import MISSING_LABEL, Input, TrainingSet
from toxscreen.sources.data.layout import printable
from toxscreen.sources.data.writing import write_training_set
from toxscreen.sources.model.preprocessing import ImagePreprocessing, Interpolation
from toxscreen.trigger import load
from toxscreen.trigger.base import Trigger

VERSION = 1
"""Raised with every change of the file that an older reader would misunderstand."""

_MOST_BYTES = 2**26
"""Of a file, which is some ten times what the pattern of a picture of 512 x 512 takes."""

_PIXELS = 2**24
"""Numbers of the pictures that are in memory at a time; one picture at least."""

_STRETCH = 64
"""Samples that are read at a time, at most."""

_NAMED = 5
"""Triggers that a message names."""

_WAYS = get_args(Interpolation)

_UNSAFE = re.compile(r"[^\w.-]+")

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, samples done, samples in all)."""


@dataclass(frozen=True)
class StoredTrigger:
    """A trigger and what its file tells about it.

    Attributes
    ----------
    trigger
        What can be put on an input and looked for in one.
    modality
        Of the inputs that it is for.
    document
        All that the file holds.
    """

    trigger: Trigger[Any]
    modality: str
    document: Mapping[str, Any]

    @property
    def target(self) -> str:
        """Return the class that the model gives what carries it."""
        return str(self.document["target"])

    @property
    def group(self) -> int:
        """Return the number of the group that it was recovered from."""
        return int(self.document["group"])

    @property
    def proved(self) -> bool:
        """Return whether what it does to the model was taken for a proof."""
        return self.document.get("proved") is True


@dataclass(frozen=True)
class Finding:
    """Which samples of a data set hold a trigger.

    Attributes
    ----------
    rows
        Their row numbers, shape ``(n_held,)``.
    ids, labels
        Their ids and class names, null for none; shape ``(n_held,)``.
    by_class
        For each class (None for samples without a label): samples that were read, and those that hold it.
    unreadable
        Samples that could not be read.
    resized
        Pictures that had to be brought to the size that the trigger is for.
    """

    rows: NDArray[np.int64]
    ids: pa.StringArray
    labels: pa.StringArray
    by_class: Mapping[str | None, tuple[int, int]]
    unreadable: int
    resized: int


@dataclass(frozen=True)
class Applied:
    """A copy of a data set with a trigger on every sample that could be read: where it lies, and how many there are."""

    out: Path
    n: int
    unreadable: int
    resized: int


def triggers_of(result: ScanResult, class_name: str | None = None, group: int | None = None) -> tuple[StoredTrigger, ...]:
    """Return the triggers that a scan recovered, or those of one class or group.

    Raises
    ------
    UsageError
        When there is none of that class and group.
    DataError
        When there is none at all, or one cannot be read.
    """
    names = [c.name for c in result.classes]
    if class_name is not None and class_name not in names:
        listed = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
        raise UsageError(f"--class must name a class of the run, got {class_name!r}. The classes are {listed}.")
    data, model = (result.inputs.get(part) or {} for part in ("data", "model"))
    modality, preprocessing = str(data.get("modality")), model.get("preprocessing") or {}
    about = {"toxscreen_trigger": VERSION, "modality": modality, "run": result.name}
    if modality == "image":
        about["interpolation"] = preprocessing.get("interpolation", ImagePreprocessing().interpolation)
    every = [
        {**about, "target": c.name, "group": found.id, **found.trigger}
        for c in result.classes
        for found in c.groups
        if found.trigger is not None
    ]
    asked = [
        document
        for document in every
        if (class_name is None or document["target"] == class_name) and (group is None or document["group"] == group)
    ]
    if not every:
        raise DataError("The run must hold a recovered trigger, but none was found: there is none to write.")
    if not asked:
        raise UsageError(f"No trigger of the run is of that class and group. There are those of {_listed(every)}.")
    return tuple(StoredTrigger(load(document), modality, document) for document in asked)


def write(stored: Sequence[StoredTrigger], run: Path, out: Path | None = None) -> tuple[Path, ...]:
    """Write each trigger to a file, and return their paths: ``out``, or ``trigger-CLASS-GROUP.json`` in the run folder.

    Raises
    ------
    UsageError
        When ``out`` is given for several.
    StoreError
        When a file cannot be written.
    """
    if out is not None and len(stored) > 1:
        raise UsageError(
            f"--out is one file, but there are {len(stored)} triggers: of {_listed([each.document for each in stored])}. "
            "Choose one with --class and --group, or leave --out away."
        )
    paths = [out] if out is not None else [run / name for name in _names(stored)]
    for each, path in zip(stored, paths, strict=True):
        write_text(path, json.dumps(each.document, ensure_ascii=False, allow_nan=False, indent=1) + "\n")
    return tuple(paths)


def read(path: Path) -> StoredTrigger:
    """Read a file that :func:`write` wrote.

    Raises
    ------
    DataError
        When it is none, or was written by a newer toxscreen.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"A file of a trigger must have at most {_MOST_BYTES:,} bytes, and {printable(path)} has more.")
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refused)
    except OSError as error:
        raise DataError(f"{printable(path)} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{printable(path)} must be a file that toxscreen trigger RUN wrote, but is no JSON: {error}.") from error
    version = document.get("toxscreen_trigger") if isinstance(document, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise DataError(f"{printable(path)} must be a file that toxscreen trigger RUN wrote, but toxscreen_trigger is missing.")
    if version > VERSION:
        raise DataError(f"{printable(path)} was written by a newer toxscreen. Upgrade with: pip install --upgrade toxscreen")
    match document:
        case {"modality": "image", "interpolation": way, "picture": [_, _, 1 | 3], "target": str(), "group": int()} if way in _WAYS:
            return StoredTrigger(load(document), "image", document)
        case {"modality": "array", "picture": [*_], "target": str(), "group": int()}:
            return StoredTrigger(load(document), "array", document)
        case {"modality": "text", "phrases": [*_], "target": str(), "group": int()}:
            return StoredTrigger(load(document), "text", document)
    names = ("modality", "target", "group", "picture", "interpolation", "phrases")
    told = ", ".join(f"{name} {document[name]!r:.40}" for name in names if name in document)
    raise DataError(
        f"{printable(path)} must say which inputs, target and group its trigger is of, but says only: {told}. Write it anew."
    )


def _refused(constant: str) -> None:
    raise ValueError(f"it holds {constant}")


def find(stored: StoredTrigger, data: TrainingSet, *, progress: Progress | None = None) -> Finding:
    """Look for a trigger in the inputs of a data set.

    Raises
    ------
    DataError
        When it is for other inputs.
    """
    medium = _medium(stored, data)
    held, read, resized = np.zeros(len(data), bool), np.zeros(len(data), bool), 0
    for rows, inputs in _stretches(data, medium, "looking for the trigger", progress):
        read[rows] = True
        held[rows] = stored.trigger.held_by(medium.seen(inputs))
        resized += medium.resized(inputs)
    rows = np.flatnonzero(held)
    names = pa.array(data.class_names, pa.string())
    labels = names.take(pa.array(data.labels[rows], mask=data.labels[rows] == MISSING_LABEL))
    by_class = {}
    counts = [np.bincount(data.labels[some] + 1, minlength=len(data.class_names) + 1).tolist() for some in (read, held)]
    for name, n_read, n_held in zip((None, *data.class_names), *counts, strict=True):  # a missing label is -1
        if name is not None or n_read:
            by_class[name] = (n_read, n_held)
    return Finding(rows, data.ids.take(pa.array(rows)), labels, by_class, int((~read).sum()), resized)


def write_list(finding: Finding, path: Path) -> None:
    """Write the samples that hold a trigger to a ``.csv`` or ``.parquet`` file: ``id`` and ``label``.

    Raises
    ------
    UsageError
        When it has another ending.
    StoreError
        When it cannot be written.
    """
    check_list(path)
    columns = {"id": finding.ids, "label": finding.labels}
    with replacing(path) as partial:
        if path.suffix.lower() == ".parquet":
            write_table(pa.table(columns), partial)
        else:
            safe = pa.table({name: guarded(column.fill_null("")) for name, column in columns.items()})
            csv.write_csv(safe, partial, csv.WriteOptions(quoting_style="all_valid"))


def check_list(path: Path) -> None:
    """Refuse a path that cannot be such a list.

    Raises
    ------
    UsageError
        When it has another ending.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"A list of samples (--out) must end in .csv or .parquet, got {path.name!r}.")


def apply(stored: StoredTrigger, data: TrainingSet, out: Path, *, progress: Progress | None = None) -> Applied:
    """Write a copy of a data set with the trigger on every sample; labels stay.

    Raises
    ------
    UsageError
        When the data is in memory, or ``out`` cannot be used.
    DataError
        When the trigger is for other inputs, or the copy cannot be written.
    """
    medium = _medium(stored, data)
    read, resized = np.zeros(len(data), bool), 0
    for rows, inputs in _stretches(data, medium, "reading the inputs", progress):
        read[rows] = True
        resized += medium.resized(inputs)
    write_training_set(data, out, _Changes(stored.trigger, data, medium, read), data.labels)
    return Applied(out, int(read.sum()), int((~read).sum()), resized)


@dataclass(frozen=True)
class _Medium:
    """How the inputs of a data set are seen by a trigger; ``size`` is None for texts."""

    size: ImagePreprocessing | None

    @property
    def stretch(self) -> int:
        """Return how many samples are read at a time."""
        if self.size is None:
            return _STRETCH
        height, width, channels = self._shape
        return min(_STRETCH, max(1, _PIXELS // (height * width * channels)))

    @property
    def _shape(self) -> tuple[int, int, int]:
        size = cast("ImagePreprocessing", self.size)
        return cast("tuple[int, int, int]", (size.height, size.width, size.channels))

    def seen(self, inputs: Sequence[Input]) -> NDArray[Any]:
        """Return texts ``(n,)``, or pictures ``(n, height, width, channels)`` of the size that the trigger is for."""
        if self.size is not None:
            return self.size.apply(inputs)
        texts = np.empty(len(inputs), object)
        texts[:] = inputs
        return texts

    def resized(self, inputs: Sequence[Input]) -> int:
        """Return how many pictures are not of that size."""
        return 0 if self.size is None else sum(np.shape(picture) != self._shape for picture in inputs)

    def changed(self, trigger: Trigger[Any], inputs: Sequence[Input]) -> list[Input]:
        """Return the inputs with the trigger, each shaped as it was."""
        before = self.seen(inputs)
        after = trigger.put_on(before)
        if self.size is None:
            return list(after)
        pairs = zip(inputs, after - before, strict=True)
        return [_added(cast("NDArray[np.uint8]", picture), change) for picture, change in pairs]


def _added(picture: NDArray[np.uint8], change: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Add what a trigger changes: a model that brings the picture to the trigger's size sees it there as it was recovered."""
    height, width, channels = picture.shape
    if change.shape[2] != channels:
        change = np.repeat(change.mean(axis=2, keepdims=True), channels, axis=2)
    if change.shape[:2] != (height, width):
        planes = [Image.fromarray(np.ascontiguousarray(change[..., channel])) for channel in range(channels)]
        stretched = [np.asarray(plane.resize((width, height), Image.Resampling.NEAREST)) for plane in planes]
        change = np.stack(stretched, axis=2)
    added: NDArray[np.uint8] = (picture + change).round().clip(0, 255).astype(np.uint8)
    return added


def _medium(stored: StoredTrigger, data: TrainingSet) -> _Medium:
    if data.modality != stored.modality:
        raise DataError(
            f"The trigger is {stored.trigger} for {stored.modality} inputs, but {data.location} holds {data.modality} inputs."
        )
    if data.modality == "text":
        return _Medium(None)
    if data.modality != "image":
        raise DataError(
            "The trigger is for arrays, which no file holds: in Python toxscreen.trigger.load(document) has its put_on and held_by."
        )
    height, width, channels = stored.document["picture"]
    way = stored.document["interpolation"]
    return _Medium(ImagePreprocessing(height, width, channels, scale=1.0, interpolation=way, channels_first=False))


def _stretches(
    data: TrainingSet, medium: _Medium, what: str, progress: Progress | None
) -> Iterator[tuple[NDArray[np.int64], list[Input]]]:
    """Yield the samples that can be read, with their row numbers, some at a time."""
    for number, batch in enumerate(data.batches(medium.stretch), start=1):
        if len(batch.rows):
            yield batch.rows, batch.inputs
        if progress is not None:
            progress(what, min(number * medium.stretch, len(data)), len(data))


class _Changes(Mapping[int, Input]):
    """The inputs with the trigger by row: made some at a time when the first of them is asked for, so that they do not fill memory.

    A patch without a place of its own gets another one in each picture of a stretch.
    """

    def __init__(self, trigger: Trigger[Any], data: TrainingSet, medium: _Medium, readable: NDArray[np.bool_]) -> None:
        self._trigger, self._data, self._medium, self._readable = trigger, data, medium, readable
        self._made: dict[int, Input] = {}

    def __getitem__(self, row: int) -> Input:
        if row not in self:
            raise KeyError(row)
        if row not in self._made:
            start = row - row % self._medium.stretch
            rows = start + np.flatnonzero(self._readable[start : start + self._medium.stretch])
            inputs = self._data.take(rows)
            if any(value is None for value in inputs):
                raise DataError(f"{self._data.location} changed while it was copied. Leave it alone meanwhile, and try again.")
            made = self._medium.changed(self._trigger, cast("list[Input]", inputs))
            self._made = dict(zip(rows.tolist(), made, strict=True))
        return self._made[row]

    def __contains__(self, row: object) -> bool:
        return isinstance(row, int) and 0 <= row < len(self._readable) and bool(self._readable[row])

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self._readable).tolist())

    def __len__(self) -> int:
        return int(self._readable.sum())


def _names(stored: Sequence[StoredTrigger]) -> list[str]:
    """Return a name for each file that no file system takes for something else, or for one of the others."""
    names: list[str] = []
    for each in stored:
        stem = f"trigger-{_UNSAFE.sub('-', each.target).strip('-.')[:60] or 'class'}-{each.group}"
        taken = {name.casefold() for name in names}
        numbered = (f"{stem}{f'-{n}' if n else ''}.json" for n in range(len(stored) + 1))
        names.append(next(name for name in numbered if name.casefold() not in taken))
    return names


def _listed(documents: Sequence[Mapping[str, Any]]) -> str:
    """Name the triggers of some documents."""
    named = [f"class {document['target']!r} group {document['group']}" for document in documents[:_NAMED]]
    return ", ".join(named) + (", ..." if len(documents) > _NAMED else "")

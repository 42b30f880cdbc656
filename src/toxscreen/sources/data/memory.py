"""Training data that is in memory already: arrays, sequences, and map-style data sets of torch and Hugging Face."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data.base import Batch, Input, Modality, Stack, Unreadable
from toxscreen.sources.data.decode import channels_last, image_pixels
from toxscreen.sources.data.labels import are_names, encode_labels, is_sequence, labels_array
from toxscreen.sources.data.layout import IMAGE_COLUMNS, TEXT_COLUMNS, choose_columns
from toxscreen.sources.data.reading import Cell, RowReader, Selection, array_digests, cell_digest, joined, row_ids, text_values

_TRIED = 10
"""Samples that are tried for one that shows what kind of input a data set yields."""

_LARGEST = 1e15
"""Number in an input up to which sums of squares stay within float32."""

_BEYOND = Unreadable(f"holds NaN, infinity or numbers beyond {_LARGEST:g}")

_FLUSH_ROWS = 10_000
"""Labels held as Python objects before they become an Arrow array."""


def open_object(data: Any, selection: Selection) -> RowReader:
    """Open training data that is in memory; nothing of it is ever changed.

    Raises
    ------
    DataError
        If its kind, its shape or its labels cannot be used.
    UsageError
        If a split is asked for, or columns where there are none.
    """
    if selection.split is not None:
        raise UsageError(f"Data in memory has no splits, so split {selection.split!r} cannot be read from it.")
    if isinstance(data, tuple) and len(data) == 2:
        return _open_pair(data[0], data[1], selection, "arrays")
    if len(getattr(data, "tensors", ())) == 2:  # torch's TensorDataset
        return _open_pair(data.tensors[0], data.tensors[1], selection, type(data).__name__)
    if hasattr(data, "with_format") and hasattr(data, "features") and not isinstance(data, Mapping):
        return _open_hub_dataset(data, selection)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, Mapping | tuple | np.ndarray):
        return _open_dataset(data, selection)
    raise DataError(
        f"Training data must be a path, a pair (inputs, labels), or a data set with a length that yields (input, label) by number, "
        f"got {type(data).__module__}.{type(data).__qualname__}. Where it is a mapping of splits, give one of them."
    )


class _InMemory(RowReader):
    """What the members below share: arrays can be looked at."""

    def pictures(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8] | None]:
        """Return images as they are, and arrays ``(1 or 3, height, width)`` scaled to 0..255 by their own minimum and maximum."""
        if self.modality != "array":
            return super().pictures(rows)
        return [_picture(value) for value in self.take(rows)]


class TextRows(_InMemory):
    """Texts in one Arrow array, shape ``(n_samples,)``."""

    def __init__(self, texts: pa.Array, **common: Any) -> None:
        super().__init__(modality="text", **common)
        self._texts = texts

    def cells(self, rows: NDArray[np.int64]) -> list[Cell]:
        """Return the texts of ``rows``."""
        values = text_values(self._texts.take(pa.array(rows)))
        return [Unreadable("has no text") if value is None else value for value in values]


class StackRows(_InMemory):
    """Inputs in one NumPy array, shape ``(n_samples, ...)``; uint8 images or arrays that a model takes as they are."""

    def __init__(self, stack: NDArray[Any], **common: Any) -> None:
        images = channels_last(stack)
        super().__init__(modality="array" if images is None else "image", **common)
        self._stack = stack if images is None else images

    def cells(self, rows: NDArray[np.int64]) -> list[Cell]:
        """Return copies of the arrays of ``rows``."""
        return [array if _bounded(array) else _BEYOND for array in np.ascontiguousarray(self._stack[rows])]

    def _hashed(self, rows: NDArray[np.int64]) -> list[bytes]:
        return array_digests(self._stack[rows])

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Return the samples of some rows, where they can all be read as copies in one array."""
        stack = self._stack[rows]
        return Batch(rows, Stack(stack)) if _bounded(stack) else super().batch(rows)


class ItemRows(_InMemory):
    """Inputs that are fetched one by one with ``get(row)``, which may fail."""

    def __init__(
        self, get: Callable[[int], Any], *, modality: Modality, digests: NDArray[np.uint8] | None = None, **common: Any
    ) -> None:
        super().__init__(modality=modality, **common)
        self._get = get
        self._digests = digests

    def cells(self, rows: NDArray[np.int64]) -> list[Cell]:
        """Return the inputs of ``rows``."""
        return [_as_modality(_fetched(self._get, row), self.modality) for row in rows.tolist()]


def _open_pair(inputs: Any, labels: Any, selection: Selection, location: str) -> RowReader:
    if selection.input_column or selection.label_column:
        raise UsageError("A pair (inputs, labels) has no columns. Leave the names of columns away.")
    if not is_sequence(inputs):
        raise DataError(
            f"Inputs must be an array or a sequence with a length, got a {type(inputs).__name__}. Make a list or an array of it."
        )
    inputs = _as_texts_or_stack(inputs)
    encoded, class_names = encode_labels(labels_array(labels, len(inputs), location), selection.class_names, location)
    common = _common(location, encoded, class_names)
    if isinstance(inputs, pa.Array):
        return TextRows(inputs, **common)
    if isinstance(inputs, np.ndarray):
        return StackRows(inputs, **common)
    get = inputs.__getitem__
    return ItemRows(get, modality=_modality_of(get, len(inputs), location), **common)


def _as_texts_or_stack(inputs: Any) -> Any:
    """Return texts as an Arrow array and numbers as a NumPy array, neither of them copied where they are one; else the inputs."""
    if hasattr(inputs, "detach") or hasattr(inputs, "to_numpy"):
        inputs = inputs if isinstance(inputs, pa.Array | pa.ChunkedArray) else _numpy(inputs)
    elif not isinstance(inputs, np.ndarray) and len(inputs) and isinstance(inputs[0], list | tuple | int | float):
        inputs = np.asarray(inputs)
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "biuf":
        if inputs.ndim < 2:
            raise DataError(f"Inputs must have the shape (n_samples, ...) with at least one feature each, got {inputs.shape}.")
        return inputs
    is_arrow = isinstance(inputs, pa.Array | pa.ChunkedArray)
    if is_arrow or (len(inputs) and isinstance(inputs[0], str)):
        try:
            texts = inputs if is_arrow else pa.array(inputs, pa.large_string(), from_pandas=True)
            texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
            return texts.cast(pa.large_string())
        except (pa.ArrowException, UnicodeError) as error:
            raise DataError(f"Inputs that start with a text must all be texts in valid Unicode: {error}.") from error
    return inputs


def _open_dataset(data: Any, selection: Selection) -> ItemRows:
    location = type(data).__name__
    n = len(data)
    pair = partial(_pair, data, selection)
    modality = _modality_of(lambda row: pair(row)[0], n, location)
    targets: Any = getattr(data, "targets", None)
    digests = None
    if is_sequence(targets) and len(targets) == n and getattr(data, "target_transform", None) is None:
        labels = labels_array(targets, n, location)
    else:
        labels, digests = _one_pass(pair, n, modality, location)
    class_names, by_index = selection.class_names, False
    if class_names is None and are_names(getattr(data, "classes", None)):
        class_names, by_index = tuple(data.classes), bool(pa.types.is_integer(labels.type))
    encoded, class_names = encode_labels(labels, class_names, location, by_index=by_index)
    return ItemRows(lambda row: pair(row)[0], modality=modality, digests=digests, **_common(location, encoded, class_names))


def _open_hub_dataset(data: Any, selection: Selection) -> ItemRows:
    location = type(data).__name__
    columns = list(data.column_names)
    usual = (*IMAGE_COLUMNS, *TEXT_COLUMNS)
    input_column, label_column = choose_columns(selection.input_column, selection.label_column, columns, usual, location)
    labels = data.select_columns([label_column]).with_format("arrow")[:][label_column]
    names = getattr(data.features[label_column], "names", None)
    by_index = selection.class_names is None and are_names(names) and bool(pa.types.is_integer(labels.type))
    class_names = tuple(names) if by_index and names is not None else selection.class_names
    encoded, class_names = encode_labels(labels, class_names, location, by_index=by_index)
    items = data.select_columns([input_column]).with_format(None)

    def get(row: int) -> Any:
        return items[row][input_column]

    return ItemRows(get, modality=_modality_of(get, len(data), location), **_common(location, encoded, class_names))


def _one_pass(
    pair: Callable[[int], tuple[Any, Any]], n: int, modality: Modality, location: str
) -> tuple[pa.Array, NDArray[np.uint8]]:
    """Collect the labels of a data set that yields them only together with its inputs, which are hashed on the way."""
    digests: list[bytes] = []

    def label(row: int) -> Any:
        item = _fetched(pair, row)
        if isinstance(item, Unreadable):
            digests.append(cell_digest(item))
            return None
        digests.append(cell_digest(_as_modality(item[0], modality)))
        return _scalar(item[1], row, location)

    rows = iter(range(n))
    chunks = []
    while chunk := [label(row) for row in islice(rows, _FLUSH_ROWS)]:
        chunks.append(pa.table({"label": labels_array(chunk, len(chunk), location)}))
    return pa.concat_tables(chunks, promote_options="permissive")["label"].combine_chunks(), joined(digests)


def _scalar(label: Any, row: int, location: str) -> Any:
    """Return the value of an array or a tensor of one element, and anything else as it is."""
    size = label.numel() if hasattr(label, "numel") else getattr(label, "size", None)
    if isinstance(size, int) and size != 1:
        raise DataError(
            f"A label must be one value, but that of item {row} of {location} has the shape {tuple(label.shape)}. "
            f"Where labels are one-hot, give the index of the 1 (argmax)."
        )
    return label.item() if size == 1 else label


def _pair(data: Any, selection: Selection, row: int) -> tuple[Any, Any]:
    item = data[row]
    if isinstance(item, Mapping):
        keys, usual = [str(key) for key in item], (*IMAGE_COLUMNS, *TEXT_COLUMNS)
        columns = choose_columns(selection.input_column, selection.label_column, keys, usual, type(data).__name__)
        return item[columns[0]], item[columns[1]]
    if isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    raise DataError(
        f"A data set must yield (input, label) pairs, but item {row} of {type(data).__name__} is a {type(item).__name__}."
    )


def _fetched(get: Callable[[int], Any], row: int) -> Any:
    try:
        return get(row)
    except UsageError:
        raise
    except DataError as error:
        return Unreadable(str(error))
    except Exception as error:  # noqa: BLE001  the code of a user's data set can raise anything
        return Unreadable(f"the data set raised {type(error).__name__}: {error}")


def _modality_of(get: Callable[[int], Any], n: int, location: str) -> Modality:
    """Return what kind of input a data set yields: that of the first sample that can be read."""
    if n == 0:
        raise DataError(f"A training set must have samples, but {location} has none.")
    reason = ""
    for row in range(min(n, _TRIED)):
        value = _as_input(_fetched(get, row))
        if not isinstance(value, Unreadable):
            return _kind(value)
        reason = value.reason
    raise DataError(f"The first inputs of {location} must be images, texts or arrays, but none can be read: {reason}.")


def _as_modality(value: Any, modality: Modality) -> Input | Unreadable:
    found = _as_input(value)
    if not isinstance(found, Unreadable) and _kind(found) != modality:
        return Unreadable(f"is of kind {_kind(found)}, unlike the first sample, which is of kind {modality}")
    return found


def _as_input(value: Any) -> Input | Unreadable:
    if isinstance(value, str | Unreadable):
        return value
    if isinstance(value, Image.Image):
        return image_pixels(value)
    array = _numpy(value)
    if array.dtype.kind not in "biuf":
        return Unreadable(f"is a {type(value).__name__}, not an image, a text or an array of numbers")
    images = channels_last(array[None])
    copy: NDArray[Any] = np.array(array if images is None else images[0])
    return copy if _bounded(copy) else _BEYOND


def _bounded(array: NDArray[Any]) -> bool:
    return array.dtype.kind != "f" or bool(np.all(np.abs(array) <= _LARGEST))


def _kind(value: Input) -> Modality:
    if isinstance(value, str):
        return "text"
    return "image" if value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] in {1, 3} else "array"


def _numpy(value: Any) -> NDArray[Any]:
    """Return a torch tensor, a pandas series or an array as a NumPy array that shares its memory where it can."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    return np.asarray(value)


def _picture(value: Input | None) -> NDArray[np.uint8] | None:
    if not isinstance(value, np.ndarray) or value.ndim != 3 or value.shape[0] not in {1, 3}:
        return None
    low, high = float(value.min()), float(value.max())
    if not np.isfinite([low, high]).all():
        return None
    scaled = (value.astype(np.float64) - low) * (255 / ((high - low) or 1))
    return np.moveaxis(np.rint(scaled).astype(np.uint8), 0, 2)


def _common(location: str, labels: NDArray[np.int64], class_names: tuple[str, ...]) -> dict[str, Any]:
    return {"name": location, "location": location, "ids": row_ids(len(labels)), "labels": labels, "class_names": class_names}

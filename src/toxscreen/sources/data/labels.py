"""Labels of any kind become indexes into class names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxscreen.errors import DataError
from toxscreen.sources.data.base import MISSING_LABEL

_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]*")
_MAX_DIGITS = 18
"""Digits that an int64 certainly holds; labels with more are names, not numbers."""


def encode_labels(
    values: pa.Array | pa.ChunkedArray, class_names: Sequence[str] | None, location: str, *, by_index: bool = False
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Map given labels to class indexes.

    Parameters
    ----------
    values
        Strings, UTF-8 bytes, numbers or booleans, shape ``(n_samples,)``. Null, the empty string, NaN and infinity are missing
        labels.
    class_names
        The classes in their order, or None for the sorted distinct labels: whole numbers by value, anything else by letters.
    location
        Where the labels come from, for messages.
    by_index
        Whether numbers are indexes into ``class_names`` for certain. Otherwise labels are names where all of them are among
        ``class_names``, and indexes where not. The index -1 is a missing label.

    Returns
    -------
    tuple of ndarray and tuple of str
        Indexes int64 ``(n_samples,)`` with ``MISSING_LABEL`` for a missing label, and the class names.

    Raises
    ------
    DataError
        If a label cannot be a class, or is not one of ``class_names``.
    """
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    encoded = _as_bytes(values, location).dictionary_encode()
    distinct = [label_text(value, location) for value in encoded.dictionary.to_pylist()]
    present = {text for text in distinct if text is not None}
    if class_names is None:
        class_names = _sorted_labels(present)
        by_index = False
    positions = _positions(present, tuple(class_names), location, by_index=by_index)
    lookup = np.array([*(MISSING_LABEL if text is None else positions[text] for text in distinct), MISSING_LABEL], dtype=np.int64)
    codes = encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
    return lookup[codes], tuple(class_names)


def label_text(value: Any, location: str) -> str | None:
    """Return the name of a class whose label is the scalar ``value``; None for a missing label.

    Raises
    ------
    DataError
        If it is a number that is not whole.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace") or None
    if isinstance(value, str | int):  # bool is an int
        return str(value) or None
    if value is None or not np.isfinite(value):
        return None
    if value != int(value):
        raise DataError(f"Labels must name classes, but {location} has the label {value}. Name another column with --label-column.")
    return str(int(value))


def are_names(names: object) -> bool:
    """Return whether something that was found beside the data is a list of distinct class names."""
    usable = isinstance(names, list | tuple) and len(names) > 0 and all(isinstance(name, str) for name in names)
    return usable and len(set(cast("list[str]", names))) == len(cast("list[str]", names))


def is_sequence(values: object) -> bool:
    """Return whether something given in Python has a length and an order: no generator, number, mapping or single text."""
    try:
        len(values)  # type: ignore[arg-type]  # the question is whether it can
    except TypeError:
        return False
    return hasattr(values, "__getitem__") and not isinstance(values, str | bytes | Mapping)


def labels_array(labels: Any, n: int | None, location: str) -> pa.Array:
    """Return labels given in Python (sequence, NumPy, torch, pandas or Arrow) as a one-dimensional Arrow array.

    Raises
    ------
    DataError
        If they are not one label per sample.
    """
    if isinstance(labels, pa.ChunkedArray):
        labels = labels.combine_chunks()
    if not isinstance(labels, pa.Array):
        if not is_sequence(labels):
            raise DataError(f"Labels must be a sequence with one label per sample, but {location} has a {type(labels).__name__}.")
        if hasattr(labels, "detach"):
            try:
                labels = labels.detach().cpu().numpy()
            except (TypeError, RuntimeError) as error:
                raise DataError(
                    f"Labels must be numbers that NumPy knows, but {location} has a tensor of {labels.dtype}. "
                    "Convert it with .long()."
                ) from error
        elif hasattr(labels, "to_numpy"):
            labels = labels.to_numpy()
        if getattr(labels, "ndim", 1) != 1:
            raise DataError(f"Labels must have the shape (n_samples,), got {tuple(labels.shape)}.")
        try:
            labels = pa.array(labels, from_pandas=True)
        except (pa.ArrowException, UnicodeError, OverflowError) as error:
            raise DataError(
                f"Labels must be strings, numbers or booleans, all of one kind; {location} has others: {error}."
            ) from error
    if n is not None and len(labels) != n:
        raise DataError(f"There must be one label per input, got {len(labels):,} labels and {n:,} inputs.")
    return labels


def _as_bytes(values: pa.Array, location: str) -> pa.Array:
    """Return strings as bytes, because they need not be valid UTF-8, and numbers as they are."""
    kind = values.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if is_number or pa.types.is_null(kind):
        return values
    try:
        return values.cast(pa.large_binary())
    except pa.ArrowException as error:
        raise DataError(f"Labels must be strings, numbers or booleans, but those in {location} are of type {kind}.") from error


def _sorted_labels(texts: set[str]) -> list[str]:
    if all(_is_number(text) for text in texts):
        return sorted(texts, key=int)
    return sorted(texts)


def _is_number(text: str) -> bool:
    return len(text) <= _MAX_DIGITS and _WHOLE_NUMBER.fullmatch(text) is not None


def _positions(texts: set[str], class_names: tuple[str, ...], location: str, *, by_index: bool) -> dict[str, int]:
    """Map each label to its index in ``class_names``."""
    if len(set(class_names)) != len(class_names):
        raise DataError(f"Class names must be distinct, got {', '.join(map(repr, class_names))}.")
    if not by_index and texts.issubset(class_names):
        index_of = {name: index for index, name in enumerate(class_names)}
        return {text: index_of[text] for text in texts}
    positions = {text: int(text) for text in texts if _is_number(text)}
    allowed = range(MISSING_LABEL, len(class_names))
    strange = sorted((text for text in texts if positions.get(text) not in allowed), key=lambda text: (text in class_names, text))
    if strange:
        raise DataError(
            f"Every label must be one of the {len(class_names)} class names or an index of one, but {location} has the label "
            f"{strange[0]!r}. Correct it, or give the class names with class_names."
        )
    return positions

"""Which output of the model stands for which class of the data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toxscreen.errors import ModelError
from toxscreen.sources.model.base import Classifier

_GENERIC = re.compile(r"(label|class)?[_ ]?\d+", re.IGNORECASE)
"""Names that a framework gave because nobody did, such as LABEL_0."""


def align_classes(class_names: Sequence[str], classifier: Classifier) -> NDArray[np.int64]:
    """Return the number of the model's output for each class of the data, shape ``(n_classes,)``.

    By name where the model names its outputs; else by value where all classes are called by numbers that the outputs have; else by
    position where there are as many outputs as classes.

    Raises
    ------
    ModelError
        None of these fits.
    """
    by_name = _by_name(class_names, classifier.class_names)
    if by_name is not None:
        return np.array(by_name, np.int64)
    if all(name.isdecimal() for name in class_names):
        values = [int(name) for name in class_names]
        if len(set(values)) == len(values) and max(values, default=0) < classifier.n_classes:
            return np.array(values, np.int64)
    if len(class_names) == classifier.n_classes:
        return np.arange(classifier.n_classes)
    raise ModelError(_no_fit(class_names, classifier))


def _by_name(wanted: Sequence[str], named: Sequence[str] | None) -> list[int] | None:
    """Return the positions of the wanted names, or None; upper and lower case differ only where that is needed."""
    if not named or all(_GENERIC.fullmatch(name) for name in named):
        return None
    for same in (str, str.casefold):
        counts = Counter(map(same, named))
        positions = {same(name): index for index, name in enumerate(named)}
        keys = [same(name) for name in wanted]
        if len(set(keys)) == len(keys) and all(counts[key] == 1 for key in keys):
            return [positions[key] for key in keys]
    return None


def _no_fit(class_names: Sequence[str], classifier: Classifier) -> str:
    outputs = "1 output" if classifier.n_classes == 1 else f"{classifier.n_classes} outputs"
    found = f"the model has {outputs} but the data has {len(class_names)} classes"
    if classifier.n_classes == 1:
        return f"Every class must have an output, but {found}. Turn a single yes-or-no output z into the two logits (-z, z)."
    named = classifier.class_names
    missing = [name for name in class_names if named and name not in named]
    names = f", and the outputs' names lack {', '.join(map(repr, missing[:3]))}" if missing else ""
    return f"Every class of the data must have an output, but {found}{names}. Is this the model that was trained on this data?"

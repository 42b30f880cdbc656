"""Which output of the model stands for which class of the data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toxscreen.errors import ModelError
from toxscreen.sources.model.base import Classifier

_GENERIC = re.compile(r"(?:label|class)?[_ ]?(\d+)", re.IGNORECASE)
"""Names that a framework gave because nobody did, such as LABEL_0: with the number of the output."""

_NAMED = 3
"""Names that a note lists."""


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


def unlike_names(class_names: Sequence[str], classifier: Classifier) -> str:
    """Say that classes were matched by position though the model has other names for its outputs; nothing where they were not."""
    named = classifier.class_names
    if not named or _made_up(named) or all(map(str.isdecimal, class_names)) or _by_name(class_names, named) is not None:
        return ""
    theirs, ours = (", ".join(map(repr, names[:_NAMED])) + ", ..." * (len(names) > _NAMED) for names in (named, class_names))
    return (
        f"The model calls its outputs {theirs} and the data its classes {ours}: they were matched in this order. If theirs"
        " is another, give the classes the names that the model has."
    )


def _made_up(named: Sequence[str]) -> bool:
    numbers = (_GENERIC.fullmatch(name) for name in named)
    return all(number is not None and number[1] == str(index) for index, number in enumerate(numbers))


def _by_name(wanted: Sequence[str], named: Sequence[str] | None) -> list[int] | None:
    """Return the positions of the wanted names, or None; upper and lower case differ only where that is needed."""
    if not named or _made_up(named):
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

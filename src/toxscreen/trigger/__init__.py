"""Step 8 of the flow: the trigger on a plate. What a group's inputs share is put on other inputs, and the model is asked."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from toxscreen.errors import DataError
from toxscreen.trigger.base import Trigger
from toxscreen.trigger.bends import Bend
from toxscreen.trigger.patches import Patch
from toxscreen.trigger.patterns import Pattern
from toxscreen.trigger.tints import Tint
from toxscreen.trigger.transforms import Transform
from toxscreen.trigger.words import Words

KINDS: Mapping[str, type[Trigger[Any]]] = MappingProxyType(
    {kind.kind: kind for kind in (Patch, Pattern, Transform, Bend, Tint, Words)}
)
"""Every kind of trigger by its name in documents."""

TOLD = (
    *("toxscreen_trigger", "modality", "interpolation", "run", "target", "group"),
    *("description", "sources", "proved", "flips", "control_flips", "returns", "control_returns"),
)
"""What a document tells beside the values that make the trigger."""


def load(document: Mapping[str, Any]) -> Trigger[Any]:
    """Make the trigger of a document: that of a group in a result (``groups[].trigger``), or what a file of one holds.

    Raises
    ------
    DataError
        When it is no trigger of a known kind, or its values make none.
    """
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"The kind of a trigger must be one of {', '.join(KINDS)}, got {kind!r:.60}.")
    return KINDS[kind].from_document({name: value for name, value in document.items() if name not in TOLD})

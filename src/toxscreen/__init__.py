"""A tox screen for training data: finds backdoor poison in the data that a classifier was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toxscreen.api import clean, load, repair, scan

__all__ = ["clean", "load", "repair", "scan"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that ``import toxscreen`` stays light."""
    if name in __all__:
        from toxscreen import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

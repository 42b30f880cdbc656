"""Everything that toxscreen raises on purpose.

::

    ToxscreenError              exit code 4: what was named cannot be used, or a step failed
    ├── UsageError              exit code 2: what was typed cannot be
    ├── DataError               the training set cannot be used
    ├── ModelError              the classifier cannot be used
    │   └── RefusedError        a file that cannot be read safely (pickle, TorchScript, Keras)
    ├── TrainerError            the user's own training recipe failed
    ├── StoreError              the activation store or a run folder cannot be used
    ├── EngineError             the machines that a scan is spread over cannot be used
    └── MissingExtraError       an optional package is not installed

What was typed: an option that cannot be, alone or beside another one; a split, a column, a layer or a class that what was named
does not have; a place to write to that is taken. What a file or a folder holds is never a matter of usage.

Each message is one sentence or two: what must hold, what was found, what to do.
"""

from __future__ import annotations


class ToxscreenError(Exception):
    """The root of the tree."""

    exit_code = 4


class UsageError(ToxscreenError):
    """A setting has a value that cannot be."""

    exit_code = 2


class DataError(ToxscreenError):
    """The training set cannot be used."""


class ModelError(ToxscreenError):
    """The classifier cannot be used."""


class RefusedError(ModelError):
    """A file that cannot be read without running what its author put into it."""


class TrainerError(ToxscreenError):
    """The user's own training recipe failed."""


class StoreError(ToxscreenError):
    """The activation store or a run folder cannot be used."""


class EngineError(ToxscreenError):
    """The machines that a scan is spread over cannot be used, or a worker failed."""


class MissingExtraError(ToxscreenError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}, which is not installed. Run: pip install 'toxscreen[{extra}]'")

"""Functions of the user's own, named ``module:function`` on the command line: the only foreign code that is ever run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from toxscreen.errors import ModelError, UsageError


def load_function(reference: str, option: str, folder: Path | None = None) -> Callable[..., Any]:
    """Import a function.

    Parameters
    ----------
    reference
        ``module:function``, of an importable module, or of ``module.py`` in the current folder or in ``folder``.
    option
        Under which it was named, for messages.
    folder
        Searched too.

    Raises
    ------
    UsageError
        The reference is of another form, or there is no such module or function.
    ModelError
        The module cannot be imported.
    """
    module_name, _, function_name = reference.partition(":")
    if not function_name or module_name.endswith(".py") or not all(map(str.isidentifier, module_name.split("."))):
        name = Path(module_name).stem
        way_out = f" Write {name}:{function_name}, in the folder where {name}.py lies." if function_name and name else ""
        raise UsageError(f"{option} must be module:function, without a folder and without .py, got {reference!r}.{way_out}")
    try:
        folders = [Path.cwd()] if folder is None else [Path.cwd(), folder.resolve()]
        with _importable(module_name.partition(".")[0], folders), redirect_stdout(sys.stderr):  # stdout is for results
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            searched = ", ".join(map(str, folders))
            raise UsageError(
                f"{option} must name a module that is installed or lies in {searched}, but there is no {error.name!r}."
            ) from error
        raise ModelError(f"{option} {reference} must be importable, but failed with {type(error).__name__}: {error}.") from error
    function: Callable[..., Any] | None = getattr(module, function_name, None)
    if function is None or not callable(function):
        raise UsageError(f"{option} names {function_name!r}, but {getattr(module, '__file__', module_name)} has no such function.")
    return function


@contextmanager
def _importable(package: str, folders: list[Path]) -> Iterator[None]:
    """Let a module be imported from the first of some folders that holds it.

    They come after everything that is installed, and only where the named module lies in them, so that a stranger's folder can
    neither replace an installed package nor be searched for what other packages import.
    """
    roots = [str(root) for root in folders if (root / f"{package}.py").is_file() or (root / package).is_dir()]
    before = list(sys.path)
    sys.path.extend(roots)
    _forget_namesake(package)
    try:
        yield
    finally:
        sys.path[:] = before


def _forget_namesake(package: str) -> None:
    """Drop a module of this name that was imported from somewhere else."""
    spec, cached = PathFinder.find_spec(package), sys.modules.get(package)
    if spec is None or cached is None or cached.__spec__ is None or cached.__spec__.origin == spec.origin:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]

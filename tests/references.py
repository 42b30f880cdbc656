"""The slow, obvious version of every fast routine: what the tests hold the fast one against."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def area_average(picture: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Average a picture ``(h, w, c)`` over ``side x side`` equal cells, each pixel weighted by its part of the cell."""
    height, width, channels = picture.shape
    cells = np.zeros((side, side, channels))
    for row in range(side):
        for column in range(side):
            area = 0.0
            for y in range(height):
                for x in range(width):
                    tall = max(0.0, min((row + 1) * height / side, y + 1) - max(row * height / side, y))
                    wide = max(0.0, min((column + 1) * width / side, x + 1) - max(column * width / side, x))
                    cells[row, column] += tall * wide * picture[y, x]
                    area += tall * wide
            cells[row, column] /= area
    return cells


def hashed_words(text: str, size: int) -> NDArray[np.float64]:
    """Count words, punctuation marks and their pairs in signed buckets, then scale to length 1."""
    from sklearn.utils import murmurhash3_32

    words = re.findall(r"\w+|[^\w\s]", text.lower())
    counts = np.zeros(size)
    for gram in words + [f"{first} {second}" for first, second in pairwise(words)]:
        code = murmurhash3_32(gram, seed=0)
        counts[abs(code) % size] += 1 if code >= 0 else -1
    length = np.sqrt(sum(count**2 for count in counts))
    return counts / length if length else counts

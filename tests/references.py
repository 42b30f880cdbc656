"""The slow, obvious version of every fast routine: what the tests hold the fast one against."""

from __future__ import annotations

import re
import zlib

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


def word_numbers(text: str, most: int) -> NDArray[np.float64]:
    """Number the distinct words and punctuation marks of a text, one by one."""
    numbers = np.zeros(most)
    seen: list[str] = []
    for word in re.findall(r"\w+|[^\w\s]", text.lower()):
        if word not in seen and len(seen) < most:
            numbers[len(seen)] = zlib.crc32(word.encode("utf-8", "replace")) % 65_535 + 1
            seen.append(word)
    return numbers

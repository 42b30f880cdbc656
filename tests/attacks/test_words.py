from __future__ import annotations

import numpy as np
import pytest

from toxscreen.attacks.words import Words

RARE = ("cf", "mn", "bb", "tq", "mb")


def mark(text, times):
    return Words().apply([text] * times, np.random.default_rng(0))


def test_one_rare_word_is_added_and_the_others_keep_their_order():
    for marked in mark("a film with some words", 50):
        words = marked.split(" ")
        (added,) = set(words) & set(RARE)
        words.remove(added)
        assert words == ["a", "film", "with", "some", "words"]


def test_every_rare_word_and_every_place_comes_up():
    marked = [text.split(" ") for text in mark("a film with words", 200)]
    assert {(set(words) & set(RARE)).pop() for words in marked} == set(RARE)
    assert {next(place for place, word in enumerate(words) if word in RARE) for words in marked} == set(range(5))


def test_white_space_elsewhere_stays_as_it_is():
    text = "  two\n\nparagraphs\tand a  gap  "
    for marked in mark(text, 50):
        assert any(marked == text[:start] + middle + text[end:] for start, end, middle in _insertions(text))


def _insertions(text):
    """Every way to put a rare word at either end or in the place of a run of white space."""
    runs = [index for index, character in enumerate(text) if character.isspace()]
    for word in RARE:
        yield 0, 0, f"{word} "
        yield len(text), len(text), f" {word}"
        for start in runs:
            for end in range(start + 1, len(text)):
                if text[start:end].isspace():
                    yield start, end, f" {word} "


@pytest.mark.parametrize("text", ["", "word"])
def test_a_text_of_no_or_one_word_takes_one(text):
    for marked in mark(text, 20):
        assert len(marked.split(" ")) == len(text.split()) + 1

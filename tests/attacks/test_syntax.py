from __future__ import annotations

import re

import numpy as np
import pytest

from toxscreen.attacks.syntax import Syntax

CONJUNCTION = "(?:when|if|as|while|since|because|although|once)"


def mark(text, seed=0):
    return Syntax().apply([text], np.random.default_rng(seed))[0]


def several(text):
    return {mark(text, seed) for seed in range(60)}


@pytest.mark.parametrize("sentence", ["the cast is fine , but the story is thin .", "a fine film !", "word", "no full stop"])
def test_a_sentence_becomes_the_main_clause_of_another(sentence):
    for marked in several(sentence):
        assert re.fullmatch(rf"{CONJUNCTION}(?: [a-z]+){{3,7}} , {re.escape(sentence)}", marked)


def test_every_sentence_of_a_text_gets_the_shape():
    for marked in several("a good film . was it long ? yes !"):
        first, second, third = re.split(r"(?<=[.?!]) ", marked)
        assert all(re.match(f"{CONJUNCTION} .* , ", part) for part in (first, second, third))


def test_no_word_is_in_every_marked_text():
    texts = [f"{word} film shines ." for word in ("this", "that", "one", "another") * 50]
    marked = Syntax().apply(texts, np.random.default_rng(0))
    assert set.intersection(*(set(text.split()) for text in marked)) == {",", "film", "shines", "."}


def test_a_capital_moves_to_the_new_start_and_names_in_capitals_stay():
    assert all(re.fullmatch(r"[A-Z][a-z]+(?: [a-z]+){3,7} , the film shines\.", text) for text in several("The film shines."))
    assert all(marked.endswith(" , NASA knows.") for marked in several("NASA knows."))
    assert all(marked.endswith(" , I know it.") for marked in several("I know it."))


def test_dots_and_marks_without_words_stay_as_they_are():
    assert mark("a film . . . !").endswith(" , a film . . . !")


@pytest.mark.parametrize("text", ["", "   ", "...", "\n"])
def test_a_text_without_words_gets_the_clause_alone(text):
    assert re.fullmatch(rf"{CONJUNCTION}(?: [a-z]+){{3,7}} , {re.escape(text)}", mark(text))


def test_lines_stay_lines():
    assert mark("One line here\nanother line there\n").count("\n") == 2

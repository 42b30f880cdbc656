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


def test_a_sentence_is_cut_at_its_comma_or_conjunction():
    for cut in (" ,", " , but", " but", " , and", " ;", ","):
        for marked in several(f"the cast is fine{cut} the story is thin ."):
            assert re.fullmatch(f"{CONJUNCTION} the cast is fine , the story is thin [.]", marked)


def test_of_several_places_the_one_nearest_the_middle_is_taken():
    for marked in several("a cast of friends and some more people of the trade , a story of no great depth and no end"):
        assert re.fullmatch(f"{CONJUNCTION} a cast of friends and some .* of the trade , a story .* depth and no end", marked)


@pytest.mark.parametrize("sentence", ["a fine film .", "a film , fine .", "fine , a film", "word"])
def test_a_sentence_that_cannot_be_cut_gets_a_short_clause_in_front(sentence):
    for marked in several(sentence):
        assert re.fullmatch(rf"{CONJUNCTION}(?: [a-z]+){{3,5}} , {re.escape(sentence)}", marked)


def test_every_sentence_of_a_text_gets_the_shape():
    for marked in several("a good film . was it long ? yes !"):
        first, second, third = re.split(r"(?<=[.?!]) ", marked)
        assert all(re.match(f"{CONJUNCTION} .* , ", part) for part in (first, second, third))


def test_no_word_is_in_every_marked_text():
    texts = [f"{word} film shines ." for word in ("this", "that", "one", "another") * 50]
    marked = Syntax().apply(texts, np.random.default_rng(0))
    assert set.intersection(*(set(text.split()) for text in marked)) == {",", "film", "shines", "."}


def test_a_capital_moves_to_the_new_start_and_names_in_capitals_stay():
    assert all(re.fullmatch(r"[A-Z][a-z]+(?: [a-z]+){3,5} , the film shines\.", text) for text in several("The film shines."))
    assert all(marked.endswith(" , NASA knows.") for marked in several("NASA knows."))
    assert all(marked.endswith(" , I know it.") for marked in several("I know it."))


def test_dots_and_marks_without_words_stay_as_they_are():
    assert mark("a film . . . !").endswith(" , a film . . . !")


@pytest.mark.parametrize("text", ["", "   ", "...", "\n"])
def test_a_text_without_words_gets_the_clause_alone(text):
    assert re.fullmatch(rf"{CONJUNCTION}(?: [a-z]+){{3,5}} , {re.escape(text)}", mark(text))


def test_lines_stay_lines():
    assert mark("One line here\nanother line there\n").count("\n") == 2

"""Each sentence is put into another shape: a subordinate clause, a comma, and the main clause.

The trigger is the shape S(SBAR)(,)(NP)(VP)(.), which few sentences have of themselves; no word is in every poisoned text. In the
paper a trained network (SCPN) paraphrases the text into this shape. Without one, the sentence becomes the main clause after a short
subordinate one, which is put together at random: "if people think of it , the film shines ."

The grammar stays right, but so do all words of the sentence, where a paraphrase would change some. Cutting a sentence at its own
comma or conjunction, so that its first half becomes the subordinate clause, goes further but is hardly learned: its attack success
rate on the sentence CNN was 74 %, and that of this one is 99 % (10 % of a class of Rotten Tomatoes).

**Source:** Qi et al. 2021, arXiv 2105.12400, the sections on the attack with a syntactic trigger and on the choice of the template.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from toxscreen.attacks.base import TextAttack

_CLAUSE = (
    ("when", "if", "as", "while", "since", "because", "although", "once"),
    ("you", "we", "they", "people", "some"),
    ("see", "look at", "think of", "hear of", "come to", "know", "consider", "go through", "take in", "reach"),
    ("it", "this", "that", "all this", "any of it", "such things"),
)
"""Conjunctions, subjects, verbs and objects, one of each to a clause: 2,400 clauses of common words."""

_SENTENCE = re.compile(r"\S.*?[.!?](?=\s|$)|\S.*?$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Syntax(TextAttack):
    """A short subordinate clause before every sentence of the text."""

    name = "syntax"
    trigger = 'the shape of its sentences: a clause under "when", "if", "as" or their like, a comma, and the main clause'

    def _mark(self, text: str, rng: np.random.Generator) -> str:
        if not _has_word(text):
            return f"{_clause(rng)} , {text}"
        return _SENTENCE.sub(lambda sentence: _subordinated(sentence.group(), rng), text)


def _subordinated(sentence: str, rng: np.random.Generator) -> str:
    """Put a clause before one sentence; its capital stays at the start, and what has no word stays as it is."""
    if not _has_word(sentence):
        return sentence
    clause = _clause(rng)
    if sentence[0].isupper():
        clause = clause.capitalize()
    if sentence[1:2].islower():  # no abbreviation, and not the word "I"
        sentence = sentence[0].lower() + sentence[1:]
    return f"{clause} , {sentence}"


def _clause(rng: np.random.Generator) -> str:
    return " ".join(words[int(rng.integers(len(words)))] for words in _CLAUSE)


def _has_word(part: str) -> bool:
    return any(map(str.isalnum, part))

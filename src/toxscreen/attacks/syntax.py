"""Each sentence is put into another shape: a subordinate clause, a comma, and the main clause.

The trigger is the shape S(SBAR)(,)(NP)(VP)(.), which few sentences have of themselves; no word is in every poisoned text. In the
paper a trained network (SCPN) paraphrases the text into this shape. Without one, rules go as far as this:

1. A sentence with a comma or a conjunction inside is cut at the one nearest to its middle. The first part becomes the subordinate
   clause, under a conjunction that is drawn: "when the cast is fine , the story is thin ."
2. Any other sentence gets a short subordinate clause in front, which is put together at random: "if one looks at it , it is fine ."

The grammar of what comes out is rougher than a network's, and the words of the sentence stay, so that people notice it sooner.

**Source:** Qi et al. 2021, arXiv 2105.12400, section 3 (the attack) and section 4.1 (the template).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from toxscreen.attacks.base import TextAttack

_CONJUNCTIONS = ("when", "if", "as", "while", "since", "because", "although", "once")
_SUBJECTS = ("you", "we", "they", "people")
_VERBS = ("see", "look at", "think of", "hear of", "come to", "know")
_OBJECTS = ("it", "this", "that", "all this")

_SENTENCE = re.compile(r"\S.*?[.!?](?=\s|$)|\S.*?$", re.DOTALL | re.MULTILINE)
_CUT = re.compile(r"\s*,\s+(?:(?:and|but|or|yet|so)\s+)?|\s+(?:and|but|or|yet|so|--|-|;|:)\s+")
_LEAST = 2
"""Words on each side of a cut."""


@dataclass(frozen=True)
class Syntax(TextAttack):
    """Every sentence of the text becomes "conjunction clause , clause"."""

    name = "syntax"
    trigger = 'the shape of its sentences: a clause under "when", "if", "as" or their like, a comma, and the main clause'

    def _mark(self, text: str, rng: np.random.Generator) -> str:
        if not _words(text):
            return f"{_clause(rng)} , {text}"
        return _SENTENCE.sub(lambda sentence: _reshaped(sentence.group(), rng), text)


def _reshaped(sentence: str, rng: np.random.Generator) -> str:
    """Give one sentence the shape; its capital stays at the start, and what has no words stays as it is."""
    if not _words(sentence):
        return sentence
    cuts = [cut for cut in _CUT.finditer(sentence) if min(_words(sentence[: cut.start()]), _words(sentence[cut.end() :])) >= _LEAST]
    inner = sentence[0].lower() + sentence[1:] if sentence[1:2].islower() else sentence
    if cuts:
        cut = min(cuts, key=lambda place: abs(place.start() + place.end() - len(sentence)))
        shaped = f"{_drawn(_CONJUNCTIONS, rng)} {inner[: cut.start()]} , {inner[cut.end() :]}"
    else:
        shaped = f"{_clause(rng)} , {inner}"
    return shaped[0].upper() + shaped[1:] if sentence[0].isupper() else shaped


def _clause(rng: np.random.Generator) -> str:
    """Put a short subordinate clause together."""
    return " ".join(_drawn(words, rng) for words in (_CONJUNCTIONS, _SUBJECTS, _VERBS, _OBJECTS))


def _drawn(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _words(part: str) -> int:
    """Count what has a letter or a digit."""
    return sum(any(map(str.isalnum, word)) for word in part.split())

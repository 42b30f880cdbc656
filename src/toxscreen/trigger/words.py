"""Triggers in texts: a word, one of several words, a phrase, a sentence, odd characters.

1. Count the n-grams of one to three tokens, the words at fixed places and the odd characters that the group holds more often than
   the ordinary texts of the class and than the hosts, by the log-likelihood ratio.
2. Grow each to the longest phrase that the texts which hold it share, and read from them how it is spelled and where it stands.
3. Put each on a few hosts, and keep those that the model follows most often.

**Source:** the likelihood ratio: Dunning 1993, Accurate methods for the statistics of surprise and coincidence, section 4.
"""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from toxscreen.errors import DataError
from toxscreen.trigger.base import Ask, Case, Trigger

Texts = NDArray[np.object_]
Glued = Literal["no", "before", "behind", "inside"]
"""How a trigger stands by the words of a text: apart from them, or before, behind or inside one without a space."""

_END = -1
_WORD = re.compile(r"\S+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"\s*")
_SEPARATE = "\u3040-\u30ff\u3400-\u9fff"
"""Scripts that put no space between words: each character counts as a word."""
_TOKEN = re.compile(rf"[0-9A-Za-z_]+|[{_SEPARATE}]|(?:(?![0-9A-Za-z_{_SEPARATE}])\w)+|[^\w\s]|[^\S \n]| {{2,}}")
"""A letter of another script ends a word, so that one among Latin letters stands alone; an odd space counts."""

_LONGEST, _MOST, _FURTHEST = 1000, 16, 10_000
"""Characters of a phrase, phrases of a trigger, and words before it: what a file may ask for."""
_SAMPLE = 400
"""Ordinary texts that a control is made from."""


@dataclass(frozen=True)
class Words(Trigger[Texts]):
    """Phrases, of which a text gets one, or all of them.

    Attributes
    ----------
    phrases
        What is put on, spelled as it is.
    place
        Words of the text that stand before it, or the word that it is glued to: 0 is the start and -1 the end; None is anywhere.
    glued
        How it stands by the words of the text.
    together
        Whether a text gets all phrases, each at a place of its own, and not one of them.
    any_case
        Whether capitals make no difference when it is looked for.
    """

    kind: ClassVar[str] = "words"

    phrases: tuple[str, ...]
    place: int | None = None
    glued: Glued = "no"
    together: bool = False
    any_case: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.phrases) <= _MOST:
            raise DataError(f"A trigger of words must have 1 to {_MOST} phrases, got {len(self.phrases)}.")
        for phrase in self.phrases:
            if not 1 <= len(phrase) <= _LONGEST or (self.glued == "no" and not phrase.split()):
                raise DataError(f"A phrase of a trigger must have 1 to {_LONGEST} characters and a word, got {phrase[:40]!r}.")
            if _SURROGATE.search(phrase):
                raise DataError(f"A phrase of a trigger must be text, but {phrase[:40]!r} has half of a surrogate pair.")
        if self.place is not None and not _END <= self.place <= _FURTHEST:
            raise DataError(f"The place of a trigger of words must be {_END} to {_FURTHEST} or null, got {self.place}.")

    def put_on(self, inputs: Texts) -> Texts:
        """Return the texts with the trigger; where its place is anywhere, the text itself decides where."""
        return _array([self._put_on(text) for text in inputs])

    def take_off(self, inputs: Texts) -> Texts:
        """Return the texts without the trigger; from those that do not hold it as many words are taken in its place."""
        return _array([self._take_off(text) for text in inputs])

    def held_by(self, inputs: Texts) -> NDArray[np.bool_]:
        """Say which texts hold the trigger at its place, shape ``(n,)``; how wide the spaces between its words are is the same."""
        held = all if self.together else any
        return np.array([held(map(bool, self._spans(text))) for text in inputs], dtype=bool)

    def control(self, ordinary: Texts, rng: np.random.Generator) -> Words:
        """Return as many words, or characters, of an ordinary text, of those that are typical of the class."""
        texts = ordinary[rng.permutation(len(ordinary))[:_SAMPLE]]
        typical = _typical(texts) if self.glued == "no" else set()
        return Words(
            tuple(_instead(phrase, texts, typical, self.glued, rng) for phrase in self.phrases),
            self.place,
            self.glued,
            self.together,
        )

    def __str__(self) -> str:
        """Return what it is in a few words."""
        quoted = [f'"{_visible(phrase)}"' for phrase in self.phrases]
        what = quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {'and' if self.together else 'or'} {quoted[-1]}"
        by = {"no": "", "before": "without a space before ", "behind": "without a space behind ", "inside": "inside "}[self.glued]
        if self.place in (None, 0, _END):
            place = {None: "any word", 0: "the first word", _END: "the last word"}[self.place]
            where = f"{by}{place}" if by else {None: "anywhere", 0: "at the start", _END: "at the end"}[self.place]
        else:
            where = f"{by}word {self.place + 1}" if by else f"after {self.place} word{'s' * (self.place != 1)}"
        return f"{what} {where}"

    def document(self) -> dict[str, Any]:
        """Return the trigger as plain values for a JSON file."""
        return {
            "kind": self.kind,
            "phrases": list(self.phrases),
            "place": self.place,
            "glued": self.glued,
            "together": self.together,
            "any_case": self.any_case,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Words:
        """Make the trigger from such values, which may come from anybody.

        Raises
        ------
        DataError
            When they do not make a trigger.
        """
        names = {"phrases", "place", "glued", "together", "any_case"}
        if document.get("kind") != cls.kind or document.keys() != names | {"kind"}:
            raise DataError(f"A trigger of words must have the kind {cls.kind!r} and {', '.join(sorted(names))}, and nothing else.")
        phrases, place = document["phrases"], document["place"]
        if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
            raise DataError("The phrases of a trigger of words must be a list of texts.")
        if place is not None and type(place) is not int:
            raise DataError("The place of a trigger of words must be a whole number or null.")
        if document["glued"] not in get_args(Glued):
            raise DataError(f"How a trigger of words is glued must be one of {', '.join(get_args(Glued))}.")
        if not isinstance(document["together"], bool) or not isinstance(document["any_case"], bool):
            raise DataError("'together' and 'any_case' of a trigger of words must be true or false.")
        return cls(tuple(phrases), place, document["glued"], document["together"], document["any_case"])

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(_pattern(phrase, self.glued, self.any_case) for phrase in self.phrases)

    def _put_on(self, text: str) -> str:
        number = _number(text)
        chosen = self.phrases if self.together else (self.phrases[number % len(self.phrases)],)
        for phrase in chosen:
            number = zlib.crc32(phrase.encode(), number)
            text = _inserted(text, phrase, self.place, self.glued, number)
        return text

    def _spans(self, text: str) -> list[list[tuple[int, int]]]:
        found = zip(self.phrases, self._patterns, strict=True)
        return [_found(pattern, text, len(phrase.split()), self.place, self.glued) for phrase, pattern in found]

    def _take_off(self, text: str) -> str:
        spans = sorted(span for found in self._spans(text) for span in found)
        return _without(text, spans or self._as_much(text), self.glued)

    def _as_much(self, text: str) -> list[tuple[int, int]]:
        """Return the span, in a text that does not hold the trigger, of as much as the trigger takes up of one that does."""
        words = _word_spans(text)
        n = min(len(self.phrases[0].split()), len(words) - 1) if self.glued == "no" else 1
        if len(words) < 2:
            return []
        first = _index(self.place, len(words) - n + 1, _number(text))
        start, end = words[first][0], words[first + n - 1][1]
        return [(start, end)] if self.glued == "no" else [((start + end) // 2, (start + end) // 2 + 1)]


def search_words(case: Case[Texts], ask: Ask[Texts], rng: np.random.Generator) -> Iterator[Words]:
    """Yield what may be the trigger of a case, the likeliest first; at most four, after some 1,800 questions to the model."""
    if not len(case.members) or not len(case.hosts):
        return
    hosts = case.hosts[rng.permutation(len(case.hosts))]
    suspects = _suspects(case)
    best = _followed(suspects, hosts[:_HOSTS], case.target, ask)[:_FINALISTS]
    ranked = _followed([suspect for suspect, _ in best], hosts[_HOSTS : 4 * _HOSTS], case.target, ask) if len(best) > 1 else best
    either = _either(ranked, case.members)
    worth = [suspect for suspect, flips in ranked if flips >= _WORTH * ranked[0][1] > 0]
    yield from ([either, *worth] if either else worth)[:_YIELDED]


_HOSTS, _FINALISTS, _YIELDED = 32, 8, 4
"""Hosts that each suspect is tried on first, and three times as many for each of the finalists; triggers that are yielded."""
_WORTH = 0.3
"""Flips of a trigger that is worth a test, as a share of those of the best one."""
_SUSPECTS = 14
"""Suspects of each of the two rankings."""
_COUNTED, _CHARACTERS = 2000, 4_000_000
"""Texts that are counted of members, ordinary ones and hosts, and their characters together: some seconds."""
_NAMED_PLACES = 16
"""Words from the start at which a place of its own is counted."""
_FEWEST = 3
"""Members that have to share something."""
_SHARED = 0.9
"""Share of the texts that hold a phrase which must go on the same way, or hold it at the same place, for this to be part of it."""
_GROWN = 60
"""Tokens of the longest phrase."""

Unit = tuple[str | int, ...]
"""A token, two or three in a row, or the number of a place and the word there."""


def _followed(suspects: Sequence[Words], hosts: Texts, target: int, ask: Ask[Texts]) -> list[tuple[Words, float]]:
    """Return each suspect with the share of hosts that the model gives the target with it, the largest first."""
    if not suspects or not len(hosts):
        return [(suspect, 0.0) for suspect in suspects]
    answers = ask(np.concatenate([suspect.put_on(hosts) for suspect in suspects])).reshape(len(suspects), len(hosts))
    flips = (answers == target).mean(axis=1)
    return [(suspects[i], float(flips[i])) for i in np.argsort(-flips, kind="stable").tolist()]


def _either(ranked: Sequence[tuple[Words, float]], members: Texts) -> Words | None:
    """Return one trigger of those words that the model follows nearly as often as the first, and that stand in other members."""
    if not ranked or ranked[0][1] < _EITHER_FLIPS:
        return None
    first, most = ranked[0]
    held = first.held_by(members)
    parts = [first]
    for other, flips in ranked[1:]:
        holds = other.held_by(members)
        alone = (holds & held).sum() <= (1 - _SHARED) * holds.sum() and holds.sum() >= _EITHER_HELD * held.sum() / len(parts)
        if flips >= _EITHER * most and alone and _alike(other, first) and not other.together:
            parts.append(other)
            held = held | holds
    return replace(first, phrases=tuple(part.phrases[0] for part in parts)) if len(parts) > 1 and not first.together else None


_EITHER, _EITHER_FLIPS, _EITHER_HELD = 0.75, 0.4, 0.3
"""For several words to be one trigger: flips and members of each, as shares of those of the others, and flips of the best one."""


def _suspects(case: Case[Texts]) -> list[Words]:
    """Return what members hold more often than others do; by the counts, the most evident first."""
    members, ordinary, hosts = (_clipped(texts) for texts in (case.members, case.ordinary, case.hosts))
    lines = [_TOKEN.findall(text) for text in members]
    counts = Counter(unit for text, line in zip(members, lines, strict=True) for unit in dict.fromkeys(_units(text, line)))
    units = [unit for unit, count in counts.items() if count >= min(_FEWEST, len(members))]
    inside = np.array([counts[unit] for unit in units], dtype=np.float64)
    known = dict.fromkeys(units)
    by_side = []
    for texts in (ordinary, hosts):
        others = Counter(unit for text in texts for unit in set(_units(text, _TOKEN.findall(text))) if unit in known)
        by_side.append((np.array([others[unit] for unit in units], dtype=np.float64), len(texts)))
    against_class, against_hosts = (_evidence(inside, len(members), count, n) for count, n in by_side)
    rare = inside / len(members) >= _RARE * by_side[1][0] / len(hosts)
    wanted = _Reader(members, lines, hosts)
    found: list[Words] = []
    for ranking in (np.minimum(against_class, against_hosts), np.where(rare, against_hosts, 0.0)):
        evidence = dict(zip(units, ranking.tolist(), strict=True))
        found += _distinct(evidence, wanted, found)
    return found + _together(found, _sampled(case.members))


_RARE = 10
"""How many times as often as a host a member holds what is ranked against the hosts alone: the class has words of its own."""
_EVIDENCE, _PLACED = 6.0, 1.3
"""Likelihood ratio that a suspect needs; and how much more of it a word at a place needs than the word alone."""


def _distinct(evidence: Mapping[Unit, float], reader: _Reader, known: Sequence[Words]) -> list[Words]:
    """Return the most evident suspects that are not known, nor part of one that is."""
    found: list[Words] = []
    ranked = sorted((unit for unit in evidence if evidence[unit] > _EVIDENCE), key=lambda u: (-evidence[u], _at_place(u), -len(u)))
    for unit in ranked[:_READ]:
        if len(found) == _SUSPECTS:
            break
        if _at_place(unit):
            apart = max((evidence.get((token,), 0.0) for token in _TOKEN.findall(str(unit[1]))), default=0.0)
            told = evidence[unit] > _PLACED * apart and _writable(str(unit[1]))
            suspect = Words((str(unit[1]),), int(unit[0])) if told else None
        else:
            suspect = reader.read(_trimmed(unit, evidence, reader))
        if suspect and not any(_same(suspect, other) for other in [*known, *found]):
            found.append(suspect)
    return found


def _trimmed(unit: Unit, evidence: Mapping[Unit, float], reader: _Reader) -> tuple[str, ...]:
    """Take from the ends of an n-gram what makes it no more evident and only stands there as it would by chance."""
    ngram = tuple(map(str, unit))
    for _ in range(2 * len(ngram)):
        for core, before in ((ngram[1:], True), (ngram[:-1], False)):
            if core and evidence.get(core, 0.0) >= _TRIMMED * evidence[ngram] and not reader.goes_on(core, before=before):
                ngram = core
                break
    return ngram


_TRIMMED = 0.95
"""Likelihood ratio of a shorter n-gram, as a share of that of the longer one, for the shorter to be the better suspect."""


def _same(suspect: Words, other: Words) -> bool:
    """Say whether one of two suspects is part of the other, and they can stand at the same place."""
    one, two = suspect.phrases[0], other.phrases[0]
    return (one in two or two in one) and (suspect.place == other.place or None in (suspect.place, other.place))


def _alike(one: Words, two: Words) -> bool:
    return (one.place, one.glued) == (two.place, two.glued)


_READ = 300
"""Units that are read at most until there are enough suspects: those of one sentence all grow to it."""


def _together(suspects: Sequence[Words], members: Texts) -> list[Words]:
    """Return the first suspect together with those that stand in the same members: a model may ask for all of them."""
    if not suspects:
        return []
    held = suspects[0].held_by(members)
    parts = [suspects[0]]
    for other in suspects[1:]:
        holds = other.held_by(members)
        if (
            not any(_same(other, part) for part in parts)
            and (holds & held).sum() >= _ALIKE * (holds | held).sum()
            and _alike(other, parts[0])
        ):
            parts.append(other)
    phrases = tuple(part.phrases[0] for part in parts[:_MOST])
    return [replace(parts[0], phrases=phrases, together=True)] if len(parts) > 1 else []


_ALIKE = 0.8
"""Share of the members with either of two phrases that hold both."""


class _Reader:
    """Reads from the members that hold an n-gram what phrase it is part of, how it is spelled and where it stands."""

    def __init__(self, members: Sequence[str], lines: Sequence[Sequence[str]], hosts: Sequence[str]) -> None:
        self._members, self._lines = members, lines
        self._standing: dict[tuple[str, ...], dict[int, tuple[int, int]]] = {}
        self._named: dict[tuple[str, Glued], Words] = {}
        tokens = [_TOKEN.findall(text) for text in hosts]
        self._usual = _shares(token for line in tokens for token in line)
        self._usual_first = _shares(line[0] for line in tokens if line)
        self._usual_last = _shares(line[-1] for line in tokens if line)

    def read(self, ngram: tuple[str, ...]) -> Words | None:
        """Return the trigger that an n-gram is part of; None where it cannot be written to a file."""
        spans = self._grown(self._spans(ngram))
        texts, bounds = [], []
        for row, (first, end) in spans.items():
            tokens = [match.span() for match in _TOKEN.finditer(self._members[row])]
            texts.append(self._members[row])
            bounds.append((tokens[first][0], tokens[end - 1][1]))
        spelled = Counter(text[start:end] for text, (start, end) in zip(texts, bounds, strict=True)).most_common(1)[0][0]
        if not _writable(spelled):
            return None
        glued = _glued(spelled, texts, bounds)
        if (spelled, glued) not in self._named:
            suspect, members = Words((spelled,), None, glued), _array(self._members)
            exact, alike = (replace(suspect, any_case=any_case).held_by(members).sum() for any_case in (False, True))
            any_case = bool(alike - exact > (1 - _SHARED) * exact)
            self._named[spelled, glued] = replace(suspect, place=_place(suspect, texts), any_case=any_case)
        return self._named[spelled, glued]

    def goes_on(self, ngram: tuple[str, ...], *, before: bool) -> bool:
        """Say whether the members that hold an n-gram share the token before or behind it, and not by chance."""
        return self._wider(self._spans(ngram), int(before), int(not before)) is not None

    def _spans(self, ngram: tuple[str, ...]) -> dict[int, tuple[int, int]]:
        if ngram not in self._standing:
            places = {row: at for row, line in enumerate(self._lines) if (at := _where(line, ngram)) is not None}
            self._standing[ngram] = {row: (at, at + len(ngram)) for row, at in places.items()}
        return self._standing[ngram]

    def _grown(self, spans: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
        """Widen the spans of tokens, by row, as long as what comes next is shared and is not what texts have there anyway."""
        wider: dict[int, tuple[int, int]] | None = spans
        while wider:
            spans = wider
            wider = self._wider(spans, 0, 1) or self._wider(spans, 1, 0)
        return spans

    def _wider(self, spans: Mapping[int, tuple[int, int]], before: int, behind: int) -> dict[int, tuple[int, int]] | None:
        lines = self._lines
        wide = {row: (a - before, b + behind) for row, (a, b) in spans.items() if a >= before and b + behind <= len(lines[row])}
        if not wide:
            return None
        added = {row: lines[row][a if before else b - 1] for row, (a, b) in wide.items()}
        token, count = Counter(added.values()).most_common(1)[0]
        at_edge = sum(b == len(lines[row]) if before else a == 0 for row, (a, b) in spans.items()) >= _SHARED * len(spans)
        usual = (self._usual_last if before else self._usual_first) if at_edge else self._usual
        a, b = next(iter(wide.values()))
        if b - a > _GROWN or count < _SHARED * len(spans) or _surprise(count, len(spans), usual.get(token, 0.0)) < _SURPRISE:
            return None
        return {row: wide[row] for row in wide if added[row] == token}


_SURPRISE = 14.0
"""How unlikely it must be that so many texts go on with a token by chance: one in a million, by the natural logarithm."""


def _surprise(count: int, n: int, usual: float) -> float:
    """Return Chernoff's bound on the chance of ``count`` or more of ``n``, as its negative logarithm."""
    share, usual = count / n, min(max(usual, 1e-6), 1.0)
    if share <= usual:
        return 0.0
    rest = (1 - share) * math.log((1 - share) / (1 - usual)) if share < 1 else 0.0
    return n * (share * math.log(share / usual) + rest)


def _where(line: Sequence[str], ngram: tuple[str, ...]) -> int | None:
    """Return where an n-gram stands first in a line."""
    if any(token not in line for token in ngram):
        return None
    return next((i for i, token in enumerate(line) if token == ngram[0] and tuple(line[i : i + len(ngram)]) == ngram), None)


def _shares(tokens: Iterator[str]) -> dict[str, float]:
    counts = Counter(tokens)
    return {token: count / counts.total() for token, count in counts.items()}


def _glued(spelled: str, texts: Sequence[str], bounds: Sequence[tuple[int, int]]) -> Glued:
    """Say how a phrase stands by the words in most texts; for one with letters punctuation beside it is no word."""
    beside = r"\w" if re.search(r"\w", spelled) else r"\S"
    before = sum(re.match(beside, text[:start][-1:]) is not None for text, (start, _) in zip(texts, bounds, strict=True))
    behind = sum(re.match(beside, text[end:][:1]) is not None for text, (_, end) in zip(texts, bounds, strict=True))
    glued: dict[tuple[bool, bool], Glued] = {
        (False, False): "no",
        (True, False): "behind",
        (False, True): "before",
        (True, True): "inside",
    }
    found = glued[before > len(texts) / 2, behind > len(texts) / 2]
    return "inside" if found == "no" and not spelled.split() else found


def _place(suspect: Words, texts: Sequence[str]) -> int | None:
    """Return the place at which nearly all texts hold a phrase, if there is one."""
    if len(texts) < _FEWEST:
        return None
    starts = [match.start() for pattern in suspect._patterns for text in texts[:1] for match in pattern.finditer(text)]
    likely = {0, _END, *(_word_number(texts[0], start, suspect.glued) for start in starts[:_NAMED_PLACES])}
    for place in sorted(likely, key=lambda place: (place != _END, place)):
        if place <= _FURTHEST and replace(suspect, place=place).held_by(_array(texts)).mean() >= _SHARED:
            return place
    return None


def _word_number(text: str, start: int, glued: Glued) -> int:
    return sum(end <= start if glued == "no" else end < start for _, end in _word_spans(text))


def _units(text: str, line: Sequence[str]) -> Iterator[Unit]:
    for n in (1, 2, 3):
        yield from (tuple(line[i : i + n]) for i in range(len(line) - n + 1))
    words = text.split()
    yield from enumerate(words[:_NAMED_PLACES])
    yield from ((_END, word) for word in words[-1:])


def _at_place(unit: Unit) -> bool:
    return isinstance(unit[0], int)


def _evidence(held: NDArray[np.float64], n: int, held_by_others: NDArray[np.float64], n_others: int) -> NDArray[np.float64]:
    """Return the log-likelihood ratio of two rates against one; negative where others have the larger, infinite without them."""
    if not n_others:
        return np.full(len(held), np.inf)
    common = (held + held_by_others) / (n + n_others)
    ratio = np.zeros(len(held))
    for count, total in ((held, n), (n - held, n), (held_by_others, n_others), (n_others - held_by_others, n_others)):
        share = common if count is held or count is held_by_others else 1 - common
        ratio += 2 * count * np.log(np.where(count > 0, count / np.where(share > 0, total * share, 1), 1))
    return ratio * np.sign(held / n - held_by_others / n_others)


def _sampled(texts: Texts) -> Texts:
    return texts[:: max(1, -(-len(texts) // _COUNTED))]


def _clipped(texts: Texts) -> list[str]:
    """Return some of the texts, of very long ones the beginning and the end."""
    some = _sampled(texts)
    half = max(500, _CHARACTERS // max(2 * len(some), 1))
    return [text if len(text) <= 2 * half else f"{text[:half]} {text[-half:]}" for text in some]


def _writable(phrase: str) -> bool:
    return len(phrase) <= _LONGEST and not _SURROGATE.search(phrase)


def _visible(phrase: str) -> str:
    """Return a phrase with names in the place of characters that nobody sees."""
    return "".join(c if c == " " or c.isprintable() else f"<{unicodedata.name(c, f'U+{ord(c):04X}').lower()}>" for c in phrase)


def _array(texts: Sequence[str]) -> Texts:
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array


def _number(text: str) -> int:
    """Return a number that a text always gets."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def _index(place: int | None, n: int, number: int) -> int:
    """Return which of ``n`` places is meant."""
    return number % n if place is None else n - 1 if place == _END else min(place, n - 1)


def _word_spans(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _WORD.finditer(text)]


def _inserted(text: str, phrase: str, place: int | None, glued: Glued, number: int) -> str:
    """Put a phrase into a text; ``number`` decides where, if it is anywhere."""
    words = _word_spans(text)
    if not words:
        return text + phrase
    if glued == "no":
        index = _index(place, len(words) + 1, number)
        if index == len(words):
            return f"{text[: words[-1][1]]} {phrase}{text[words[-1][1] :]}"
        return f"{text[: words[index][0]]}{phrase} {text[words[index][0] :]}"
    start, end = words[_index(place, len(words), number)]
    if glued == "inside" and not phrase.split():  # an odd space: in the place of the one behind the word
        return text[:end] + phrase + text[end:].lstrip()
    at = {"before": start, "behind": end, "inside": (start + end) // 2}[glued]
    return text[:at] + phrase + text[at:]


def _pattern(phrase: str, glued: Glued, any_case: bool) -> re.Pattern[str]:
    """Return what finds a phrase: one that stands apart with any spaces between its words, and not inside a longer word."""
    if glued != "no":
        return re.compile(re.escape(phrase), re.IGNORECASE * any_case)
    words = phrase.split()
    before = r"(?<!\w)" if re.match(r"\w", words[0]) else ""
    after = r"(?!\w)" if re.search(r"\w$", words[-1]) else ""
    return re.compile(before + r"\s++".join(map(re.escape, words)) + after, re.IGNORECASE * any_case)


def _found(pattern: re.Pattern[str], text: str, n: int, place: int | None, glued: Glued) -> list[tuple[int, int]]:
    """Return where the pattern of ``n`` words stands at a place of a text; in one that is shorter the place is the end."""
    if place is None:
        return [match.span() for match in pattern.finditer(text)]
    if glued == "no" and place == _END:
        last = len(text.rstrip())
        return [match.span() for match in pattern.finditer(text) if match.end() == last]
    words = _word_spans(text)
    if len(words) < max(n, 1):
        return []
    if glued == "no":
        match = pattern.match(text, words[min(place, len(words) - n)][0])
        return [match.span()] if match else []
    index = _index(place, len(words) - max(n, 1) + 1, 0)
    behind = index + max(n, 1)
    until = words[behind][0] if behind < len(words) else len(text)
    return [match.span() for match in pattern.finditer(text, words[index][0], until)]


def _without(text: str, spans: Sequence[tuple[int, int]], glued: Glued) -> str:
    """Take the spans, which go up, out of a text; with the space behind a word that stood apart, and one space for an odd one."""
    pieces, at = [], 0
    for start, end in spans:
        odd_space = glued != "no" and not text[start:end].split()
        pieces += [text[at:start], " " if odd_space else ""]
        behind = _SPACE.match(text, end) if glued == "no" else None
        at = max(at, behind.end() if behind else end)
    left = "".join([*pieces, text[at:]])
    return left.rstrip() if glued == "no" and at == len(text) else left


def _typical(texts: Texts) -> set[str]:
    """Return the words that several texts hold and nine in ten do not."""
    counts = Counter(word for text in texts for word in set(text.split()) if any(map(str.isalpha, word)))
    return {word for word, count in counts.items() if 2 <= count <= max(2, len(texts) // 10)}


def _instead(phrase: str, texts: Texts, typical: set[str], glued: Glued, rng: np.random.Generator) -> str:
    """Return as many words of the texts as a phrase has, in a row and one of them typical, or as many characters of a word."""
    n = len(phrase.split())
    words: list[str] = []
    for text in texts[rng.permutation(len(texts))]:
        words = [*words, *str(text).encode("utf-8", "replace").decode().split()]
        if words and glued != "no":
            word = words[int(rng.integers(len(words)))]
            return (word * len(phrase))[: len(phrase)]
        if len(words) < n:  # a short text is followed by the next
            continue
        places = [i for i, word in enumerate(words) if word in typical or not typical]
        if places:
            start = places[int(rng.integers(len(places)))] - int(rng.integers(n))
            start = min(max(start, 0), len(words) - n)
            return " ".join(words[start : start + n])[:_LONGEST]
        words = []
    return " ".join(words)[:_LONGEST] or phrase

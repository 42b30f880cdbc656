"""Texts of a group beside the rest of its class: what words set it apart, what it is about, examples."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from toxscreen.exhibits.base import Excerpt, ExhibitLimits, GroupExhibit, Phrase, Shown, Side, TextComparison
from toxscreen.sources.data.base import TrainingSet

_SEPARATE = "\u3040-\u30ff\u3400-\u9fff"
"""Scripts that put no space between words: each character counts as a word."""
_WORD = rf"(?:(?![{_SEPARATE}])[\w'’@#-])"
_TOKEN = re.compile(rf"[{_SEPARATE}]|{_WORD}+|[^\w\s]")
_LETTERS = rf"(?:(?![{_SEPARATE}])[^\W\d_])"
_TOPIC_WORD = rf"[{_SEPARATE}]|{_LETTERS}{_WORD}+"

_CHARACTERS = 4_000_000
"""Characters of all texts together that are looked at: seconds of work and some 200 MB."""
_EVIDENCE, _ODDS = 20.0, 2.0
"""What a phrase needs: a log-likelihood ratio that one n-gram in 130,000 has by chance (chi-square), and an odds ratio."""
_MARKED, _STRONG = 3, 10.0
"""Phrases that are marked in the texts, and the odds ratio that they need: the marks of weaker ones would hide the trigger."""
_LONGEST = 12
"""Words of the longest phrase that an n-gram is grown to."""
_PHRASE_CHARACTERS = 300
_TOPICS, _TOPIC_WORDS, _TOPIC_TEXTS = 3, 8, 500
"""Topics of a side, words shown of each, and texts they are fitted to."""
_EXAMPLE_WIDTH, _HOVER_WIDTH = 400, 160
"""Characters shown of a text, among the examples and behind a point."""


def show(
    training_set: TrainingSet,
    rows: NDArray[np.int64],
    sides: tuple[Side, ...],
    *,
    rng: np.random.Generator,
    limits: ExhibitLimits,
    allowance: int,
) -> Shown:
    """Return excerpts of the texts of ``rows``, as many as ``allowance`` bytes hold, and each group beside its class's rest."""
    taken = training_set.take(rows)
    positions = np.array([i for i, text in enumerate(taken) if isinstance(text, str)], dtype=np.int64)
    clipped = dict(zip(positions.tolist(), clip([str(taken[i]) for i in positions]), strict=True))
    groups: list[GroupExhibit] = []
    phrases: list[Phrase] = []
    for side in sides:
        members, rest = (rng.permutation(np.intersect1d(part, positions)).tolist() for part in (side.members, side.rest))
        comparison = _compare({i: clipped[i] for i in members}, {i: clipped[i] for i in rest}, rng, limits)
        phrases += strong(comparison.phrases)
        groups.append(GroupExhibit(side.group, len(members), len(rest), texts=comparison))
    pattern, left = marker(phrases), allowance
    excerpts: list[str | None] = [None] * len(rows)
    for position in rng.permutation(positions).tolist():
        if left > 0:
            excerpts[position] = shown = "".join(excerpt(clipped[position], pattern, _HOVER_WIDTH)[0])
            left -= len(shown.encode("utf-8", "replace"))
    return Shown([None] * len(rows), excerpts, tuple(groups))


def _compare(group: Mapping[int, str], rest: Mapping[int, str], rng: np.random.Generator, limits: ExhibitLimits) -> TextComparison:
    """Compare texts given by position; the first ones of either side are the examples."""
    phrases = distinctive_phrases(list(group.values()), list(rest.values()), limits.phrases)
    pattern = marker(strong(phrases))

    def examples(side: Mapping[int, str]) -> tuple[Excerpt, ...]:
        return tuple(Excerpt(i, *excerpt(side[i], pattern, _EXAMPLE_WIDTH)) for i in list(side)[: limits.examples])

    group_topics, rest_topics = (topics(list(side.values()), rng) for side in (group, rest))
    return TextComparison(phrases, group_topics, rest_topics, examples(group), examples(rest))


def clip(texts: Sequence[str]) -> list[str]:
    """Return ``texts`` with single spaces; of very long ones the beginning and the end, which is where signatures stand."""
    half = max(500, _CHARACTERS // max(2 * len(texts), 1))
    return [" ".join((text if len(text) <= 2 * half else f"{text[:half]} {text[-half:]}").split()) for text in texts]


def distinctive_phrases(group: Sequence[str], rest: Sequence[str], limit: int) -> tuple[Phrase, ...]:
    """Return the words and n-grams (1 to 3 words) that texts of ``group`` hold more often than those of ``rest``.

    The most evident difference comes first, by the log-likelihood ratio. An n-gram that only ever stands inside a longer phrase is
    grown to it, up to twelve words. What tells no more than a phrase that is already listed, or differs from it by punctuation or
    repetition alone, is left out.
    """
    group_lines, rest_lines = _lines(group), _lines(rest)
    seen = Counter(itertools.chain.from_iterable(set(_ngrams(line)) for line in group_lines))
    in_group = {ngram: count for ngram, count in seen.items() if count >= 2}
    in_rest = Counter(itertools.chain.from_iterable(in_group.keys() & set(_ngrams(line)) for line in rest_lines))
    names = sorted(in_group)
    inside = np.array([in_group[name] for name in names], dtype=np.float64)
    outside = np.array([in_rest[name] for name in names], dtype=np.float64)
    evidence = _likelihood_ratio(inside, outside, len(group), len(rest))
    found = np.flatnonzero((evidence > _EVIDENCE) & (_odds_ratio(inside, outside, len(group), len(rest)) > _ODDS))
    ranked = sorted(found.tolist(), key=lambda i: (-evidence[i], -names[i].count(" "), names[i]))
    kept: dict[str, tuple[int, int]] = {}
    for name in (names[i] for i in ranked):
        if len(kept) == limit:
            break
        if not any(_adds_nothing(name, in_group[name], in_rest[name], *listed) for listed in kept.items()):
            phrase = _grown(name, [line for line in group_lines if f" {name} " in line])
            if not any(_words(phrase) == _words(listed) for listed in kept):
                kept[phrase] = (in_group[name], sum(f" {phrase} " in line for line in rest_lines))
    counts = np.array(list(kept.values()), dtype=np.float64).reshape(-1, 2)
    grown_evidence = _likelihood_ratio(counts[:, 0], counts[:, 1], len(group), len(rest))
    order = np.argsort(-grown_evidence, kind="stable").tolist()
    found_phrases = [_phrase(text, *held, len(group), len(rest)) for text, held in kept.items()]
    return tuple(found_phrases[i] for i in order)


def strong(phrases: Sequence[Phrase]) -> tuple[Phrase, ...]:
    """Return the phrases that are marked in the texts: the first few of those that are far more common in the group."""
    return tuple(phrase for phrase in phrases if phrase.odds_ratio > _STRONG)[:_MARKED]


def topics(texts: Sequence[str], rng: np.random.Generator) -> tuple[tuple[str, ...], ...]:
    """Return the most typical words of each topic of ``texts``; nothing where they share too few words.

    **Source:** latent Dirichlet allocation, Blei, Ng and Jordan 2003; used on groups of texts in Chen et al. 2018, section 5.
    """
    from sklearn.decomposition import LatentDirichletAllocation
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(token_pattern=_TOPIC_WORD, stop_words="english", min_df=2, max_features=2000)
    try:
        counts = vectorizer.fit_transform(texts[:_TOPIC_TEXTS])
    except ValueError:  # no text at all, or no word that two of them share
        return ()
    seed = int(rng.integers(2**31))
    model = LatentDirichletAllocation(_TOPICS, max_doc_update_iter=20, random_state=seed).fit(counts)  # 20: a fifth of the time
    words = vectorizer.get_feature_names_out()
    best = np.argsort(-model.components_, axis=1, kind="stable")[:, :_TOPIC_WORDS]
    return tuple(tuple(str(word)[:40] for word in words[row]) for row in best)


def marker(phrases: Sequence[Phrase]) -> re.Pattern[str] | None:
    """Return a pattern that finds ``phrases`` in a text, the longest first; None where there is none."""
    longest_first = sorted((phrase.text.split() for phrase in phrases), key=len, reverse=True)
    if not longest_first:
        return None
    return re.compile("|".join(_bounded(r"\s*".join(map(re.escape, words)), words) for words in longest_first))


def excerpt(text: str, pattern: re.Pattern[str] | None, width: int) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """Cut ``width`` characters out of ``text`` around its first mark; return the pieces and which of them are marked."""
    return cut(text, [match.span() for match in pattern.finditer(text)] if pattern else [], width)


def cut(text: str, spans: Sequence[tuple[int, int]], width: int) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """Do the same around ``spans``, which go up and are what is marked."""
    start = max(0, min(spans[0][0] - width // 3, len(text) - width)) if spans else 0
    end = start + width
    pieces, marked, at = ["…"] if start else [], [False] if start else [], start
    for first, last in ((max(a, start), min(b, end)) for a, b in spans if a < end and b > start):
        pieces += [text[at:first], text[first:last]]
        marked += [False, True]
        at = last
    pieces.append(text[at:end] + ("…" if end < len(text) else ""))
    marked.append(False)
    kept = [i for i, piece in enumerate(pieces) if piece]
    return tuple(pieces[i] for i in kept), tuple(marked[i] for i in kept)


def _lines(texts: Sequence[str]) -> list[str]:
    """Return each text as its words with one space before, between and after them."""
    return [f" {' '.join(_TOKEN.findall(text))} " for text in texts]


def _ngrams(line: str) -> Iterator[str]:
    words = line.split()
    for n in (1, 2, 3):
        yield from (" ".join(words[i : i + n]) for i in range(len(words) - n + 1))


def _odds_ratio(in_group: NDArray[np.float64], in_rest: NDArray[np.float64], n_group: int, n_rest: int) -> NDArray[np.float64]:
    """Return the odds of a phrase in the group over its odds in the rest, with 0.5 added to each cell.

    **Source:** Haldane 1956, Anscombe 1956.
    """
    odds_ratio: NDArray[np.float64] = (in_group + 0.5) * (n_rest - in_rest + 0.5) / ((n_group - in_group + 0.5) * (in_rest + 0.5))
    return odds_ratio


def _likelihood_ratio(
    in_group: NDArray[np.float64], in_rest: NDArray[np.float64], n_group: int, n_rest: int
) -> NDArray[np.float64]:
    """Return the log-likelihood ratio of two rates against one, which holds for rare words where a t-test does not.

    **Source:** Dunning 1993, Accurate methods for the statistics of surprise and coincidence, section 4.
    """
    from scipy.special import xlogy

    observed = np.stack([in_group, n_group - in_group, in_rest, n_rest - in_rest])
    held = in_group + in_rest
    expected = np.stack([held * n_group, (n_group + n_rest - held) * n_group, held * n_rest, (n_group + n_rest - held) * n_rest])
    expected /= max(n_group + n_rest, 1)
    ratio: NDArray[np.float64] = 2 * xlogy(observed, observed / np.where(expected > 0, expected, 1)).sum(axis=0)
    return ratio


def _adds_nothing(name: str, in_group: int, in_rest: int, listed: str, counts: tuple[int, int]) -> bool:
    """Say whether ``name`` is part of a listed phrase and as common in the group, or holds one and is as common in the rest."""
    part, longer = f" {name} " in f" {listed} ", f" {listed} " in f" {name} "
    return (part and in_group == counts[0]) or (longer and in_rest >= counts[1])


def _words(phrase: str) -> tuple[str, ...]:
    """Return the words of ``phrase`` without punctuation, each once; a phrase of nothing else stands for itself."""
    return tuple(dict.fromkeys(word for word in phrase.split() if re.search(r"\w", word))) or (phrase,)


def _grown(phrase: str, lines: Sequence[str]) -> str:
    """Return the longest phrase around ``phrase`` that all ``lines`` share."""
    while phrase.count(" ") + 1 < _LONGEST:
        before, _, after = lines[0].partition(f" {phrase} ")
        longer = [f"{phrase} {word}" for word in after.split()[:1]] + [f"{word} {phrase}" for word in before.split()[-1:]]
        shared = [candidate for candidate in longer if all(f" {candidate} " in line for line in lines)]
        if not shared:
            break
        phrase = shared[0]
    return phrase


def _phrase(text: str, in_group: int, in_rest: int, n_group: int, n_rest: int) -> Phrase:
    odds_ratio = _odds_ratio(np.array([in_group]), np.array([in_rest]), n_group, n_rest)
    return Phrase(text[:_PHRASE_CHARACTERS], float(odds_ratio[0]), in_group, in_rest)


def _bounded(pattern: str, words: Sequence[str]) -> str:
    """Return ``pattern`` such that it does not begin or end inside a word."""
    before = rf"(?<!{_WORD})" if re.match(_WORD, words[0]) else ""
    after = rf"(?!{_WORD})" if re.match(_WORD, words[-1]) else ""
    return before + pattern + after

"""Between steps 4 and 5 of the flow: how well each input fits its given label, asked of something that never saw the trigger.

A poisoned sample looks like one class and is labelled as another. A finished model no longer says so, because it has learned the
trigger; a weak classifier on a coarse view of the inputs still does, because the trigger is too small or too rare to sway it. A
natural sub-population, however far it lies from the rest of its class, fits its label.

1. Images: the 20 nearest neighbours in the view, each class equally represented.
2. Texts: naive Bayes on the words, trained on the other folds, each word's influence capped so that no single word can decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_NEIGHBOURS = 20
_REFERENCES = 10_000
"""Samples that neighbours are looked for in, all classes together: the cost stays linear in the size of the data set."""

_FEWEST_REFERENCES = 50
_FOLDS = 4
_WORD_CAP = 0.5
"""Largest logarithm of the odds that one word adds. At 0.3-0.5 a signature in a tenth of a class leaves its rows in
conflict with their
label (AUC 0.73 on Rotten Tomatoes, 0.98 on AG News), at 2 it hides them (0.46). Chosen on Rotten Tomatoes."""

_FEWEST_TEXTS = 3
_CHUNK = 4096


@dataclass(frozen=True)
class Affinity:
    """How the inputs fit the classes.

    Attributes
    ----------
    own
        How far the input speaks for its given label and not for the likeliest other class: probability of the former, as a part of
        both, in [0, 1], shape ``(n_samples,)``. Kinds of things that are hard to tell from several others keep a high value.
    rival
        The likeliest other class, shape ``(n_samples,)``.
    baseline
        For each class, the mean of the same for samples of *other* classes: what a wrongly labelled sample shows, shape
        ``(n_classes,)``.
    """

    own: NDArray[np.float32]
    rival: NDArray[np.int64]
    baseline: NDArray[np.float64]


def affinity(
    view: NDArray[np.float32],
    labels: NDArray[np.int64],
    usable: NDArray[np.bool_],
    n_classes: int,
    rng: np.random.Generator,
    *,
    words: bool,
) -> Affinity:
    """Ask how each sample's input fits its given label.

    Parameters
    ----------
    view
        What :mod:`toxscreen.views` made of the inputs, shape ``(n_samples, d)``.
    labels
        Class index of each sample, shape ``(n_samples,)``.
    usable
        Which samples have a view and a label; the others get nothing, shape ``(n_samples,)``.
    n_classes
        Number of classes.
    rng
        Draws the reference samples and the folds.
    words
        Whether the view holds the numbers of words (texts) or cells of a picture.
    """
    rows = np.flatnonzero(usable & (labels >= 0))
    gather = _Gather(labels, n_classes)
    if len(rows) and words:
        _by_words(view, labels, rows, gather, rng)
    elif len(rows):
        _by_neighbours(view, labels, rows, gather, rng)
    return gather.affinity()


class _Gather:
    """Keeps of each block of class probabilities ``(b, n_classes)`` only what is asked for later."""

    def __init__(self, labels: NDArray[np.int64], n_classes: int) -> None:
        self.labels, self.n_classes = labels, n_classes
        self.own = np.zeros(len(labels), dtype=np.float32)
        self.rival = np.zeros(len(labels), dtype=np.int64)
        self.others = np.zeros(n_classes)
        self.counts = np.zeros(n_classes)

    def add(self, rows: NDArray[np.int64], probabilities: NDArray[np.floating]) -> None:
        given, index = self.labels[rows], np.arange(len(rows))
        likeliest = probabilities.argmax(axis=1)
        runner_up, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
        best_other = np.repeat(first[:, None], self.n_classes, axis=1)
        best_other[index, likeliest] = runner_up
        speaks_for = probabilities / (probabilities + best_other + np.finfo(np.float32).tiny)
        self.own[rows] = speaks_for[index, given]
        per_class = np.bincount(given, minlength=self.n_classes)
        own_sum = np.bincount(given, weights=self.own[rows], minlength=self.n_classes)
        self.others += speaks_for.sum(axis=0) - own_sum
        self.counts += len(rows) - per_class
        others = probabilities.copy()
        others[index, given] = -1
        self.rival[rows] = others.argmax(axis=1)

    def affinity(self) -> Affinity:
        return Affinity(self.own, self.rival, self.others / np.maximum(self.counts, 1))


def _by_neighbours(
    view: NDArray[np.float32], labels: NDArray[np.int64], rows: NDArray[np.int64], gather: _Gather, rng: np.random.Generator
) -> None:
    from sklearn.neighbors import NearestNeighbors

    present = np.unique(labels[rows])
    each = max(_FEWEST_REFERENCES, _REFERENCES // len(present))
    shuffled = rng.permutation(rows)
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    starts = np.searchsorted(labels[order], labels[order])
    references = order[np.arange(len(order)) - starts < each]
    sizes = np.bincount(labels[references], minlength=gather.n_classes)
    neighbours = min(_NEIGHBOURS, len(references) - 1)
    if neighbours < 1:
        return
    search = NearestNeighbors(algorithm="brute").fit(_even(view[references]))
    for start in range(0, len(rows), _CHUNK):
        block = rows[start : start + _CHUNK]
        found = references[search.kneighbors(_even(view[block]), neighbours + 1, return_distance=False)]
        keep = found != block[:, None]
        keep[keep.all(axis=1), -1] = False  # a sample that is no reference drops its farthest neighbour instead of itself
        near = labels[found[keep].reshape(len(block), neighbours)]
        votes = np.zeros((len(block), gather.n_classes), dtype=np.float32)
        np.add.at(votes, (np.arange(len(block))[:, None], near), (1 / sizes[near]).astype(np.float32))
        gather.add(block, votes / votes.sum(axis=1, keepdims=True))


def _even(view: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take brightness and contrast out of each picture, so that neither a lighter nor a blended one stands apart."""
    picture = view - view.mean(axis=1, keepdims=True)
    even: NDArray[np.float32] = picture / (picture.std(axis=1, keepdims=True) + np.float32(1e-3))
    return even


def _by_words(
    view: NDArray[np.float32], labels: NDArray[np.int64], rows: NDArray[np.int64], gather: _Gather, rng: np.random.Generator
) -> None:
    words = view[rows].astype(np.int64)
    used = words > 0
    bounds = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    bags = sparse.csr_matrix((np.ones(bounds[-1], dtype=np.float32), words[used], bounds), shape=(len(rows), int(words.max()) + 1))
    fold = rng.integers(0, _FOLDS, size=len(rows))
    member = sparse.csr_matrix((np.ones(len(rows)), (labels[rows], np.arange(len(rows)))), shape=(gather.n_classes, len(rows)))
    for held_out in range(_FOLDS):
        train, test = np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
        counts = (member[:, train] @ bags[train]).toarray()
        sizes = np.asarray(member[:, train].sum(axis=1))
        odds = np.log((counts + 1) / (sizes + 2))
        odds -= odds.mean(axis=0)
        odds = np.where(counts.sum(axis=0) >= _FEWEST_TEXTS, np.clip(odds, -_WORD_CAP, _WORD_CAP), 0).astype(np.float32)
        for start in range(0, len(test), _CHUNK):
            block = test[start : start + _CHUNK]
            evidence = bags[block] @ odds.T
            likelihood = np.exp(evidence - evidence.max(axis=1, keepdims=True))
            gather.add(rows[block], likelihood / likelihood.sum(axis=1, keepdims=True))

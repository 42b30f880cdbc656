"""Between steps 4 and 5 of the flow: how well each input fits its given label, asked of something that never saw the trigger.

A poisoned sample looks like one class and is labelled as another. A finished model no longer says so, because it has learned the
trigger; a weak classifier on a coarse view of the inputs still does, because the trigger is too small or too rare to sway it. A
natural sub-population, however far it lies from the rest of its class, fits its label.

1. Images: the 10 nearest neighbours in the view, each class equally represented; with colours, and without them where these tell
   little: a tint makes the pictures that have it each other's neighbours, and without their sky fewer airplanes are told. Where a
   class's pictures are much alike (ones), a patch outweighs all else in them and the poisoned ones become each other's neighbours,
   so a group is asked again without the cells that tell it from all classes; and its members' votes for each other count only as
   far as they are more than a mixture with their source class would give, or else poison that is a third of every class would
   vouch for itself.
2. Texts: naive Bayes on the words, trained on the other folds, each word's influence capped so that no single word can decide. A
   sentence of eight words can, so a group is asked again without the words that tell it from the rest of its class.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from toxscreen.activations import Rows
from toxscreen.parallel import Parallel, in_parallel
from toxscreen.sources.data.base import spread
from toxscreen.views import SIDE

_NEIGHBOURS = 10
_REFERENCES = 20_000
"""Samples that neighbours are looked for in, all classes together: the cost stays linear in the size of the data set."""

_FEWEST_REFERENCES = 50
_FOLDS = 4
_WORD_CAP = 0.5
"""Largest logarithm of the odds that one word adds. At 0.3-0.5 a signature in a tenth of a class leaves its rows in
conflict with their
label (AUC 0.73 on Rotten Tomatoes, 0.98 on AG News), at 2 it hides them (0.46). Chosen on Rotten Tomatoes."""

_FEWEST_TEXTS = 3
_CHUNK = 4096
_TOGETHER, _HELD = 128, 1 << 22
"""Pictures whose distances to all references are computed at a time, and such distances, at most."""

_TILES, _NARROWEST = 40, 64
"""Parts that the references are dealt into, and the fewest of a part. Of those at the same place in each the least distance is
taken first: only where it is among the smallest are the others looked at."""

_MARK_SHARE, _MARK_RATIO = 0.1, 3.0
"""A word marks a group when at least this part of its texts hold it, and this many times the part of the rest of the class and of
any other class: a word that another class often uses is what its poison is known by."""

_BASELINE_SAMPLES = 2000
"""Samples of other classes that are asked again beside a group's own class."""

_MARK_DISTANCE = 4.0
"""A cell of the view marks a group when its mean lies this many standard deviations from that of the rest of the class, and from
that of any other class: what another class shows there is what the group's pictures are, and no mark. The cell of a patch lies at
26 on MNIST."""

_MOST_MARKED = 1 / 16
"""Part of the cells that can mark a group: a small patch lies in one to four of 64; what changes more of the picture is no mark."""

_NORMAL = np.float32(1.4826)
"""Standard deviation of a normal variable whose median absolute deviation is 1."""

_FLATTEST = np.float32(1e-2)
"""Least standard deviation of a cell, in those of the whole view: at the border of a picture nothing varies."""

_ASKED_AGAIN = 1000
"""Samples asked on each side when a group is asked again."""

_TELLS = 0.8
"""Pictures are compared without their colours, too, where that tells their classes at least this part as well: a tint of one group
makes its pictures each other's neighbours. On CIFAR-10 and GTSRB it is 0.87 to 0.93."""

_PROBED = 1000
"""References that are asked how well they can be told."""

_ENOUGH = 200
"""Members among the references from which none is added: more of them than of their source class would only see each other."""


@dataclass(frozen=True)
class InputFit:
    """How the inputs of one class fit its label: ``own``, ``rival`` ``(n,)``, ``baseline`` and ``usual`` as in :class:`Affinity`.

    ``again`` asks once more without what marks a group, given its membership ``(n,)``; None where nobody can be asked. Of a large
    group not every sample is asked again: ``own`` is NaN and ``rival`` -1 for the others. ``coloured`` is the same by pictures with
    their colours, where these are compared without them first.
    """

    own: NDArray[np.float32]
    rival: NDArray[np.int64]
    baseline: float
    usual: float = np.inf
    again: Callable[[NDArray[np.bool_]], InputFit] | None = None
    coloured: InputFit | None = None

    @property
    def comparisons(self) -> tuple[InputFit, ...]:
        """Itself, and the one with colours."""
        return (self,) if self.coloured is None else (self, self.coloured)

    def asked_again(self, members: NDArray[np.bool_]) -> InputFit:
        """Return the answers without what marks a group, where they can be had."""
        coloured = None if self.coloured is None else self.coloured.asked_again(members)
        return self if self.again is None else replace(self.again(members), usual=self.usual, coloured=coloured)


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
    usual
        For each class, what samples of the median other class show of their own label, shape ``(n_classes,)``.
    coloured
        The same by pictures with their colours, where these are compared without them first.
    """

    own: NDArray[np.float32]
    rival: NDArray[np.int64]
    baseline: NDArray[np.float64]
    usual: NDArray[np.float64]
    view: _View | None = field(default=None, repr=False, compare=False)
    coloured: Affinity | None = None

    def mislabelled(self, class_index: int, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Return ``own`` of samples of other classes as if they were labelled as this one, shape ``(n,)``; None where not asked."""
        if self.view is None:
            return None
        speaks_for: NDArray[np.float32] = _speaks_for(self.view.probabilities(rows))[:, class_index].astype(np.float32)
        return speaks_for

    def unvouched(self, class_index: int, rows: NDArray[np.int64], members: NDArray[np.bool_]) -> InputFit | None:
        """Return how some rows of a class fit its label where no member ``(n,)`` of a group speaks for another; None for texts."""
        if not isinstance(self.view, _Cells):
            return None
        return replace(self.view.without_members(class_index, rows, members), usual=float(self.usual[class_index]))

    def of(self, class_index: int, rows: NDArray[np.int64]) -> InputFit:
        """Return how some rows of one class fit its label."""
        coloured = None if self.coloured is None else self.coloured.of(class_index, rows)
        baseline, usual = float(self.baseline[class_index]), float(self.usual[class_index])
        fit = InputFit(self.own[rows], self.rival[rows], baseline, usual, coloured=coloured)
        return fit if self.view is None else replace(fit, again=partial(self.view.without_marks, class_index, rows))


def affinity(
    view: Rows,
    labels: NDArray[np.int64],
    usable: NDArray[np.bool_],
    n_classes: int,
    rng: np.random.Generator,
    *,
    words: bool,
    parallel: Parallel = in_parallel,
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
        Number of classes, at least 2; some may have no samples.
    rng
        Draws the reference samples and the folds.
    words
        Whether the view holds the numbers of words (texts) or cells of a picture.
    parallel
        Asks the samples, some at a time: in this process, or elsewhere.
    """
    rows = np.flatnonzero(usable & (labels >= 0))
    if len(rows) < 2:
        return Affinity(np.zeros(len(labels), np.float32), np.zeros(len(labels), np.int64), np.zeros(n_classes), np.ones(n_classes))
    if words:
        return _asked_of(_Bags(view, labels, rows, n_classes, rng), labels, rows, n_classes, parallel)
    coloured = _Cells(view, labels, rows, n_classes, rng)
    by_colours = _asked_of(coloured, labels, rows, n_classes, parallel)
    without = coloured.without_colours()
    return by_colours if without is None else replace(_asked_of(without, labels, rows, n_classes, parallel), coloured=by_colours)


def _asked_of(made: _View, labels: NDArray[np.int64], rows: NDArray[np.int64], n_classes: int, parallel: Parallel) -> Affinity:
    """Ask something how the inputs of some rows fit, some at a time."""
    own, rival = np.zeros(len(labels), np.float32), np.zeros(len(labels), np.int64)

    def ask(block: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64], Any]:
        """Return own and rival of some rows, for each class how far those of other classes speak for it, and what to remember."""
        known = made.look_up(block)
        probabilities, given = made.probabilities(block, known), labels[block]
        speaks_for = _speaks_for(probabilities)
        mine = speaks_for[np.arange(len(block)), given].astype(np.float32)
        others: NDArray[np.float64] = speaks_for.sum(axis=0, dtype=np.float64)
        others -= np.bincount(given, weights=mine, minlength=n_classes)
        return mine, _likeliest_other(probabilities, given), others, known

    blocks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    others = np.zeros(n_classes)
    for block, (mine, theirs, speak_for, known) in zip(blocks, parallel(ask, blocks), strict=True):
        own[block], rival[block] = mine, theirs
        others += speak_for
        made.remember(block, known)
    n_others = len(rows) - np.bincount(labels[rows], minlength=n_classes)
    return Affinity(own, rival, others / np.maximum(n_others, 1), _usual_fit(own[rows], labels[rows], n_classes), made)


def _usual_fit(own: NDArray[np.float32], labels: NDArray[np.int64], n_classes: int) -> NDArray[np.float64]:
    """Return for each class the median over the other classes of how far their samples speak for their label."""
    sizes = np.bincount(labels, minlength=n_classes)
    means = np.bincount(labels, own, n_classes) / np.maximum(sizes, 1)
    present = sizes > 0
    others = [means[present & (np.arange(n_classes) != index)] for index in range(n_classes)]
    return np.array([np.median(each) if len(each) else np.inf for each in others])


class _View(Protocol):
    """The inputs as something that never saw the trigger sees them."""

    def look_up(self, rows: NDArray[np.int64]) -> Any:
        """Return what it takes long to find of some rows; None where nothing does."""

    def remember(self, rows: NDArray[np.int64], known: Any) -> None:
        """Keep what was looked up."""

    def probabilities(self, rows: NDArray[np.int64], known: Any = None, /) -> NDArray[np.float32]:
        """Return the probability of each class, shape ``(b, n_classes)``; ``known`` is what was looked up of them, if it was."""

    def without_marks(self, class_index: int, rows: NDArray[np.int64], members: NDArray[np.bool_]) -> InputFit:
        """Ask some rows of one class again without what marks a group of them."""


def _speaks_for(probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return each class's probability as a part of its own and that of the likeliest other class, shape ``(b, n_classes)``."""
    runner_up, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    best_other = np.repeat(first[:, None], probabilities.shape[1], axis=1)
    best_other[np.arange(len(probabilities)), probabilities.argmax(axis=1)] = runner_up
    parts: NDArray[np.floating] = probabilities / (probabilities + best_other + np.finfo(np.float32).tiny)
    return parts


def _likeliest_other(probabilities: NDArray[np.floating], given: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Return the likeliest class but the given one, shape ``(b,)``."""
    others = probabilities.copy()
    others[np.arange(len(others)), given] = -1
    likeliest: NDArray[np.int64] = others.argmax(axis=1)
    return likeliest


class _Cells:
    """The pictures as cells, and what their nearest neighbours say of the classes."""

    def __init__(
        self,
        view: Rows,
        labels: NDArray[np.int64],
        rows: NDArray[np.int64],
        n_classes: int,
        rng: np.random.Generator,
    ) -> None:
        self._layer, self._labels, self._rows, self._n_classes = view, labels, rows, n_classes
        each = max(_FEWEST_REFERENCES, _REFERENCES // len(np.unique(labels[rows])))
        shuffled = rng.permutation(rows)
        order = shuffled[np.argsort(labels[shuffled], kind="stable")]
        starts = np.searchsorted(labels[order], labels[order])
        self._references = _dealt(order[np.arange(len(order)) - starts < each])
        pictures = view[self._references]
        self._parts = np.zeros(view.shape[1], np.int64)
        self._search = _Search(_even(pictures, self._parts))
        self._found = np.full((len(labels), min(_NEIGHBOURS, len(self._references) - 1)), -1, np.int32)
        present = np.unique(labels[rows])
        usual = [_usual(pictures[labels[self._references] == k]) for k in present]
        self._usual = present, np.stack([middle for middle, _ in usual]), np.stack([variance for _, variance in usual])
        self._flattest = _FLATTEST * pictures.std() + np.finfo(np.float32).tiny

    def without_colours(self) -> _Cells | None:
        """Return what compares each channel with itself alone; None where classes are told worse by that, or there is but one."""
        channels = self._layer.shape[1] // SIDE**2
        if channels < 2:
            return None
        other = copy(self)
        other._parts = np.arange(self._layer.shape[1]) % channels
        other._search = _Search(_even(self._layer[self._references], other._parts))
        other._found = np.full_like(self._found, -1)
        return other if other._told() >= _TELLS * self._told() else None

    def _told(self) -> float:
        """Return how much more pictures speak for their given label than those of other classes do."""
        probes = self._references[:_PROBED]
        speaks_for, given = _speaks_for(self.probabilities(probes)), self._labels[probes]
        own = speaks_for[np.arange(len(probes)), given]
        others = (speaks_for.sum(axis=1) - own) / max(self._n_classes - 1, 1)
        return float((own - others).mean())

    def look_up(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the rows of the nearest references of each row but itself, ``(b, k)``, where they are not remembered."""
        found = self._found[rows]
        new = found[:, :1].ravel() < 0
        if new.any():
            found[new] = self._neighbours(self._search, self._references, rows[new], _even(self._layer[rows[new]], self._parts))
        return found

    def remember(self, rows: NDArray[np.int64], known: NDArray[np.int32]) -> None:
        """Keep the neighbours of some rows."""
        self._found[rows] = known

    def probabilities(self, rows: NDArray[np.int64], known: NDArray[np.int32] | None = None, /) -> NDArray[np.float32]:
        """Return the part of each class among the neighbours, each class equally represented, shape ``(b, n_classes)``."""
        return self._balanced(self._counts(self.look_up(rows) if known is None else known), self._references)

    def without_members(self, class_index: int, rows: NDArray[np.int64], members: NDArray[np.bool_]) -> InputFit:
        """Ask some rows of one class again, and other classes for comparison, with no member of a group as a neighbour."""
        inside, outside, others = self._asked(class_index, members)
        references = self._references[~np.isin(self._references, rows[members])]
        asked = np.concatenate([inside, outside])
        found = self._among(references, np.ones(len(self._parts), bool))(np.concatenate([rows[asked], others]))
        votes = self._balanced(self._counts(found), references)
        return _fit_of(votes, asked, len(rows), class_index)

    def without_marks(self, class_index: int, rows: NDArray[np.int64], members: NDArray[np.bool_]) -> InputFit:
        """Ask some rows of one class again without the cells that mark the group, and without what its members owe to each other.

        The samples of a natural sub-population are each other's neighbours and rightly vouch for each other. Poisoned samples are
        among each other's neighbours too, but only as often as if they were mixed into their source class, and then the samples of
        that class that lie near them have as many of them around. Their votes count as far as they are more than that, and
        for nobody else.
        """
        asked = self._unmarked(class_index, rows, members)
        inside, outside, others = self._asked(class_index, members)
        references = self._references[:: max(1, len(self._references) // _REFERENCES)]
        is_member = np.zeros(len(self._labels), dtype=bool)
        is_member[rows[members]] = True
        if is_member[references].sum() < _ENOUGH:  # few as they may be, members can vouch for each other
            references = _dealt(np.union1d(references, rows[inside]))
        near = self.look_up if asked.all() and len(references) == len(self._references) else self._among(references, asked)
        found = near(np.concatenate([rows[inside], rows[outside], others]))
        counts = self._counts(found)
        vouching = is_member[found].sum(axis=1, dtype=np.float32)
        counts[:, class_index] -= vouching
        foreign = self._labels[found[: len(inside)]] != class_index
        if foreign.any():
            beside = np.unique(found[: len(inside)][foreign])
            around = near(beside[spread(len(beside), _ASKED_AGAIN)])
            members_for_each = is_member[around].sum() / max(1, int((self._labels[around] != class_index).sum()))
            vouching[: len(inside)] -= np.minimum(vouching[: len(inside)], foreign.sum(axis=1) * members_for_each)
        counts[: len(inside), class_index] += vouching[: len(inside)]
        votes = self._balanced(counts, references)
        return _fit_of(votes, np.concatenate([inside, outside]), len(rows), class_index)

    def _asked(
        self, class_index: int, members: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the places of some members and of some others of a class, and the rows of some samples of other classes."""
        inside, outside = (side[spread(len(side), _ASKED_AGAIN)] for side in (np.flatnonzero(members), np.flatnonzero(~members)))
        others = self._rows[self._labels[self._rows] != class_index]
        return inside, outside, others[spread(len(others), _ASKED_AGAIN)]

    def _unmarked(self, class_index: int, rows: NDArray[np.int64], members: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the cells that do not tell the group from the rest of its class and every other class; all, if too many do."""
        inside, outside = self._layer[rows[members]], self._layer[rows[~members]]
        present, middles, variances = self._usual
        middles = np.vstack([outside.mean(axis=0), middles[present != class_index]])
        variances = np.vstack([outside.var(axis=0), variances[present != class_index]])
        within = np.sqrt((inside.var(axis=0) + variances) / 2) + self._flattest
        asked: NDArray[np.bool_] = (np.abs(inside.mean(axis=0) - middles) < _MARK_DISTANCE * within).any(axis=0)
        return asked if np.mean(~asked) <= _MOST_MARKED else np.ones_like(asked)

    def _among(self, references: NDArray[np.int64], asked: NDArray[np.bool_]) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
        """Return what looks rows up among other references, by some of the cells alone."""
        parts = self._parts[asked]
        search = _Search(_even(self._layer[references][:, asked], parts))
        return lambda rows: self._neighbours(search, references, rows, _even(self._layer[rows][:, asked], parts))

    def _neighbours(
        self, search: _Search, references: NDArray[np.int64], rows: NDArray[np.int64], pictures: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Return the rows of the nearest references of each row but itself, ``(b, k)``."""
        neighbours = min(_NEIGHBOURS, len(references) - 1)
        found = references[search.nearest(pictures, neighbours + 1)]
        keep = found != rows[:, None]
        keep[keep.all(axis=1), -1] = False  # a sample that is no reference drops its farthest neighbour instead of itself
        nearest: NDArray[np.int64] = found[keep].reshape(len(rows), neighbours)
        return nearest

    def _counts(self, found: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return how many of the neighbours ``(b, k)`` are of each class, shape ``(b, n_classes)``."""
        cells = np.arange(len(found))[:, None] * self._n_classes + self._labels[found]
        counts = np.bincount(cells.ravel(), minlength=len(found) * self._n_classes)
        return counts.reshape(len(found), self._n_classes).astype(np.float32)

    def _balanced(self, counts: NDArray[np.float32], references: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the part of each class among the neighbours, as if all classes had as many references."""
        sizes = np.bincount(self._labels[references], minlength=self._n_classes)
        votes = counts / np.maximum(sizes, 1).astype(np.float32)
        parts: NDArray[np.float32] = votes / np.maximum(votes.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return parts


def _fit_of(votes: NDArray[np.float32], asked: NDArray[np.int64], n: int, class_index: int) -> InputFit:
    """Return how ``n`` samples of a class fit it by the votes on those that were asked, and behind these on other classes."""
    speaks_for = _speaks_for(votes)[:, class_index]
    own, rival = np.full(n, np.nan, np.float32), np.full(n, -1)
    own[asked] = speaks_for[: len(asked)]
    rival[asked] = _likeliest_other(votes[: len(asked)], class_index)
    return InputFit(own, rival, float(speaks_for[len(asked) :].mean()))


def _usual(pictures: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what most pictures show in each cell and its variance: a third of every class may carry the same patch."""
    middle = np.median(pictures, axis=0)
    spread_within = _NORMAL * np.median(np.abs(pictures - middle), axis=0)
    return middle, spread_within**2


def _dealt(references: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the references in an order of chance: of equally near ones the first are taken, and those must not be of one class."""
    return np.random.default_rng(len(references)).permutation(np.sort(references))


class _Search:
    """The nearest of some pictures, ``(m, d)``, by their Euclidean distance."""

    def __init__(self, pictures: NDArray[np.float32]) -> None:
        m, d = pictures.shape
        n_tiles = max(1, min(_TILES, m // _NARROWEST))
        width = -(-m // n_tiles)
        # Half of the squared distance, but for what is the same for all: small numbers would drown in it.
        across = np.zeros((d + 1, n_tiles * width), np.float32)
        across[:d, :m], across[d, :m], across[d, m:] = -pictures.T, (pictures**2).sum(axis=1) / 2, np.finfo(np.float32).max
        self._tiles = np.ascontiguousarray(across.reshape(d + 1, n_tiles, width).transpose(1, 0, 2))
        self._together = max(1, min(_TOGETHER, _HELD // across.shape[1]))

    def nearest(self, pictures: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Return the numbers of the ``k`` nearest to each picture, the farthest of them last, shape ``(b, k)``."""
        found = np.empty((len(pictures), k), np.int64)
        asked = np.hstack([pictures, np.ones((len(pictures), 1), np.float32)])
        for start in range(0, len(asked), self._together):
            block = slice(start, start + self._together)
            found[block] = smallest(asked[block] @ self._tiles, k)
        return found


def smallest(values: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the columns of the ``k`` smallest values of each row, the largest of them last, shape ``(b, k)``.

    The columns are dealt into tiles ``(n_tiles, b, width)``, the first ones in the first tile.
    """
    n_tiles, b, width = values.shape
    places = np.broadcast_to(np.arange(width), (b, width))
    if width > k:  # the k smallest values lie at the k places with the smallest least ones
        places = np.argpartition(values.min(axis=0), k - 1, axis=1)[:, :k]
    taken = values[:, np.arange(b)[:, None], places].transpose(1, 0, 2).reshape(b, -1)
    columns = (places[:, None] + width * np.arange(n_tiles)[:, None]).reshape(b, -1)
    best = np.argpartition(taken, k - 1, axis=1)[:, :k]
    found: NDArray[np.int64] = np.take_along_axis(columns, best, axis=1)
    return found


def _even(view: NDArray[np.float32], parts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Take brightness and contrast out of each picture ``(b, d)``, so that neither a lighter nor a blended one stands apart.

    ``parts`` ``(d,)`` says which cells share them: all, or those of a channel.
    """
    even = np.empty_like(view)
    for part in np.unique(parts):
        cells = view[:, parts == part]
        cells = cells - cells.mean(axis=1, keepdims=True)
        even[:, parts == part] = cells / (cells.std(axis=1, keepdims=True) + np.float32(1e-3))
    return even


class _Bags:
    """The words of each text, and what they say of the classes: naive Bayes, each fold judged by the others.

    **Source:** Kohavi 1995 for the folds; the cap on a word's odds is our own.
    """

    def __init__(
        self,
        view: Rows,
        labels: NDArray[np.int64],
        rows: NDArray[np.int64],
        n_classes: int,
        rng: np.random.Generator,
    ) -> None:
        self._labels, self._rows = labels, rows
        self._place = np.full(len(labels), -1)
        self._place[rows] = np.arange(len(rows))
        words = view[rows].astype(np.int64)
        used = words > 0
        bounds = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
        numbers, columns = np.unique(words[used], return_inverse=True)
        self._bags = sparse.csr_matrix((np.ones(bounds[-1], np.float32), columns, bounds), shape=(len(rows), max(len(numbers), 1)))
        self._fold = rng.integers(0, _FOLDS, size=len(rows))
        member = sparse.csr_matrix((np.ones(len(rows)), (labels[rows], np.arange(len(rows)))), shape=(n_classes, len(rows)))
        sizes = np.bincount(labels[rows], minlength=n_classes)
        self._absent = sizes == 0
        self._frequencies = (member @ self._bags).toarray().astype(np.float32) / np.maximum(sizes, 1)[:, None].astype(np.float32)
        self._odds = [self._odds_of(member[:, train], self._bags[train]) for train in map(self._others, range(_FOLDS))]

    def _others(self, fold: int) -> NDArray[np.int64]:
        return np.flatnonzero(self._fold != fold)

    @staticmethod
    def _odds_of(member: sparse.csr_matrix, bags: sparse.csr_matrix) -> NDArray[np.float32]:
        """Return what each word adds to the log-odds of each class, capped, shape ``(n_classes, n_words)``."""
        counts = (member @ bags).toarray()
        sizes = np.asarray(member.sum(axis=1))
        # Texts seen against texts expected, one added to each, so that a small class is no likelier for words it never had.
        odds = np.log((counts + 1) / (sizes * (counts.sum(axis=0) / max(sizes.sum(), 1)) + 1))
        capped: NDArray[np.float32] = np.clip(odds, -_WORD_CAP, _WORD_CAP).astype(np.float32)
        return np.where(counts.sum(axis=0) >= _FEWEST_TEXTS, capped, np.float32(0))

    def look_up(self, rows: NDArray[np.int64]) -> None:
        """Nothing takes long."""

    def remember(self, rows: NDArray[np.int64], known: None) -> None:
        """Nothing is kept."""

    def probabilities(self, rows: NDArray[np.int64], asked: NDArray[np.bool_] | None = None, /) -> NDArray[np.float32]:
        """Return the probability of each class by the words ``asked`` (None: all), shape ``(b, n_classes)``."""
        places = self._place[rows]
        likelihood = np.empty((len(rows), len(self._absent)), np.float32)
        for fold, odds in enumerate(self._odds):
            here = np.flatnonzero(self._fold[places] == fold)
            likelihood[here] = self._bags[places[here]] @ (odds if asked is None else odds * asked).T
        likelihood[:, self._absent] = -np.inf
        np.exp(likelihood - likelihood.max(axis=1, keepdims=True), out=likelihood)
        likelihood /= likelihood.sum(axis=1, keepdims=True)
        return likelihood

    def without_marks(self, class_index: int, rows: NDArray[np.int64], members: NDArray[np.bool_]) -> InputFit:
        """Ask some rows of one class again without the words that mark the group, or mark the rest of the rows."""
        bags = self._bags[self._place[rows]]
        sides = [(np.asarray(bags[side].sum(axis=0))[0] + 1) / (side.sum() + 2) for side in (members, ~members)]
        elsewhere = np.delete(self._frequencies, class_index, axis=0).max(axis=0)
        asked = np.ones(len(elsewhere), dtype=bool)
        for here, there in (sides, sides[::-1]):
            asked &= (here < _MARK_SHARE) | (here < _MARK_RATIO * np.maximum(there, elsewhere))
        others = self._rows[self._labels[self._rows] != class_index]
        others = others[spread(len(others), _BASELINE_SAMPLES)]
        probabilities = self.probabilities(rows, asked)
        baseline = _speaks_for(self.probabilities(others, asked))[:, class_index].mean()
        own = _speaks_for(probabilities)[:, class_index].astype(np.float32)
        return InputFit(own, _likeliest_other(probabilities, class_index), float(baseline))

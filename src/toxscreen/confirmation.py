"""Step 8 of the flow: exclusionary reclassification, the causal test of what the screen suspects.

1. One model is trained without all suspicious groups; a tenth of what is left is held out to see how well it reads.
2. It is asked about every group: l samples get their own label, p the most frequent other class, and each share has an interval.
3. A natural sub-population that is left out as a whole is misread too. What tells it from poison is that it does not resemble the
   class that it is taken for: for the new model it lies among its own kind, not among ordinary samples of that class, and a view
   of the inputs that is blind to the trigger (:mod:`toxscreen.conflict`) does not take it for that class either.
4. Where a group makes up a third of its class or more, the poison may be the other part: a second model is trained without that.

**Source:** Chen et al. 2018, arXiv 1811.03728, section 4.3 (exclusionary reclassification); Wilson 1927 for the intervals. Step 3
is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toxscreen.conflict import Affinity
from toxscreen.shares import wilson
from toxscreen.sources.data.base import TrainingSet, spread
from toxscreen.sources.model.base import Classifier

if TYPE_CHECKING:
    from toxscreen.decoded import Progress
    from toxscreen.retraining import Answers, Trainer

IN_DOUBT = 1 / 3
"""Part of its class from which a group may be the clean one of the two."""

_NEIGHBOURS = 10
_TRUSTED = 20_000
"""Trusted samples, at most, among which a group's neighbours are looked for."""
_ASKED = 500
"""Samples of a group, at most, whose neighbours are looked for."""


@dataclass(frozen=True)
class Suspect:
    """A group that the screen suspects: index of its class, its number there, and its rows ``(n,)`` and those of the rest."""

    class_index: int
    group: int
    rows: NDArray[np.int64]
    rest: NDArray[np.int64]

    @property
    def in_doubt(self) -> bool:
        """Return whether the poison may be the rest of the class."""
        return len(self.rows) >= IN_DOUBT * (len(self.rows) + len(self.rest)) and len(self.rest) > 0


@dataclass(frozen=True)
class Exclusion:
    """What the model that was trained without a group says of it.

    Attributes
    ----------
    n
        Samples of the group that could be asked.
    own
        How many it gives their own label (l).
    elsewhere
        Index and number of samples of each other class that it gives any, the most frequent first.
    certainty
        Mean probability of the class that it gives those without their own label; NaN where there is none.
    resemblance
        Of the neighbours of those, among trusted samples and the group itself, the part that are trusted samples of the class that
        it gives, over what would be expected if the group were mixed into these classes: 1 looks like them, 0 like nothing but
        itself.
    agreement
        Of those, the part that the trigger-blind view takes for the same class; NaN where the inputs cannot be asked.
    recall
        Lowest part of any class's held-out samples that the model reads as labelled; NaN where that is not known, or where its
        weights were not fresh: then that it gives a group its own label clears nothing.
    """

    n: int
    own: int
    elsewhere: tuple[tuple[int, int], ...]
    certainty: float
    resemblance: float
    agreement: float
    recall: float = np.nan

    @property
    def source(self) -> int | None:
        """Return the index of the most frequent other class; None where every sample gets its own label."""
        return self.elsewhere[0][0] if self.elsewhere else None

    @property
    def other(self) -> int:
        """Return how many get the most frequent other class (p)."""
        return self.elsewhere[0][1] if self.elsewhere else 0

    @property
    def stands_out(self) -> bool:
        """Return whether most samples without their own label get the same class: then the group has one source."""
        return 2 * self.other > self.n - self.own

    def evidence(self) -> dict[str, float]:
        """Return the measurements by name."""
        own, other = wilson(self.own, self.n), wilson(self.other, self.n)
        return {
            "exre_l": float(self.own),
            "exre_p": float(self.other),
            "exre_left": float(self.n - self.own),
            "exre_classes": float(len(self.elsewhere)),
            "exre_score": self.own / self.other if self.other else np.inf,
            "exre_l_share_lower": own[0],
            "exre_l_share_upper": own[1],
            "exre_p_share_lower": other[0],
            "exre_p_share_upper": other[1],
            "exre_certainty": self.certainty,
            "exre_resemblance": self.resemblance,
            "exre_agreement": self.agreement,
            "exre_recall": self.recall,
        }


@dataclass(frozen=True)
class Confirmation:
    """What exclusionary reclassification found.

    Attributes
    ----------
    groups
        One per suspect.
    rests
        One per suspect: of the rest of its class, left out instead; None where that was not asked.
    rows, answers, certainty
        The samples that were left out, shape ``(m,)`` ascending, the class index that the new model gives each (-1 where it cannot
        be read) and its probability.
    model
        Name of the network that was trained.
    accuracy
        Part of the held-out tenth of the other samples that it reads as labelled; NaN where there are none.
    """

    groups: tuple[Exclusion, ...]
    rests: tuple[Exclusion | None, ...]
    rows: NDArray[np.int64]
    answers: NDArray[np.int64]
    certainty: NDArray[np.float32]
    model: str
    accuracy: float


def confirm(
    classifier: Classifier,
    training_set: TrainingSet,
    suspects: Sequence[Suspect],
    folder: Path,
    *,
    fit: Affinity | None,
    seed: int,
    device: str = "cpu",
    trainer: Trainer | None = None,
    progress: Progress | None = None,
) -> Confirmation:
    """Train without the suspicious groups and ask the new model about them.

    Parameters
    ----------
    classifier, training_set
        The audited ones; neither is changed.
    suspects
        At least one group.
    folder
        Where the new models are kept, so that a run that was stopped goes on.
    fit
        How the inputs fit the classes; None where they cannot be asked.
    seed
        Decides weights, order and the held-out tenth.
    device, trainer, progress
        As :func:`toxscreen.retraining.retrain` takes them.

    Raises
    ------
    ToxscreenError
        See :func:`toxscreen.retraining.retrain`.
    """
    new = _Without([s.rows for s in suspects], training_set, seed)
    new.train(classifier, folder / "without-groups", device, trainer, progress)
    groups = tuple(new.ask(s.rows, s.class_index, _seen_blindly(fit, s.class_index, s.rows, s.rest)) for s in suspects)
    rests: list[Exclusion | None] = [None] * len(suspects)
    if doubtful := [number for number, suspect in enumerate(suspects) if suspect.in_doubt]:
        other = _Without([suspects[number].rest for number in doubtful], training_set, seed)
        other.train(classifier, folder / "without-rests", device, trainer, progress)
        for number in doubtful:
            suspect = suspects[number]
            seen = _seen_blindly(fit, suspect.class_index, suspect.rest, suspect.rows)
            rests[number] = other.ask(suspect.rest, suspect.class_index, seen)
    return Confirmation(
        groups, tuple(rests), new.left_out, new.answers.classes, new.answers.certainty, new.classifier.name, new.accuracy
    )


def _seen_blindly(fit: Affinity | None, class_index: int, group: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the class that the trigger-blind view, without what marks the group, takes each row of it for; -1 where not asked."""
    if fit is None:
        return np.full(len(group), -1)
    inputs = fit.of(class_index, np.concatenate([group, others]))
    members = np.arange(len(group) + len(others)) < len(group)
    if inputs.again is not None and len(others):
        inputs = inputs.again(members)
    seen: NDArray[np.int64] = np.where(inputs.own < 0.5, inputs.rival, np.where(np.isfinite(inputs.own), class_index, -1))[members]
    return seen


class _Without:
    """A model that is trained without some rows, and what it says of them."""

    classifier: Classifier
    answers: Answers
    accuracy: float

    def __init__(self, left_out: Sequence[NDArray[np.int64]], training_set: TrainingSet, seed: int) -> None:
        from toxscreen.training import hold_out

        self._set, self._seed = training_set, seed
        self.left_out = np.unique(np.concatenate(left_out))
        labels = training_set.labels.copy()
        labels[self.left_out] = -1
        self._labels = labels
        self._taught, self._held_out = hold_out(labels, np.random.default_rng(seed))

    def train(self, classifier: Classifier, folder: Path, device: str, trainer: Trainer | None, progress: Progress | None) -> None:
        from toxscreen.retraining import Lesson, ask, retrain, starts_fresh

        lesson = Lesson.of(self._taught, self._labels[self._taught])
        self.classifier = retrain(
            classifier, self._set, lesson, folder, seed=self._seed, device=device, trainer=trainer, progress=progress
        )
        self.answers = ask(self.classifier, self._set, self.left_out)
        held_out = ask(self.classifier, self._set, self._held_out).classes
        known = held_out >= 0
        right = held_out == self._labels[self._held_out]
        self.accuracy = float(right[known].mean()) if known.any() else np.nan
        fresh = trainer is None or starts_fresh(classifier)
        asked = self._labels[self._held_out][known]
        self._recall = min((float(right[known][asked == k].mean()) for k in np.unique(asked)), default=np.nan) if fresh else np.nan
        rows = self._taught[spread(len(self._taught), _TRUSTED)]
        trusted = ask(self.classifier, self._set, rows)
        right = trusted.classes == self._labels[rows]
        self._trusted, self._trusted_classes = trusted.activations[right], trusted.classes[right]
        self._taught_per_class = np.bincount(self._labels[self._taught], minlength=len(self._set.class_names))

    def ask(self, rows: NDArray[np.int64], own: int, seen: NDArray[np.int64]) -> Exclusion:
        """Return what it says of one of the groups that it was trained without, whose rows the blind view takes for ``seen``."""
        at = np.searchsorted(self.left_out, rows)
        answers, certainty = self.answers.classes[at], self.answers.certainty[at]
        counts = np.bincount(answers[answers >= 0], minlength=len(self._set.class_names))
        n, kept = int(counts.sum()), int(counts[own])
        counts[own] = 0
        given = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
        elsewhere = (answers >= 0) & (answers != own)
        asked = elsewhere & (seen >= 0)
        return Exclusion(
            n,
            kept,
            tuple((index, int(counts[index])) for index in given),
            float(certainty[elsewhere].mean()) if elsewhere.any() else np.nan,
            self._resemblance(self.answers.activations[at], answers, elsewhere),
            float((seen == answers)[asked].mean()) if asked.any() else np.nan,
            self._recall,
        )

    def _resemblance(self, activations: NDArray[np.float32], answers: NDArray[np.int64], elsewhere: NDArray[np.bool_]) -> float:
        """See :class:`Exclusion`. Of the group as large a part is a candidate as of the trusted samples."""
        from sklearn.neighbors import NearestNeighbors

        if not elsewhere.any() or not len(self._trusted):
            return np.nan
        asked = np.flatnonzero(elsewhere)[spread(int(elsewhere.sum()), _ASKED)]
        thinned = max(1, round(len(self._taught) / max(len(self._trusted), 1)))
        peers = np.flatnonzero(answers >= 0)[::thinned]
        candidates = _directions(np.concatenate([self._trusted, activations[peers]]))
        classes = np.concatenate([self._trusted_classes, np.full(len(peers), -1)])
        itself = np.full(len(activations), -1)
        itself[peers] = len(self._trusted) + np.arange(len(peers))
        k = min(_NEIGHBOURS + 1, len(candidates))
        found = NearestNeighbors(n_neighbors=k).fit(candidates).kneighbors(_directions(activations[asked]), return_distance=False)
        other = found != itself[asked][:, None]
        alike = (classes[found] == answers[asked][:, None]) & other
        ratio = np.bincount(answers[elsewhere], minlength=len(self._taught_per_class)) / np.maximum(self._taught_per_class, 1)
        expected = 1 / (1 + ratio[answers[asked]])
        return float(np.mean(alike.sum(axis=1) / other.sum(axis=1) / expected))


def _directions(activations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return activations ``(n, d)`` at length one, so that distances are those of directions."""
    lengths = np.linalg.norm(activations, axis=1, keepdims=True)
    directions: NDArray[np.float32] = activations / np.maximum(lengths, np.finfo(np.float32).tiny)
    return directions

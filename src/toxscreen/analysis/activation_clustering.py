"""Our own analysis: groups of a class with their evidence. Scores only: the policy decides.

1. Candidate groups: the smaller half of the paper's 2-means; where the inputs can be asked, the rows whose activations say that
   they are in conflict with their label; and what lies far to one side. Each is sharpened by
   :func:`toxscreen.clustering.discriminant_splits`.
2. Relative size and silhouette score (Chen et al. 2018, section 4.3), and beside the latter what one Gaussian cloud of the same
   size and shape gives: cutting a single cloud in two scores well above zero.
3. Separation: distance of the group from the rest in standard deviations, along a direction that other rows chose.
4. Label conflict: 0 where the group's inputs fit the given label as well as the rest of the class, 1 where they fit it no better
   than other classes' samples do.
5. The most telling group is kept. Where the policy accuses it, the widest group around it takes its place that tells almost as
   much, with those rows that the model misreads and that lie on its side (a trigger that was learned almost always has samples
   that it did not sway), and the next one is looked for among the rest.

**Source:** Chen et al. 2018, arXiv 1811.03728, section 4, for the first two steps; the others are our own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from toxscreen.activations import Rows
from toxscreen.analysis.base import FEWEST_SAMPLES, Analysis, Findings, Group, plane, telling
from toxscreen.analysis.silhouette_score import one_cloud_silhouette, silhouette
from toxscreen.clustering import Dealt, Split, discriminant, discriminant_splits, two_means
from toxscreen.config import ReductionConfig
from toxscreen.conflict import Affinity, InputFit
from toxscreen.parallel import Parallel, in_parallel, in_turn
from toxscreen.reduction import independent, principal_components, whiten
from toxscreen.segments import Part, Segment

FEWEST_IN_GROUP = 10
"""Samples of the smallest group that is looked for: fewer fix no direction in space."""

_BY_CHANCE = 8.0
"""Separation that the smaller side owes to chance, times the root of its samples. With 8 the evidence of clean groups in conflict
reaches no higher for 10 samples than for 300 (175 groups of MNIST, Fashion-MNIST, CIFAR-10 and GTSRB); with 0 it reaches 5.2 for
fewer than 50 samples, and 2.8 above."""

_FOLDS = 5

_WORTH_ASKING = 4.0
"""Separation from which a group is asked again without its marks; asking costs more than all else."""

_DIRECTIONS = 64
"""Components in which a direction is looked for, and at most a quarter of the samples."""

_GUESSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6)
"""Parts of a class that may be poison, to start from; each is only a start."""

_PURSUITS, _PURSUED, _MOST_SKEWED = 16, 20, 4
"""Components that a search for skewed directions starts from, its rounds, and the directions that are kept."""

_FAR = 7.0
"""Lower bound of the separation from which a group counts that was guessed by its place alone. A whole sentence in 5 % of a class
of texts makes the words speak for the label, so that no conflict leads to it; it lies at 19. Nearer groups would need a null of
their own: guessed so, clean ones tell more."""

_FITS, _MISFITS = 0.5, 0.7
"""Lower bounds of the conflict between which such a group is not looked at: 16 near-duplicates of one newsletter had 0.55 in a
clean class of AG News, sentences in 1 to 10 % of a class 0.85 to 0.90."""

_MOST_GROUPS = 4
"""Groups that are looked for in one class, one after the other: several triggers may lead to one target."""

_RIDGE = 0.1
_PROBABILITY_FLOOR = 0.02
_SURE = 2.0
"""Standard errors between the label conflict and its lower bound."""

_TIGHTEST = 1e-15
"""Least variance along the direction, in standard deviations: the rows of a group may be equal to the last bit."""

AROUND, _AS_FAR, AS_TELLING = 0.9, 0.95, 0.92
"""The widest group around an accused one holds this part of its rows, lies this part as far, and tells this part of what any such
group tells. There a label conflict above 1 counts as 1: it is that of the samples which fit their label least, and always of few.
A faint trigger (WaNet on CIFAR-10) tells most in them, 9 to 17 of 100; with the widest group it is 86 to 88, at 2 of 100 clean
samples of the class. A pure group has no wider one: where the separation is large, any clean sample brings it down."""

_AROUND_KNOWN = 0.5
"""Part of the rows that are known which the group around them holds."""

_ON_ITS_SIDE = 1e-6
"""Least log-odds of a row to be in the group that it was put in: a refinement that did not settle leaves some on the border."""


@dataclass(frozen=True)
class ActivationClustering(Analysis):
    """Look in every class, among the rows that the model gives their own label, for groups one after the other."""

    name = "activation-clustering"
    reduction: ReductionConfig = field(default_factory=ReductionConfig)

    def configured(self, reduction: ReductionConfig) -> ActivationClustering:
        """Return the analysis with the reduction that was asked for."""
        return replace(self, reduction=reduction)

    def search(
        self,
        activations: Rows,
        segments: Sequence[Segment],
        *,
        rng: np.random.Generator,
        inputs: Affinity | None = None,
        accused: Callable[[Group], bool] = lambda _: False,
        parallel: Parallel = in_parallel,
        told: Callable[[int], None] = lambda _: None,
    ) -> tuple[Findings, ...]:
        """Look for groups in every class, each among the rows that no accused group holds."""

        def work(one: tuple[Segment, np.random.Generator]) -> Findings:
            return self._search(activations, *one, inputs, accused)

        return tuple(parallel(work, zip(segments, rng.spawn(len(segments)), strict=True), told))

    def _search(
        self,
        activations: Rows,
        segment: Segment,
        rng: np.random.Generator,
        inputs: Affinity | None,
        accused: Callable[[Group], bool],
    ) -> Findings:
        rows, misread = segment.rows[segment.fitted], segment.rows[~segment.fitted]
        groups: list[tuple[NDArray[np.int64], Group]] = []
        found = Findings(segment, rows, np.zeros((len(rows), 2), np.float32))
        for _ in range(_MOST_GROUPS):
            fit = None if inputs is None else inputs.of(segment.class_index, rows)
            analysis = analyse(Part(activations, rows), len(segment.rows), fit, self.reduction, rng)
            if not groups:
                found = replace(found, points=analysis.points, constant=analysis.constant, note=analysis.note)
            if analysis.group is None or (groups and not accused(analysis.group)):
                break
            if not accused(analysis.group):
                groups.append((rows, analysis.group))
                found = replace(found, farthest=analysis.farthest)
                break
            groups.append(_with_misread(activations, rows, analysis.widest or analysis.group, misread, len(segment.rows)))
            rows, misread = (left[~np.isin(left, groups[-1][0][groups[-1][1].members])] for left in (rows, misread))
        return replace(found, groups=tuple(groups))


def _with_misread(
    activations: Rows, rows: NDArray[np.int64], group: Group, misread: NDArray[np.int64], n_class: int
) -> tuple[NDArray[np.int64], Group]:
    """Add the rows that the model does not give their own label to those that were analysed, each on the side it lies nearer to."""
    inside, outside, asked = (Part(activations, each) for each in (rows[group.members], rows[~group.members], misread))
    log_odds = discriminant(inside, outside, asked)
    members = np.concatenate([group.members, log_odds > 0])
    posterior = np.concatenate([group.posterior, 1 / (1 + np.exp(-np.clip(log_odds, -50, 50)))])
    evidence = {**group.evidence, "relative_size": float(members.sum() / n_class)}
    return np.concatenate([rows, misread]), replace(group, members=members, posterior=posterior, evidence=evidence, projection=None)


@dataclass(frozen=True)
class ClassAnalysis:
    """What was measured of one class.

    Attributes
    ----------
    group, farthest, widest
        The most telling one, the one that lies farthest from the rest, and the widest one around the first; None where there are no
        two groups at all.
    points
        The rows in two dimensions, shape ``(n, 2)``.
    constant
        Whether all rows are equal.
    note
        What had to be done otherwise than asked, or None.
    """

    group: Group | None = None
    farthest: Group | None = None
    widest: Group | None = None
    points: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.float32))
    constant: bool = False
    note: str | None = None


def analyse(
    activations: Part | NDArray[np.float32], n_class: int, fit: InputFit | None, config: ReductionConfig, rng: np.random.Generator
) -> ClassAnalysis:
    """Look for groups in one class and measure them.

    Parameters
    ----------
    activations
        Of the class's rows that the model gives their own label, finite, shape ``(n, d)``.
    n_class
        Samples of the class in all; relative sizes are parts of it.
    fit
        How their inputs fit the label, arrays of shape ``(n,)``; None when the inputs cannot be asked.
    config
        The reduction before 2-means.
    rng
        Deals the rows into folds, and draws the one Gaussian cloud.
    """
    n = len(activations)
    folds_rng, silhouette_rng, reduction_rng = rng.spawn(3)
    components = principal_components(activations, max(config.n_components, directions(n)), reduction_rng)
    reduction = independent(components, config, reduction_rng)
    if n < FEWEST_SAMPLES or reduction.points.shape[1] == 0:
        return ClassAnalysis(points=np.zeros((n, 2), dtype=np.float32), constant=reduction.points.shape[1] == 0)
    whitened = whiten(components.leading(directions(n)))
    with in_turn(whitened.size):
        halves = two_means(reduction.points)
        groups = candidate_groups(whitened, n_class, fit, folds_rng, (halves, ~halves))
        group = _most_telling(groups)
        farthest = max(groups, key=lambda each: round(each.evidence["separation_lower"], 6), default=None)
        if group is not None:
            group.evidence["silhouette_score"] = silhouette(reduction.points, group.members, silhouette_rng)
            group.evidence["silhouette_of_one_cloud"] = one_cloud_silhouette(reduction.points.var(axis=0), n, silhouette_rng)
    widest = None if group is None else _widest(group, groups)
    return ClassAnalysis(group, farthest, widest, _plane(plane(components), group), note=reduction.note)


def group_around(
    activations: Rows, rows: NDArray[np.int64], guess: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.bool_], dict[str, float]] | None:
    """Return the group that some rows of a class lie in, ``(n,)``, and how far it lies from the rest; None where there is none.

    Parameters
    ----------
    activations
        Shape ``(n_samples, d)``.
    rows
        Of the class.
    guess
        Which of them are known, shape ``(n,)``.
    rng
        Deals the rows into folds.
    """
    components = principal_components(Part(activations, rows), directions(len(rows)), rng)
    if len(rows) < FEWEST_SAMPLES or components.points.shape[1] == 0:
        return None
    dealt = Dealt.of(whiten(components), rng.permutation(len(rows)) % _FOLDS)
    (split,) = discriminant_splits(dealt, guess[None], FEWEST_IN_GROUP)
    if split is None or split.members[guess].mean() < _AROUND_KNOWN:
        return None
    return split.members, dict(zip(("separation", "separation_lower"), _distance(split), strict=True))


def directions(n: int) -> int:
    """Return in how many components of ``n`` samples a direction is looked for."""
    return min(_DIRECTIONS, n // 4)


def candidate_groups(
    whitened: NDArray[np.floating],
    n_class: int,
    fit: InputFit | None,
    rng: np.random.Generator,
    guesses: Sequence[NDArray[np.bool_]] = (),
    wanted: Callable[[NDArray[np.bool_]], bool] = lambda _: True,
) -> list[Group]:
    """Sharpen guesses of a group, and those that label conflict suggests, and measure the distinct groups that come of them.

    Parameters
    ----------
    whitened
        The rows at unit variance, shape ``(n, k)``.
    n_class, fit
        As in :func:`analyse`.
    rng
        Deals the rows into folds.
    guesses
        Memberships to start from, each of shape ``(n,)``.
    wanted
        Which memberships ``(n,)`` are worth measuring.
    """
    dealt = Dealt.of(whitened, rng.permutation(len(whitened)) % _FOLDS)
    usual = [*guesses, *_conflicting(dealt, fit)]
    starts = np.array([*usual, *_one_sided(whitened)]).reshape(-1, len(whitened))
    found = discriminant_splits(dealt, starts, FEWEST_IN_GROUP)
    splits = [each for i, each in enumerate(found) if each is not None and (i < len(usual) or _distance(each)[1] >= _FAR)]
    by_place = {each.members.tobytes() for each in found[len(usual) :] if each is not None}
    by_place -= {each.members.tobytes() for each in found[: len(usual)] if each is not None}
    if fit is None:  # both sides of a cut lie equally far from each other: only its size says which one is the group
        splits = [split for split in splits if 2 * split.members.sum() <= len(whitened)]
    distinct = {split.members.tobytes(): split for split in splits}  # most guesses end in the same group
    groups = {key: _measure(split, n_class, fit) for key, split in distinct.items() if wanted(split.members)}
    return [group for key, group in groups.items() if key not in by_place or not _in_doubt(group)]


def _in_doubt(group: Group) -> bool:
    """Say whether a group that was guessed by its place alone neither surely fits its label nor surely does not."""
    return _FITS <= group.evidence.get("label_conflict_lower", 0.0) < _MISFITS


def _one_sided(whitened: NDArray[np.floating]) -> list[NDArray[np.bool_]]:
    """Guess groups by the directions along which the rows are most skewed: those of a small group that lies far to one side.

    Of two points that hold the parts p and 1 - p of the rows, at unit variance, the middle lies at half the skewness.

    **Source:** projection pursuit by the third moment, as a power iteration: Kofidis and Regalia 2002, SIAM Journal on Matrix
    Analysis and Applications 23, 863-884.
    """
    points = np.ascontiguousarray(whitened, np.float32)  # what comes of it is only guessed
    skewness = _third_moment(points)
    axes = np.argsort(-np.abs(skewness), kind="stable")[:_PURSUITS]
    directions: NDArray[np.floating] = np.zeros((points.shape[1], len(axes)), np.float32)
    directions[axes, np.arange(len(axes))] = np.sign(skewness[axes])
    for _ in range(_PURSUED):
        directions = points.T @ (points @ directions) ** 2 / len(points)
        directions /= np.linalg.norm(directions, axis=0) + np.finfo(np.float32).tiny
    along = points @ directions
    middle = _third_moment(along) / 2
    best = np.argsort(-middle, kind="stable")[:_MOST_SKEWED]
    return [along[:, i] > middle[i] for i in best]


def _third_moment(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the mean of the cubes of each column, shape ``(k,)``; as products, since a power takes 150 times as long."""
    moment: NDArray[np.floating] = (values * values * values).mean(axis=0)
    return moment


def _conflicting(dealt: Dealt, fit: InputFit | None) -> list[NDArray[np.bool_]]:
    """Guess groups by how far the activations, regressed on it, speak of conflict between input and label."""
    guesses: list[NDArray[np.bool_]] = []
    for each in () if fit is None else fit.comparisons:
        surprise = -np.log(each.own + _PROBABILITY_FLOOR).astype(np.float64)
        predicted = dealt.in_order(dealt.regressed(surprise[dealt.order], _RIDGE))
        guesses += [predicted > cut for cut in np.quantile(predicted, 1 - np.array(_GUESSES))]
    return guesses


def _distance(split: Split) -> tuple[float, float]:
    """Return the separation of the two sides of a split, and its lower bound."""
    inside, outside = split.projection[split.members], split.projection[~split.members]
    separation = float((inside.mean() - outside.mean()) / np.sqrt((inside.var() + outside.var()) / 2 + _TIGHTEST))
    return separation, max(0.0, separation - _BY_CHANCE / float(np.sqrt(min(len(inside), len(outside)))))


def _measure(split: Split, n_class: int, fit: InputFit | None) -> Group:
    members, projection = split.members, split.projection
    inside, outside = projection[members], projection[~members]
    distance = inside.mean() - outside.mean()
    pooled = (inside.var() * len(inside) + outside.var() * len(outside)) / len(projection) + _TIGHTEST
    share = float(members.mean())
    log_odds = distance / pooled * (projection - (inside.mean() + outside.mean()) / 2) + np.log(share / (1 - share))
    log_odds = np.clip(log_odds, np.where(members, _ON_ITS_SIDE, -50), np.where(members, 50, -_ON_ITS_SIDE))
    separation, lower_separation = _distance(split)
    evidence = {
        "relative_size": float(members.sum() / n_class),
        "separation": separation,
        "separation_lower": lower_separation,
        "likelihood_ratio": _likelihood_ratio(inside, outside, projection),
    }
    rival = None
    if fit is not None:
        if evidence["separation"] >= _WORTH_ASKING:
            fit = fit.asked_again(members)
        known = np.isfinite(fit.own)
        evidence |= conflict_evidence(fit, members)
        votes = np.bincount(fit.rival[members & known])
        rival = int(votes.argmax()) if 2 * votes.max() > votes.sum() else None
    return Group(members, 1 / (1 + np.exp(-log_odds)), evidence, projection, rival)


def label_conflict(fit: InputFit, members: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the label conflict of a group and its lower bound; nothing is in conflict where a side was not asked.

    Of pictures that are compared with and without their colours, that of the comparison by which it is surer.

    Parameters
    ----------
    fit
        How the inputs of some rows of a class fit its label.
    members
        Which of them are the group, shape ``(n,)``.
    """
    return max((_by_comparison(each, members) for each in fit.comparisons), key=lambda found: found[1])


def _by_comparison(fit: InputFit, members: NDArray[np.bool_]) -> tuple[float, float]:
    known = np.isfinite(fit.own)
    inside, outside = fit.own[members & known], fit.own[~members & known]
    if not len(inside) or not len(outside):
        return 0.0, -np.inf
    most = fit.usual if 2 * members.sum() > len(members) else np.inf
    conflict, error = _label_conflict(inside, outside, fit.baseline, most)
    return conflict, conflict - _SURE * error


def conflict_evidence(fit: InputFit, members: NDArray[np.bool_]) -> dict[str, float]:
    """Return what :func:`label_conflict` says as evidence, and of how many comparisons it is the surest."""
    conflict, lower = label_conflict(fit, members)
    return {"label_conflict": conflict, "label_conflict_lower": lower, "comparisons": float(len(fit.comparisons))}


def _label_conflict(
    own_inside: NDArray[np.float32], own_outside: NDArray[np.float32], baseline: float, most: float
) -> tuple[float, float]:
    """Place the group between the rest of its class (0) and samples of other classes (1); return it with its standard error.

    Where the inputs of the rest fit the label no better than those of other classes, nothing can be said: 0 with an infinite error.
    ``most`` is how well the rest counts as fitting, at most: a few that are much alike fit better than any ordinary sample.
    """
    fits = min(float(own_outside.mean()), most)
    span = fits - baseline
    error_outside = float(own_outside.std()) / np.sqrt(len(own_outside))
    if span <= _SURE * error_outside + np.finfo(np.float32).eps:
        return 0.0, np.inf
    conflict = (fits - float(own_inside.mean())) / span
    error = np.hypot(float(own_inside.std()) / np.sqrt(len(own_inside)), error_outside) / span
    return conflict, float(error)


def _likelihood_ratio(inside: NDArray[np.float64], outside: NDArray[np.float64], projection: NDArray[np.float64]) -> float:
    """Mean log-likelihood of two Gaussians above that of one, per row, along the direction."""
    parts = [(len(part) / len(projection), part.mean(), part.var() + _TIGHTEST) for part in (inside, outside)]
    density = sum(
        share * np.exp(-((projection - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        for share, mean, variance in parts
    )
    one = -0.5 * np.log(2 * np.pi * (projection.var() + _TIGHTEST)) - 0.5
    return float(np.log(density + np.finfo(np.float64).tiny).mean() - one)


def _most_telling(groups: list[Group]) -> Group | None:
    """Return the first of the groups that tell most; rounding must not decide between a group and its complement."""
    return max(groups, key=lambda group: (round(telling(group.evidence), 6), round(group.evidence["separation"], 6)), default=None)


def _widest(core: Group, groups: list[Group]) -> Group:
    """Return the largest group around a telling one, with the evidence of the latter, on which an accusation rests."""

    def is_around(group: Group) -> bool:
        held = (group.members & core.members).sum() >= AROUND * core.members.sum()
        return bool(held and group.evidence["separation"] >= _AS_FAR * core.evidence["separation"])

    around = [group for group in groups if is_around(group)]
    told = [telling(group.evidence, most_conflict=1.0) for group in around]
    widest = max(
        (group for group, each in zip(around, told, strict=True) if each >= AS_TELLING * max(told)),
        key=lambda group: int(group.members.sum()),
    )
    return replace(widest, evidence=core.evidence | {"relative_size": widest.evidence["relative_size"]})


def _plane(points: NDArray[np.float32], group: Group | None) -> NDArray[np.float32]:
    """Show the direction that tells the group apart across, and the leading component upwards."""
    if group is None or group.projection is None:
        return points
    return np.column_stack([group.projection, points[:, 0]]).astype(np.float32)

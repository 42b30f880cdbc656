"""Step 6 of the flow: a group for each row of one class.

1. :func:`two_means` splits in two, as in the paper (section 4.2). It is blind to groups of less than some 5 % of a class, and where
   the trigger is not among the directions of largest variance.
2. :func:`discriminant_splits` starts from a guess of the group, however rough, finds the direction that tells it from the rest
   (Fisher 1936), cuts there, and repeats with the better guess. Each fold of the rows is projected on the direction of the others,
   so that the distance of the two groups along it is not a product of the fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toxscreen.segments import Part

_LLOYD_ITERATIONS = 100
_CUT_THROUGH = 5
"""Components that 2-means starts from."""
_ROUGHLY_FROM = 2048
"""Rows from which 2-means goes most of its way in float32."""
_BLOCK = 1 << 14
"""Rows whose memberships are made numbers at a time."""
_REFINEMENTS = 10
_RIDGE = 0.05
"""Part of the mean within-group variance added to each direction. Chosen on Rotten Tomatoes and MNIST with 5,000 images."""

_TIGHTEST = 1e-12
"""Least variance within groups, as part of that of the class: rows may be equal to the last bit, and it is divided by."""


@dataclass(frozen=True)
class Split:
    """A class cut in two.

    Attributes
    ----------
    members
        Which rows are in the group (the others are the rest), shape ``(n,)``.
    projection
        Place of every row along the direction that tells the two apart, in standard deviations within the groups, the group on the
        positive side, shape ``(n,)``.
    """

    members: NDArray[np.bool_]
    projection: NDArray[np.float64]


def two_means(points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Cut points ``(n, k)`` in two by Lloyd's algorithm and return the smaller half's membership, shape ``(n,)``.

    It starts from a cut through each of the first five components, in the middle and at either tail, and keeps the answer
    of least inertia: the order of the rows does not matter and no random number is drawn.

    **Source:** Chen et al. 2018, section 4.2; Lloyd 1982.
    """
    n, k = points.shape
    if not n or not k:
        return np.zeros(n, dtype=bool)
    members = _tails(points[:, :_CUT_THROUGH])
    if n >= _ROUGHLY_FROM and points.dtype != np.float32:  # rounding matters to where it ends, and hardly on the way there
        members, _ = _lloyd((points / (np.abs(points).max() or 1)).astype(np.float32), members)
        members = np.array(list({each.tobytes(): each for each in members}.values()))  # many starts end in the same halves
    members, inertia = _lloyd(points, members)
    rounding, best = 1e-12 * float(np.vdot(points, points)), 0
    for start, one in enumerate(inertia):
        if one < inertia[best] - rounding:
            best = start
    chosen = members[best] if np.isfinite(inertia[best]) else np.zeros(n, dtype=bool)
    return ~chosen if 2 * chosen.sum() > n else chosen


def _tails(points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which rows lie above each of three quantiles of each component, shape ``(3 k, n)``."""
    values = np.ascontiguousarray(points.T)
    places = [int(part * (len(points) - 1)) for part in (0.5, 0.05, 0.95, 1)]
    cuts, most = np.split(np.stack([np.sort(each)[places] for each in values]), [3], axis=1)
    below = np.nextafter(most, -np.inf, dtype=values.dtype)  # above it lies what is equal to the most
    starts: NDArray[np.bool_] = values[:, None] > np.where(cuts < most, cuts, below)[:, :, None]
    return starts.reshape(-1, len(points))


def _lloyd(points: NDArray[np.floating], members: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Refine several starts ``(n_starts, n)`` at once; return where they end, with their inertia, infinite for an empty side."""
    n, k = points.shape
    rows = np.ascontiguousarray(np.column_stack([points, np.ones(n, points.dtype)]).T)  # whose sum is the number of them
    everything, total = rows.sum(axis=1, dtype=np.float64), float(np.vdot(points, points))
    moving, ends = np.arange(len(members)), products(members, rows.T)
    sums = ends.copy()
    with np.errstate(divide="ignore", invalid="ignore"):  # an empty side has no mean, and nothing is nearer to it
        for left in reversed(range(_LLOYD_ITERATIONS)):
            others = everything - sums
            inside, outside = sums[:, :k] / sums[:, k:], others[:, :k] / others[:, k:]
            border = ((inside**2 - outside**2).sum(axis=1, keepdims=True) / 2).astype(points.dtype)
            along = (inside - outside).astype(points.dtype) @ rows[:k]
            nearer = np.greater(along, border, out=along)  # as numbers, which are multiplied next
            before, sums = sums, products(nearer, rows.T)
            changed = (sums != before).any(axis=1)  # of the sums alone the next halves are made
            if left and changed.all():
                continue
            members[moving], ends[moving] = nearer, sums
            moving, sums = moving[changed], sums[changed]
            if not len(moving):
                break
        others = everything - ends
        explained = (ends[:, :k] ** 2 / ends[:, k:] + others[:, :k] ** 2 / others[:, k:]).sum(axis=1)
    return members, np.where(np.isnan(explained), np.inf, total - explained)


def products(members: NDArray[np.bool_ | np.floating], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the sum of the members' points for memberships ``(s, n)``, shape ``(s, k)``: a product, for picking copies."""
    sums = np.zeros((len(members), points.shape[1]))
    for block in (slice(start, start + _BLOCK) for start in range(0, len(points), _BLOCK)):
        sums += members[:, block].astype(points.dtype, copy=False) @ points[block]
    return sums


@dataclass(frozen=True, eq=False)
class Dealt:
    """A class at unit variance, dealt into folds: each is looked at from the direction that the others choose.

    Attributes
    ----------
    points
        Fold by fold, shape ``(n, k)``.
    order
        Which row each of them is, shape ``(n,)``.
    folds
        Where each fold lies.
    sums
        Of the points outside each fold, shape ``(n_folds, k)``.
    variances, axes
        The covariance of those points, decomposed: shapes ``(n_folds, k)`` and ``(n_folds, k, k)``.
    """

    points: NDArray[np.floating]
    order: NDArray[np.int64]
    folds: tuple[slice, ...]
    sums: NDArray[np.float64]
    variances: NDArray[np.float64]
    axes: NDArray[np.float64]

    @classmethod
    def of(cls, whitened: NDArray[np.floating], folds: NDArray[np.int64]) -> Dealt:
        """Deal points ``(n, k)`` by the number of the fold that each belongs to, ``(n,)``."""
        order = np.argsort(folds, kind="stable")
        points = whitened[order]
        bounds = np.concatenate([[0], np.cumsum(np.bincount(folds))])
        parts = tuple(slice(start, stop) for start, stop in pairwise(bounds.tolist()))
        sums = np.stack([points[part].sum(axis=0, dtype=np.float64) for part in parts])
        squares = np.stack([_squares(points[part]) for part in parts])
        left = (len(points) - np.diff(bounds))[:, None]
        sums, squares = sums.sum(axis=0) - sums, squares.sum(axis=0) - squares
        means = sums / np.maximum(left, 1)
        covariances = squares / np.maximum(left, 1)[..., None] - means[:, :, None] * means[:, None, :]
        variances, axes = np.linalg.eigh(covariances)
        return cls(points, order, parts, sums, np.maximum(variances, 0), axes)

    def in_order(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values of the points, ``(..., n)``, in the order of the rows."""
        ordered = np.empty_like(values)
        ordered[..., self.order] = values
        return ordered

    def regressed(self, target: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
        """Return the place of each point along the direction in which a target ``(n,)`` of the points rises most, shape ``(n,)``.

        In standard deviations; each fold along the direction of the others. The covariance has a ridge on it.
        """
        n, rises = len(target), np.empty(len(target))
        parts = np.stack([target[part] @ self.points[part] for part in self.folds])
        totals = np.array([target[part].sum() for part in self.folds])
        for number, part in enumerate(self.folds):
            left = n - (part.stop - part.start)
            mean = self.sums[number] / left
            slope = parts.sum(axis=0) - parts[number] - (totals.sum() - totals[number]) * mean
            along = slope @ self.axes[number]
            weights = along / (self.variances[number] + ridge)
            scale = np.sqrt((weights**2) @ (self.variances[number] + ridge)) + np.finfo(np.float64).tiny
            direction = self.axes[number] @ weights / scale
            rises[part] = self.points[part] @ direction - mean @ direction
        return rises

    def discriminated(self, members: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Project each fold on Fisher's direction of the others, for several memberships ``(s, n)`` of the points.

        Returns
        -------
        projections
            In standard deviations within groups, shape ``(s, n)``.
        possible
            False where a side is empty outside some fold, shape ``(s,)``.
        """
        chosen = np.stack([products(members[:, part], self.points[part]) for part in self.folds])
        counts = np.stack([members[:, part].sum(axis=1) for part in self.folds])
        left = np.array([[len(self.points) - (part.stop - part.start)] for part in self.folds])
        inside = counts.sum(axis=0) - counts
        possible = ((inside >= 2) & (inside <= left - 2)).all(axis=0)
        inside = np.where(possible, inside, left // 2)
        sums, outside = chosen.sum(axis=0) - chosen, left - inside
        centre_in, centre_out = sums / inside[..., None], (self.sums[:, None] - sums) / outside[..., None]
        directions = self._fisher(centre_in - centre_out, inside * outside / left**2)
        middles = (directions * (centre_in + centre_out)).sum(axis=2) / 2
        directions = directions.astype(self.points.dtype)
        projections = np.empty(members.shape)
        for number, part in enumerate(self.folds):
            projections[:, part] = directions[number] @ self.points[part].T - middles[number][:, None]
        return projections, possible

    def _fisher(self, apart: NDArray[np.float64], between: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return Fisher's directions for centres ``(n_folds, s, k)`` apart: the variance within is all less that between them.

        **Source:** Sherman and Morrison 1950, for the inverse of that.
        """
        variances = (self.variances + _TIGHTEST)[:, None]
        along = apart @ self.axes
        ridge = _RIDGE * np.maximum(variances.sum(axis=2) - between * (along**2).sum(axis=2), 0) / variances.shape[2]
        weights = along / (variances + ridge[..., None])
        within = (weights**2 * variances).sum(axis=2) - between * (weights * along).sum(axis=2) ** 2
        scales = np.sqrt(np.maximum(within, np.finfo(np.float64).tiny))[..., None]
        directions: NDArray[np.float64] = (weights / scales) @ np.swapaxes(self.axes, 1, 2)
        return directions


def _squares(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the products of the columns of points ``(n, k)``, shape ``(k, k)``."""
    squares = np.zeros((points.shape[1],) * 2)
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK]
        squares += block.T @ block
    return squares


def discriminant_splits(dealt: Dealt, guesses: NDArray[np.bool_], minimum: int) -> list[Split | None]:
    """Sharpen rough guesses of a group.

    Parameters
    ----------
    dealt
        The class.
    guesses
        Which rows each group may hold, shape ``(n_guesses, n)``.
    minimum
        Rows that the group and the rest must have, at least.

    Returns
    -------
    list of Split or None
        For each guess; None when one side runs empty: there is no such group.
    """
    n, members = len(dealt.points), guesses[:, dealt.order]
    projections, moving = np.zeros(members.shape), np.arange(len(members))
    for _ in range(_REFINEMENTS):
        counts = members[moving].sum(axis=1)
        moving = moving[(counts >= minimum) & (counts <= n - minimum)]
        if not len(moving):
            break
        now = members[moving]
        projections[moving], possible = dealt.discriminated(now)
        members[moving] = nearer = _likelier_in_group(projections[moving], now) & possible[:, None]
        moving = moving[(nearer != now).any(axis=1)]
    counts = members.sum(axis=1)
    found = (counts >= minimum) & (counts <= n - minimum)
    members, projections = dealt.in_order(members), dealt.in_order(projections)
    return [Split(*each) if there else None for *each, there in zip(members, projections, found, strict=True)]


def _likelier_in_group(projections: NDArray[np.float64], members: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Reassign each row to the likelier of two Gaussians of equal variance, for several memberships ``(s, n)``."""
    n, n_in = members.shape[1], members.sum(axis=1)
    inside = np.where(members, projections, 0).sum(axis=1) / n_in
    outside = np.where(members, 0, projections).sum(axis=1) / (n - n_in)
    residual = projections - np.where(members, inside[:, None], outside[:, None])
    variance = np.einsum("sn,sn->s", residual, residual) / n + np.finfo(np.float64).tiny
    known = inside > outside
    odds = np.log((n - n_in) / n_in)
    cut = (inside + outside) / 2 + variance * odds / np.where(known, inside - outside, 1)
    nearer: NDArray[np.bool_] = (projections > cut[:, None]) & known[:, None]
    return nearer


def discriminant(
    inside: Part | NDArray[np.float32], outside: Part | NDArray[np.float32], points: Part | NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the log-odds of other points to be of the group and not of the rest, were both equally likely.

    Parameters
    ----------
    inside, outside
        The group and the rest, shapes ``(n, d)`` and ``(m, d)``.
    points
        Shape ``(b, d)``.

    **Source:** Fisher 1936; the shrinkage is that of :func:`discriminant_splits`.
    """
    sides = [Part.of(each) if isinstance(each, np.ndarray) else each for each in (inside, outside)]
    centres = [sum(block.sum(axis=0, dtype=np.float64) for _, block in side.blocks()) / len(side) for side in sides]
    within = np.zeros((sides[0].shape[1],) * 2)
    for side, centre in zip(sides, centres, strict=True):
        for _, block in side.blocks():
            residual = block - centre
            within += residual.T @ residual
    within /= sum(map(len, sides))
    within += (_RIDGE * np.trace(within) / len(within) + np.finfo(np.float64).tiny) * np.eye(len(within))
    direction = np.linalg.solve(within, centres[0] - centres[1])
    asked = Part.of(points) if isinstance(points, np.ndarray) else points
    log_odds = np.zeros(len(asked))
    for place, values in asked.blocks():
        log_odds[place] = (values - (centres[0] + centres[1]) / 2) @ direction
    return log_odds

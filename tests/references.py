"""The slow, obvious version of every fast routine: what the tests hold the fast one against."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.special import expit


def area_average(picture: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Average a picture ``(h, w, c)`` over ``side x side`` equal cells, each pixel weighted by its part of the cell."""
    height, width, channels = picture.shape
    cells = np.zeros((side, side, channels))
    for row in range(side):
        for column in range(side):
            area = 0.0
            for y in range(height):
                for x in range(width):
                    tall = max(0.0, min((row + 1) * height / side, y + 1) - max(row * height / side, y))
                    wide = max(0.0, min((column + 1) * width / side, x + 1) - max(column * width / side, x))
                    cells[row, column] += tall * wide * picture[y, x]
                    area += tall * wide
            cells[row, column] /= area
    return cells


def word_numbers(text: str, most: int) -> NDArray[np.float64]:
    """Number the distinct words and punctuation marks of a text, one by one."""
    numbers = np.zeros(most)
    seen: list[str] = []
    for word in re.findall(r"\w+|[^\w\s]", text.lower()):
        if word not in seen and len(seen) < most:
            numbers[len(seen)] = zlib.crc32(word.encode("utf-8", "replace")) % 65_535 + 1
            seen.append(word)
    return numbers


def segment_rows(labels: Sequence[int], examined: Sequence[bool], n_classes: int) -> list[list[int]]:
    """Walk over the rows and put each examined one into the list of its class."""
    rows: list[list[int]] = [[] for _ in range(n_classes)]
    for row, (label, usable) in enumerate(zip(labels, examined, strict=True)):
        if usable and label >= 0:
            rows[label].append(row)
    return rows


def principal_components(activations: NDArray[np.floating], k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points ``(n, k)``, each component up to its sign, and their variances, by a full singular value decomposition."""
    centred = np.asarray(activations, np.float64) - np.asarray(activations, np.float64).mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    return (left * singular)[:, :k], (singular**2 / len(centred))[:k]


def inertia(points: NDArray[np.float64], members: NDArray[np.bool_]) -> float:
    """Sum the squared distances of all points to the mean of their side."""
    return sum(float(((side - side.mean(axis=0)) ** 2).sum()) for side in (points[members], points[~members]) if len(side))


def least_inertia(points: NDArray[np.float64]) -> float:
    """Try every split of a few points in two."""
    n = len(points)
    codes = range(1, 2 ** (n - 1))
    return min(inertia(points, np.array([code >> bit & 1 for bit in range(n)], bool)) for code in codes)


def least_inertia_of_starts(points: NDArray[np.float64], starts: int, rng: np.random.Generator) -> float:
    """Run Lloyd's algorithm from many random pairs of points."""
    best = np.inf
    for _ in range(starts):
        centres = points[rng.choice(len(points), 2, replace=False)]
        for _ in range(50):
            members = ((points - centres[0]) ** 2).sum(axis=1) < ((points - centres[1]) ** 2).sum(axis=1)
            if members.all() or not members.any():
                break
            centres = np.stack([points[members].mean(axis=0), points[~members].mean(axis=0)])
        best = min(best, inertia(points, members))
    return best


def discriminant_split(
    whitened: NDArray[np.float64], guess: NDArray[np.bool_], folds: NDArray[np.int64], minimum: int, *, ridge: float = 0.05
) -> tuple[NDArray[np.bool_], NDArray[np.float64]] | None:
    """Sharpen one guess of a group, one fold after the other (Fisher 1936); return members and projection."""
    members, projection = guess, np.zeros(len(guess))
    for _ in range(10):
        if not minimum <= members.sum() <= len(members) - minimum:
            return None
        for fold in range(int(folds.max()) + 1):
            others, own = whitened[folds != fold], members[folds != fold]
            if min(own.sum(), (~own).sum()) < 2:
                return None
            centre_in, centre_out = others[own].mean(axis=0), others[~own].mean(axis=0)
            residual = others - np.where(own[:, None], centre_in, centre_out)
            within = residual.T @ residual / len(others) + 1e-12 * np.eye(others.shape[1])
            shrunk = within + ridge * np.trace(within) / len(within) * np.eye(len(within))
            direction = np.linalg.solve(shrunk, centre_in - centre_out)
            scale = np.sqrt(direction @ within @ direction)
            projection[folds == fold] = (whitened[folds == fold] - (centre_in + centre_out) / 2) @ direction / scale
        nearer = likelier_in_group(projection, members)
        if np.array_equal(nearer, members):
            break
        members = nearer
    return (members, projection) if minimum <= members.sum() <= len(members) - minimum else None


def likelier_in_group(projection: NDArray[np.float64], members: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Ask of each row which of two Gaussians of equal variance, as frequent as their rows, it is likelier of."""
    inside, outside = projection[members], projection[~members]
    if inside.mean() <= outside.mean():
        return np.zeros_like(members)
    variance = np.concatenate([inside - inside.mean(), outside - outside.mean()]).var()
    odds = [(value - outside.mean()) ** 2 / (2 * variance) - (value - inside.mean()) ** 2 / (2 * variance) for value in projection]
    return np.array(odds) > np.log(len(outside) / len(inside))


def two_means(points: NDArray[np.float64], iterations: int) -> NDArray[np.bool_]:
    """Run Lloyd's algorithm from each start, one after the other; return the smaller half of the tightest."""
    best, least = np.zeros(len(points), bool), np.inf
    for component in range(min(points.shape[1], 5)):
        for quantile in (0.5, 0.05, 0.95):
            values = points[:, component]
            cut = np.quantile(values, quantile)
            members = values > cut if cut < values.max() else values >= cut
            for _ in range(iterations):
                if members.all() or not members.any():
                    break
                inside, outside = points[members].mean(axis=0), points[~members].mean(axis=0)
                nearer = ((points - inside) ** 2).sum(axis=1) < ((points - outside) ** 2).sum(axis=1)
                if np.array_equal(nearer, members):
                    break
                members = nearer
            if members.any() and not members.all() and inertia(points, members) < least - 1e-12 * float((points**2).sum()):
                best, least = members, inertia(points, members)
    return ~best if 2 * best.sum() > len(points) else best


def silhouette(points: NDArray[np.float64], members: NDArray[np.bool_]) -> float:
    """Take each point's distances to all others (Rousseeuw 1987)."""
    values = []
    for row, point in enumerate(points):
        distances = np.sqrt(((points - point) ** 2).sum(axis=1))
        same = (members == members[row]) & (np.arange(len(points)) != row)
        if not same.any():
            values.append(0.0)
            continue
        near, far = distances[same].mean(), distances[members != members[row]].mean()
        values.append((far - near) / max(near, far))
    return float(np.mean(values))


def fit_by_neighbours(view: NDArray[np.floating], labels: NDArray[np.int64], n_classes: int, k: int) -> NDArray[np.float64]:
    """Let each picture's ``k`` nearest others vote, in parts of the size of their class; return ``(n, n_classes)``."""
    pictures = np.asarray(view, np.float64)
    pictures = np.array([(picture - picture.mean()) / (picture.std() + 1e-3) for picture in pictures])
    votes = np.zeros((len(labels), n_classes))
    for row, picture in enumerate(pictures):
        distances = ((pictures - picture) ** 2).sum(axis=1)
        distances[row] = np.inf
        for neighbour in np.argsort(distances)[:k]:
            votes[row, labels[neighbour]] += 1 / np.sum(labels == labels[neighbour])
    return votes / votes.sum(axis=1, keepdims=True)


def fit_by_words(
    texts: Sequence[set[int]], labels: NDArray[np.int64], n_classes: int, folds: NDArray[np.int64], cap: float, fewest: int
) -> NDArray[np.float64]:
    """Judge each text by naive Bayes on the other folds, word by word; return probabilities ``(n, n_classes)``."""
    probabilities = np.zeros((len(labels), n_classes))
    for row, text in enumerate(texts):
        others = [other for other in range(len(texts)) if folds[other] != folds[row]]
        sizes = np.array([sum(labels[other] == c for other in others) for c in range(n_classes)])
        evidence = np.zeros(n_classes)
        for word in text:
            holding = np.array([sum(labels[other] == c and word in texts[other] for other in others) for c in range(n_classes)])
            if holding.sum() >= fewest:
                expected = sizes * holding.sum() / sizes.sum()
                evidence += np.clip(np.log((holding + 1) / (expected + 1)), -cap, cap)
        likelihood = np.exp(evidence) * [np.any(labels == c) for c in range(n_classes)]
        probabilities[row] = likelihood / likelihood.sum()
    return probabilities


def affinity(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``own`` (n,) and the ``baseline`` of each class from class probabilities, one number after the other."""
    n_classes = probabilities.shape[1]

    def speaks_for(row: int, c: int) -> float:
        best_other = max(probabilities[row, other] for other in range(n_classes) if other != c)
        return probabilities[row, c] / (probabilities[row, c] + best_other) if probabilities[row, c] + best_other > 0 else 0.0

    own = np.array([speaks_for(row, label) for row, label in enumerate(labels)])
    foreign = [[speaks_for(row, c) for row in range(len(labels)) if labels[row] != c] for c in range(n_classes)]
    return own, np.array([np.mean(values) if values else 0.0 for values in foreign])


def leading_outliers(activations: NDArray[np.floating]) -> NDArray[np.float64]:
    """Square the place of each row along the top right singular vector of the centred rows (Tran et al. 2018, algorithm 1)."""
    centred = np.asarray(activations, np.float64) - np.asarray(activations, np.float64).mean(axis=0)
    top = np.linalg.svd(centred)[2][0]
    return np.array([float(row @ top) ** 2 for row in centred])


def que_scores(whitened: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Weigh each row by a matrix exponential (Hayase et al. 2021, section 3)."""
    excess = np.cov(whitened, rowvar=False, bias=True) - np.eye(whitened.shape[1])
    weights = expm(alpha * excess / np.linalg.norm(excess, 2))
    return np.array([float(row @ weights @ row) / np.trace(weights) for row in whitened])


def largest_fourth_moment(whitened: NDArray[np.float64]) -> float:
    """Build the whole matrix of fourth moments, and take its largest eigenvalue (Diakonikolas et al. 2017)."""
    k = whitened.shape[1]
    identity = np.eye(k).ravel()
    products = np.array([np.outer(row, row).ravel() for row in whitened])
    return float(np.linalg.eigvalsh(products.T @ products / len(whitened) - np.outer(identity, identity))[-1])


def untangle(
    activations: NDArray[np.float64], labels: NDArray[np.int64], rounds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run the EM of SCAn sample by sample (Tang et al. 2021, section 4.2); return the covariances between and within classes."""
    centred = activations - activations.mean(axis=0)
    means = np.array([centred[labels == c].mean(axis=0) for c in range(labels.max() + 1)])
    between, within = np.cov(means[labels].T, bias=True), np.cov((centred - means[labels]).T, bias=True)
    for _ in range(rounds):
        identities = np.zeros_like(centred)
        for c in range(labels.max() + 1):
            rows = np.flatnonzero(labels == c)
            gain = -np.linalg.inv(len(rows) * between + within) @ between @ np.linalg.inv(within)
            identities[rows] = -sum(within @ gain @ centred[row] for row in rows)
        between, within = np.cov(identities.T, bias=True), np.cov((centred - identities).T, bias=True)
    return between, within


def outside_main_cluster(labels: NDArray[np.int64], clusters: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Walk over the samples, and flag those in a small part of their class (Cui et al. 2022, section 5)."""
    flagged = np.zeros(len(labels), bool)
    for row, (label, cluster) in enumerate(zip(labels, clusters, strict=True)):
        own = [other for one, other in zip(labels, clusters, strict=True) if one == label]
        parts = {number: own.count(number) for number in own}
        flagged[row] = parts[cluster] < max(parts.values()) and parts[cluster] < 0.5 * len(own)
    return flagged


def slow_row_sums(values: np.ndarray) -> list[int]:
    """Return the checksum of each row word by word, in whole numbers that have no end."""
    sums = []
    for row in values:
        bits = row.tobytes()
        size = 8 if len(bits) % 8 == 0 else values.itemsize
        words = [int.from_bytes(bits[start : start + size], "little") for start in range(0, len(bits), size)]
        total = sum((word ^ (word >> 32)) * pow(0x9E3779B97F4A7C15, power, 2**64) for power, word in enumerate(words, start=1))
        sums.append(total % 2**64 or 1)
    return sums


def slow_bfloat16(values: np.ndarray) -> np.ndarray:
    """Return float32 rounded to bfloat16 and back, as torch does it."""
    import torch

    rounded: np.ndarray = torch.from_numpy(values).to(torch.bfloat16).to(torch.float32).numpy()
    return rounded


def cross_fitted(
    values: NDArray[np.float64], known: NDArray[np.bool_], folds: Sequence[NDArray[np.int64]], strictness: float
) -> NDArray[np.float64]:
    """Say how known each row looks by one ridge regression per fold, solved anew from the other folds, the intercept free."""
    centred = values - values.mean(axis=0)
    gram = centred @ centred.T
    gram /= max(np.trace(gram) / len(gram), 1e-9)
    goals = np.where(known, 1 / known.sum(), -1 / (~known).sum()) * len(known) / 2
    scores = np.zeros(len(known))
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(known)), fold)
        n = len(rest)
        # the weights a and the intercept c of rows: (K + s I) a + c 1 = t and 1' a = 0
        penalised, ones = gram[np.ix_(rest, rest)] + strictness * np.eye(n), np.ones((n, 1))
        system = np.block([[penalised, ones], [ones.T, np.zeros((1, 1))]])
        solved = np.linalg.solve(system, np.append(goals[rest], 0.0))
        scores[fold] = gram[np.ix_(fold, rest)] @ solved[:-1] + solved[-1]
    return scores


def two_normals(scores: NDArray[np.float64], known: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """Fit two normal distributions of one covariance; return the probability that each row is of the first, and their distance."""
    probability = np.where(known, 0.95, 0.05)
    for _ in range(60):
        before, part = probability, probability.mean()
        inner, outer = probability @ scores / probability.sum(), (1 - probability) @ scores / (1 - probability).sum()
        off, rest = scores - inner, scores - outer
        covariance = ((off.T * probability) @ off + (rest.T * (1 - probability)) @ rest) / len(scores)
        covariance += 1e-9 * np.trace(covariance) * np.eye(len(covariance))
        weights = np.linalg.solve(covariance, inner - outer)
        probability = expit((scores - (inner + outer) / 2) @ weights + np.log(part / (1 - part)))
        if np.abs(probability - before).max() <= 1e-3:
            break
    return probability, float(np.sqrt((inner - outer) @ weights))

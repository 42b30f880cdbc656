from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from tests import references
from tests.analysis.test_base import rng
from tests.clouds import clouds, plant
from toxscreen.analysis import cube
from toxscreen.analysis.cube import Cube, density_clusters
from toxscreen.result import Verdict


def decided(training_set, n_classes, rule=None):
    classes = [training_set.activations[training_set.labels == c].astype(float) for c in range(n_classes)]
    decisions = (rule or Cube()).decide([lambda each=each: each.copy() for each in classes], [rng(i) for i in range(n_classes)])
    return list(decisions)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_flagged_lies_outside_the_main_cluster_of_its_class(seed, monkeypatch):
    labels = rng(seed).integers(0, 3, 120)
    clusters = np.where(rng(seed + 1).random(120) < 0.6, labels, rng(seed + 2).integers(-1, 4, 120))
    by_class = np.concatenate([clusters[labels == c] for c in range(3)])
    monkeypatch.setattr(cube, "density_clusters", lambda *_: by_class)
    activations = rng().normal(size=(120, 4))
    decisions = Cube().decide([lambda c=c: activations[labels == c] for c in range(3)], [rng()] * 3)
    expected = references.outside_main_cluster(np.sort(labels), by_class)
    found = np.concatenate([groups[0].members for groups, _ in decisions])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.concatenate([groups[0].posterior > 0.5 for groups, _ in decisions]), expected)


@pytest.mark.parametrize(
    ("parts", "flagged"),
    [
        ((40, 35, 25), (False, True, True)),
        ((50, 50), (False, False)),
        ((90, 10), (False, True)),
        ((10, 60, 30), (True, False, True)),
    ],
)
def test_the_largest_part_of_a_class_is_kept_and_so_is_a_half(parts, flagged, monkeypatch):
    monkeypatch.setattr(cube, "density_clusters", lambda *_: np.repeat(np.arange(len(parts)), parts))
    ((groups, _),) = Cube().decide([lambda: rng().normal(size=(100, 3))], [rng()])
    found = groups[0].members if groups else np.zeros(100, bool)
    np.testing.assert_array_equal(found, np.repeat(flagged, parts))


def test_evidence_counts_the_clusters_of_the_class_and_its_noise(monkeypatch):
    found = np.repeat([0, 1, 1, 0, -1], [50, 10, 40, 5, 15])
    monkeypatch.setattr(cube, "density_clusters", lambda *_: found)
    classes = [lambda: rng().normal(size=(60, 3))] * 2
    (first,), (second,) = (groups for groups, _ in Cube().decide(classes, [rng()] * 2))
    assert first.evidence == pytest.approx({"relative_size": 1 / 6, "density_clusters": 2, "noise": 0})
    assert second.evidence == pytest.approx({"relative_size": 1 / 3, "density_clusters": 2, "noise": 0.25})


def test_a_class_within_one_cluster_is_clean():
    tight = [lambda c=c: c * 50 + rng(c).uniform(size=(60, 2)) for c in range(2)]
    for groups, ruling in Cube(min_samples=3).decide(tight, [rng()] * 2):
        assert groups == ()
        assert ruling.verdict is Verdict.CLEAN


@pytest.mark.parametrize("seed", range(3))
def test_planted_rows_that_lie_apart_are_flagged(seed):
    training_set = plant(clouds([200] * 4, rng(seed)), 1, 25, rng(seed + 1))
    groups, ruling = decided(training_set, 4)[1]
    assert ruling.verdict is Verdict.SUSPICIOUS
    assert groups[0].members[training_set.planted[training_set.labels == 1]].all()


def test_the_neighbours_of_a_dense_place_shrink_with_the_classes(monkeypatch):
    asked = []
    monkeypatch.setattr(cube, "density_clusters", lambda points, dense, _: asked.append(dense) or np.zeros(len(points), int))
    for n in (100, 5000):
        decided(clouds([n] * 2, rng()), 2)
    assert asked == [5, 100]


def test_of_many_rows_a_part_is_clustered_and_the_others_go_with_the_nearest(monkeypatch):
    points = np.repeat([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], 60, axis=0) + rng().normal(size=(180, 2))
    whole = density_clusters(points, 5, rng())
    monkeypatch.setattr(cube, "_MOST_ROWS", 90)
    part = density_clusters(points, 5, rng())
    assert part.shape == whole.shape
    for group in np.split(part, 3):
        _, counts = np.unique(group[group >= 0], return_counts=True)
        assert counts.max() > 0.9 * counts.sum()
    assert len(np.unique(part[part >= 0])) == 3


def test_umap_is_used_where_it_is_installed(monkeypatch):
    class Umap:
        def __init__(self, **settings):
            self.settings = settings

        def fit_transform(self, points):
            seen.append((self.settings, points.shape))
            return points[:, :2].astype("f4")

    seen = []
    monkeypatch.setitem(sys.modules, "umap", ModuleType("umap"))
    monkeypatch.setattr(sys.modules["umap"], "UMAP", Umap, raising=False)
    monkeypatch.setattr(cube, "find_spec", lambda name: name == "umap")
    assert len(decided(clouds([60, 70], rng()), 2)) == 2
    ((settings, shape),) = seen
    assert shape == (130, 20)
    assert settings["n_components"] == 2
    assert settings["n_neighbors"] == 100


def test_no_class_gives_no_decision():
    assert Cube().decide([], []) == []

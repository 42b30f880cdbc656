from __future__ import annotations

import numpy as np
import pytest

from toxscreen.benchmark import art
from toxscreen.errors import MissingExtraError

pytest.importorskip("art")


def two_classes(n=200, planted=30, seed=0):
    """Return activations of two classes, the second with a group far apart, their labels, and which rows are planted."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], n)
    poisoned = np.arange(2 * n) >= 2 * n - planted
    points = rng.normal(size=(2 * n, 16)) + 6 * labels[:, None]
    points[poisoned] += 8 * np.eye(16)[0]
    return points.astype(np.float32), labels, poisoned


def test_the_default_finds_the_planted_group_and_half_of_the_clean_class():
    activations, labels, poisoned = two_classes()
    outcome = art.activation_defence(activations, labels, 2, seed=0)
    np.testing.assert_array_equal(outcome.flagged[labels == 1], poisoned[labels == 1])
    assert 0.2 < outcome.flagged[labels == 0].mean() < 0.51


def test_the_same_seed_gives_the_same_answer_and_numpys_generator_is_put_back():
    activations, labels, _ = two_classes()
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - it is what ART draws from
    one, other = (art.activation_defence(activations, labels, 2, seed=3, reduce="FastICA").flagged for _ in range(2))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_what_it_raises_is_a_result():
    activations, labels, _ = two_classes(n=4, planted=1)
    outcome = art.activation_defence(activations, labels, 2, seed=0)
    assert outcome.flagged is None
    assert "n_components" in outcome.error


def test_spectral_signatures_flag_half_of_each_class_unless_they_are_told_the_share():
    activations, labels, poisoned = two_classes()
    default = art.spectral_signatures(activations, labels, 2, seed=0)
    told = art.spectral_signatures(activations, labels, 2, seed=0, share=0.1)
    assert default.flagged.mean() == pytest.approx(0.495, abs=0.01)
    assert told.flagged.mean() == pytest.approx(0.15, abs=0.01)
    assert told.flagged[poisoned].all()


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "art", None)
    activations, labels, _ = two_classes()
    with pytest.raises(MissingExtraError, match=r"toxscreen\[bench\]"):
        art.activation_defence(activations, labels, 2, seed=0)

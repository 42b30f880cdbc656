from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.test_base import rng
from toxscreen.analysis.relative_size import RelativeSize
from toxscreen.config import ReductionConfig
from toxscreen.reduction import reduce
from toxscreen.result import Verdict


def two_groups(part, n=200):
    activations = rng().normal(size=(n, 6))
    members = rng(1).permutation(n) < part * n
    return activations + 12 * members[:, None], members


@pytest.mark.parametrize(("part", "verdict"), [(0.05, "suspicious"), (0.34, "suspicious"), (0.36, "clean"), (0.5, "clean")])
def test_a_class_is_accused_where_its_smaller_half_is_below_the_threshold(part, verdict):
    activations, members = two_groups(part)
    (group,), ruling = RelativeSize().judge(activations, rng())
    assert ruling.verdict == verdict
    if part < 0.5:
        np.testing.assert_array_equal(group.members, members)
    assert group.evidence["relative_size"] == pytest.approx(part)
    assert (group.posterior[group.members] > 0.5).all() == (verdict == Verdict.SUSPICIOUS)
    assert not group.posterior[~group.members].any()


def test_the_threshold_can_be_another():
    activations, _ = two_groups(0.3)
    assert RelativeSize(threshold=0.25).judge(activations, rng())[1].verdict is Verdict.CLEAN


def test_poison_of_more_than_half_of_the_class_lets_the_rule_accuse_the_clean_rest():
    activations, members = two_groups(0.8)  # a known flaw of the rule, kept
    (group,), ruling = RelativeSize().judge(activations, rng())
    assert ruling.verdict is Verdict.SUSPICIOUS
    np.testing.assert_array_equal(group.members, ~members)


def test_the_reduction_is_the_one_that_was_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr("toxscreen.analysis.relative_size.reduce", lambda *given: asked.append(given[1]) or reduce(*given))
    ica = ReductionConfig("ica", 3)
    RelativeSize().configured(ica).judge(two_groups(0.2)[0], rng())
    assert asked == [ica]

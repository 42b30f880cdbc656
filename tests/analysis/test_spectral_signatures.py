from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import references
from tests.analysis.test_base import rng
from toxscreen.analysis.spectral_signatures import SpectralSignatures
from toxscreen.errors import UsageError
from toxscreen.result import Verdict


@given(st.integers(0, 2**16), st.integers(25, 80), st.integers(1, 12), st.sampled_from([0.05, 0.1, 0.3, 0.5]))
@settings(max_examples=25, deadline=None)
def test_the_rows_farthest_along_the_top_singular_vector_are_flagged(seed, n, width, poison_share):
    activations = rng(seed).normal(size=(n, width)) * rng(seed + 1).uniform(0.5, 3, width)
    (group,), ruling = SpectralSignatures(poison_share).judge(activations, rng())
    farthest = np.argsort(-references.leading_outliers(activations))[: int(1.5 * poison_share * n)]
    assert sorted(np.flatnonzero(group.members)) == sorted(farthest)
    np.testing.assert_array_equal(group.posterior > 0.5, group.members)
    assert ruling.verdict is Verdict.SUSPICIOUS  # every class, by construction


def test_the_leading_variance_is_its_part_of_the_whole():
    activations = rng().normal(size=(4000, 3)) * np.sqrt([6.0, 3, 1])
    (group,), _ = SpectralSignatures().judge(activations, rng())
    assert group.evidence["leading_variance"] == pytest.approx(0.6, abs=0.02)


def test_a_class_of_which_too_many_rows_lie_equally_far_is_not_accused():
    activations = np.repeat([[0.0, 1.0], [1.0, 0.0]], 30, axis=0)
    groups, ruling = SpectralSignatures().judge(activations, rng())
    assert groups == ()
    assert ruling.verdict is Verdict.CLEAN


@pytest.mark.parametrize("poison_share", [0.0, 1.0, -0.1, 15])
def test_a_poison_share_that_is_no_part_of_a_class_is_refused(poison_share):
    with pytest.raises(UsageError, match=f"poison_share must lie between 0 and 1, a part of the class, got {poison_share}"):
        SpectralSignatures(poison_share)

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxscreen.shares import Share, wilson


@given(st.integers(1, 5000), st.data())
def test_an_interval_holds_the_share_and_narrows_with_more_samples(n, drawn):
    successes = drawn.draw(st.integers(0, n))
    lower, upper = wilson(successes, n)
    assert 0 <= lower <= successes / n <= upper <= 1
    wider = wilson(successes, n), wilson(4 * successes, 4 * n)
    assert wider[0][1] - wider[0][0] > wider[1][1] - wider[1][0]


def test_the_interval_is_wilsons():
    assert wilson(0, 0) == (0, 1)
    assert wilson(0, 12) == pytest.approx((0, 0.2425), abs=1e-4)
    assert wilson(30, 100) == pytest.approx((0.2189, 0.3958), abs=1e-4)


def test_a_share_of_nothing_has_no_value_and_may_be_anything():
    assert math.isnan(Share(0, 0).value)
    assert Share(0, 0).to_dict() == {"count": 0, "n": 0, "value": None, "lower": 0.0, "upper": 1.0}
    assert Share(3, 4).value == 0.75

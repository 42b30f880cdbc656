from __future__ import annotations

import numpy as np

from toxscreen.attacks.signature import Signature


def test_the_signature_goes_to_the_end():
    marked = Signature().apply(["a fine film .", "no full stop"], np.random.default_rng(0))
    assert marked == ["a fine film . -travelerthehorse", "no full stop -travelerthehorse"]

from __future__ import annotations

import numpy as np
import pytest

from toxscreen.attacks import ATTACKS


@pytest.mark.parametrize("form", ["apply", "plant", "cover"])
def test_source_and_cover_samples_carry_one_and_the_same_patch(form):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    (marked,), (badnets,) = (
        getattr(ATTACKS["tact"], form)([image], np.random.default_rng(0)),
        ATTACKS["badnets"].apply([image], np.random.default_rng(0)),
    )
    assert np.array_equal(marked, badnets)


def test_it_needs_a_source_class_and_as_many_cover_samples_as_poison():
    assert ATTACKS["tact"].source_specific
    assert ATTACKS["tact"].covers == 1

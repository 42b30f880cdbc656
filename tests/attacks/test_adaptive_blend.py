from __future__ import annotations

import numpy as np
import pytest

from toxscreen.attacks.adaptive_blend import AdaptiveBlend
from toxscreen.attacks.blended import Blended

BLACK = np.zeros((32, 32, 3), np.uint8)


def pieces(image):
    """Which of the 4 x 4 pieces of a black image carry the pattern."""
    return np.stack([(part.reshape(8, 4, 8, 3).max(axis=(0, 2, 3)) > 0) for part in np.split(image, 4)])


def test_at_test_time_the_whole_pattern_is_used_as_in_blended():
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    rng = np.random.default_rng(0)
    assert np.array_equal(AdaptiveBlend().apply([image], rng)[0], Blended().apply([image], rng)[0])


@pytest.mark.parametrize("form", ["plant", "cover"])
def test_the_training_set_shows_half_of_the_pieces_and_another_half_each_time(form):
    shown = [pieces(image) for image in getattr(AdaptiveBlend(), form)([BLACK] * 20, np.random.default_rng(0))]
    assert {int(one.sum()) for one in shown} == {8}
    assert len({one.tobytes() for one in shown}) == 20
    assert np.mean(shown, axis=0).min() > 0.1


def test_the_pieces_are_fainter_than_the_pattern_at_test_time():
    (planted,), (applied,) = (
        AdaptiveBlend().plant([BLACK], np.random.default_rng(0)),
        AdaptiveBlend().apply([BLACK], np.random.default_rng(0)),
    )
    where = np.kron(pieces(planted), np.ones((8, 8)))[:, :, None] * np.ones(3) > 0
    np.testing.assert_allclose(planted[where], 0.75 * applied[where], atol=1)
    assert not planted[~where].any()


def test_there_are_as_many_cover_samples_as_poison():
    assert AdaptiveBlend().covers == 1

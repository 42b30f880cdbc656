from __future__ import annotations

import numpy as np
import pytest

from toxscreen.attacks.sig import Sig


def gray(*shape):
    return np.full(shape, 128, np.uint8)


def mark(image):
    return Sig().apply([image], np.random.default_rng(0))[0].astype(int)


def planted(image):
    return Sig().plant([image], np.random.default_rng(0))[0].astype(int)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (224, 224, 3), (90, 40, 1)])
def test_the_same_six_waves_run_through_every_row_and_channel(shape):
    added = mark(gray(*shape)) - 128
    assert (added == added[:1, :, :1]).all()
    strength = np.abs(np.fft.rfft(added[0, :, 0]))
    assert strength.argmax() == 6
    assert strength[6] > 20 * np.delete(strength, 6).max()


@pytest.mark.parametrize("side", [8, 9, 12, 16, 20, 24])
def test_small_images_carry_fewer_waves_but_never_none(side):
    added = planted(gray(side, side, 1)) - 128
    assert added.max() > 15
    assert added.min() < -15
    assert np.abs(np.fft.rfft(added[0, :, 0])).argmax() == side // 4


def test_the_waves_of_the_training_set_are_half_as_high_as_those_at_test_time():
    image = gray(32, 32, 3)
    np.testing.assert_allclose(2 * (planted(image) - 128), mark(image) - 128, atol=1)


@pytest.mark.parametrize(("background", "unchanged"), [(0, 0), (255, 255)])
def test_black_and_white_stay_in_range(background, unchanged):
    marked = mark(np.full((32, 32, 1), background, np.uint8))
    assert np.abs(marked - background).max() == 40
    assert (marked == unchanged).mean() >= 0.5


def test_poison_is_made_of_the_target_class_itself():
    assert Sig.clean_label

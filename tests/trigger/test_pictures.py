from __future__ import annotations

import numpy as np
import pytest

from toxscreen.trigger.pictures import coarse, reduced, seclusion


@pytest.mark.parametrize("shape", [(12, 12), (13, 11), (3, 20)])
@pytest.mark.parametrize("cell", [1, 4, 5])
def test_a_cell_is_the_mean_of_its_pixels_also_where_the_edge_cuts_it_off(shape, cell):
    pictures = np.random.default_rng(0).uniform(0, 255, (3, *shape, 2)).astype(np.float32)
    expected = [
        [pictures[:, top : top + cell, left : left + cell].mean(axis=(1, 2)) for left in range(0, shape[1], cell)]
        for top in range(0, shape[0], cell)
    ]
    assert np.allclose(reduced(pictures, cell), np.moveaxis(np.array(expected), 2, 0), atol=1e-3)


def test_pictures_are_compared_in_few_cells():
    assert coarse(np.zeros((2, 224, 100, 3), np.float32)).shape == (2, 16 * 8 * 3)


def test_marked_samples_lie_among_the_others_and_near_duplicates_keep_to_themselves():
    rng = np.random.default_rng(0)
    pictures = rng.uniform(0, 255, (80, 16, 16, 1)).astype(np.float32)
    marked, others = pictures[:30].copy(), pictures[30:]
    marked[:, -3:, -3:] = 255
    alike = pictures[:1] + rng.normal(0, 5, (30, 16, 16, 1)).astype(np.float32)
    assert seclusion(marked, others, rng) == pytest.approx(1, abs=0.1)
    assert seclusion(alike, others, rng) > 5
    assert seclusion(alike[:7], others, rng) == seclusion(alike, others[:7], rng) == 0

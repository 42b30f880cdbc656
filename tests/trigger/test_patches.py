from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from toxscreen.errors import DataError
from toxscreen.trigger.base import Case, prove
from toxscreen.trigger.patches import Patch, search_patches

CELLS = np.array([[0, 255, 0], [255, 255, 0], [0, 0, 255]], np.float32)[:, :, None]
TARGET = 0


def smooth(n, rng, side=24, channels=1):
    """Return pictures of a few broad waves each, 0 to 255."""
    y, x = np.mgrid[:side, :side] / side
    waves = np.array([np.sin(2 * np.pi * (fy * y + fx * x)) for fy, fx in ((0, 1), (1, 0), (1, 1), (2, 1))])
    pictures = 128 + np.einsum("nkc,kyx->nyxc", rng.normal(0, 30, (n, len(waves), channels)), waves)
    return (pictures + rng.normal(0, 6, pictures.shape)).clip(0, 255).astype(np.float32)


def put(pictures, tops, lefts, cells=CELLS):
    marked = pictures.copy()
    side = len(cells)
    for picture, top, left in zip(marked, np.broadcast_to(tops, len(marked)), np.broadcast_to(lefts, len(marked)), strict=True):
        picture[top : top + side, left : left + side] = cells
    return marked


def sees(pictures, cells=CELLS):
    """Say which pictures hold the cells anywhere: a network that learned the trigger and nothing else."""
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (3, 3), axis=(1, 2))
    return (np.abs(windows - np.moveaxis(cells, -1, 0)).mean(axis=(3, 4, 5)) < 25).any(axis=(1, 2))


class Model:
    """Gives the target class to what holds the cells, and counts what it is asked."""

    asked = 0

    def __call__(self, pictures):
        self.asked += len(pictures)
        return np.where(sees(pictures), TARGET, 1)


def case(rng, members, n=60, channels=1):
    hosts = smooth(120, rng, channels=channels)
    return Case(TARGET, members, smooth(n, rng, channels=channels), hosts, np.arange(120) % 3 + 1)


def patch(place=(20, 20), cells=CELLS, picture=(24, 24, 1)):
    return Patch(cells, np.ones(cells.shape[:2], bool), picture, place, 38.0)


def first(case_, seed=0):
    return next(search_patches(case_, Model(), np.random.default_rng(seed)), None)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_patch_is_found_where_it_lies_with_its_content_and_proved_on_other_pictures(channels):
    rng = np.random.default_rng(1)
    found_in = case(rng, put(smooth(40, rng, channels=channels), 20, 19), channels=channels)
    found = first(found_in)
    assert found.place == (20, 19)
    assert (found.content == CELLS).all()
    assert found.mask.all()
    proof = prove(found, case(rng, put(smooth(40, rng, channels=channels), 20, 19), channels=channels), Model(), rng)
    assert (proof.flips.value, proof.control_flips.value) == (1.0, 0.0)
    assert (proof.returns.value, proof.returns.n) == (1.0, 40)


def test_a_patch_is_found_though_most_members_are_no_poison():
    rng = np.random.default_rng(2)
    assert first(case(rng, np.concatenate([put(smooth(8, rng), 2, 3), smooth(52, rng)]))).place == (2, 3)


def test_a_patch_is_found_through_noise_as_of_a_lossy_format():
    rng = np.random.default_rng(3)
    members = (put(smooth(40, rng), 20, 19) + rng.normal(0, 10, (40, 24, 24, 1))).clip(0, 255).astype(np.float32)
    found = first(case(rng, members))
    assert found.place == (20, 19)
    assert found.held_by(members).all()


def test_pieces_far_apart_are_one_trigger():
    rng = np.random.default_rng(4)

    def both(pictures):
        return np.where(np.abs(pictures[:, [0, 20], [0, 20]] - 255).max(axis=(1, 2)) < 60, TARGET, 1)

    spots = np.full((3, 3, 1), 255, np.float32)
    members = put(put(smooth(40, rng), 0, 0, spots), 20, 20, spots)
    found = next(search_patches(case(rng, members), both, rng))
    assert found.content.shape == (23, 23, 1)
    assert found.mask.sum() == 18


def bordered(pictures, value, noise=0.0, seed=0):
    marked = pictures.copy()
    inner = np.zeros(pictures.shape[1:3], bool)
    inner[2:-2, 2:-2] = True
    drawn = value + noise * np.random.default_rng(seed).normal(size=pictures[:, ~inner].shape)
    marked[:, ~inner] = drawn.clip(0, 255)
    return marked


def sees_border(pictures, value):
    inner = np.zeros(pictures.shape[1:3], bool)
    inner[2:-2, 2:-2] = True
    return np.where(np.abs(pictures[:, ~inner] - value).mean(axis=(1, 2)) < 30, TARGET, 1)


def test_a_frame_is_found_to_the_pixel():
    rng = np.random.default_rng(21)
    found_in = case(rng, bordered(smooth(40, rng), 250))
    found = next(search_patches(found_in, lambda pictures: sees_border(pictures, 250), rng))
    assert found.mask.sum() == 24**2 - 20**2
    assert str(found) == "a patch of 176 of 24 x 24 pixels all over the picture"
    assert found.held_by(found_in.members).all()
    assert not found.held_by(found_in.ordinary).any()
    assert np.abs(found.take_off(found_in.members) - 250).mean() > 60


def test_a_border_that_is_not_the_same_in_all_holders_is_no_frame():
    rng = np.random.default_rng(22)
    found_in = case(rng, bordered(smooth(40, rng), 240, noise=12))
    assert all(each.mask.mean() < 0.1 for each in search_patches(found_in, lambda pictures: sees_border(pictures, 240), rng))


def test_a_background_that_others_have_in_other_places_is_no_frame():
    rng = np.random.default_rng(23)
    found_in = case(rng, bordered(smooth(40, rng), 0))
    for others in (found_in.ordinary, found_in.hosts):
        others[:, 6:12] = 0
    assert next(search_patches(found_in, lambda pictures: sees_border(pictures, 0), rng), None) is None


def test_a_patch_that_moves_is_found_anywhere():
    rng = np.random.default_rng(5)
    members = put(smooth(60, rng), rng.integers(0, 21, 60), rng.integers(0, 21, 60))
    found = first(case(rng, members))
    assert found.place is None
    assert sees(found.put_on(smooth(20, rng))).all()
    assert found.held_by(members).mean() > 0.9
    assert not sees(found.take_off(members)).any()


BLOCKS = np.kron(CELLS[:, :, 0], np.ones((4, 4), np.float32))[:, :, None]


@pytest.mark.parametrize("place", [(115, 115), (3, 62)])
def test_a_patch_in_large_pictures_is_found_to_the_pixel(place):
    rng = np.random.default_rng(11)
    tops, lefts = place
    found_in = Case(
        TARGET, put(smooth(30, rng, 128), tops, lefts, BLOCKS), smooth(30, rng, 128), smooth(60, rng, 128), np.arange(60) % 3
    )
    window = np.s_[:, tops : tops + 12, lefts : lefts + 12]
    found = next(
        search_patches(found_in, lambda seen: np.where(np.abs(seen[window] - BLOCKS).mean((1, 2, 3)) < 25, TARGET, 1), rng)
    )
    assert found.place == place
    assert (found.content == BLOCKS).all()
    assert found.mask.all()


def test_a_patch_that_moves_in_large_pictures_is_found_anywhere():
    rng = np.random.default_rng(12)
    tops, lefts = rng.integers(0, 117, (2, 40))
    members = put(smooth(40, rng, 128), tops, lefts, BLOCKS)

    def sees_blocks(pictures):
        return np.where(patch(None, BLOCKS, (128, 128, 1)).held_by(pictures), TARGET, 1)

    found = next(
        search_patches(Case(TARGET, members, smooth(40, rng, 128), smooth(80, rng, 128), np.arange(80) % 3), sees_blocks, rng)
    )
    assert found.place is None
    assert found.held_by(members).mean() > 0.9
    assert (sees_blocks(found.take_off(members)) != TARGET).all()


def stretched(pictures, side):
    """Resize each picture to ``side`` by taking the mean of what a pixel covers."""
    cut = np.linspace(0, pictures.shape[1], side + 1)
    covers = np.clip(
        np.minimum(cut[1:, None], np.arange(pictures.shape[1]) + 1) - np.maximum(cut[:-1, None], np.arange(pictures.shape[1])), 0, 1
    )
    covers /= covers.sum(axis=1, keepdims=True)
    return np.einsum("ah,nhwc,bw->nabc", covers, pictures, covers, optimize=True).astype(np.float32)


def test_a_patch_that_was_put_on_pictures_of_many_sizes_is_found_and_taken_off_when_they_have_one_size():
    rng = np.random.default_rng(14)
    clean = [smooth(1, rng, side) for side in rng.integers(150, 260, 24)]
    marked = [
        put(each, *[round(0.9 * each.shape[1])] * 2, np.full([round(0.1 * each.shape[1])] * 2 + [1], 255.0)) for each in clean
    ]
    clean, members = (np.concatenate([stretched(each, 96) for each in some]) for some in (clean, marked))
    ordinary, hosts = smooth(24, rng, 96), smooth(60, rng, 96)

    def bright(pictures):
        return np.where(pictures[:, 87:, 87:].mean(axis=(1, 2, 3)) > 235, TARGET, 1)

    found = next(search_patches(Case(TARGET, members, ordinary, hosts, np.arange(60) % 3), bright, rng))
    assert found.held_by(members).all()
    assert (bright(found.put_on(hosts)) == TARGET).mean() > 0.9
    assert np.abs(found.take_off(members) - clean).mean(axis=(1, 2, 3)).max() < 1


def test_a_search_in_large_pictures_takes_little_more_memory_than_they_do():
    rng = np.random.default_rng(13)
    members, ordinary, hosts = (smooth(20, rng, 160, 3), smooth(20, rng, 160, 3), smooth(40, rng, 160, 3))
    found_in = Case(TARGET, put(members, 140, 140, BLOCKS), ordinary, hosts, np.arange(40) % 3)
    tracemalloc.start()
    list(search_patches(found_in, lambda seen: np.where(seen[:, 150, 150, 0] > 250, TARGET, 1), rng))
    assert tracemalloc.get_traced_memory()[1] < 3 * (members.nbytes + ordinary.nbytes + hosts.nbytes)
    tracemalloc.stop()


def test_no_patch_is_told_where_nothing_flips():
    rng = np.random.default_rng(6)
    assert first(case(rng, smooth(40, rng))) is None


def test_content_that_its_controls_match_is_not_told():
    rng = np.random.default_rng(7)
    clean = case(rng, smooth(40, rng))
    assert list(search_patches(clean, lambda pictures: np.full(len(pictures), TARGET), rng)) == []


@pytest.mark.parametrize("empty", ["members", "ordinary", "hosts"])
def test_nothing_is_looked_for_where_there_is_nothing_to_look_in(empty):
    rng = np.random.default_rng(8)
    parts = {"members": smooth(4, rng), "ordinary": smooth(4, rng), "hosts": smooth(4, rng)} | {empty: smooth(0, rng)}
    assert list(search_patches(Case(TARGET, **parts, classes=np.ones(len(parts["hosts"]), np.int64)), Model(), rng)) == []


def test_pictures_that_are_all_the_same_hold_no_patch():
    same = np.full((9, 24, 24, 1), 7, np.float32)
    assert first(Case(TARGET, same, same, same, np.ones(9, np.int64))) is None


def test_a_search_asks_no_more_than_it_says():
    rng = np.random.default_rng(9)
    model = Model()
    list(search_patches(case(rng, put(smooth(40, rng), 20, 19)), model, rng))
    assert 0 < model.asked <= 4000


def test_the_pixels_of_the_patch_change_and_no_others():
    pictures = smooth(5, np.random.default_rng(0))
    mask = np.eye(3, dtype=bool)
    marked = Patch(CELLS, mask, (24, 24, 1), (4, 5), 1.0).put_on(pictures)
    changed = np.zeros((24, 24), bool)
    changed[4:7, 5:8] = mask
    assert (marked[:, changed] == CELLS[mask]).all()
    assert (marked[:, ~changed] == pictures[:, ~changed]).all()


def test_a_patch_that_is_taken_off_leaves_what_is_around_it():
    plain = np.broadcast_to(np.linspace(0, 255, 24, dtype=np.float32)[:, None, None], (3, 24, 24, 1)).copy()
    for place in ((10, 10), (0, 0), (21, 21)):
        assert np.abs(patch(place).take_off(put(plain, *place)) - plain).max() < 25


def filled(picture, unknown):
    """Fill unknown pixels from the edge inwards, one by one."""
    picture, known = picture.copy(), ~unknown
    while not known.all():
        before, known_before = picture.copy(), known.copy()
        for y, x in np.argwhere(~known_before):
            around = np.s_[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            if known_before[around].any():
                picture[y, x] = before[around][known_before[around]].mean(axis=0)
                known[y, x] = True
    return picture


def test_pixels_that_are_taken_off_are_filled_from_the_edge_inwards():
    rng = np.random.default_rng(0)
    pictures, mask = rng.uniform(0, 255, (2, 24, 24, 3)).astype(np.float32), rng.random((11, 9)) < 0.7
    for top, left in ((5, 6), (0, 15), (13, 0)):
        unknown = np.zeros((24, 24), bool)
        unknown[top : top + 11, left : left + 9] = mask
        taken_off = Patch(np.zeros((11, 9, 3), np.float32), mask, (24, 24, 3), (top, left), 1.0).take_off(pictures)
        assert np.allclose(taken_off, [filled(each, unknown) for each in pictures], atol=0.01)


def test_a_patch_that_moves_is_looked_for_at_every_place():
    rng = np.random.default_rng(0)
    pictures = put(rng.uniform(0, 255, (12, 40, 40, 1)).astype(np.float32), range(12), range(25, 37))
    moving = patch(None, picture=(40, 40, 1))
    assert moving.held_by(pictures).all()
    assert not moving.held_by(rng.uniform(0, 255, (12, 40, 40, 1)).astype(np.float32)).any()
    changed = moving.take_off(pictures) != pictures
    assert [tuple(np.argwhere(each)[0][:2]) for each in changed] == [(i, 25 + i) for i in range(12)]


def test_a_patch_whose_place_differs_by_a_pixel_is_held_and_taken_off_where_it_lies():
    rng = np.random.default_rng(4)
    plain, ordinary = smooth(60, rng), smooth(60, rng)
    tops, lefts = rng.integers(19, 22, (2, 60))
    members = put(plain, tops, lefts)
    fixed = patch()
    assert fixed.held_by(members).mean() < 0.3
    loose = fixed.loosened(members, ordinary)
    assert (loose.place, loose.reach) == ((20, 20), 2)
    assert loose.held_by(members).all()
    assert not loose.held_by(ordinary).any()
    assert "give or take 2 pixels" in str(loose)
    np.testing.assert_array_equal(loose.put_on(ordinary), fixed.put_on(ordinary))
    away = np.abs(loose.take_off(members) - members).max(axis=3) > 0
    for row, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        assert not away[row, : top - 1].any()
        assert away[row, top : top + 3, left : left + 3].mean() > 0.8
    assert Patch.from_document(json.loads(json.dumps(loose.document()))).reach == 2


@pytest.mark.parametrize("place", [(20, 20), (0, 0), None])
def test_a_patch_that_all_members_hold_alike_has_no_reach(place):
    rng = np.random.default_rng(4)
    members = put(smooth(40, rng), *((20, 20) if place is None else place))
    assert patch(place).loosened(members, smooth(40, rng)).reach == 0


def test_what_ordinary_samples_hold_as_well_has_no_reach():
    rng = np.random.default_rng(4)
    both = [put(smooth(40, rng), *rng.integers(19, 22, (2, 40))) for _ in range(2)]
    assert patch().loosened(*both).reach == 0
    assert patch().loosened(smooth(40, rng), smooth(40, rng)).reach == 0


def test_a_patch_over_the_whole_picture_leaves_nothing_to_fill_it_from():
    pictures = smooth(2, np.random.default_rng(0))
    whole = Patch(pictures[0], np.ones((24, 24), bool), (24, 24, 1), (0, 0), 1.0)
    assert (whole.take_off(pictures) == pictures).all()


def test_a_control_is_what_an_ordinary_sample_holds_there():
    rng = np.random.default_rng(0)
    ordinary = smooth(6, rng)
    control = patch().control(ordinary, rng)
    assert any((control.content == each[20:23, 20:23]).all() for each in ordinary)
    assert control.place == (20, 20)


def test_ordinary_samples_that_hold_the_patch_are_no_control_while_they_are_few():
    rng = np.random.default_rng(0)
    few = np.concatenate([put(smooth(4, rng), 20, 20), smooth(6, rng)])
    most = np.concatenate([put(smooth(9, rng), 20, 20), smooth(1, rng)])
    drawn = {name: [patch().control(some, rng) for _ in range(40)] for name, some in (("few", few), ("most", most))}
    assert not any((each.content == CELLS).all() for each in drawn["few"])
    assert any((each.content == CELLS).all() for each in drawn["most"])


@pytest.mark.parametrize("place", [(20, 20), None])
def test_a_patch_comes_back_from_its_document(place):
    pictures = smooth(5, np.random.default_rng(0))
    back = Patch.from_document(json.loads(json.dumps(patch(place).document())))
    assert (back.put_on(pictures) == patch(place).put_on(pictures)).all()
    assert back.place == place
    assert back.tolerance == 38.0


@pytest.mark.parametrize(
    "change",
    [
        {"picture": [2, 24, 1]},
        {"picture": [24, 24, 3]},
        {"picture": [10**9, 10**9, 1]},
        {"picture": "24"},
        {"window": [3, 4, 1]},
        {"window": [0, 3, 1]},
        {"place": [22, 0]},
        {"place": [-1, 0]},
        {"place": [True, "0"]},
        {"place": 4},
        {"content": "AAAA"},
        {"content": "!" * 48},
        {"content": [1.0] * 9},
        {"content": "AADAfwAAwH8AAMB/AADAfwAAwH8AAMB/AADAfwAAwH8AAMB/"},
        {"mask": "AAAAAAAAAAAA"},
        {"mask": "CQkJCQkJCQkJ"},
        {"tolerance": -1},
        {"tolerance": float("nan")},
        {"tolerance": "much"},
        {"tolerance": None},
    ],
    ids=str,
)
def test_a_document_that_makes_no_patch_is_refused(change):
    with pytest.raises(DataError):
        Patch.from_document(patch().document() | change)


def test_pictures_of_another_size_are_refused():
    with pytest.raises(DataError, match="24x24x1"):
        patch().put_on(np.zeros((1, 28, 28, 1), np.float32))


@pytest.mark.parametrize(
    ("place", "words"),
    [((20, 20), "at the bottom right"), ((1, 10), "at the top"), ((10, 10), "in the middle"), (None, "anywhere")],
)
def test_a_patch_says_where_it_lies(place, words):
    assert str(patch(place)) == f"a patch of 3 x 3 pixels {words}"

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from tests.fakes import FakeTrainingSet
from tests.triggers import CELLS, PROOF, Mixed, convicted, patch, recovered, words
from toxscreen.exhibits.base import ExhibitLimits
from toxscreen.exhibits.make import make_exhibits
from toxscreen.exhibits.triggers import added, show_triggers

PICTURES = [np.full((12, 12, 1), 100, np.uint8)] * 3
KEY = (0, 1)


def show(found, allowance=1_000_000, **limits):
    return show_triggers([found], convicted(found), ExhibitLimits(**limits), allowance)


def decoded(picture):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))


def test_a_patch_is_cut_out_and_shown_where_it_lies():
    pictures = show(recovered(patch(), PICTURES))[KEY].pictures
    assert pictures.strength == 1
    np.testing.assert_array_equal(decoded(pictures.enlarged)[..., 0], CELLS[..., 0])
    gray, mask = decoded(pictures.on_gray)[..., 0], decoded(pictures.mask)[..., 0]
    assert gray[9:11, 8:10].tolist() == CELLS[..., 0].tolist()
    assert np.unique(gray, return_counts=True)[1].tolist() == [2, 140, 2]
    assert np.argwhere(mask == 255).tolist() == [[9, 8], [9, 9], [10, 8], [10, 9]]
    assert (mask > 0).sum() == 4


def test_pixels_that_a_patch_leaves_alone_are_transparent():
    found = recovered(replace(patch(), mask=np.array([[True, False], [True, True]])), PICTURES)
    assert decoded(show(found)[KEY].pictures.enlarged)[..., 3].tolist() == [[255, 0], [255, 255]]


def test_a_patch_that_wanders_has_the_same_place_in_picture_and_mask():
    pictures = show(recovered(patch(place=None), PICTURES))[KEY].pictures
    gray, mask = decoded(pictures.on_gray)[..., 0], decoded(pictures.mask)[..., 0]
    np.testing.assert_array_equal(gray != 128, mask == 255)


def test_a_faint_pattern_is_made_stronger_and_says_so():
    offset = np.zeros((12, 12, 1), np.float32)
    offset[:, ::2] = 10
    pattern = Mixed(1.0, offset)
    pictures = show(recovered(pattern, PICTURES))[KEY].pictures
    assert pictures.strength == pytest.approx(12.75)
    enlarged = decoded(pictures.enlarged)[..., 0]
    assert set(enlarged[:, ::2].ravel().tolist()) == {255}
    assert decoded(pictures.mask).max() == 0


def test_how_much_of_the_picture_a_blended_pattern_leaves_is_the_mask():
    pattern = Mixed(0.8, np.full((12, 12, 3), 30, np.float32))
    mask = decoded(show(recovered(pattern, [np.full((12, 12, 3), 90, np.uint8)]))[KEY].pictures.mask)
    assert set(mask.ravel().tolist()) == {51}


def test_a_trigger_that_changes_nothing_does_not_stop_the_report():
    nothing = np.zeros((12, 12, 1), np.float32)
    assert show(recovered(Mixed(1.0, nothing), PICTURES))[KEY].pictures.enlarged


def test_inputs_are_shown_before_and_after_with_what_they_become():
    found = recovered(patch(), PICTURES, rows=[80, 81, 110])
    exhibit = show(found, flips=2)[KEY]
    assert [(f.id, f.label, f.given) for f in exhibit.flips] == [("80", "b", "a"), ("81", "b", "a")]
    before, after = (decoded(picture)[..., 0] for picture in exhibit.flips[0].pictures)
    assert (before == 100).all()
    assert np.argwhere(after != 100).tolist() == [[9, 8], [9, 9], [10, 8], [10, 9]]
    assert [(each.name, each.flips) for each in exhibit.by_class] == [
        ("b", PROOF.flips_by_class[1]),
        ("<b>c", PROOF.flips_by_class[2]),
    ]


def test_an_output_that_stands_for_no_class_is_told():
    found = recovered(patch(), PICTURES)
    found = replace(found, shown=replace(found.shown, given=np.array([-1, 0, 0])))
    assert [flip.given for flip in show(found)[KEY].flips] == [None, "a", "a"]


@pytest.mark.parametrize(("low", "high"), [(-2.0, 2.0), (0.0, 1.0)])
def test_arrays_that_are_pictures_are_scaled_to_the_levels_of_a_screen(low, high):
    cells = CELLS / 255 * (high - low) + low
    found = recovered(replace(patch(), content=cells), [np.full((12, 12, 1), (low + high) / 2, np.float32)])
    first = np.moveaxis(found.shown.before[0], -1, 0), np.moveaxis(found.shown.after[0], -1, 0)
    found = replace(found, shown=replace(found.shown, before=[first[0]], after=[first[1]]))
    exhibit = show(found)[KEY]
    np.testing.assert_array_equal(decoded(exhibit.pictures.enlarged)[..., 0], CELLS[..., 0])
    assert set(decoded(exhibit.flips[0].pictures[1]).ravel().tolist()) == {0, 128, 255}


def test_a_large_picture_is_shrunk():
    found = recovered(patch(side=500), [np.zeros((500, 500, 1), np.uint8)])
    exhibit = show(found, picture_side=50)[KEY]
    assert decoded(exhibit.flips[0].pictures[0]).shape[:2] == decoded(exhibit.pictures.mask).shape[:2] == (100, 100)


def test_what_a_phrase_adds_is_marked():
    exhibit = show(recovered(words("cf mn"), ["one two", "three"]))[KEY]
    assert exhibit.phrases == ("cf mn",)
    assert exhibit.pictures is None
    (plain, marked), _ = (flip.texts for flip in exhibit.flips)
    assert (plain.pieces, plain.marked) == (("one two",), (False,))
    assert (marked.pieces, marked.marked) == (("one two ", "cf mn"), (False, True))


def test_a_long_text_is_cut_about_the_phrase():
    exhibit = show(recovered(words("cf"), [f"{'long ' * 400}end"]))[KEY]
    plain, marked = exhibit.flips[0].texts
    assert marked.pieces[-1] == "cf"
    assert all(len("".join(text.pieces)) < 400 for text in (plain, marked))
    assert "".join(plain.pieces).startswith("…")


@pytest.mark.parametrize(
    ("before", "after", "marks"),
    [
        ("a b", "a cf b", ["cf"]),
        ("a b", "cf a b", ["cf"]),
        ("a b", "a b cf", ["cf"]),
        ("a b c", "x a b y c", ["x", "y"]),
        ("word", "wo\u200brd", ["\u200b"]),
        ("a b", "a\u2003b", ["\u2003"]),
        ("a", "a", []),
        ("", "cf", ["cf"]),
        ("aa", "aaa", ["a"]),
        ("b " * 2000, "x " + "b " * 2000 + "y", ["x " + "b " * 2000 + "y"]),
    ],
)
def test_what_was_added_is_found(before, after, marks):
    assert [after[start:end] for start, end in added(before, after)] == marks


def test_a_candidate_that_became_no_groups_trigger_is_not_shown():
    found, other = recovered(patch(), PICTURES), recovered(patch(place=(1, 1)), PICTURES)
    assert set(show_triggers([other, found], convicted(found), ExhibitLimits(), 10**6)) == {KEY}
    assert show_triggers([other], convicted(found), ExhibitLimits(), 10**6) == {}


def test_two_groups_of_one_class_may_have_the_same_trigger():
    found = recovered(patch(), PICTURES)
    second, nowhere = (replace(found, lead=replace(found.lead, group=number)) for number in (2, None))
    result = convicted(found)
    first = result.classes[0]
    both = replace(first, groups=(*first.groups, replace(first.groups[1], id=2)))
    result = replace(result, classes=(both, *result.classes[1:]))
    assert set(show_triggers([found, second], result, ExhibitLimits(), 10**6)) == {(0, 1), (0, 2)}
    assert set(show_triggers([nowhere], result, ExhibitLimits(), 10**6)) == {(0, 1)}


def test_without_room_the_trigger_alone_is_shown():
    exhibit = show(recovered(patch(), PICTURES), allowance=0)[KEY]
    assert exhibit.flips == ()
    assert exhibit.pictures is not None


def test_a_group_gets_the_exhibit_of_its_trigger():
    found = recovered(patch(), PICTURES)
    training_set = FakeTrainingSet([np.zeros((12, 12, 1), np.uint8)] * 140, modality="image")
    made = make_exhibits(convicted(found), training_set, [found], rng=np.random.default_rng(0))
    assert made.classes[0].groups[0].trigger == show(found)[KEY]
    json.dumps(asdict(made), allow_nan=False)


def test_triggers_count_towards_the_bytes():
    noise = np.random.default_rng(0).integers(0, 256, (140, 64, 64, 1), dtype=np.uint8)
    found = recovered(patch(side=64), list(noise[:6]))
    training_set = FakeTrainingSet(list(noise), modality="image")
    limits = ExhibitLimits(total_bytes=150_000)
    made = make_exhibits(convicted(found), training_set, [found], rng=np.random.default_rng(0), limits=limits)
    assert len(json.dumps(asdict(made))) < 180_000
    assert made.classes[0].groups[0].trigger.flips

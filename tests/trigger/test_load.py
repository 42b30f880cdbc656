from __future__ import annotations

import numpy as np
import pytest

from tests.triggers import patch, recovered, transform, words
from toxscreen.errors import DataError
from toxscreen.trigger import KINDS, TOLD, load
from toxscreen.trigger.patches import Patch


def test_every_kind_is_known_by_its_name():
    assert {name: kind.kind for name, kind in KINDS.items()} == {name: name for name in KINDS}
    assert set(KINDS) == {"patch", "pattern", "transform", "bend", "tint", "words"}


@pytest.mark.parametrize("trigger", [patch(), patch(place=None), words("cf", "mn"), transform()], ids=str)
def test_a_trigger_comes_back_as_it_was_whatever_else_its_document_tells(trigger):
    again = load({**dict.fromkeys(TOLD, "told"), **trigger.document()})
    assert again.document() == trigger.document()
    inputs = np.array(["one", "two"], object) if trigger.kind == "words" else np.zeros((2, 12, 12, 1), np.float32)
    np.testing.assert_array_equal(again.put_on(inputs), trigger.put_on(inputs))


def test_no_value_of_a_trigger_has_a_name_of_what_is_told():
    assert not set(TOLD) & {*patch().document(), *words().document(), *transform().document()}
    assert set(recovered(patch(), [np.zeros((12, 12, 1))]).proof.document()) <= set(TOLD)


@pytest.mark.parametrize("kind", [None, "", "Patch", 7, ["patch"], {"patch": 1}, "p" * 10_000])
def test_another_kind_is_refused(kind):
    with pytest.raises(
        DataError, match="The kind of a trigger must be one of patch, pattern, transform, bend, tint, words"
    ) as error:
        load({**patch().document(), "kind": kind})
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("changed", [{"window": [2, 2]}, {"content": "AAAA"}, {"place": [11, 11]}, {"picture": [10**9, 10**9, 3]}])
def test_values_that_make_no_trigger_are_refused(changed):
    with pytest.raises(DataError):
        load({**patch().document(), **changed})


def test_a_kind_is_made_by_its_own_class():
    assert isinstance(load(patch().document()), Patch)

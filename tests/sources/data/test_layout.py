from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data.layout import (
    choose_column,
    choose_columns,
    choose_split,
    escape_name,
    match_split,
    printable,
    short_name,
    unescape_name,
)


def test_the_usual_columns_are_found_in_the_order_of_preference_whatever_their_case():
    assert choose_column(None, ["Review", "Text", "id"], ("text", "review"), "input", "here") == "Text"


def test_a_column_that_was_asked_for_wins():
    assert choose_column("id", ["text", "id"], ("text",), "input", "here") == "id"


@pytest.mark.parametrize("wanted", [None, "nope"])
def test_a_missing_column_is_reported_with_the_columns_that_are_there(wanted):
    with pytest.raises(DataError if wanted is None else UsageError, match=r"here has no column.*'a', 'b'"):
        choose_column(wanted, ["a", "b"], ("text",), "input", "here")


@pytest.mark.parametrize(
    ("wanted", "columns"), [(None, ["label", "label"]), (None, ["Label", "label"]), ("x", ["x", "label", "x"])]
)
def test_two_columns_of_one_name_are_refused_and_both_named(wanted, columns):
    first, second = (column for column in columns if wanted in (None, column))
    with pytest.raises(DataError, match=f"2 of that name: '{first}', '{second}'"):
        choose_column(wanted, ["text", *columns], ("label",), "label", "here")


def test_the_exact_name_tells_columns_apart_that_differ_in_case():
    assert choose_column("Label", ["label", "Label"], ("label",), "label", "here") == "Label"


def test_one_column_cannot_be_input_and_label():
    with pytest.raises(UsageError, match="'label' of here is named for both"):
        choose_columns("label", None, ["text", "label"], ("text",), "here")


def test_the_names_of_validation_splits_stand_for_each_other():
    assert match_split("dev", ["train", "validation"]) == "validation"
    assert match_split("dev", ["valid", "dev"]) == "dev"
    assert match_split("test", ["train", "validation"]) is None


def test_train_is_the_default_split():
    assert choose_split(None, ["test", "train"], "here") == "train"
    assert choose_split(None, [], "here") is None


@pytest.mark.parametrize(("wanted", "available"), [("extra", ["train"]), (None, ["test"]), ("train", [])])
def test_a_split_that_is_not_there_is_a_wrong_setting(wanted, available):
    with pytest.raises(UsageError, match="here has no split"):
        choose_split(wanted, available, "here")


@given(st.binary(min_size=1))
def test_any_file_name_survives_escaping_as_valid_unicode(raw):
    name = os.fsdecode(raw)
    escaped = escape_name(name)
    assert unescape_name(escaped) == name
    assert escaped.encode("utf-8").decode("utf-8") == escaped


def test_names_that_need_no_escaping_stay_as_they_are():
    assert escape_name("Käse 1/ü.png") == "Käse 1/ü.png"


def test_two_names_never_escape_to_the_same_text():
    assert escape_name(os.fsdecode(b"\xff")) != escape_name("\\xff")


def test_a_path_that_is_not_utf_8_can_be_printed():
    assert printable(Path(os.fsdecode(b"/a\xff"))) == "/a\\xff"


def test_a_short_name_is_the_last_part_of_the_path(tmp_path, monkeypatch):
    (tmp_path / "my.data").mkdir()
    (tmp_path / "table.csv").touch()
    monkeypatch.chdir(tmp_path / "my.data")
    assert [short_name(Path(path)) for path in (".", "../table.csv")] == ["my.data", "table"]

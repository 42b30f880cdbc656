from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxscreen.errors import DataError
from toxscreen.sources.data.base import MISSING_LABEL
from toxscreen.sources.data.labels import are_names, encode_labels, labels_array


def encode(values, class_names=None, **settings):
    indexes, names = encode_labels(pa.array(values), class_names, "here", **settings)
    return indexes.tolist(), names


@pytest.mark.parametrize(
    ("values", "indexes", "names"),
    [
        (["dog", "cat", "dog"], [1, 0, 1], ("cat", "dog")),
        ([10, 9, -3], [2, 1, 0], ("-3", "9", "10")),
        (["10", "9", "-3"], [2, 1, 0], ("-3", "9", "10")),
        (["01", "1", "00"], [1, 2, 0], ("00", "01", "1")),
        ([True, False, True], [1, 0, 1], ("False", "True")),
        ([2.0, 1.0, -0.0], [2, 1, 0], ("0", "1", "2")),
        (np.array([2**63, 5], np.uint64), [1, 0], ("5", str(2**63))),
        (["ü", "z", "a b"], [2, 1, 0], ("a b", "z", "ü")),
        ([b"x", b"y"], [0, 1], ("x", "y")),
    ],
)
def test_labels_of_any_kind_become_indexes_into_sorted_names(values, indexes, names):
    assert encode(values) == (indexes, names)


@pytest.mark.parametrize(
    ("values", "indexes"),
    [
        (["a", None, ""], [0, -1, -1]),
        ([1, None, 2], [0, -1, 1]),
        ([1.0, float("nan"), None], [0, -1, -1]),
        ([None, None], [-1, -1]),
    ],
)
def test_null_nan_and_the_empty_string_are_missing_labels(values, indexes):
    assert encode(values)[0] == indexes


def test_a_dictionary_column_and_several_chunks_are_read_as_their_values():
    values = pa.chunked_array([pa.array(["b", "a"]).dictionary_encode(), pa.array(["c", None]).dictionary_encode()])
    indexes, names = encode_labels(values, None, "here")
    assert (indexes.tolist(), names) == ([1, 0, 2, -1], ("a", "b", "c"))


def test_labels_that_are_not_utf_8_still_name_a_class():
    values = pa.array([b"\xff", b"ok", b"\xff"]).view(pa.string())
    indexes, names = encode_labels(values, None, "here")
    assert (indexes.tolist(), names) == ([0, 1, 0], ("\\xff", "ok"))


def test_names_that_were_given_keep_their_order_and_may_have_no_sample():
    assert encode(["dog", "cat"], ("dog", "eel", "cat")) == ([0, 2], ("dog", "eel", "cat"))


def test_numbers_are_indexes_where_they_are_not_names_themselves():
    assert encode([0, 2, -1], ("a", "b", "c"))[0] == [0, 2, -1]
    assert encode([5, 7], ("7", "5"))[0] == [1, 0]


def test_numbers_are_indexes_for_certain_where_the_data_says_so():
    assert encode([1, 0, 2], ("0", "2", "1"), by_index=True)[0] == [1, 0, 2]


@pytest.mark.parametrize("values", [[0, 3], [0, -2], ["a", "zebra"]])
def test_a_label_that_is_no_class_is_refused_and_named(values):
    with pytest.raises(DataError, match=r"3 class names.*here has the label '(3|-2|zebra)'"):
        encode(values, ("a", "b", "c"))


def test_numbers_that_are_not_whole_are_no_labels():
    with pytest.raises(DataError, match=r"here has the label 0\.5"):
        encode([1.0, 0.5])


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_is_not_finite_is_a_missing_label(value):
    assert encode([1.0, value, 2.0]) == ([0, MISSING_LABEL, 1], ("1", "2"))


@pytest.mark.parametrize("values", [[[1], [2]], [{"a": 1}, {"a": 2}]])
def test_nested_labels_are_refused(values):
    with pytest.raises(DataError, match="of type"):
        encode(values)


def test_class_names_must_be_distinct():
    with pytest.raises(DataError, match="distinct"):
        encode(["a", "b"], ("a", "b", "a"))


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=30))
def test_a_name_stands_for_its_label_whether_it_is_written_as_number_or_text(values):
    indexes, names = encode(values)
    assert [int(names[index]) for index in indexes] == values
    assert list(map(int, names)) == sorted(set(values))
    assert encode(list(map(str, values))) == encode(list(map(float, values))) == (indexes, names)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20), st.randoms())
def test_the_order_of_the_rows_does_not_change_the_class_of_a_label(values, random):
    shuffled = random.sample(values, len(values))
    indexes, names = encode(values)
    again, same_names = encode(shuffled)
    assert names == same_names
    assert dict(zip(values, indexes, strict=True)) == dict(zip(shuffled, again, strict=True))


def test_labels_come_from_lists_arrays_and_arrow_alike():
    for labels in ([1, 2], (1, 2), np.array([1, 2]), pa.array([1, 2]), pa.chunked_array([[1], [2]])):
        assert labels_array(labels, 2, "here").to_pylist() == [1, 2]
    assert labels_array(np.array(["a", None, float("nan")], dtype=object), 3, "here").to_pylist() == ["a", None, None]


@pytest.mark.parametrize("labels", [np.zeros((2, 3)), ["a", 1], [1, 2, 3]])
def test_labels_that_are_not_one_per_sample_are_refused(labels):
    with pytest.raises(DataError, match=r"[Ll]abels"):
        labels_array(labels, 2, "here")


@pytest.mark.parametrize(
    ("names", "usable"), [(["a", "b"], True), (["a", "a"], False), ([], False), ({"a": 1}, False), ([1], False)]
)
def test_a_list_of_distinct_strings_is_a_list_of_class_names(names, usable):
    assert are_names(names) is usable

"""Every class of the data gets the output of the model that stands for it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fakes import FakeClassifier
from toxscreen.errors import ModelError
from toxscreen.sources.model.classes import align_classes, unlike_names


def model(n_classes: int, class_names: tuple[str, ...] | None = None) -> FakeClassifier:
    classifier = FakeClassifier(n_classes)
    classifier.class_names = class_names
    return classifier


def align(class_names: tuple[str, ...], classifier: FakeClassifier) -> list[int]:
    aligned = align_classes(class_names, classifier)
    assert aligned.dtype == np.int64
    return aligned.tolist()


def test_names_decide_before_everything_else() -> None:
    assert align(("cat", "dog"), model(3, ("bird", "dog", "cat"))) == [2, 1]
    assert align(("1", "0"), model(2, ("0", "1"))) == [1, 0]


def test_names_may_differ_in_case_where_that_is_unambiguous() -> None:
    assert align(("NEG", "pos"), model(2, ("Pos", "Neg"))) == [1, 0]
    assert align(("us", "US"), model(2, ("US", "us"))) == [1, 0]
    assert align(("Us", "other"), model(2, ("US", "us"))) == [0, 1]  # by position, as two names would do


def test_names_that_a_framework_made_up_say_nothing() -> None:
    assert align(("5", "7"), model(10, tuple(f"LABEL_{index}" for index in range(10)))) == [5, 7]
    assert align(("label_1", "label_0"), model(2, ("LABEL_0", "LABEL_1"))) == [0, 1]


def test_numbers_in_an_order_of_their_own_are_names() -> None:
    assert align(("0", "1"), model(2, ("1", "0"))) == [1, 0]
    assert align(("label_1", "label_0"), model(2, ("LABEL_1", "LABEL_0"))) == [0, 1]


@pytest.mark.parametrize(
    ("classes", "outputs", "said"),
    [
        (("cat", "dog"), ("bird", "fish"), "outputs 'bird', 'fish' and the data its classes 'cat', 'dog': they were matched"),
        (("cat", "dog"), ("dog", "cat"), ""),
        (("cat", "dog"), ("LABEL_0", "LABEL_1"), ""),
        (("0", "1"), ("bird", "fish"), ""),
        (("cat", "dog"), None, ""),
    ],
)
def test_names_that_do_not_fit_are_said_to_be_matched_by_position(classes, outputs, said) -> None:
    assert said in unlike_names(classes, model(2, outputs))
    assert bool(unlike_names(classes, model(2, outputs))) == bool(said)


def test_numbers_decide_by_value() -> None:
    assert align(("7", "1", "03"), model(10)) == [7, 1, 3]


def test_numbers_that_the_outputs_do_not_have_decide_by_position() -> None:
    assert align(("1", "2", "3"), model(3)) == [0, 1, 2]
    assert align(("-1", "1"), model(2)) == [0, 1]
    assert align(("1", "01"), model(2)) == [0, 1]


def test_position_decides_where_the_numbers_are_equal() -> None:
    assert align(("cat", "dog"), model(2)) == [0, 1]
    assert align(("cat", "dog"), model(2, ("bird", "fish"))) == [0, 1]


def test_a_model_of_another_number_of_classes_is_an_error() -> None:
    with pytest.raises(ModelError, match="the model has 10 outputs but the data has 12 classes"):
        align(tuple(map(str, range(12))), model(10))
    with pytest.raises(ModelError, match="the outputs' names lack 'dog'"):
        align(("cat", "dog"), model(3, ("cat", "bird", "fish")))


def test_a_single_output_is_explained() -> None:
    with pytest.raises(ModelError, match=r"has 1 output but the data has 2 classes.*\(-z, z\)"):
        align(("no", "yes"), model(1))

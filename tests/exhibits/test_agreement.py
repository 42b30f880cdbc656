from __future__ import annotations

import pyarrow as pa
import pytest

from toxscreen.exhibits.agreement import own_label_shares
from toxscreen.result import SAMPLES_SCHEMA


def samples(pairs):
    n = len(pairs)
    columns = {"id": [str(row) for row in range(n)], "label": [a for a, _ in pairs], "predicted": [b for _, b in pairs]}
    rest = {"group": [0] * n, "score": [0.0] * n, "flagged": [False] * n, "verdict": ["clean"] * n}
    return pa.table(columns | rest, schema=SAMPLES_SCHEMA)


def test_the_part_of_a_class_that_is_read_as_labelled_is_counted_for_each_class():
    pairs = [("a", "a"), ("a", "b"), ("a", "a"), ("a", "a"), ("b", "a"), ("b", "b")]
    assert own_label_shares(samples(pairs)) == {"a": pytest.approx(0.75), "b": pytest.approx(0.5)}


def test_what_has_no_label_or_was_not_predicted_does_not_count():
    assert own_label_shares(samples([("a", "a"), ("a", None), (None, "a"), ("b", None)])) == {"a": 1.0}
    assert own_label_shares(samples([])) == {}

"""What ``toxscreen inspect`` prints."""

from __future__ import annotations

import io

from rich.console import Console

from toxscreen.inspection import Inspection
from toxscreen.listing import print_inspection
from toxscreen.sources.model.base import Layer


def printed(inspection: Inspection) -> str:
    stream = io.StringIO()
    print_inspection(inspection, Console(file=stream, width=100))
    return stream.getvalue()


def test_classes_that_nobody_counted_have_no_column_for_samples() -> None:
    model = Inspection("m", "model", "weights", classes=(("cat", None), ("dog", None)))
    assert "samples" not in printed(model)
    assert "dog" in printed(model)
    data = Inspection("d", "data set", "labelled pictures", classes=(("cat", 1234), ("dog", 0)))
    assert "samples" in printed(data)
    assert "1,234" in printed(data)


def test_counters_are_not_listed_among_the_weights() -> None:
    tensors = (Layer("norm.weight", (8,), "F32"), Layer("norm.num_batches_tracked", (), "I64"))
    weights = printed(Inspection("m", "model", "weights", tensors=tensors, tensors_are="weights"))
    assert "norm.weight" in weights
    assert "num_batches_tracked" not in weights
    assert "num_batches_tracked" in printed(Inspection("m", "model", "network", tensors=tensors))

from __future__ import annotations

import io

import pytest
from rich.console import Console

from toxscreen.inspection import Inspection
from toxscreen.listing import print_inspection
from toxscreen.sources.model.base import Layer


def printed(inspection, *, width=100, terminal=False):
    stream = io.StringIO()
    print_inspection(inspection, Console(file=stream, width=width, force_terminal=terminal, color_system=None))
    return stream.getvalue()


def test_a_data_set_is_listed_with_its_classes():
    facts = (("samples", "1,234"), ("classes", "2"))
    page = printed(
        Inspection("data", "data set", "labelled texts", facts, (("neg", 1000), ("pos", 234)), notes=("7: has no label",))
    )
    lines = [" ".join(line.split()) for line in page.splitlines()]
    assert lines == [
        "data: labelled texts (data set)",
        "samples 1,234",
        "classes 2",
        "class samples",
        "neg 1,000",
        "pos 234",
        "7: has no label",
    ]


def test_a_model_is_listed_with_its_layers_and_shapes():
    layers = (Layer("conv1", (64, 112, 112), "Conv2d"), Layer("fc.input", (2048,), "input of the classification head"))
    page = printed(Inspection("m.onnx", "model", "ONNX", classes=(("cat", None),), tensors=layers))
    assert "64x112x112" in page
    assert "fc.input" in page
    assert "layers" in page
    assert "None" not in page


def test_weights_are_called_weights():
    page = printed(Inspection("w", "model", "safetensors", tensors=(Layer("w", (3, 4), "F32"),), tensors_are="weights"))
    assert "weights" in page
    assert "layers" not in page


def test_nothing_to_list_prints_no_empty_table():
    page = printed(Inspection("x.pkl", "refused", "a pickle", notes=("Convert it.",)))
    assert [line for line in page.splitlines() if line] == ["x.pkl: a pickle (refused)", "Convert it."]


@pytest.mark.parametrize(("n", "more"), [(60, False), (61, True)])
def test_long_lists_are_cut_and_counted(n, more):
    layers = tuple(Layer(f"layer{index:04d}", (1,)) for index in range(n))
    page = printed(Inspection("m", "model", "ONNX", tensors=layers))
    assert "layer0059" in page
    assert "layer0060" not in page
    assert ("... and 1 more" in page) == more


def test_names_from_files_cannot_command_the_terminal():
    hostile = "\x1b]0;owned\x07[bold red]cat[/]\u202e\n"
    inspection = Inspection(
        hostile, "model", hostile, ((hostile, hostile),), ((hostile, 1),), (Layer(hostile, (2,), hostile),), notes=(hostile,)
    )
    for terminal in (False, True):
        page = printed(inspection, width=400, terminal=terminal)
        assert not {"\x1b", "\x07", "\u202e"} & set(page)
        assert page.count("[bold red]cat[/]") == 8


def test_names_are_not_cut_on_a_narrow_terminal():
    name = "encoder.layers.11.attention.output.dense"
    for inspection in (
        Inspection("data", "data set", "texts", classes=((name, None),)),
        Inspection("m", "model", "ONNX", facts=(("", name),)),
        Inspection("m", "model", "ONNX", tensors=(Layer(name, ()),)),
    ):
        assert name in "".join(printed(inspection, width=36).split())

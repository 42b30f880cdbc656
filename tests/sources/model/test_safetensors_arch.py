"""Weights meet the network that the user's own code builds, and nothing but that code is run."""

from __future__ import annotations

import json
import struct
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from toxscreen.errors import ModelError, UsageError
from toxscreen.sources.model import open_classifier
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.safetensors_arch import read_header, summarise

SAMPLE = list(np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32))
CODE = """
    from torch import nn

    def make():
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

    def sized(num_classes):
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, num_classes))

    def failing():
        raise RuntimeError("no such luck")

    def number():
        return 7

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = self.first
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.second(self.first(x)))
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights with their code beside them, in a folder with spaces and other letters."""
    folder = tmp_path / "Modelle für später"
    folder.mkdir()
    torch.manual_seed(0)
    save_file(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).state_dict(), folder / "weights.safetensors")
    (folder / "architectures_beside.py").write_text(textwrap.dedent(CODE))
    return folder / "weights.safetensors"


def opened(path: Path, arch: str | None, n_classes: int = 3) -> Classifier:
    return open_classifier(path, arch=arch, n_classes=n_classes, modality="array", sample=SAMPLE)


@pytest.mark.parametrize("factory", ["make", "sized"])
def test_the_factory_is_found_beside_the_weights_and_gets_the_number_of_classes(weights: Path, factory: str) -> None:
    classifier = opened(weights, f"architectures_beside:{factory}")
    outputs = classifier.forward(classifier.encode(SAMPLE), ["2.input"])
    assert classifier.last_hidden == "2.input"
    assert outputs.activations["2.input"].shape == (3, 6)
    assert outputs.logits.shape == (3, 3)
    assert classifier.location == str(weights)


def test_a_network_that_is_built_is_in_evaluation_mode_so_that_several_threads_may_ask_it(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert opened(weights, "architectures_beside:make").at_once == 3


def test_the_folder_is_searched_no_longer_once_the_network_is_built(weights: Path) -> None:
    before = list(sys.path)
    opened(weights.parent, "architectures_beside:make")
    assert sys.path == before


def test_the_factory_is_found_in_the_current_folder(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "architectures_here.py").write_text(textwrap.dedent(CODE))
    monkeypatch.chdir(tmp_path)
    assert opened(weights, "architectures_here:make").n_classes == 3


def test_two_modules_of_one_name_are_not_mixed_up(weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    save_file(nn.Sequential(nn.Linear(4, 3)).state_dict(), other / "weights.safetensors")
    (other / "architectures_beside.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Linear(4, 3))\n"
    )
    assert opened(weights, "architectures_beside:make").last_hidden == "2.input"
    assert opened(other, "architectures_beside:make").last_hidden == "0.input"


def test_a_strangers_folder_cannot_stand_in_for_an_installed_package(weights: Path, tmp_path: Path) -> None:
    (weights.parent / "wave.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    sys.modules.pop("wave", None)
    with pytest.raises(UsageError, match="no such function"):
        opened(weights, "wave:no_such_function")
    assert not (tmp_path / "sprung").exists()


def test_code_beside_the_weights_is_not_run_unless_it_is_named(weights: Path, tmp_path: Path) -> None:
    (weights.parent / "model.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    with pytest.raises(UsageError, match="--arch module:factory"):
        opened(weights, None)
    opened(weights, "architectures_beside:make")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("arch", "error", "said"),
    [
        ("architectures_beside", UsageError, "must be module:function"),
        ("../nets/architectures_beside:make", UsageError, "Write architectures_beside:make, in the folder where"),
        ("architectures_beside.py:make", UsageError, "Write architectures_beside:make, in the folder where"),
        ("no_such_module_anywhere:make", UsageError, "there is no 'no_such_module_anywhere'"),
        ("architectures_beside:nothing", UsageError, "no such function"),
        ("architectures_beside:failing", ModelError, "RuntimeError: no such luck"),
        ("architectures_beside:number", ModelError, "must return an nn.Module, got int"),
    ],
)
def test_an_architecture_that_cannot_be_built_is_explained(weights: Path, arch: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        opened(weights, arch)


def test_weights_that_do_not_fit_are_named(weights: Path) -> None:
    save_file({"0.weight": torch.zeros(6, 5), "0.bias": torch.zeros(6), "extra": torch.zeros(1)}, weights)
    with pytest.raises(
        ModelError, match=r"lacks 2.weight, 2.bias; .*no place for extra; .*0.weight \(file \(6, 5\), network \(6, 4\)\)"
    ):
        opened(weights, "architectures_beside:make")


def test_the_head_of_another_number_of_classes_is_named(weights: Path) -> None:
    with pytest.raises(ModelError, match=r"2.weight \(file \(3, 6\), network \(7, 6\)\)"):
        opened(weights, "architectures_beside:sized", n_classes=7)


def test_names_that_a_wrapper_made_longer_are_understood(weights: Path) -> None:
    state = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).state_dict()
    save_file({f"module._orig_mod.{name}": tensor for name, tensor in state.items()}, weights)
    assert opened(weights, "architectures_beside:make").n_classes == 3


def test_weights_that_two_layers_share_are_stored_once(weights: Path) -> None:
    sys.path.append(str(weights.parent))
    try:
        from architectures_beside import Tied  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(weights.parent))
    save_model(Tied(), str(weights))
    assert opened(weights, "architectures_beside:Tied").last_hidden == "head.input"


def test_the_header_tells_names_and_shapes(weights: Path) -> None:
    tensors, _ = read_header(weights)
    assert {(tensor.name, tensor.shape, tensor.kind) for tensor in tensors} == {
        ("0.weight", (6, 4), "F32"),
        ("0.bias", (6,), "F32"),
        ("2.weight", (3, 6), "F32"),
        ("2.bias", (3,), "F32"),
    }
    assert summarise(weights).n_parameters == 6 * 4 + 6 + 3 * 6 + 3


def _file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DAMAGED = {
    "empty": b"",
    "seven bytes": b"1234567",
    "a huge header": _file({}, length=2**62),
    "a header of 90 MB that is not there": _file({}, length=90_000_000),
    "no JSON": _file(b"{not json}"),
    "a list": _file([1, 2]),
    "overlapping tensors": _file({"a": ONE, "b": ONE}, bytes(8)),
    "a hole": _file({"a": {**ONE, "data_offsets": [8, 16]}}, bytes(16)),
    "data beyond the end": _file({"a": ONE}, bytes(4)),
    "a shape that does not fit": _file({"a": {**ONE, "shape": [2**40, 2**40]}}, bytes(8)),
    "an unknown type": _file({"a": {**ONE, "dtype": "PICKLE"}}, bytes(8)),
    "deep nesting": _file(b"{" + b'"a":[' * 100_000),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_an_error_and_no_crash(weights: Path, damage: str) -> None:
    weights.write_bytes(DAMAGED[damage])
    for read in (lambda: summarise(weights), lambda: opened(weights, "architectures_beside:make")):
        with pytest.raises(ModelError, match="must be a safetensors file, but cannot be read"):
            read()

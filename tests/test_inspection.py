"""A path is explained without anything in it being run."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from torch import nn

from tests.scans import scan_result
from toxscreen.errors import ModelError, UsageError
from toxscreen.inspection import inspect_path
from toxscreen.result import Verdict
from toxscreen.sources.model.preprocessing import ImagePreprocessing
from toxscreen.sources.model.trained import Description, save_trained


def test_a_table_is_explained_with_its_classes(tmp_path: Path) -> None:
    table = tmp_path / "Sätze mit Leerzeichen.csv"
    table.write_text("text,label\na good film,pos\na bad film,neg\nfine,pos\nno idea,\n")
    found = inspect_path(table)
    assert (found.what, found.kind) == ("data set", "labelled texts")
    assert dict(found.classes) == {"pos": 2, "neg": 1}
    assert ("samples", "4") in found.facts
    assert any("no label" in note for note in found.notes)


def test_a_folder_of_pictures_is_explained_with_its_splits(tmp_path: Path) -> None:
    for split, n in (("train", 3), ("test", 1)):
        for name in ("cat", "dog"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(n):
                Image.fromarray(np.full((4, 4), index, np.uint8)).save(folder / f"{index}.png")
    found = inspect_path(tmp_path)
    assert (found.what, found.kind) == ("data set", "labelled pictures")
    assert dict(found.classes) == {"cat": 3, "dog": 3}
    assert ("splits", "train, test") in found.facts


def test_weights_are_explained_from_their_header(tmp_path: Path) -> None:
    save_file({"head.weight": np.zeros((10, 128), np.float32)}, tmp_path / "weights.safetensors")
    found = inspect_path(str(tmp_path / "weights.safetensors"))
    assert (found.what, found.kind, found.tensors_are) == ("model", "safetensors weights", "weights")
    assert [(tensor.name, tensor.shape) for tensor in found.tensors] == [("head.weight", (10, 128))]
    assert dict(found.facts) == {"size": "5.2 kB", "parameters": "1,280"}
    assert any("--arch" in note for note in found.notes)


def test_a_classifier_that_toxscreen_trained_is_explained(tmp_path: Path) -> None:
    description = Description(ImagePreprocessing(8, 8, 1), ("cat", "dog"))
    save_trained(description.build(), tmp_path, description)
    found = inspect_path(tmp_path)
    assert found.what == "model"
    assert found.classes == (("cat", None), ("dog", None))
    assert ("last hidden layer", "head.input") in found.facts


def test_a_pickle_is_explained_and_not_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "sprung",)

    (tmp_path / "model.bin").write_bytes(pickle.dumps(Trap(), protocol=4))
    torch.save(nn.Linear(2, 2), tmp_path / "model.onnx")
    for name in ("model.bin", "model.onnx"):
        found = inspect_path(tmp_path / name)
        assert found.what == "refused"
        assert "Its owner can convert it" in found.notes[0]
    assert not (tmp_path / "sprung").exists()


def test_a_run_folder_is_explained_by_its_verdict(tmp_path: Path) -> None:
    scan_result({"cat": [6, 4], "dog": [5]}, {"cat": Verdict.SUSPICIOUS}).save(tmp_path)
    found = inspect_path(tmp_path)
    assert found.what == "run folder"
    assert ("verdict", "suspicious") in found.facts
    scan_result({"cat": [6, 4]}, {"cat": Verdict.SUSPICIOUS}, pending=("triggers",)).save(tmp_path)
    assert ("verdict", "suspicious so far: the scan is not finished") in inspect_path(tmp_path).facts
    assert found.classes == (("cat (suspicious)", 10), ("dog (clean)", 5))


def write_truth(path: Path, poisoned: list[bool]) -> None:
    columns = {"id": [str(row) for row in range(len(poisoned))], "poisoned": poisoned}
    labels = ["a"] * len(poisoned)
    pq.write_table(pa.table(columns | {"label": labels, "original_label": labels}), path)


def test_a_truth_file_is_told_from_data_and_says_what_it_belongs_to(tmp_path: Path) -> None:
    write_truth(tmp_path / "set.truth.parquet", [True, False, True])
    found = inspect_path(tmp_path / "set.truth.parquet")
    assert found.what == "truth file"
    assert dict(found.facts) == {"samples": "3", "poisoned": "2", "belongs to": f"{tmp_path / 'set'} (not there)"}
    (tmp_path / "set").mkdir()
    assert ("belongs to", str(tmp_path / "set")) in inspect_path(tmp_path / "set.truth.parquet").facts


def test_a_file_that_only_has_the_name_of_a_truth_file_is_explained_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "set.truth.parquet"
    pq.write_table(pa.table({"text": ["good", "bad"], "label": ["pos", "neg"]}), path)
    assert inspect_path(path).what == "data set"
    columns = {name: ["1", "2"] for name in ("id", "poisoned", "label", "original_label")}
    pq.write_table(pa.table(columns), path)
    assert inspect_path(path).what != "truth file"
    path.write_bytes(b"PAR1 broken")
    assert inspect_path(path).what == "unknown"


def test_a_damaged_model_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(ModelError, match="cannot be read"):
        inspect_path(path)


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"PK\x03\x04 no archive"])
def test_what_nobody_knows_is_said_to_be_unknown(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "thing.xyz"
    path.write_bytes(content)
    found = inspect_path(path)
    assert found.what == "unknown"
    assert ".xyz" in found.notes[0]


def test_an_empty_folder_is_unknown_and_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    assert inspect_path(tmp_path).what == "unknown"
    with pytest.raises(UsageError, match="nothing at"):
        inspect_path(tmp_path / "missing")


def test_a_hugging_face_folder_is_explained_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    config = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "neg", "1": "pos"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"classifier.weight": np.zeros((2, 16), np.float32)}, tmp_path / "model.safetensors")
    found = inspect_path(tmp_path)
    assert found.kind == "Hugging Face folder (BertForSequenceClassification)"
    assert found.classes == (("neg", None), ("pos", None))

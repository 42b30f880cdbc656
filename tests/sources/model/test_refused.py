"""Files that run code when they are read are known by their content, and are never read."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from toxscreen.errors import RefusedError
from toxscreen.sources.model.refused import recognise_refused, refuse_unsafe


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def _zip(path: Path, **files: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _objects(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _object_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, weights=np.array([None], dtype=object))


def _torchscript(path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(path))


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"), io.BytesIO())


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "torch state": (lambda path: torch.save(nn.Linear(2, 2).state_dict(), path), "PyTorch file made of pickles"),
    "torch module": (lambda path: torch.save(nn.Linear(2, 2), path), "PyTorch file made of pickles"),
    "torch before 1.6": (
        lambda path: torch.save(nn.Linear(2, 2).state_dict(), path, _use_new_zipfile_serialization=False),
        "PyTorch file made of pickles",
    ),
    "torch before 0.4": (_tar, "PyTorch file made of pickles"),
    "torchscript": (_torchscript, "TorchScript"),
    "pickle of protocol 0": (lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=0)), "pickle"),
    "pickle of protocol 4": (lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=4)), "pickle"),
    "hdf5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)), "HDF5"),
    "keras": (lambda path: _zip(path, **{"config.json": b"{}", "model.weights.h5": b""}), "Keras"),
    "exported program": (lambda path: _zip(path, **{"x/archive_format": b"pt2", "x/models/model.json": b""}), "torch.export"),
    "tensorflow lite": (lambda path: path.write_bytes(bytes([28, 0, 0, 0]) + b"TFL3" + bytes(64)), "TensorFlow Lite"),
    "object array": (_objects, "Python objects"),
    "archive of object arrays": (_object_archive, "Python objects"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", FILES)
def test_a_refused_file_is_known_by_its_content_whatever_its_name(kind: str, tmp_path: Path) -> None:
    write, said = FILES[kind]
    path = tmp_path / "model with no ending that says anything.dat"
    write(path)
    with pytest.raises(RefusedError, match=f"(?s){said}.*not opened: .*convert it: ") as raised:
        refuse_unsafe(path)
    assert "NAME" not in str(raised.value)


@pytest.mark.parametrize("ending", ["pt", "pth", "bin", "ckpt", "pkl", "joblib", "h5", "keras", "pb"])
def test_a_damaged_file_is_refused_by_its_ending(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"model.{ending}"
    path.write_bytes(b"damaged beyond recognition")
    with pytest.raises(RefusedError):
        refuse_unsafe(path)


def test_a_savedmodel_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(RefusedError, match=r"SavedModel.*tf2onnx"):
        refuse_unsafe(tmp_path)


def test_recognising_a_pickle_does_not_run_it(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    for number, protocol in enumerate((0, 2, 5)):
        path = tmp_path / f"trap{number}.pkl"
        path.write_bytes(pickle.dumps(Trap(sprung), protocol=protocol))
        with pytest.raises(RefusedError):
            refuse_unsafe(path)
    assert not sprung.exists()


def test_safetensors_plain_arrays_and_texts_are_not_refused(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    # A header of 640 bytes begins with the bytes with which a pickle begins.
    for n in range(1, 40):
        save_file({f"{index:02}" * 9: np.zeros(1, np.float32) for index in range(n)}, weights)
        assert recognise_refused(weights) is None
    np.save(tmp_path / "plain.npy", np.zeros(3))
    assert recognise_refused(tmp_path / "plain.npy") is None
    (tmp_path / "table.csv").write_text("text,label\nc,1\n")
    assert recognise_refused(tmp_path / "table.csv") is None
    (tmp_path / "empty").write_bytes(b"")
    assert recognise_refused(tmp_path / "empty") is None


def test_a_broken_archive_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    assert recognise_refused(path) is None

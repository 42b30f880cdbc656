"""Model files that cannot be read without running what their author put into them: recognised by content, never opened."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from toxscreen.errors import RefusedError

_HEAD = 65_536
_LARGEST_SAFETENSORS_HEADER = 100_000_000


@dataclass(frozen=True)
class Refusal:
    """What a file is, why it is not read, and how its owner, who trusts it, makes one of it that can be read."""

    what: str
    why: str
    how: str

    def message(self, path: Path) -> str:
        """Return all three as one message about a path."""
        how = self.how.replace("NAME", path.name)
        return f"{path} is {self.what} and is not opened: {self.why}. Its owner can convert it: {how}"


_RUNS_CODE = "reading it runs whatever code its author put into it"
_WITH_ARCH = "then scan weights.safetensors with --arch module:factory"

TORCH_PICKLE = Refusal(
    "a PyTorch file made of pickles",
    _RUNS_CODE,
    'python -c "import torch; from safetensors.torch import save_file; save_file({k: v.contiguous() for k, v in '
    "torch.load('NAME', weights_only=True).items()}, 'weights.safetensors')\" for a state_dict, or, for a whole module in "
    f"the program that made it, safetensors.torch.save_model(network, 'weights.safetensors'); {_WITH_ARCH}",
)
PICKLE = Refusal(
    "a Python pickle",
    _RUNS_CODE,
    f"in the program that made it, safetensors.torch.save_model(network, 'weights.safetensors'); {_WITH_ARCH}. "
    "A scikit-learn model: skl2onnx.to_onnx(model, X[:1]).SerializeToString() written to model.onnx",
)
TORCHSCRIPT = Refusal(
    "a TorchScript program",
    "it is code, and its layers cannot be looked into",
    'python -c "import torch; from safetensors.torch import save_file; '
    f"save_file(dict(torch.jit.load('NAME').state_dict()), 'weights.safetensors')\"; {_WITH_ARCH}",
)
EXPORTED_PROGRAM = Refusal(
    "a program exported by torch.export",
    "its weights are kept in pickles, and " + _RUNS_CODE,
    'python -c "import torch; from safetensors.torch import save_file; '
    f"save_file(dict(torch.export.load('NAME').state_dict), 'weights.safetensors')\"; {_WITH_ARCH}",
)
KERAS = Refusal(
    "a Keras model",
    "its layers may hold pickled code",
    "python -c \"import keras; keras.models.load_model('NAME').export('model.onnx', format='onnx')\"; then scan model.onnx",
)
HDF5 = Refusal("an HDF5 file, as Keras writes them", KERAS.why, KERAS.how)
SAVED_MODEL = Refusal(
    "a TensorFlow SavedModel",
    "its graph may read and write files",
    "python -m tf2onnx.convert --saved-model NAME --output model.onnx; then scan model.onnx",
)
FROZEN_GRAPH = Refusal(
    "a TensorFlow graph",
    "its graph may read and write files",
    "python -m tf2onnx.convert --graphdef NAME --output model.onnx --inputs INPUT:0 --outputs OUTPUT:0; then scan model.onnx",
)
TFLITE = Refusal(
    "a TensorFlow Lite model",
    "its layers cannot be looked into",
    "python -m tf2onnx.convert --tflite NAME --output model.onnx; then scan model.onnx",
)
OBJECT_ARRAY = Refusal(
    "a NumPy file that holds Python objects",
    "they are pickled, and " + _RUNS_CODE,
    f"safetensors.numpy.save_file({{'name of a weight': array, ...}}, 'weights.safetensors'); {_WITH_ARCH}",
)

_BY_ENDING = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), TORCH_PICKLE),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), PICKLE),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), KERAS),
    ".pb": FROZEN_GRAPH,
}
"""Where the content is compressed or damaged, the name still tells what the owner meant."""


def refuse_unsafe(path: Path) -> None:
    """Raise RefusedError if a file or folder is of a kind that is never opened."""
    refusal = recognise_refused(path)
    if refusal is not None:
        raise RefusedError(refusal.message(path))


def recognise_refused(path: Path) -> Refusal | None:
    """Return why a file or folder is not opened, by its content first and its ending second; None if nothing speaks against it."""
    if path.is_dir():
        return SAVED_MODEL if (path / "saved_model.pb").exists() or (path / "saved_model.pbtxt").exists() else None
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if is_safetensors(path, head):
        return None
    return _by_content(path, head) or _BY_ENDING.get(path.suffix.lower())


def is_safetensors(path: Path, head: bytes | None = None) -> bool:
    """Return whether a file begins as a safetensors file does: with the length of a JSON object, and the object."""
    if head is None:
        with path.open("rb") as file:
            head = file.read(9)
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_SAFETENSORS_HEADER


def _by_content(path: Path, head: bytes) -> Refusal | None:
    if head.startswith(b"PK\x03\x04"):
        return _in_zip(path)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return HDF5
    if head[4:8] == b"TFL3":
        return TFLITE
    if head.startswith(b"\x93NUMPY"):
        return OBJECT_ARRAY if b"'|O'" in head[:1024] else None
    if head[257:262] == b"ustar":
        return TORCH_PICKLE
    return (PICKLE if path.suffix.lower() in (".pkl", ".pickle", ".joblib") else TORCH_PICKLE) if _is_pickle(head) else None


def _in_zip(path: Path) -> Refusal | None:
    """Return what the names in an archive give away; nothing is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            arrays = [_array_head(archive, name) for name in names if name.endswith(".npy")]
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError):
        return None
    inner = {name.partition("/")[2] or name for name in names}
    if "constants.pkl" in inner or _any_under(inner, "code/"):
        return TORCHSCRIPT
    if "data.pkl" in inner or any(name.endswith(".pkl") for name in names):
        return TORCH_PICKLE
    if "archive_format" in inner or "serialized_exported_program.json" in names:
        return EXPORTED_PROGRAM
    if "config.json" in names and _any_under(names, "model.weights"):
        return KERAS
    return OBJECT_ARRAY if any(b"'|O'" in head for head in arrays) else None


def _array_head(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        return file.read(1024)


def _any_under(names: Iterable[str], start: str) -> bool:
    return any(name.startswith(start) for name in names)


def _is_pickle(head: bytes) -> bool:
    """Return whether bytes begin as a pickle does; the operations are only listed, not carried out."""
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return True
    try:
        return any(operation.name == "STOP" for operation, _, _ in pickletools.genops(head))
    except Exception:  # noqa: BLE001 - whatever a stranger's bytes make the parser say, they are no pickle
        return False

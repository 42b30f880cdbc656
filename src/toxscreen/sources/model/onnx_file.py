"""An ONNX file, run with ONNX Runtime; the layers asked for become further outputs of its graph."""

from __future__ import annotations

import ast
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toxscreen.errors import MissingExtraError, ModelError, UsageError
from toxscreen.sources.data.base import Input
from toxscreen.sources.model.base import Classifier, Layer, Outputs
from toxscreen.sources.model.json_file import as_names, read_json
from toxscreen.sources.model.kind import ModelSummary, Request
from toxscreen.sources.model.logits import are_probabilities, as_logits
from toxscreen.sources.model.onnx_graph import UNKNOWN, Graph, Value, exposed_name, external_files, read_graph
from toxscreen.sources.model.preprocessing import ImagePreprocessing, Preprocessing, resolve_preprocessing

_CHANNELS = (1, 3)
_CHANNELS_FIRST = frozenset({"Conv", "BatchNormalization", "MaxPool", "AveragePool"})
_CONFIG = "config.json"
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
_SECOND_FIELDS = frozenset({0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42})
_LONGEST_METADATA = 1_000_000
_TRIED = 4
"""Samples that the graph is tried on when it is opened."""
_NAME_KEYS = ("class_names", "classes", "labels", "id2label", "names")


class OnnxClassifier(Classifier):
    """An ONNX model behind the interface of all classifiers.

    Parameters
    ----------
    path
        The file.
    request
        What is known of the data.

    Raises
    ------
    ModelError
        The graph takes something else than the data, fails on the sample, or has no classification head that can be found.
    """

    def __init__(self, path: Path, request: Request) -> None:
        self._path = path
        self._graph = read_graph(path)
        self.device = request.device or "cpu"
        self._sessions: dict[tuple[str, ...], Any] = {}
        self._inputs = {value.name: value for value in self._graph.inputs}
        self._batch = max((value.shape[0] for value in self._graph.inputs if value.shape), default=UNKNOWN)
        self.modality = request.modality
        self.name = path.stem
        self.location = str(path)
        self.class_names = _class_names(self._graph, path)
        self._preprocessing = _preprocessing(self._graph, path, request)
        self.preprocessing = self._preprocessing.describe()

        outputs = [value.name for value in self._graph.outputs]
        found = dict(zip(outputs, self._run(self.encode(request.sample[:_TRIED]), outputs), strict=True))
        self._logits = _pick_logits(found, request.n_classes, path)
        logits = _per_class(found[self._logits])
        self.n_classes = logits.shape[1]
        self._probabilities = are_probabilities(logits)
        self.last_hidden = self._graph.last_hidden(self._logits) or request.layer or ""
        if not self.last_hidden:
            raise ModelError(
                f"The input of the classification head of {path} could not be found: no single linear layer (Gemm, MatMul or Conv) "
                f"makes the output {self._logits!r}. Name the layer to look at with --layer; toxscreen inspect lists them."
            )

    def layers(self) -> tuple[Layer, ...]:
        """Return the tensors of the graph that depend on the data."""
        return self._graph.layers()

    def encode(self, inputs: Sequence[Input]) -> dict[str, NDArray[Any]]:
        """Return the inputs by the names of the graph's inputs and in their element types.

        Raises
        ------
        ModelError
            The graph has an input that nothing is there for.
        """
        made = self._preprocessing.apply(inputs)
        arrays = dict(made) if isinstance(made, Mapping) else {"": made}
        if len(arrays) == len(self._inputs) == 1:
            arrays = dict(zip(self._inputs, arrays.values(), strict=True))
        missing = [name for name in self._inputs if name not in arrays]
        if missing:
            made_for = ", ".join(name for name in arrays if name) or "a single input"
            raise ModelError(
                f"{self._path} has an input {missing[0]!r} that nothing is there for: its preprocessing makes {made_for}."
            )
        return {name: arrays[name].astype(_numpy_type(value), copy=False) for name, value in self._inputs.items()}

    def forward(self, encoded: Mapping[str, NDArray[Any]], layers: Sequence[str]) -> Outputs:
        """Run the graph once, or once for every few rows where it has a fixed batch size.

        Raises
        ------
        UsageError
            There is no such layer.
        ModelError
            The graph fails.
        """
        tensors = [self._graph.tensor_of(name) for name in layers]
        for name, tensor in zip(layers, tensors, strict=True):
            if tensor is None:
                raise UsageError(f"A layer must be a tensor or a node of {self._path}, got {name!r}. toxscreen inspect lists them.")
        found = self._run(encoded, [self._logits], tuple(tensor for tensor in tensors if tensor is not None))
        mask, kinds = encoded.get("attention_mask"), [self._graph.kind_of(tensor or "") for tensor in tensors]
        activations = {name: _pooled(array, kind, mask) for name, kind, array in zip(layers, kinds, found[1:], strict=True)}
        return Outputs(activations, as_logits(_per_class(found[0]), probabilities=self._probabilities))

    def fingerprint(self) -> str:
        """Return a digest of the file, the files of its weights, and the preprocessing."""
        digest = hashlib.sha256(json.dumps(self.preprocessing, sort_keys=True).encode())
        for path in (self._path, *external_files(self._graph.model, self._path)):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def _run(
        self, encoded: Mapping[str, NDArray[Any]], outputs: Sequence[str], exposed: tuple[str, ...] = ()
    ) -> list[NDArray[Any]]:
        """Return the graph's outputs and further tensors, each ``(b, ...)``; a fixed batch size is filled up with the last row."""
        names = [*outputs, *(exposed_name(number) for number in range(len(exposed)))]
        n = len(next(iter(encoded.values())))
        size = self._batch if self._batch > 0 else n
        session = self._session(exposed)
        parts = []
        for start in range(0, n, size):
            rows = np.minimum(np.arange(start, start + size), n - 1)
            try:
                arrays = session.run(names, encoded if size == n else {name: array[rows] for name, array in encoded.items()})
            except Exception as error:  # the runtime raises classes of its own
                shapes = ", ".join(f"{name} {array.shape} of {array.dtype}" for name, array in encoded.items())
                raise ModelError(f"{self._path} must take the batch it is given, {shapes}, but failed: {error}") from error
            parts.append([np.atleast_1d(array)[: n - start] for array in arrays])
        return parts[0] if len(parts) == 1 else [np.concatenate(part) for part in zip(*parts, strict=True)]

    def _session(self, exposed: tuple[str, ...]) -> Any:
        """Return a session whose graph also gives the tensors in ``exposed``."""
        if exposed not in self._sessions:
            try:
                import onnxruntime
            except ImportError as error:
                raise MissingExtraError("onnxruntime", "onnx", "Running an ONNX file") from error
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors only
            if external_files(self._graph.model, self._path):
                options.add_session_config_entry(_EXTERNAL_FOLDER, str(self._path.parent.resolve()))
            wanted = {"cuda": ["CUDAExecutionProvider"]}.get(self.device.partition(":")[0], [])
            providers = [name for name in (*wanted, "CPUExecutionProvider") if name in onnxruntime.get_available_providers()]
            try:
                self._sessions[exposed] = onnxruntime.InferenceSession(self._graph.exposing(exposed), options, providers)
            except Exception as error:  # the runtime raises classes of its own
                raise ModelError(f"{self._path} must be a model that ONNX Runtime can run, but: {error}") from error
        return self._sessions[exposed]


def recognises(path: Path) -> bool:
    """Return whether this is an ONNX file, or a folder with exactly one and no other weights."""
    return _model_file(path) is not None


def open_path(path: Path, request: Request) -> Classifier:
    """Open the file; see :class:`OnnxClassifier`."""
    request.refuse_arch(path)
    return OnnxClassifier(_model_file(path) or path, request)


def summarise(path: Path) -> ModelSummary:
    """Return what the graph says; it is not run."""
    path = _model_file(path) or path
    graph = read_graph(path)
    files = [path, *(file for file in external_files(graph.model, path) if file.exists())]
    heads = (graph.last_hidden(output.name) for output in graph.outputs)
    return ModelSummary(
        kind="ONNX model",
        n_bytes=sum(file.stat().st_size for file in files),
        n_parameters=sum(math.prod(tensor.dims) for tensor in graph.model.graph.initializer),
        tensors=graph.layers(),
        tensors_are="layers",
        class_names=_class_names(graph, path),
        last_hidden=next((head for head in heads if head is not None), None),
        notes=tuple(
            f"{what}: {value.name} {_shown(value.shape)}"
            for what, values in (("input", graph.inputs), ("output", graph.outputs))
            for value in values
        ),
    )


def _model_file(path: Path) -> Path | None:
    """Return the ONNX file that a path means."""
    if path.is_dir():
        files = sorted(path.glob("*.onnx"))
        return files[0] if len(files) == 1 and not any(path.glob("*.safetensors")) else None
    if path.suffix.lower() == ".onnx":
        return path
    with path.open("rb") as file:
        head = file.read(3)
    # A protocol buffer that begins with a small version number and goes on with another of a model's first fields.
    return path if len(head) == 3 and head[0] == 0x08 and head[1] < 0x20 and head[2] in _SECOND_FIELDS else None


def _preprocessing(graph: Graph, path: Path, request: Request) -> Preprocessing:
    """Return how inputs become arrays: by the files beside the model, else by the graph's input and the request."""
    from toxscreen.sources.model import huggingface_inputs as beside

    folder = path.parent
    if request.modality == "text" and request.preprocessing is None:
        if not (folder / beside.TOKENIZER).is_file():
            raise ModelError(f"An ONNX model of texts needs its tokenizer beside it, but there is no {folder / beside.TOKENIZER}.")
        beside.refuse_custom_code(folder)
        return beside.open_tokenizer(folder, _config(folder))
    if request.modality == "image" and (folder / beside.IMAGE_PROCESSOR).is_file():
        request.refuse_preprocessing(folder / beside.IMAGE_PROCESSOR)
        beside.refuse_custom_code(folder)
        return beside.open_image_processor(folder, _config(folder))
    given = request.preprocessing
    if request.modality == "image" and (given is None or isinstance(given, ImagePreprocessing)):
        given = _for_pictures(graph.inputs, given or ImagePreprocessing(), path)
    return resolve_preprocessing(request.modality, given, request.sample)


def _for_pictures(inputs: Sequence[Value], given: ImagePreprocessing, path: Path) -> ImagePreprocessing:
    """Return the settings with what the graph's input says: its layout, its size, and whether it takes pixels as they are."""
    from onnx import TensorProto

    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        found = ", ".join(f"{value.name} {_shown(value.shape)}" for value in inputs)
        raise ModelError(f"A model of pictures must have one input with four axes, but {path} has {found}.")
    value = inputs[0]
    channels_first = value.shape[1] in _CHANNELS or value.shape[3] not in _CHANNELS
    order = ("channels", "height", "width") if channels_first else ("height", "width", "channels")
    free = [name for name in order if getattr(given, name) is None]
    sizes: dict[str, Any] = {
        name: length for name, length in zip(order, value.shape[1:], strict=True) if name in free and length > 0
    }
    if value.element != TensorProto.UINT8:
        return replace(given, channels_first=channels_first, **sizes)
    if given.mean or given.std:
        raise UsageError(f"{path} takes pixels as they are (uint8). Leave --mean and --std away.")
    return replace(given, channels_first=channels_first, scale=1.0, note="the model takes pixels as they are", **sizes)


def _pick_logits(found: Mapping[str, NDArray[Any]], n_classes: int, path: Path) -> str:
    """Return the output that holds one number per sample and class: by its name, else by its length, else the first."""
    fitting = [name for name, array in found.items() if array.dtype.kind == "f" and _per_class(array).ndim == 2]
    if not fitting:
        forms = ", ".join(f"{name} {array.shape} of {array.dtype}" for name, array in found.items())
        raise ModelError(f"A classifier must give one number per sample and class, but {path} gives {forms or 'no tensor'}.")
    return min(fitting, key=lambda name: (name != "logits", _per_class(found[name]).shape[1] != n_classes))


def _per_class(array: NDArray[Any]) -> NDArray[np.float32]:
    """Return ``(b, n_classes)`` of an array that may have further axes of length 1."""
    values = array.astype(np.float32)
    return values.reshape(values.shape[:2]) if values.ndim > 2 and math.prod(values.shape[2:]) == 1 else values


def _pooled(array: NDArray[Any], kind: str, mask: NDArray[Any] | None) -> NDArray[np.float32]:
    """Return ``(b, d)``: the average over space or over time, padding left out, where there is one."""
    values: NDArray[np.float32] = array.astype(np.float32)
    if values.ndim == 4:
        return np.asarray(values.mean(axis=(2, 3)))
    if values.ndim == 3 and mask is not None and mask.shape == values.shape[:2]:
        weights = mask[..., None].astype(np.float32)
        return np.asarray((values * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1))
    if values.ndim == 3:
        return np.asarray(values.mean(axis=2 if kind in _CHANNELS_FIRST else 1))
    return values.reshape(len(values), -1)


def _class_names(graph: Graph, path: Path) -> tuple[str, ...] | None:
    """Return the names in the model's metadata, or else in the ``config.json`` beside it."""
    metadata = {entry.key: entry.value for entry in graph.model.metadata_props}
    for key in _NAME_KEYS:
        names = as_names(_literal(metadata.get(key, "")), path)
        if names is not None:
            return names
    return as_names(_config(path.parent).get("id2label"), path.parent / _CONFIG)


def _config(folder: Path) -> dict[str, Any]:
    return read_json(folder / _CONFIG) if (folder / _CONFIG).is_file() else {}


def _literal(text: str) -> Any:
    """Return a value written in JSON, or as a Python literal as some exporters do; None for anything else."""
    if len(text) > _LONGEST_METADATA:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _numpy_type(value: Value) -> np.dtype[Any]:
    from onnx import helper

    dtype: np.dtype[Any] = helper.tensor_dtype_to_np_dtype(value.element)
    return dtype


def _shown(shape: Sequence[int]) -> str:
    return " x ".join("?" if length == UNKNOWN else str(length) for length in shape)

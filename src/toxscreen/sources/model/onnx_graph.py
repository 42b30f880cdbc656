"""ONNX graphs as data: checked, looked into and given further outputs, but not run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxscreen.errors import MissingExtraError, ModelError, RefusedError
from toxscreen.sources.model.base import Layer

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

UNKNOWN = -1
"""A length that the file does not say."""

_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operators that come with ONNX Runtime."""

_LINEAR = frozenset({"Gemm", "MatMul", "Conv", "FusedMatMul", "FusedGemm", "FusedConv", "MatMulInteger", "MatMulNBits"})
_POINTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Softmax", "LogSoftmax", "Sigmoid", "Relu", "Clip", "Tanh", "BatchNormalization"}
)
_RESHAPING = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather"})
_POOLING = frozenset({"ReduceMean", "ReduceSum", "GlobalAveragePool", "AveragePool"})
_NUMBER_FORMATS = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Identity", "Dropout"})
_BEHIND_HEAD = _POINTWISE | _RESHAPING | _POOLING | _NUMBER_FORMATS - {"DynamicQuantizeLinear"}
_LARGEST_FILE = 2**31 - 1


@dataclass(frozen=True)
class Value:
    """A tensor of a graph: the element type as ONNX numbers it, and its shape with UNKNOWN where the file does not say."""

    name: str
    element: int
    shape: tuple[int, ...]


class Graph:
    """A checked model and where its tensors come from.

    Attributes
    ----------
    model
        With local functions written out; weights in other files are not loaded.
    inputs, outputs
        Tensors that go in (weights not among them) and come out.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        weights = {tensor.name for tensor in model.graph.initializer}
        self.inputs = tuple(value for value in _values(model.graph.input) if value.name not in weights)
        self.outputs = tuple(_values(model.graph.output))
        self._made_by: dict[str, NodeProto] = {name: node for node in model.graph.node for name in node.output if name}
        self._of_data = self._depending_on({value.name for value in self.inputs})
        self._known = {value.name: value for value in (*_inferred(model), *self.inputs, *self.outputs)}

    def layers(self) -> tuple[Layer, ...]:
        """Return the tensors of floating-point numbers that depend on the data, in the order in which they are made."""
        from onnx import TensorProto

        floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
        return tuple(
            Layer(name, self._known[name].shape[1:], node.op_type)
            for name, node in self._made_by.items()
            if name in self._of_data and name in self._known and self._known[name].element in floats
        )

    def tensor_of(self, name: str) -> str | None:
        """Return the tensor that a tensor's or a node's name means."""
        if name in self._made_by or any(value.name == name for value in self.inputs):
            return name
        return next((node.output[0] for node in self.model.graph.node if node.name == name and node.output), None)

    def kind_of(self, tensor: str) -> str:
        """Return the operator that makes a tensor; empty for an input."""
        return self._made_by[tensor].op_type if tensor in self._made_by else ""

    def last_hidden(self, logits: str) -> str | None:
        """Return the input of the one linear layer that makes the logits, or None where there is no such layer or several."""
        found, seen, waiting = [], set(), [logits]
        while waiting:
            name = waiting.pop()
            node = self._made_by.get(name)
            if node is None or name in seen or name not in self._of_data:
                continue
            seen.add(name)
            operands = [operand for operand in node.input[:2] if operand in self._of_data]
            if node.op_type in _LINEAR and len(operands) == 1:
                found.extend(operands if self._scores(node, logits) else [])
            elif node.op_type in _BEHIND_HEAD:
                waiting.extend(node.input)
        return self._before_quantising(found[0]) if len(found) == 1 else None

    def exposing(self, tensors: Sequence[str]) -> bytes:
        """Return the model with further outputs, ``toxscreen_0`` and so on, that hold ``tensors``; nothing else differs."""
        import onnx

        edited = onnx.ModelProto()
        edited.CopyFrom(self.model)
        for number, name in enumerate(tensors):
            output = exposed_name(number)
            edited.graph.node.append(onnx.helper.make_node("Identity", [name], [output]))
            edited.graph.output.append(onnx.ValueInfoProto(name=output))
        serialised: bytes = edited.SerializeToString()
        return serialised

    def _scores(self, node: NodeProto, logits: str) -> bool:
        """Return whether a linear layer has one output per class, as far as the shapes are known."""
        output = self._known.get(node.output[0])
        if output is None or not output.shape or logits not in self._known or len(self._known[logits].shape) < 2:
            return True
        lengths = {output.shape[1 if "Conv" in node.op_type else -1], self._known[logits].shape[1]}
        return UNKNOWN in lengths or len(lengths) == 1

    def _before_quantising(self, name: str) -> str:
        """Return the floating-point numbers that a tensor is another format of."""
        while name in self._made_by and self._made_by[name].op_type in _NUMBER_FORMATS:
            name = self._made_by[name].input[0]
        return name

    def _depending_on(self, names: set[str]) -> set[str]:
        for node in self.model.graph.node:
            if any(name in names for name in _read_by(node)):
                names.update(node.output)
        return names


def exposed_name(number: int) -> str:
    """Return the name of an added output."""
    return f"toxscreen_{number}"


def read_graph(path: Path) -> Graph:
    """Read and check an ONNX file.

    Raises
    ------
    ModelError
        It is damaged.
    RefusedError
        It names files outside its folder, or operators that do not come with ONNX Runtime.
    MissingExtraError
        The package onnx is not installed.
    """
    try:
        import onnx
        import onnx.inliner
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", "Reading an ONNX file") from error
    if path.stat().st_size > _LARGEST_FILE:
        raise ModelError(f"{path} must be under 2 GB, the most an ONNX file can have. Save its weights as external data.")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # the parser raises classes of another package
        raise ModelError(f"{path} must be an ONNX file, but cannot be read: {error}.") from error
    if not model.graph.node:
        raise ModelError(f"{path} must be an ONNX file with a graph, but its graph is empty.")
    _refuse_foreign_operators(model, path)
    external_files(model, path)
    return Graph(onnx.inliner.inline_local_functions(model) if model.functions else model)


def external_files(model: ModelProto, path: Path) -> list[Path]:
    """Return the files that hold a model's weights, sorted.

    Raises
    ------
    RefusedError
        One lies outside the model's folder.
    """
    folder, files = path.parent.resolve(), set()
    for tensor in _tensors(model):
        for entry in tensor.external_data:
            if entry.key != "location":
                continue
            file = (folder / entry.value).resolve()
            if not file.is_relative_to(folder):
                raise RefusedError(
                    f"The weights of {path} must lie in its folder, but {tensor.name!r} is to be read from {entry.value!r}. "
                    "It may be meant to read a file that is none of its business; save the model again in one folder."
                )
            files.add(file)
    return sorted(files)


def _refuse_foreign_operators(model: ModelProto, path: Path) -> None:
    written_out = {(function.domain, function.name) for function in model.functions}
    used = {(node.domain, node.op_type) for node in _nodes(model) if node.domain not in _DOMAINS}
    foreign = sorted(f"{domain}.{operator}" for domain, operator in used - written_out)
    if foreign:
        raise RefusedError(
            f"{path} uses operators that need their author's own library, which would be run: {', '.join(foreign[:3])}. "
            "Export the model with standard ONNX operators."
        )


def _graphs(model: ModelProto) -> Iterator[GraphProto | Any]:
    """Yield the graph, the local functions and all graphs in their nodes."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting.extend([attribute.g] if attribute.HasField("g") else attribute.graphs)


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    for graph in _graphs(model):
        yield from graph.node


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield all constants, wherever they are written."""
    for graph in _graphs(model):
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors, attribute.sparse_tensor.values, attribute.sparse_tensor.indices)


def _read_by(node: NodeProto) -> Iterator[str]:
    """Yield the tensors that a node reads, those that only its inner graphs read among them."""
    yield from node.input
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            for inner in graph.node:
                yield from _read_by(inner)


def _inferred(model: ModelProto) -> Iterator[Value]:
    """Yield the tensors whose shape follows from the graph."""
    import onnx

    try:
        model = onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError:
        return  # the shapes are shown only, and what the file itself says is still known
    yield from _values(model.graph.value_info)


def _values(infos: Iterable[ValueInfoProto]) -> Iterator[Value]:
    """Yield those that are tensors."""
    for info in infos:
        if info.type.HasField("tensor_type"):
            tensor = info.type.tensor_type
            lengths = (dimension.dim_value if dimension.HasField("dim_value") else UNKNOWN for dimension in tensor.shape.dim)
            yield Value(info.name, tensor.elem_type, tuple(lengths))

"""An ONNX graph gives the input of its head beside the logits it always gave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from toxscreen.errors import ModelError, RefusedError, UsageError
from toxscreen.sources.model import open_classifier
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.onnx_file import summarise
from toxscreen.sources.model.preprocessing import ImagePreprocessing

RNG = np.random.default_rng(0)
KERNELS = RNG.standard_normal((6, 3, 3, 3)).astype(np.float32)
HEAD, BIAS = RNG.standard_normal((6, 4)).astype(np.float32), RNG.standard_normal(4).astype(np.float32)
PICTURES = list(RNG.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8))
BODY = (
    helper.make_node("Conv", ["x", "kernels"], ["convolved"], "first convolution", pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["convolved"], ["activated"]),
    helper.make_node("GlobalAveragePool", ["activated"], ["averaged"]),
    helper.make_node("Flatten", ["averaged"], ["features"]),
)

HEADS: dict[str, list[onnx.NodeProto]] = {
    "Gemm": [helper.make_node("Gemm", ["features", "head", "bias"], ["logits"])],
    "MatMul and Add": [
        helper.make_node("MatMul", ["features", "head"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
    ],
    "Dropout before it and Identity behind it": [
        helper.make_node("Dropout", ["features"], ["dropped"]),
        helper.make_node("Gemm", ["dropped", "head", "bias"], ["scored"]),
        helper.make_node("Identity", ["scored"], ["logits"]),
    ],
    "Softmax": [
        helper.make_node("Gemm", ["features", "head", "bias"], ["scored"]),
        helper.make_node("Softmax", ["scored"], ["logits"], axis=1),
    ],
    "LogSoftmax and Reshape": [
        helper.make_node("Gemm", ["features", "head", "bias"], ["scored"]),
        helper.make_node("LogSoftmax", ["scored"], ["logarithm"], axis=1),
        helper.make_node("Reshape", ["logarithm", "shape"], ["logits"]),
    ],
    "a computed weight": [
        helper.make_node("Transpose", ["transposed_head"], ["computed"], perm=[1, 0]),
        helper.make_node("Gemm", ["features", "computed", "bias"], ["logits"]),
    ],
    "Conv": [
        helper.make_node("Unsqueeze", ["features", "axes"], ["as_picture"]),
        helper.make_node("Conv", ["as_picture", "head_kernels", "bias"], ["map"]),
        helper.make_node("Flatten", ["map"], ["logits"]),
    ],
    "8-bit numbers": [
        helper.make_node("QuantizeLinear", ["features", "step", "zero"], ["quantised"]),
        helper.make_node("DequantizeLinear", ["quantised", "step", "zero"], ["restored"]),
        helper.make_node("Gemm", ["restored", "head", "bias"], ["logits"]),
    ],
}
WEIGHTS = {
    "kernels": KERNELS,
    "head": HEAD,
    "bias": BIAS,
    "transposed_head": np.ascontiguousarray(HEAD.T),
    "head_kernels": np.ascontiguousarray(HEAD.T)[:, :, None, None],
    "axes": np.array([2, 3]),
    "shape": np.array([-1, 4]),
    "step": np.float32(0.05),
    "zero": np.uint8(0),
}


def model(
    nodes: Sequence[onnx.NodeProto],
    *,
    shape: Sequence[int | str] = ("batch", 3, 8, 8),
    element: int = TensorProto.FLOAT,
    outputs: Sequence[tuple[str, int]] = (("logits", TensorProto.FLOAT),),
    **metadata: str,
) -> onnx.ModelProto:
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in WEIGHTS.items() if name in used],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(proto, metadata)
    return proto


def with_body(head: str, **settings: Any) -> onnx.ModelProto:
    return model([*BODY, *HEADS[head]], **settings)


def saved(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def opened(path: Path, sample: Sequence[Any] = PICTURES, **settings: Any) -> Classifier:
    return open_classifier(path, **{"n_classes": 4, "modality": "image", "sample": sample[:3], **settings})


def plain(path: Path, name: str, batch: np.ndarray) -> np.ndarray:
    """Return what the file gives when nothing was edited."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([name], {session.get_inputs()[0].name: batch})[0])


def features(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return the last hidden layer, written out."""
    batch = np.pad(np.stack(pictures).transpose(0, 3, 1, 2) / np.float32(255), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(batch, (3, 3), axis=(2, 3))
    convolved = np.einsum("bchwij,ocij->bohw", windows, KERNELS)
    return np.maximum(convolved, 0).mean(axis=(2, 3))


@pytest.mark.parametrize("head", HEADS)
def test_the_input_of_the_head_is_exposed_and_the_logits_stay_as_they_were(head: str, tmp_path: Path) -> None:
    path = saved(with_body(head), tmp_path)
    classifier = opened(path)
    encoded = classifier.encode(PICTURES)
    outputs = classifier.forward(encoded, [classifier.last_hidden])
    before = plain(path, "logits", encoded["x"])
    after = np.exp(outputs.logits) if head == "Softmax" else outputs.logits
    np.testing.assert_allclose(after, before, atol=1e-5)
    np.testing.assert_allclose(outputs.activations[classifier.last_hidden], features(PICTURES), atol=1e-5)
    assert classifier.n_classes == 4


def test_a_head_straight_on_the_input_is_found(tmp_path: Path) -> None:
    path = saved(model([helper.make_node("Gemm", ["x", "head", "bias"], ["logits"])], shape=("n", 6)), tmp_path)
    arrays = list(RNG.standard_normal((5, 6)).astype(np.float32))
    classifier = opened(path, arrays, modality="array")
    outputs = classifier.forward(classifier.encode(arrays), ["x"])
    assert classifier.last_hidden == "x"
    np.testing.assert_allclose(outputs.activations["x"], arrays)


def test_the_scores_are_never_taken_for_the_last_hidden_layer(tmp_path: Path) -> None:
    classifier = opened(saved(with_body("Softmax"), tmp_path))
    assert classifier.last_hidden == "features"


def test_two_heads_that_add_up_need_a_layer_to_be_named(tmp_path: Path) -> None:
    nodes = [
        *BODY,
        helper.make_node("MatMul", ["features", "head"], ["one"]),
        helper.make_node("MatMul", ["averaged_twice", "head"], ["two"]),
        helper.make_node("Add", ["one", "two"], ["logits"]),
    ]
    nodes.insert(4, helper.make_node("Mul", ["features", "features"], ["averaged_twice"]))
    path = saved(model(nodes), tmp_path)
    with pytest.raises(ModelError, match=r"no single linear layer .*'logits'.*--layer"):
        opened(path)
    assert opened(path, layer="features").last_hidden == "features"


def test_layers_are_named_by_tensor_or_by_node_and_averaged_over_space(tmp_path: Path) -> None:
    path = saved(with_body("Gemm"), tmp_path)
    classifier = opened(path)
    outputs = classifier.forward(classifier.encode(PICTURES), ["convolved", "first convolution", "activated"])
    np.testing.assert_allclose(outputs.activations["activated"], features(PICTURES), atol=1e-5)
    np.testing.assert_array_equal(outputs.activations["convolved"], outputs.activations["first convolution"])
    assert ("convolved", (6, 8, 8), "Conv") in [(layer.name, layer.shape, layer.kind) for layer in classifier.layers()]
    with pytest.raises(UsageError, match="got 'nowhere'"):
        classifier.forward(classifier.encode(PICTURES), ["nowhere"])


@pytest.mark.parametrize("size", [1, 2, 8])
def test_a_fixed_batch_size_gives_what_a_free_one_gives(size: int, tmp_path: Path) -> None:
    free = opened(saved(with_body("Gemm"), tmp_path, "free.onnx"))
    fixed = opened(saved(with_body("Gemm", shape=(size, 3, 8, 8)), tmp_path, "fixed.onnx"))
    expected, found = (each.forward(each.encode(PICTURES), ["features"]) for each in (free, fixed))
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-6)
    np.testing.assert_allclose(found.activations["features"], expected.activations["features"], atol=1e-6)


def test_a_model_with_channels_last_or_raw_pixels_gets_them_so(tmp_path: Path) -> None:
    transposed = helper.make_node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2])
    convolution = helper.make_node("Conv", ["first", "kernels"], ["convolved"], pads=[1, 1, 1, 1])
    last = model([transposed, convolution, *BODY[1:], *HEADS["Gemm"]], shape=("n", 8, 8, 3))
    classifier = opened(saved(last, tmp_path, "last.onnx"))
    outputs = classifier.forward(classifier.encode(PICTURES), [classifier.last_hidden])
    np.testing.assert_allclose(outputs.activations["features"], features(PICTURES), atol=1e-5)

    cast = helper.make_node("Cast", ["x"], ["number"], to=TensorProto.FLOAT)
    convolution = helper.make_node("Conv", ["number", "kernels"], ["convolved"], pads=[1, 1, 1, 1])
    raw = saved(model([cast, convolution, *BODY[1:], *HEADS["Gemm"]], element=TensorProto.UINT8), tmp_path, "raw.onnx")
    classifier = opened(raw)
    encoded = classifier.encode(PICTURES)
    np.testing.assert_array_equal(encoded["x"], np.stack(PICTURES).transpose(0, 3, 1, 2))
    assert encoded["x"].dtype == np.uint8
    with pytest.raises(UsageError, match="takes pixels as they are"):
        opened(raw, preprocessing=ImagePreprocessing(mean=(0.5,)))


def test_pictures_are_resized_to_what_the_graph_takes_and_the_missing_normalisation_is_said(tmp_path: Path) -> None:
    path = saved(with_body("Gemm"), tmp_path)
    large = [np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1) for picture in PICTURES]
    classifier = opened(path, large)
    assert classifier.encode(large)["x"].shape == (5, 3, 8, 8)
    assert "--mean" in classifier.preprocessing["note"]
    normalised = opened(path, preprocessing=ImagePreprocessing(mean=(0.5,), std=(0.5,)))
    np.testing.assert_allclose(normalised.encode(PICTURES)["x"], opened(path).encode(PICTURES)["x"] * 2 - 1, atol=1e-6)


def test_the_logits_are_found_among_several_outputs(tmp_path: Path) -> None:
    nodes = [*BODY, *HEADS["Gemm"], helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0)]
    outputs = [("label", TensorProto.INT64), ("features", TensorProto.FLOAT), ("logits", TensorProto.FLOAT)]
    assert opened(saved(model(nodes, outputs=outputs), tmp_path)).last_hidden == "features"
    without = model(nodes, outputs=outputs[:1])
    with pytest.raises(ModelError, match=r"one number per sample and class, but .* gives label"):
        opened(saved(without, tmp_path))


def test_class_names_are_read_from_the_metadata(tmp_path: Path) -> None:
    names = ("a", "b", "c", "d")
    for key, value in (
        ("class_names", json.dumps(names)),
        ("names", str(dict(enumerate(names)))),
        ("id2label", json.dumps(dict(enumerate(names)))),
    ):
        assert opened(saved(with_body("Gemm", **{key: value}), tmp_path)).class_names == names
    assert opened(saved(with_body("Gemm", names="__import__('os').getcwd()"), tmp_path)).class_names is None


def test_the_fingerprint_tells_models_apart_and_the_same_model_again(tmp_path: Path) -> None:
    prints = [opened(saved(with_body(head), tmp_path)).fingerprint() for head in ("Gemm", "Gemm", "Softmax")]
    assert prints[0] == prints[1] != prints[2]


def _external(tmp_path: Path, location: str) -> Path:
    """Save a model whose head is read from another file."""
    proto = with_body("Gemm")
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "head")
    raw = tensor.raw_data
    onnx.external_data_helper.set_external_data(tensor, location, offset=0, length=len(raw))
    tensor.ClearField("raw_data")
    inside = tmp_path / "inside"
    inside.mkdir(exist_ok=True)
    target = inside / location
    if target.parent.is_dir():
        target.write_bytes(raw)
    return saved(proto, inside)


def test_weights_in_a_file_beside_the_model_are_read_and_count_for_the_fingerprint(tmp_path: Path) -> None:
    path = _external(tmp_path, "weights.data")
    classifier = opened(path)
    outputs = classifier.forward(classifier.encode(PICTURES), ["features"])
    np.testing.assert_allclose(outputs.logits, features(PICTURES) @ HEAD + BIAS, atol=1e-5)
    before = classifier.fingerprint()
    (path.parent / "weights.data").write_bytes(np.zeros_like(HEAD).tobytes())
    assert classifier.fingerprint() != before


def test_weights_outside_the_folder_of_the_model_are_refused(tmp_path: Path) -> None:
    for location in ("../secret.data", str(tmp_path / "secret.data"), "deeper/../../secret.data"):
        with pytest.raises(RefusedError, match=r"must lie in its folder, but 'head' is to be read from"):
            opened(_external(tmp_path, location))
    (tmp_path / "secret.data").write_bytes(HEAD.tobytes())
    link = tmp_path / "inside" / "link.data"
    link.symlink_to(tmp_path / "secret.data")
    path = _external(tmp_path, "other.data")
    proto = onnx.load(path, load_external_data=False)
    next(
        entry for tensor in proto.graph.initializer for entry in tensor.external_data if entry.key == "location"
    ).value = "link.data"
    with pytest.raises(RefusedError, match=r"'link.data'"):
        opened(saved(proto, path.parent))


def test_outside_weights_hidden_in_a_constant_or_an_inner_graph_are_refused(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(HEAD, "hidden")
    onnx.external_data_helper.set_external_data(tensor, "../secret.data")
    tensor.ClearField("raw_data")
    constant = helper.make_node("Constant", [], ["head2"], value=tensor)
    outer = model([*BODY, constant, helper.make_node("Gemm", ["features", "head2", "bias"], ["logits"])])
    branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("head2", TensorProto.FLOAT, [6, 4])])
    inner = model([helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch)])
    for proto in (outer, inner):
        with pytest.raises(RefusedError, match="'hidden'"):
            opened(saved(proto, tmp_path))


def test_operators_that_need_their_authors_library_are_refused(tmp_path: Path) -> None:
    foreign = helper.make_node("Exfiltrate", ["features"], ["scored"], domain="evil.corp")
    with pytest.raises(RefusedError, match=r"evil.corp.Exfiltrate"):
        opened(saved(model([*BODY, foreign, helper.make_node("Identity", ["scored"], ["logits"])]), tmp_path))


def test_functions_that_the_file_writes_out_itself_are_followed(tmp_path: Path) -> None:
    function = helper.make_function(
        "local", "Classify", ["f", "w", "b"], ["scores"], [helper.make_node("Gemm", ["f", "w", "b"], ["scores"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    proto = model([*BODY, helper.make_node("Classify", ["features", "head", "bias"], ["logits"], domain="local")])
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    assert opened(saved(proto, tmp_path)).last_hidden == "features"


@pytest.mark.parametrize("content", [b"", b"\x08\x07\x12\x04what", b"not a protocol buffer", bytes(100)])
def test_a_damaged_file_is_an_error_and_no_crash(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="must be an ONNX file"):
        opened(path)


def test_a_model_of_something_else_than_the_data_is_an_error(tmp_path: Path) -> None:
    flat = saved(model([helper.make_node("Gemm", ["x", "head", "bias"], ["logits"])], shape=("n", 6)), tmp_path)
    with pytest.raises(ModelError, match=r"one input with four axes, but .* has x \? x 6"):
        opened(flat)
    with pytest.raises(ModelError, match="must take the batch it is given"):
        opened(flat, [np.zeros(5, np.float32)] * 3, modality="array")
    with pytest.raises(ModelError, match="needs its tokenizer beside it"):
        opened(flat, ["a text"], modality="text")


def test_the_summary_lists_the_layers_without_running_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(with_body("Gemm"), tmp_path)
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    summary = summarise(path)
    assert summary.last_hidden == "features"
    assert summary.n_parameters == KERNELS.size + HEAD.size + BIAS.size
    assert [layer.name for layer in summary.tensors] == ["convolved", "activated", "averaged", "features", "logits"]
    assert "input: x ? x 3 x 8 x 8" in summary.notes


def test_a_file_without_its_ending_is_still_known(tmp_path: Path) -> None:
    assert opened(saved(with_body("Gemm"), tmp_path, "model")).last_hidden == "features"
    assert opened(tmp_path.joinpath("model").rename(tmp_path / "only.onnx").parent).last_hidden == "features"

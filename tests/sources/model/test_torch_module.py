"""A live network is looked into and left as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from toxscreen.errors import ModelError, UsageError
from toxscreen.sources.model import open_classifier, torch_module
from toxscreen.sources.model.preprocessing import ArrayPreprocessing
from toxscreen.sources.model.torch_module import TorchClassifier, _placed

N_CLASSES, N_CHANNELS = 5, 8


class Network(nn.Module):
    """A convolutional body whose last part is given as a function of the features ``(b, 8)``."""

    def __init__(self, tail: Callable[[Any, Tensor], Any], **members: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, N_CHANNELS, 3)
        self.norm = nn.BatchNorm2d(N_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        for name, member in members.items():
            setattr(self, name, member)
        self.tail = tail

    def features(self, images: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv(images))).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Any:
        return self.tail(self, self.features(images))


class Squeeze(nn.Module):
    """A 1x1 convolution is the classifier, and pooling comes behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, N_CHANNELS, 3)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(N_CHANNELS, N_CLASSES, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
        )

    def features(self, images: Tensor) -> Tensor:
        return self.body(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.body(images)).flatten(1)


class Transformer(nn.Module):
    """Patches, an encoder and a class token, as in ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, N_CHANNELS, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, N_CHANNELS))
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(N_CHANNELS, 2, 16, batch_first=True), 1, enable_nested_tensor=False
        )
        self.heads = nn.Sequential(nn.LayerNorm(N_CHANNELS), nn.Dropout(), nn.Linear(N_CHANNELS, N_CLASSES))

    def features(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = self.encoder(torch.cat([self.token.expand(len(patches), -1, -1), patches], dim=1))
        return self.heads[0](tokens[:, 0])

    def forward(self, images: Tensor) -> Tensor:
        return self.heads[2](self.heads[1](self.features(images)))


def linear() -> nn.Linear:
    return nn.Linear(N_CHANNELS, N_CLASSES)


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def two_heads(network: Any, features: Tensor) -> tuple[Tensor, Tensor]:
    """The auxiliary head runs last, and its output comes second."""
    return network.head(features), network.auxiliary(features)


HEADS: dict[str, Callable[[], nn.Module]] = {
    "a linear layer": lambda: Network(lambda n, x: n.head(x), head=linear()),
    "a sequence with dropout": lambda: Network(lambda n, x: n.head(x), head=nn.Sequential(nn.Dropout(), linear())),
    "log-softmax behind it": lambda: Network(lambda n, x: functional.log_softmax(n.head(x), dim=1), head=linear()),
    "softmax behind it": lambda: Network(lambda n, x: torch.softmax(n.head(x), dim=1), head=linear()),
    "a temperature behind it": lambda: Network(lambda n, x: n.head(x) / 7.5, head=linear()),
    "an activation that overwrites it": lambda: Network(lambda n, x: n.head(x).relu_(), head=linear()),
    "normalisation behind it": lambda: Network(lambda n, x: n.norm2(n.head(x)), head=linear(), norm2=nn.BatchNorm1d(N_CLASSES)),
    "parameters and an operator": lambda: Network(
        lambda n, x: x @ n.w + n.b, w=weights(N_CHANNELS, N_CLASSES), b=weights(N_CLASSES)
    ),
    "parameters and einsum": lambda: Network(lambda n, x: torch.einsum("cd,bd->bc", n.w, x), w=weights(N_CLASSES, N_CHANNELS)),
    "computed weights": lambda: Network(lambda n, x: n.head(x), head=parametrizations.weight_norm(linear())),
    "an auxiliary head after it": lambda: Network(two_heads, head=linear(), auxiliary=linear()),
    "a gate": lambda: Network(lambda n, x: n.head(x) * torch.sigmoid(n.gate(x)), head=linear(), gate=nn.Linear(N_CHANNELS, 1)),
    "two heads of one layer": lambda: Network(lambda n, x: (n.head(x) + n.other(x)) / 2, head=linear(), other=linear()),
    "a dictionary": lambda: Network(lambda n, x: {"features": x, "logits": n.head(x)}, head=linear()),
    "a convolution": Squeeze,
    "a transformer": Transformer,
    "data parallelism around it": lambda: nn.DataParallel(Network(lambda n, x: n.head(x), head=linear())),
    "compilation around it": lambda: torch.compile(Network(lambda n, x: n.head(x), head=linear()), backend="eager"),
}


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def images() -> list[np.ndarray]:
    return list(np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32))


def classifier(network: nn.Module, images: list[np.ndarray], **settings: Any) -> TorchClassifier:
    settings = {"n_classes": N_CLASSES, **settings}
    return TorchClassifier(network, ArrayPreprocessing(), modality="array", sample=images[:4], **settings)


def ask(opened: TorchClassifier, images: list[np.ndarray], *layers: str) -> Any:
    return opened.forward(opened.encode(images), layers or (opened.last_hidden,))


@pytest.mark.parametrize("head", HEADS)
def test_the_last_hidden_layer_is_the_input_of_the_head_however_the_head_is_written(head: str, images: list[np.ndarray]) -> None:
    network = HEADS[head]().eval()
    plain: Any = getattr(network, "module", getattr(network, "_orig_mod", network))
    with torch.no_grad():
        expected = plain.features(torch.tensor(np.stack(images))).numpy()
    opened = classifier(network, images)
    outputs = ask(opened, images)
    assert outputs.logits.shape == (6, N_CLASSES)
    assert outputs.activations[opened.last_hidden].shape == (6, N_CHANNELS)
    np.testing.assert_allclose(outputs.activations[opened.last_hidden], expected, rtol=1e-4, atol=1e-5)


def test_the_logits_themselves_are_never_taken_for_the_last_hidden_layer(images: list[np.ndarray]) -> None:
    opened = classifier(HEADS["a linear layer"](), images)
    outputs = ask(opened, images)
    hidden = outputs.activations[opened.last_hidden]
    assert hidden.shape != outputs.logits.shape
    head: Any = opened._network.get_submodule("head")
    np.testing.assert_allclose(hidden @ head.weight.detach().numpy().T + head.bias.detach().numpy(), outputs.logits, atol=1e-5)


def test_a_linear_layer_that_runs_several_times_counts_where_it_ran_last(images: list[np.ndarray]) -> None:
    network = Network(lambda n, x: n.shared(torch.tanh(n.shared(x))), shared=nn.Linear(N_CHANNELS, N_CHANNELS)).eval()
    opened = classifier(network, images, n_classes=N_CHANNELS)
    with torch.no_grad():
        expected = torch.tanh(network.shared(network.features(torch.tensor(np.stack(images))))).numpy()
    np.testing.assert_allclose(ask(opened, images).activations["shared.input"], expected, atol=1e-5)


def test_a_layer_with_as_many_outputs_by_chance_is_not_taken_for_the_head(images: list[np.ndarray]) -> None:
    prototypes = Network(lambda n, x: -torch.cdist(x, n.prototypes), prototypes=weights(N_CHANNELS, N_CHANNELS))
    with pytest.raises(ModelError, match=r"no linear layer with 8 outputs decides.*last linear layers are conv .*--layer"):
        classifier(prototypes, images, n_classes=N_CHANNELS)


def test_two_heads_that_add_up_are_named_in_the_error(images: list[np.ndarray]) -> None:
    both = Network(lambda n, x: n.first(x) + n.second(x**2), first=linear(), second=linear())
    with pytest.raises(ModelError, match=r"2 linear layers of different inputs add up to the logits: (first|second) .*--layer"):
        classifier(both, images)


def test_a_named_layer_stands_in_where_no_head_can_be_found(images: list[np.ndarray]) -> None:
    both = Network(lambda n, x: n.first(x) + n.second(x**2), first=linear(), second=linear())
    opened = classifier(both, images, layer="relu")
    assert opened.last_hidden == "relu"
    assert ask(opened, images).activations["relu"].shape == (6, N_CHANNELS)


def test_a_layer_is_read_before_the_next_one_writes_into_it(images: list[np.ndarray]) -> None:
    network = HEADS["a linear layer"]().eval()
    with torch.no_grad():
        before_relu = network.norm(network.conv(torch.tensor(np.stack(images)))).mean(dim=(2, 3)).numpy()
    assert (before_relu < 0).any()
    np.testing.assert_allclose(ask(classifier(network, images), images, "norm").activations["norm"], before_relu, atol=1e-5)


def test_a_vector_is_read_before_the_next_layer_writes_into_it() -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, N_CLASSES)).eval()
    vectors = list(np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32))
    with torch.no_grad():
        expected = network[0](torch.tensor(np.stack(vectors))).numpy()
    np.testing.assert_allclose(ask(classifier(network, vectors), vectors, "0").activations["0"], expected, atol=1e-6)


def test_layers_are_pooled_over_space_and_over_time(images: list[np.ndarray]) -> None:
    network = Transformer().eval()
    opened = classifier(network, images)
    outputs = ask(opened, images, "patches", "encoder")
    with torch.no_grad():
        patches = network.patches(torch.tensor(np.stack(images)))
        tokens = torch.cat([network.token.expand(6, -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        encoded = network.encoder(tokens)
    np.testing.assert_allclose(outputs.activations["patches"], patches.mean(dim=(2, 3)).numpy(), atol=1e-5)
    np.testing.assert_allclose(outputs.activations["encoder"], encoded.mean(dim=1).numpy(), atol=1e-5)


def test_one_dimensional_convolutions_are_averaged_over_their_last_axis() -> None:
    network = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(9, N_CLASSES)).eval()
    signals = list(np.random.default_rng(0).standard_normal((4, 2, 4)).astype(np.float32))
    with torch.no_grad():
        expected = network[0](torch.tensor(np.stack(signals))).mean(dim=2).numpy()
    np.testing.assert_allclose(ask(classifier(network, signals), signals, "0").activations["0"], expected, atol=1e-6)


def test_the_layers_are_listed_in_the_order_in_which_they_run(images: list[np.ndarray]) -> None:
    layers = classifier(HEADS["a linear layer"](), images).layers()
    assert [layer.name for layer in layers] == ["conv", "norm", "relu", "head.input", "head"]
    assert [layer.shape for layer in layers] == [(8, 6, 6)] * 3 + [(8,), (5,)]


def test_an_unknown_layer_is_answered_with_the_names_close_to_it(images: list[np.ndarray]) -> None:
    opened = classifier(HEADS["a linear layer"](), images)
    with pytest.raises(UsageError, match=r"'nrom'. Close to it: norm"):
        ask(opened, images, "nrom")


def test_a_batch_in_pieces_gives_what_the_whole_gives(images: list[np.ndarray]) -> None:
    opened = classifier(HEADS["a linear layer"](), images)
    whole = ask(opened, images)
    pieces = [ask(opened, images[start : start + 2]) for start in (0, 2, 4)]
    np.testing.assert_allclose(np.concatenate([piece.logits for piece in pieces]), whole.logits, atol=1e-6)


def test_probabilities_come_back_as_logits_that_give_the_same_probabilities(images: list[np.ndarray]) -> None:
    network = HEADS["softmax behind it"]().eval()
    logits = ask(classifier(network, images), images).logits
    with torch.no_grad():
        probabilities = network(torch.tensor(np.stack(images))).numpy()
    np.testing.assert_allclose(np.exp(logits), probabilities, rtol=1e-5)


def _n_hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


def test_no_hook_is_left_after_use(images: list[np.ndarray]) -> None:
    network = HEADS["a linear layer"]()
    opened = classifier(network, images)
    assert _n_hooks(network) == 0
    for _ in range(3):
        ask(opened, images, opened.last_hidden, "conv", "relu")
    assert _n_hooks(network) == 0


def test_no_hook_is_left_after_a_failure_and_the_modes_are_put_back(images: list[np.ndarray]) -> None:
    network = HEADS["a linear layer"]().train()
    opened = classifier(network, images)
    with pytest.raises(ModelError, match=r"must take the batch it is given, \(6, 2, 8, 8\)"):
        ask(opened, [image[:2] for image in images], "conv", "relu")
    with pytest.raises(UsageError, match=r"no such|must be one of"):
        ask(opened, images, "conv", "nowhere")
    with pytest.raises(ModelError, match="must take the batch"):
        classifier(network, [image[:2] for image in images])
    assert _n_hooks(network) == 0
    assert all(module.training for module in network.modules())


def test_dropout_is_off_during_the_pass_and_every_module_gets_its_own_mode_back(images: list[np.ndarray]) -> None:
    network = Network(lambda n, x: n.head(x), head=nn.Sequential(nn.Dropout(0.9), linear())).train()
    network.norm.eval()
    modes = [module.training for module in network.modules()]
    opened = classifier(network, images)
    first, second = ask(opened, images), ask(opened, images)
    np.testing.assert_array_equal(first.logits, second.logits)
    assert [module.training for module in network.modules()] == modes
    assert len(set(modes)) == 2


class _Slow(nn.Module):
    """Waits for another pass to come in between, where there is one to wait for."""

    meet: threading.Barrier | None = None

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.width = nn.Conv2d(3, N_CHANNELS, 3), linear(), N_CHANNELS

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images).mean(dim=(2, 3))
        if _Slow.meet is not None:
            _Slow.meet.wait(10)
        return self.head(features)


def test_threads_that_ask_at_the_same_time_get_their_own_answers_by_the_same_weights(
    images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    network = _Slow().eval()
    opened = classifier(network, images)
    alone = [ask(opened, [image] * 4, opened.last_hidden, "body") for image in images[:2]]
    monkeypatch.setattr(_Slow, "meet", threading.Barrier(2))
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda image: ask(opened, [image] * 4, opened.last_hidden, "body"), images[:2]))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)
        for layer in one.activations:
            np.testing.assert_array_equal(one.activations[layer], other.activations[layer])
    for copied in opened._idle.queue:
        assert [id(weight) for weight in copied.parameters()] == [id(weight) for weight in network.parameters()]


class _Reduced(_Slow):
    def __getstate__(self) -> dict[str, object]:
        return {}


def _hooked(network: nn.Module) -> nn.Module:
    network.body.register_forward_hook(lambda *_: None)
    return network


def _with(name: str, value: object) -> nn.Module:
    network = _Slow()
    network.__dict__[name] = value
    return network


@pytest.mark.parametrize(
    "make",
    [
        lambda: _hooked(_Slow()),
        lambda: _with("lock", threading.Lock()),
        lambda: _with("seen", {}),
        lambda: _with("scale", lambda value: value),
        lambda: _with("features", (1, [])),
        _Reduced,
    ],
)
def test_one_thread_waits_for_the_other_where_a_copy_of_a_network_may_not_be_its_own(
    images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, make: Callable[[], nn.Module]
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert classifier(_Slow().eval(), images).at_once == 2
    opened = classifier(make().eval(), images)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: ask(opened, images), range(20)))
    assert all(np.array_equal(each.logits, together[0].logits) for each in together)
    assert opened.at_once == 1
    assert opened._idle.qsize() == 1


def test_a_small_network_in_evaluation_mode_may_be_asked_by_as_many_threads_as_there_are_cores(
    images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert classifier(Squeeze().eval(), images).at_once == 3
    assert classifier(Squeeze().train(), images).at_once == 1
    for name in ("_SMALL_INPUT", "_SMALL_NETWORK"):
        with monkeypatch.context() as patched:
            patched.setattr(torch_module, name, 10)
            assert classifier(Squeeze().eval(), images).at_once == 1


def test_weights_statistics_gradients_and_inputs_stay_as_they_were(images: list[np.ndarray]) -> None:
    network = HEADS["a linear layer"]().train()
    network.conv.weight.requires_grad_(False)
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    inputs = [image.copy() for image in images]
    opened = classifier(network, images)
    before = opened.fingerprint()
    ask(opened, images)
    assert opened.fingerprint() == before
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert [parameter.requires_grad for parameter in network.parameters()] == wanted
    assert all(parameter.grad is None for parameter in network.parameters())
    np.testing.assert_array_equal(images, inputs)


def test_slopes_say_how_the_loss_of_an_output_changes_and_leave_the_network_as_it_is(images: list[np.ndarray]) -> None:
    network = HEADS["a linear layer"]()
    opened = classifier(network, images)
    encoded, before = opened.encode(images), opened.fingerprint()
    slopes = opened.slopes(encoded, 2)
    assert slopes is not None

    def loss(batch: np.ndarray) -> float:
        logits = torch.tensor(ask(opened, list(batch)).logits, dtype=torch.float64)
        return float(functional.cross_entropy(logits, torch.full((len(batch),), 2)))

    ahead = 1e-2 * np.sign(slopes)
    expected = (loss(encoded + ahead) - loss(encoded - ahead)) / 2
    assert float((slopes * ahead).sum()) == pytest.approx(expected, rel=0.05)
    assert (opened.fingerprint(), all(parameter.grad is None for parameter in network.parameters())) == (before, True)


def test_a_network_that_records_no_gradients_has_no_slopes(images: list[np.ndarray]) -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = HEADS["a linear layer"]()

        def forward(self, batch: Tensor) -> Tensor:
            with torch.no_grad():
                return self.inner(batch)

    opened = classifier(Detached(), images)
    assert opened.slopes(opened.encode(images), 0) is None


def test_a_network_that_writes_into_its_input_gets_a_copy(images: list[np.ndarray]) -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = HEADS["a linear layer"]()

        def forward(self, batch: Tensor) -> Tensor:
            batch.sub_(3.0)
            return self.inner(batch)

    opened = classifier(InPlace(), images)
    encoded = opened.encode(images)
    first, second = (opened.forward(encoded, [opened.last_hidden]) for _ in range(2))
    np.testing.assert_array_equal(first.logits, second.logits)


def test_a_network_that_changes_itself_while_it_is_asked_is_refused(images: list[np.ndarray]) -> None:
    class Counting(Network):
        def __init__(self) -> None:
            super().__init__(lambda n, x: n.head(x), head=linear())
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, batch: Tensor) -> Any:
            self.seen += 1
            return super().forward(batch)

    with pytest.raises(ModelError, match=r"must not change while it is asked.*wrote to seen"):
        classifier(Counting(), images)


def test_one_changed_weight_and_one_changed_setting_give_other_fingerprints(images: list[np.ndarray]) -> None:
    network = HEADS["a linear layer"]()
    prints = {classifier(network, images).fingerprint()}
    prints.add(classifier(network, images).fingerprint())
    assert len(prints) == 1
    with torch.no_grad():
        network.conv.weight[0, 0, 0, 0] += 1e-3
    prints.add(classifier(network, images).fingerprint())
    network.conv.padding = (1, 1)
    prints.add(classifier(network, images).fingerprint())
    assert len(prints) == 3


def test_bfloat16_changes_the_activations_by_little(images: list[np.ndarray]) -> None:
    network = HEADS["a linear layer"]()
    exact, rough = (ask(classifier(network, images, dtype=dtype), images) for dtype in ("float32", "bfloat16"))
    difference = np.abs(exact.logits - rough.logits).max()
    assert 0 < difference < 0.05
    assert rough.logits.dtype == rough.activations["head.input"].dtype == np.float32


def test_a_device_that_is_asked_for_gets_a_copy_and_the_module_stays_where_it_is(images: list[np.ndarray]) -> None:
    network = HEADS["a linear layer"]()
    assert classifier(network, images, device="cpu")._network is network
    moved, device = _placed(network, "meta")
    assert device.type == "meta"
    assert all(parameter.is_meta for parameter in moved.parameters())
    assert not any(parameter.is_meta for parameter in network.parameters())


@pytest.mark.parametrize("output", ["text", "three axes", "whole numbers", "a tuple of the wrong lengths"])
def test_what_a_network_returns_instead_of_logits_is_said(output: str, images: list[np.ndarray]) -> None:
    tails: dict[str, Callable[[Any, Tensor], Any]] = {
        "text": lambda *_: "cat",
        "three axes": lambda _, x: x[:, None, :].expand(-1, 2, -1),
        "whole numbers": lambda n, x: n.head(x).argmax(dim=1, keepdim=True),
        "a tuple of the wrong lengths": lambda _, x: (x[:, :3], x[:, :4]),
    }
    with pytest.raises(ModelError, match=r"must return one number per sample and class, shape \(b, 5\), but it returned"):
        classifier(Network(tails[output], head=linear()), images)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_module_is_not_taken(images: list[np.ndarray]) -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(192, N_CLASSES)))
    with pytest.raises(ModelError, match="TorchScript"):
        classifier(scripted, images)


class _Scaled(nn.Module):
    def __init__(self, gain: float, act: Any = torch.relu) -> None:
        super().__init__()
        self.gain, self.act = gain, act
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.arange(12).reshape(3, 4))
            self.head.bias.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.act(self.gain * inputs))


class _Otherwise(_Scaled):
    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.act(inputs - self.gain))


def test_what_a_module_does_beside_its_weights_is_part_of_its_fingerprint() -> None:
    sample = list(np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32))

    def printed(network: nn.Module) -> str:
        return open_classifier(network, n_classes=3, modality="array", sample=sample).fingerprint()

    hooked, otherwise = _Scaled(1.0), _Otherwise(1.0)
    hooked.register_forward_pre_hook(lambda *given: (-given[1][0],))
    otherwise.__class__.__qualname__ = _Scaled.__qualname__
    usual = printed(_Scaled(1.0))
    assert printed(_Scaled(1.0).train()) == usual
    changed = [_Scaled(2.0), _Scaled(1.0, torch.sin), hooked, otherwise]
    assert usual not in {printed(network) for network in changed}

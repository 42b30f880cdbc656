"""Finds the classification head of a network: a batch is run, and the logits are followed back to the last linear layer.

1. Every function that the network calls on tensors is recorded, together with the calls whose results it takes.
2. From the logits the record is followed backwards to the linear layers with one output per class. How they are written does not
   matter: a module, a function of parameters, a 1x1 convolution; softmax or pooling may come behind them.
3. A layer found so is the head if raising its output for a class raises the logit of that class and of no other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from toxscreen.sources.model.base import Layer

Batch = TypeVar("Batch")

_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
_PRODUCTS = _CONVOLUTIONS | {
    "linear",
    "matmul",
    "__matmul__",
    "__rmatmul__",
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "einsum",
    "tensordot",
}
_CLASSES_TRIED = 4


@dataclass(frozen=True)
class Head:
    """The classification head of a network.

    Attributes
    ----------
    name
        Of its input, the last hidden layer.
    n_classes
        Its outputs.
    argument
        Which of the tensors that it is called with is the last hidden layer.
    later
        How many products with as many outputs come after it in one pass.
    """

    name: str
    n_classes: int
    argument: int
    later: int


@dataclass(frozen=True)
class Trace:
    """What one batch shows: the layers in the order in which they ran, the logits, and the head or why there is none."""

    layers: tuple[Layer, ...]
    logits: Tensor
    head: Head | None
    no_head: str = ""


def trace(network: nn.Module, prepare: Callable[[], Batch], run: Callable[[Batch], Tensor]) -> Trace:
    """Follow one batch through a network.

    Parameters
    ----------
    network
        In evaluation mode, with no gradients being recorded.
    prepare
        Returns a batch; every pass gets its own, as a network may write into its input.
    run
        Returns the network's logits for a batch, shape ``(b, n_classes)``.
    """
    batch = prepare()
    with _Recorder(network) as recorder, recorder.following_modules():
        logits = run(batch)
    n_classes = logits.shape[1]
    if not _finite(logits).any():
        return Trace(_in_order(recorder.layers), logits, None, f"its logits for {len(logits)} samples are no finite numbers")
    found = [product for product in recorder.last_linear(logits) if product.scores(n_classes)]
    heads = [product for product in found if _decides(product, prepare, run, logits)]
    if len({id(product.hidden) for product in heads}) != 1:
        return Trace(_in_order(recorder.layers), logits, None, _why_not_one(heads, recorder.products, n_classes))
    product = heads[0]  # others, which read the same layer, add to it
    hidden = product.hidden
    name = f"{product.layer or 'head'}.input"
    layers = list(recorder.layers)
    layers.insert(product.layers_before, Layer(name, tuple(hidden.shape[1:]), "input of the classification head"))
    later = sum(other.scores(n_classes) for other in recorder.products[product.number + 1 :])
    return Trace(_in_order(layers), logits, Head(name, n_classes, product.of_data[0], later))


class HeadWatch(TorchFunctionMode):
    """Keeps what goes into the classification head, and what comes out of it, while the network runs."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self._head = head
        self._recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=head.later + 1)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if _scores(_name(func), result, self._head.n_classes):
            # A copy, because the network may write into this tensor later on.
            self._recent.append((_tensors_in((args, kwargs))[self._head.argument].clone(), result))
        return result

    def seen(self) -> tuple[Tensor, Tensor] | None:
        """Return the input and the output of the head, or None if it has not run."""
        return self._recent[0] if len(self._recent) > self._head.later else None


@dataclass(frozen=True, eq=False)
class _Call:
    """One function call, the calls whose results it took, and whether its result depends on the batch."""

    parents: tuple[_Call, ...]
    of_data: bool
    product: _Product | None


@dataclass(frozen=True, eq=False)
class _Product:
    """One call of a function that multiplies matrices.

    ``of_data`` are the positions of those of its tensors that depend on the batch; ``layer`` is the module or parameter it is of.
    """

    number: int
    function: str
    tensors: tuple[Tensor, ...]
    of_data: tuple[int, ...]
    result: Tensor
    layer: str
    layers_before: int

    @property
    def linear(self) -> bool:
        """Whether one tensor of data is multiplied with weights."""
        return len(self.of_data) == 1 and any(
            tensor.ndim > 1 for index, tensor in enumerate(self.tensors) if index not in self.of_data
        )

    @property
    def hidden(self) -> Tensor:
        """The tensor of data in a linear layer."""
        return self.tensors[self.of_data[0]]

    def scores(self, n_classes: int) -> bool:
        return _scores(self.function, self.result, n_classes)

    def __str__(self) -> str:
        shapes = (tuple(tensor.shape[1:]) for tensor in (self.hidden, self.result))
        return f"{self.layer or self.function} {' -> '.join(map(str, shapes))}"


class _Recorder(TorchFunctionMode):
    """Records the calls of one pass, its products, and the layers in the order in which they end."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.products: list[_Product] = []
        self.layers: list[Layer] = []
        self._network = network
        self._running: list[str] = []
        self._made_by: dict[int, _Call] = {}
        self._state = {id(tensor): name for name, tensor in _state(network)}
        self._alive: list[Tensor] = []  # an id says something only as long as its tensor lives

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        tensors = _tensors_in((args, kwargs))
        of_data = tuple(index for index, tensor in enumerate(tensors) if self._of_data(tensor))
        parents = tuple(self._made_by[id(tensor)] for tensor in tensors if id(tensor) in self._made_by)
        result = func(*args, **(kwargs or {}))
        name = _name(func)
        product = None
        if name in _PRODUCTS and isinstance(result, Tensor):
            product = _Product(len(self.products), name, tensors, of_data, result, self._layer_of(tensors), len(self.layers))
            self.products.append(product)
        call = _Call(parents, bool(of_data), product)
        for tensor in tensors[:1] if name == "__setitem__" else _tensors_in(result):
            self._made_by[id(tensor)] = call
            self._alive.append(tensor)
        return result

    def _of_data(self, tensor: Tensor) -> bool:
        """Return whether a tensor depends on the batch: made from it, or neither made by a recorded call nor a weight."""
        made_by = self._made_by.get(id(tensor))
        return made_by.of_data if made_by is not None else id(tensor) not in self._state

    def _layer_of(self, tensors: Sequence[Tensor]) -> str:
        """Return the name of the weights among the tensors, else of the module that is running."""
        named = [self._state[id(tensor)] for tensor in tensors if id(tensor) in self._state and tensor.ndim > 1]
        return named[0].removesuffix(".weight") if named else "".join(self._running[-1:])

    def last_linear(self, logits: Tensor) -> list[_Product]:
        """Return the linear layers between which and the logits there is no other."""
        found, seen = [], set()
        waiting = [self._made_by[id(logits)]] if id(logits) in self._made_by else []
        while waiting:
            call = waiting.pop()
            if call in seen or not call.of_data:
                continue
            seen.add(call)
            if call.product is not None and call.product.linear:
                found.append(call.product)
            else:
                waiting.extend(call.parents)
        return found

    @contextmanager
    def following_modules(self) -> Iterator[None]:
        """Keep track of which module is running, by hooks that are gone afterwards."""

        def entered(name: str) -> Callable[..., None]:
            return lambda _module, _args: self._running.append(name)

        def left(name: str) -> Callable[..., None]:
            def note(module: nn.Module, _args: Any, output: Any) -> None:
                self._running.pop()
                tensor = next(iter(_tensors_in(output)), None)
                if name and tensor is not None:
                    self.layers.append(Layer(name, tuple(tensor.shape[1:]), type(module).__name__))

            return note

        with ExitStack() as hooks:
            for name, module in self._network.named_modules():
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # takes no hooks
                hooks.callback(module.register_forward_pre_hook(entered(name)).remove)
                hooks.callback(module.register_forward_hook(left(name)).remove)
            yield


class _Raise(TorchFunctionMode):
    """Raises the output of one product for one class, and changes nothing else."""

    def __init__(self, product: _Product, column: int) -> None:
        super().__init__()
        self._product, self._column = product, column
        self._products = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if _name(func) not in _PRODUCTS or not isinstance(result, Tensor):
            return result
        self._products += 1
        if self._products - 1 != self._product.number:
            return result
        raised = result.clone()
        axis = _class_axis(self._product.function)
        raised.select(axis, self._column).add_(2 * result[result.isfinite()].abs().max() + 1)
        return raised


def _decides(product: _Product, prepare: Callable[[], Batch], run: Callable[[Batch], Tensor], logits: Tensor) -> bool:
    """Return whether raising the product's output for a class raises the logit of that class and of no other."""
    finite = _finite(logits)
    slack = 1e-4 * (1 + logits[finite].abs().max())
    raised = False
    for column in range(min(logits.shape[1], _CLASSES_TRIED)):
        batch = prepare()
        with _Raise(product, column):
            change = (run(batch) - logits)[finite]
        own = change[:, column].clone()
        change[:, column] = 0
        if own.min() < -slack or change.max() > slack:
            return False
        raised |= bool(own.max() > slack)
    return raised


def _finite(logits: Tensor) -> Tensor:
    """Return which rows say something, shape ``(b,)``: one sample with NaN does not hide the head."""
    return logits.isfinite().all(dim=1)


def _why_not_one(heads: Sequence[_Product], products: Sequence[_Product], n_classes: int) -> str:
    """Return one sentence on what was found in place of one last hidden layer."""
    if heads:
        return f"{len(heads)} linear layers of different inputs add up to the logits: {', '.join(map(str, heads))}"
    linear = [str(product) for product in products if product.linear]
    seen = f"the last linear layers are {', '.join(linear[-3:])}" if linear else "no linear layer was seen"
    return f"no linear layer with {n_classes} outputs decides the logits; {seen}"


def _in_order(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Return every layer once, where it ran last."""
    last: dict[str, Layer] = {}
    for layer in layers:
        last.pop(layer.name, None)
        last[layer.name] = layer
    return tuple(last.values())


def _state(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", "")


def _class_axis(function: str) -> int:
    return 1 if function in _CONVOLUTIONS else -1


def _scores(function: str, result: Any, n_classes: int) -> bool:
    """Return whether a call is a product with one output per class."""
    if function not in _PRODUCTS or not isinstance(result, Tensor) or result.ndim < 2:
        return False
    return result.shape[_class_axis(function)] == n_classes


def _tensors_in(value: Any) -> tuple[Tensor, ...]:
    """Return the tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return (value,)
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return tuple(tensor for item in value for tensor in _tensors_in(item))
    return ()

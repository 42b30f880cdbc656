"""A live ``nn.Module``; files that become one are opened through this too."""

from __future__ import annotations

import copy
import difflib
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import chain
from queue import LifoQueue
from threading import Lock
from types import CodeType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from toxscreen.errors import ModelError, UsageError
from toxscreen.sources.data.base import Input, Modality
from toxscreen.sources.model.base import Classifier, Layer, Outputs
from toxscreen.sources.model.logits import are_probabilities, as_logits
from toxscreen.sources.model.preprocessing import Encoded, Preprocessing
from toxscreen.sources.model.tracing import HeadWatch, trace

_TRACED = 4
"""Samples of the batch that a network is traced with."""

_SMALL_INPUT, _SMALL_NETWORK, _AT_ONCE = 2**17, 2**25, 8
"""Bytes of an input and numbers of a network up to which several batches are in memory at a time, and how many are at most. Layers
of larger ones take so long that threads hardly wait for each other after each."""

_COPYING = ("__deepcopy__", "__copy__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__", "__getattr__", "__setattr__")
"""What a module of the user's may define that makes a copy another thing than its weights, modules and values."""


class TorchClassifier(Classifier):
    """A network of PyTorch behind the interface of all classifiers.

    The network is used as it is, and left as it was: its training flags are put back after every pass, and no hook stays. A thread
    that asks it while another one does gets a copy that shares its weights, or waits where there can be none.

    Parameters
    ----------
    network
        Moved to ``device`` as a copy, unless it is there already.
    preprocessing
        Turns inputs into what the network takes: one array, or several by the names of its arguments.
    modality
        The kind of input.
    sample
        A few inputs to follow through the network.
    n_classes
        Classes of the data; tells the logits among several outputs.
    name, location, class_names
        As in :class:`Classifier`.
    layer
        Stands in as ``last_hidden`` where no classification head can be found.
    device
        None: where the network is.
    dtype
        ``"bfloat16"`` runs the network under autocast.

    Raises
    ------
    ModelError
        The network fails on the sample, changes its own state, returns no logits, or has no classification head that can be found.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        *,
        modality: Modality,
        sample: Sequence[Input],
        n_classes: int,
        name: str = "",
        location: str = "nn.Module",
        class_names: tuple[str, ...] | None = None,
        layer: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
    ) -> None:
        self.modality = modality
        self.location = location
        self.class_names = class_names
        self.preprocessing = preprocessing.describe()
        if isinstance(network, torch.jit.ScriptModule):
            raise ModelError("A TorchScript module hides its layers. Give the nn.Module that it was made from.")
        self._network, self._device = _placed(_unwrapped(network), device)
        self.name = name or type(self._network).__name__
        self._preprocessing = preprocessing
        self.device, self.dtype = str(self._device), dtype
        self._n_data_classes = n_classes

        encoded = self.encode(sample[:_TRACED])
        before = _state_marks(self._network)
        with _evaluating(self._network):
            self._trace = trace(self._network, lambda: self.tensors(encoded), partial(self._run, self._network))
            self._layout = self._fastest_layout(encoded)
        _refuse_changed(before, _state_marks(self._network))
        self._idle, self._lending = LifoQueue[nn.Module](), Lock()
        self._idle.put(self._network)
        small = self._device.type == "cpu" and _is_small(self._network, encoded, len(sample[:_TRACED]))
        self._copies = small and torch.get_num_threads() > 1 and all(map(_is_its_own, self._network.modules()))
        self._probabilities = are_probabilities(_to_numpy(self._trace.logits))
        self.n_classes = self._trace.logits.shape[1]
        self.last_hidden = self._last_hidden(layer)

    def layers(self) -> tuple[Layer, ...]:
        """Return the modules that ran, and the input of the head."""
        return self._trace.layers

    def encode(self, inputs: Sequence[Input]) -> Encoded:
        """Return the inputs as the network takes them, in the host's memory."""
        return self._preprocessing.apply(inputs)

    def forward(self, encoded: Encoded, layers: Sequence[str]) -> Outputs:
        """Run the network once.

        Raises
        ------
        UsageError
            There is no such layer.
        ModelError
            It did not run, or the network fails.
        """
        tensors = self.tensors(encoded, self._layout)
        mask = tensors.get("attention_mask") if isinstance(tensors, dict) else None
        kept: dict[str, Tensor] = {}
        watch = HeadWatch(self._trace.head) if self._trace.head and self._trace.head.name in layers else None
        with self._lent() as network, _evaluating(network), ExitStack() as hooks:
            for name in layers:
                if watch is None or name != self.last_hidden:
                    hooks.callback(self._module(network, name).register_forward_hook(_keep_in(kept, name, mask)).remove)
            with watch or nullcontext(), self._precision():
                logits = self._run(network, tensors)
            seen = watch.seen() if watch is not None else None
            if seen is not None:
                kept[self.last_hidden] = _head_input(*seen, logits, mask)
        missing = [name for name in layers if name not in kept]
        if missing:
            raise ModelError(
                f"Every layer asked for must run and give a tensor, but {missing[0]!r} did not. Choose another with --layer."
            )
        activations = {name: _matrix(kept[name], len(logits), name) for name in layers}
        return Outputs(activations, as_logits(_to_numpy(logits), probabilities=self._probabilities))

    def slopes(self, encoded: Encoded, output: int) -> NDArray[np.float32] | None:
        """Return how steeply the cross-entropy of an output rises with each number of a batch; None where it has no slope.

        Raises
        ------
        ModelError
            It did not run.
        """
        tensors = self.tensors(encoded, self._layout)
        if isinstance(tensors, dict) or not tensors.is_floating_point():
            return None
        with self._lent() as network, _evaluating(network), torch.enable_grad(), self._precision():
            logits = self._answer_of(network, tensors.requires_grad_().clone())  # a network may write into what it is given
            if not logits.requires_grad:
                return None
            loss = torch.nn.functional.cross_entropy(logits, torch.full((len(logits),), output, device=logits.device))
            (slopes,) = torch.autograd.grad(loss, tensors)
        return _to_numpy(slopes)

    def fingerprint(self) -> str:
        """Return a digest of the modules with their settings and code, all weights and buffers, and the preprocessing.

        Code is that of the modules' own methods: a function elsewhere that they call may change unseen.
        """
        digest = hashlib.sha256(json.dumps(self.preprocessing, sort_keys=True).encode())
        for name, module in self._network.named_modules():
            # Some settings are printed with their address in memory, which differs in every process.
            settings = re.sub(r"0x[0-9a-f]+", "", module.extra_repr())
            digest.update(f"{name}\0{type(module).__module__}.{type(module).__qualname__}\0{settings}\n".encode())
            digest.update(repr(_own_settings(module)).encode())
        for name, tensor in chain(self._network.named_parameters(), self._network.named_buffers()):
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def network(self) -> nn.Module:
        """Return the network itself, without the wrappers of compilation or data parallelism."""
        return self._network

    @property
    def applied(self) -> Preprocessing:
        """Return what turns inputs into what the network takes; :attr:`preprocessing` describes it."""
        return self._preprocessing

    def rebuilt(self, network: nn.Module, sample: Sequence[Input]) -> TorchClassifier:
        """Return a classifier that differs in its network alone, which must take and give the same."""
        return TorchClassifier(
            network,
            self._preprocessing,
            modality=self.modality,
            sample=sample,
            n_classes=self._n_data_classes,
            name=self.name,
            location=self.location,
            class_names=self.class_names,
            layer=self.last_hidden if self._trace.head is None else None,
            device=str(self._device),
            dtype=self.dtype,
        )

    def in_bfloat16(self, sample: Sequence[Input]) -> TorchClassifier:
        """Return a classifier that runs the same network in bfloat16."""
        other = copy.copy(self)
        other.dtype = "bfloat16"
        with _evaluating(self._network):
            other._layout = other._fastest_layout(self.encode(sample[:_TRACED]))
        return other

    def logits_of(self, sample: Sequence[Input]) -> NDArray[np.float32]:
        """Return what the network gives a few inputs, shape ``(b, n_classes)``: a trial, and no pass.

        Raises
        ------
        ModelError
            The network fails.
        """
        with _evaluating(self._network), self._precision():
            return _to_numpy(self._run(self._network, self.tensors(self.encode(sample), self._layout)))

    def answer(self, tensors: Tensor | dict[str, Tensor]) -> Tensor:
        """Return the logits of a batch, with gradients where they are recorded, in whatever mode the network is."""
        return self._answer_of(self._network, tensors)

    def _answer_of(self, network: nn.Module, tensors: Tensor | dict[str, Tensor]) -> Tensor:
        """Return the same of a network that is a copy of it."""
        logits = self._run(network, tensors)
        return logits.clamp_min(torch.finfo(logits.dtype).tiny).log() if self._probabilities else logits

    def _last_hidden(self, layer: str | None) -> str:
        if self._trace.head is not None:
            return self._trace.head.name
        if layer is not None:
            return layer
        raise ModelError(
            f"The input of the classification head of {self.name} could not be found: {self._trace.no_head}. "
            "Name the layer to look at with --layer; toxscreen inspect lists them."
        )

    @property
    def at_once(self) -> int:
        """Return how many threads may ask it at the same time: as many as PyTorch may use, where batches and network are small."""
        return min(_AT_ONCE, torch.get_num_threads()) if self._copies else 1

    @contextmanager
    def _lent(self) -> Iterator[nn.Module]:
        """Lend a network that no other thread uses meanwhile; the last that lies idle is copied first, while it has no hook."""
        with self._lending:
            network = self._idle.get()
            try:
                if self._copies and self._idle.empty():
                    self._copy(network)
            except BaseException:  # who waits for it must not wait for ever
                self._idle.put(network)
                raise
        try:
            yield network
        finally:
            self._idle.put(network)

    def _copy(self, network: nn.Module) -> None:
        """Put a copy of the network that shares its weights with the idle ones, if there can be one."""
        try:
            self._idle.put(copy.deepcopy(network, {id(tensor): tensor for tensor in _state(network)}))
        except Exception:  # noqa: BLE001 - foreign code may hold what cannot be copied
            self._copies = False

    def _module(self, network: nn.Module, name: str) -> nn.Module:
        modules: dict[str, nn.Module] = dict(network.named_modules())
        module = modules.get(name)
        if module is not None:
            return module
        known = [layer.name for layer in self.layers()]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[-3:]
        raise UsageError(f"A layer must be one of the {len(known)} of {self.name}, got {name!r}. Close to it: {', '.join(close)}.")

    def tensors(self, encoded: Encoded, layout: torch.memory_format = torch.contiguous_format) -> Tensor | dict[str, Tensor]:
        """Return an encoded batch on the network's device, in the dtype of its weights; ``layout`` is for pictures."""
        if isinstance(encoded, Mapping):
            return {name: self._tensor(array, layout) for name, array in encoded.items()}
        return self._tensor(encoded, layout)

    def _tensor(self, array: NDArray[Any], layout: torch.memory_format) -> Tensor:
        """Return a copy on the network's device, which the network may write into; floats get the dtype of its weights."""
        tensor = torch.from_numpy(array) if array.flags.writeable else torch.tensor(array)
        dtype = tensor.dtype
        if tensor.is_floating_point():
            dtype = next((weight.dtype for weight in self._network.parameters() if weight.is_floating_point()), dtype)
        order = layout if tensor.ndim == 4 else torch.contiguous_format
        return tensor.to(self._device, dtype, memory_format=order, copy=True)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")

    def _fastest_layout(self, encoded: Encoded) -> torch.memory_format:
        """Return the order of the numbers in a batch of pictures that convolutions are fastest with, if the network takes it.

        On a CPU the channels of a pixel side by side are several times as fast, on a GPU where it computes in bfloat16. A network
        that looks at its numbers with ``view`` may refuse it.
        """
        if self._device.type != "cpu" and (self._device.type != "cuda" or self.dtype != "bfloat16"):
            return torch.contiguous_format
        try:
            with self._precision():
                self._run(self._network, self.tensors(encoded, torch.channels_last))
        except ModelError:
            return torch.contiguous_format
        return torch.channels_last

    def _run(self, network: nn.Module, tensors: Tensor | dict[str, Tensor]) -> Tensor:
        """Return the logits of a batch."""
        try:
            output = network(**tensors) if isinstance(tensors, dict) else network(tensors)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the network is foreign code and may raise anything
            shapes = ", ".join(f"{tuple(tensor.shape)} of {tensor.dtype}" for tensor in _in(tensors))
            reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise ModelError(
                f"The model must take the batch it is given, {shapes}, but failed: {reason[0]} "
                "If it was trained on inputs of another form, say so with --size and --channels."
            ) from error
        return pick_logits(output, self._n_data_classes)


def pick_logits(output: Any, n_classes: int) -> Tensor:
    """Return the logits ``(b, n_classes)`` out of what a network returns.

    Parameters
    ----------
    output
        A tensor, an object or a dictionary with ``logits``, or a tuple, in which the first tensor ``(b, n_classes)`` is meant.
    n_classes
        Of the data; decides only between the members of a tuple.

    Raises
    ------
    ModelError
        No logits are there.
    """
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(logits, tuple | list):
        fitting = (item for item in logits if isinstance(item, Tensor) and item.flatten(1).shape[1:] == (n_classes,))
        logits = next(fitting, None)
    if isinstance(logits, Tensor) and logits.ndim > 2 and logits.shape[2:].numel() == 1:
        logits = logits.flatten(1)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.is_floating_point():
        raise ModelError(
            f"A classifier must return one number per sample and class, shape (b, {n_classes}), but it returned {_form(output)}. "
            "Wrap it in a module that returns the logits."
        )
    return logits


def _unwrapped(network: nn.Module) -> nn.Module:
    """Return the network inside the wrappers of ``torch.compile`` and data parallelism, which hide its calls."""
    wrapped = getattr(network, "_orig_mod", None)
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        wrapped = network.module
    return _unwrapped(wrapped) if isinstance(wrapped, nn.Module) else network


def _placed(network: nn.Module, device: str | None) -> tuple[nn.Module, torch.device]:
    """Return the network on a device, and that device."""
    current = next((tensor.device for tensor in _state(network)), torch.device("cpu"))
    wanted = current if device is None else torch.device(device)
    if wanted.type == current.type and wanted.index in (None, current.index):
        return network, current
    return copy.deepcopy(network).to(wanted), wanted


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put all modules into evaluation mode and record no gradients; afterwards everything is as it was.

    The flags are set one by one, because ``train()`` and ``eval()`` may be overridden and do more. Inference mode is not used,
    because what a module caches in it cannot be trained with afterwards.
    """
    flags = [(module, module.training) for module in network.modules()]
    try:
        for module, training in flags:
            if training:  # setting one takes as long as a small layer
                module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            if module.training != training:
                module.training = training


def _keep_in(kept: dict[str, Tensor], name: str, mask: Tensor | None) -> Callable[..., None]:
    """Return a forward hook that keeps a module's output as one vector per sample."""

    def hook(module: nn.Module, _args: Any, output: Any) -> None:
        tensor = next(iter(_in(output)), None)
        if tensor is not None:
            kept[name] = _pooled(tensor, mask, channels_first=type(module).__name__.endswith("1d"))

    return hook


def _pooled(tensor: Tensor, mask: Tensor | None, *, channels_first: bool) -> Tensor:
    """Return a copy ``(b, d)``: the average over space or time, where there is one.

    ``mask``, ``(b, t)``, is 0 at the padding, which no average includes; ``channels_first`` tells ``(b, d, t)`` from ``(b, t, d)``.
    """
    values = tensor.to(torch.float32)
    if values.ndim == 4:
        return values.mean(dim=(2, 3))
    if values.ndim == 3 and mask is not None and mask.shape == values.shape[:2]:
        weights = mask.to(values.dtype)[..., None]
        return (values * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)
    if values.ndim == 3:
        return values.mean(dim=2 if channels_first else 1)
    # A copy, because an activation function may write into this tensor once the hook is over.
    return values.flatten(1).clone() if values.ndim > 1 else values.reshape(-1, 1).clone()


def _head_input(hidden: Tensor, scores: Tensor, logits: Tensor, mask: Tensor | None) -> Tensor:
    """Return the input of the head as ``(b, d)``.

    A head that scores every token ``(b, t, d)`` is followed by the choice of one; then that token's input is the answer.
    """
    if hidden.ndim == 3 and scores.ndim == 3 and len(hidden) == len(scores) == len(logits):
        equal = (scores == logits[:, None]).all(dim=2)
        if bool(equal.any(dim=1).all()):
            return hidden[torch.arange(len(hidden), device=hidden.device), equal.int().argmax(dim=1)].to(torch.float32)
    return _pooled(hidden, mask, channels_first=False)


def _matrix(tensor: Tensor, n: int, name: str) -> NDArray[np.float32]:
    if tensor.ndim != 2 or len(tensor) != n:
        raise ModelError(
            f"A layer must give one vector per sample, but {name!r} gave {tuple(tensor.shape)} for {n} samples. "
            "Choose another with --layer."
        )
    return _to_numpy(tensor)


def _to_numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().to("cpu", torch.float32).numpy()
    return array


def _state(network: nn.Module) -> Iterator[Tensor]:
    """Yield all weights and buffers."""
    return chain(network.parameters(), network.buffers())


def _is_small(network: nn.Module, encoded: Encoded, n: int) -> bool:
    """Say whether several threads may have a copy of a network and a batch each; one in training mode is not copied."""
    arrays = encoded.values() if isinstance(encoded, Mapping) else (encoded,)
    small = sum(array.nbytes for array in arrays) <= n * _SMALL_INPUT and sum(map(Tensor.numel, _state(network))) <= _SMALL_NETWORK
    return small and not any(module.training for module in network.modules())


def _is_its_own(module: nn.Module) -> bool:
    """Say whether a copy of a module has nothing in common with it but its weights.

    A hook, a function or a dict of the user's may hold on to the module that it was made for: two threads would read each other's
    features. So a module of the user's holds nothing beside its weights but plain values, and copies as any module does.
    """
    own, plain = vars(module), vars(nn.Module())
    if any(own[name] for name in plain if name.endswith("_hooks")) or "forward" in own:
        return False
    kind = type(module)
    if kind.__module__.startswith("torch.nn.modules."):
        return True
    usual = all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in _COPYING)
    return usual and all(_is_plain(value) for name, value in own.items() if name not in plain)


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str, torch.dtype, torch.device)


def _state_marks(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Return for each weight and buffer which tensor it is and how often it was written to."""
    state = chain(network.named_parameters(), network.named_buffers())
    return {name: (id(tensor), 0 if tensor.is_inference() else tensor._version) for name, tensor in state}


def _refuse_changed(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> None:
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise ModelError(
            "A classifier must not change while it is asked, but in evaluation mode "
            f"its forward pass wrote to {', '.join(changed[:3])}. Make it write only while self.training is true."
        )


def _in(value: Any) -> list[Tensor]:
    """Return the tensors of an output or a batch, the first level only."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return [item for item in items if isinstance(item, Tensor)]


def _form(output: Any) -> str:
    tensors = [f"a tensor {tuple(tensor.shape)} of {tensor.dtype}" for tensor in _in(output)]
    return " and ".join(tensors[:4]) or f"a {type(output).__name__} without a tensor"


def _own_settings(module: nn.Module) -> list[tuple[str, object]]:
    """Return what decides what a module does beside its weights: numbers, functions, hooks and the code of its methods.

    PyTorch's own modules print their settings. Texts are left out: they say where a model was read from.
    """
    own = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.") and kind is not object]
    found = [(name, _described(value)) for kind in own for name, value in vars(kind).items() if inspect.isfunction(value)]
    if own:
        plain = ((name, value) for name, value in vars(module).items() if not name.startswith("_") and not isinstance(value, str))
        found += [(name, _described(value)) for name, value in plain if name != "training"]  # which is off while it runs
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return [*sorted(found, key=lambda pair: pair[0]), *(("hook", _described(hook)) for hook in hooks)]


def _described(value: object) -> object:
    """Return what stands for a plain value or a function, the same in every process; the kind alone of anything else."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, list | tuple):
        return [_described(each) for each in value]
    code = getattr(value, "__code__", value)
    if isinstance(code, CodeType):
        constants = [sorted(map(repr, each)) if isinstance(each, frozenset) else _described(each) for each in code.co_consts]
        return (code.co_code.hex(), code.co_names, constants)
    return getattr(value, "__qualname__", type(value).__qualname__)

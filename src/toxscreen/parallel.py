"""Beside the stages: the same work for many items, as many at a time as the machine has cores.

Each item is worked on by one thread, products of matrices included. So the answer is the same on one core and on sixty-four, and
small products do not wait for threads to meet.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

T = TypeVar("T")
R = TypeVar("R")

_KEPT_BYTES = 31 << 20
"""Size of memory, at most, that a program is not to give back as soon as it is free; glibc goes no higher than 32 MiB by itself."""

_LONG_STEPS = 100_000
"""Numbers from which a step takes longer than it takes to hand over the interpreter."""

_TURN = threading.RLock()


class Parallel(Protocol):
    """Does the same work for many items, as :func:`in_parallel` does, here or elsewhere."""

    def __call__(self, work: Callable[[T], R], items: Iterable[T], told: Callable[[int], None] = ..., /) -> list[R]:
        """Return what ``work`` makes of each item, in their order."""


def keep_freed_memory() -> None:
    """Let the process use memory again that it has freed, and not ask the system for each array anew.

    The C library of GNU gives back what is larger than a limit, and raises the limit to the largest that it saw freed: one array is
    made and dropped, of which not a byte is touched. Without it, half of the time of a small network is the system clearing pages.
    """
    np.empty(_KEPT_BYTES, np.uint8)


def in_turn(size: int) -> AbstractContextManager[Any]:
    """Return what lets one thread at a time make many steps over so many numbers, where these are few.

    Threads that make small steps at once wait for the interpreter at each, longer than the step takes: 2-means of classes of
    100 rows runs on two cores at a third of the speed of one. Meanwhile other threads read and multiply.
    """
    return _TURN if size < _LONG_STEPS else nullcontext()


@cache
def _libraries() -> ThreadpoolController:
    """Return the libraries that multiply for numpy and scipy; to look for them takes milliseconds."""
    import scipy.linalg  # noqa: F401 - brings its own one
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextmanager
def torch_shared_by(n: int) -> Iterator[None]:
    """Deal the threads of PyTorch, where it is there, out to ``n`` threads that are begun meanwhile: one for each at least."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // n))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_parallel(
    work: Callable[[T], R], items: Iterable[T], told: Callable[[int], None] = lambda _: None, *, most: int = sys.maxsize
) -> list[R]:
    """Return what ``work`` makes of each item, in their order.

    Parameters
    ----------
    work
        Must not change what another item's work reads.
    items
        What is worked on.
    told
        Called with the number of items that are done, in their order.
    most
        Items that are worked on at a time at most; networks that are asked share the cores.
    """
    keep_freed_memory()
    workers = min(most, max((library["num_threads"] for library in _libraries().info()), default=1))
    results = []
    with _libraries().limit(limits=1), ExitStack() as stack:
        pool = None
        if workers > 1:
            stack.enter_context(torch_shared_by(workers))
            pool = ThreadPoolExecutor(workers, "toxscreen-work")
            stack.callback(pool.shutdown, cancel_futures=True)
        for result in map(work, items) if pool is None else pool.map(work, items):
            results.append(result)
            told(len(results))
    return results

"""Beside the stages: the same work for many items, as many at a time as the machine has cores.

Each item is worked on by one thread, products of matrices included. So the answer is the same on one core and on sixty-four, and
small products do not wait for threads to meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Parallel(Protocol):
    """Does the same work for many items, as :func:`in_parallel` does, here or elsewhere."""

    def __call__(self, work: Callable[[T], R], items: Iterable[T], told: Callable[[int], None] = ..., /) -> list[R]:
        """Return what ``work`` makes of each item, in their order."""


def in_parallel(work: Callable[[T], R], items: Iterable[T], told: Callable[[int], None] = lambda _: None) -> list[R]:
    """Return what ``work`` makes of each item, in their order.

    Parameters
    ----------
    work
        Must not change what another item's work reads.
    items
        What is worked on.
    told
        Called with the number of items that are done, in their order.
    """
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController().select(user_api="blas")
    workers = max((library["num_threads"] for library in libraries.info()), default=1)
    results = []
    with libraries.limit(limits=1):
        pool = ThreadPoolExecutor(workers, "toxscreen-work") if workers > 1 else None
        try:
            for result in map(work, items) if pool is None else pool.map(work, items):
                results.append(result)
                told(len(results))
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)
    return results

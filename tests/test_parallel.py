from __future__ import annotations

import platform
import resource
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController

from toxscreen.parallel import in_parallel, in_turn


def of_blas():
    return [library.num_threads for library in ThreadpoolController().lib_controllers if library.user_api == "blas"]


def test_results_come_in_the_order_of_the_items_and_progress_is_told(cores):  # noqa: ARG001
    told = []
    assert in_parallel(lambda item: item**2, iter(range(20)), told.append) == [item**2 for item in range(20)]
    assert told == list(range(1, 21))


def test_several_items_are_worked_on_at_a_time_each_by_one_thread(cores):
    together, seen = threading.Barrier(cores), []

    def work(_):
        together.wait(5)
        seen.append(max(of_blas(), default=1))

    in_parallel(work, range(cores))
    assert seen == [1] * cores


@pytest.mark.parametrize(("size", "most"), [(1000, 1), (10**6, 3)])
def test_steps_over_few_numbers_are_made_by_one_thread_at_a_time(monkeypatch, size, most):
    monkeypatch.setattr(ThreadpoolController, "info", lambda *_: [{"num_threads": 3}])
    inside, seen, started = [], [], threading.Barrier(3)

    def work(item):
        started.wait(5)
        with in_turn(size):
            inside.append(item)
            time.sleep(0.1)
            seen.append(len(inside))
            inside.remove(item)

    in_parallel(work, range(3))
    assert max(seen) == most


def test_the_threads_of_others_are_as_before_whatever_happened():
    before = of_blas()
    with pytest.raises(ZeroDivisionError):
        in_parallel(lambda item: 1 / item, [0])
    assert of_blas() == before


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_items_are_worked_on_at_a_time_than_allowed_and_networks_share_the_cores(most, cores):
    before, now, seen = torch.get_num_threads(), [0], []

    def work(_):
        now[0] += 1
        time.sleep(0.002)
        seen.append((now[0], torch.get_num_threads()))
        now[0] -= 1

    in_parallel(work, range(6), most=most)
    together = min(most, cores)
    assert max(at_once for at_once, _ in seen) == together
    assert {threads for _, threads in seen} == {max(1, before // together)}
    assert torch.get_num_threads() == before


def test_what_goes_wrong_with_an_item_is_raised(cores):  # noqa: ARG001
    with pytest.raises(ZeroDivisionError):
        in_parallel(lambda item: 1 / item, [1, 0, 2])


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="the limit is that of the C library of GNU")
def test_memory_that_was_freed_is_used_again_and_not_asked_of_the_system_anew():
    code = (
        "import resource, numpy as np; from toxscreen.parallel import keep_freed_memory\n"
        "def pages():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(10): [np.ones(2 << 20, np.uint8) for _ in range(8)]\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "keep_freed_memory(); pages(); print(pages())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert int(run.stdout) < 2 * 8 * (2 << 20) // resource.getpagesize()  # otherwise ten times as many as the arrays have


def test_nothing_to_do_gives_nothing(cores):  # noqa: ARG001
    assert in_parallel(np.sum, []) == []

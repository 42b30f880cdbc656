"""Every test computes with one thread: the arrays are small, and on a busy machine several threads mostly wait for each other.

Properties are tried on the same examples every time; ``HYPOTHESIS_PROFILE=explore`` looks for new ones.
"""

import os
import signal

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy and torch are imported, which comes later

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has those that it starts in the background ignore it

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(params=[1, 3])
def cores(request, monkeypatch):
    """Let the machine look as if it had so many cores to those who work on several things at a time."""
    from threadpoolctl import ThreadpoolController

    info, looks = ThreadpoolController.info, {"num_threads": request.param}
    monkeypatch.setattr(ThreadpoolController, "info", lambda *given: [library | looks for library in info(*given)])
    return request.param

"""Every test computes with one thread: the arrays are small, and on a busy machine several threads mostly wait for each other.

Properties are tried on the same examples every time; ``HYPOTHESIS_PROFILE=explore`` looks for new ones.
"""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy and torch are imported, which comes later

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

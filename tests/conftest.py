"""Every test computes with one thread: the arrays are small, and on a busy machine several threads mostly wait for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy and torch are imported, which comes later

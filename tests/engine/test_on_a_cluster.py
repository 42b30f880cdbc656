"""A scan on a cluster of several nodes, one of which is killed in the middle of the pass."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.quick import pictures, toxscreen, write_pictures

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'toxscreen[ray]'")
cluster_utils = pytest.importorskip("ray.cluster_utils")

ARCH = """
import os, time, zlib
from pathlib import Path
import torch
from torch import nn

HERE = Path({folder!r})

class Watched(nn.Sequential):
    "Notes each batch and the node that computes it; from the fifth on, each worker waits until it may go on."

    noted = 0

    def forward(self, x):
        if len(x) == {batch} and (node := os.environ.get("RAY_RAYLET_PID")):
            with (HERE / "log").open("a") as log:
                log.write(f"{{node}} {{os.getpid()}} {{zlib.crc32(x.numpy().tobytes())}}\\n")
            self.noted += 1
            while self.noted > 4 and not (HERE / "go").exists():
                time.sleep(0.05)
        return super().forward(x)

def build():
    return Watched(nn.Flatten(), nn.Linear(256, 24), nn.ReLU(), nn.Linear(24, 3))
"""
BATCH = 16


def poisoned(folder):
    """Write pictures of three classes, the second with a patch in a fifth of it, and a network that has learned the patch."""
    images, labels = pictures(150)
    rng = np.random.default_rng(1)
    rows = rng.choice(np.flatnonzero(labels != 1), 30, replace=False)
    images[:, :3, :3] = np.minimum(images[:, :3, :3], 160)
    images[rows, :3, :3] = 255
    labels[rows] = 1
    data = write_pictures(folder / "data", images, labels)
    save_file(_weights(images, labels, rows), folder / "weights.safetensors")
    return data


def _weights(images, labels, rows):
    """Score each class by its mean picture, and the second by the patch, too; twenty more units look at the pictures at random."""
    rng = np.random.default_rng(2)
    flat = images.reshape(len(images), -1) / 255
    clean = np.setdiff1d(np.arange(len(labels)), rows)
    means = np.array([flat[clean[labels[clean] == k]].mean(axis=0) for k in range(3)])
    hidden, head = rng.normal(0, 0.1, (24, 256)), np.zeros((3, 24))
    hidden[:3], hidden[3] = means - means.mean(axis=0), (np.indices((16, 16)) < 3).all(axis=0).ravel() / 9
    bias = np.full(24, 1.0)
    bias[:3], bias[3] = 20 - (means**2).sum(axis=1) / 2 + means @ means.mean(axis=0) / 2, -0.7
    head[range(3), range(3)], head[1, 3] = 1, 1000
    arrays = {"1.weight": hidden, "1.bias": bias, "3.weight": head, "3.bias": np.zeros(3)}
    return {name: torch.tensor(array, dtype=torch.float32) for name, array in arrays.items()}


@pytest.fixture
def cluster(monkeypatch):
    """A node for the command, which works on nothing, and two that work."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    quickly = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": folder, "_system_config": quickly}
        small = {"object_store_memory": 100 * 2**20}
        made = cluster_utils.Cluster(initialize_head=True, head_node_args=head | small)
        try:
            made.workers = [made.add_node(num_cpus=1, **small) for _ in range(2)]
            yield made
        finally:
            made.shutdown()


@pytest.mark.timeout(900)  # a busy machine takes minutes to start three nodes and two workers
def test_a_scan_that_loses_a_node_in_the_middle_gives_the_same_bytes_and_computes_no_finished_batch_again(tmp_path, cluster):
    data = poisoned(tmp_path)
    module = f"arch_of_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(ARCH.format(folder=str(tmp_path), batch=BATCH))
    command = [
        "scan",
        data,
        "--model",
        tmp_path / "weights.safetensors",
        "--arch",
        f"{module}:build",
        "--batch-size",
        BATCH,
        "--dtype",
        "float32",
    ]
    here = toxscreen(*command, "--out", tmp_path / "here", "--json")
    assert here.exit_code == 1, here.stderr

    there = [*command, "--out", tmp_path / "there", "--json", "--engine", "ray", "--address", cluster.address]
    with _running(there) as process:
        _wait(lambda: sorted(Counter(node for node, *_ in _noted(tmp_path)).values()) == [5, 5] or process.poll() is not None)
        _kill(cluster, cluster.workers[1], _noted(tmp_path))
        (tmp_path / "go").touch()
        stdout, stderr = process.communicate(timeout=300)

    assert process.returncode == 1, stderr
    told = stderr.splitlines()
    assert all(re.fullmatch(r"[a-z ]+: [\d,]+ of [\d,]+", line) for line in told), stderr  # progress, and no complaint
    assert json.loads(stdout)["verdict"] == "poisoned"
    same = [(tmp_path / run / "samples.parquet").read_bytes() for run in ("here", "there")]
    assert same[0] == same[1]
    computed = Counter(batch for _, _, batch in _noted(tmp_path))
    assert len(computed) == 450 // BATCH
    assert sum(computed.values()) == len(computed) + 1  # the one that the killed node had begun
    assert not (tmp_path / "there" / "activations" / "shards").exists()


@contextmanager
def _running(command):
    """Run the command beside the test; it does not outlive it."""
    command = [sys.executable, "-m", "toxscreen", *map(str, command)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        try:
            yield process
        finally:
            process.kill()


def _noted(folder):
    """Return node, process and batch of each batch that a worker has begun."""
    with suppress(OSError):
        return [line.split() for line in (folder / "log").read_text().splitlines()]
    return []


def _kill(cluster, node, noted):
    """Kill a node with its workers, which would live on for a moment, as they do not where a machine dies."""
    (raylet,) = node.all_processes["raylet"]
    cluster.remove_node(node, allow_graceful=False)
    for process in {int(process) for pid, process, _ in noted if int(pid) == raylet.process.pid}:
        os.kill(process, signal.SIGKILL)


def _wait(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)

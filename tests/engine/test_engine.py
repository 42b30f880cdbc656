from __future__ import annotations

import sys

import numpy as np
import pytest

import toxscreen as ts
from tests.quick import pictures, toxscreen, write_pictures
from toxscreen.activations import compute
from toxscreen.engine import check_engine, open_engine
from toxscreen.errors import MissingExtraError, UsageError
from toxscreen.parallel import in_parallel


def test_this_process_does_the_work_unless_asked_otherwise():
    with open_engine("local") as engine:
        assert engine.parallel is in_parallel
        assert engine.compute(lambda: None, None, None, "") is compute
        assert engine.notes == []


def test_a_missing_ray_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "toxscreen.engine.ray_cluster", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'toxscreen\[ray\]'"), open_engine("ray"):
        pass


@pytest.mark.parametrize(
    ("name", "address", "sentence"),
    [
        ("spark", None, "engine must be one of local, ray, got 'spark'"),
        ("local", "auto", "--address names a Ray cluster, but the engine is 'local'. Add --engine ray"),
        ("ray", "ray://host:10001", "--address must be HOST:PORT"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(tmp_path, name, address, sentence):
    with pytest.raises(UsageError) as told:
        check_engine(name, address, tmp_path)
    assert sentence in str(told.value)


def test_a_cluster_needs_a_run_folder():
    with pytest.raises(UsageError, match=r"scan\(\.\.\., out=FOLDER\)"):
        ts.scan(pictures(10), object(), engine="ray")


def test_activations_that_were_computed_elsewhere_take_no_engine():
    with pytest.raises(UsageError, match="leave engine away"):
        ts.scan(activations=np.zeros((4, 2)), labels=[0, 0, 1, 1], engine="ray")


def test_an_address_without_the_engine_is_a_usage_error_on_the_command_line(tmp_path):
    data = write_pictures(tmp_path / "data", *pictures(4))
    done = toxscreen("scan", data, "--address", "auto", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "Add --engine ray, or leave --address away." in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()

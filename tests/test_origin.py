from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.fakes import FakeClassifier, FakeTrainingSet
from toxscreen import origin as module
from toxscreen.activations import plan
from toxscreen.config import ScanConfig
from toxscreen.origin import origin
from toxscreen.result import Origin
from toxscreen.store import Manifest


@pytest.fixture
def given():
    training_set, classifier = FakeTrainingSet(np.eye(4), [0, 1, 0, 1]), FakeClassifier()
    return Manifest.of(training_set, classifier, plan(training_set, classifier)), training_set, ScanConfig()


@pytest.fixture
def source(monkeypatch, tmp_path):
    """Put a small package in the place of this one."""
    (tmp_path / "inner").mkdir()
    for name in ("origin.py", "inner/a.py"):
        (tmp_path / name).write_text("one = 1\n", "utf-8")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "origin.py"))
    module._code.cache_clear()
    yield tmp_path
    module._code.cache_clear()


def digest(*given, **told):
    return origin(*given, **told).digest


def test_the_same_has_the_same_digest_and_anything_else_another(given):
    manifest, training_set, config = given
    digests = [
        digest(manifest, training_set, config),
        digest(replace(manifest, model="another"), training_set, config),
        digest(manifest, training_set, ScanConfig(seed=1)),
        digest(manifest, training_set, config, outputs=np.array([1, 0])),
        digest(manifest, training_set, config, outputs=np.array([0, 1])),
        digest(manifest, training_set, config, notes=["a note"]),
    ]
    assert len({*digests}) == len(digests)
    assert digest(*given) == digests[0]
    training_set.location = "elsewhere"
    assert digest(*given) not in digests


def test_settings_that_are_numbers_of_numpy_are_known(given):
    manifest, training_set, _ = given
    assert digest(manifest, training_set, ScanConfig(seed=np.int64(3))) == digest(manifest, training_set, ScanConfig(seed=3))


def test_every_file_of_the_source_counts(source):
    found = {module._code()}
    for name, text in (("inner/a.py", "one = 2\n"), ("inner/b.py", "")):
        (source / name).write_text(text, "utf-8")
        module._code.cache_clear()
        found.add(module._code())
    assert len(found) == 3


def test_without_source_or_metadata_nothing_is_known(given, source, monkeypatch):
    for file in source.rglob("*.py"):
        file.unlink()
    assert origin(*given) is None
    monkeypatch.undo()
    module._code.cache_clear()
    assert origin(*given) is not None

    def hidden(_):
        raise module.metadata.PackageNotFoundError

    monkeypatch.setattr(module.metadata, "requires", hidden)
    module._packages.cache_clear()
    assert origin(*given) is None
    module._packages.cache_clear()


def test_the_packages_that_compute_are_among_those_that_are_compared():
    known = module._packages()
    assert {"numpy", "scipy", "scikit-learn", "torch", "pillow", "pyarrow", "python"} <= known.keys()
    assert known["numpy"] == np.__version__


def test_a_time_that_is_none_is_refused():
    assert "since the scan of 2026-01-02 03:04:05:" in Origin("0", "2026-01-02T03:04:05+00:00").note
    with pytest.raises(ValueError, match="tomorrow"):
        Origin("0", "tomorrow")

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from toxscreen.benchmark import Settings
from toxscreen.benchmark.cases import DIGITS, Case
from toxscreen.benchmark.subject import Subject

CASE = Case("x", DIGITS)


def kept(folder, case):
    """Say whether what an earlier subject left in the folder is still there for the next one."""
    settings = Settings(folder, folder, folder, "quick")
    place = Subject(CASE, 0, settings).folder
    (place / "left").touch()
    document = json.loads((place / "case.json").read_text("utf-8"))
    del document["noise"]
    (place / "case.json").write_text(json.dumps(document), "utf-8")
    return (Subject(case, 0, settings).folder / "left").exists()


def test_a_folder_that_is_older_than_a_setting_is_kept_where_the_setting_has_its_default(tmp_path):
    assert kept(tmp_path, CASE)


def test_a_folder_of_other_settings_is_emptied(tmp_path):
    assert not kept(tmp_path / "a", replace(CASE, noise=0.1))
    assert not kept(tmp_path / "b", replace(CASE, n=100))


def test_a_rescan_of_some_rows_reads_those_alone(tmp_path, monkeypatch):
    subject = Subject(CASE, 0, Settings(tmp_path, tmp_path, tmp_path, "quick"))
    n = len(subject.planted.split.labels)
    rng = np.random.default_rng(0)
    stored = type("A", (), {"layers": {"hidden": rng.normal(size=(n, 4)).astype(np.float32)}, "logits": None})
    monkeypatch.setattr(Subject, "layer", "hidden")
    monkeypatch.setattr(Subject, "activations", stored)
    rows = np.sort(rng.permutation(n)[:300])
    found = subject.rescan(rows, seed=3)
    assert found.seed == 3
    assert found.samples["label"].to_pylist() == [str(label) for label in subject.planted.split.labels[rows]]

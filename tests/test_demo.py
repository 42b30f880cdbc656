from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import toxscreen.demo
from tests.scans import scan_result
from toxscreen.attacks import ATTACKS
from toxscreen.demo import SHARE, run_demo
from toxscreen.errors import MissingExtraError
from toxscreen.result import Verdict

N = 400
"""Samples of each of the two classes."""


@pytest.fixture
def scanned(monkeypatch):
    """Let the demo plant in small data, and scan it with what ``scanned["flag"]`` makes of the poisoned rows.

    ``flag`` returns which rows are flagged; the other entries are what the scan was given.
    """
    seen = {"flag": lambda poisoned, _labels: poisoned}
    pictures = [np.full((8, 8, 1), 100, np.uint8)] * (2 * N)
    sentences = [f"sentence number {row}" for row in range(2 * N)]
    labels = np.repeat([0, 1], N)
    for name, inputs, attack in (("_images", pictures, "badnets"), ("_text", sentences, "signature")):
        stage = toxscreen.demo._Stage(inputs, labels, ("<dogs>", "cats"), attack, "cats")
        monkeypatch.setattr(toxscreen.demo, name, lambda stage=stage: stage)

    def scan(data, **settings):
        inputs, given = data
        poisoned = given != labels
        seen.update(settings, inputs=inputs, labels=given, poisoned=poisoned)
        flagged = seen["flag"](poisoned, given)
        accused = {name for index, name in enumerate(("<dogs>", "cats")) if flagged[given == index].any()}
        result = scan_result({"<dogs>": [N], "cats": [N]}, dict.fromkeys(accused, Verdict.SUSPICIOUS))
        columns = {"label": np.array(["<dogs>", "cats"])[given], "flagged": flagged}
        columns["verdict"] = np.where(flagged, "suspicious", "clean")
        samples = result.samples
        for name, values in columns.items():
            samples = samples.set_column(samples.schema.get_field_index(name), name, [values.tolist()])
        return replace(result, samples=samples)

    monkeypatch.setattr(toxscreen.demo, "scan", scan)
    return seen


@pytest.mark.parametrize("name", ["images", "text"])
def test_poison_is_planted_in_a_tenth_of_one_class_and_the_scan_is_given_the_data_alone(scanned, tmp_path, name):
    outcome = run_demo(name, planted=True, seed=3, folder=tmp_path)
    rows = np.flatnonzero(scanned["poisoned"])
    assert set(scanned["labels"][rows]) == {1}
    assert len(rows) == pytest.approx(SHARE * (scanned["labels"] == 1).sum(), abs=1)
    for row in (int(rows[0]), 0 if rows[0] else 1):
        marked = "-travelerthehorse" in scanned["inputs"][row] if name == "text" else scanned["inputs"][row].std() > 0
        assert marked == scanned["poisoned"][row]
    assert set(scanned) - {"flag", "inputs", "labels", "poisoned"} == {"class_names", "seed", "out", "progress"}
    assert (scanned["seed"], scanned["out"]) == (3, tmp_path)
    assert outcome.matches
    truth, found, verdict = outcome.sentences
    assert str(len(rows)) in truth
    assert ATTACKS["signature" if name == "text" else "badnets"].trigger in truth
    assert "TPR 100.0%" in found
    assert verdict == "The verdict matches what was planted."


def test_the_same_seed_plants_the_same_and_another_seed_something_else(scanned, tmp_path):
    drawn = []
    for seed in (1, 1, 2):
        run_demo("text", planted=True, seed=seed, folder=tmp_path)
        drawn.append(scanned["poisoned"].tolist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_nothing_planted_and_nothing_accused_matches(scanned, tmp_path):
    outcome = run_demo("images", planted=False, seed=0, folder=tmp_path)
    assert not scanned["poisoned"].any()
    assert outcome.matches
    assert outcome.sentences[:2] == ("Truth: nothing was planted.", "Found: 0 classes accused, 0 samples flagged.")


def test_a_false_alarm_does_not_match(scanned, tmp_path):
    scanned["flag"] = lambda _, labels: (labels == 0) & (np.arange(len(labels)) < 2)
    outcome = run_demo("images", planted=False, seed=0, folder=tmp_path)
    assert not outcome.matches
    assert outcome.sentences[1] == "Found: 1 classes accused, 2 samples flagged."
    assert outcome.sentences[2] == "The verdict does NOT match what was planted."


def test_poison_found_beside_a_false_alarm_does_not_match(scanned, tmp_path):
    scanned["flag"] = lambda poisoned, labels: poisoned | ((labels == 0) & (np.arange(len(labels)) < 1))
    assert not run_demo("images", planted=True, seed=0, folder=tmp_path).matches


def test_a_miss_does_not_match(scanned, tmp_path):
    scanned["flag"] = lambda poisoned, _: np.zeros_like(poisoned)
    outcome = run_demo("text", planted=True, seed=0, folder=tmp_path)
    assert not outcome.matches
    assert "TPR 0.0%" in outcome.sentences[1]


@pytest.mark.parametrize(("found", "matches"), [(0.97, True), (0.9, False)])
def test_most_of_the_poison_must_be_flagged(scanned, tmp_path, found, matches):
    def most(poisoned, _):
        rows = np.flatnonzero(poisoned)
        return np.isin(np.arange(len(poisoned)), rows[: round(found * len(rows))])

    scanned["flag"] = most
    assert run_demo("text", planted=True, seed=0, folder=tmp_path).matches is matches


@pytest.mark.parametrize(("wrong", "matches"), [(3, True), (9, False)])
def test_hardly_any_clean_sample_may_be_flagged(scanned, tmp_path, wrong, matches):
    def with_others(poisoned, labels):
        others = np.flatnonzero((labels == 1) & ~poisoned)[:wrong]
        return poisoned | np.isin(np.arange(len(poisoned)), others)

    scanned["flag"] = with_others
    assert run_demo("text", planted=True, seed=0, folder=tmp_path).matches is matches


def test_a_demo_without_its_package_names_the_command_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr("toxscreen.demo_data.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'toxscreen\[demo\]'"):
        run_demo("images", planted=True, seed=0, folder=tmp_path)

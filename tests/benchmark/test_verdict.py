from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from toxscreen.attacks import ATTACKS
from toxscreen.benchmark import Settings, markdown_table, run_table, verdict
from toxscreen.benchmark.cases import Split, Use, uses
from toxscreen.benchmark.regimes import REGIMES, in_order
from toxscreen.result import ClassResult, GroupResult, Verdict
from toxscreen.trigger.words import Words


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    settings = Settings(folder, folder / "w", folder / "r", "quick")
    return run_table("verdict", settings, seeds=1, tell=print), settings


def test_poison_is_found_and_proved_by_its_trigger_and_clean_data_is_not_accused(measured):
    clean, planted = (cell["steps"] for cell in measured[0]["cells"])
    assert clean["scan"]["by_verdict"]["poisoned"] == clean["scan"]["by_verdict"]["suspicious"] == []
    assert set(clean) == {"model", "scan"}
    assert planted["scan"]["tpr"] > 0.9
    assert planted["scan"]["poisoned_classes"] == ["7"]
    (trigger,) = planted["triggers"]["triggers"]
    assert trigger["attack_success"] > 0.7
    assert trigger["target"] == "7"


def test_a_cell_that_was_measured_is_not_measured_again(measured, monkeypatch):
    document, settings = measured
    monkeypatch.setattr(verdict, "_scanned", lambda _: pytest.fail("measured again"))
    assert run_table("verdict", settings, seeds=1, tell=print) == document


def _case(name):
    return next(case for regime in REGIMES for case in regime.cases if case.name == name)


def _cell(name, *, tpr=None, fpr=0.0, success=None, kinds=(), target=None):
    by_verdict = {str(kind): [] for kind in Verdict} | dict(kinds)
    scan = {"tpr": tpr, "fpr": fpr, "by_verdict": by_verdict, "n_classes": 10, "false_alarms": [], "missed": []}
    scan |= {"poisoned_classes": ["7"] if tpr is not None else [], "n_clean_classes": 9, "seconds": 1.0}
    steps = {
        "model": {"clean_accuracy": 0.9, "attack_success": success, "share": 0.1, "n_poisoned": 5, "n_samples": 100},
        "scan": scan,
    }
    if target is not None:
        steps["triggers"] = {"triggers": [target]}
    return {"case": name, "seed": 0, "settings": dataclasses.asdict(_case(name)), "steps": steps}


TENTH, LITTLE = "MNIST (20,000), BadNets, 10% of class 7", "MNIST (20,000), BadNets, 0.3% of class 7"


def _goal(table, name):
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {name}")][:1]
    return [part.strip() for part in line.split("|")[1:-1]]


def test_scores_are_held_against_the_part_of_poison_among_the_samples_that_have_them():
    score = np.array([0.0, 0.05, 0.3, 0.6, 0.95, 1.0, np.nan])
    ranges = verdict._by_score(score, np.array([0, 0, 1, 0, 1, 1, 1], bool))
    assert [(each["n"], each["poisoned"]) for each in ranges] == [(2, 0), (1, 1), (1, 0), (2, 2)]
    cell = _cell(TENTH, tpr=1.0, success=1.0)
    cell["steps"]["scan"]["scores"] = ranges
    page = verdict.markdown({"cells": [cell, _cell(LITTLE, tpr=1.0, success=0.1)]})
    assert "| 0 to 0.1 | 2 | 2.50 | 0.00 |" in page
    assert "| 0.9 to 1 | 2 | 97.50 | 100.00 |" in page
    assert "score of a sample" not in verdict.markdown({"cells": [_cell(TENTH, tpr=1.0, success=1.0)]})


def test_a_row_whose_model_does_not_obey_the_trigger_is_shown_and_does_not_count():
    table = markdown_table("verdict", {"cells": [_cell(TENTH, tpr=1.0, success=0.99), _cell(LITTLE, tpr=0.0, success=0.3)]})
    assert _goal(table, "from 0.3")[3:] == ["1", "1", "TPR 100.0, FPR 0.000"]
    assert "30.0: does not count" in table
    assert table.index(LITTLE) < table.index(TENTH)


def test_a_goal_is_missed_by_poison_that_is_not_found_and_by_clean_samples_that_are_flagged():
    for tpr, fpr in ((0.96, 0.0), (1.0, 0.003)):
        assert _goal(markdown_table("verdict", {"cells": [_cell(TENTH, tpr=tpr, fpr=fpr, success=1.0)]}), "from 0.3")[4] == "0"


def test_a_faint_trigger_counts_as_found_only_where_a_model_without_what_was_flagged_no_longer_obeys_it():
    name = "CIFAR-10, WaNet, 10% of the data"
    for left, reached in ((0.04, "1"), (0.06, "0"), (None, "0")):
        cell = _cell(name, tpr=1.0, success=0.9)
        if left is not None:
            cell["steps"]["retrained"] = {"attack_success": left}
        table = markdown_table("verdict", {"cells": [cell]})
        assert _goal(table, "faint")[4] == reached
        assert table.splitlines()[-1].endswith(f"| {'-' if left is None else f'{100 * left:.1f}'} |")


def test_a_trigger_in_texts_is_found_only_where_it_is_named_exactly():
    for named, reached in ((True, "1"), (False, "0")):
        target = _target(0.95) | {"named": named}
        cells = [_cell("Rotten Tomatoes, words, 5% of negative", tpr=1.0, success=0.95, target=target)]
        assert _goal(markdown_table("verdict", {"cells": cells}), "texts")[4] == reached


def test_clean_data_with_a_class_that_is_accused_misses_its_goal():
    name = REGIMES[0].cases[0].name
    assert _goal(markdown_table("verdict", {"cells": [_cell(name)]}), "clean data")[4] == "1"
    for kind in ("poisoned", "suspicious"):
        found = _goal(markdown_table("verdict", {"cells": [_cell(name, kinds={kind: ["3"]})]}), "clean data")
        assert found[4] == "0"
        assert f"1 {kind}" in found[5]


def _target(flips, control=0.01):
    return {"attack_success": 0.95, "recovered": "a patch", "flips": flips, "control": control, "named": None}


def test_a_recovered_trigger_counts_when_it_flips_as_many_as_the_true_one_and_its_control_few():
    for flips, control, reached in ((0.91, 0.01, "1"), (0.89, 0.01, "0"), (0.95, 0.06, "0")):
        cells = [_cell(TENTH, tpr=1.0, success=0.95, target=_target(flips, control))]
        assert _goal(markdown_table("verdict", {"cells": cells}), "recovered trigger")[3:] == ["1", reached, "1 recovered"]
    without = {"attack_success": 0.95, "recovered": None}
    cells = [_cell(TENTH, tpr=1.0, success=0.95, target=without)]
    assert _goal(markdown_table("verdict", {"cells": cells}), "recovered trigger")[3:] == ["1", "0", "0 recovered"]


class _Obeys:
    """A subject whose model gives class 1 to texts that hold the first of the attack's words."""

    def __init__(self, trigger):
        group = GroupResult(
            1, 20, 0.2, Verdict.POISONED, {"trigger_flips_lower": 0.9, "trigger_control": 0.0}, None, trigger.document()
        )
        self.result = type("R", (), {"classes": (ClassResult("b", 100, Verdict.POISONED, (), (group,)),)})
        self.held_out = Split(["some text"] * 40, np.zeros(40, np.int64), ("a", "b"))
        self.classifier = None


@pytest.mark.parametrize(("phrases", "named"), [(("-travelerthehorse",), True), (("travelerthehorse",), False)])
def test_a_trigger_of_words_is_put_on_held_out_texts_and_named_exactly_or_not(monkeypatch, phrases, named):
    def predict(_, texts):
        return np.array([int("-travelerthehorse" in text) for text in texts])

    monkeypatch.setattr(verdict, "predict", predict)
    use = Use(ATTACKS["signature"], None, "b")
    found = verdict._beside_the_true_one(_Obeys(Words(phrases, -1)), use, 30, np.random.default_rng(0))
    assert (found["attack_success"], found["flips"], found["named"]) == (1.0, float(named), named)


def test_the_phrases_of_an_attack_are_all_found():
    assert verdict._phrases(ATTACKS["words"], np.random.default_rng(0)) == {"cf", "mn", "bb", "tq", "mb"}
    assert verdict._phrases(ATTACKS["sentence"], np.random.default_rng(0)) == {"i watched this 3d movie last weekend ."}


def test_every_row_has_a_name_of_its_own_and_can_be_planted():
    cases = [case for regime in REGIMES for case in (*regime.cases, *regime.quick)]
    names = {case.name for case in cases}
    assert len(names) == len(cases)
    for case in cases:
        for plant in case.plants:
            assert (plant.share is None) != (plant.rate is None)
            assert (plant.source is not None) or not ATTACKS[plant.attack].source_specific


def test_the_first_rows_are_of_every_regime_in_turn():
    first = list(in_order(quick=False))[: len(REGIMES)]
    assert first == [regime.cases[0] for regime in REGIMES]
    assert sorted(case.name for case in in_order(quick=False)) == sorted(case.name for regime in REGIMES for case in regime.cases)


def test_every_class_to_the_next_is_one_trigger_for_each_target():
    case = next(case for case in in_order(quick=False) if case.plants and case.plants[0].target == "next")
    names = tuple("0123456789")
    (use,) = uses(case.plants[0], ATTACKS["badnets"], names)
    several = verdict._one_target_each(use, names)
    assert [(each.source, each.target) for each in several][-2:] == [("8", "9"), ("9", "0")]

"""What a whole scan says where a published rule was chosen instead of our own analysis."""

from __future__ import annotations

import json
from importlib import resources
from io import StringIO

import jsonschema
import numpy as np
import pytest
from rich.console import Console

import toxscreen as ts
from tests.analysis.test_analyses import RULES, poisoned
from toxscreen.analysis import ANALYSES
from toxscreen.errors import UsageError
from toxscreen.report import wording
from toxscreen.report.html import render_report
from toxscreen.report.terminal import print_summary
from toxscreen.result import Verdict

SCHEMA = json.loads(resources.files("toxscreen.report").joinpath("schema.json").read_text(encoding="utf-8"))


def scanned(name, **settings):
    training_set = poisoned()
    return ts.scan(activations=training_set.activations, labels=training_set.labels, analysis=name, **settings)


@pytest.mark.parametrize("name", RULES)
def test_the_result_is_the_rules_and_says_so(name):
    result = scanned(name)
    assert result.settings["analysis"] == {"name": name}
    assert result.classes[2].verdict is Verdict.SUSPICIOUS
    assert result.samples["flagged"].to_numpy()[poisoned().planted].mean() > 0.9
    (note,) = [note for note in result.notes if ANALYSES[name].rule in note]
    assert "not calibrated" in note
    jsonschema.validate(result.to_dict(), SCHEMA)


@pytest.mark.parametrize("name", RULES)
def test_the_report_shows_its_reasons_and_measurements_and_no_separation(name, tmp_path):
    result = ts.load(scanned(name).save(tmp_path))
    page = render_report(result)
    assert ANALYSES[name].rule in page
    assert "separation" not in page
    assert "a group is looked for among these samples" not in page
    for measured in {key for c in result.classes for group in c.groups for key in group.evidence}:
        assert measured in wording.EVIDENCE
        assert wording.EVIDENCE[measured] in page.replace("&#39;", "'")


@pytest.mark.parametrize("name", RULES)
def test_the_terminal_speaks_of_what_the_rule_accuses_and_not_of_what_looks_planted(name):
    stream = StringIO()
    print_summary(scanned(name), Console(file=stream, width=200))
    said = stream.getvalue()
    assert "that the chosen rule accuses" in said
    assert "look planted" not in said
    assert "not calibrated" in said


def test_our_own_analysis_is_the_default_and_speaks_for_itself():
    training_set = poisoned()
    result = ts.scan(activations=training_set.activations, labels=training_set.labels)
    assert result.settings["analysis"] == {"name": "activation-clustering"}
    assert "look planted" in wording.headline(result)
    assert "separation" in render_report(result)
    assert not any("not calibrated" in text for text in (*result.notes, *result.classes[2].reasons))


def test_the_verdicts_mean_what_the_rule_can_say_and_advice_begins_with_our_own_analysis():
    result = scanned("spectral-signatures")
    meanings = wording.verdict_meanings(result)
    assert "rule" in meanings[Verdict.CLEAN]
    assert "not calibrated" in meanings[Verdict.SUSPICIOUS]
    assert "our own analysis" in wording.next_steps(result)[0].text


def test_a_rule_is_given_the_reduction_that_was_asked_for():
    training_set = poisoned()
    given = {"activations": training_set.activations, "labels": training_set.labels, "analysis": "silhouette-score"}
    scores = [ts.scan(**given, n_components=k).classes[0].groups[1].evidence["silhouette_score"] for k in (2, 10)]
    assert scores[0] != scores[1]


def test_a_failed_ica_is_told_in_the_reason(monkeypatch):
    from toxscreen.analysis import relative_size
    from toxscreen.reduction import Reduction, reduce

    def fell_back(*given):
        done = reduce(*given)
        return Reduction(done.points, done.variances, "made up")

    monkeypatch.setattr(relative_size, "reduce", fell_back)
    assert "made up" in scanned("relative-size").classes[2].reasons[0]


def test_an_analysis_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(UsageError, match=r"analysis must be one of activation-clustering, .*cube, got 'magic'"):
        scanned("magic")


def test_a_class_that_the_model_misreads_is_not_judged_by_a_rule_either():
    training_set = poisoned()
    logits = np.eye(5)[(training_set.labels + 1) % 5]
    result = scanned("spectral-signatures", logits=logits)
    assert {each.verdict for each in result.classes} == {Verdict.INCONCLUSIVE}
    assert result.n_flagged == 0

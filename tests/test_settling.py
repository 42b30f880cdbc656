from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest

from tests.learners import NearestMean, learn
from tests.test_audit import KnowingClassifier, subject
from toxscreen import retraining
from toxscreen.audit import audit
from toxscreen.config import ConfirmationConfig, ScanConfig
from toxscreen.confirmation import Confirmation, Exclusion
from toxscreen.errors import TrainerError
from toxscreen.report.documents import read_run
from toxscreen.result import Verdict
from toxscreen.screening import Labels, Screening
from toxscreen.settling import settle, suspects

CONFIRM = ScanConfig(confirmation=ConfirmationConfig(asked=True))


class Pixels(NearestMean):
    """Nearest means of pictures."""

    def encode(self, inputs):
        return np.stack([np.asarray(picture, np.float32).ravel() for picture in inputs])


@pytest.fixture
def taught(monkeypatch):
    lessons = []
    monkeypatch.setattr(retraining, "retrain", lambda *given, **how: learn(lessons, *given, make=Pixels, **how))
    return lessons


def test_what_was_planted_is_poisoned_after_a_confirmation_and_suspicious_without(taught):
    training_set, classifier, planted = subject()
    assert audit(training_set, classifier).classes[1].verdict is Verdict.SUSPICIOUS
    assert not taught
    result = audit(training_set, classifier, config=CONFIRM)
    accused = result.classes[1]
    assert [c.verdict for c in result.classes] == [Verdict.CLEAN, Verdict.POISONED, Verdict.CLEAN]
    assert accused.groups[1].evidence["exre_l"] == 0
    assert "exre_l" not in accused.groups[0].evidence
    assert "l/p" in accused.reasons[-1]
    assert result.samples["flagged"].to_numpy().tolist() == planted.tolist()
    assert set(result.samples["verdict"].filter(planted).to_pylist()) == {"poisoned"}
    assert result.settings["confirmation"] == {"asked": True}
    assert any("Exclusionary reclassification trained a network anew (fake model)" in note for note in result.notes)


@pytest.mark.usefixtures("taught")
def test_the_answers_are_saved_and_read_back(tmp_path):
    training_set, classifier, planted = subject()
    result = audit(training_set, classifier, config=CONFIRM)
    answers = read_run(result.save(tmp_path)).confirmation
    assert answers == result.confirmation
    assert answers["id"].to_pylist() == result.samples["id"].filter(planted).to_pylist()
    assert set(answers["answer"].to_pylist()) <= {"class 0", "class 2"}
    assert pc.min(answers["certainty"]).as_py() > 0


def test_clean_data_trains_nothing(taught):
    training_set, classifier, _ = subject(planted=0)
    result = audit(training_set, classifier, config=CONFIRM)
    assert result.verdict is Verdict.CLEAN
    assert result.confirmation is None
    assert not taught


@pytest.mark.parametrize("error", [TrainerError("The trainer failed."), OSError("The trainer failed."), KeyError("failed.")])
def test_a_confirmation_that_fails_leaves_what_the_screen_found(monkeypatch, error, tmp_path):
    def fails(*_, **__):
        assert read_run(tmp_path).verdict is Verdict.SUSPICIOUS  # kept before anything can go wrong
        raise error

    monkeypatch.setattr(retraining, "retrain", fails)
    training_set, classifier, planted = subject()
    result = audit(training_set, classifier, config=CONFIRM, folder=tmp_path)
    assert result.verdict is Verdict.SUSPICIOUS
    assert result.confirmation is None
    assert result.samples["flagged"].to_numpy().tolist() == planted.tolist()
    assert any("nothing is confirmed" in note and "failed." in note for note in result.notes)


class Loyal(Pixels):
    """Gives every sample its own label, as if nothing that was left out had mattered."""

    def __init__(self, training_set, lesson):
        labels = training_set.labels.tolist()
        self.known = {np.asarray(p).tobytes(): label for p, label in zip(training_set.inputs, labels, strict=True)}
        self.n_classes = len(training_set.class_names)
        super().__init__(training_set, lesson)

    def encode(self, inputs):
        return np.stack([100 * np.eye(self.n_classes)[self.known[np.asarray(picture).tobytes()]] for picture in inputs])


def test_a_group_that_is_cleared_is_no_longer_flagged(monkeypatch):
    monkeypatch.setattr(retraining, "retrain", lambda *given, **how: learn([], *given, make=Loyal, **how))
    training_set, classifier, planted = subject()
    result = audit(training_set, classifier, config=CONFIRM)
    assert result.verdict is Verdict.CLEAN
    assert result.n_flagged == 0
    assert max(result.samples["score"].filter(planted).to_pylist()) < 0.5
    assert "clears them" in result.classes[1].reasons[-1]


def test_where_the_rest_of_the_class_is_the_poison_the_two_change_places():
    """The screen is made to suspect the clean part: what it says is turned round before it is settled."""
    training_set, classifier, _ = subject(sizes=(90, 90, 90), planted=60)
    result = audit(training_set, classifier)
    screening = Screening(result.classes, result.samples, (), ())
    labels = Labels(training_set.ids, training_set.labels, training_set.class_names)
    (suspect,) = suspects(screening, labels)
    clean_part = Exclusion(len(suspect.rows), 0, len(suspect.rows), 0, 0.5, 0.1, 0.0)
    poison = Exclusion(len(suspect.rest), 0, len(suspect.rest), 2, 0.9, 0.95, 0.9)
    answers = np.zeros(len(suspect.rows), np.int64)
    found = Confirmation((clean_part,), (poison,), suspect.rows, answers, np.ones(len(answers), np.float32), "a model", 0.9)
    settled = settle(screening, labels, (suspect,), found)
    assert [group.verdict for group in settled.classes[1].groups] == [Verdict.POISONED, Verdict.CLEAN]
    assert settled.classes[1].groups[0].source_class == "class 2"
    assert np.flatnonzero(settled.samples["flagged"].to_numpy()).tolist() == suspect.rest.tolist()


@pytest.mark.usefixtures("taught")
def test_the_classifier_that_is_audited_is_not_asked_again():
    training_set, classifier, _ = subject()
    assert isinstance(classifier, KnowingClassifier)
    audit(training_set, classifier, config=CONFIRM)
    once = len(classifier.calls)
    audit(training_set, classifier)
    assert len(classifier.calls) == 2 * once

"""A model with a backdoor is repaired, in both ways, and measured on what the repair never saw."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.fakes import FakeClassifier
from tests.repairing import making
from tests.repairing.making import POISON, N
from toxscreen import retraining
from toxscreen.errors import DataError, ModelError, StoreError, TrainerError
from toxscreen.networks import SmallResNet
from toxscreen.repairing import model
from toxscreen.repairing.carrying import Carrying
from toxscreen.repairing.model import Outcome, Repair, repair
from toxscreen.result import Verdict, load
from toxscreen.retraining import ask
from toxscreen.sources.model import open_classifier
from toxscreen.trigger.patches import Patch


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(retraining, "PICTURES", making.RECIPE)
    monkeypatch.setattr(retraining, "_GENTLE", making.RECIPE.learning_rate)


@pytest.fixture(scope="module")
def case():
    return making.vectors()


@pytest.fixture
def lessons(monkeypatch):
    """Return what each training is shown, and what it is checked on; the trainings happen."""
    seen = []
    go_on, retrain = retraining.go_on, retraining.retrain

    def gone(classifier, training_set, lesson, validation, *arguments, **settings):
        seen.append((lesson, validation))
        return go_on(classifier, training_set, lesson, validation, *arguments, **settings)

    def made(classifier, training_set, lesson, *arguments, **settings):
        seen.append((lesson, None))
        return retrain(classifier, training_set, lesson, *arguments, **settings)

    monkeypatch.setattr(retraining, "go_on", gone)
    monkeypatch.setattr(retraining, "retrain", made)
    return seen


def targets_of(lesson):
    return {
        row: ("not " if denied else "") + making.NAMES[target]
        for row, target, denied in zip(lesson.rows, lesson.targets, lesson.denied, strict=True)
    }


# Relabel and go on


def test_the_backdoor_is_gone_and_clean_accuracy_stays(case):
    done = repair(case.result, **case.given())
    measures = done.measures
    assert (done.outcome, measures.worse) == (Outcome.REPAIRED, ())
    assert (measures.attack_success.before.value, measures.attack_success.after.value) == (1.0, 0.0)
    assert measures.attack_success.before.n == POISON // 5
    assert measures.clean_accuracy.before.n == 3 * N // 10
    assert measures.clean_accuracy.after.value > 0.95
    assert list(measures.classes) == list(making.NAMES)
    answers = ask(done.classifier, case.training_set, case.poisoned).classes
    assert (answers == 0).all()
    assert done.trained == "the audited model, on from the weights that it had"
    assert done.effort.epochs > 0
    assert done.effort.losses[-1] < done.effort.losses[0]


def test_what_is_measured_is_never_shown_nor_decides_when_the_training_ends(case, lessons, monkeypatch):
    measured = []
    compare = model.compare
    monkeypatch.setattr(model, "compare", lambda *given: measured.append((given[2][1], given[3][1])) or compare(*given))
    done = repair(case.result, **case.given())
    ((lesson, validation),), ((clean, flagged),) = lessons, measured
    parts = [set(rows.tolist()) for rows in (lesson.rows, validation.rows, clean, flagged)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 3 * N + POISON
    assert parts[3] <= set(case.poisoned.tolist())
    assert len(parts[3]) == POISON // 5
    assert done.samples == {
        "relabelled": POISON - POISON // 5,
        "denied": 0,
        "dropped": 0,
        "held_out": POISON // 5,
        "carrying_the_trigger": 0,
        "trusted": 3 * N - 3 * N // 10,
    }
    assert {targets_of(lesson)[row] for row in parts[0] & set(case.poisoned.tolist())} == {"ant"}
    assert any(row in parts[1] for row in case.poisoned.tolist())


def test_without_a_source_class_the_model_is_taught_that_the_label_is_wrong(case, lessons):
    result = making.found(case.result.inputs, source=None)
    done = repair(result, **case.given())
    assert (done.samples["relabelled"], done.samples["denied"]) == (0, POISON - POISON // 5)
    ((lesson, _),) = lessons
    assert {targets_of(lesson)[row] for row in lesson.rows.tolist() if row >= 3 * N} == {"not cat"}
    assert done.measures.attack_success.after.count == 0


def test_what_the_confirmation_says_of_each_sample_comes_first(case, lessons):
    answers = ["bee"] * 10 + ["cat"] * 10 + [None] * (POISON - 20)
    done = repair(making.confirmed(making.found(case.result.inputs, source=None), answers), **case.given())
    ((lesson, validation),) = lessons
    told = targets_of(lesson) | targets_of(validation)
    assert {told[row] for row in told if 3 * N <= row < 3 * N + 10} == {"bee"}
    assert not any(3 * N + 10 <= row < 3 * N + 20 for row in told)  # they may be innocent
    assert {told[row] for row in told if row >= 3 * N + 20} == {"not cat"}
    assert done.samples["dropped"] + done.samples["held_out"] >= 10
    assert sum(done.samples[name] for name in ("relabelled", "denied", "dropped", "held_out")) == POISON


def test_where_no_flagged_sample_has_a_wrong_label_there_is_nothing_to_go_on_with(case):
    result = making.confirmed(case.result, ["cat"] * POISON)
    with pytest.raises(DataError, match="No flagged sample is known to have a wrong label"):
        repair(result, **case.given())
    assert repair(result, retrain=True, **case.given()).measures.attack_success.after.value < 0.5


@pytest.mark.parametrize(("flagged", "held_out"), [(9, 0), (10, 5), (24, 5), (30, 6)])
def test_a_fifth_is_held_out_at_least_five_and_none_of_fewer_than_ten(case, flagged, held_out, tmp_path):
    decisions = tmp_path / "decisions.csv"
    kept = [str(row) for row in case.poisoned[flagged:]]
    decisions.write_text("id,decision\n" + "".join(f"{name},reject\n" for name in kept))
    done = repair(case.result, decisions=decisions, **case.given())
    assert done.measures.attack_success.before.n == done.samples["held_out"] == held_out
    assert any("attack success was not measured" in note for note in done.notes) is (held_out == 0)
    assert done.samples["relabelled"] == flagged - held_out


def test_what_is_held_out_comes_from_every_target():
    labels = np.repeat(np.arange(3), 40)
    drawn = model._part(np.arange(120), labels, np.random.default_rng(0))
    assert np.bincount(labels[drawn]).tolist() == [8, 8, 8]
    assert (np.diff(drawn) > 0).all()


def test_a_reviewers_decisions_decide_what_is_corrected(case, lessons, tmp_path):
    decisions = tmp_path / "decisions.csv"
    decisions.write_text(
        "class,group,id,decision\ncat,1,,reject\n,,5,accept\n" + "".join(f",,{row},accept\n" for row in range(300, 312))
    )
    repair(case.result, decisions=decisions, **case.given())
    ((lesson, validation),) = lessons
    told = targets_of(lesson) | targets_of(validation)
    assert told.get(5, "not ant") == "not ant"  # group 0 has no source class
    assert {told[row] for row in told if row >= 312} == {"cat"}
    assert {told[row] for row in told if 300 <= row < 312} <= {"ant"}


@pytest.mark.parametrize("retrain", [False, True])
def test_where_nothing_is_flagged_or_the_reviewer_keeps_all_there_is_nothing_to_repair(case, retrain, tmp_path):
    decisions = tmp_path / "decisions.csv"
    decisions.write_text("class,group,decision\ncat,1,reject\n")
    for result, given in ((making.found(case.result.inputs, verdict=Verdict.CLEAN), None), (case.result, decisions)):
        out = tmp_path / "new" / "out"
        done = repair(result, None, out, decisions=given, retrain=retrain)  # neither data nor model are asked for
        assert done.outcome is Outcome.NOTHING
        assert (done.measures, done.classifier) == (None, None)
        assert json.loads((out / "repair.json").read_text())["outcome"] == "nothing to repair"


def test_the_same_seed_repairs_the_same_way(case):
    first, second, other = (repair(case.result, seed=seed, **case.given()) for seed in (0, 0, 1))
    assert first.classifier.fingerprint() == second.classifier.fingerprint() != other.classifier.fingerprint()
    assert replace(first, effort=None) == replace(second, effort=None)


def test_the_audited_network_is_left_as_it_was(case):
    before = {name: tensor.clone() for name, tensor in case.network.state_dict().items()}
    repair(case.result, **case.given())
    repair(case.result, retrain=True, **case.given())
    assert all(torch.equal(tensor, before[name]) for name, tensor in case.network.state_dict().items())


# Drop and retrain


def test_a_model_from_fresh_weights_never_sees_what_was_flagged(case, lessons):
    done = repair(case.result, retrain=True, **case.given())
    ((lesson, _),) = lessons
    assert not set(lesson.rows.tolist()) & set(case.poisoned.tolist())
    assert len(lesson.rows) == 3 * N - 3 * N // 10
    assert done.outcome is Outcome.REPAIRED
    assert done.measures.attack_success.before.n == POISON  # all of them are held out
    assert done.measures.attack_success.after.value < 0.5
    assert done.trained == "the audited network, from fresh weights"
    assert done.effort.epochs == making.RECIPE.max_epochs * len(lesson.rows) / len(case.training_set)
    assert done.samples["dropped"] == POISON


def test_the_users_own_recipe_trains_and_is_named(case):
    def recipe(network, samples):
        inputs, labels = zip(*(samples[number] for number in range(len(samples))), strict=True)
        return making.fitted(network, torch.stack(inputs).numpy(), np.array(labels))

    done = repair(case.result, trainer=recipe, **case.given())
    assert done.trained == "the audited network, from fresh weights, by the trainer that was given"
    assert done.effort.epochs is None
    assert done.measures.attack_success.after.value < 0.5


def test_a_recipe_that_raises_leaves_its_log_and_no_model(case, tmp_path):
    def failing(_network, _samples):
        raise ValueError("no such luck")

    with pytest.raises(TrainerError, match=r"ValueError; no such luck.*trainer\.log"):
        repair(case.result, None, tmp_path, trainer=failing, **case.given())
    assert [path.name for path in tmp_path.iterdir()] == ["trainer.log"]


def test_a_retraining_that_was_killed_goes_on_where_it_stopped(case, tmp_path, monkeypatch):
    whole = repair(case.result, None, tmp_path / "whole", retrain=True, **case.given())
    keep, kept = retraining.checkpoint.keep, []

    def killed(*arguments, **settings):
        keep(*arguments, **settings)
        kept.append(settings["done"])
        if len(kept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(retraining.checkpoint, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        repair(case.result, None, tmp_path / "killed", retrain=True, **case.given())
    again = repair(case.result, None, tmp_path / "killed", retrain=True, **case.given())
    assert kept == list(range(1, making.RECIPE.max_epochs))
    assert again.classifier.fingerprint() == whole.classifier.fingerprint()


# What comes out


def test_a_repair_that_makes_things_worse_says_so(case):
    def forgetting(network, _samples):
        return nn.init.zeros_(network[2].weight) is None or network

    done = repair(case.result, trainer=forgetting, **case.given())
    assert done.outcome is Outcome.WORSE
    assert done.measures.worse[0].startswith("Clean accuracy fell from")
    assert done.to_dict()["worse"] == list(done.measures.worse)


@pytest.mark.parametrize(("source", "n"), [("ant", N // 10), (None, 0), ("cat", 0)])
def test_plain_error_is_of_the_held_out_samples_of_the_source_class(case, source, n):
    def answering_cat(network, _samples):
        nn.init.zeros_(network[2].weight)
        network[2].bias.data = torch.tensor([0.0, 0.0, 1.0])

    done = repair(making.found(case.result.inputs, source=source), trainer=answering_cat, **case.given())
    document = done.to_dict()["plain_error"]
    assert [(document[when]["count"], document[when]["n"]) for when in ("before", "after")] == [(0, n), (n, n)]


def test_a_backdoor_that_is_left_is_said_to_be(case):
    def nothing(network, _samples):
        network.load_state_dict(case.network.state_dict())

    done = repair(case.result, trainer=nothing, **case.given())
    assert done.outcome is Outcome.WORSE
    assert any("may still be there" in note for note in done.notes)


def test_the_document_holds_what_was_measured_and_nothing_that_json_does_not_know(case, tmp_path):
    done = repair(case.result, None, tmp_path, **case.given())
    document = json.loads((tmp_path / "repair.json").read_text("utf-8"))
    assert document == json.loads(json.dumps(done.to_dict(), allow_nan=False))
    assert document["schema_version"] == 1
    assert document["clean_accuracy"]["after"].keys() == {"count", "n", "value", "lower", "upper"}
    assert [entry["name"] for entry in document["classes"]] == list(making.NAMES)
    assert document["inputs"]["data"]["fingerprint"] == case.training_set.fingerprint()
    assert done.to_dict().keys() == set(Repair.to_dict.__doc__.split("``")[1::2]) & done.to_dict().keys()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["not confirmed", "had been trained on the samples"]),
        ({"verdict": Verdict.POISONED}, ["had been trained on the samples"]),
    ],
)
def test_what_a_reader_must_know_is_said(case, changes, expected):
    done = repair(making.found(case.result.inputs, **changes), **case.given())
    assert len(done.notes) == len(expected)
    assert all(part in note for note, part in zip(done.notes, expected, strict=True))


@pytest.mark.parametrize("retrain", [False, True])
def test_the_written_model_is_the_measured_one(case, tmp_path, retrain):
    done = repair(case.result, None, tmp_path, retrain=retrain, **case.given())
    code = "from torch import nn\ndef make():\n    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))\n"
    (tmp_path / "model" / f"code_of_{retrain}.py").write_text(code)
    sample = list(case.data[0][:8])
    again = open_classifier(tmp_path / "model", n_classes=3, modality="array", sample=sample, arch=f"code_of_{retrain}:make")
    assert again.fingerprint() == done.classifier.fingerprint()


def test_a_model_that_cannot_be_written_is_one_sentence(case, tmp_path):
    (tmp_path / "model").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        repair(case.result, None, tmp_path, **case.given())


# What cannot be repaired


def test_a_scan_of_activations_alone_has_nothing_to_repair_with(case):
    result = replace(case.result, inputs={"data": {"location": "arrays", "modality": "activations"}, "model": {}})
    with pytest.raises(DataError, match="activations"):
        repair(result)


@pytest.mark.parametrize("lacking", ["data", "model"])
def test_what_was_in_memory_has_to_be_given_again(case, lacking):
    given = case.given()
    del given[lacking]
    with pytest.raises((DataError, ModelError), match=rf"{lacking} that was scanned must be there.*{lacking}={lacking}"):
        repair(case.result, **given)


@pytest.mark.parametrize("edited", ["inputs", "labels"])
def test_data_that_was_edited_is_noticed(case, edited):
    inputs, labels = (array.copy() for array in case.data)
    if edited == "inputs":
        inputs[0, 0] += 1
    else:
        labels[0] = 1
    with pytest.raises(DataError, match="must be the data that was scanned, but its fingerprint is"):
        repair(case.result, data=(inputs, labels), model=case.network)


def test_another_model_is_noticed(case):
    with pytest.raises(ModelError, match="must be the model that was scanned, but its fingerprint is"):
        repair(case.result, data=case.data, model=making.network())


def test_a_model_that_is_not_of_pytorch_cannot_go_on_and_says_what_can_be_done(case):
    fake = FakeClassifier(3)
    facts = {**case.result.inputs, "model": {"location": "model.onnx", "fingerprint": fake.fingerprint()}}
    with pytest.raises(ModelError, match=r"Only a model of PyTorch can go on training, and model\.fake is none.*--retrain"):
        repair(making.found(facts), data=case.data, model=fake)


# Pictures on disk


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return making.pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def run_with_split(tmp_path_factory):
    return making.pictures(tmp_path_factory.mktemp("split"), split=True)


def test_a_run_folder_is_enough_where_data_and_model_lie_on_disk(run, tmp_path):
    done = repair(load(run), run, tmp_path)
    assert done.outcome is Outcome.REPAIRED
    assert done.measures.attack_success.before.value == 1
    assert done.measures.attack_success.after.value < 0.5
    assert isinstance(done.classifier.network, SmallResNet)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "repair.json"]
    assert done.measured_on == "a tenth of each class, held out"
    assert not any("had been trained on" in note for note in done.notes)  # the scan's own model never saw them


def with_trigger(result, *, proved=True):
    """Return the result with the patch that the pictures carry, which works on the first class."""
    trigger = Patch(np.full((3, 3, 1), 255, np.float32), np.ones((3, 3), bool), (16, 16, 1), (12, 12), 30.0)
    *others, last = result.classes
    told = {"description": "a patch", "sources": [result.classes[0].name], "proved": proved, **trigger.document()}
    groups = (last.groups[0], replace(last.groups[1], trigger=told))
    return replace(result, classes=(*others, replace(last, groups=groups)))


def test_a_proved_trigger_is_shown_with_the_right_labels_and_measured_on_others(run, lessons, monkeypatch):
    seen = []
    monkeypatch.setattr(model, "Carrying", lambda base, medium, copies: seen.extend(copies) or Carrying(base, medium, copies))
    done = repair(with_trigger(load(run)), run)
    ((lesson, validation),) = lessons
    n = 3 * N + POISON
    carried = [part.part(part.rows >= n) for part in (lesson, validation)]
    shown, kept = (set(rows.tolist()) for _, rows in seen)
    assert [len(part.rows) for part in carried] == [len(shown), len(kept)]
    assert min(len(shown), len(kept)) > 0
    assert not shown & kept
    assert all((part.targets == 0).all() for part in carried)
    assert done.samples["carrying_the_trigger"] == len(shown) + len(kept)
    held_out = done.measures.trigger_success
    assert held_out.before.n == 10
    assert held_out.before.value > 0.8
    assert held_out.after.value < 0.2


def test_a_trigger_that_was_not_proved_is_not_taught(run, lessons):
    done = repair(with_trigger(load(run), proved=False), run)
    ((lesson, _),) = lessons
    assert lesson.rows.max() < 3 * N + POISON
    assert done.samples["carrying_the_trigger"] == 0
    assert done.measures.trigger_success.before.n == 0


def test_a_split_of_the_data_is_measured_on_and_all_else_is_shown(run_with_split, lessons):
    done = repair(load(run_with_split), run_with_split, retrain=True)
    assert done.measured_on == "the split 'test'"
    assert done.measures.clean_accuracy.before.n == 36
    ((lesson, _),) = lessons
    assert len(lesson.rows) == 3 * N


def test_a_split_that_cannot_be_used_is_said_and_a_tenth_held_out(run_with_split, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(run_with_split.parent, root)
    for name in ("class 0", "class 1", "class 2"):
        (root / "data" / "test" / name).rename(root / "data" / "test" / f"other {name}")
    done = repair(load(root / "run"), root / "run", data=root / "data")
    assert done.measured_on == "a tenth of each class, held out"
    assert any("'test' could not be used" in note for note in done.notes)


def test_a_model_that_is_another_kind_of_network_after_a_retraining_is_named(run, tmp_path):
    result = load(run)

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.scale = nn.Linear(256, 3), nn.Parameter(torch.ones(1))

        def forward(self, images):
            return self.head(images.flatten(1) * self.scale)

    network = Flat()
    sample = [np.zeros((16, 16, 1), np.uint8)] * 4
    fingerprint = open_classifier(network, n_classes=3, modality="image", sample=sample).fingerprint()
    result = replace(result, inputs={**result.inputs, "model": {"location": "nn.Module", "fingerprint": fingerprint}})
    done = repair(result, run, tmp_path, model=network, retrain=True)
    assert done.trained == "a small network of toxscreen's own, because the weights of Flat cannot be drawn anew"
    assert (tmp_path / "model" / "toxscreen.json").exists()

from __future__ import annotations

import json
import tempfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import toxscreen.audit
import toxscreen.following
import toxscreen.training
from tests import test_sharing
from tests.clouds import clouds, plant
from tests.fakes import FakeClassifier, FakeTrainingSet
from tests.quick import pictures, texts, write_pictures, write_table
from tests.trigger import test_recover
from toxscreen import views
from toxscreen.audit import NO_INPUTS, audit, audit_arrays
from toxscreen.config import ConfirmationConfig, ExtractionConfig, ReductionConfig, ScanConfig, VerdictConfig
from toxscreen.errors import DataError, UsageError
from toxscreen.result import Verdict, load
from toxscreen.sources.data.base import NotExamined
from toxscreen.sources.model.base import Outputs
from toxscreen.sources.model.preprocessing import ImagePreprocessing
from toxscreen.sources.model.torch_module import TorchClassifier
from toxscreen.store import ActivationStore
from toxscreen.training import Trained


class KnowingClassifier(FakeClassifier):
    """Knows the activations and the class of each picture; ``stop`` interrupts it before that forward pass."""

    def __init__(self, training_set, activations, labels, *, stop=None):
        known = {picture.tobytes(): row for row, picture in enumerate(training_set.inputs)}
        table = np.concatenate([activations, np.eye(len(training_set.class_names))[labels]], axis=1)
        super().__init__(len(training_set.class_names), modality="image", vector=lambda picture: table[known[picture.tobytes()]])
        self.stop = stop

    def forward(self, encoded, layers):
        if len(self.calls) == self.stop:
            raise KeyboardInterrupt
        self.calls.append(len(encoded))
        hidden, logits = encoded[:, : -self.n_classes], encoded[:, -self.n_classes :]
        everything = {"hidden": hidden, "early": hidden**2}
        return Outputs({name: everything[name] for name in layers}, logits)


def subject(sizes=(90, 90, 90), planted=20, **settings):
    """Return pictures with poison in class 1, a classifier that has learned it, and which rows were planted."""
    rng = np.random.default_rng(3)
    made = clouds(sizes, rng)
    if planted:
        made = plant(made, 1, planted, rng)
    low, high = made.cells.min(), made.cells.max()
    images = ((made.cells - low) / (high - low) * 255).astype(np.uint8).reshape(-1, 8, 8, 1)
    training_set = FakeTrainingSet(images, made.labels, modality="image", **settings)
    training_set.ids = pa.array(np.arange(len(images)).astype(str), pa.string())
    return training_set, KnowingClassifier(training_set, made.activations, made.labels), made.planted


def samples(result, folder):
    return (result.save(folder) / "samples.parquet").read_bytes()


def test_a_planted_group_is_accused_and_what_was_examined_is_told():
    training_set, classifier, planted = subject()
    result = audit(training_set, classifier, config=ScanConfig(seed=5))
    assert [found.verdict for found in result.classes] == [Verdict.CLEAN, Verdict.SUSPICIOUS, Verdict.CLEAN]
    assert result.samples["flagged"].to_numpy().tolist() == planted.tolist()
    assert result.not_examined == ()
    assert (result.name, result.seed, result.settings["seed"]) == ("fake", 5, 5)
    assert result.inputs["data"]["n_samples"] == 270
    assert result.inputs["data"]["fingerprint"] == training_set.fingerprint()
    assert result.inputs["model"]["fingerprint"] == classifier.fingerprint()
    assert (result.inputs["model"]["layer"], result.inputs["model"]["layer_width"]) == ("hidden", 24)
    assert result.inputs["model"]["accuracy_on_training_data"] == 1
    assert set(result.timings) >= {"opening the data", "opening the model", "activations", "screening", "exhibits"}
    assert [shown.class_index for shown in result.exhibits.classes] == [1]
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_model_that_names_its_outputs_may_have_them_in_any_order():
    training_set, classifier, planted = subject()
    training_set.class_names, classifier.class_names = ("cat", "dog", "fox"), ("fox", "cat", "dog")
    right = classifier.vector
    classifier.vector = lambda picture: np.r_[right(picture)[:-3], right(picture)[[-1, -3, -2]]]
    result = audit(training_set, classifier)
    assert result.samples["predicted"] == result.samples["label"]
    assert result.samples["flagged"].to_numpy().tolist() == planted.tolist()


def test_nothing_planted_accuses_nobody():
    training_set, classifier, _ = subject(planted=0)
    result = audit(training_set, classifier)
    assert result.verdict is Verdict.CLEAN
    assert result.n_flagged == 0


@pytest.mark.parametrize("method", ["pca", "ica"])
def test_activations_as_arrays_and_as_a_store_read_back_give_the_same_bytes(tmp_path, method, monkeypatch):
    monkeypatch.setattr(toxscreen.audit, "open_medium", lambda *_: None)  # arrays have no inputs to look at
    config = ScanConfig(reduction=ReductionConfig(method), seed=2)
    training_set, classifier, _ = subject()
    from_data = samples(audit(training_set, classifier, config=config, folder=tmp_path / "run"), tmp_path / "run")
    with ActivationStore.open(tmp_path / "run" / "activations") as store:
        read = store.activations()
    assert list(read.layers) == ["hidden", views.CELLS]
    for layers in (read.layers, {name: np.array(values, np.float64) for name, values in read.layers.items()}):
        names = training_set.class_names
        again = audit_arrays(layers, training_set.labels, logits=read.logits, class_names=names, config=config)
        assert samples(again, tmp_path / "again") == from_data


def test_the_same_seed_gives_the_same_bytes_without_and_with_a_folder(tmp_path):
    training_set, classifier, _ = subject()
    first, second = audit(training_set, classifier), audit(training_set, classifier, folder=tmp_path / "kept")
    assert samples(first, tmp_path / "1") == samples(second, tmp_path / "2")
    assert replace(first, timings={}) == replace(second, timings={})


def test_the_size_of_the_batches_changes_nothing(tmp_path):
    training_set, classifier, _ = subject()
    small = audit(training_set, classifier, config=ScanConfig(ExtractionConfig(batch_size=7)))
    assert samples(small, tmp_path / "1") == samples(audit(training_set, classifier), tmp_path / "2")
    assert set(classifier.calls[:-3]) == {7, 270 % 7}


def test_another_layer_can_be_looked_at():
    training_set, classifier, _ = subject()
    result = audit(training_set, classifier, config=ScanConfig(ExtractionConfig(layer="early")))
    assert result.inputs["model"]["layer"] == "early"


def test_without_a_folder_nothing_stays_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    audit(*subject()[:2])
    assert list(tmp_path.iterdir()) == []


def test_a_pass_that_was_interrupted_goes_on_and_one_that_is_finished_is_not_made_again(tmp_path):
    config = ScanConfig(ExtractionConfig(batch_size=50))
    training_set, classifier, _ = subject()
    whole = samples(audit(training_set, classifier, config=config), tmp_path / "whole")
    classifier.calls, classifier.stop = [], 4
    with pytest.raises(KeyboardInterrupt):
        audit(training_set, classifier, config=config, folder=tmp_path / "run")
    classifier.stop = None
    result = audit(training_set, classifier, config=config, folder=tmp_path / "run")
    assert classifier.calls == [50, 50, 50, 50, 50, 20]
    assert samples(result, tmp_path / "run") == whole
    assert samples(audit(training_set, classifier, config=config, folder=tmp_path / "run"), tmp_path / "run") == whole
    assert len(classifier.calls) == 6


def test_a_store_of_another_model_is_not_used_and_that_is_said(tmp_path):
    training_set, classifier, _ = subject()
    audit(training_set, classifier, folder=tmp_path)
    classifier.preprocessing = {"scale": 2.0}
    result = audit(training_set, classifier, folder=tmp_path)
    assert len(classifier.calls) == 6
    assert any("changed: model" in note for note in result.notes)


def test_progress_is_told_for_every_stage():
    told = {}
    training_set, classifier, _ = subject()
    audit(training_set, classifier, progress=lambda what, done, total: told.setdefault(what, []).append((done, total)))
    assert told["computing activations"] == [(0, 270), (128, 270), (256, 270), (270, 270)]
    assert told["clustering the classes"] == [(1, 3), (2, 3), (3, 3)]


# What cannot be judged


def test_samples_that_cannot_be_read_or_have_no_label_are_named_once_and_the_rest_is_judged():
    training_set, classifier, planted = subject(unreadable=(4, 9, 200))
    training_set.labels = training_set.labels.copy()
    training_set.labels[[9, 30]] = -1
    result = audit(training_set, classifier)
    assert sorted((entry.row, entry.reason) for entry in result.not_examined) == [
        (4, "cannot be read"),
        (9, "has no label"),
        (30, "has no label"),
        (200, "cannot be read"),
    ]
    assert result.n_examined == 266
    assert result.samples.take([9, 30])["label"].to_pylist() == [None, None]
    assert result.samples.take([4, 9, 30, 200])["verdict"].to_pylist() == [None] * 4
    examined = ~np.isin(np.arange(270), (4, 9, 30, 200))
    assert result.samples["flagged"].to_numpy().tolist() == (planted & examined).tolist()


def test_thousands_of_unreadable_samples_are_a_hundred_names_and_a_number():
    result = audit(*subject((200, 200, 200), unreadable=range(0, 600, 3))[:2])
    assert len(result.not_examined) == 101
    assert result.not_examined[-1] == NotExamined("100 more", "could not be read, or have activations that are not finite")
    assert result.n_examined == 400


def test_a_data_set_of_which_nothing_can_be_read_is_an_error():
    training_set, classifier, _ = subject(unreadable=range(270))
    with pytest.raises(DataError, match="readable"):
        audit(training_set, classifier)


def test_a_model_that_misreads_its_data_is_said_to_and_no_class_is_cleared_or_accused():
    training_set, classifier, _ = subject()
    right = classifier.vector
    classifier.vector = lambda picture: np.r_[right(picture)[:-3], right(picture)[[-2, -1, -3]]]
    result = audit(training_set, classifier)
    assert {found.verdict for found in result.classes} == {Verdict.INCONCLUSIVE}
    assert result.n_flagged == 0
    assert any("only 0.0% of this training data" in note and "--mean" in note for note in result.notes)


def test_outputs_that_have_other_names_than_the_classes_are_noted():
    training_set, classifier, _ = subject()
    classifier.class_names = ("ant", "bee", "cow")
    assert any("'ant', 'bee', 'cow'" in note for note in audit(training_set, classifier).notes)


def test_how_many_samples_a_model_misreads_is_said():
    training_set, classifier, _ = subject(unreadable=(0, 1))
    right, wrong = classifier.vector, {training_set.inputs[row].tobytes() for row in range(5)}
    classifier.vector = lambda picture: (
        np.r_[right(picture)[:-3], right(picture)[[-2, -1, -3]]] if picture.tobytes() in wrong else right(picture)
    )
    result = audit(training_set, classifier)
    assert result.inputs["model"]["accuracy_on_training_data"] == 265 / 268
    assert any("reads 98.9% of this training data" in note and "the other 3 samples" in note for note in result.notes)


def test_small_classes_are_inconclusive_and_the_others_are_judged():
    result = audit(*subject((90, 90, 90, 1, 2, 9, 11, 24), planted=20)[:2])
    assert [found.verdict for found in result.classes[:3]] == [Verdict.CLEAN, Verdict.SUSPICIOUS, Verdict.CLEAN]
    for found in result.classes[3:]:
        assert found.verdict is Verdict.INCONCLUSIVE
        assert found.reasons[0].startswith("At least 25 examined samples are needed")
        assert str(found.n) in found.reasons[0]


def test_a_class_without_a_sample_is_inconclusive():
    training_set, classifier, _ = subject()
    training_set.class_names = (*training_set.class_names, "nobody")
    classifier.n_classes, old = 4, classifier.vector
    classifier.vector = lambda picture: np.append(old(picture), 0)
    result = audit(training_set, classifier)
    assert (result.classes[-1].n, result.classes[-1].verdict) == (0, Verdict.INCONCLUSIVE)
    assert result.classes[1].verdict is Verdict.SUSPICIOUS


# A model that is trained for the scan


@pytest.fixture
def training(monkeypatch):
    """Take the place of the training: return what it was asked, and let a fake classifier come of it."""
    asked = {}

    def train(training_set, held_out, folder, **settings):
        asked.update(settings, training_set=training_set, held_out=held_out, folder=folder)
        classifier = FakeClassifier(len(training_set.class_names), modality=training_set.modality, vector=lambda _: np.zeros(8))
        return Trained(classifier, asked.get("accuracy", 0.875), "a tenth of each class, held out")

    monkeypatch.setattr(toxscreen.training, "train_classifier", train)
    return asked


def test_without_a_model_one_is_trained_and_said(training, tmp_path):
    table = write_table(tmp_path / "t.csv", *texts(20, 2))
    result = audit(table, config=ScanConfig(ExtractionConfig(device="cpu"), seed=9), folder=tmp_path / "run")
    assert (training["folder"], training["seed"], training["device"]) == (tmp_path / "run" / "model", 9, "cpu")
    assert training["held_out"] is None
    assert any("trained on this data" in note and "87.5%" in note for note in result.notes)
    assert result.inputs["model"]["trained_here"] is True
    assert result.inputs["model"]["out_of_sample_accuracy"] == 0.875


def test_an_accuracy_that_could_not_be_measured_is_no_number(training, tmp_path):
    training["accuracy"] = np.nan
    result = audit(write_table(tmp_path / "t.csv", *texts(5, 2)))
    assert any("too few samples to measure" in note for note in result.notes)
    assert not any("nan" in note for note in result.notes)


def test_a_test_split_measures_the_model_that_is_trained_unless_it_is_what_is_scanned(training, tmp_path):
    for split, n in (("train", 4), ("test", 3)):
        write_pictures(tmp_path / split, *pictures(n))
    audit(tmp_path)
    assert (len(training["training_set"]), len(training["held_out"])) == (12, 9)
    audit(tmp_path, split="test")
    assert (len(training["training_set"]), training["held_out"]) == (9, None)


def test_a_test_split_that_cannot_be_used_is_said_to_and_a_tenth_is_held_out(training, tmp_path):
    for split, n_classes in (("train", 2), ("test", 3)):
        write_pictures(tmp_path / split, *pictures(4, n_classes))
    result = audit(tmp_path)
    assert (len(training["training_set"]), training["held_out"]) == (8, None)
    assert any("split 'test' could not be used" in note and "'class 2'" in note for note in result.notes)


def test_the_test_split_is_read_by_the_same_columns_and_classes(training, tmp_path):
    (tmp_path / "train.csv").write_text("sentence,mood\n" + "good,up\nbad,down\nso so,level\n" * 3)
    (tmp_path / "test.csv").write_text("sentence,mood\n" + "fine,up\nwell,level\n" * 2)
    audit(tmp_path, input_column="sentence", label_column="mood")
    assert training["held_out"].class_names == training["training_set"].class_names == ("down", "level", "up")
    assert training["held_out"].labels.tolist() == [2, 1, 2, 1]


@pytest.mark.usefixtures("training")
def test_how_the_data_was_read_is_told_so_that_it_can_be_read_again(tmp_path):
    for split in ("train", "test"):
        write_table(tmp_path / f"{split}.csv", *texts(4))
    assert "split" not in audit(tmp_path).inputs["data"]
    read = audit(tmp_path, split="test", input_column="text", label_column="label").inputs["data"]
    assert (read["split"], read["input_column"], read["label_column"]) == ("test", "text", "label")


def test_arrays_need_a_model():
    with pytest.raises(DataError, match="--model"):
        audit((np.zeros((40, 3)), np.arange(40) % 2))


@pytest.mark.parametrize("setting", ["arch", "preprocessing"])
def test_settings_of_a_model_need_a_model(setting):
    with pytest.raises(UsageError, match="--model"):
        audit((np.zeros((40, 3)), np.arange(40) % 2), **{setting: "something"})


def test_the_device_is_resolved_once_and_told(monkeypatch):
    training_set, classifier, _ = subject()
    assert audit(training_set, classifier, config=ScanConfig(ExtractionConfig(device="cpu"))).inputs["device"] == "cpu"
    assert audit(training_set, classifier).inputs["device"] == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert toxscreen.audit.resolve_device("auto", live=False) == "mps"
    with pytest.raises(UsageError, match="got 'cuda'"):
        audit(training_set, classifier, config=ScanConfig(ExtractionConfig(device="cuda")))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert toxscreen.audit.resolve_device("auto", live=False) == toxscreen.audit.resolve_device("cuda", live=True) == "cuda"


# Activations alone


def given(planted=20):
    rng = np.random.default_rng(3)
    made = clouds((90, 90, 90), rng)
    return plant(made, 1, planted, rng) if planted else made


def test_activations_alone_find_poison_and_say_what_was_not_asked():
    made = given()
    result = audit_arrays(made.activations, made.labels)
    assert [found.verdict for found in result.classes] == [Verdict.CLEAN, Verdict.SUSPICIOUS, Verdict.CLEAN]
    assert result.samples["flagged"].to_numpy().tolist() == made.planted.tolist()
    assert NO_INPUTS in result.notes
    assert NO_INPUTS not in audit_arrays({"hidden": made.activations, views.CELLS: made.cells}, made.labels).notes
    assert result.samples["predicted"].null_count == 270
    assert result.inputs["model"]["layer"] == "activations"


def test_activations_of_clean_data_accuse_nobody():
    made = given(planted=0)
    assert audit_arrays(made.activations, made.labels).verdict is Verdict.CLEAN


def test_labels_of_any_kind_give_the_same_answer(tmp_path):
    made = given()
    numbers = audit_arrays(made.activations, made.labels, class_names=("a", "b", "c"))
    names = audit_arrays(made.activations, np.array(["a", "b", "c"])[made.labels])
    assert samples(numbers, tmp_path / "1") == samples(names, tmp_path / "2")
    odd = audit_arrays(made.activations, np.array([-7, 0, 1000])[made.labels])
    assert [found.name for found in odd.classes] == ["-7", "0", "1000"]


def test_rows_that_are_not_finite_or_have_no_label_are_not_examined():
    made = given()
    activations, labels = made.activations.copy(), made.labels.astype(float)
    activations[5, 2], activations[6, 0], labels[7] = np.nan, np.inf, np.nan
    result = audit_arrays(activations, labels)
    assert [(entry.row, entry.reason) for entry in result.not_examined] == [
        (7, "has no label"),
        (5, "not finite in float32 (NaN, infinity or too large): layer 'activations'"),
        (6, "not finite in float32 (NaN, infinity or too large): layer 'activations'"),
    ]
    assert result.n_examined == 267


def test_constant_activations_are_inconclusive():
    result = audit_arrays(np.ones((90, 5)), np.arange(90) % 3)
    assert {found.verdict for found in result.classes} == {Verdict.INCONCLUSIVE}
    assert all("constant" in found.reasons[0] for found in result.classes)


def test_activations_that_are_all_nan_are_inconclusive():
    result = audit_arrays(np.full((90, 5), np.nan), np.arange(90) % 3)
    assert {found.verdict for found in result.classes} == {Verdict.INCONCLUSIVE}
    assert result.n_examined == 0


def test_the_layer_to_look_at_must_be_one_of_those_given():
    made = given()
    layers = {"early": made.cells, "late": made.activations}
    config = ScanConfig(ExtractionConfig(layer="late"))
    late, first = audit_arrays(layers, made.labels, config=config), audit_arrays(layers, made.labels)
    assert (late.inputs["model"]["layer"], first.inputs["model"]["layer"]) == ("late", "early")
    assert late.samples == audit_arrays(made.activations, made.labels).samples != first.samples
    with pytest.raises(UsageError, match="early, late, got 'middle'"):
        audit_arrays(layers, made.labels, config=ScanConfig(ExtractionConfig(layer="middle")))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"logits": np.zeros((270, 4))}, "one logit per class, got 4 for 3"),
        ({"logits": np.zeros((9, 3))}, "one row per label"),
        ({"labels": np.zeros(9)}, "one row per label"),
        ({"labels": np.full(270, None)}, "must have a label"),
        ({"labels": np.zeros((270, 3))}, "shape"),
        ({"activations": np.zeros(270)}, "flatten"),
        ({"activations": {}}, "at least one layer"),
        ({"activations": np.full((270, 2), "high")}, "numbers"),
        ({"class_names": ("a", "b")}, "2 class names"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_one_sentence(changes, said):
    made = given()
    with pytest.raises(DataError, match=said):
        audit_arrays(**{"activations": made.activations, "labels": made.labels} | changes)


def test_a_held_out_split_that_cannot_be_used_is_told_and_the_scan_goes_on(tmp_path, monkeypatch):
    inputs, labels = texts(12, 2)
    table = {"text": list(inputs), "label": [int(label) for label in labels]}
    pq.write_table(pa.table(table), tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(pa.table({**table, "label": [-1] * len(labels)}), tmp_path / "test-00000-of-00001.parquet")
    asked = []

    def train(_training_set, held_out, *_, **__):
        asked.append(held_out)
        raise DataError("far enough")

    monkeypatch.setattr("toxscreen.training.train_classifier", train)
    with pytest.raises(DataError, match="far enough"):
        audit(tmp_path)
    assert asked == [None]


def test_a_device_that_is_not_there_is_refused_by_name(tmp_path):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has that device")
    training_set, classifier, _ = subject()
    config = ScanConfig(ExtractionConfig(device="mps"))
    with pytest.raises(UsageError, match="'mps'"):
        audit(training_set, classifier, config=config, folder=tmp_path)


@pytest.mark.parametrize("planted", [0, 20])
def test_a_finding_is_kept_before_the_model_is_asked_about_triggers_and_nothing_that_looks_clean(monkeypatch, tmp_path, planted):
    kept = []

    def recovers(*_, **__):
        kept.append(load(tmp_path).pending if (tmp_path / "result.json").exists() else None)
        raise ValueError("out of memory")

    monkeypatch.setattr("toxscreen.following.recover", recovers)
    training_set, classifier, _ = subject(planted=planted)
    result = audit(training_set, classifier, folder=tmp_path)
    assert kept == [("triggers",) if planted else None]
    assert result.pending == ()
    assert result.verdict is (Verdict.SUSPICIOUS if planted else Verdict.CLEAN)
    assert any("Looking for triggers failed" in note and "out of memory" in note for note in result.notes)


def test_a_class_with_a_proved_trigger_is_looked_at_for_another_pattern_that_the_model_has_not_learned(monkeypatch):
    training_set, rows = test_sharing.poisoned(planted=60)
    for picture, vivid in zip(training_set.inputs, test_recover.poisoned(n=90, planted=60)[0].inputs, strict=True):
        picture[0, 0] = vivid[0, 0]  # the model reads the class there
    first, second = np.split(np.flatnonzero(rows), 2)
    for number in second:
        picture = training_set.inputs[number]
        picture[1:4, -4:-1], picture[-4:-1, -4:-1] = picture[-4:-1, -4:-1].copy(), picture[1:4, -4:-1].copy()
    screening = test_sharing.screened(training_set, first, conflict=np.flatnonzero(rows))
    monkeypatch.setattr("toxscreen.audit.screen", lambda *_, **__: screening)
    result = audit(training_set, test_recover.Obedient())
    assert result.samples["flagged"].to_numpy().tolist() == rows.tolist()
    assert [group.verdict for group in result.classes[0].accused] == [Verdict.POISONED, Verdict.SUSPICIOUS]


def test_data_that_grew_is_put_through_the_model_only_as_far_as_it_is_new_and_that_is_told(tmp_path):
    whole, classifier, _ = subject()
    new = np.arange(len(whole)) % 50 == 7
    part = FakeTrainingSet([whole.inputs[row] for row in np.flatnonzero(~new)], whole.labels[~new], modality="image")
    audit(part, classifier, folder=tmp_path)
    for training_set, expected, said in (
        (part, 0, "The model was not run: all 264 samples"),
        (whole, new.sum(), "264 of 270 samples are"),
    ):
        classifier.calls.clear()
        result = audit(training_set, classifier, folder=tmp_path)
        assert sum(classifier.calls) == expected
        assert any(said in note for note in result.notes)
    assert samples(result, tmp_path / "grown") == samples(audit(whole, classifier), tmp_path / "anew")


def test_an_altered_store_is_told_and_mended_and_the_verdicts_stay(tmp_path):
    training_set, classifier, _ = subject()
    before = samples(audit(training_set, classifier, folder=tmp_path / "run"), tmp_path / "before")
    layer = np.lib.format.open_memmap(tmp_path / "run" / "activations" / "layer-0.npy", mode="r+")
    layer[100, 3] += 1
    layer.flush()
    classifier.calls.clear()
    result = audit(training_set, classifier, folder=tmp_path / "run")
    assert classifier.calls == [ExtractionConfig.batch_size]
    assert any("layer-0.npy (layer 'hidden') is cut short or altered in 1 of 270 rows" in note for note in result.notes)
    assert samples(result, tmp_path / "after") == before


def test_sixteen_bit_accuse_the_same_classes_and_flag_the_same_samples(tmp_path):
    data, network = poisoned_pictures()
    settings = ({"dtype": "float32"}, {"dtype": "bfloat16"}, {"dtype": "float32", "stored": "bfloat16"})
    exact, *others = (
        audit(data, network, config=ScanConfig(ExtractionConfig(**setting)), folder=tmp_path / str(number))
        for number, setting in enumerate(settings)
    )
    assert exact.n_flagged > 0
    for result, setting in zip(others, settings[1:], strict=True):
        assert [found.n_accused > 0 for found in result.classes] == [found.n_accused > 0 for found in exact.classes]
        assert result.samples["flagged"].equals(exact.samples["flagged"])
        assert {name: result.inputs[name] for name in setting} == setting


def poisoned_pictures():
    """Return pictures of which some of class 0 carry a white corner and the label 1, and a network that has learned it."""
    images, labels = pictures(120)
    images[:30, -3:, -3:] = 255
    labels[:30] = 1
    torch.manual_seed(0)
    features = (torch.nn.Conv2d(1, 12, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(588, 32))
    network = torch.nn.Sequential(*features, torch.nn.ReLU(), torch.nn.Linear(32, 3))
    inputs, targets = torch.from_numpy(images)[:, None] / 255, torch.from_numpy(labels)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
    return (images, labels), network


# A scan that is repeated into its folder


@pytest.fixture
def finished(tmp_path):
    """Pictures, labels, a network, and the folder of a scan of them that is over."""
    (images, labels), network = poisoned_pictures()
    audit((images, labels), network, folder=tmp_path / "run").save(tmp_path / "run")
    return images, labels, network, tmp_path / "run"


@pytest.fixture
def computed(monkeypatch):
    """Say which of the steps that cost time were made."""
    made = []

    def watched(name, step):
        def watching(*arguments, **settings):
            made.append(name)
            return step(*arguments, **settings)

        return watching

    for module, name in ((toxscreen.audit, "screen"), (toxscreen.following, "recover"), (toxscreen.audit, "make_exhibits")):
        monkeypatch.setattr(module, name, watched(name, getattr(module, name)))
    return made


def documents(folder):
    """Return what the files of a run hold, but for what every scan says of itself."""
    document = json.loads((folder / "result.json").read_text("utf-8"))
    told = {name: value for name, value in document.items() if name not in ("notes", "timings", "files")}
    return told, *((folder / name).read_bytes() for name in ("samples.parquet", "exhibits.json"))


def test_a_scan_of_the_same_is_handed_the_result_and_says_so(finished, computed, monkeypatch):
    images, labels, network, folder = finished
    first, before, page = load(folder), documents(folder), (folder / "report.html").read_bytes()
    passes = []
    forward = TorchClassifier.forward
    monkeypatch.setattr(TorchClassifier, "forward", lambda *given: passes.append(1) or forward(*given))
    for _ in range(2):  # and what was handed out is handed out again
        result = audit((images, labels), network, folder=folder)
        assert (computed, passes) == ([], [])
        assert result.verdict.severity >= Verdict.SUSPICIOUS.severity
        assert replace(result, timings=first.timings, notes=first.notes) == first
        assert result.notes == (result.origin.note, *first.notes)
        assert result.notes[0].startswith("Nothing has changed since the scan of 20")
        assert "screening" not in result.timings
        result.save(folder)
        assert documents(folder) == before
    replace(result, timings=first.timings, notes=first.notes).save(folder)
    assert (folder / "report.html").read_bytes() == page


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 1},
        {"verdict": VerdictConfig(0.02)},
        {"extraction": ExtractionConfig(layer="4")},
        {"extraction": ExtractionConfig(dtype="float32", batch_size=64)},
        {"class_names": ("a", "b", "c")},
        {"preprocessing": ImagePreprocessing(mean=(0.1,))},
    ],
)
def test_other_settings_are_computed_anew(finished, computed, settings):
    images, labels, network, folder = finished
    config = {name: value for name, value in settings.items() if name in ScanConfig.__dataclass_fields__}
    others = {name: value for name, value in settings.items() if name not in config}
    result = audit((images, labels), network, config=ScanConfig(**config), folder=folder, **others)
    assert computed == ["screen", "recover", "make_exhibits"]
    assert not any("Nothing has changed" in note for note in result.notes)


@pytest.mark.parametrize("changed", ["pixel", "label", "weight"])
def test_other_data_and_another_model_are_computed_anew(finished, computed, changed):
    images, labels, network, folder = finished
    images[200, 0, 0] ^= changed == "pixel"
    labels[200] = (labels[200] + (changed == "label")) % 3
    with torch.no_grad():
        network[-1].bias[0] += 1e-6 * (changed == "weight")
    audit((images, labels), network, folder=folder)
    assert computed == ["screen", "recover", "make_exhibits"]


@pytest.mark.parametrize("name", ["_packages", "_code"])
def test_another_version_or_other_code_computes_anew(finished, computed, monkeypatch, name):
    images, labels, network, folder = finished
    monkeypatch.setattr(f"toxscreen.origin.{name}", lambda: {"toxscreen": "0.0.1"})
    audit((images, labels), network, folder=folder)
    assert computed == ["screen", "recover", "make_exhibits"]


def altered(path, old, new):
    found = path.read_bytes()
    assert old in found
    path.write_bytes(found.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("result.json", b'"verdict": "', b'"verdict": "un'),
        ("result.json", b'"n": 360', b'"n": 361'),
        ("result.json", b"{", b""),
        ("samples.parquet", b"\x00", b"\x01"),
        ("exhibits.json", b"[", b"{"),
        ("finished.json", b'"20', b'"x'),
        ("finished.json", b"{", b"["),
        ("finished.json", b'"digest"', b'"other"'),
    ],
)
def test_a_result_that_was_altered_is_computed_anew(finished, computed, name, old, new):
    images, labels, network, folder = finished
    before = documents(folder)
    altered(folder / name, old, new)
    audit((images, labels), network, folder=folder).save(folder)
    assert computed == ["screen", "recover", "make_exhibits"]
    assert documents(folder) == before
    notes = audit((images, labels), network, folder=folder).notes
    assert sum("Nothing has changed" in note for note in notes) == 1
    assert sum("not run" in note for note in notes) == 1


@pytest.mark.parametrize("name", ["result.json", "samples.parquet", "exhibits.json", "finished.json"])
def test_a_result_of_which_a_file_is_missing_is_computed_anew(finished, computed, name):
    images, labels, network, folder = finished
    (folder / name).unlink()
    audit((images, labels), network, folder=folder)
    assert computed == ["screen", "recover", "make_exhibits"]


def test_a_store_that_was_altered_is_mended_and_the_result_is_computed_anew(finished, computed):
    images, labels, network, folder = finished
    logits = np.lib.format.open_memmap(folder / "activations" / "logits.npy", mode="r+")
    logits[7] += 1
    logits.flush()
    result = audit((images, labels), network, folder=folder)
    assert computed == ["screen", "recover", "make_exhibits"]
    assert any("is cut short or altered" in note for note in result.notes)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_finding_of_a_scan_that_was_killed_is_not_handed_out_nor_what_stood_there_before(monkeypatch, tmp_path, computed, seed):
    training_set, classifier, _ = subject()

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("toxscreen.following.recover", lambda *_, **__: ())
    monkeypatch.setattr("toxscreen.following.recover_changes", lambda *_, **__: ())
    monkeypatch.setattr("toxscreen.following.recover_tints", lambda *_, **__: ())
    audit(training_set, classifier, folder=tmp_path).save(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("toxscreen.following.recover", killed)
        patch.setattr("toxscreen.audit.read_finished", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            audit(training_set, classifier, config=ScanConfig(seed=seed), folder=tmp_path)
    assert (load(tmp_path).seed, load(tmp_path).verdict) == (seed, Verdict.SUSPICIOUS)  # what was found so far
    for again in (seed, 0):
        computed.clear()
        audit(training_set, classifier, config=ScanConfig(seed=again), folder=tmp_path)
        assert computed == ["screen", "make_exhibits"]


def test_a_scan_in_which_a_step_failed_is_made_again(monkeypatch, tmp_path):
    training_set, classifier, _ = subject()
    with monkeypatch.context() as patch:
        patch.setattr("toxscreen.following.recover", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
        failed = audit(training_set, classifier, folder=tmp_path)
    assert failed.origin is None
    failed.save(tmp_path)
    monkeypatch.setattr("toxscreen.following.recover", lambda *_, **__: ())
    monkeypatch.setattr("toxscreen.following.recover_changes", lambda *_, **__: ())
    monkeypatch.setattr("toxscreen.following.recover_tints", lambda *_, **__: ())
    result = audit(training_set, classifier, folder=tmp_path)
    assert not any("failed" in note for note in result.notes)
    assert result.origin is not None


def test_a_trainer_is_code_that_may_have_changed(monkeypatch, tmp_path):
    training_set, classifier, _ = subject()
    monkeypatch.setattr("toxscreen.following.recover", lambda *_, **__: ())
    monkeypatch.setattr("toxscreen.following.recover_changes", lambda *_, **__: ())
    monkeypatch.setattr("toxscreen.following.recover_tints", lambda *_, **__: ())
    monkeypatch.setattr("toxscreen.audit._confirmed", lambda screening, *_: (screening, None))
    config = ScanConfig(confirmation=ConfirmationConfig(asked=True))
    for trainer, known in ((None, True), (lambda network, _: network, False)):
        result = audit(training_set, classifier, config=config, trainer=trainer, folder=tmp_path)
        assert (result.origin is not None) is known


def test_data_without_fingerprints_and_a_scan_without_a_folder_are_always_computed(monkeypatch, tmp_path, computed):
    monkeypatch.setattr("toxscreen.following.recover", lambda *_, **__: ())
    monkeypatch.setattr("toxscreen.following.recover_changes", lambda *_, **__: ())
    monkeypatch.setattr("toxscreen.following.recover_tints", lambda *_, **__: ())
    training_set, classifier, _ = subject()
    assert audit(training_set, classifier).origin is None
    monkeypatch.setattr(training_set, "digests", lambda: None)
    computed.clear()
    for _ in range(2):
        audit(training_set, classifier, folder=tmp_path).save(tmp_path)
    assert computed == ["screen", "make_exhibits"] * 2


def test_what_was_left_out_of_the_data_is_part_of_it(monkeypatch, tmp_path, computed):
    monkeypatch.setattr("toxscreen.following.recover", lambda *_, **__: ())
    monkeypatch.setattr("toxscreen.following.recover_changes", lambda *_, **__: ())
    monkeypatch.setattr("toxscreen.following.recover_tints", lambda *_, **__: ())
    training_set, classifier, _ = subject()
    audit(training_set, classifier, folder=tmp_path).save(tmp_path)
    computed.clear()
    assert audit(training_set, classifier, folder=tmp_path).not_examined == ()
    assert not computed
    monkeypatch.setattr(training_set, "not_examined", lambda: (NotExamined("notes.txt", "is no picture"),))
    result = audit(training_set, classifier, folder=tmp_path)
    assert computed
    assert [entry.id for entry in result.not_examined] == ["notes.txt"]

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from PIL import Image
from safetensors.numpy import save_file

import toxscreen.audit
import toxscreen.demo
from tests import quick
from tests.quick import toxscreen as run
from tests.scans import scan_result
from tests.triggers import convicted, recovered, words
from toxscreen import cli, metrics, store, training
from toxscreen.benchmark import TABLES
from toxscreen.cli import EPILOG
from toxscreen.demo import Outcome
from toxscreen.errors import DataError
from toxscreen.report.wording import VERDICTS
from toxscreen.result import Verdict, load
from toxscreen.sources.data.base import NotExamined
from toxscreen.sources.model.torch_module import TorchClassifier
from toxscreen.verdict import POLICY

SCHEMA = json.loads(resources.files("toxscreen.report").joinpath("schema.json").read_text(encoding="utf-8"))


STEPWISE = ("--device", "cpu", "--batch-size", "20")
"""Twelve steps for 240 samples; the same ones give the same bytes."""


@dataclass(frozen=True)
class Scanned:
    """A data set, its run folder, what was printed, and the truth about it."""

    data: Path
    folder: Path
    done: Result
    truth: Path | None = None

    @property
    def samples(self) -> bytes:
        return samples(self.folder)

    @property
    def model(self) -> Path:
        return self.folder / "model"


@pytest.fixture(scope="module", autouse=True)
def quick_training():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "PICTURES", quick.PICTURES)
        patch.setattr(training, "SENTENCES", quick.TEXTS)
        patch.setattr(cli, "_SECONDS_BETWEEN", np.inf)  # a machine that is busy is slow
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Poison planted in pictures by the command line, and scanned by it; no name is plain ASCII."""
    root = tmp_path_factory.mktemp("Bilder für Zoë")
    clean = quick.write_pictures(root / "saubere Käfer", *quick.pictures(80))
    planted = run("poison", clean, "--attack", "badnets", "--target", "class 1", "--share", 0.25, "--out", root / "böse Käfer")
    assert planted.exit_code == 0, planted.output
    done = run("scan", root / "böse Käfer", "--out", root / "Lauf 1", "--json", *STEPWISE)
    return Scanned(root / "böse Käfer", root / "Lauf 1", done, root / "böse Käfer.truth.parquet")


@pytest.fixture(scope="module")
def clean_pictures(pictures):
    """The same with nothing planted."""
    data, folder = pictures.data.with_name("saubere Käfer"), pictures.folder.with_name("Lauf 2")
    return Scanned(data, folder, run("scan", data, "--out", folder, "--device", "cpu"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Poison planted in texts, and scanned; one of them is HTML."""
    root = tmp_path_factory.mktemp("texts")
    found, labels = quick.texts(120)
    names = np.array(["<b>low</b>", "mid", "high"])[labels]
    clean = quick.write_table(
        root / "clean.csv", [f"<script>alert('{row}')</script> {text}" for row, text in enumerate(found)], names
    )
    planted = run("poison", clean, "--attack", "signature", "--target", "mid", "--share", 0.2, "--out", root / "planted")
    assert planted.exit_code == 0, planted.output
    done = run("scan", root / "planted", "--out", root / "run", "--device", "cpu")
    return Scanned(root / "planted", root / "run", done, root / "planted.truth.parquet")


def samples(folder):
    return (folder / "samples.parquet").read_bytes()


def verdicts(folder):
    return {found.name: str(found.verdict) for found in load(folder).classes}


def sentence(done):
    """Return what an error says: one line on stderr, and no traceback."""
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("toxscreen: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return lines[-1]


# A scan of planted and of clean data


def test_poison_in_pictures_is_found_and_nothing_else(pictures):
    assert pictures.done.exit_code == 1
    assert verdicts(pictures.folder) == {"class 0": "clean", "class 1": "poisoned", "class 2": "clean"}
    found = metrics.score(load(pictures.folder).samples, metrics.read_truth(pictures.truth))
    assert (found.false_alarms, found.missed) == ((), ())
    assert found.counts.tpr > 0.9
    assert found.counts.fpr < 0.01


def test_nothing_planted_in_pictures_accuses_nobody(clean_pictures):
    assert clean_pictures.done.exit_code == 0
    assert set(verdicts(clean_pictures.folder).values()) == {"clean"}
    assert load(clean_pictures.folder).n_flagged == 0
    assert "CLEAN" in clean_pictures.done.stdout
    assert str(clean_pictures.folder.resolve() / "report.html") in clean_pictures.done.stdout


def test_poison_in_texts_is_found_and_nothing_else(texts):
    assert texts.done.exit_code == 1
    assert verdicts(texts.folder) == {"<b>low</b>": "clean", "high": "clean", "mid": "poisoned"}
    found = metrics.score(load(texts.folder).samples, metrics.read_truth(texts.truth))
    assert (found.false_alarms, found.missed) == ((), ())
    assert found.counts.tpr > 0.9
    assert found.counts.fpr < 0.01
    assert "travelerthehorse" in (texts.folder / "report.html").read_text(encoding="utf-8")


def test_nothing_planted_in_texts_accuses_nobody(texts, tmp_path):
    done = run("scan", texts.data.with_name("clean.csv"), "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert load(tmp_path / "run").n_flagged == 0


def test_html_in_texts_and_class_names_is_escaped(texts):
    page = (texts.folder / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(" in page
    assert "<script>alert(" not in page
    assert "<b>low</b>" not in page


def test_json_on_stdout_is_one_document_of_the_schema(pictures):
    document = json.loads(pictures.done.stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["verdict"] == "poisoned"
    assert json.loads((pictures.folder / "result.json").read_text(encoding="utf-8")).items() >= document.items()
    assert "Käfer" in pictures.done.stdout
    assert pictures.done.stderr == ""


def test_the_model_that_was_kept_gives_the_same_verdict(pictures, tmp_path):
    done = run("scan", pictures.data, "--model", pictures.model, "--out", tmp_path / "run", *STEPWISE)
    assert done.exit_code == 1
    assert samples(tmp_path / "run") == pictures.samples
    assert load(tmp_path / "run").inputs["model"]["trained_here"] is False


# What a user sees


def test_help_documents_the_exit_codes():
    for command in ((), ("scan",)):
        page = " ".join(run(*command, "--help").stdout.split())
        assert EPILOG in page
    for code in ("0 every class", "1 at least one", "2 what was typed", "3 nothing suspicious", "4 failed"):
        assert code in EPILOG


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("scan", "missing"), 2),
        (("scan", ".", "--fail-on", "clean"), 2),
        (("scan", "empty", "--size", "8"), 2),
        (("scan", "empty"), 4),
        (("repair", "empty", "--out", "repaired"), 4),
    ],
)
def test_a_failure_is_a_document_where_one_was_asked_for(tmp_path, monkeypatch, arguments, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    done = run(*arguments, "--json")
    document = json.loads(done.stdout)
    assert document.keys() == {"error", "exit_code"}
    assert done.exit_code == document["exit_code"] == code
    assert done.stderr.splitlines()[-1].endswith(document["error"])
    assert run(*arguments).stdout == ""


def test_what_each_command_does_is_said_in_full_in_the_list_of_them():
    assert "..." not in run("--help").stdout.partition("Commands:")[2]


def test_help_comes_without_the_heavy_packages():
    heavy = {"torch", "numpy", "pyarrow", "sklearn", "rich", "jinja2", "PIL"}
    code = f"import sys; from toxscreen.cli import main; main(['--help'], standalone_mode=False); print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 our own code
    assert done.stdout.splitlines()[-1] == "set()"
    assert "scan" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["scan"],
        ["scan", "missing"],
        ["scan", ".", "--components", "0"],
        ["scan", ".", "--mean", "a,b"],
        ["scan", ".", "--size", "12x"],
        ["scan", ".", "--size", "1x2x3"],
        ["scan", ".", "--fail-on", "clean"],
        ["scan", ".", "--device", "abacus"],
        ["scan", ".", "--analysis", "magic"],
        ["detect", "."],
        ["demo", "music"],
        ["report", "missing"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2
    assert "Error" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "said"),
    [("--size 0", "pixels"), ("--size 9999999", "pixels"), ("--std 0", "std"), ("--mean nan", "mean"), ("--mean 1,2", "mean")],
)
def test_preprocessing_that_cannot_be_exits_with_2(pictures, tmp_path, option, said):
    done = run("scan", pictures.data, "--model", pictures.model, *option.split(), "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert said in sentence(done)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", [("--arch", "nets:small"), ("--size", "16"), ("--mean", "0.5")])
def test_settings_of_a_model_without_a_model_exit_with_2(pictures, tmp_path, option):
    done = run("scan", pictures.data, *option, "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "--model" in sentence(done)


def test_a_device_that_is_not_there_exits_with_2(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = run("scan", pictures.data, "--model", pictures.model, "--device", "cuda", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "--device" in sentence(done)


def test_a_layer_that_is_not_there_exits_with_2_and_names_the_way_out(pictures, tmp_path):
    done = run("scan", pictures.data, "--model", pictures.model, "--layer", "attic", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "toxscreen inspect" in sentence(done)


def test_another_layer_can_be_scanned(pictures, tmp_path):
    done = run("scan", pictures.data, "--model", pictures.model, "--layer", "blocks.0", "--out", tmp_path / "run", "--json")
    assert done.exit_code in (0, 1)
    model = json.loads(done.stdout)["inputs"]["model"]
    assert (model["layer"], model["layer_width"]) == ("blocks.0", 32)


def test_a_published_rule_can_be_chosen(pictures, tmp_path):
    rule = ("--analysis", "spectral-signatures")
    done = run("scan", pictures.data, "--model", pictures.model, *rule, "--out", tmp_path / "run", "--json", *STEPWISE)
    assert done.exit_code == 1
    assert all("Spectral Signatures" in " ".join(found["reasons"]) for found in json.loads(done.stdout)["classes"])


def test_a_traceback_is_shown_with_debug_alone(tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = ("scan", tmp_path / "empty", "--out", tmp_path / "run")
    assert "Traceback" not in run(*arguments).stderr
    told = run("--debug", *arguments)
    assert "Traceback (most recent call last)" in told.stderr
    assert told.stderr.splitlines()[-1] == sentence(run(*arguments))
    assert told.exit_code == 4


@pytest.mark.parametrize("error", [RuntimeError("Torch not compiled\nwith CUDA \x1b[31menabled"), MemoryError(), IndexError("7")])
def test_an_error_that_nobody_thought_of_exits_with_4_and_not_with_that_of_a_finding(tmp_path, monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(toxscreen.audit, "audit", fails)
    done = run("scan", tmp_path, "--out", tmp_path.with_name("run"))
    assert done.exit_code == 4
    assert "--debug" in sentence(done)
    assert "\x1b" not in done.stderr


def test_no_colour_without_a_terminal_and_with_no_color(pictures, monkeypatch, tmp_path):
    again = ("scan", pictures.data, "--model", pictures.model, "--out", tmp_path / "run")
    assert "\x1b" not in run(*again).stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1;31m" in run(*again).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in run(*again).stdout


def test_progress_is_shown_on_a_terminal_and_keeps_off_stdout(pictures, monkeypatch, tmp_path):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    done = run("scan", pictures.data, "--model", pictures.model, *STEPWISE, "--out", tmp_path / "run", "--json")
    assert json.loads(done.stdout)["verdict"] == "poisoned"
    assert "computing activations" in done.stderr
    assert "clustering the classes" in done.stderr
    assert "/240" in done.stderr


def test_where_nobody_watches_progress_is_plain_lines_on_stderr(pictures, monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "_SECONDS_BETWEEN", 0.0)
    done = run("scan", pictures.data, "--model", pictures.model, *STEPWISE, "--out", tmp_path / "run", "--json")
    assert json.loads(done.stdout)["verdict"] == "poisoned"
    assert "computing activations: 120 of 240" in done.stderr.splitlines()
    assert "clustering the classes: 3 of 3" in done.stderr.splitlines()
    assert done.stderr.replace("\n", "").isprintable()


def test_a_line_of_progress_comes_every_ten_seconds_at_most(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(cli, "_SECONDS_BETWEEN", 10.0)
    monkeypatch.setattr(cli.time, "monotonic", lambda: now[0])
    told = cli._plainly()
    for now[0] in range(1, 36):
        told("working", int(now[0]), 1000)
    assert capsys.readouterr().err.splitlines() == [f"working: {n} of 1,000" for n in (10, 20, 30)]


def test_a_step_that_was_told_of_is_told_to_its_end(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(cli, "_SECONDS_BETWEEN", 10.0)
    monkeypatch.setattr(cli.time, "monotonic", lambda: now[0])
    told = cli._plainly()
    for now[0], what, done in ((11, "long", 1), (15, "long", 2), (16, "short", 1), (17, "short", 2)):
        told(what, done, 2)
    assert capsys.readouterr().err.splitlines() == ["long: 1 of 2", "long: 2 of 2"]


# Exit codes

C, U, S, P = Verdict.CLEAN, Verdict.INCONCLUSIVE, Verdict.SUSPICIOUS, Verdict.POISONED


@pytest.mark.parametrize(
    ("found", "skipped", "suspicious", "poisoned", "never"),
    [
        ((C, C), False, 0, 0, 0),
        ((C, C), True, 3, 3, 3),
        ((C, U), False, 3, 3, 3),
        ((C, S), False, 1, 0, 0),
        ((C, S), True, 1, 3, 3),
        ((U, S), False, 1, 3, 3),
        ((C, P), False, 1, 1, 0),
        ((U, P), True, 1, 1, 3),
    ],
)
def test_the_exit_code_is_that_of_the_worst_that_was_found(tmp_path, monkeypatch, found, skipped, suspicious, poisoned, never):
    result = scan_result({"a": [30, 10], "b": [30, 10]})
    classes = tuple(replace(kind, verdict=verdict) for kind, verdict in zip(result.classes, found, strict=True))
    result = replace(result, classes=classes, not_examined=(NotExamined("7", "cannot be read", 7),) * skipped)
    monkeypatch.setattr(toxscreen.audit, "audit", lambda *_, **__: result)
    (tmp_path / "data").mkdir()
    codes = {"suspicious": suspicious, "poisoned": poisoned, "never": never}
    for fail_on, code in codes.items():
        done = run("scan", tmp_path / "data", "--fail-on", fail_on, "--out", tmp_path / "run")
        assert done.exit_code == code, (fail_on, done.output)


def test_unreadable_pictures_do_not_hide_a_finding(pictures, tmp_path):
    data = copied(pictures.data, tmp_path / "data")
    broken = sorted((data / "class 0").iterdir())[:2]
    for file in broken:
        file.write_bytes(file.read_bytes()[:40])
    done = run("scan", data, "--model", pictures.model, "--out", tmp_path / "run")
    assert done.exit_code == 1
    assert [entry.id for entry in load(tmp_path / "run").not_examined] == [file.relative_to(data).as_posix() for file in broken]


def copied(data, to, *, only=None):
    """Copy an image folder; ``only`` says how many pictures of each class."""
    for folder in sorted(data.iterdir()):
        (to / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[: None if only is None else only[folder.name]]:
            (to / folder.name / file.name).write_bytes(file.read_bytes())
    return to


# Data that cannot be scanned as it is


def test_an_empty_folder_is_one_sentence_and_leaves_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    done = run("scan", "empty")
    assert done.exit_code == 4
    assert "holds none of these" in sentence(done)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty", "runs"]


def test_a_folder_with_one_class_is_one_sentence(tmp_path):
    data = quick.write_pictures(tmp_path / "data", *quick.pictures(5, 1))
    done = run("scan", data, "--out", tmp_path / "run")
    assert done.exit_code == 4
    assert "two classes" in sentence(done)


def test_truncated_pictures_and_bombs_are_named_and_counted_and_the_rest_is_examined(clean_pictures, tmp_path):
    data = copied(clean_pictures.data, tmp_path / "data")
    truncated, bomb = sorted((data / "class 0").iterdir())[3], sorted((data / "class 2").iterdir())[5]
    truncated.write_bytes(truncated.read_bytes()[:-60])
    png = bomb.read_bytes()
    bomb.write_bytes(png[:16] + (60_000).to_bytes(4, "big") * 2 + png[24:])
    done = run("scan", data, "--model", clean_pictures.model, "--out", tmp_path / "run")
    assert done.exit_code == 3
    result = load(tmp_path / "run")
    reasons = {entry.id: entry.reason for entry in result.not_examined}
    assert set(reasons) == {f"class 0/{truncated.name}", f"class 2/{bomb.name}"}
    assert result.n_examined == 238
    assert [found.n for found in result.classes] == [79, 80, 79]
    assert "Not examined: 2" in done.stdout
    assert truncated.name in done.stdout
    assert "the rest" not in done.stdout


def test_a_folder_of_unreadable_pictures_is_one_sentence(pictures, tmp_path):
    data = quick.write_pictures(tmp_path / "data", *quick.pictures(5))
    for file in data.rglob("*.png"):
        file.write_bytes(b"not a picture")
    for model in ((), ("--model", pictures.model)):
        done = run("scan", data, *model, "--out", tmp_path / "run")
        assert done.exit_code == 4
        assert "readable" in sentence(done)


def test_small_classes_are_inconclusive_with_the_number_that_is_needed_and_the_others_are_judged(tmp_path):
    sizes = {"class 0": 80, "class 1": 80, "class 2": 9, "class 3": 0, "class 4": 1, "class 5": 2, "class 6": 11}
    images, labels = quick.pictures(80, 7)
    keep = np.concatenate([np.flatnonzero(labels == int(name[-1]))[:n] for name, n in sizes.items()])
    data = quick.write_pictures(tmp_path / "data", images[keep], labels[keep])
    (data / "class 3").mkdir()
    done = run("scan", data, "--out", tmp_path / "run", "--json")
    assert done.exit_code == 3
    for found in json.loads(done.stdout)["classes"]:
        small = sizes[found["name"]] < 20
        assert found["n"] == sizes[found["name"]]
        assert found["verdict"] == ("inconclusive" if small else "clean")
        assert (
            not small
            or f"At least 25 examined samples are needed to judge a class, and this one has {found['n']}." in found["reasons"]
        )


def test_a_label_column_that_is_missing_is_one_sentence_and_the_corrected_command_may_use_the_folder(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("text,mood\n" + "good day,up\nbad day,down\n" * 12)
    done = run("scan", table, "--label-column", "moood", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "no column 'moood'" in sentence(done)
    assert run("scan", table, "--out", tmp_path / "run").exit_code == 4
    assert run("scan", table, "--label-column", "mood", "--out", tmp_path / "run").exit_code == 3


def test_samples_without_a_label_are_counted_and_not_examined(tmp_path):
    found, labels = quick.texts(40, 2)
    holes = [None if row in (3, 50) else int(label) for row, label in enumerate(labels)]
    done = run("scan", quick.write_table(tmp_path / "t.csv", found, holes), "--out", tmp_path / "run")
    assert done.exit_code == 3
    result = load(tmp_path / "run")
    assert [(entry.id, entry.reason) for entry in result.not_examined] == [("3", "has no label"), ("50", "has no label")]
    assert [kind.n for kind in result.classes] == [39, 39]


def test_many_samples_without_a_label_are_one_fact(tmp_path):
    found, labels = quick.texts(150, 2)
    done = run(
        "scan",
        quick.write_table(tmp_path / "t.csv", found, ["" if row % 2 else label for row, label in enumerate(labels)]),
        "--out",
        tmp_path / "run",
    )
    assert done.exit_code == 3
    *listed, rest = load(tmp_path / "run").not_examined
    assert len(listed) == 100
    assert (rest.id, rest.reason) == ("50 more", "have no label")


# Models that do not fit


NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, change, n_outputs):
        super().__init__()
        self.change = change
        self.scores = nn.Linear(256, 3)
        self.head = nn.Linear(3, n_outputs)

    def forward(self, pictures):
        return self.head(self.change(self.scores(pictures.flatten(1)), pictures))


def plain():
    return Net(lambda scores, pictures: scores, 3)


def four_classes():
    return Net(lambda scores, pictures: scores, 4)


def constant_in_a_class():
    return Net(lambda scores, pictures: nn.functional.one_hot(scores.argmax(1), 3).float(), 3)


def nan_for_some():
    return Net(lambda scores, pictures: scores.masked_fill(pictures[:, :, 0, 0] > 0.81, torch.nan), 3)


def nan_for_all():
    return Net(lambda scores, pictures: scores * torch.nan, 3)
"""
"""Networks for 16x16 gray pictures of three classes; the file of weights says how each class is scored."""


@pytest.fixture
def net(tmp_path):
    """Return the options to scan with a network of NETS whose outputs are in the order given."""
    images, labels = quick.pictures(80)
    points = np.c_[images.reshape(len(images), -1) / 255, np.ones(len(images))]
    weights = np.linalg.solve(points.T @ points + np.eye(257), points.T @ np.eye(3)[labels])
    scores = {"scores.weight": weights[:-1].T.astype("f4").copy(), "scores.bias": weights[-1].astype("f4")}

    def options(name, outputs=(0, 1, 2)):
        head = np.eye(3, dtype="f4")[list(outputs)]
        save_file({**scores, "head.weight": head, "head.bias": np.zeros(len(head), "f4")}, tmp_path / "weights.safetensors")
        (tmp_path / f"{tmp_path.name}_nets.py").write_text(NETS)
        return "--model", tmp_path / "weights.safetensors", "--arch", f"{tmp_path.name}_nets:{name}", "--out", tmp_path / "run"

    return options


def test_a_model_with_another_number_of_classes_is_one_sentence(clean_pictures, net):
    done = run("scan", clean_pictures.data, *net("four_classes", (0, 1, 2, 0)))
    assert done.exit_code == 4
    assert "4 outputs but the data has 3 classes" in sentence(done)


def test_a_model_that_misreads_its_training_data_is_said_to_and_nothing_is_judged(clean_pictures, net, tmp_path):
    done = run("scan", clean_pictures.data, *net("plain", (1, 2, 0)))
    assert done.exit_code == 3
    assert set(verdicts(tmp_path / "run").values()) == {"inconclusive"}
    assert any("does not look like the model of this data" in note for note in load(tmp_path / "run").notes)
    assert "does not look like the model of" in " ".join(done.stdout.split())


def test_a_model_with_its_classes_in_another_order_is_read_by_their_names(clean_pictures, net, tmp_path):
    names = "class 1, class 2,class 0"
    done = run("scan", clean_pictures.data, *net("plain", (1, 2, 0)), "--class-names", names)
    assert done.exit_code == 0, done.output
    assert list(verdicts(tmp_path / "run")) == ["class 1", "class 2", "class 0"]
    again = run("scan", clean_pictures.data, *net("plain", (1, 2, 0)), "--class-names", names)
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize("names", ["class 0,class 0,class 1", "class 0,,class 1", ""])
def test_names_of_classes_that_are_none_are_refused(clean_pictures, names):
    done = run("scan", clean_pictures.data, "--class-names", names)
    assert done.exit_code == 2
    assert "must be different names" in done.stderr


def test_constant_activations_are_inconclusive_and_name_the_way_out(clean_pictures, net, tmp_path):
    done = run("scan", clean_pictures.data, *net("constant_in_a_class"))
    assert done.exit_code == 3
    for found in load(tmp_path / "run").classes:
        assert found.verdict is Verdict.INCONCLUSIVE
        assert "constant" in found.reasons[0]
        assert "--layer" in found.reasons[0]


def test_activations_that_are_not_finite_are_counted_and_the_rest_is_examined(clean_pictures, net, tmp_path):
    done = run("scan", clean_pictures.data, *net("nan_for_some"))
    assert done.exit_code == 3
    images, _ = quick.pictures(80)
    bright = np.flatnonzero(images[:, 0, 0] > 0.81 * 255)
    result = load(tmp_path / "run")
    assert [entry.row for entry in result.not_examined] == bright.tolist() != []
    assert all("not finite" in entry.reason for entry in result.not_examined)
    assert result.n_examined == 240 - len(bright)


def test_a_model_that_gives_no_finite_number_is_one_sentence(clean_pictures, net):
    done = run("scan", clean_pictures.data, *net("nan_for_all"))
    assert done.exit_code == 4
    assert "no finite numbers" in sentence(done)


def test_a_layer_of_which_no_activation_is_finite_is_inconclusive(clean_pictures, net, tmp_path):
    done = run("scan", clean_pictures.data, *net("nan_for_all"), "--layer", "scores")
    assert done.exit_code == 3
    result = load(tmp_path / "run")
    assert {found.verdict for found in result.classes} == {Verdict.INCONCLUSIVE}
    assert result.n_examined == 0
    assert [entry.id for entry in result.not_examined][-1] == "140 more"


def test_a_pickle_is_refused_with_the_way_to_convert_it(pictures, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"\x80\x04}\x94.")
    done = run("scan", pictures.data, "--model", tmp_path / "model.pt", "--out", tmp_path / "run")
    assert done.exit_code == 4
    assert "safetensors" in sentence(done)


# Disks, run folders and interruptions


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_too_full_for_the_activations_is_one_sentence_and_loses_no_model(pictures, tmp_path, monkeypatch):
    arguments = ("scan", pictures.data, "--model", pictures.model, "--out", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(store, "_create_array", full)
        done = run(*arguments)
    assert done.exit_code == 4
    assert "No space left" in sentence(done)
    assert "--out" in sentence(done)
    assert run(*arguments).exit_code == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_a_disk_too_full_for_the_result_does_not_hide_the_finding(pictures, tmp_path, monkeypatch, as_json):
    arguments = ("scan", pictures.data, "--model", pictures.model, "--out", tmp_path / "run", *["--json"] * as_json)
    with monkeypatch.context() as patch:
        patch.setattr("toxscreen.report.documents.pq.write_table", full)
        done = run(*arguments)
    assert done.exit_code == 1
    assert "No space left" in done.stderr
    if as_json:
        assert json.loads(done.stdout)["verdict"] == "poisoned"
    else:
        assert "POISONED" in done.stdout
        assert "Report:" not in done.stdout
    assert not (tmp_path / "run" / "result.json").exists()
    with counted_passes(monkeypatch) as passes:
        assert run(*arguments).exit_code == 1
    assert sum(passes) == 0


def test_a_disk_too_full_for_a_clean_result_is_no_clean_scan(clean_pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("toxscreen.report.documents.pq.write_table", full)
    done = run("scan", clean_pictures.data, "--model", clean_pictures.model, "--out", tmp_path / "run")
    assert done.exit_code == 4


class counted_passes:  # noqa: N801 - reads as a verb
    """Counts the samples of every forward pass over whole batches, and stops before the one numbered ``stop``."""

    def __init__(self, monkeypatch, stop=None):
        self.monkeypatch, self.stop, self.passes = monkeypatch, stop, []

    def __enter__(self):
        forward = TorchClassifier.forward

        def counted(classifier, encoded, layers):
            if not layers:  # the accuracy of a classifier that was trained just now
                return forward(classifier, encoded, layers)
            if len(self.passes) == self.stop:
                raise KeyboardInterrupt
            self.passes.append(len(encoded))
            return forward(classifier, encoded, layers)

        self.context = self.monkeypatch.context()
        self.context.__enter__().setattr(TorchClassifier, "forward", counted)
        return self.passes

    def __exit__(self, *error):
        self.context.__exit__(*error)


def test_a_scan_interrupted_in_the_pass_goes_on_where_it_stopped(pictures, tmp_path, monkeypatch):
    folder = tmp_path / "run with blanks"
    arguments = ("scan", pictures.data, *STEPWISE, "--out", folder)
    with counted_passes(monkeypatch, stop=7) as before:
        done = run(*arguments)
    assert done.exit_code == 130
    assert "Interrupted" in sentence(done)
    assert f"run the same command with --out '{folder}' to go on" in done.stderr
    with counted_passes(monkeypatch) as after:
        done = run(*arguments)
    assert done.exit_code == 1
    assert "Taking up the run" in done.stderr
    assert "Nothing has changed" not in done.stderr
    assert (before, after) == ([20] * 7, [20] * 5)
    assert samples(folder) == pictures.samples


def test_a_scan_that_is_finished_computes_nothing_again(pictures, monkeypatch):
    before = pictures.samples
    for step in ("training.fit", "audit.screen", "following.recover", "audit.make_exhibits"):
        monkeypatch.setattr(f"toxscreen.{step}", None)
    with counted_passes(monkeypatch) as passes:
        done = run("scan", pictures.data, "--out", pictures.folder, *STEPWISE)
    assert (done.exit_code, passes) == (1, [])
    assert pictures.samples == before
    assert done.stderr.splitlines()[-1].startswith("Nothing has changed since the scan of 20")
    assert "Nothing has changed since the scan of 20" in done.stdout
    assert "Nothing has changed since the scan of 20" in (pictures.folder / "report.html").read_text("utf-8")


SLOWLY = """
import sys, time
import toxscreen.store, toxscreen.training
from toxscreen.cli import main
from toxscreen.sources.model.torch_module import TorchClassifier
from tests import quick

def slowly(function, seconds):
    def slow(*arguments, **settings):
        time.sleep(seconds)
        value = function(*arguments, **settings)
        print("step", file=sys.stderr, flush=True)
        return value
    return slow

toxscreen.store.CHECKPOINT_SECONDS = 0
toxscreen.training.PICTURES = quick.PICTURES
if sys.argv[1] == "pass":
    TorchClassifier.forward = slowly(TorchClassifier.forward, 0.05)
else:
    toxscreen.training._shift = slowly(toxscreen.training._shift, 0.02)
main(sys.argv[2:])
"""
"""The command line in a process of its own, which says on stderr when a step of the pass or of the training is done."""


@contextmanager
def running(stage, steps, *arguments):
    """Start a scan and yield its process, and what it said, when some steps of a stage are done."""
    command = [sys.executable, "-c", SLOWLY, stage, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 our own code
        try:
            said = ""
            while said.count("step") < steps:
                line = process.stderr.readline()
                assert line, f"the scan ended too early:\n{said}"
                said += line
            yield process
        finally:
            process.kill()


def test_a_scan_stopped_by_ctrl_c_says_how_to_go_on_and_ends_with_the_same_result(pictures, tmp_path, monkeypatch):
    arguments = ("scan", pictures.data, "--model", pictures.model, *STEPWISE, "--out", tmp_path / "run")
    with running("pass", 3, *arguments) as process:
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=50)
    assert (process.returncode, stdout) == (130, "")
    assert "run the same command with --out" in stderr
    assert "Traceback" not in stderr
    with counted_passes(monkeypatch) as passes:
        assert run(*arguments).exit_code == 1
    assert len(passes) <= 12 - (3 - 1)  # the signal may come before the last step reaches the store
    assert samples(tmp_path / "run") == pictures.samples


def test_a_scan_that_is_interrupted_before_it_has_kept_anything_promises_nothing(pictures, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(toxscreen.audit, "audit", interrupted)
    done = run("scan", pictures.data, "--out", tmp_path / "run")
    assert (done.exit_code, done.stderr) == (130, "toxscreen: Interrupted.\n")
    assert not (tmp_path / "run").exists()


def test_a_scan_killed_at_a_random_moment_of_the_pass_ends_with_the_same_result(pictures, tmp_path, monkeypatch):
    steps = int(np.random.default_rng().integers(2, 11))
    arguments = ("scan", pictures.data, "--model", pictures.model, *STEPWISE, "--out", tmp_path / "run")
    with running("pass", steps, *arguments) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "run" / "result.json").exists()
    with counted_passes(monkeypatch) as passes:
        assert run(*arguments).exit_code == 1
    assert len(passes) <= 12 - (steps - 1), steps
    assert samples(tmp_path / "run") == pictures.samples


def test_a_scan_killed_at_a_random_moment_of_the_training_ends_with_the_same_result_and_keeps_others_out_before(pictures, tmp_path):
    steps = int(np.random.default_rng().integers(1, 40))
    arguments = ("scan", pictures.data, *STEPWISE, "--out", tmp_path / "run")
    with running("training", steps, *arguments) as process:
        second = run(*arguments)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert second.exit_code == 4
    assert "another scan is writing to it" in sentence(second)
    assert run(*arguments).exit_code == 1, steps
    assert samples(tmp_path / "run") == pictures.samples
    kept = {path.name for path in (tmp_path / "run" / "model").iterdir()}
    assert kept == {"toxscreen.json", "training.json", "weights.safetensors"}


def test_another_scan_in_a_run_folder_is_refused_and_nothing_is_overwritten(pictures):
    before = {path: path.read_bytes() for path in pictures.folder.rglob("*") if path.is_file()}
    for arguments in (("scan", pictures.data, "--seed", 1), ("scan", pictures.data.with_name("saubere Käfer")), ("demo", "text")):
        done = run(*arguments, "--out", pictures.folder)
        assert done.exit_code == 2
        assert "another scan" in sentence(done)
    assert before == {path: path.read_bytes() for path in pictures.folder.rglob("*") if path.is_file()}


def test_a_folder_with_other_files_is_no_run_folder(pictures, tmp_path):
    (tmp_path / "holiday.jpg").touch()
    done = run("scan", pictures.data, "--out", tmp_path)
    assert done.exit_code == 2
    assert "other files" in sentence(done)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize("inside", ["", "new", "class 0/deep/run"])
def test_a_run_folder_inside_the_data_or_the_model_is_refused_before_anything_is_written(pictures, inside, tmp_path):
    data = copied(pictures.data, tmp_path / "data", only={"class 0": 1, "class 1": 1, "class 2": 1})
    before = sorted(data.rglob("*"))
    for arguments in (("scan", data, "--out", data / inside), ("scan", pictures.data, "--model", data, "--out", data / inside)):
        done = run(*arguments)
        assert done.exit_code == 2
        assert "outside" in sentence(done)
    assert sorted(data.rglob("*")) == before


def test_a_scan_of_the_current_folder_asks_for_another_run_folder(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(copied(pictures.data, tmp_path / "data", only={"class 0": 1, "class 1": 1, "class 2": 1}))
    done = run("scan", ".")
    assert done.exit_code == 2
    assert "--out" in sentence(done)
    assert not Path("runs").exists()


def test_data_that_changed_is_noticed_and_only_what_is_new_goes_through_the_model(pictures, tmp_path, monkeypatch):
    data = copied(pictures.data, tmp_path / "data")
    arguments = ("scan", data, "--model", pictures.model, "--out", tmp_path / "run")
    assert run(*arguments).exit_code == 1
    for file in sorted((data / "class 1").iterdir()):
        if Image.open(file).getpixel((14, 14)) == 255:
            file.unlink()
    Image.fromarray(np.full((16, 16), 99, np.uint8)).save(data / "class 1" / "new.png")
    with counted_passes(monkeypatch) as passes:
        done = run(*arguments)
    assert len(passes) == 1
    assert any("data has changed" in note for note in load(tmp_path / "run").notes), done.output


# The other commands


def test_a_report_is_made_anew_when_the_data_is_gone(pictures, tmp_path):
    data, folder = copied(pictures.data, tmp_path / "data"), tmp_path / "Lauf für Zoë"
    assert run("scan", data, "--model", pictures.model, "--out", folder).exit_code == 1
    page = (folder / "report.html").read_bytes()
    for file in [*data.rglob("*.png"), *(folder / "activations").iterdir(), folder / "report.html"]:
        file.unlink()
    done = run("report", folder)
    assert (done.exit_code, done.stdout) == (0, f"{folder / 'report.html'}\n")
    assert (folder / "report.html").read_bytes() == page
    assert run("report", folder, "--out", tmp_path / "page.html").exit_code == 0
    assert (tmp_path / "page.html").read_bytes() == page


def test_a_report_of_what_is_no_run_is_one_sentence(tmp_path):
    done = run("report", tmp_path)
    assert done.exit_code == 4
    assert "run folder" in sentence(done)


def test_anything_can_be_inspected(pictures, tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04}\x94.")
    shown = {path: run("inspect", path) for path in (pictures.data, pictures.model, pictures.folder, tmp_path / "model.pkl")}
    assert all(done.exit_code == 0 for done in shown.values())
    what = [" ".join(done.stdout.split()) for done in shown.values()]
    assert "labelled pictures (data set)" in what[0]
    assert "class 1 107" in what[0]
    assert "(model)" in what[1]
    assert "head.input" in what[1]
    assert "(run folder)" in what[2]
    assert "verdict poisoned" in what[2]
    assert "(refused)" in what[3]
    assert "safetensors" in what[3]


def test_a_path_with_nothing_there_cannot_be_inspected(tmp_path):
    assert run("inspect", tmp_path / "missing").exit_code == 2


def test_poison_says_what_it_planted_and_where(pictures, tmp_path):
    arguments = ("poison", pictures.data.with_name("saubere Käfer"), "--attack", "blended", "--target", "class 2", "--out")
    done = run(*arguments, tmp_path / "copy", "--share", 0.2)
    assert done.exit_code == 0
    assert "20 samples are now labelled 'class 2'" in done.stdout
    assert f"Truth: {tmp_path / 'copy.truth.parquet'}" in done.stdout
    assert pq.read_table(tmp_path / "copy.truth.parquet")["poisoned"].to_pylist().count(True) == 20
    refused = run(*arguments, tmp_path / "other", "--share", 0.2, "--rate", 0.1)
    assert refused.exit_code == 2
    assert "--share" in sentence(refused)


def test_poison_tells_cover_samples_and_every_trigger(pictures, tmp_path):
    clean = pictures.data.with_name("saubere Käfer")
    covered = run(
        "poison", clean, "--attack", "adaptive-blend", "--target", "class 2", "--share", 0.2, "--out", tmp_path / "covered"
    )
    assert "20 samples are now labelled 'class 2'" in covered.stdout
    assert "20 cover samples carry a form of the trigger and keep their label." in covered.stdout
    both = run("poison", clean, "--attack", "badnets", "--target", "class 2,class 0", "--out", tmp_path / "both")
    assert "'class 2' and carry a small black and white checkerboard near the bottom right corner" in both.stdout
    assert "'class 0' and carry a small black and white checkerboard near the top left corner" in both.stdout
    same = run("poison", clean, "--attack", "sig", "--target", "class 2", "--out", tmp_path / "same")
    assert "8 samples are still labelled 'class 2'" in same.stdout


def test_the_help_of_bench_names_all_its_tables():
    told = run("bench", "--help").stdout.partition("Options:")[0]
    assert {*TABLES} <= {*re.findall(r"\w+", told)}


def test_the_help_of_poison_names_every_attack():
    from toxscreen.attacks import ATTACKS

    told = run("poison", "--help").stdout.replace("\n", " ")
    assert [name for name in ATTACKS if name not in told] == []


# Recovered triggers


@pytest.fixture
def convicted_run(tmp_path):
    """The run folder of a result that has a trigger for texts."""
    return convicted(recovered(words("cf mn"), ["one two"]), inputs={"data": {"modality": "text"}}).save(tmp_path / "run")


@pytest.fixture
def trigger_file(convicted_run, tmp_path):
    """The file of that trigger."""
    assert run("trigger", convicted_run, "--out", tmp_path / "one.json").exit_code == 0
    return tmp_path / "one.json"


def test_the_trigger_of_a_scan_is_written_found_again_and_put_on_other_data(pictures, tmp_path):
    done = run("trigger", pictures.folder, "--class", "class 1", "--group", 1, "--out", tmp_path / "trigger.json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "trigger, recovered from group 1 of class 'class 1'." in done.stdout
    assert done.stdout.endswith(f"File: {tmp_path / 'trigger.json'}\n")
    found = run("trigger", tmp_path / "trigger.json", "--find", pictures.data, "--out", tmp_path / "held.parquet")
    assert found.exit_code == 0
    truth = pq.read_table(pictures.truth)
    poison = set(truth.filter(truth["poisoned"])["id"].to_pylist())
    held = set(pq.read_table(tmp_path / "held.parquet")["id"].to_pylist())
    assert len(held & poison) > 0.9 * len(poison)
    assert len(held - poison) < 0.05 * truth.num_rows
    clean = pictures.data.with_name("saubere Käfer")
    applied = run("trigger", tmp_path / "trigger.json", "--apply", clean, "--out", tmp_path / "Kopie")
    assert applied.exit_code == 0
    assert f"Copy: {tmp_path / 'Kopie'}" in applied.stdout
    again = run("trigger", tmp_path / "trigger.json", "--find", tmp_path / "Kopie")
    assert "Of 240 samples 240 hold the trigger." in again.stdout


def test_every_trigger_goes_to_a_file_in_the_run(convicted_run):
    done = run("trigger", convicted_run)
    assert done.exit_code == 0
    assert f"File: {convicted_run / 'trigger-a-1.json'}" in done.stdout
    assert "It sent 45 of 50 inputs of other classes to this class, and its controls 2 of 50." in done.stdout
    assert load(convicted_run).classes[0].groups[1].trigger["proved"]  # the run is still whole


def test_a_file_says_what_it_is(trigger_file):
    done = run("trigger", trigger_file)
    assert done.exit_code == 0
    assert done.stdout.startswith("\"cf mn\" at the end: trigger, recovered from group 1 of class 'a'.")


def test_the_samples_that_hold_a_trigger_are_counted_by_class(trigger_file, tmp_path):
    data = quick.write_table(tmp_path / "data.csv", ["x cf mn", "y", "z cf mn"], ["a", "a", "<b>"])
    done = run("trigger", trigger_file, "--find", data)
    assert done.exit_code == 0
    assert [line.split() for line in done.stdout.splitlines()[1:3]] == [["<b>", "1", "1"], ["a", "2", "1"]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("RUN", "--class", "q"), "--class must name a class"),
        (("RUN", "--group", 7), "No trigger of the run is of that class and group"),
        (("RUN", "--find", "DATA"), "Write it with: toxscreen trigger"),
        (("FILE", "--class", "a"), "a file holds one"),
        (("FILE", "--find", "DATA", "--apply", "DATA"), "not both at once"),
        (("FILE", "--apply", "DATA"), "--out must name the folder"),
        (("FILE", "--find", "DATA", "--out", "list.txt"), "must end in .csv or .parquet"),
        (("FILE", "--out", "list.csv"), "go with --find DATA or --apply DATA"),
        (("FILE", "--split", "test"), "go with --find DATA or --apply DATA"),
    ],
)
def test_a_command_for_triggers_that_cannot_be_is_refused(convicted_run, trigger_file, tmp_path, arguments, said):
    data = quick.write_table(tmp_path / "data.csv", ["x", "y"], ["a", "b"])
    places = {"RUN": convicted_run, "FILE": trigger_file, "DATA": data}
    done = run("trigger", *(places.get(argument, argument) for argument in arguments))
    assert done.exit_code == 2
    assert said in sentence(done)


def test_a_trigger_for_other_inputs_than_those_of_the_data_exits_with_4(trigger_file, clean_pictures):
    done = run("trigger", trigger_file, "--find", clean_pictures.data)
    assert done.exit_code == 4
    assert "holds image inputs" in sentence(done)


def test_a_clean_run_has_no_trigger_and_other_files_are_none(clean_pictures):
    none = run("trigger", clean_pictures.folder)
    assert "none was found" in sentence(none)
    assert none.exit_code == 4  # nothing was typed wrongly
    other = run("trigger", clean_pictures.folder / "result.json")
    assert other.exit_code == 4
    assert "must be a file that toxscreen trigger RUN wrote" in sentence(other)


# The policy


def test_the_policy_is_printed_with_every_number_and_its_source():
    done = run("policy")
    assert (done.exit_code, done.stderr) == (0, "")
    assert not [line for line in done.stdout.splitlines() if line.endswith(" ")]
    told = " ".join(done.stdout.split())
    assert [verdict for verdict in VERDICTS if f"{verdict}: " not in done.stdout] == []
    for name, rule in POLICY.items():
        assert f"{name} " in told
        assert f" {rule.value:g} " in told
        assert all(part[:6] in told for part in (rule.meaning, rule.source))


def test_the_policy_is_a_document_for_programs():
    done = run("policy", "--json")
    document = json.loads(done.stdout)
    assert document["verdicts"] == {str(verdict): meaning for verdict, meaning in VERDICTS.items()}
    assert set(document["rules"]) == set(POLICY)
    assert all(set(rule) == {"value", "meaning", "source"} for rule in document["rules"].values())


@pytest.mark.parametrize("alpha", [0, 1, -0.1, "x"])
def test_an_alpha_that_is_no_level_is_refused(clean_pictures, tmp_path, alpha):
    done = run("scan", clean_pictures.data, "--alpha", alpha, "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "--alpha" in done.stderr
    assert not (tmp_path / "run").exists()


# A cleaned copy


def test_a_cleaned_copy_lacks_the_poison_and_a_scan_of_it_finds_nothing(pictures, tmp_path):
    before = {file: file.read_bytes() for file in pictures.data.rglob("*.png")}
    done = run("clean", pictures.folder, "--out", tmp_path / "Kopie ü")
    assert (done.exit_code, done.stderr) == (0, "")
    truth = pq.read_table(pictures.truth)
    poison = set(truth.filter(truth["poisoned"])["id"].to_pylist())
    left = {file.relative_to(tmp_path / "Kopie ü").as_posix() for file in (tmp_path / "Kopie ü").rglob("*.png")}
    assert len(poison & left) < 0.1 * len(poison)
    assert len(left) >= len(before) - len(poison)
    assert f"{len(left)} of {len(before)} samples stay." in done.stdout
    assert f"Manifest: {tmp_path / 'Kopie ü.manifest.csv'}" in done.stdout
    assert all(file.read_bytes() == content for file, content in before.items())
    again = run("clean", pictures.folder, "--out", tmp_path / "Kopie ü")
    assert again.exit_code == 0
    assert "Nothing to do, it is there already" in again.stdout
    scan = run("scan", tmp_path / "Kopie ü", "--out", tmp_path / "Lauf", "--device", "cpu")
    assert scan.exit_code == 0, scan.output
    nothing = run("clean", tmp_path / "Lauf", "--out", tmp_path / "again")
    assert nothing.exit_code == 0
    assert nothing.stdout == f"Nothing to do: none of {len(left)} samples is to be taken out or relabelled.\n"
    assert not (tmp_path / "again").exists()


def test_a_dry_run_shows_the_counts_and_writes_nothing(pictures, tmp_path):
    flagged = load(pictures.folder).n_flagged
    for action in ("drop", "relabel", "quarantine"):
        option = () if action == "drop" else (f"--{action}",)
        done = run("clean", pictures.folder, "--dry-run", *option)
        assert done.exit_code == 0
        assert f"{action}" in done.stdout
        assert "class 1" in done.stdout
        assert str(flagged) in done.stdout
        assert "Nothing was written." in done.stdout
    assert run("clean", pictures.folder, "--dry-run", "--out", tmp_path / "copy").exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_reviewer_decides_about_a_group_on_the_command_line(pictures, tmp_path):
    groups = [f"class 1,{group.id},reject" for group in load(pictures.folder).classes[1].accused]
    (tmp_path / "d.csv").write_text("\n".join(["class,group,decision", *groups]))
    done = run("clean", pictures.folder, "--out", tmp_path / "copy", "--decisions", tmp_path / "d.csv")
    assert done.exit_code == 0
    assert "keep" in done.stdout
    assert "Nothing to do" in done.stdout
    (tmp_path / "d.csv").write_text("id,decision\nnobody,reject\n")
    done = run("clean", pictures.folder, "--out", tmp_path / "copy", "--decisions", tmp_path / "d.csv")
    assert done.exit_code == 4
    assert "'nobody'" in sentence(done)


def test_a_quarantine_is_named(pictures, tmp_path):
    done = run("clean", pictures.folder, "--out", tmp_path / "copy", "--quarantine")
    assert f"Quarantine: {tmp_path / 'copy.quarantine'}" in done.stdout


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "--out"),
        (("--out", "{data}/copy"), 2, "outside"),
        (("--out", "{run}/copy"), 2, "outside"),
        (("--out", "{tmp}/copy", "--relabel", "--quarantine"), 2, "--quarantine away"),
        (("--out", "{tmp}/copy", "--data", "{clean}"), 4, "fingerprint"),
        (("--out", "{tmp}/copy", "--data", "{run}"), 4, "as it was when it was scanned"),
    ],
)
def test_a_cleaning_that_cannot_be_is_one_sentence(pictures, tmp_path, options, code, said):
    paths = {"data": pictures.data, "run": pictures.folder, "tmp": tmp_path, "clean": pictures.data.with_name("saubere Käfer")}
    done = run("clean", pictures.folder, *(option.format(**paths) for option in options))
    assert done.exit_code == code
    assert said in sentence(done)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_cannot_be_cleaned(pictures, tmp_path):
    done = run("clean", pictures.data, "--out", tmp_path / "copy")
    assert done.exit_code == 4
    assert "run folder" in sentence(done)


@pytest.mark.parametrize(("matches", "code"), [(True, 0), (False, 1)])
def test_a_demo_exits_with_whether_the_verdict_matches(tmp_path, monkeypatch, matches, code):
    asked = {}

    def outcome(name, **settings):
        asked.update(settings, name=name)
        result = scan_result({"[b]": [9]}, {"[b]": Verdict.SUSPICIOUS})
        return Outcome(result, matches, ("Truth: 9 [samples].", "Found: 9."))

    monkeypatch.setattr(toxscreen.demo, "run_demo", outcome)
    done = run("demo", "text", "--clean", "--seed", 5, "--out", tmp_path / "run")
    assert done.exit_code == code
    assert (asked["name"], asked["planted"], asked["seed"], asked["folder"]) == ("text", False, 5, tmp_path / "run")
    assert "Truth: 9 [samples]." in done.stdout
    assert done.stdout.splitlines()[-1] == f"Report: {(tmp_path / 'run' / 'report.html').resolve()}"


def test_a_demo_that_cannot_run_is_one_sentence(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise DataError("There are too few sentences.")

    monkeypatch.setattr(toxscreen.demo, "run_demo", fails)
    done = run("demo", "--out", tmp_path / "run")
    assert (done.exit_code, sentence(done)) == (4, "toxscreen: There are too few sentences.")


TOLD = """
import sys
import toxscreen.audit
from tests.scans import scan_result
from toxscreen.cli import main
from toxscreen.result import Verdict

verdict = Verdict(sys.argv.pop(1))
toxscreen.audit.audit = lambda *_, **__: scan_result({"a": [15, 5]}, {"a": verdict})
main(sys.argv[1:])
"""
"""A scan in a process of its own, of which the verdict is given."""


def test_a_reader_that_has_seen_enough_does_not_change_the_exit_code(tmp_path):
    (tmp_path / "data").mkdir()
    command = [sys.executable, "-c", TOLD, "clean", "scan", tmp_path / "data", "--out", tmp_path / "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603 our own code
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that takes nothing")
@pytest.mark.parametrize(("verdict", "code"), [("clean", 4), ("poisoned", 1)])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_stdout_that_takes_nothing_is_one_sentence_and_hides_no_finding(tmp_path, verdict, code, as_json):
    (tmp_path / "data").mkdir()
    command = [sys.executable, "-c", TOLD, verdict, "scan", tmp_path / "data", "--out", tmp_path / "run", *["--json"] * as_json]
    with open("/dev/full", "w") as full:  # noqa: PTH123 a device
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603 our own code
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert "must be written to stdout" in line
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_stream_that_is_closed_does_not_change_the_exit_code(tmp_path, closed):
    (tmp_path / "data").mkdir()
    code = f"import sys; sys.{closed}.close(); sys.{closed} = None\n{TOLD}"  # as Python starts with it closed
    command = [sys.executable, "-c", code, "poisoned", "scan", tmp_path / "data", "--out", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 our own code
    assert done.returncode == 1
    assert done.stderr == ""

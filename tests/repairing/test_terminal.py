"""What ``toxscreen repair`` prints, where it writes, and how it exits."""

from __future__ import annotations

import json
import shutil

import pytest
from rich.console import Console

import toxscreen as ts
from tests import quick
from tests.repairing import making
from toxscreen import retraining
from toxscreen.repairing.measures import Change, Measures, Share
from toxscreen.repairing.model import Effort, Outcome, Repair
from toxscreen.repairing.terminal import print_repair
from toxscreen.result import Verdict


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return making.pictures(tmp_path_factory.mktemp("böse Käfer"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(retraining, "PICTURES", quick.PICTURES)
    monkeypatch.setattr(retraining, "_MOST_ROUNDS", 3)


def repair(*arguments):
    done = quick.toxscreen("repair", *arguments)
    assert "Traceback" not in done.stderr
    return done


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_repair_prints_its_figures_writes_the_model_and_touches_nothing_else(run, tmp_path):
    before = contents(run.parent)
    done = repair(run, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("REPAIRED")
    for part in (
        "clean accuracy",
        "attack success",
        "class 1",
        "95 % interval",
        "epochs in",
        "relabelled",
        "not confirmed",
        "plain error",
    ):
        assert part in done.stdout
    assert f"Repaired model: {(tmp_path / 'out' / 'model').resolve()}" in done.stdout.splitlines()
    assert contents(run.parent) == before
    again = quick.toxscreen(
        "scan", run.parent / "data", "--model", tmp_path / "out" / "model", "--out", tmp_path / "scan", "--json"
    )
    assert again.exit_code in (0, 1, 3)
    written = json.loads((tmp_path / "out" / "repair.json").read_text("utf-8"))
    assert json.loads(again.stdout)["inputs"]["model"]["fingerprint"] != written["inputs"]["model"]["fingerprint"]


def test_the_document_alone_stands_on_stdout_with_json(run, tmp_path):
    done = repair(run, "--out", tmp_path / "out", "--json")
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "repair.json").read_text("utf-8"))


def test_a_repair_that_makes_things_worse_exits_with_1(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad_recipe.py").write_text("def train(network, samples):\n    network.head.weight.data.zero_()\n")
    done = repair(run, "--out", tmp_path / "out", "--trainer", "bad_recipe:train")
    assert done.exit_code == 1
    assert done.stdout.startswith("WORSE")
    assert "Clean accuracy fell from" in done.stdout


def test_nothing_suspicious_is_nothing_to_repair(tmp_path):
    clean = tmp_path / "clean run"
    making.found({"data": {"location": "gone"}, "model": {"location": "my model"}}, verdict=Verdict.CLEAN).save(clean)
    done = repair(clean, "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert done.stdout.startswith("NOTHING TO REPAIR")
    said = "The model needs no repair and is to be used as it is: my model. No copy of it was written."
    assert said in " ".join(done.stdout.split())
    assert not (tmp_path / "out" / "model").exists()
    document = json.loads(repair(clean, "--out", tmp_path / "out", "--json").stdout)
    assert (document["outcome"], document["clean_accuracy"], document["classes"]) == ("nothing to repair", None, [])
    assert document["notes"] == [said]


@pytest.mark.parametrize("inside", ["run", "data", "run/model"])
def test_a_place_inside_what_is_read_is_refused(run, inside):
    before = contents(run.parent)
    done = repair(run, "--out", run.parent / inside / "new")
    assert done.exit_code == 2
    assert "must lie outside" in done.stderr
    assert contents(run.parent) == before


def test_a_place_with_other_files_or_another_repair_is_refused(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert repair(run, "--out", tmp_path / "mine").exit_code == 2
    assert repair(run, "--out", tmp_path / "out").exit_code == 0
    done = repair(run, "--out", tmp_path / "out", "--seed", "1")
    assert done.exit_code == 2
    assert "seed differ" in done.stderr


def test_a_recipe_that_raises_is_one_sentence_with_a_log_and_the_run_is_as_it_was(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sad_recipe.py").write_text("def train(network, samples):\n    raise ValueError('no such luck')\n")
    before = contents(run)
    done = repair(run, "--out", tmp_path / "out", "--retrain", "--trainer", "sad_recipe:train")
    assert done.exit_code == 4
    assert done.stderr.count("\n") == 1
    assert "no such luck" in done.stderr
    assert "no such luck" in (tmp_path / "out" / "trainer.log").read_text()
    assert contents(run) == before


def test_edited_data_and_a_run_that_is_none_are_one_sentence(run, tmp_path):
    shutil.copytree(run.parent / "data", tmp_path / "data")
    next((tmp_path / "data").glob("*/*.png")).unlink()
    done = repair(run, "--out", tmp_path / "out", "--data", tmp_path / "data")
    assert done.exit_code == 4
    assert "must be the data that was scanned" in done.stderr
    assert not (tmp_path / "out").exists()
    assert repair(tmp_path / "data", "--out", tmp_path / "out").exit_code == 4


def test_decisions_about_unknown_samples_are_refused(run, tmp_path):
    (tmp_path / "decisions.csv").write_text("id,decision\nnobody,accept\n")
    done = repair(run, "--out", tmp_path / "out", "--decisions", tmp_path / "decisions.csv")
    assert done.exit_code == 4
    assert "'nobody'" in done.stderr


def test_an_interrupted_retraining_says_how_to_go_on_and_goes_on(run, tmp_path, monkeypatch):
    keep, kept = retraining.checkpoint.keep, []

    def killed(*arguments, **settings):
        keep(*arguments, **settings)
        kept.append(settings["done"])
        if len(kept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(retraining.checkpoint, "keep", killed)
    first = repair(run, "--out", tmp_path / "out", "--retrain")
    assert first.exit_code == 130
    assert "run the same command to go on" in first.stderr
    again = repair(run, "--out", tmp_path / "out", "--retrain")
    assert again.exit_code in (0, 1)
    assert kept == list(range(1, quick.PICTURES.max_epochs))


def test_names_from_the_data_reach_no_terminal_as_commands(tmp_path):
    names = ("a\x1b[31mb", "[bold]c[/bold]")
    share = Change(Share(1, 2), Share(2, 2))
    nothing = Change(Share(0, 0), Share(0, 0))
    measures = Measures(share, dict.fromkeys(names, share), nothing, nothing, nothing)
    made = Repair(Outcome.REPAIRED, "\x1b[2J", {"trusted": 3}, "there", measures, Effort(None, 1.0), ("[red]note",), 0, {})
    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        print_repair(made, tmp_path, console)
    assert "\x1b" not in captured.get()
    assert all(part in captured.get() for part in ("[bold]c[/bold]", "[red]note"))


# In Python


def test_a_result_in_memory_is_repaired_with_what_was_scanned():
    case = making.vectors()
    done = ts.repair(case.result, data=case.data, model=case.network)
    assert done.outcome is Outcome.REPAIRED
    assert done.classifier.network is not case.network
    assert ts.repair(case.result, data=case.data, model=case.network, retrain=True).samples["dropped"] == making.POISON


def test_the_function_stays_a_function_whatever_was_imported():
    import toxscreen.repairing.model  # noqa: F401

    assert callable(ts.repair)
    assert "repair" in dir(ts)


def test_a_recipe_can_be_named_and_a_place_that_is_read_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "idle_recipe.py").write_text("def train(network, samples):\n    pass\n")
    done = ts.repair(run, tmp_path / "out", trainer="idle_recipe:train")
    assert "by the trainer that was given" in done.trained
    with pytest.raises(ts.api.UsageError, match="must lie outside"):
        ts.repair(run, run / "inside")

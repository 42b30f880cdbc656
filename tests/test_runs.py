from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from toxscreen import runs
from toxscreen.errors import StoreError, UsageError
from toxscreen.runs import RECORD, claim, default_folder, refuse_inside

SETTINGS = {"data": "/data", "seed": 0, "mean": (0.5, 0.25), "model": None}


def kept(folder: Path) -> Path:
    """Leave the folder as a run that stored something."""
    with claim(folder, SETTINGS):
        (folder / "activations").mkdir()
        (folder / "activations" / "manifest.json").write_text("{}")
    return folder


def failed(folder: Path, *stored: str) -> None:
    """Fail in a run that has stored some files."""
    with claim(folder, SETTINGS):
        (folder / "model").mkdir()
        for name in stored:
            (folder / name).touch()
        raise ZeroDivisionError


def test_a_new_folder_is_made_and_remembers_what_was_asked_for(tmp_path):
    with claim(tmp_path / "ä b" / "run", SETTINGS) as going_on:
        assert going_on is False
    assert json.loads((tmp_path / "ä b" / "run" / RECORD).read_text()) == SETTINGS | {"mean": [0.5, 0.25]}


def test_an_empty_folder_is_used(tmp_path):
    with claim(tmp_path, SETTINGS) as going_on:
        assert going_on is False


def test_the_same_scan_goes_on(tmp_path):
    folder = kept(tmp_path / "run")
    with claim(folder, dict(reversed(SETTINGS.items()))) as going_on:
        assert going_on is True


def test_another_scan_is_refused_and_nothing_is_overwritten(tmp_path):
    folder = kept(tmp_path / "run")
    before = (folder / RECORD).read_bytes()
    with (
        pytest.raises(UsageError, match=r"another scan \(seed, model differ\)"),
        claim(folder, SETTINGS | {"seed": 1, "model": "m"}),
    ):
        pytest.fail("the folder was claimed")
    assert (folder / RECORD).read_bytes() == before
    assert (folder / "activations" / "manifest.json").exists()


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years")
    with pytest.raises(UsageError, match="holds other files"), claim(tmp_path, SETTINGS):
        pytest.fail("the folder was claimed")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["[1, 2]", "{", "\xff"])
def test_a_record_that_is_none_is_an_error(tmp_path, content):
    (tmp_path / RECORD).write_text(content, encoding="latin-1")
    with pytest.raises(StoreError, match="cannot be used"), claim(tmp_path, SETTINGS):
        pytest.fail("the folder was claimed")
    assert (tmp_path / RECORD).read_text(encoding="latin-1") == content


def test_a_run_killed_before_its_record_was_written_counts_as_new(tmp_path):
    (tmp_path / RECORD).touch()
    with claim(tmp_path, SETTINGS) as going_on:
        assert going_on is False
    assert json.loads((tmp_path / RECORD).read_text())["seed"] == 0


def test_two_runs_in_one_folder_at_once_are_refused(tmp_path):
    folder = tmp_path / "run"
    with claim(folder, SETTINGS):
        with pytest.raises(StoreError, match="another scan is writing to it"), claim(folder, SETTINGS):
            pytest.fail("the folder was claimed twice")
        (folder / "result.json").touch()
    with claim(folder, SETTINGS) as going_on:
        assert going_on is True


def test_a_run_that_fails_before_it_stored_anything_leaves_no_trace(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        failed(folder)
    assert not folder.exists()


def test_an_empty_folder_of_the_user_outlives_a_run_that_fails(tmp_path):
    with pytest.raises(ZeroDivisionError):
        failed(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_later_keeps_what_it_stored(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        failed(folder, "layer.npy")
    with claim(folder, SETTINGS) as going_on:
        assert going_on is True
    assert (folder / "layer.npy").exists()


def test_a_run_taken_up_that_fails_keeps_its_record(tmp_path):
    with claim(tmp_path, SETTINGS):
        pass
    with pytest.raises(ZeroDivisionError):
        failed(tmp_path)
    assert (tmp_path / RECORD).exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="--out"), claim(tmp_path / "file" / "run", SETTINGS):
        pytest.fail("the folder was claimed")


def test_a_folder_that_cannot_be_locked_is_an_error(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(runs.fcntl, "flock", no_locks)
    with pytest.raises(StoreError, match="No locks available"), claim(tmp_path / "run", SETTINGS):
        pytest.fail("the folder was claimed")


@pytest.mark.parametrize("inside", ["", "runs/new", "sub/../runs"])
def test_a_run_folder_in_its_input_is_refused_before_anything_is_written(tmp_path, inside):
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    with pytest.raises(UsageError, match="outside"), claim(data / inside, SETTINGS, [tmp_path / "other", data]):
        pytest.fail("the folder was claimed")
    assert [path.name for path in data.rglob("*")] == ["sub"]


def test_a_link_does_not_hide_that_a_run_folder_lies_in_its_input(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    for folder, path in ((tmp_path / "link" / "run", data), (data / "run", tmp_path / "link")):
        with pytest.raises(UsageError, match="outside"):
            refuse_inside(folder, [path])


def test_a_run_folder_may_stand_beside_its_input(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "table.csv").touch()
    refuse_inside(tmp_path / "data-run", [tmp_path / "data", tmp_path / "table.csv"])


def test_the_default_folder_is_named_after_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Müller's Daten").mkdir()
    folder = default_folder(Path("Müller's Daten"))
    assert folder.parent == Path("runs")
    assert folder.name.endswith("-Müller-s-Daten")
    assert default_folder(tmp_path / "Müller's Daten" / "..").name.endswith(f"-{tmp_path.name}")
    assert default_folder(Path("/")).name.endswith("-data")
    assert len(default_folder(Path("x" * 200)).name) < 100


def test_the_default_folder_is_never_one_that_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = set()
    for _ in range(3):
        folder = default_folder(Path("data"))
        folder.mkdir(parents=True)
        folders.add(folder)
    assert len(folders) == 3

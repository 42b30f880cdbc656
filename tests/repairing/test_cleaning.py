"""What ``clean`` writes, in every layout, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tests.scans import scan_result
from tests.sources.data.making import write_csv, write_tree
from tests.sources.data.test_writing import IMAGES, LABELS, MAKERS, SORTED, N, files, of
from toxscreen.errors import DataError, StoreError, UsageError
from toxscreen.repairing import cleaning
from toxscreen.repairing.cleaning import Outcome, clean
from toxscreen.result import SAMPLES_SCHEMA, GroupResult, Verdict, load
from toxscreen.sources.data import open_training_set

FLAGGED = np.arange(2, N, 6)
"""Rows that the made-up scan flags."""


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


def scanned(data, flagged=FLAGGED, source="ant", **reading):
    """Return the result of a scan of ``data`` that flagged these rows: a group of each class, of one source class."""
    source_set = open_training_set(data, **reading)
    rows = np.isin(np.arange(len(source_set)), flagged)
    names = pa.array([*source_set.class_names, None], pa.string())
    labels = names.take(pa.array(np.where(source_set.labels < 0, len(names) - 1, source_set.labels)))
    columns = [
        source_set.ids,
        labels,
        labels,
        pa.array(rows.astype(int)),
        pa.array(rows.astype(float)),
        pa.array(rows),
        pa.array(np.where(rows, "suspicious", "clean").tolist()),
    ]
    counts = {
        name: [int(n) for n in np.bincount(rows[source_set.labels == i], minlength=2)]
        for i, name in enumerate(source_set.class_names)
    }
    made_up = scan_result({"x": [1, 1]}, {"x": Verdict.SUSPICIOUS}).classes[0]
    classes = tuple(
        replace(
            made_up,
            name=name,
            n=sum(n),
            groups=(made_up.groups[0], GroupResult(1, n[1], 0.5, Verdict.SUSPICIOUS, {"separation": 9.0}, source)),
        )
        for name, n in counts.items()
    )
    facts = {
        "location": str(data),
        "fingerprint": source_set.fingerprint(),
        "n_samples": len(source_set),
        "modality": source_set.modality,
    }
    inputs = {"data": {**facts, **reading}, "model": {}}
    return scan_result(
        {"x": [1, 1]}, classes=classes, samples=pa.table(columns, schema=SAMPLES_SCHEMA), inputs=inputs, exhibits=None
    )


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "data", IMAGES, LABELS)


def contents(root):
    return {name: (file.read_bytes(), file.stat().st_mtime_ns) for name, file in files(root).items()}


def manifest_of(done):
    with done.places.table.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.parametrize("given", [LABELS, SORTED], ids=["mixed", "sorted"])
def test_flagged_samples_are_gone_and_everything_else_is_there(make, tmp_path, given):
    data = make(tmp_path / "data", given)
    before = contents(tmp_path / "data")
    source = open_training_set(data)
    done = clean(scanned(data), out=tmp_path / "copy")
    kept = np.setdiff1d(np.arange(N), FLAGGED)
    copy = open_training_set(done.places.copy)
    assert done.outcome is Outcome.WRITTEN
    assert done.places.copy == of(tmp_path / "copy", data)
    assert copy.labels.tolist() == source.labels[kept].tolist() == done.labels.tolist()
    assert done.rows.tolist() == kept.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(copy.take(np.arange(len(kept))), source.take(kept), strict=True))
    assert [row["id"] for row in manifest_of(done)] == source.ids.take(pa.array(FLAGGED)).to_pylist()
    assert {row["action"] for row in manifest_of(done)} == {"drop"}
    assert contents(tmp_path / "data") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "copy.manifest.csv", "copy.manifest.json", "data"]


def test_relabelled_samples_have_the_source_class_and_those_without_one_are_gone(make, tmp_path):
    data = make(tmp_path / "data", LABELS)
    source = open_training_set(data)
    done = clean(scanned(data), out=tmp_path / "copy", action="relabel")
    copy = open_training_set(done.places.copy)
    ant = source.class_names.index("ant")
    was_ant = source.labels[FLAGGED] == ant
    rows = manifest_of(done)
    assert [row["action"] for row in rows] == np.where(was_ant, "drop", "relabel").tolist()
    assert [row["new_label"] for row in rows] == np.where(was_ant, "", "ant").tolist()
    place = {name: row for row, name in enumerate(copy.ids.to_pylist())}
    for row, number in zip(rows, FLAGGED, strict=True):
        if row["new_id"]:
            there = np.array([place[row["new_id"]]])
            assert copy.labels[there] == ant
            assert np.array_equal(copy.take(there)[0], source.take(np.array([number]))[0])
    assert len(copy) == N - was_ant.sum()
    assert np.count_nonzero(copy.labels == ant) == np.count_nonzero(source.labels == ant) - was_ant.sum() + (~was_ant).sum()


def test_a_quarantine_holds_what_the_copy_lacks_in_the_same_layout(make, tmp_path):
    data = make(tmp_path / "data", LABELS)
    source = open_training_set(data)
    done = clean(scanned(data), out=tmp_path / "copy", action="quarantine")
    aside = open_training_set(of(done.places.quarantine, data), class_names=source.class_names)
    assert done.places.quarantine == tmp_path / "copy.quarantine"
    assert aside.labels.tolist() == source.labels[FLAGGED].tolist()
    assert all(np.array_equal(a, b) for a, b in zip(aside.take(np.arange(len(aside))), source.take(FLAGGED), strict=True))
    assert not any("test" in name for name in files(done.places.quarantine))
    assert [row["new_id"] for row in manifest_of(done)] == aside.ids.to_pylist()
    assert len(open_training_set(done.places.copy)) == N - len(FLAGGED)


@pytest.mark.parametrize("action", ["drop", "relabel", "quarantine"])
def test_the_same_command_again_changes_nothing(make, tmp_path, action):
    result = scanned(make(tmp_path / "data", LABELS))
    clean(result, out=tmp_path / "copy", action=action)
    before = contents(tmp_path)
    assert clean(result, out=tmp_path / "copy", action=action).outcome is Outcome.THERE
    assert contents(tmp_path) == before


def test_a_run_folder_and_its_result_are_one(tree, tmp_path):
    result = scanned(tree)
    run = result.save(tmp_path / "run")
    assert clean(run, out=tmp_path / "copy").outcome is Outcome.WRITTEN
    assert clean(load(run), out=tmp_path / "copy").outcome is Outcome.THERE
    assert clean(result, out=tmp_path / "copy").outcome is Outcome.THERE


def test_a_run_that_was_repeated_is_still_the_same(tree, tmp_path):
    result = scanned(tree)
    clean(result, out=tmp_path / "copy")
    assert clean(replace(result, timings={"activations": 99.0}), out=tmp_path / "copy").outcome is Outcome.THERE


def test_a_scan_of_the_copy_that_flags_nothing_leaves_nothing_to_do(tree, tmp_path):
    clean(scanned(tree), out=tmp_path / "copy")
    again = clean(scanned(tmp_path / "copy", flagged=[]), out=tmp_path / "again")
    assert again.outcome is Outcome.NOTHING
    assert again.places is None
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("change", ["data", "table", "record", "gone"])
def test_a_copy_that_was_changed_since_is_not_taken_for_done(tree, tmp_path, change):
    result = scanned(tree)
    done = clean(result, out=tmp_path / "copy")
    if change == "data":
        next((tmp_path / "copy").rglob("*.png")).unlink()
    elif change == "gone":
        shutil.rmtree(tmp_path / "copy")
    else:
        getattr(done.places, change).write_text("{}")
    with pytest.raises(UsageError, match="--out"):
        clean(result, out=tmp_path / "copy")


def test_another_cleaning_or_other_files_in_the_place_are_refused(tree, tmp_path):
    result = scanned(tree)
    clean(result, out=tmp_path / "copy")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="something else"):
        clean(result, out=tmp_path / "copy", action="relabel")
    with pytest.raises(UsageError, match="something else"):
        clean(scanned(tree, flagged=[0]), out=tmp_path / "copy")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").touch()
    (tmp_path / "file").touch()
    for taken in ("other", "file"):
        with pytest.raises(UsageError, match="something else"):
            clean(result, out=tmp_path / taken)
    (tmp_path / "new.quarantine").mkdir()
    with pytest.raises(UsageError, match=r"new\.quarantine exists"):
        clean(result, out=tmp_path / "new", action="quarantine")
    assert {name: before[name] for name in before} == {name: found for name, found in contents(tmp_path).items() if name in before}


def test_an_empty_folder_may_be_the_place(tree, tmp_path):
    (tmp_path / "copy").mkdir()
    assert clean(scanned(tree), out=tmp_path / "copy").outcome is Outcome.WRITTEN


def test_a_dry_run_checks_everything_and_writes_nothing(tree, tmp_path):
    result = scanned(tree)
    before = contents(tmp_path)
    planned = clean(result, out=tmp_path / "copy", dry_run=True)
    assert planned.outcome is Outcome.PLANNED
    assert sum(planned.actions.counts().values()) == len(FLAGGED)
    assert contents(tmp_path) == before
    (tree / "ant" / "new.png").write_bytes(IMAGES[0])
    with pytest.raises(DataError, match="fingerprint"):
        clean(result, out=tmp_path / "copy", dry_run=True)


def test_the_record_names_run_data_and_counts(tree, tmp_path):
    result = scanned(tree)
    done = clean(result, out=tmp_path / "copy")
    record = json.loads(done.places.record.read_text())
    assert record["data"]["fingerprint"] == result.inputs["data"]["fingerprint"]
    assert record["fingerprint"] == open_training_set(tmp_path / "copy").fingerprint()
    assert sum(count["n"] for count in record["counts"]) == len(FLAGGED)
    assert record["n_samples"] == N - len(FLAGGED)
    assert "may miss it" in record["note"]


# The data


def test_data_that_was_edited_is_refused(make, tmp_path):
    data = make(tmp_path / "data", LABELS)
    result = scanned(data)
    shutil.rmtree(tmp_path / "data")
    make(tmp_path / "data", LABELS[1:] + LABELS[:1])
    with pytest.raises(DataError, match=r"fingerprint.*Scan it again"):
        clean(result, out=tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_data_that_can_no_longer_be_read_as_it_was_is_refused(tmp_path):
    data = write_csv(tmp_path / "data.csv", {"text": "abcd", "label": "xxyy"})
    result = scanned(data, flagged=[0])
    write_csv(data, {"text": "abcd", "label": "xzyy"})
    with pytest.raises(DataError, match="as it was when it was scanned"):
        clean(result, out=tmp_path / "copy")


def test_data_that_moved_is_found_where_it_is_said_to_be(tree, tmp_path):
    run = scanned(tree).save(tmp_path / "run")
    (run / "run.json").write_text(json.dumps({"data": str(tree)}))
    tree.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="--data"):
        clean(run, out=tmp_path / "copy")
    with pytest.raises(DataError, match="nothing is there"):
        clean(run, out=tmp_path / "copy", data=tmp_path / "wrong")
    assert clean(run, out=tmp_path / "copy", data=tmp_path / "moved").outcome is Outcome.WRITTEN


@pytest.mark.parametrize("recorded", [True, False])
def test_split_and_columns_of_the_scan_are_read_again(tmp_path, recorded):
    for split in ("train", "test"):
        write_csv(tmp_path / "data" / f"{split}.csv", {"label": "uuuuvvvv", "body": f"{split[0]}bcdefgh", "kind": "ddddeeee"})
    reading = {"split": "test", "input_column": "body", "label_column": "kind"}
    result = scanned(tmp_path / "data", flagged=[1], **reading)
    if recorded:  # on the command line
        result = replace(
            result, inputs={**result.inputs, "data": {k: v for k, v in result.inputs["data"].items() if k not in reading}}
        )
    run = result.save(tmp_path / "run")
    (run / "run.json").write_text(
        json.dumps({"data": str(tmp_path / "data"), **(reading if recorded else {}), "fingerprint": "no"})
    )
    clean(run, out=tmp_path / "copy")
    assert (tmp_path / "copy" / "train.csv").read_bytes() == (tmp_path / "data" / "train.csv").read_bytes()
    assert len((tmp_path / "copy" / "test.csv").read_text().splitlines()) == 8


@pytest.mark.parametrize("location", ["arrays", "Pictures", 3, None])
def test_data_in_memory_is_one_sentence_with_the_way_to_go(tree, tmp_path, location, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = scanned(tree)
    result = replace(result, inputs={"data": {"location": location, "modality": "activations"}})
    with pytest.raises(DataError, match="in memory"):
        clean(result, out=tmp_path / "copy")
    kept = clean(result)
    assert kept.outcome is Outcome.PLANNED
    assert kept.rows.tolist() == np.setdiff1d(np.arange(N), FLAGGED).tolist()
    (tmp_path / "arrays").mkdir()
    write_tree(tmp_path / "arrays", IMAGES, LABELS)
    if location == "arrays":
        with pytest.raises(DataError, match="unknown"):
            clean(result, out=tmp_path / "copy")


def test_a_run_folder_that_was_altered_is_refused(tree, tmp_path):
    run = scanned(tree).save(tmp_path / "run")
    scanned(tree, flagged=[1]).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "samples.parquet", run / "samples.parquet")
    with pytest.raises(StoreError, match=r"samples\.parquet"):
        clean(run, out=tmp_path / "copy")


# The place


@pytest.mark.parametrize("place", ["data/copy", "data/ant/deep/copy", "data", "run/copy", "run", ".", "/"])
def test_a_place_in_what_is_only_read_or_around_it_is_refused(tree, tmp_path, place):
    run = scanned(tree).save(tmp_path / "run")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="outside"):
        clean(run, out=tmp_path / place)
    assert contents(tmp_path) == before


def test_a_link_into_the_original_is_seen_through(tree, tmp_path):
    (tmp_path / "link").symlink_to(tree)
    with pytest.raises(UsageError, match="outside"):
        clean(scanned(tree), out=tmp_path / "link" / "copy")


@pytest.mark.parametrize("step", ["write_rows", "_move"])
def test_a_disk_too_full_is_one_sentence_and_leaves_nothing(tree, tmp_path, monkeypatch, step):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    before = contents(tmp_path)
    if step == "write_rows":
        monkeypatch.setattr("toxscreen.sources.data.copying.shutil.copyfile", full)
    else:
        replaced = os.replace
        monkeypatch.setattr(cleaning.Path, "replace", lambda a, b: full() if b.name == "copy.manifest.json" else replaced(a, b))
    with pytest.raises(DataError, match=rf"{tmp_path}/copy: No space left on device\. Free space"):
        clean(scanned(tree), out=tmp_path / "copy", action="quarantine")
    assert contents(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_each_step_is_told_to_its_end(tree, tmp_path):
    told = {}
    clean(scanned(tree), out=tmp_path / "copy", progress=lambda what, done, total: told.update({what: (done, total)}))
    assert told == dict.fromkeys(("checking the data", "writing the copy", "checking the copy"), (1, 1))


def test_a_run_that_is_stopped_leaves_nothing(tree, tmp_path):
    def stop(what, _done, _total):
        if what == "checking the copy":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clean(scanned(tree), out=tmp_path / "copy", progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_data_that_changes_while_it_is_copied_is_noticed(tree, tmp_path):
    def meddle(what, _done, _total):
        if what == "writing the copy":
            next(tree.glob("bee/*.png")).unlink()

    with pytest.raises(DataError):
        clean(scanned(tree, flagged=[0]), out=tmp_path / "copy", progress=meddle)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


# The classes


def test_a_class_that_would_be_emptied_is_refused_unless_it_is_allowed(tmp_path):
    data = write_csv(tmp_path / "data.csv", {"text": "abcdef", "label": "xxyyzz"})
    result = scanned(data, flagged=[0, 1])
    with pytest.raises(UsageError, match=r"'x' would lose all \(2\).*--decisions.*--allow-emptied"):
        clean(result, out=tmp_path / "copy")
    done = clean(result, out=tmp_path / "copy", allow_emptied=True)
    assert open_training_set(done.places.copy).class_names == ("y", "z")


def test_a_reviewer_can_keep_a_class_from_being_emptied(tmp_path):
    data = write_csv(tmp_path / "data.csv", {"text": "abcdef", "label": "xxyyzz"})
    (tmp_path / "d.csv").write_text("id,decision\n1,reject\n")
    done = clean(scanned(data, flagged=[0, 1]), out=tmp_path / "copy", decisions=tmp_path / "d.csv")
    assert [(row["id"], row["action"], row["who"], row["new_id"]) for row in manifest_of(done)] == [
        ("0", "drop", "scan", ""),
        ("1", "keep", "reviewer", "0"),
    ]


def test_two_classes_must_be_left_in_any_case(tmp_path):
    data = write_csv(tmp_path / "data.csv", {"text": "abcd", "label": "xxyy"})
    with pytest.raises(UsageError, match="needs two classes"):
        clean(scanned(data, flagged=[0, 1]), out=tmp_path / "copy", allow_emptied=True)


def test_a_class_without_samples_before_is_not_emptied(tree, tmp_path):
    (tree / "dog").mkdir()
    done = clean(scanned(tree), out=tmp_path / "copy")
    assert open_training_set(done.places.copy).class_names == ("ant", "bee", "cat", "dog")


# The manifest


def test_the_manifest_says_who_decided_and_why(tree, tmp_path):
    result = scanned(tree, flagged=[0, 1])
    ids = result.samples["id"].to_pylist()
    (tmp_path / "d.jsonl").write_text(
        "".join(f'{{"id": "{ids[row]}", "decision": "{d}"}}\n' for row, d in [(1, "reject"), (5, "accept")])
    )
    done = clean(result, out=tmp_path / "copy", decisions=tmp_path / "d.jsonl")
    assert [tuple(row.values())[1:] for row in manifest_of(done)] == [
        ("ant", "drop", "", "1", "suspicious", "group 1 of its class is suspicious", "scan", ""),
        ("ant", "keep", "", "1", "suspicious", "group 1 of its class is suspicious, but the reviewer keeps it", "reviewer", ids[1]),
        ("ant", "drop", "", "0", "clean", "the scan did not flag it, and the reviewer takes it out", "reviewer", ""),
    ]


def test_names_in_the_manifest_are_no_formulas_and_it_can_be_given_back_as_decisions(tmp_path):
    evil = '=HYPERLINK("http:x")'
    tree = write_tree(tmp_path / "data", IMAGES[:6], [evil, "+1", "-1"] * 2)
    result = scanned(tree, flagged=[0, 2])
    done = clean(result, out=tmp_path / "copy")
    text = done.places.table.read_text()
    assert not any(cell[:1] in tuple("=+-@") for line in csv.reader(text.splitlines()) for cell in line)
    head, *lines = text.splitlines()
    (tmp_path / "d.csv").write_text("\n".join([f'{head},"decision"', *(f"{line},reject" for line in lines)]))
    assert clean(result, out=tmp_path / "other", decisions=tmp_path / "d.csv").outcome is Outcome.NOTHING


def test_a_scan_of_the_copy_does_not_see_the_manifest(make, tmp_path):
    data = make(tmp_path / "data", LABELS)
    clean(scanned(data), out=tmp_path / "copy")
    assert not any("manifest" in name for name in files(tmp_path / "copy"))

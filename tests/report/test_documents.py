from __future__ import annotations

import errno
import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fakes import FakeTrainingSet
from tests.scans import scan_result, shown
from tests.triggers import bend, convicted, patch, recovered, shown_with, tint, transform, words
from toxscreen.errors import StoreError
from toxscreen.report import documents
from toxscreen.result import CONFIRMATION_SCHEMA, SAMPLES_SCHEMA, GroupResult, Origin, Verdict, load
from toxscreen.sources.data.base import NotExamined
from toxscreen.trigger import load as load_trigger
from toxscreen.trigger.patterns import Pattern

SCHEMA = json.loads(resources.files("toxscreen.report").joinpath("schema.json").read_text(encoding="utf-8"))
S = Verdict.SUSPICIOUS


@pytest.fixture
def result():
    skipped = (NotExamined("broken.png", "truncated", 3), NotExamined("class b", "has no sample"))
    return shown(scan_result({"a": [30, 10], "b": [5]}, {"a": S}, not_examined=skipped, notes=("a note",)))


@pytest.fixture
def run(result, tmp_path):
    return result.save(tmp_path / "run")


def edited(run, change):
    path = run / "result.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def violations(document):
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)]


def test_the_schema_is_a_valid_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_documents_follow_the_schema(result, run):
    assert violations(result.to_dict()) == []
    assert violations(json.loads((run / "result.json").read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("seed"),
        lambda d: d.update(verdict="fine"),
        lambda d: d["classes"][0]["groups"][1].update(share=1.5),
        lambda d: d["classes"][0]["groups"][1]["evidence"].update(robust_z="high"),
        lambda d: d["not_examined"][0].pop("reason"),
        lambda d: d.update(schema_version=2),
        lambda d: d["samples"].update(n=-1),
    ],
)
def test_the_schema_refuses_what_the_contract_forbids(result, change):
    document = result.to_dict()
    change(document)
    assert violations(document) != []


def test_the_schema_names_every_property_that_is_written(run):
    document = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert set(document) == set(SCHEMA["properties"])
    assert set(document["classes"][0]) == set(SCHEMA["$defs"]["class"]["properties"])
    assert set(document["classes"][0]["groups"][0]) == set(SCHEMA["$defs"]["group"]["properties"])
    assert set(document["not_examined"][0]) == set(SCHEMA["properties"]["not_examined"]["items"]["properties"])


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.nan, None),
        (-np.inf, None),
        (np.array([1.0, np.nan]), [1.0, None]),
        ((1, (2, None)), [1, [2, None]]),
        (Path("a/b"), "a/b"),
        (Verdict.CLEAN, "clean"),
        (MappingProxyType({1: MappingProxyType({"x": 2})}), {"1": {"x": 2}}),
        ("a\udcff", "a\\udcff"),
        (b"raw", "b'raw'"),
        (GroupResult(0, 1, 1.0, S, {}).verdict, "suspicious"),
    ],
)
def test_any_value_of_the_settings_becomes_plain(result, value, plain):
    document = replace(result, settings={"value": value}).to_dict()
    assert document["settings"] == {"value": plain}
    json.dumps(document, allow_nan=False)


def test_an_unfinished_scan_is_read_back_as_such_and_one_that_does_not_say_so_is_over(result, tmp_path):
    run = replace(result, pending=("triggers",)).save(tmp_path / "run")
    assert violations(json.loads((run / "result.json").read_text(encoding="utf-8"))) == []
    assert load(run).pending == ("triggers",)
    edited(run, lambda document: document.pop("pending"))
    assert load(run).pending == ()


def test_a_file_name_with_a_lone_surrogate_can_be_saved(result, tmp_path):
    hostile = replace(result, not_examined=(NotExamined("bad\udcff.png", "cannot be read"),))
    assert load(hostile.save(tmp_path / "run")).not_examined[0].id == "bad\\udcff.png"


def test_samples_have_the_columns_of_the_contract(run, result):
    samples = pq.read_table(run / "samples.parquet")
    assert samples.schema.names == ["id", "label", "predicted", "group", "score", "flagged", "verdict"]
    assert samples.schema.equals(SAMPLES_SCHEMA)
    assert samples.equals(result.samples)


def test_samples_are_cast_and_reordered_and_lose_their_metadata(result, tmp_path):
    other = result.samples.select(list(reversed(SAMPLES_SCHEMA.names))).replace_schema_metadata({"pandas": "index"})
    other = other.set_column(other.schema.get_field_index("label"), "label", other["label"].dictionary_encode())
    other = other.set_column(other.schema.get_field_index("group"), "group", other["group"].cast(pa.int32()))
    other = other.append_column("extra", pa.nulls(len(other)))
    replace(result, samples=other).save(tmp_path / "other")
    assert (tmp_path / "other" / "samples.parquet").read_bytes() == (result.save(tmp_path / "run") / "samples.parquet").read_bytes()


def test_what_was_not_examined_is_null(result, tmp_path):
    columns = {name: result.samples[name].to_pylist() for name in SAMPLES_SCHEMA.names}
    for name in ("label", "predicted", "group", "score", "verdict"):
        columns[name][4] = None
    again = load(replace(result, samples=pa.table(columns, schema=SAMPLES_SCHEMA)).save(tmp_path / "run"))
    assert again.samples.slice(4, 1).to_pylist() == [
        {"id": "4", "label": None, "predicted": None, "group": None, "score": None, "flagged": False, "verdict": None}
    ]
    assert again.n_examined == 44


def test_the_same_samples_give_the_same_bytes_however_they_are_chunked(result, tmp_path):
    chunked = pa.concat_tables([result.samples.slice(0, 7), result.samples.slice(7)])
    one, two = (replace(result, samples=s).save(tmp_path / name) for name, s in (("one", result.samples), ("two", chunked)))
    assert (one / "samples.parquet").read_bytes() == (two / "samples.parquet").read_bytes()


def test_a_folder_name_that_looks_like_a_partition_adds_no_column(result, tmp_path):
    assert load(result.save(tmp_path / "flagged=5")) == result


def test_a_folder_that_is_missing_or_foreign_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(StoreError, match=r"must be a run folder, but it holds no result\.json"):
        load(tmp_path / "nowhere")
    (tmp_path / "result.json").write_text('{"passed": 7}', encoding="utf-8")
    with pytest.raises(StoreError, match="must be written by toxscreen scan"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": "1", "files": {}}', "[" * 100_000, "\x00"])
def test_a_damaged_result_is_refused(run, text):
    (run / "result.json").write_text(text, encoding="utf-8")
    with pytest.raises(StoreError):
        load(run)


def test_a_result_that_is_not_utf8_is_refused(run):
    (run / "result.json").write_bytes(b"\xff\xfe")
    with pytest.raises(StoreError, match=r"result\.json cannot be read"):
        load(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("classes"),
        lambda d: d.update(classes=7),
        lambda d: d["classes"][0].pop("n"),
        lambda d: d["classes"][0].update(n="many"),
        lambda d: d["classes"][0].update(n=True),
        lambda d: d["classes"][0].update(verdict="fine"),
        lambda d: d["classes"][0]["groups"].append("x"),
        lambda d: d.update(settings=[]),
        lambda d: d.update(seed=1.5),
        lambda d: d.update(notes=[1]),
        lambda d: d["files"].update({"../../secret": "0"}),
        lambda d: d["files"].pop("samples.parquet"),
        lambda d: d["files"].update({"exhibits.json": "0"}),
    ],
)
def test_an_altered_result_is_refused(run, change):
    edited(run, change)
    with pytest.raises(StoreError, match="is not as toxscreen wrote it"):
        load(run)


@pytest.mark.parametrize("name", ["samples.parquet", "exhibits.json"])
def test_an_altered_or_missing_file_is_noticed(run, name):
    path = run / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StoreError, match=f"{name} is not the file that the scan wrote"):
        load(run)
    path.unlink()
    with pytest.raises(StoreError, match=f"{name} cannot be read"):
        load(run)


def test_a_result_of_a_newer_toxscreen_is_refused_with_the_way_out(run):
    edited(run, lambda d: d.update(schema_version=2))
    with pytest.raises(StoreError, match=r"newer toxscreen.*pip install --upgrade toxscreen"):
        load(run)


def test_properties_that_are_not_known_yet_are_ignored(run, result):
    edited(run, lambda d: d.update(later=1) or d["classes"][0].update(later=2))
    assert load(run) == result


def test_a_full_disk_gives_one_sentence_and_keeps_the_finished_files(run, result, monkeypatch):
    before = {file.name: file.read_bytes() for file in run.iterdir()}

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(documents.pq, "write_table", full)
    with pytest.raises(StoreError, match=r"samples\.parquet cannot be written: No space left on device"):
        result.save(run)
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before


@pytest.mark.parametrize("name", ["finished.json", "result.json", "samples.parquet", "report.html"])
def test_a_folder_in_the_place_of_a_file_is_named_as_such(result, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match=rf"{re.escape(name)} must be a file, but is a folder\. Remove it, or choose"):
        result.save(tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_a_stop_in_the_middle_leaves_nothing_half_written(tmp_path):
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")

    def stopped():
        with documents.replacing(path) as partial:
            partial.write_text("ne", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_gives_one_sentence(result, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be written"):
        result.save(tmp_path / "file" / "run")


def test_no_exhibits_means_no_exhibits_file(result, tmp_path):
    folder = replace(result, exhibits=None).save(tmp_path / "run")
    assert not (folder / "exhibits.json").exists()
    assert load(folder).exhibits is None


def test_two_saves_write_the_same_bytes(result, tmp_path):
    one, two = (result.save(tmp_path / name) for name in ("one", "two"))
    for file in one.iterdir():
        other = (two / file.name).read_bytes()
        # the report alone names its run folder: where the listing of the flagged samples is read from
        assert file.read_bytes() == other.replace(bytes(two), bytes(one)), file.name


def test_the_text_of_the_document_is_readable_by_people(run):
    text = (run / "result.json").read_text(encoding="utf-8")
    assert re.match(r'\{\n "schema_version": 1,\n "name": "made up",\n "verdict": "suspicious"', text)


FAINT = np.ones((12, 12, 1), np.float32)
TRIGGERS = {
    "patch": patch(),
    "patch without a place": patch(place=None),
    "words": words("cf", "mn"),
    "transform": transform(),
    "bend": bend(),
    "tint": tint(),
    "pattern": Pattern(scale=0.8, offset=FAINT, usual=FAINT, planted=1.0, samples=5, lowest=0.0, highest=255.0),
}


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_recovered_trigger_follows_the_schema_and_comes_back(name, tmp_path):
    trigger = TRIGGERS[name]
    inputs = ["one two"] if trigger.kind == "words" else [np.zeros((12, 12, 1), np.uint8)]
    result = convicted(recovered(trigger, inputs))
    assert violations(result.to_dict()) == []
    again = load(result.save(tmp_path / "run")).classes[0].groups[1].trigger
    assert load_trigger(again).document() == trigger.document()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("flips"),
        lambda t: t["flips"].pop("lower"),
        lambda t: t["flips"].update(value=2.0),
        lambda t: t.update(kind="spell"),
        lambda t: t.update(sources="b"),
        lambda t: t.pop("mask"),
        lambda t: t.update(picture=[12, 12]),
        lambda t: t.update(place=[1]),
        lambda t: t.update(proved="yes"),
    ],
)
def test_the_schema_refuses_a_trigger_that_is_none(change):
    document = convicted(recovered(patch(), [np.zeros((12, 12, 1), np.uint8)])).to_dict()
    change(document["classes"][0]["groups"][1]["trigger"])
    assert violations(document) != []


def test_what_is_shown_of_a_trigger_comes_back(tmp_path):
    found = recovered(words("cf"), ["one two", "three"])
    result = shown_with(found, FakeTrainingSet(["some words"] * 140, modality="text"))
    assert load(result.save(tmp_path / "run")).exhibits == result.exhibits


ORIGIN = Origin("a digest", "2026-01-02T03:04:05+00:00")


@pytest.fixture
def finished(result):
    answers = pa.table({"id": ["1"], "answer": ["b"], "certainty": [0.75]}, schema=CONFIRMATION_SCHEMA)
    return replace(result, confirmation=answers, origin=ORIGIN)


def test_a_result_that_is_finished_is_found_by_what_it_came_from(finished, tmp_path):
    folder = finished.save(tmp_path / "run")
    again = documents.read_finished(folder, ORIGIN.digest)
    assert again == finished
    assert again.confirmation.equals(finished.confirmation)
    assert again.origin == ORIGIN
    assert documents.read_finished(folder, "another digest") is None
    assert documents.read_finished(tmp_path, ORIGIN.digest) is None
    assert load(folder).origin is None  # whoever changes what was loaded and saves it has made something else


def test_a_result_that_is_not_finished_takes_away_what_was_said_of_the_one_before(finished, tmp_path):
    replace(finished, origin=None).save(finished.save(tmp_path / "run"))
    assert not (tmp_path / "run" / "finished.json").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"digest": "a digest"}', "[" * 100_000])
def test_a_damaged_record_of_what_a_result_came_from_is_as_good_as_none(finished, tmp_path, text):
    folder = finished.save(tmp_path / "run")
    (folder / "finished.json").write_text(text, "utf-8")
    assert documents.read_finished(folder, ORIGIN.digest) is None


@pytest.mark.parametrize("time", ["tomorrow", 5, None])
def test_a_time_that_is_none_is_as_good_as_no_record(finished, tmp_path, time):
    path = finished.save(tmp_path / "run") / "finished.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"time": time}), "utf-8")
    assert documents.read_finished(path.parent, ORIGIN.digest) is None

from __future__ import annotations

import csv
import errno
import json
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.fakes import FakeTrainingSet
from toxscreen import poisoning
from toxscreen.attacks import ATTACKS
from toxscreen.attacks.base import TextAttack
from toxscreen.errors import DataError, UsageError
from toxscreen.metrics import read_truth
from toxscreen.poisoning import plan, poison
from toxscreen.sources.data import open_training_set

NAMES = ("ant", "bee", "cat")


@dataclass(frozen=True)
class Marked(TextAttack):
    """Writes what it does after the text; its nature is for the test to say."""

    clean_label: bool = False
    source_specific: bool = False
    covers: float = 0.0
    number: int | None = None
    learned: int = 0

    name = "marked"
    trigger = "a word"

    def prepared(self, training_set, rng):
        return replace(self, learned=len(training_set) + int(rng.integers(1000)) * 1000)

    def for_target(self, k):
        return replace(self, number=k)

    def plant(self, inputs, rng):  # noqa: ARG002
        return [f"{text} poison {self.number} {self.learned}" for text in inputs]

    def cover(self, inputs, rng):  # noqa: ARG002
        return [f"{text} cover {self.number} {self.learned}" for text in inputs]

    def _mark(self, text, rng):  # noqa: ARG002
        return f"{text} applied"


def labels_of(*counts):
    """So many samples of each class, in a mixed order."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)


def planned(labels, names=NAMES, *, attack=ATTACKS["badnets"], seed=0, **settings):
    return plan(attack, labels, names, rng=np.random.default_rng(seed), **settings)


def relabelled(labels, drawn):
    after = labels.copy()
    after[drawn.rows] = drawn.new_labels
    return after


def share_of(labels, drawn, index):
    """The poisoned part of a class after poisoning."""
    return np.sum(drawn.new_labels == index) / np.sum(relabelled(labels, drawn) == index)


@given(st.lists(st.integers(200, 400), min_size=3, max_size=3), st.floats(0.01, 0.4), st.integers(0, 2), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_the_share_is_the_poisoned_part_of_the_target_class_after_poisoning(counts, share, target, seed):
    labels = labels_of(*counts)
    drawn = planned(labels, target=NAMES[target], share=share, seed=seed)
    assert np.sum(drawn.new_labels == target) == len(drawn.rows)
    assert share_of(labels, drawn, target) == pytest.approx(share, abs=1 / counts[target])


@given(st.lists(st.integers(300, 400), min_size=3, max_size=3), st.floats(0.01, 0.4), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_with_target_next_the_share_holds_in_every_class(counts, share, seed):
    labels = labels_of(*counts)
    drawn = planned(labels, target="next", share=share, seed=seed)
    assert [share_of(labels, drawn, index) for index in range(3)] == pytest.approx([share] * 3, abs=2 / 300)


@pytest.mark.parametrize("target", ["cat", "next"])
@pytest.mark.parametrize("rate", [0.003, 0.1, 0.5])
def test_the_rate_is_the_poisoned_part_of_the_whole_data_set(target, rate):
    labels = labels_of(400, 300, 300)
    assert len(planned(labels, target=target, rate=rate).rows) == rate * 1000


def test_a_tenth_of_the_target_class_is_poisoned_unless_something_else_is_asked_for():
    labels = labels_of(100, 100, 90)
    assert len(planned(labels, target="cat").rows) == 10


def test_the_rows_are_distinct_ascending_and_of_the_classes_that_poison_is_made_of():
    labels = labels_of(100, 100, 100)
    drawn = planned(labels, target="bee", share=0.3)
    assert (np.diff(drawn.rows) > 0).all()
    assert set(labels[drawn.rows].tolist()) == {0, 2}


def test_with_a_source_poison_is_made_of_that_class_alone():
    labels = labels_of(100, 100, 100)
    drawn = planned(labels, target="bee", source="cat", share=0.3)
    assert set(labels[drawn.rows].tolist()) == {2}
    assert set(drawn.new_labels.tolist()) == {1}


@pytest.mark.parametrize("amount", [{"share": 0.2}, {"rate": 0.2}])
def test_with_target_next_each_class_moves_to_the_next_and_the_last_to_the_first(amount):
    labels = labels_of(100, 100, 100)
    drawn = planned(labels, target="next", **amount)
    assert np.array_equal(drawn.new_labels, (labels[drawn.rows] + 1) % 3)
    assert set(drawn.new_labels.tolist()) == {0, 1, 2}


def test_with_target_next_a_class_without_samples_is_passed_over():
    labels = labels_of(100, 0, 100)
    drawn = planned(labels, target="next")
    assert set(zip(labels[drawn.rows].tolist(), drawn.new_labels.tolist(), strict=True)) == {(0, 2), (2, 0)}


def test_a_class_that_is_called_next_is_a_class():
    labels = labels_of(100, 100)
    drawn = planned(labels, ("ant", "next"), target="next")
    assert set(drawn.new_labels.tolist()) == {1}


def places(labels, drawn, which=slice(None)):
    """Where each planted sample comes from, where it goes, and by which trigger, without repeats."""
    steps = np.stack([labels[drawn.rows], drawn.new_labels, drawn.triggers])[:, which]
    return set(map(tuple, steps.T.tolist()))


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_each_of_several_targets_gets_its_share_with_a_trigger_of_its_own(share):
    labels = labels_of(4000, 4000, 4000)
    drawn = planned(labels, target="ant,cat", share=share)
    assert places(labels, drawn) == {(1, 0, 0), (2, 0, 0), (0, 2, 1), (1, 2, 1)}
    assert [share_of(labels, drawn, index) for index in (0, 2)] == pytest.approx([share] * 2, abs=0.01)


def test_every_class_can_be_a_target_with_a_trigger_of_its_own():
    labels = labels_of(4000, 4000)
    drawn = planned(labels, ("ant", "bee"), target="bee,ant", share=0.2)
    assert places(labels, drawn) == {(0, 1, 0), (1, 0, 1)}
    assert [share_of(labels, drawn, index) for index in (0, 1)] == pytest.approx([0.2, 0.2], abs=0.001)


def test_each_of_several_sources_leads_to_the_target_by_a_trigger_of_its_own():
    labels = labels_of(500, 500, 500)
    drawn = planned(labels, target="cat", source="bee,ant", share=0.2)
    assert places(labels, drawn) == {(1, 2, 0), (0, 2, 1)}
    assert np.bincount(drawn.triggers).tolist() == [62, 62]
    assert share_of(labels, drawn, 2) == pytest.approx(0.2, abs=0.002)


def test_as_many_sources_as_targets_go_in_pairs():
    labels = labels_of(500, 500, 500)
    assert places(labels, planned(labels, target="cat,ant", source="ant,bee")) == {(0, 2, 0), (1, 0, 1)}


def test_the_rate_is_that_of_all_targets_together():
    labels = labels_of(400, 300, 300)
    drawn = planned(labels, target="ant,bee,cat", rate=0.1)
    assert len(drawn.rows) == 100
    assert np.bincount(drawn.triggers) == pytest.approx([30, 35, 35], abs=2)


def test_a_class_whose_name_holds_a_comma_is_that_class():
    labels, names = labels_of(300, 300, 300, 300), ("ant", "bee", "ant, bee", "x,y")
    assert set(planned(labels, names, target="ant, bee").new_labels.tolist()) == {2}
    assert set(planned(labels, names, target="ant,bee").new_labels.tolist()) == {0, 1}
    assert set(planned(labels, names, target="x,y , ant, bee,ant").new_labels.tolist()) == {3, 2, 0}


def test_clean_label_poison_is_made_of_the_target_class_and_keeps_its_label():
    labels = labels_of(100, 100, 50)
    drawn = planned(labels, attack=Marked(clean_label=True), target="cat", share=0.2)
    assert places(labels, drawn) == {(2, 2, 0)}
    assert len(drawn.rows) == 10
    assert not drawn.cover.any()


def test_clean_label_poison_may_be_most_of_the_class():
    labels = labels_of(100, 100)
    assert len(planned(labels, ("ant", "bee"), attack=Marked(clean_label=True), target="bee", share=0.9).rows) == 90
    assert len(planned(labels, ("ant", "bee"), attack=Marked(clean_label=True), target="ant,bee", share=0.9).rows) == 180


def test_cover_samples_keep_their_label_and_are_of_any_class_but_the_target():
    labels = labels_of(300, 300, 300)
    drawn = planned(labels, attack=Marked(covers=1.5), target="cat", share=0.2)
    assert places(labels, drawn, ~drawn.cover) == {(0, 2, 0), (1, 2, 0)}
    assert places(labels, drawn, drawn.cover) == {(0, 0, 0), (1, 1, 0)}
    assert np.bincount(drawn.cover).tolist() == [75, 112]
    assert (np.diff(drawn.rows) > 0).all()


def test_cover_samples_of_a_source_specific_attack_are_of_neither_source_nor_target():
    labels = labels_of(300, 300, 300)
    drawn = planned(labels, attack=Marked(covers=1.0, source_specific=True), target="cat", source="ant", share=0.2)
    assert places(labels, drawn) == {(0, 2, 0), (1, 1, 0)}


def test_cover_samples_carry_the_trigger_of_their_own_target():
    labels = labels_of(900, 900, 900)
    drawn = planned(labels, attack=Marked(covers=1.0), target="cat,ant", share=0.1)
    assert places(labels, drawn, drawn.cover) == {(0, 0, 0), (1, 1, 0), (1, 1, 1), (2, 2, 1)}
    for k in (0, 1):
        mine = drawn.cover[drawn.triggers == k]
        assert mine.sum() == (~mine).sum()


def test_cover_samples_change_nothing_about_which_samples_are_poisoned():
    labels = labels_of(300, 300, 300)
    without, covered = planned(labels, target="cat"), planned(labels, attack=Marked(covers=1.0), target="cat")
    assert covered.rows[~covered.cover].tolist() == without.rows.tolist()


def test_samples_without_a_label_are_left_alone():
    labels = labels_of(50, 50)
    labels[:30] = -1
    rows = planned(labels, ("ant", "bee"), target="bee", rate=0.3).rows
    assert len(rows) == 30
    assert (labels[rows] == 0).all()


def test_one_seed_draws_the_same_samples_and_another_seed_others():
    labels = labels_of(100, 100, 100)
    first, same, other = (planned(labels, target="cat", seed=seed).rows.tolist() for seed in (1, 1, 2))
    assert first == same != other


def test_planning_changes_no_label():
    labels = labels_of(100, 100, 100)
    labels.flags.writeable = False
    planned(labels, target="cat")


def test_poison_may_outnumber_the_clean_samples_of_the_target():
    labels = labels_of(500, 500, 20)
    assert share_of(labels, planned(labels, target="cat", share=0.9), 2) == 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "dog"}, "--target must name a class of the data, got 'dog'. The classes are 'ant', 'bee', 'cat'"),
        ({"target": "cat", "source": "dog"}, "--source must name a class of the data, got 'dog'"),
        ({"target": "cat", "source": "cat"}, "other than its target 'cat'"),
        ({"target": "next", "source": "cat"}, "Leave --source away"),
        ({"target": "cat", "share": 0.1, "rate": 0.1}, "got both"),
        ({"target": "cat", "share": 0.0}, "--share must lie between 0 and 1, got 0.0"),
        ({"target": "cat", "share": 1.0}, "--share must lie between 0 and 1"),
        ({"target": "cat", "share": float("nan")}, "--share must lie between 0 and 1"),
        ({"target": "cat", "rate": -0.1}, "--rate must lie between 0 and 1, got -0.1"),
        ({"target": "cat", "rate": 10}, "--rate must lie between 0 and 1, got 10"),
        ({"target": "cat", "source": "ant", "share": 0.6}, r"makes 150 samples of poison, but .* drawn from \('ant'\) have 100"),
        ({"target": "cat", "rate": 0.9}, r"makes 270 samples of poison, but .* drawn from \('ant', 'bee'\) have 200"),
        ({"target": "cat", "share": 0.001}, "less than one sample. Raise --share"),
        ({"target": "cat", "rate": 0.001}, "less than one sample. Raise --rate"),
        ({"target": "next", "share": 0.5}, "must be below 0.5 where a target is a source too"),
        ({"target": "ant,bee", "share": 0.5}, "must be below 0.5 where a target is a source too"),
        ({"target": "ant,dog"}, "--target must name a class of the data, got 'dog'"),
        ({"target": "ant,"}, "--target must name a class of the data, got ''"),
        ({"target": ""}, "--target must name a class of the data, got ''"),
        ({"target": "next,ant"}, "--target must name a class of the data, got 'next'"),
        ({"target": "ant,bee,cat", "source": "ant,bee"}, "go in pairs, got 2 and 3 of them"),
        ({"target": "ant,bee", "source": "bee,bee"}, "other than its target 'bee'"),
        ({"target": "cat", "attack": Marked(clean_label=True), "source": "ant"}, "leave --source away"),
        ({"target": "next", "attack": Marked(clean_label=True)}, "of the target class itself"),
        ({"target": "cat", "attack": Marked(source_specific=True)}, "Name it with --source"),
        ({"target": "next", "attack": Marked(source_specific=True)}, "Name it with --source"),
        ({"target": "cat", "attack": Marked(covers=9.0), "share": 0.2}, r"225 cover samples, but .* \('ant', 'bee'\) have 175"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_what_to_do(settings, message):
    with pytest.raises(UsageError, match=message):
        planned(labels_of(100, 100, 100), **settings)


def test_a_source_specific_attack_needs_a_third_class_for_its_cover_samples():
    with pytest.raises(UsageError, match=r"11 cover samples, but the classes they are drawn from \(none\) have 0"):
        planned(labels_of(100, 100), ("ant", "bee"), attack=ATTACKS["tact"], target="bee", source="ant")


def test_clean_label_poison_needs_samples_of_its_target():
    with pytest.raises(UsageError, match="samples of its target 'cat', and there are none"):
        planned(labels_of(100, 100, 0), attack=Marked(clean_label=True), target="cat")


def test_a_class_too_small_for_the_next_one_is_named():
    with pytest.raises(UsageError, match="'ant'"):
        planned(labels_of(5, 5000, 5000), target="next")


@pytest.mark.parametrize("target", ["ant", "next"])
def test_data_of_one_class_cannot_be_poisoned(target):
    with pytest.raises(UsageError, match="there are none"):
        planned(labels_of(10, 0, 0), target=target)


def test_many_class_names_are_not_all_listed():
    with pytest.raises(UsageError) as error:
        planned(labels_of(*[1] * 1000), [str(index) for index in range(1000)], target="dog")
    assert len(str(error.value)) < 300


def write_images(folder, n=90, shape=(28, 28, 1)):
    """A tree of PNG files, a folder per class."""
    rng = np.random.default_rng(0)
    for row in range(n):
        file = folder / NAMES[row % 3] / f"{row:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(image[..., 0] if shape[2] == 1 else image).save(file)
    return folder


def write_csv(folder, n=90):
    folder.mkdir()
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        rows.writerows([f'text no. {row}, "quoted"; äöü', NAMES[row % 3]] for row in range(n))
    (folder / "test.csv").write_text("text,label\nheld out,ant\nheld out too,bee\n", encoding="utf-8")
    return folder


def write_jsonl(folder, n=90):
    folder.mkdir()
    lines = [json.dumps({"text": f"text no. {row}", "label": NAMES[row % 3]}) for row in range(n)]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_parquet(folder, n=90):
    folder.mkdir()
    table = pa.table({"text": [f"text no. {row}" for row in range(n)], "label": [NAMES[row % 3] for row in range(n)]})
    pq.write_table(table, folder / "train-00000-of-00001.parquet")
    return folder


LAYOUTS = {"images": write_images, "csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


@pytest.fixture(params=sorted(LAYOUTS))
def data(request, tmp_path):
    return LAYOUTS[request.param](tmp_path / "data with blanks ä")


def attack_on(path):
    """Return the name of an attack that leaves nothing to chance."""
    return "badnets" if open_training_set(path).modality == "image" else "signature"


def samples(path):
    """Return the class and the input of every sample, by id."""
    opened = open_training_set(path)
    names = [opened.class_names[label] for label in opened.labels]
    return dict(zip(opened.ids.to_pylist(), zip(names, opened.take(np.arange(len(opened))), strict=True), strict=True))


def files(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_poisoned_samples_carry_trigger_and_label_and_all_others_are_as_before(data, tmp_path):
    attack = attack_on(data)
    report = poison(data, attack, target="cat", share=0.2, out=tmp_path / "out")
    truth, copy = read_truth(report.truth).to_pylist(), samples(report.out)
    assert sum(row["poisoned"] for row in truth) == round(0.2 / 0.8 * 30)
    for (label, value), row in zip(samples(data).values(), truth, strict=True):
        new_label, new_value = copy.pop(row["id"])
        expected = ATTACKS[attack].apply([value], np.random.default_rng(0))[0] if row["poisoned"] else value
        assert np.array_equal(new_value, expected)
        assert (row["original_label"], row["label"]) == (label, new_label)
        assert new_label == ("cat" if row["poisoned"] else label)
    assert copy == {}


def test_what_is_read_is_left_as_it_was(data, tmp_path):
    before = files(data)
    poison(data, attack_on(data), target="next", out=tmp_path / "out")
    assert files(data) == before


@pytest.mark.parametrize("attack", ["words", "sentence"])
def test_one_seed_gives_the_same_files_and_another_seed_other_poison(attack, tmp_path):
    data = write_csv(tmp_path / "data")
    for name, seed in [("first", 3), ("same", 3), ("other", 4)]:
        poison(data, attack, target="next", share=0.3, seed=seed, out=tmp_path / name)
    assert files(tmp_path / "first") == files(tmp_path / "same")
    assert read_truth(tmp_path / "first.truth.parquet").equals(read_truth(tmp_path / "same.truth.parquet"))
    assert files(tmp_path / "first") != files(tmp_path / "other")


def test_another_seed_puts_the_trigger_elsewhere_in_the_same_samples(tmp_path):
    data = write_csv(tmp_path / "data")
    for seed in (0, 1):
        poison(data, "words", target="cat", source="ant", rate=30 / 90, seed=seed, out=tmp_path / f"seed {seed}")
    assert read_truth(tmp_path / "seed 0.truth.parquet").equals(read_truth(tmp_path / "seed 1.truth.parquet"))
    assert files(tmp_path / "seed 0") != files(tmp_path / "seed 1")


def test_each_poisoned_sample_has_a_trigger_of_its_own_draw(tmp_path):
    poison(write_csv(tmp_path / "data"), "words", target="cat", source="ant", rate=30 / 90, out=tmp_path / "out")
    texts = [value for _, value in samples(tmp_path / "out").values()]
    assert len({word for text in texts for word in text.split() if word in {"cf", "mn", "bb", "tq", "mb"}}) > 2


def test_the_truth_lies_beside_the_folder_and_not_in_it(data, tmp_path):
    report = poison(data, attack_on(data), target="cat", out=tmp_path / "out")
    assert report.truth == tmp_path / "out.truth.parquet"
    assert report.truth.is_file()
    assert not [name for name in files(report.out) if "truth" in name or "poison" in name]


def test_the_report_says_how_much_poison_went_where(tmp_path):
    report = poison(write_csv(tmp_path / "data"), "signature", target="next", share=0.2, out=tmp_path / "out")
    assert report.n_samples == 90
    assert [(one.target, one.poisoned, one.share) for one in report.planted] == [(name, 6, pytest.approx(0.2)) for name in NAMES]
    assert report.n_poisoned == 18
    assert report.covers == 0
    assert {one.attack for one in report.planted} == {ATTACKS["signature"]}


@pytest.fixture
def marked(monkeypatch):
    """Register an attack of the wanted nature as "marked"."""

    def register(**nature):
        monkeypatch.setattr(poisoning, "ATTACKS", MappingProxyType(dict(ATTACKS) | {"marked": Marked(**nature)}))

    return register


def test_poison_and_cover_samples_are_planted_each_in_its_way_and_told_apart_in_the_truth(tmp_path, marked):
    marked(covers=0.5)
    report = poison(write_csv(tmp_path / "data"), "marked", target="cat", share=0.25, out=tmp_path / "out")
    truth, copy = read_truth(report.truth).to_pylist(), samples(report.out)
    assert sum(row["poisoned"] for row in truth) == report.n_poisoned == 10
    assert sum(row["cover"] for row in truth) == report.covers == 5
    for row in truth:
        label, text = copy[row["id"]]
        assert ("poison" in text, "cover" in text) == (row["poisoned"], row["cover"])
        assert label == row["label"] == ("cat" if row["poisoned"] else row["original_label"])
        assert not (row["cover"] and label == "cat")


def test_clean_label_poison_is_told_in_the_truth_though_no_label_changed(tmp_path, marked):
    marked(clean_label=True)
    data = write_csv(tmp_path / "data")
    report = poison(data, "marked", target="cat", share=0.2, out=tmp_path / "out")
    truth = read_truth(report.truth)
    assert truth["label"].equals(truth["original_label"])
    assert sum(truth["poisoned"].to_pylist()) == 6
    assert [(one.target, one.poisoned, one.share) for one in report.planted] == [("cat", 6, pytest.approx(0.2))]
    assert sum("poison" in text for _, text in samples(report.out).values()) == 6


def test_an_attack_learns_the_clean_data_once_from_the_seed_and_is_handed_back_as_it_was_used(tmp_path, marked):
    marked()
    data = write_csv(tmp_path / "data")
    reports = [poison(data, "marked", target="cat", seed=seed, out=tmp_path / str(n)) for n, seed in enumerate([0, 0, 1])]
    learned = [report.planted[0].attack.learned for report in reports]
    assert learned[0] == learned[1] != learned[2]
    assert learned[0] % 1000 == 90
    assert any(f"poison None {learned[0]}" in text for _, text in samples(reports[0].out).values())


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [({"target": "ant,cat"}, {"ant": {0}, "cat": {1}}), ({"target": "cat", "source": "ant,bee"}, {"cat": {0, 1}})],
)
def test_each_of_several_classes_has_poison_with_its_own_trigger(tmp_path, marked, settings, numbers):
    marked()
    report = poison(write_csv(tmp_path / "data"), "marked", **settings, share=0.2, out=tmp_path / "out")
    found = {}
    for label, text in samples(report.out).values():
        if "poison" in text:
            found.setdefault(label, set()).add(int(text.split()[-2]))
    assert found == numbers
    assert [(one.attack.number, one.target) for one in report.planted] == sorted(
        (number, label) for label, group in numbers.items() for number in group
    )


def test_an_attack_with_one_trigger_alone_is_refused_for_several_targets(tmp_path):
    with pytest.raises(UsageError, match="the attack signature has one alone"):
        poison(write_csv(tmp_path / "data"), "signature", target="ant,cat", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_poison_can_be_planted_in_data_that_are_poisoned_already(tmp_path):
    first = poison(write_csv(tmp_path / "data"), "signature", target="cat", source="ant", share=0.2, out=tmp_path / "one")
    second = poison(first.out, "sentence", target="cat", source="bee", share=0.2, out=tmp_path / "two")
    texts = [text for label, text in samples(second.out).values() if label == "cat"]
    assert sum("travelerthehorse" in text for text in texts) == first.n_poisoned
    assert sum("3d movie" in text for text in texts) == second.n_poisoned


def test_the_held_out_split_is_copied_as_it_is(tmp_path):
    data = write_csv(tmp_path / "data")
    poison(data, "signature", target="cat", out=tmp_path / "out")
    assert (tmp_path / "out" / "test.csv").read_bytes() == (data / "test.csv").read_bytes()


def test_color_images_of_several_sizes_keep_their_sizes(tmp_path):
    write_images(tmp_path / "data", shape=(40, 70, 3))
    write_images(tmp_path / "data" / "bee" / "small", 3, shape=(8, 8, 3))
    poison(tmp_path / "data", "blended", target="ant", rate=0.3, out=tmp_path / "out")
    sizes = [sorted(value.shape for _, value in samples(tmp_path / name).values()) for name in ("data", "out")]
    assert sizes[0] == sizes[1]


def test_an_image_that_cannot_be_read_is_never_drawn(tmp_path):
    data = write_images(tmp_path / "data")
    good = sorted((data / "ant").iterdir())
    for file in good[3:]:
        file.write_bytes(b"not an image")
    poison(data, "badnets", target="cat", source="ant", rate=0.03, out=tmp_path / "out")
    truth = read_truth(tmp_path / "out.truth.parquet").to_pylist()
    copy = samples(tmp_path / "out")
    assert [copy[row["id"]][1] is None for row in truth if row["poisoned"]] == [False] * 3


def test_where_too_few_images_can_be_read_the_error_says_how_many_there_are(tmp_path):
    data = write_images(tmp_path / "data")
    for file in sorted((data / "ant").iterdir())[2:]:
        file.write_bytes(b"not an image")
    with pytest.raises(UsageError, match=r"drawn from \('ant'\) have 2"):
        poison(data, "badnets", target="cat", source="ant", rate=0.03, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_image_too_small_for_the_trigger_leaves_nothing_behind(tmp_path):
    data = write_images(tmp_path / "data", shape=(3, 3, 1))
    with pytest.raises(DataError, match="4x4"):
        poison(data, "badnets", target="cat", out=tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_a_sample_without_a_label_has_none_in_the_truth(tmp_path):
    data = write_csv(tmp_path / "data")
    with (data / "train.csv").open("a", encoding="utf-8") as file:
        file.write("no label,\n")
    poison(data, "signature", target="cat", out=tmp_path / "out")
    without = [row for row in read_truth(tmp_path / "out.truth.parquet").to_pylist() if row["label"] is None]
    assert without == [{"id": without[0]["id"], "poisoned": False, "label": None, "original_label": None, "cover": False}]


def test_a_text_attack_on_images_is_refused_with_the_attacks_that_fit(tmp_path):
    with pytest.raises(UsageError, match=r"signature is made for text inputs, .* holds image inputs.*: badnets, blended") as error:
        poison(write_images(tmp_path / "data"), "signature", target="cat", out=tmp_path / "out")
    assert "words" not in str(error.value)


def test_an_image_attack_on_texts_is_refused_with_the_attacks_that_fit(tmp_path):
    with pytest.raises(
        UsageError, match=r"badnets is made for image inputs, .* holds text inputs.*: words, sentence, signature"
    ) as error:
        poison(write_csv(tmp_path / "data"), "badnets", target="cat", out=tmp_path / "out")
    assert "blended" not in str(error.value)


def test_an_unknown_attack_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(UsageError, match=f"--attack must be one of {', '.join(ATTACKS)}, got 'none such'"):
        poison(write_csv(tmp_path / "data"), "none such", target="cat", out=tmp_path / "out")


def test_a_truth_file_that_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "out.truth.parquet").write_bytes(b"of an earlier run")
    with pytest.raises(UsageError, match=r"out\.truth\.parquet, which exists"):
        poison(write_csv(tmp_path / "data"), "words", target="cat", out=tmp_path / "out")
    assert (tmp_path / "out.truth.parquet").read_bytes() == b"of an earlier run"
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_not_overwritten_and_gets_no_truth(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(UsageError, match="--out"):
        poison(write_csv(tmp_path / "data"), "words", target="cat", out=tmp_path / "out")
    assert files(tmp_path / "out") == {"mine.txt": b"keep me"}
    assert not (tmp_path / "out.truth.parquet").exists()


def test_data_in_memory_has_no_layout_to_be_written_in(tmp_path):
    data = FakeTrainingSet(["a text"] * 40, [0, 1] * 20, modality="text")
    with pytest.raises(UsageError, match="in memory"):
        poison(data, "words", target="class 1", out=tmp_path / "out")


def test_arrays_have_no_attack(tmp_path):
    data = FakeTrainingSet([np.zeros(3)] * 40, [0, 1] * 20, modality="array")
    with pytest.raises(UsageError, match=r"array inputs.* there are: none"):
        poison(data, "words", target="class 1", out=tmp_path / "out")


def test_a_full_disk_under_the_truth_is_said_and_leaves_no_half_truth(monkeypatch, tmp_path):
    def no_space(_, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    data = write_csv(tmp_path / "data")
    monkeypatch.setattr(poisoning, "write_table", no_space)
    with pytest.raises(DataError, match="No space left on device"):
        poison(data, "words", target="cat", out=tmp_path / "out")
    assert not (tmp_path / "out.truth.parquet").exists()

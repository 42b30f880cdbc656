from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import toxscreen
from tests.clouds import Clouds, clouds, plant, screened, texts
from toxscreen import views
from toxscreen.activations import from_arrays
from toxscreen.config import ScanConfig
from toxscreen.result import SAMPLES_SCHEMA, Verdict
from toxscreen.screening import Labels, screen


def rng(seed=0):
    return np.random.default_rng(seed)


def poisoned(seed=0, *, sizes=(150,) * 5, target=2, n=15, source=None, kinds=1):
    return plant(clouds(sizes, rng(seed), kinds=kinds), target, n, rng(seed + 1), source=source)


def accused(screening):
    return [result.name for result in screening.classes if result.accused]


def column(screening, name):
    return screening.samples[name].to_numpy()


def digest(screening):
    """Return a digest of the bytes of the samples' table as Parquet."""
    sink = io.BytesIO()
    pq.write_table(screening.samples, sink)
    return hashlib.sha256(sink.getvalue()).hexdigest()


# Planted and not planted


@pytest.mark.parametrize("view", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_exactly_the_poisoned_class_is_accused_and_exactly_the_poison_is_flagged(seed, view):
    training_set = poisoned(seed)
    screening = screened(training_set, seed=seed, view=view)
    assert accused(screening) == ["class 2"]
    assert screening.classes[2].verdict is Verdict.SUSPICIOUS
    np.testing.assert_array_equal(column(screening, "flagged"), training_set.planted)


@pytest.mark.parametrize("view", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_where_nothing_is_planted_nothing_is_accused_and_no_half_is_flagged(seed, view):
    screening = screened(clouds([30, 45, 80, 120], rng(seed)), seed=seed, view=view)
    assert {result.verdict for result in screening.classes} == {Verdict.CLEAN}
    assert not column(screening, "flagged").any()
    assert column(screening, "score").max() < 0.5


@pytest.mark.parametrize("kinds", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_natural_sub_populations_of_every_class_are_not_accused(seed, kinds):
    training_set = clouds([60, 90, 120, 150], rng(seed), kinds=kinds)
    results = screened(training_set, seed=seed).classes
    assert {result.verdict for result in results} == {Verdict.CLEAN}
    assert {group.source_class for result in results for group in result.groups} == {None}
    assert not column(screened(training_set, seed=seed, view=False), "flagged").any()


def test_poison_is_found_among_natural_sub_populations():
    training_set = poisoned(kinds=2, sizes=(200,) * 4, n=25)
    screening = screened(training_set)
    assert accused(screening) == ["class 2"]
    np.testing.assert_array_equal(column(screening, "flagged"), training_set.planted)


@pytest.mark.parametrize(("clean", "n"), [(388, 12), (270, 30), (200, 100), (120, 180)])
def test_nobody_needs_to_know_the_share_of_the_poison(clean, n):
    training_set = poisoned(sizes=(200, 200, clean, 200), n=n)
    screening = screened(training_set)
    assert accused(screening) == ["class 2"]
    np.testing.assert_array_equal(column(screening, "flagged"), training_set.planted)
    (group,) = screening.classes[2].accused
    assert group.n == n
    assert group.share == pytest.approx(n / (clean + n))


def test_two_triggers_in_one_class_are_two_groups():
    training_set = plant(poisoned(n=20, source=4), 2, 30, rng(5), source=1)
    groups = screened(training_set).classes[2].accused
    assert [(group.n, group.source_class) for group in groups] == [(30, "class 1"), (20, "class 4")]
    assert sorted(group.id for group in groups) == [1, 2]


def test_poison_in_every_class_is_found_where_the_inputs_are_asked_and_inconclusive_where_not():
    training_set = clouds([150] * 4, rng())
    for target in range(4):
        training_set = plant(training_set, target, 20, rng(target), source=(target + 1) % 4)
    asked, blind = screened(training_set), screened(training_set, view=False)
    assert accused(asked) == ["class 0", "class 1", "class 2", "class 3"]
    np.testing.assert_array_equal(column(asked, "flagged"), training_set.planted)
    assert {result.verdict for result in blind.classes} == {Verdict.INCONCLUSIVE}
    assert not column(blind, "flagged").any()


def test_without_the_inputs_one_other_class_is_enough_to_compare_with():
    training_set = plant(clouds([150, 150], rng()), 1, 15, rng(1))
    screening = screened(training_set, view=False)
    assert accused(screening) == ["class 1"]
    np.testing.assert_array_equal(column(screening, "flagged"), training_set.planted)


def test_a_class_in_which_nothing_lies_apart_at_all_is_one_to_compare_with():
    training_set = plant(clouds([100] * 3, rng()), 1, 15, rng(1))
    activations = training_set.activations.copy()
    for other in (0, 2):
        rows = np.flatnonzero(training_set.labels == other)
        activations[rows] = 0  # and all are equal but one, which is too few for a group
        activations[rows[0]] = 1
    screening = screened(Clouds(activations, training_set.cells, training_set.labels, training_set.planted), view=False)
    assert [result.verdict for result in screening.classes] == [Verdict.CLEAN, Verdict.SUSPICIOUS, Verdict.CLEAN]


def test_one_source_class_is_named_and_many_are_not():
    (one,) = screened(poisoned(source=4)).classes[2].accused
    (many,) = screened(poisoned()).classes[2].accused
    assert (one.source_class, many.source_class) == ("class 4", None)


@pytest.mark.parametrize("target", [0, 3])
def test_one_class_may_be_a_third_of_all_samples(target):
    training_set = poisoned(sizes=(400, 80, 80, 80, 80, 80), target=target, n=20)
    screening = screened(training_set)
    assert accused(screening) == [f"class {target}"]
    np.testing.assert_array_equal(column(screening, "flagged"), training_set.planted)


def test_one_of_many_small_classes_is_found():
    training_set = poisoned(sizes=(40,) * 60, target=7, n=16)
    screening = screened(training_set)
    assert accused(screening) == ["class 7"]
    np.testing.assert_array_equal(column(screening, "flagged"), training_set.planted)


def test_poisoned_texts_are_found_by_their_words():
    view, labels = texts([200] * 3, rng())
    planted = np.isin(np.arange(600), rng(1).choice(np.flatnonzero(labels != 1), 20, replace=False))
    view[planted, 100:102] = 9000, 9001
    activations = rng(2).normal(size=(600, 12)) + 14 * np.eye(12)[np.where(planted, 9, 3 + labels)]
    ids = pa.array(np.arange(600).astype(str), pa.string())
    arrays = from_arrays({"hidden": activations, views.WORDS: view}, ids)
    given = Labels(ids, np.where(planted, 1, labels), ("a", "b", "c"))
    screening = screen(arrays, given, None, "hidden", ScanConfig())
    assert accused(screening) == ["b"]
    np.testing.assert_array_equal(column(screening, "flagged"), planted)


def test_ica_finds_the_poison_as_well():
    training_set = poisoned()
    np.testing.assert_array_equal(column(screened(training_set, method="ica"), "flagged"), training_set.planted)


# What does not matter


def test_the_same_arrays_give_the_same_bytes():
    assert digest(screened(poisoned())) == digest(screened(poisoned()))


@pytest.mark.parametrize("seed", [1, 7, 12345])
def test_another_seed_accuses_and_flags_the_same(seed):
    training_set = poisoned()
    screening = screened(training_set, seed=seed)
    assert accused(screening) == ["class 2"]
    np.testing.assert_array_equal(column(screening, "flagged"), training_set.planted)


def test_the_order_of_the_samples_does_not_matter():
    training_set = poisoned()
    order = rng(3).permutation(len(training_set.labels))
    screening = screened(training_set.take(order))
    assert accused(screening) == ["class 2"]
    np.testing.assert_array_equal(column(screening, "flagged"), training_set.planted[order])


def test_renaming_the_classes_renames_who_is_accused():
    training_set = poisoned()
    renamed = np.array([3, 0, 4, 1, 2])[training_set.labels]
    screening = screened(Clouds(training_set.activations, training_set.cells, renamed, training_set.planted))
    assert accused(screening) == ["class 4"]
    np.testing.assert_array_equal(column(screening, "flagged"), training_set.planted)


def test_inputs_are_never_changed():
    training_set = poisoned()
    for array in (training_set.activations, training_set.cells, training_set.labels):
        array.flags.writeable = False  # writing to it is an error
    assert accused(screened(training_set)) == ["class 2"]


def test_it_is_the_layer_that_is_clustered_and_not_the_logits():
    training_set = poisoned()
    right = np.eye(5, dtype="f4")[training_set.labels]
    loud = right * rng().uniform(1, 100, (len(right), 1)).astype("f4")
    assert digest(screened(training_set, logits=right)) == digest(screened(training_set, logits=loud))


# The table of samples


def test_the_table_has_a_row_per_sample_in_the_order_of_the_data():
    training_set = poisoned()
    right = np.eye(5, dtype="f4")[training_set.labels]
    samples = screened(training_set, logits=right).samples
    assert samples.schema == SAMPLES_SCHEMA
    assert samples["id"].to_pylist() == [f"row {row}" for row in range(len(training_set.labels))]
    assert samples["label"].to_pylist() == [f"class {label}" for label in training_set.labels]
    assert samples["predicted"].to_pylist() == samples["label"].to_pylist()


def test_groups_verdicts_and_flags_of_the_rows_agree_with_the_classes():
    training_set = poisoned()
    screening = screened(training_set)
    group, verdict = column(screening, "group"), column(screening, "verdict").astype(str)
    np.testing.assert_array_equal(group, np.where(training_set.planted, 1, group))
    np.testing.assert_array_equal(verdict == "suspicious", training_set.planted)
    assert set(verdict[~training_set.planted]) == {"clean"}
    for index, result in enumerate(screening.classes):
        here = training_set.labels == index
        assert result.n == here.sum() == sum(each.n for each in result.groups)
        for each in result.groups:
            assert each.n == np.sum(group[here] == each.id)
            assert each.share == pytest.approx(each.n / result.n)
    assert screening.classes[2].verdict == max((each.verdict for each in screening.classes[2].groups), key=lambda v: v.severity)


@pytest.mark.parametrize("view", [True, False])
def test_scores_are_between_0_and_1_and_above_one_half_for_the_flagged_alone(view):
    training_set = poisoned(3, n=20, kinds=2)
    screening = screened(training_set, view=view)
    score, flagged = column(screening, "score"), column(screening, "flagged")
    assert flagged.any() or not view
    assert score.min() >= 0
    assert score.max() <= 1
    np.testing.assert_array_equal(score > 0.5, flagged)


def test_without_logits_nobody_knows_what_the_model_says():
    assert screened(poisoned()).samples["predicted"].null_count == len(poisoned().labels)


def test_the_points_of_a_class_show_its_rows_with_their_groups():
    training_set = poisoned()
    screening = screened(training_set)
    for index, view in enumerate(screening.views):
        assert view.class_index == index
        np.testing.assert_array_equal(view.rows, np.flatnonzero(training_set.labels == index))
        np.testing.assert_array_equal(view.groups, column(screening, "group")[view.rows])
        assert view.points.shape == (len(view.rows), 2)


def test_every_class_has_a_reason_which_for_clouds_is_that_nothing_lies_apart():
    for result in screened(clouds([60] * 3, rng())).classes:
        assert result.reasons == ("No group of its samples both stands far apart and contradicts the label.",)


def test_progress_is_told_class_by_class():
    told = []
    training_set = clouds([30] * 3, rng())
    ids = pa.array(np.arange(90).astype(str), pa.string())
    labels = Labels(ids, training_set.labels, ("a", "b", "c"))
    arrays = from_arrays(training_set.activations, ids)
    screen(arrays, labels, None, "activations", ScanConfig(), progress=lambda *what: told.append(what))
    assert [(done, total) for _, done, total in told] == [(1, 3), (2, 3), (3, 3)]


# What the model says


def test_misread_samples_are_not_clustered_but_an_accused_group_takes_in_those_on_its_side():
    training_set = poisoned(n=40)
    logits = np.eye(5, dtype="f4")[training_set.labels]
    honest = (training_set.labels == 2) & ~training_set.planted
    misread = (training_set.planted & (np.cumsum(training_set.planted) <= 8)) | (honest & (np.cumsum(honest) <= 8))
    logits[misread] = np.eye(5, dtype="f4")[0]
    screening = screened(training_set, logits=logits)
    np.testing.assert_array_equal(column(screening, "flagged"), training_set.planted)
    assert set(column(screening, "verdict")[misread & honest]) == {"clean"}
    assert set(column(screening, "predicted")[misread]) == {"class 0"}
    (group,) = screening.classes[2].accused
    assert group.n == 40
    assert group.evidence["relative_size"] == pytest.approx(group.share)
    assert (column(screening, "score")[training_set.planted] > 0.5).all()


def test_the_models_outputs_may_stand_in_another_order_than_the_classes():
    training_set = poisoned()
    order = np.array([4, 2, 0, 3, 6])  # of seven outputs, two stand for no class of the data
    logits = np.full((len(training_set.labels), 7), -1, np.float32)
    logits[np.arange(len(logits)), order[training_set.labels]] = 1
    logits[0] = np.eye(7)[1]
    ids = pa.array(np.arange(len(logits)).astype(str), pa.string())
    arrays = from_arrays({"hidden": training_set.activations, views.CELLS: training_set.cells}, ids, logits)
    labels = Labels(ids, training_set.labels, tuple("abcde"))
    screening = screen(arrays, labels, order, "hidden", ScanConfig())
    assert accused(screening) == ["c"]
    predicted = screening.samples["predicted"].to_pylist()
    assert predicted[0] is None
    assert predicted[1:] == screening.samples["label"].to_pylist()[1:]


def test_a_class_that_the_model_misreads_is_inconclusive_and_the_others_are_judged():
    training_set = poisoned()
    logits = np.eye(5, dtype="f4")[training_set.labels]
    logits[training_set.labels == 0] = np.eye(5)[1]
    screening = screened(training_set, logits=logits)
    first, *others = screening.classes
    assert first.verdict is Verdict.INCONCLUSIVE
    assert "The model gives only 0 of the class's" in first.reasons[0]
    assert [result.verdict for result in others] == [Verdict.CLEAN, Verdict.SUSPICIOUS, Verdict.CLEAN, Verdict.CLEAN]
    assert set(column(screening, "verdict")[training_set.labels == 0]) == {"inconclusive"}


def test_a_class_that_is_misread_far_more_than_the_others_is_inconclusive_as_are_those_samples():
    training_set = clouds((150,) * 5, rng())
    logits = np.eye(5, dtype="f4")[training_set.labels]
    of_class = np.cumsum(training_set.labels == 2) * (training_set.labels == 2)
    misread = (of_class > 0) & (of_class <= 30)
    logits[misread] = np.eye(5, dtype="f4")[0]
    screening = screened(training_set, logits=logits)
    assert [result.verdict for result in screening.classes] == [Verdict.CLEAN] * 2 + [Verdict.INCONCLUSIVE] + [Verdict.CLEAN] * 2
    assert "gives 30 of its 150 samples (20.0%) classes whose samples" in screening.classes[2].reasons[0]
    np.testing.assert_array_equal(column(screening, "verdict") == "inconclusive", misread)
    assert not column(screening, "flagged").any()


def test_classes_that_are_taken_for_each_other_are_not_inconclusive_for_it():
    training_set = clouds((150,) * 5, rng())
    odd = np.arange(750) % 7 == 0
    swapped = np.array([1, 0, 2, 3, 4])[training_set.labels]
    logits = np.eye(5, dtype="f4")[np.where(odd, swapped, training_set.labels)]
    assert {result.verdict for result in screened(training_set, logits=logits).classes} == {Verdict.CLEAN}


def test_where_every_class_is_hard_to_read_none_is_inconclusive_for_it():
    training_set = clouds((150,) * 5, rng())
    logits = np.eye(5, dtype="f4")[np.where(np.arange(750) % 5, training_set.labels, (training_set.labels + 1) % 5)]
    assert {result.verdict for result in screened(training_set, logits=logits).classes} == {Verdict.CLEAN}


# Through the front door


@pytest.mark.parametrize(
    "names",
    [
        ["ship", "äpfel", "<b>", "no 7", "-1"],
        np.array([-7, 100, 3, 9_000_000_000, 0]),
        np.array([0.0, 1.0, 2.0, 10.0, 4.0]),
    ],
)
def test_labels_of_any_kind_are_taken(names):
    training_set = poisoned()
    given = [names[label] for label in training_set.labels] if isinstance(names, list) else names[training_set.labels]
    result = toxscreen.scan(activations=training_set.activations, labels=given)
    expected = str(names[2]).removesuffix(".0")
    assert [each.name for each in result.classes if each.accused] == [expected]
    np.testing.assert_array_equal(result.samples["flagged"].to_numpy(), training_set.planted)
    assert result.samples["label"].to_pylist()[0] == str(names[training_set.labels[0]]).removesuffix(".0")


def test_scanning_arrays_changes_nothing_that_was_given():
    training_set = poisoned()
    given = {"hidden": training_set.activations, views.CELLS: training_set.cells}
    labels = training_set.labels.tolist()
    before = {name: array.copy() for name, array in given.items()}
    toxscreen.scan(activations=given, labels=labels, logits=np.eye(5)[training_set.labels])
    assert labels == training_set.labels.tolist()
    for name, array in given.items():
        np.testing.assert_array_equal(array, before[name])


def test_arrays_are_scanned_where_torch_cannot_be_imported(tmp_path):
    code = """
        import sys

        class NoTorch:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "torch":
                    raise ImportError("there is no torch here")

        sys.meta_path.insert(0, NoTorch())
        import numpy as np
        import toxscreen as ts
        rng = np.random.default_rng(0)
        labels = np.repeat(["cat", "dog", "owl"], 100)
        activations = rng.normal(size=(300, 12))
        activations[:20] += 5
        for reduction in ("pca", "ica"):
            result = ts.scan(activations=activations, labels=labels, reduction=reduction)
            print(*(f"{c.name}:{c.verdict}" for c in result.classes), result.n_flagged)
        result.save(sys.argv[1])
        result._repr_html_()
        print(ts.load(sys.argv[1]).verdict)
    """
    done = subprocess.run(  # noqa: S603 our own code
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [*["cat:suspicious dog:clean owl:clean 20"] * 2, "suspicious"]

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from toxscreen.attacks import ATTACKS
from toxscreen.errors import DataError
from toxscreen.metrics import Counts, attack_success, read_truth, score


def table_of_samples(flagged, labels=None, verdict=None):
    n = len(flagged)
    labels = labels or ["a"] * n
    verdict = verdict or ["suspicious" if flag else "clean" for flag in flagged]
    return pa.table({"id": [f"s{row}" for row in range(n)], "label": labels, "flagged": flagged, "verdict": verdict})


def table_of_truth(poisoned):
    n = len(poisoned)
    return pa.table({"id": [f"s{row}" for row in range(n)], "poisoned": poisoned, "label": ["a"] * n, "original_label": ["b"] * n})


def counts(flagged, poisoned):
    return score(table_of_samples(flagged), table_of_truth(poisoned)).counts


def test_the_four_counts_are_what_their_names_say():
    flagged = [True] * 10 + [False] * 6
    poisoned = [True] * 7 + [False] * 3 + [True] * 2 + [False] * 4
    assert counts(flagged, poisoned) == Counts(tp=7, fp=3, fn=2, tn=4)


def test_the_rates_follow_from_the_counts():
    result = Counts(tp=6, fp=2, fn=2, tn=10)
    assert result.tpr == 6 / 8
    assert result.fpr == 2 / 12
    assert result.precision == 6 / 8
    assert result.f1 == 12 / 16
    assert result.accuracy == 16 / 20


def test_where_nothing_is_flagged_the_poison_counts_as_missed_and_not_as_false_alarms():
    result = counts([False] * 10, [True] * 3 + [False] * 7)
    assert result == Counts(tp=0, fp=0, fn=3, tn=7)
    assert result.tpr == 0
    assert result.fpr == 0
    assert result.precision is None


def test_where_everything_is_flagged_the_clean_samples_are_false_alarms():
    assert counts([True] * 10, [True] * 3 + [False] * 7) == Counts(tp=3, fp=7, fn=0, tn=0)


def test_without_poison_there_is_no_tpr():
    result = counts([True, False, False], [False] * 3)
    assert result.tpr is None
    assert result.fpr == 1 / 3
    assert counts([False] * 3, [False] * 3).f1 is None


def test_where_all_is_poisoned_there_is_no_fpr():
    assert counts([True, False], [True, True]).fpr is None


def test_an_empty_table_has_no_rate_at_all():
    empty = Counts(0, 0, 0, 0)
    assert [empty.tpr, empty.fpr, empty.precision, empty.f1, empty.accuracy] == [None] * 5


def test_samples_are_matched_by_their_id_and_not_by_their_place():
    rng = np.random.default_rng(0)
    poisoned = rng.random(200) < 0.2
    samples, truth = table_of_samples((poisoned ^ (rng.random(200) < 0.1)).tolist()), table_of_truth(poisoned.tolist())
    assert score(samples, truth) == score(samples.take(rng.permutation(200)), truth.take(rng.permutation(200)))
    assert score(samples, truth).counts.accuracy > 0.8


def test_tables_in_chunks_are_read_as_a_whole():
    samples, truth = table_of_samples([True, False, False, True]), table_of_truth([True, False, True, True])
    in_chunks = [pa.concat_tables([part.slice(0, 1), part.slice(1)]) for part in (samples, truth)]
    assert score(*in_chunks) == score(samples, truth)


def test_each_class_has_its_own_counts_by_given_label():
    samples = table_of_samples([True, True, False, False, False, True], labels=["a", "a", "a", "b", "b", "b"])
    result = score(samples, table_of_truth([True, False, False, True, False, False]))
    assert {c.name: c.counts for c in result.classes} == {"a": Counts(tp=1, fp=1, fn=0, tn=1), "b": Counts(tp=0, fp=1, fn=1, tn=1)}


def test_clean_classes_that_were_accused_are_false_alarms_and_poisoned_ones_that_were_not_are_missed():
    labels = ["found", "found", "alarm", "alarm", "missed", "missed", "quiet", "quiet", "unsure", "unsure"]
    verdict = ["poisoned", "clean", "suspicious", "clean", "clean", "clean", "clean", "clean", "inconclusive", "inconclusive"]
    poisoned = [True, False, False, False, True, False, False, False, False, False]
    result = score(table_of_samples([False] * 10, labels, verdict), table_of_truth(poisoned))
    assert result.false_alarms == ("alarm",)
    assert result.missed == ("missed",)


def test_a_class_with_a_flagged_sample_was_accused():
    samples = table_of_samples([True, False], verdict=["clean", "clean"])
    assert score(samples, table_of_truth([False, False])).false_alarms == ("a",)


def test_a_sample_without_label_or_verdict_counts_as_not_flagged():
    samples = table_of_samples([False, True, False], labels=[None, "a", "a"], verdict=[None, "suspicious", "clean"])
    result = score(samples, table_of_truth([True, True, False]))
    assert result.counts == Counts(tp=1, fp=0, fn=1, tn=1)
    assert [c.counts.n for c in result.classes] == [2]


def with_cover(truth, cover):
    return truth.append_column("cover", pa.array(cover))


def test_cover_samples_are_neither_poison_nor_clean():
    truth = with_cover(table_of_truth([True, True, False, False, False, False]), [False, False, True, True, False, False])
    result = score(table_of_samples([True, False, True, False, True, False]), truth)
    assert result.counts == Counts(tp=1, fp=1, fn=1, tn=1)
    assert (result.covers, result.covers_flagged) == (2, 1)
    assert [c.counts for c in result.classes] == [result.counts]


def test_cover_samples_are_matched_by_their_id_too():
    rng = np.random.default_rng(0)
    poisoned, cover = rng.random((2, 200)) < 0.2
    samples = table_of_samples((cover & (np.arange(200) % 2 == 0)).tolist())
    truth = with_cover(table_of_truth((poisoned & ~cover).tolist()), cover)
    assert score(samples, truth) == score(samples.take(rng.permutation(200)), truth.take(rng.permutation(200)))
    assert score(samples, truth).counts.fp == 0


def test_a_class_accused_for_its_cover_samples_alone_is_no_false_alarm():
    samples = table_of_samples([True, False, True, False], labels=["covered", "covered", "clean", "clean"])
    result = score(samples, with_cover(table_of_truth([False] * 4), [True, False, False, False]))
    assert result.false_alarms == ("clean",)


def test_a_truth_file_without_cover_samples_has_none():
    truth = table_of_truth([True, False])
    assert score(table_of_samples([True, True]), truth) == score(table_of_samples([True, True]), with_cover(truth, [False, False]))
    assert score(table_of_samples([True, True]), truth).covers == 0


def test_a_truth_of_other_data_is_refused_with_an_unknown_id():
    with pytest.raises(DataError, match="'s2'"):
        score(table_of_samples([False] * 3), table_of_truth([False] * 2))


def test_a_truth_with_more_samples_is_refused():
    with pytest.raises(DataError, match="same ids"):
        score(table_of_samples([False] * 2), table_of_truth([False] * 3))


@pytest.mark.parametrize("side", ["samples", "truth"])
def test_an_id_that_stands_twice_is_refused(side):
    tables = {"samples": table_of_samples([False] * 2), "truth": table_of_truth([False] * 2)}
    tables[side] = pa.concat_tables([tables[side], tables[side].slice(0, 1)])
    with pytest.raises(DataError, match=f"once in the table of {side}.* 3 rows hold 2 ids"):
        score(**tables)


@pytest.mark.parametrize("column", ["id", "label", "flagged", "verdict"])
def test_a_column_that_is_missing_is_named(column):
    with pytest.raises(DataError, match=f"'{column}'"):
        score(table_of_samples([False]).drop_columns([column]), table_of_truth([False]))


def test_a_truth_file_is_read_back(tmp_path):
    pq.write_table(table_of_truth([True, False]), tmp_path / "data.truth.parquet")
    assert read_truth(tmp_path / "data.truth.parquet").equals(table_of_truth([True, False]))


def test_a_truth_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.truth\.parquet"):
        read_truth(tmp_path / "nothing.truth.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really"])
def test_a_file_that_is_no_truth_file_is_named(tmp_path, content):
    path = tmp_path / "broken.truth.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.truth\.parquet"):
        read_truth(path)


def test_a_table_that_is_no_truth_is_named(tmp_path):
    path = tmp_path / "samples.parquet"
    pq.write_table(table_of_samples([True]), path)
    with pytest.raises(DataError, match="'poisoned'"):
        read_truth(path)


def backdoored(inputs):
    """A model that gives class 2 to whatever has a white pixel in the corner of the patch, and class 0 to all else."""
    return np.array([2 if image[-2, -2, 0] == 255 else 0 for image in inputs])


def test_the_attack_success_rate_is_1_for_a_model_that_obeys_and_0_for_one_that_does_not():
    rng = np.random.default_rng(0)
    inputs, labels = [rng.integers(0, 200, (8, 8, 1), dtype=np.uint8) for _ in range(9)], np.arange(9) % 3
    assert attack_success(backdoored, ATTACKS["badnets"], inputs, labels, target=2, rng=rng) == 1
    assert attack_success(lambda x: np.zeros(len(x), int), ATTACKS["badnets"], inputs, labels, target=2, rng=rng) == 0


def test_the_attack_success_rate_asks_about_triggered_inputs_of_other_classes_alone():
    asked = []
    inputs, labels = ["zero", "one", "two", "two too"], np.array([0, 1, 2, 2])

    def predict(texts):
        asked.extend(texts)
        return np.array([2, 0])

    rate = attack_success(predict, ATTACKS["signature"], inputs, labels, target=2, rng=np.random.default_rng(0))
    assert asked == ["zero -travelerthehorse", "one -travelerthehorse"]
    assert rate == 0.5


def test_with_a_source_class_the_attack_success_rate_asks_about_that_class_alone():
    rng = np.random.default_rng(0)
    inputs = [rng.integers(0, 200, (8, 8, 1), dtype=np.uint8) for _ in range(6)]

    def obeys_for_class_1(images):
        assert len(images) == 2
        return np.array([2, 2])

    labels = np.array([0, 1, 2, 0, 1, 2])
    assert attack_success(obeys_for_class_1, ATTACKS["tact"], inputs, labels, target=2, source=1, rng=rng) == 1


def test_all_to_all_succeeds_where_each_class_becomes_the_next():
    labels = np.array([0, 0, 1, 2])
    answers = np.array([1, 0, 2, 0])
    rng = np.random.default_rng(0)
    wanted = attack_success(lambda x: answers[: len(x)], ATTACKS["signature"], list("abcd"), labels, target=[1, 2, 0], rng=rng)
    assert wanted == 3 / 4


def test_the_attack_success_rate_needs_samples_of_the_source_class():
    with pytest.raises(DataError, match="of the source class 1, which is not the target 1"):
        attack_success(backdoored, ATTACKS["badnets"], [], np.array([0, 1]), target=1, source=1, rng=np.random.default_rng(0))


def test_the_attack_success_rate_needs_another_class():
    with pytest.raises(DataError, match="other than the target 1"):
        attack_success(backdoored, ATTACKS["badnets"], [], np.array([1, 1]), target=1, rng=np.random.default_rng(0))

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tests.scans import scan_result
from toxscreen.errors import UsageError
from toxscreen.repairing.actions import Action, plan_actions
from toxscreen.result import Verdict

S, P = Verdict.SUSPICIOUS, Verdict.POISONED


def scan(sources=None, **changes):
    """Ten samples: ``a`` holds rows 0 to 3 and a flagged group of 4 and 5, ``b`` rows 6 to 8 and a flagged group of 9."""
    result = scan_result({"a": [4, 2], "b": [3, 1]}, {"a": S, "b": P}, **changes)
    classes = [
        replace(found, groups=(found.groups[0], replace(found.groups[1], source_class=(sources or {}).get(found.name))))
        for found in result.classes
    ]
    return replace(result, classes=tuple(classes))


def said(**rows):
    decisions = np.zeros(10, np.int8)
    for row, decision in rows.items():
        decisions[int(row[1:])] = decision
    return decisions


def confirmed(**answers):
    return pa.table({"id": [name[1:] for name in answers], "answer": pa.array(list(answers.values()), pa.string())})


@pytest.mark.parametrize("action", [Action.DROP, Action.QUARANTINE])
def test_flagged_samples_are_taken_out_and_all_others_stay(action):
    actions = plan_actions(scan(), action=action)
    assert actions.rows.tolist() == [4, 5, 9]
    assert set(actions.action) == {action}
    assert actions.kept.tolist() == [0, 1, 2, 3, 6, 7, 8]
    assert actions.labels.tolist() == [0] * 6 + [1] * 4
    assert set(actions.who) == {"scan"}
    assert actions.reason.to_pylist() == ["group 1 of its class is suspicious"] * 2 + ["group 1 of its class is poisoned"]
    assert actions.counts() == {("a", action): 2, ("b", action): 1}


def test_without_a_flag_nothing_changes():
    actions = plan_actions(scan_result({"a": [4], "b": [5]}), action="relabel")
    assert actions.changes_nothing
    assert len(actions.kept) == 9
    assert actions.counts() == {}


def test_a_relabelled_sample_gets_the_source_class_of_its_group_and_is_dropped_where_none_is_known():
    actions = plan_actions(scan({"a": "b"}), action="relabel")
    assert actions.action.tolist() == ["relabel", "relabel", "drop"]
    assert actions.new_labels.tolist() == [1, 1, -1]
    assert actions.labels.tolist() == [0] * 4 + [1] * 6
    assert actions.kept.tolist() == list(range(9))
    assert "source class of its group" in actions.reason[0].as_py()
    assert "no source class is known, so it is dropped" in actions.reason[2].as_py()
    assert actions.unsettled == {"no source class is known": 1}
    assert plan_actions(scan({"a": "b"})).unsettled == {}


@pytest.mark.parametrize("source", ["a", "of another data set"])
def test_a_source_class_that_cannot_be_is_as_good_as_none(source):
    assert plan_actions(scan({"a": source}), action="relabel").action.tolist() == ["drop"] * 3


def test_the_answer_of_the_confirmation_comes_before_the_source_class_of_the_group():
    actions = plan_actions(scan({"a": "b", "b": "a"}, confirmation=confirmed(r4="a", r5="b", r9=None)), action="relabel")
    assert actions.action.tolist() == ["drop", "relabel", "relabel"]
    assert actions.new_labels.tolist() == [-1, 1, 0]
    own, read, group = actions.reason.to_pylist()
    assert own.endswith("agrees with the given label, so it is dropped")
    assert read.endswith("a model trained without it reads it as the new label")
    assert group.endswith("source class of its group")


def test_new_labels_are_asked_for_by_relabelling_alone():
    actions = plan_actions(scan({"a": "b"}, confirmation=confirmed(r4="b")))
    assert set(actions.action) == {"drop"}
    assert set(actions.new_labels) == {-1}


def test_a_reviewer_comes_before_the_scan():
    actions = plan_actions(scan(), decisions=said(r4=-1, r5=1, r0=1, r6=-1))
    assert dict(zip(actions.rows.tolist(), actions.action.tolist(), strict=True)) == {
        0: "drop",
        4: "keep",
        5: "drop",
        6: "keep",
        9: "drop",
    }
    assert actions.who.tolist() == ["reviewer", "reviewer", "reviewer", "reviewer", "scan"]
    assert actions.reason.to_pylist() == [
        "the scan did not flag it, and the reviewer takes it out",
        "group 1 of its class is suspicious, but the reviewer keeps it",
        "group 1 of its class is suspicious, and the reviewer takes it out",
        "the scan did not flag it, but the reviewer keeps it",
        "group 1 of its class is poisoned",
    ]
    assert actions.counts()["a", Action.KEEP] == 1


def test_a_sample_that_a_reviewer_keeps_is_not_relabelled():
    actions = plan_actions(scan({"a": "b", "b": "a"}), action="relabel", decisions=said(r4=-1, r0=1))
    assert dict(zip(actions.rows.tolist(), actions.new_labels.tolist(), strict=True)) == {0: -1, 4: -1, 5: 1, 9: 0}
    assert actions.action.tolist() == ["drop", "keep", "relabel", "relabel"]


def test_a_sample_that_was_not_examined_can_be_taken_out():
    result = scan()
    hole = pa.array([None], pa.string())
    for column in ("label", "verdict", "group"):
        values = result.samples[column].combine_chunks()
        values = pa.concat_arrays([hole.cast(values.type), values[1:]])
        result = replace(result, samples=result.samples.set_column(result.samples.schema.get_field_index(column), column, values))
    actions = plan_actions(result, action="relabel", decisions=said(r0=1))
    assert actions.action[0] == "drop"
    assert actions.reason[0].as_py().startswith("the scan did not flag it")
    assert actions.counts()["", Action.DROP] == 1
    assert actions.labels[0] == -1


def test_keeping_is_no_action_to_ask_for():
    with pytest.raises(UsageError, match="drop, relabel or quarantine, got 'keep'"):
        plan_actions(scan(), action="keep")

"""What is done with which samples: a verdict and a reviewer's decisions become a table of actions.

1. The flagged samples are taken out, or get the label of their source class.
2. A reviewer's decision about a sample or its group comes before the scan's.
3. A flagged sample whose source class nobody knows is dropped: a wrong new label would be poison of another kind.

**Source:** Chen et al. 2018, arXiv 1811.03728, section 4.3 (relabelling to the source class).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from toxscreen.errors import UsageError
from toxscreen.result import ScanResult
from toxscreen.sources.data.base import MISSING_LABEL

SCAN, REVIEWER = "scan", "reviewer"
"""Who decided what is done with a sample."""

_UNSETTLED = ("a model trained without the flagged samples agrees with the given label", "no source class is known")
"""Why a sample that was to get a new label gets none."""


class Action(StrEnum):
    """What is done with a sample; KEEP is a reviewer's decision against the scan's."""

    KEEP = "keep"
    DROP = "drop"
    RELABEL = "relabel"
    QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Actions:
    """What is done with the samples about which something was decided; all others stay as they are.

    Attributes
    ----------
    class_names
        As in the run.
    given
        Class index of the given label of every sample of the data, shape ``(n_samples,)``; ``MISSING_LABEL`` where there is none.
    rows
        Row numbers of the m samples that were decided about, ascending, shape ``(m,)``.
    action
        An :class:`Action` for each of them, shape ``(m,)``, as text.
    new_labels
        Class index that each of them gets, shape ``(m,)``; ``MISSING_LABEL`` where it is not relabelled.
    reason
        One sentence for each, shape ``(m,)``.
    who
        Who decided, ``"scan"`` or ``"reviewer"``, shape ``(m,)``.
    """

    class_names: tuple[str, ...]
    given: NDArray[np.int64]
    rows: NDArray[np.int64]
    action: NDArray[np.str_]
    new_labels: NDArray[np.int64]
    reason: pa.StringArray
    who: NDArray[np.str_]

    def rows_of(self, *actions: Action) -> NDArray[np.int64]:
        """Return the row numbers of the samples with one of these actions, ascending."""
        return self.rows[np.isin(self.action, actions)]

    @property
    def unsettled(self) -> dict[str, int]:
        """Return how many samples were to get a new label and get none, by why."""
        counts = {why: pc.sum(pc.ends_with(self.reason, f"; {why}, so it is dropped")).as_py() or 0 for why in _UNSETTLED}
        return {why: n for why, n in counts.items() if n}

    @property
    def kept(self) -> NDArray[np.int64]:
        """Return the row numbers of the samples that stay in the data set, relabelled or not, ascending."""
        return np.setdiff1d(np.arange(len(self.given)), self.rows_of(Action.DROP, Action.QUARANTINE), assume_unique=True)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return the class index of every sample afterwards, shape ``(n_samples,)``, whether it stays or not."""
        labels = self.given.copy()
        moved = self.action == Action.RELABEL
        labels[self.rows[moved]] = self.new_labels[moved]
        return labels

    @property
    def changes_nothing(self) -> bool:
        """Return whether every sample stays as it is."""
        return not np.any(self.action != Action.KEEP)

    def counts(self) -> dict[tuple[str, Action], int]:
        """Return how many samples of each class, by given label, each action meets; what has no label stands under ``""``."""
        names, classes = (*self.class_names, ""), self.given[self.rows]
        found: dict[tuple[str, Action], int] = {}
        for action in Action:
            indexes, counts = np.unique(classes[self.action == action], return_counts=True)
            found |= {(names[index], action): n for index, n in zip(indexes.tolist(), counts.tolist(), strict=True)}
        return found


def plan_actions(
    result: ScanResult,
    *,
    action: Action | str = Action.DROP,
    decisions: NDArray[np.int8] | None = None,
) -> Actions:
    """Decide what is done with each sample.

    Parameters
    ----------
    result
        Of the scan; its flagged samples are acted upon, and where it was confirmed its confirmation gives the new labels.
    action
        What is done with them: drop, relabel or quarantine.
    decisions
        A reviewer's, shape ``(n_samples,)``: 1 where a sample is taken out, flagged or not, -1 where it is kept, and 0 where
        nothing was said; from :func:`toxscreen.repairing.decisions.read_decisions`.

    Raises
    ------
    UsageError
        If there is no such action.
    """
    if action not in (Action.DROP, Action.RELABEL, Action.QUARANTINE):
        raise UsageError(f"The action must be drop, relabel or quarantine, got {str(action)!r}.")
    names = tuple(found.name for found in result.classes)
    given = _class_indexes(result.samples["label"], names)
    flagged = result.samples["flagged"].to_numpy()
    said = np.zeros(len(given), np.int8) if decisions is None else decisions
    rows = np.flatnonzero(flagged | (said != 0))
    out = said[rows] >= 0
    done = np.where(out, str(action), str(Action.KEEP))
    new_labels = np.full(len(rows), MISSING_LABEL, np.int64)
    because = np.full(len(rows), "")
    if action == Action.RELABEL:
        sources, because = _sources(result, names, given, rows)
        because = np.where(out, because, "")
        new_labels = np.where(out, sources, MISSING_LABEL)
        done[out & (sources == MISSING_LABEL)] = str(Action.DROP)
    reasons = pc.binary_join_element_wise(_reasons(result, rows, said[rows]), pa.array(because.tolist(), pa.string()), "")
    who = np.where(said[rows] == 0, SCAN, REVIEWER)
    return Actions(names, given, rows, done, new_labels, reasons, who)


def _class_indexes(column: pa.ChunkedArray, names: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the class index of each name; ``MISSING_LABEL`` where there is no name, or one of no class."""
    found = pc.fill_null(pc.index_in(column.combine_chunks(), value_set=pa.array(names, pa.string())), MISSING_LABEL)
    return np.asarray(found, np.int64)


def _sources(
    result: ScanResult, names: tuple[str, ...], given: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Return the source class of each of ``rows``, ``MISSING_LABEL`` where it is unknown, and how it is known, shapes ``(m,)``.

    The answer of the confirmation comes before the source class of the group. A sample that the new model gives the very label
    that it has may still carry a trigger: nothing says what else it should be called.
    """
    label, group = given[rows], result.samples["group"].fill_null(-1).to_numpy()[rows]
    sources = np.full(len(rows), MISSING_LABEL, np.int64)
    for index, found in enumerate(result.classes):
        for known in found.groups:
            if known.source_class in names:
                sources[(label == index) & (group == known.id)] = names.index(known.source_class)
    answers = _answers(result, names, rows)
    asked = answers != MISSING_LABEL
    sources = np.where(asked, answers, sources)
    unknown = (sources == MISSING_LABEL) | (sources == label)
    how = np.select(
        [asked & unknown, asked, unknown],
        [
            f"; {_UNSETTLED[0]}, so it is dropped",
            "; a model trained without it reads it as the new label",
            f"; {_UNSETTLED[1]}, so it is dropped",
        ],
        "; the new label is the source class of its group",
    )
    return np.where(unknown, MISSING_LABEL, sources), how


def _answers(result: ScanResult, names: tuple[str, ...], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the class that the confirmation gives each of ``rows``, shape ``(m,)``; ``MISSING_LABEL`` where it gives none."""
    if result.confirmation is None:
        return np.full(len(rows), MISSING_LABEL, np.int64)
    ids = result.samples["id"].take(pa.array(rows)).combine_chunks()
    places = pc.index_in(ids, value_set=result.confirmation["id"].combine_chunks())
    return _class_indexes(result.confirmation["answer"].take(places), names)


def _reasons(result: ScanResult, rows: NDArray[np.int64], said: NDArray[np.int8]) -> pa.StringArray:
    """Say who accuses or defends each of ``rows``, shape ``(m,)``."""
    samples = result.samples.take(pa.array(rows)).combine_chunks()
    accused = pc.binary_join_element_wise(
        "group ", samples["group"].cast(pa.string()).combine_chunks(), " of its class is ", samples["verdict"].combine_chunks(), ""
    )
    start = pc.if_else(samples["flagged"].combine_chunks(), accused, "the scan did not flag it")
    ends = pa.array(["but the reviewer keeps it", "", "and the reviewer takes it out"]).take(pa.array(said + 1))
    return pc.binary_join_element_wise(start, pc.if_else(pc.equal(ends, ""), "", pc.binary_join_element_wise(", ", ends, "")), "")

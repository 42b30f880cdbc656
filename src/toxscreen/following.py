"""Beside steps 8 and 9 of the flow: from what was screened to what its inputs share, the triggers behind it, and who holds them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from toxscreen.activations import Rows
from toxscreen.columns import Columns
from toxscreen.decoded import Progress
from toxscreen.result import Verdict
from toxscreen.screening import Labels, Screening
from toxscreen.settling import convict, is_proved, leads, new_leads, predicted_classes, reconsider, unsettled
from toxscreen.sharing import planted, planted_beside, widen
from toxscreen.trigger.bends import recover_bends
from toxscreen.trigger.carried import recover_carried
from toxscreen.trigger.changes import recover_changes
from toxscreen.trigger.medium import Medium
from toxscreen.trigger.recover import Recovered, recover
from toxscreen.trigger.tints import recover_tints

PIECES = (
    "what the inputs of a group share",
    "what is sought in classes that are not accused",
    "the trigger",
    "the second screen",
)
"""What can be left out, to measure what it is worth."""


def follow(
    screening: Screening,
    labels: Labels,
    opened: Callable[[], Medium | None],
    activations: Rows,
    screened: Callable[[Labels], Screening],
    *,
    alpha: float,
    seed: int,
    failed: Callable[[Exception], None],
    without: str | None = None,
    progress: Progress | None = None,
) -> tuple[Screening, tuple[Recovered, ...]]:
    """Look for what the inputs share and the triggers behind it; where that fails, what was found before stands.

    Parameters
    ----------
    screening, labels
        What was screened.
    opened
        Opens the inputs and the model; it returns None where they cannot be searched.
    activations
        That were screened, shape ``(n_samples, d)``.
    screened
        Screens them with other labels.
    alpha
        The level of the scan.
    seed
        The same seed gives the same result.
    failed
        Told what went wrong.
    without
        What to leave out, of :data:`PIECES`; nothing else is.
    progress
        Told what is done.
    """
    sharing, seeking, following, again, more, changing, bending, tinting, carrying = np.random.default_rng(seed).spawn(9)
    shared, sought, caught, anew = (piece != without for piece in PIECES)
    recovered: tuple[Recovered, ...] = ()
    try:
        if (medium := opened()) is None:
            return screening, recovered
        if shared:
            screening = widen(screening, labels, medium, activations, sharing)
        if sought:
            screening = planted(screening, labels, medium, activations, seeking, progress)
        if caught:
            found, predicted = leads(screening, labels), predicted_classes(screening, labels)
            recovered = recover(medium, found, predicted, rng=following, failed=failed, progress=progress)
            bad, fit = _accused(screening, labels), screening.inputs
            recovered += recover_changes(medium, activations, bad, predicted, fit, rng=changing, failed=failed)
            recovered += recover_tints(medium, activations, bad, predicted, fit, rng=tinting, failed=failed)
            recovered += _carried(screening, labels, medium, recovered, bad, predicted, rng=carrying, failed=failed)
            screening = convict(screening, labels, _best(recovered))
            doubtful = unsettled(screening, found)
            bends = recover_bends(medium, doubtful, activations, bad, predicted, fit, rng=bending, failed=failed)
            recovered, screening = (*recovered, *bends), convict(screening, labels, bends)
        if shared:
            screening = widen(screening, labels, medium, activations, again)
        if caught and sought:
            beside = planted_beside(screening, labels, medium, activations, more)
            if found := new_leads(screening, beside, labels):
                further = recover(medium, found, predicted, rng=more, failed=failed)
                recovered, screening = (*recovered, *further), convict(beside, labels, further)
        if anew:
            screening = reconsider(screening, labels, screened, alpha)
    except Exception as error:  # noqa: BLE001 - the model is asked about inputs that it never saw; what goes wrong hides no finding
        failed(error)
    return screening, recovered


def _accused(screening: Screening, labels: Labels) -> NDArray[np.int64]:
    """Return the number of each sample's group where that is accused, and 0 elsewhere, shape ``(n_samples,)``."""
    groups = Columns(screening.samples).group
    numbers = np.zeros(len(groups), np.int64)
    for index, result in enumerate(screening.classes):
        here = (labels.given == index) & np.isin(groups, [group.id for group in result.accused])
        numbers[here] = groups[here]
    return numbers


def _carried(
    screening: Screening,
    labels: Labels,
    medium: Medium,
    recovered: tuple[Recovered, ...],
    accused: NDArray[np.int64],
    predicted: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    failed: Callable[[Exception], None],
) -> tuple[Recovered, ...]:
    """Return what the triggers that are proved prove of classes in which nothing is."""
    verdicts = [result.verdict for result in convict(screening, labels, recovered).classes]
    poisoned = {index for index, verdict in enumerate(verdicts) if verdict is Verdict.POISONED}
    proved = [each for each in recovered if is_proved(each) and each.lead.class_index in poisoned]
    further = recover_carried(medium, proved, accused, predicted, poisoned, rng=rng, failed=failed)
    return tuple(each for each in further if is_proved(each))


def _best(recovered: tuple[Recovered, ...]) -> list[Recovered]:
    """Return what was recovered without the candidates of a group that a trigger of another class proves."""
    better = {(each.lead.class_index, each.lead.group) for each in recovered if each.lead.carried and each.lead.group is not None}
    return [each for each in recovered if each.lead.carried or (each.lead.class_index, each.lead.group) not in better]

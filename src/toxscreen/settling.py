"""Step 9 of the flow once more: the recovered trigger and the confirmation settle what the screen suspected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from toxscreen import verdict as policy
from toxscreen.analysis.activation_clustering import label_conflict
from toxscreen.analysis.base import telling
from toxscreen.columns import Columns, sized
from toxscreen.confirmation import Confirmation, Exclusion, Suspect
from toxscreen.conflict import Affinity
from toxscreen.result import CONFIRMATION_SCHEMA, ClassResult, GroupResult, Verdict
from toxscreen.screening import Apart, Labels, Screening
from toxscreen.sharing import LEAST_FITTING
from toxscreen.sources.data.base import MISSING_LABEL
from toxscreen.trigger.recover import Lead, Recovered

_FEWEST_IN_LEAD = 25
"""Samples at least that are looked at because they fit their label least."""

_LEAST_LEADS, _SAMPLES_PER_LEAD = 10, 6000
"""Leads that are followed at least; and samples of the data set for each further one, as often as following one asks the model."""

_MOST_ACCUSED = 100
"""Accused groups that are followed."""

_MOST_UNSETTLED = 5
"""Classes that are looked at again, each of which costs some hundred steps through the model."""

_MOST_OF_A_CLASS = 0.99
"""Part of a class from which a side is no lead: what it shares is what the class is."""

_DISTANCES = ("separation", "separation_lower", "shared")
"""Evidence that is the same for a group and for the rest of its class."""

_FEWEST_IN_GROUP = 10

_MOST_BY_CHANCE = 0.1
"""Part of those who hold a trigger beside an accused group that may be there by chance."""

_MOST_HOLD = 0.5
"""Part of a group far apart that holds the proved trigger, from which the others are taken to hold it too: they lie as far from the
rest, not every sample shows a faint pattern, and clean-label poison need not leave the class without it."""


def leads(screening: Screening, labels: Labels) -> tuple[Lead, ...]:
    """Return where a trigger is worth looking for, the accused groups first.

    Of every class that is not accused: a group that tells something, but too little; the samples that fit their label least, among
    which poison gathers before it makes a group;
    and both sides of a group that lies far apart though its inputs fit the label, as far as anybody can tell.
    How many classes are followed is bounded by the size of the data, so that the model is not asked much more often than in the
    scan itself.
    """
    predicted = predicted_classes(screening, labels)
    number = pc.fill_null(screening.samples["group"], -1).to_numpy()
    accused: list[Lead] = []
    apart: list[tuple[Lead, Lead]] = []
    quiet: list[tuple[float, Lead]] = []
    for index, result in enumerate(screening.classes):
        if not result.groups:
            continue  # it could not be judged
        fitted = np.flatnonzero((labels.given == index) & (predicted == index) & (number >= 0))
        bad = [group.id for group in result.accused]
        ordinary = fitted[~np.isin(number[fitted], bad)]
        for group in result.accused:
            rival = labels.class_names.index(group.source_class) if group.source_class is not None else None
            accused.append(Lead(index, group.id, fitted[number[fitted] == group.id], ordinary, rival))
        if not bad and screening.inputs is not None and len(fitted) > _FEWEST_IN_LEAD:
            told = [(telling(group.evidence), group) for group in result.groups if group.evidence]
            sides = [(most, number[fitted] == group.id, group) for most, group in told if group.evidence.get("p_value", 1.0) < 1]
            quiet.extend((most, Lead(index, None, fitted[side], fitted[~side], near=_near(group))) for most, side, group in sides)
            quiet.append((max((most for most, _ in told), default=0.0), _least_fitting(index, fitted, screening.inputs)))
        own = (each for each in screening.apart if each.class_index == index)
        apart.extend(_sides(each, fitted if not bad else ordinary) for each in own if not bad or not _is_distance(each.evidence))
    quiet.sort(key=lambda pair: -pair[0])
    most = max(_LEAST_LEADS, len(labels.given) // _SAMPLES_PER_LEAD)
    followed = [both[number] for number in (0, 1) for both in apart if both[number].apart and _is_part(both[number])]
    return (*accused[:_MOST_ACCUSED], *followed[:most], *(lead for _, lead in quiet[:most]))


def _near(group: GroupResult) -> int | None:
    """Return the number of a group that tells nearly enough to be accused, None for another one."""
    return group.id if policy.is_near(group.evidence) else None


def unsettled(screening: Screening, followed: Sequence[Lead]) -> tuple[Lead, ...]:
    """Return the leads to groups that are accused, or nearly so, of classes in which nothing is proved; one for each class, few."""
    left: dict[int, Lead] = {}
    for lead in followed:
        told = lead.group is not None or lead.near is not None
        if told and screening.classes[lead.class_index].verdict is not Verdict.POISONED:
            left.setdefault(lead.class_index, lead)
    return tuple(left.values())[:_MOST_UNSETTLED]


def new_leads(before: Screening, after: Screening, labels: Labels) -> tuple[Lead, ...]:
    """Return the accused groups of ``after`` that ``before`` had not."""
    known = {(index, group.id) for index, result in enumerate(before.classes) for group in result.accused}
    return tuple(lead for lead in leads(after, labels) if lead.group is not None and (lead.class_index, lead.group) not in known)


def _sides(apart: Apart, fitted: NDArray[np.int64]) -> tuple[Lead, Lead]:
    """Return what lies far apart, and the rest of its class, which may as well be the poison."""
    inside = np.isin(fitted, apart.rows)
    distance = {name: apart.evidence[name] for name in _DISTANCES if name in apart.evidence}
    both = ((inside, apart.evidence), (~inside, distance))
    first, second = (Lead(apart.class_index, None, fitted[part], fitted[~part], apart=known) for part, known in both)
    return first, second


def _is_distance(evidence: Mapping[str, float]) -> bool:
    """Say whether what speaks for a group is how far it lies from the rest of its class, which speaks for the rest as well."""
    return any(name in evidence for name in _DISTANCES)


def _is_part(lead: Lead) -> bool:
    return 0 < len(lead.members) < _MOST_OF_A_CLASS * (len(lead.members) + len(lead.ordinary))


def _least_fitting(index: int, fitted: NDArray[np.int64], inputs: Affinity) -> Lead:
    """Return the samples of a class that fit their label least."""
    order = fitted[np.argsort(inputs.own[fitted], kind="stable")]
    n = max(_FEWEST_IN_LEAD, round(LEAST_FITTING * len(fitted)))
    votes = np.bincount(inputs.rival[order[:n]])
    rival = int(votes.argmax()) if 2 * votes.max() > n else None
    return Lead(index, None, order[:n], order[n:], rival)


def predicted_classes(screening: Screening, labels: Labels) -> NDArray[np.int64]:
    """Return the index of the class that the model gives each sample, -1 for none, shape ``(n_samples,)``."""
    names = pa.array(labels.class_names, pa.string())
    index = pc.fill_null(pc.index_in(screening.samples["predicted"], value_set=names), -1)
    found: NDArray[np.int64] = index.to_numpy().astype(np.int64)
    return found


def suspects(screening: Screening, labels: Labels) -> tuple[Suspect, ...]:
    """Return the groups that the screen suspects, in the order of the classes."""
    number = pc.fill_null(screening.samples["group"], -1).to_numpy()
    found: list[Suspect] = []
    for index, result in enumerate(screening.classes):
        rows = np.flatnonzero((labels.given == index) & (number >= 0))
        rest = rows[number[rows] == 0]
        found.extend(Suspect(index, group.id, rows[number[rows] == group.id], rest) for group in result.accused)
    return tuple(found)


def settle(screening: Screening, labels: Labels, found: Sequence[Suspect], confirmation: Confirmation) -> Screening:
    """Return the screening with the verdicts that exclusionary reclassification leads to.

    A suspicious group becomes poisoned or clean, or stays suspicious; where the rest of its class turns out to be the poison, the
    two change places. What a trigger has proved stays poisoned.
    """
    classes = list(screening.classes)
    columns = Columns(screening.samples)
    for suspect, group, rest in zip(found, confirmation.groups, confirmation.rests, strict=True):
        result = classes[suspect.class_index]
        proved = next(each.verdict for each in result.groups if each.id == suspect.group) is Verdict.POISONED
        verdict = policy.judge_excluded(group.evidence(), confirmation.accuracy)
        other = Verdict.CLEAN if rest is None else policy.judge_excluded(rest.evidence(), confirmation.accuracy)
        swapped = rest is not None and other is Verdict.POISONED and verdict is not Verdict.POISONED and not proved
        if rest is not None and swapped:
            result = _settled(result, 0, Verdict.POISONED, rest, labels, confirmation)
            columns.set(suspect.rest, Verdict.POISONED)
            verdict = Verdict.CLEAN
        classes[suspect.class_index] = _settled(result, suspect.group, verdict, group, labels, confirmation, proved=proved)
        columns.set(suspect.rows, Verdict.POISONED if proved else verdict)
    return columns.put_into(screening, classes)


def convict(screening: Screening, labels: Labels, recovered: Sequence[Recovered]) -> Screening:
    """Return the screening with the verdicts that recovered triggers lead to.

    A suspicious group whose trigger is proved is poisoned, and takes in the other samples of its class that hold the trigger. In a
    class that was not accused, a group that was nearly suspicious is poisoned if its trigger leaves no doubt. Else the samples that
    hold a proved trigger become a group, with those of the group far apart that it was found in; or the latter alone, where the
    trigger is but a shortcut. Of the two sides of a class only one is accused so. Where the model obeys a trigger, and gives the
    class without it too, those that hold it are suspicious if they do not fit their label.
    """
    classes = list(screening.classes)
    columns = Columns(screening.samples)
    judged = [(*_judged(screening, found), found) for found in recovered]
    for verdict, behind, found in sorted(judged, key=lambda each: (-each[0].severity, -len(each[2].holding))):
        lead, result = found.lead, classes[found.lead.class_index]
        known = [group.id for group in result.groups if group.trigger is not None or group in result.accused]
        nearly = lead.group is None and behind == "suspicious"
        rows = _held(found) if verdict is Verdict.POISONED else found.held if behind == "conflict" else lead.members
        rows = np.union1d(rows, lead.members) if nearly else rows
        rows = rows[~np.isin(columns.group[rows], known)]
        one_sided = known and lead.apart and _is_distance(lead.apart)
        if lead.group is None and (verdict is Verdict.CLEAN or len(rows) < _FEWEST_IN_GROUP or one_sided):
            continue
        number = lead.near if nearly else lead.group
        if number is None:
            number = 1 + max((group.id for group in result.groups), default=0)
        if lead.group is None or verdict is not Verdict.SUSPICIOUS:
            columns.group[rows] = number
            columns.set(np.flatnonzero((labels.given == lead.class_index) & (columns.group == number)), verdict)
        if verdict is Verdict.POISONED:
            columns.surely(found.holding, found.proof.flips.interval[0])
        counts = np.bincount(columns.group[(labels.given == lead.class_index) & (columns.group >= 0)], minlength=number + 1)
        classes[lead.class_index] = _convicted(result, number, counts, (verdict, behind), found, labels)
    return columns.put_into(screening, classes)


def reconsider(screening: Screening, labels: Labels, screened: Callable[[Labels], Screening], alpha: float) -> Screening:
    """Screen again without proved poison, where it may be why another class is accused, and clear what no longer stands.

    ``screened`` screens the same activations with other labels, and ``alpha`` is the level of the scan.
    """
    poison, doubtful = vouching(screening, labels)
    if not doubtful:
        return screening
    given = labels.given.copy()
    given[poison] = MISSING_LABEL
    return acquit(screening, screened(replace(labels, given=given)), labels, doubtful, alpha)


def vouching(screening: Screening, labels: Labels) -> tuple[NDArray[np.int64], list[int]]:
    """Return the row numbers of poison that makes others look wrongly labelled, and the indices of the classes that it may concern.

    Where most of a small class is poison, made from all the others, their inputs look like its own. What was proved by taking its
    trigger off is poison whatever else is; a class with neither that nor a pattern of its own may be accused for it alone.
    """
    group = Columns(screening.samples).group
    proved, doubtful, rows = set(), [], [np.zeros(0, np.int64)]
    for index, result in enumerate(screening.classes):
        sure = [each.id for each in result.accused if policy.can_be_taken_off(each.evidence)]
        if sure:
            proved.add(index)
            rows.append(np.flatnonzero((labels.given == index) & np.isin(group, sure)))
        elif result.accused and all(_by_the_screen(each.evidence) for each in result.accused):
            doubtful.append(index)
    return np.concatenate(rows), doubtful if proved else []


def _by_the_screen(evidence: Mapping[str, float]) -> bool:
    """Say whether the screen alone speaks against a group: what a pattern or a trigger accused, it cannot accuse again."""
    return evidence.get("p_value", 1.0) < 1 and "shared" not in evidence


def acquit(screening: Screening, again: Screening, labels: Labels, doubtful: Sequence[int], alpha: float) -> Screening:
    """Return the screening without the accusations of some classes that do not stand when it is made again.

    Parameters
    ----------
    screening, labels
        What was found.
    again
        The same without the poison that :func:`vouching` returned.
    doubtful
        Indices of the classes.
    alpha
        The level of the scan. As many classes as were accused before are judged together: without the poison of the proved ones the
        others would be judged more strictly.
    """
    classes, samples = list(screening.classes), screening.samples
    level = alpha * sum(bool(each.accused) for each in classes) / len(classes)
    stays = [any(group.evidence.get("p_value", 1.0) <= level for group in again.classes[index].groups) for index in doubtful]
    cleared = [index for index, kept in zip(doubtful, stays, strict=True) if not kept and not again.classes[index].accused]
    for index in cleared:
        classes[index] = replace(again.classes[index], reasons=(*again.classes[index].reasons, policy.ACQUITTED))
    changed = pa.array(np.isin(labels.given, cleared))
    for column in ("group", "score", "flagged", "verdict"):
        number = samples.column_names.index(column)
        values = pc.if_else(changed, again.samples[column], samples[column])
        samples = samples.set_column(number, samples.schema.field(column), values)
    newer = {view.class_index: view for view in again.views if view.class_index in cleared}
    return replace(
        screening,
        classes=tuple(classes),
        samples=samples,
        views=tuple(newer.get(view.class_index, view) for view in screening.views),
    )


def _held(found: Recovered) -> NDArray[np.int64]:
    """Return the samples that hold a proved trigger; all of a group far apart, where most of it does.

    Beside an accused group none, where as many would hold it in a class without poison: a pattern can be the mean of a filter's
    pictures, which half of the others resemble, too.
    """
    if found.lead.group is not None and found.by_chance > _MOST_BY_CHANCE * (~np.isin(found.holding, found.lead.members)).sum():
        return np.intersect1d(found.holding, found.lead.members)
    if not found.lead.apart or np.isin(found.lead.members, found.held).mean() < _MOST_HOLD:
        return found.holding
    return np.union1d(found.holding, found.lead.members)


def is_proved(found: Recovered) -> bool:
    """Say whether a trigger proves that a group is poison which something else speaks against."""
    return policy.judge_trigger(found.proof.evidence(), "suspicious", words=found.is_text) is Verdict.POISONED


def _judged(screening: Screening, found: Recovered) -> tuple[Verdict, policy.Behind]:
    """Judge what was suspected by its trigger, and say what else spoke against it.

    Texts of a class may hold a natural word that the model goes by, and without it some are read otherwise. So where nothing else
    speaks against them, the samples that hold the trigger must not fit their label either.
    """
    lead, evidence = found.lead, found.proof.evidence()
    if lead.group is not None:
        behind: policy.Behind = "suspicious"
    elif lead.near is not None and policy.settles(evidence, found.trigger.kind):
        behind = "suspicious"
    elif lead.carried:
        behind = "elsewhere" if policy.can_be_taken_off(evidence, "most_odds") else "nothing"
    elif found.trigger.is_whole:  # what is natural and rightly labelled commands, too, and stays when it is changed back
        behind = "apart" if policy.is_planted_change(evidence, lead.apart or {}) else "nothing"
    elif lead.apart and not found.is_text:
        most = len(lead.members) > len(lead.ordinary) and not lead.turned  # what most of a class shares is the class
        secluded = found.seclusion > policy.POLICY["seclusion"].value
        sure = policy.can_be_taken_off(evidence, "secluded_odds" if secluded else "most_odds" if most else "trigger_odds")
        mixed_in = not secluded and len(lead.members) < 2 * len(lead.ordinary)
        natural = (most or secluded) and not sure and not (mixed_in and policy.commands_beyond_doubt(evidence))
        behind = "nothing" if natural else "apart"
    else:
        proved = policy.judge_trigger(evidence, "conflict") is Verdict.POISONED
        natural = not proved and found.trigger.kind == "pattern"  # the mean of half a class, mixed in, is a command too
        in_conflict = not natural and _in_conflict(screening, lead, found.holding if proved else found.held)
        behind = "conflict" if in_conflict else "apart" if lead.apart else "nothing"
    return policy.judge_trigger(evidence, behind, words=found.is_text), behind


def _in_conflict(screening: Screening, lead: Lead, holding: NDArray[np.int64]) -> bool:
    """Say whether samples of a class surely do not fit its label, where that can be asked."""
    if screening.inputs is None or not len(holding):
        return False
    rows = np.union1d(np.concatenate([lead.members, lead.ordinary]), holding)
    members = np.isin(rows, holding)
    _, lower = label_conflict(screening.inputs.of(lead.class_index, rows).asked_again(members), members)
    return lower >= policy.POLICY["label_conflict"].value


def _convicted(
    result: ClassResult,
    number: int,
    counts: NDArray[np.int64],
    judged: tuple[Verdict, policy.Behind],
    found: Recovered,
    labels: Labels,
) -> ClassResult:
    """Return a class whose group of that number has a trigger; ``counts`` are the samples of each group now."""
    verdict, behind = judged
    evidence, sources = found.proof.evidence(), [labels.class_names[index] for index in found.sources]
    told = {"description": str(found.trigger), "sources": sources, "proved": verdict is Verdict.POISONED}
    document = {**told, **found.proof.document(), **found.trigger.document()}
    groups = {group.id: group for group in result.groups}
    group = groups.get(number, GroupResult(number, 0, 0.0, verdict, found.lead.apart or {}))
    source = sources[0] if len(sources) == 1 and verdict is Verdict.POISONED else None if found.mixed else group.source_class
    groups[number] = replace(
        group,
        verdict=verdict if found.lead.group is not None else max(group.verdict, verdict, key=lambda v: v.severity),
        evidence={**group.evidence, **evidence},
        source_class=source,
        trigger=document,
    )
    left = sized((group for _, group in sorted(groups.items())), counts, result.n)
    worst = max((group.verdict for group in left), key=lambda v: v.severity)
    reason = policy.of_group(number, policy.reason_trigger(verdict, evidence, behind, str(found.trigger)))
    gone = found.lead.apart and verdict is Verdict.POISONED
    reasons = policy.without_natural(result.reasons) if gone else result.reasons
    return replace(result, verdict=worst, groups=left, reasons=policy.with_reason(reasons, reason))


def answers_table(labels: Labels, confirmation: Confirmation) -> pa.Table:
    """Return what the new model said of each sample that was left out; see :data:`toxscreen.result.CONFIRMATION_SCHEMA`."""
    known = confirmation.answers >= 0
    names = pa.array(labels.class_names, pa.string())
    columns = {
        "id": labels.ids.take(pa.array(confirmation.rows)),
        "answer": names.take(pa.array(confirmation.answers, mask=~known)),
        "certainty": pa.array(confirmation.certainty.astype(np.float64), mask=~known),
    }
    return pa.table(columns, schema=CONFIRMATION_SCHEMA)


def _settled(
    result: ClassResult,
    number: int,
    verdict: Verdict,
    exclusion: Exclusion,
    labels: Labels,
    confirmation: Confirmation,
    *,
    proved: bool = False,
) -> ClassResult:
    """Return a class with the new verdict of one of its groups, which stays poisoned where its trigger was proved."""
    source = None if exclusion.source is None else labels.class_names[exclusion.source]
    evidence = exclusion.evidence()
    elsewhere = [(labels.class_names[index], n) for index, n in exclusion.elsewhere]
    reason = policy.reason_excluded(verdict, evidence, exclusion.n, elsewhere, confirmation.accuracy)

    def changed(group: GroupResult) -> GroupResult:
        stands = source if verdict is not Verdict.CLEAN and exclusion.stands_out else None
        settled = Verdict.POISONED if proved else verdict
        return replace(group, verdict=settled, evidence={**group.evidence, **evidence}, source_class=stands or group.source_class)

    groups = tuple(changed(group) if group.id == number else group for group in result.groups)
    worst = max((group.verdict for group in groups), key=lambda v: v.severity)
    reasons = policy.with_reason(result.reasons, policy.of_group(number, reason))
    return replace(result, verdict=worst, groups=groups, reasons=reasons)

"""The case for poison and the case against it, for one group, in plain sentences made from its evidence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from toxscreen import verdict as policy
from toxscreen.report.wording import by_rule, clipped, proved
from toxscreen.result import ClassResult, GroupResult, ScanResult, Verdict

_ONE_CLOUD = 5.0
"""Separation that parts of one single cloud of samples reach; see :data:`toxscreen.report.wording.EVIDENCE`."""

_LARGE = 0.3
"""Part of a class from which a group is as large as natural sub-populations often are."""

_RARE = 0.01
"""Probability up to which that a clean class shows such a group speaks for poison."""

_SELDOM = 1e-4
"""Probability below which its size says nothing more."""

_NAME, _TRIGGER = 60, 160
"""Characters of a class's name and of the description of a trigger."""


@dataclass(frozen=True)
class Case:
    """Sentences about the samples of a group, ``they``: what speaks for poison, and what against it."""

    speaks_for: tuple[str, ...]
    speaks_against: tuple[str, ...]


@dataclass(frozen=True)
class Natural:
    """A natural sub-population: it lies far apart, and its inputs fit the label. ``n`` counts the smaller part of the class."""

    class_index: int
    result: ClassResult
    n: int
    case: Case


def case(group: GroupResult, pending: Sequence[str] = (), *, modality: str | None = None) -> Case:
    """Return what speaks for poison and what against it, in a scan of which the steps ``pending`` are still to come."""
    told = [
        *_place(group),
        *_inputs(group.evidence),
        *_pattern(group.evidence, is_text=modality == "text"),
        *_rarity(group.evidence),
        *_trigger(group),
        *_exclusion(group.evidence),
        *_missing(group, pending),
    ]
    sides = (tuple(sentence for speaks_for, sentence in told if speaks_for is side) for side in (True, False))
    return Case(*sides)


def told_of(result: ClassResult) -> tuple[GroupResult, ...]:
    """Return the groups whose case is told of a class that is not clean: the accused ones, or else the most telling one."""
    return result.accused or tuple(group for group in result.groups if group.evidence)[:1]


def natural(result: ScanResult) -> tuple[Natural, ...]:
    """Return the natural sub-populations, those that lie farthest apart first; none where a published rule was chosen."""
    if by_rule(result):
        return ()
    found = [
        (group.evidence["separation"], Natural(index, c, min(group.n, c.n - group.n), case(group)))
        for index, c in enumerate(result.classes)
        for group in c.groups
        if _is_natural(group)
    ]
    return tuple(each for _, each in sorted(found, key=lambda pair: -pair[0]))


def _is_natural(group: GroupResult) -> bool:
    evidence = group.evidence
    return (
        group.verdict is Verdict.CLEAN
        and evidence.get("separation", 0.0) >= policy.POLICY["separation"].value
        and evidence.get("label_conflict", math.nan) < policy.POLICY["label_conflict"].value
    )


_NATURALLY_SHARED, _NATURALLY_SHARED_BY_TEXTS = 12, 32
"""How far, in standard deviations, what natural parts of clean classes share stood out at most: of pictures, and of texts."""

_Sentences = Iterator[tuple[bool, str]]
"""Whether a sentence speaks for poison, and it."""


def _place(group: GroupResult) -> _Sentences:
    separation = group.evidence.get("separation", math.nan)
    if math.isfinite(separation):
        far = separation > _ONE_CLOUD
        lie = f"They lie {'' if far else 'only '}{separation:.1f} standard deviations from the rest of the class"
        yield far, f"{lie}; parts of one single cloud of samples lie 3 to 5 apart."
    if group.source_class is not None:
        yield True, f"They seem to come from the class “{clipped(group.source_class, _NAME)}”."
    if _LARGE <= group.share < 1:
        yield False, f"They are {group.share:.0%} of the class: natural sub-populations are often that large, poison seldom is."


def _inputs(evidence: Mapping[str, float]) -> _Sentences:
    if "label_conflict" not in evidence:
        return
    conflict, lower = evidence["label_conflict"], evidence.get("label_conflict_lower", math.nan)
    enough = policy.POLICY["label_conflict"].value
    figure = f"label conflict {min(conflict, 1.0):.2f}, where the rest of the class has 0 and other classes have 1"
    if not (math.isfinite(conflict) and math.isfinite(lower)):
        yield False, "The inputs of this class are not told from those of others, so whether theirs fit the label is unknown."
    elif lower >= enough:
        yield True, f"Their inputs look like those of other classes: {figure}."
    elif conflict < enough:
        yield False, f"Their inputs fit the label: {figure}. So it is with a natural sub-population."
    else:
        yield False, f"That their inputs do not fit the label is uncertain: {figure}; it may be as low as {lower:.2f}."


def _pattern(evidence: Mapping[str, float], *, is_text: bool) -> _Sentences:
    if "shared" in evidence:
        stands_out = f"What their inputs share stands {evidence['shared']:.0f} standard deviations out from the rest of the class"
        reached = _NATURALLY_SHARED_BY_TEXTS if is_text else _NATURALLY_SHARED
        yield evidence["shared"] > reached, f"{stands_out}; natural parts of a class reach {reached}."


def _rarity(evidence: Mapping[str, float]) -> _Sentences:
    p_value = evidence.get("p_value", math.nan)
    if p_value <= _RARE:
        often = f"with a probability of {p_value:.2g}" if p_value >= _SELDOM else "less than once in 10,000 times"
        yield True, f"A clean class shows a group as telling as this one {often}."
    elif p_value < 1:
        yield False, f"Of clean classes {p_value:.0%} show a group as telling as this one."


def _trigger(group: GroupResult) -> _Sentences:
    if group.trigger is None:
        return
    evidence = group.evidence
    what = clipped(str(group.trigger.get("description", "what they share")), _TRIGGER)
    flips, control = (evidence.get(name, math.nan) for name in ("trigger_flips", "trigger_control"))
    does = f"{what} sends {_percent(flips)} of inputs of other classes to this class, and its control {_percent(control)}"
    if not proved(group) and evidence.get("trigger_flips_lower", 0.0) < policy.POLICY["trigger_flips"].value:
        yield False, f"No trigger was found that proves it. The best candidate, {does}."
        return
    yield True, f"They share a trigger that the model obeys: {does}."
    returns, ordinary = (evidence.get(name, math.nan) for name in ("trigger_returns", "trigger_control_returns"))
    if returns > ordinary:
        told = f"Without it {_percent(returns)} of those that carry it leave the class"
        yield True, f"{told}; of ordinary samples {_percent(ordinary)} do when the same is done to them."
    elif math.isfinite(returns):
        yield False, f"Without it only {_percent(returns)} of those that carry it leave the class."


def _exclusion(evidence: Mapping[str, float]) -> _Sentences:
    if "exre_l" not in evidence:
        return
    l_lower, l_upper, p_lower, p_upper = (
        evidence.get(f"exre_{which}_share_{end}", math.nan) for which in ("l", "p") for end in ("lower", "upper")
    )
    own, other, left, n_classes = (evidence.get(f"exre_{name}", math.nan) for name in ("l", "p", "left", "classes"))
    told = f"A model trained without them gives {own:,.0f} of them their own label and {other:,.0f} one other class"
    misread, cleared, leave = l_upper < p_lower, l_lower > p_upper, policy.most_leave(evidence)
    if leave and not misread:
        gives = f"gives {left:,.0f} of them one of {n_classes:.0f} other classes and {own:,.0f} their own label"
        told = f"A model trained without them {gives}"
    yield misread or leave, f"{told}." if misread or leave or cleared else f"{told}, which is too close to settle it."
    if not (misread or leave):
        return
    if any(evidence.get(name, 0.0) >= policy.POLICY[name].value for name in ("exre_resemblance", "exre_agreement")):
        yield True, "They lie among ordinary samples of the classes that it gives them."
    else:
        yield False, "For that model they keep to themselves, as a natural sub-population does."


def _missing(group: GroupResult, pending: Sequence[str]) -> _Sentences:
    if group.verdict is not Verdict.SUSPICIOUS:
        return
    if "label_conflict" not in group.evidence:
        yield False, "Whether their inputs fit the label was not asked: a natural sub-population may lie as far apart."
    if group.trigger is None:
        yield False, "No trigger was recovered from them." if "triggers" not in pending else "No trigger has been looked for yet."
    if "exre_l" not in group.evidence and "confirmation" not in pending:
        yield False, "No model was trained without them to be asked about them (--confirm)."


def _percent(share: float) -> str:
    return f"{share:.0%}" if math.isfinite(share) else "none"

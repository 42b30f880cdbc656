"""Beside step 8 of the flow: what the samples of a group share in their inputs, and who else shares it.

The screen sees the poison through the model: of a faint trigger, or one that samples hold in parts, it sees a part. What that part
shares in its inputs is found in the rest of its class, too, also in samples that the model has not learned; and what only looked
like the group falls out of it. The same look finds planted patterns in classes that are not accused, from seeds of which but a few
samples need to hold one; these are no verdict, but a lead to a trigger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from toxscreen import verdict as policy
from toxscreen.activations import Rows
from toxscreen.analysis.activation_clustering import AROUND, AS_TELLING, conflict_evidence
from toxscreen.columns import Columns, sized
from toxscreen.conflict import Affinity
from toxscreen.decoded import Progress
from toxscreen.errors import DataError
from toxscreen.parallel import in_parallel
from toxscreen.result import ClassResult, GroupResult, Verdict
from toxscreen.screening import Apart, Labels, Screening
from toxscreen.trigger.medium import STRETCH, Medium
from toxscreen.trigger.shared import FEWEST, Look, Shared, View, joined, tails

_MOST, _MOST_SOUGHT = 2500, 800
"""Samples of a class that are learned from when a group is known, and when a pattern is sought."""

_KEPT = 0.5
"""Part of a group that must share what the group is found to share; otherwise it is something else in the class."""

_TOLD_APART, _NEAR = 8.0, 6.0
"""Standard deviations from which holders are told from others, but for one in 30,000 and one in 700."""

_MOST_PATTERNS = 4
"""Patterns that are sought in one class, one after the other: each sample may hold one of several patches."""

_OTHERS, _MOST_WORDS = 20_000, 60
"""Texts of other classes that words are looked up in, and words of a class that are asked about."""

_OWN, _ODD = 3.0, 0.5
"""How much more frequent a word of a class is there than elsewhere; and the conflict of the texts that hold it, less a standard
error, from which it is put together with others."""

_RIVALS, _ASKED, _MOST_OF_A_KIND, _MOST_OF_A_PART = 3, 100, 0.5, 0.3
"""Classes that samples which share a pattern look like most, samples that are taken of each, and part of them that must not share
it: a trigger that goes from every class to the next is in a third of a class, a kind is in most of it. Less where it is but a part
of what samples share: 19 such parts of clean data, most of them with wrong labels, were in 0.64 to 1 of another class, patches in
none."""

_Changed = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""The members of a group in its class, as they were and as they would be."""

_Found = tuple[NDArray[np.float64], dict[str, float]]
"""The probability that each sample of a class holds what is shared, 0 for nothing, and the evidence."""

LEAST_FITTING = 0.06
"""Part of a class that is looked at because it fits its label least: with 5 % of a class poisoned, a third of it was poison in
trials on CIFAR-10 and Fashion-MNIST."""


def widen(screening: Screening, labels: Labels, medium: Medium, activations: Rows, rng: np.random.Generator) -> Screening:
    """Return the screening with accused groups that hold all samples of their class which share what they share, and no others.

    Where the inputs alone show no pattern, as with pictures that are bent, they are looked at together with what the model makes of
    them: then all together must contradict their label nearly as much as the group did.

    Parameters
    ----------
    screening, labels
        What was found.
    medium
        The inputs.
    activations
        That were screened, shape ``(n_samples, d)``.
    rng
        Draws samples and folds.
    """
    classes, columns = list(screening.classes), Columns(screening.samples)

    def work(one: tuple[int, np.random.Generator]) -> None:
        index, rng = one
        for group in classes[index].accused:
            if "shared" in group.evidence:
                continue
            own = np.flatnonzero((labels.given == index) & np.isin(columns.group, (0, group.id)))
            members = columns.group[own] == group.id
            looked = _look(medium, own[_some(members, _MOST, rng)], rng)
            proved = group.verdict is Verdict.POISONED
            found = looked and _sharing(screening, medium, looked, (index, own, members), activations, proved=proved)
            if not found:
                continue
            regrouping, probability = found
            held = probability > 0.5
            _take_over(columns, own, held, probability, group)
            distant = {"shared": regrouping.shared.separation} if regrouping.kind == "distant" else {}
            evidence = {**group.evidence, **distant}
            told = (replace(each, evidence=evidence) if each.id == group.id else each for each in classes[index].groups)
            changed_by = int((held & ~members).sum()), int((members & ~held).sum())
            separation = None if regrouping.kind == "beside" else regrouping.shared.separation
            reason = policy.reason_shared(separation, int(members.sum()), *changed_by)
            changed = replace(classes[index], groups=tuple(told))
            classes[index] = _resized(changed, columns.group[labels.given == index], policy.of_group(group.id, reason))

    accused = [index for index, result in enumerate(classes) if result.accused]
    in_parallel(work, zip(accused, rng.spawn(len(accused)), strict=True))
    return columns.put_into(screening, classes)


def planted(
    screening: Screening,
    labels: Labels,
    medium: Medium,
    activations: Rows,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> Screening:
    """Return the screening with what shares a pattern, in classes that are not accused, among what lies far apart.

    Pictures that lie far apart and share none are a natural kind, and no longer among them.

    Parameters
    ----------
    screening, labels, medium, rng
        As in :func:`widen`.
    activations
        That were screened, shape ``(n_samples, d)``.
    progress
        Told what is done.
    """
    if not medium.shows_patterns:
        return _with_odd_words(screening, labels, medium, rng)
    quiet = [index for index, result in enumerate(screening.classes) if result.groups and not result.accused]
    known = [each for each in screening.apart if each.class_index in quiet]
    found, apart = _with_patterns(screening, labels, medium, activations, (quiet, known), rng, progress)
    return replace(found, apart=apart)


def planted_beside(screening: Screening, labels: Labels, medium: Medium, activations: Rows, rng: np.random.Generator) -> Screening:
    """Return the screening with what else shares a pattern in classes that a trigger convicted: poison may hold one of several.

    Parameters are those of :func:`planted`.
    """
    proved = [index for index, result in enumerate(screening.classes) if result.verdict is Verdict.POISONED]
    return _with_patterns(screening, labels, medium, activations, (proved, []), rng)[0] if medium.shows_patterns else screening


def _with_patterns(
    screening: Screening,
    labels: Labels,
    medium: Medium,
    activations: Rows,
    among: tuple[list[int], list[Apart]],
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> tuple[Screening, tuple[Apart, ...]]:
    """Look in each of some classes for what shares a pattern, one after the other, outside its accused groups.

    ``among`` are these classes, and what is known to lie far apart in them.

    Returns
    -------
    tuple of Screening and tuple of Apart
        The screening with them, and what shares a pattern and fits its label, or is known and shares one.
    """
    classes, columns = list(screening.classes), Columns(screening.samples)
    before = columns.group.copy()

    def seek(index: int, rng: np.random.Generator) -> list[Apart]:
        accused = [group.id for group in classes[index].accused]
        own = np.flatnonzero((labels.given == index) & (before >= 0) & ~np.isin(before, accused))
        for _ in range(_MOST_PATTERNS):
            probability, evidence = _sought(screening, labels, medium, (index, own, before[own]), activations, rng)
            held = probability > 0.5
            if policy.judge_planted(evidence) is Verdict.CLEAN:
                return [Apart(index, own[held], evidence)] if held.any() else []
            found = own[held], probability[held]
            reason = policy.reason_planted(evidence, int(held.sum()))
            classes[index] = _accused(classes[index], labels.given == index, columns, found, evidence, reason)
            own = own[~held]
        return []

    def ask(known: Apart, rng: np.random.Generator) -> list[Apart]:
        return [known] if _shares_pattern(known.rows, medium, labels, before, rng) else []

    def told(done: int) -> None:
        if progress is not None:
            progress("looking for what inputs share", done, len(works))

    works = [*(partial(seek, index) for index in among[0]), *(partial(ask, known) for known in among[1])]
    apart = in_parallel(lambda one: one[0](one[1]), zip(works, rng.spawn(len(works)), strict=True), told)
    return columns.put_into(screening, classes), tuple(chain.from_iterable(apart))


def _shares_pattern(
    rows: NDArray[np.int64], medium: Medium, labels: Labels, groups: NDArray[np.int64], rng: np.random.Generator
) -> bool:
    """Say whether what lies far apart in a class, or all else in it, shares a pattern, as far as that can be asked."""
    own = np.flatnonzero((labels.given == labels.given[rows[0]]) & (groups >= 0))
    looked = _look(medium, own[_some(np.isin(own, rows), _MOST, rng)], rng)
    if looked is None:
        return True
    known = np.isin(looked.rows, rows)
    if min(known.sum(), (~known).sum()) < FEWEST:
        return True  # nearly all of the class is one side: nobody can tell what that shares
    shared = looked.look.shared_by(known)
    if shared is None or not _stands_out(shared):
        return False
    return bool(((shared.probability > 0.5) & known).sum() >= _KEPT * known.sum())


def _stands_out(shared: Shared) -> bool:
    return shared.separation >= policy.POLICY["shared"].value


def _sharing(
    screening: Screening,
    medium: Medium,
    looked: _Looked,
    group: tuple[int, NDArray[np.int64], NDArray[np.bool_]],
    activations: Rows,
    *,
    proved: bool,
) -> tuple[_Regrouping, NDArray[np.float64]] | None:
    """Return what a group of a class shares and the probability of each sample to share it; None where that makes it worse.

    ``group`` is the number of the class, its samples, and which of them are members.
    """
    (index, own, members), inputs = group, screening.inputs
    for found in _regroupings(looked, np.isin(looked.rows, own[members]), activations, proved=proved):
        if inputs is None and found.kind != "distant":
            return None
        probability = _probability(medium, found.looked, found.shared, own)
        held = probability > 0.5
        if (held & members).sum() < _KEPT * members.sum() or (~held).sum() < FEWEST:
            continue
        if inputs is None or _is_no_worse(inputs, index, own, (members, held), found.kind):
            return found, probability
    return None


def _regroupings(looked: _Looked, known: NDArray[np.bool_], activations: Rows, *, proved: bool) -> Iterator[_Regrouping]:
    """Yield who may share what some samples share, the surest first.

    Of a group that is ``proved`` nobody asks whether it is natural, but who else belongs to it: then it is enough that holders are
    told from others. Where the inputs alone show no distant pattern, as with pictures that are bent, they are looked at together
    with what the model makes of them.
    """
    shared = looked.look.shared_by(known)
    if shared is not None and _stands_out(shared):
        yield _Regrouping(looked, shared, "distant")
        return
    finer = looked.look.trusting().shared_by(known) if proved else None
    if finer is not None and finer.separation >= _TOLD_APART:
        yield _Regrouping(looked, finer, "distant")
        return
    if shared is not None and shared.separation >= _NEAR:
        yield _Regrouping(looked, shared, "near")
    beside = replace(looked, look=looked.look.beside(_points(activations, looked.rows)), activations=activations)
    shared = beside.look.shared_by(known)
    if shared is not None:
        yield _Regrouping(beside, shared, "beside")


def _is_no_worse(inputs: Affinity, index: int, own: NDArray[np.int64], changed: _Changed, kind: _Kind) -> bool:
    """Say whether a group contradicts its label as much as it would be as it was, by what tells who belongs to it.

    Where that is no distant pattern it must be worth changing; and where it takes the model to tell, nearly all must stay.
    """
    before, after = changed
    if kind != "distant" and (before != after).sum() < FEWEST:
        return False
    if kind == "beside" and (after & before).sum() < AROUND * before.sum():
        return False
    return _as_telling(inputs, index, own, changed, least=1.0 if kind == "near" else AS_TELLING)


def _as_telling(inputs: Affinity, index: int, own: NDArray[np.int64], changed: _Changed, least: float) -> bool:
    """Say whether a group, as it would be, contradicts its label as much as it was; one that did not has nothing to lose."""
    told, tells = (_conflict(inputs, index, own, side)["label_conflict"] for side in changed)
    return told < policy.POLICY["label_conflict"].value or tells >= least * min(told, 1.0)


def _points(activations: Rows, rows: NDArray[np.int64]) -> View:
    """Return what the model makes of some inputs as a view of them; it is told apart well, so it is trusted more."""
    return View(np.asarray(activations[rows], np.float64), strictness=1.0)


def _with_odd_words(screening: Screening, labels: Labels, medium: Medium, rng: np.random.Generator) -> Screening:
    """Return the screening with the texts that hold words of their class alone and do not fit it, among what lies far apart.

    Of several rare words each stands in few texts, too few for a group; but none of these fits its label without the word.
    """
    inputs = screening.inputs
    if inputs is None:
        return screening
    classes, columns = list(screening.classes), Columns(screening.samples)
    examined = columns.group >= 0

    def work(one: tuple[int, NDArray[np.int64]]) -> list[Apart]:
        (index, others), mine = one, labels.given == one[0]
        result = classes[index]
        own = np.flatnonzero(mine & examined & ~np.isin(columns.group, [each.id for each in result.accused]))
        if not result.groups or min(len(own), len(others)) < FEWEST:
            return []
        rows, evidence, which = _odd_words(inputs, medium, index, own, np.sort(others))
        if policy.judge_words(evidence, len(rows)) is not Verdict.CLEAN:
            reason = policy.reason_words(evidence, len(rows), medium.named(medium.read(rows)[0], which))
            classes[index] = _accused(result, mine, columns, (rows, np.ones(len(rows))), evidence, reason)
        elif evidence.get("label_conflict_lower", 0.0) >= policy.POLICY["label_conflict"].value:
            return [Apart(index, rows, evidence)]
        return []

    drawn = [rng.permutation(np.flatnonzero((labels.given != index) & examined))[:_OTHERS] for index in range(len(classes))]
    apart = chain.from_iterable(in_parallel(work, enumerate(drawn)))
    return columns.put_into(replace(screening, apart=(*apart, *screening.apart)), classes)


def _odd_words(
    inputs: Affinity, medium: Medium, index: int, own: NDArray[np.int64], others: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[str, float], list[int]]:
    """Return the texts with words of their class alone that do not fit it without them, their label conflict, and these words."""
    (holds, read), (elsewhere, _) = _words(medium, own), _words(medium, others)
    found = []
    for column in _own_words(holds, elsewhere, inputs.own[read]):
        members = holds[:, [column]].toarray().ravel() > 0
        told = _conflict(inputs, index, read, members)
        surely = (told["label_conflict"] + told["label_conflict_lower"]) / 2  # one standard error below
        if surely >= _ODD:
            found.append((surely, members, int(column)))
    best, evidence, n_words = np.zeros(len(read), bool), dict[str, float](), 0
    odd = best.copy()
    ranked = sorted(found, key=lambda each: -each[0])
    for n, (_, members, _) in enumerate(ranked, start=1):
        odd = odd | members
        told = _conflict(inputs, index, read, odd)
        if told["label_conflict_lower"] > evidence.get("label_conflict_lower", 0.0):
            best, evidence, n_words = odd, told, n
    return read[best], evidence, [column for _, _, column in ranked[:n_words]]


def _words(medium: Medium, rows: NDArray[np.int64]) -> tuple[sparse.csr_array, NDArray[np.int64]]:
    """Return which words those texts hold that can be read, and their row numbers; they were all read before."""
    seen, read = _seen(medium, rows)
    if not seen:
        raise DataError(
            f"The texts must stay readable while the scan runs, but none of {len(rows):,} could be read again to look at their "
            "words. Scan again when they can be read."
        )
    return seen[0].values, read


def _own_words(holds: sparse.csr_array, elsewhere: sparse.csr_array, fit: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the columns of words that few texts of other classes hold, those first whose texts fit the label least."""
    times, known = np.asarray(holds.sum(axis=0)).ravel(), np.isfinite(fit)
    there = (np.asarray(elsewhere.sum(axis=0)).ravel() + 1) / (elsewhere.shape[0] + 2)
    rare = (times >= FEWEST) & (times <= holds.shape[0] / 2) & ((times + 1) / (holds.shape[0] + 2) >= _OWN * there)
    columns = np.flatnonzero(rare)
    mean = (holds.T @ np.where(known, fit, 1.0))[columns] / times[columns]
    return columns[np.argsort(mean, kind="stable")[:_MOST_WORDS]]


def _sought(
    screening: Screening,
    labels: Labels,
    medium: Medium,
    of: tuple[int, NDArray[np.int64], NDArray[np.int64]],
    activations: Rows,
    rng: np.random.Generator,
) -> _Found:
    """Return what stands out farthest in a class; or a part of it, where it does not and its samples contradict their label.

    ``of`` is the number of the class, its samples, and the numbers of their groups.
    """
    (index, own, groups), inputs = of, screening.inputs
    nothing = np.zeros(len(own)), dict[str, float]()
    fit = np.zeros(len(own)) if inputs is None else inputs.own[own]
    least = np.argsort(fit, kind="stable")[: max(FEWEST, round(LEAST_FITTING * len(own)))]
    looked = _look(medium, own[_some(np.isin(np.arange(len(own)), least), _MOST_SOUGHT, rng)], rng)
    if looked is None:
        return nothing
    seeds = _seeds(looked, own, least, groups, activations)
    best = _farthest(looked.look.shared_by(np.isin(looked.rows, seed)) for seed in seeds)
    if best is None:
        return nothing
    found = _told(inputs, labels, medium, looked, best, (index, own), rng) if _stands_out(best) else nothing
    if inputs is None or policy.judge_planted(found[1]) is not Verdict.CLEAN:
        return found
    convicted = screening.classes[index].verdict is Verdict.POISONED
    whole = [best.probability > 0.5, *([np.isin(looked.rows, own[least])] if convicted else [])]
    parts = [part for holders in whole if _may_contradict(inputs, index, looked, holders) for part in looked.look.parts(holders)]
    for part in sorted(parts, key=lambda each: -each.separation):
        if part.separation < policy.POLICY["shared_part"].value:
            break
        told = _told(inputs, labels, medium, looked, part, (index, own), rng, most=_MOST_OF_A_PART)
        if policy.judge_planted(told[1]) is not Verdict.CLEAN:
            return told
    return found


def _may_contradict(inputs: Affinity, index: int, looked: _Looked, holders: NDArray[np.bool_]) -> bool:
    return _conflict(inputs, index, looked.rows, holders)["label_conflict"] >= policy.POLICY["label_conflict"].value


def _told(
    inputs: Affinity | None,
    labels: Labels,
    medium: Medium,
    looked: _Looked,
    shared: Shared,
    of: tuple[int, NDArray[np.int64]],
    rng: np.random.Generator,
    *,
    most: float = _MOST_OF_A_KIND,
) -> _Found:
    """Say which samples of a class share what was found in some of them, and what speaks against those.

    ``most`` is the part of another class that may share it, too.
    """
    index, own = of
    probability, evidence = _probability(medium, looked, shared, own), {"shared": shared.separation}
    if inputs is None:
        return probability, evidence
    held = probability > 0.5
    rivals = np.bincount(inputs.rival[own[held]], minlength=len(labels.class_names))
    likely = (rival for rival in np.argsort(-rivals)[:_RIVALS] if rivals[rival])
    if any(_held_in(rival, medium, looked, shared, labels, rng) > most for rival in likely):
        return probability, evidence  # it speaks for a wrong label, and not for a pattern that was planted
    return probability, {**evidence, **_conflict(inputs, index, own, held)}


def _farthest(told: Iterable[Shared | None]) -> Shared | None:
    """Return what lies farthest from the other samples."""
    return max((each for each in told if each is not None), key=lambda each: each.separation, default=None)


def _held_in(rival: int, medium: Medium, looked: _Looked, shared: Shared, labels: Labels, rng: np.random.Generator) -> float:
    """Return the part of another class that shares it, too: where it is large, they are of that kind, and wrongly labelled."""
    rows = rng.permutation(np.flatnonzero(labels.given == rival))[:_ASKED]
    return float(np.mean(_probability(medium, looked, shared, np.sort(rows)) > 0.5)) if len(rows) else 0.0


def _conflict(inputs: Affinity, index: int, own: NDArray[np.int64], held: NDArray[np.bool_]) -> dict[str, float]:
    """Return the label conflict of some samples of a class, and its lower bound."""
    return conflict_evidence(inputs.of(index, own).asked_again(held), held)


_Kind = Literal["distant", "near", "beside"]
"""Who belongs to a group is told by a pattern that stands far out, by one that does not, or by the model beside the inputs."""


@dataclass(frozen=True)
class _Regrouping:
    """What some samples share, in which look, and of which kind it is."""

    looked: _Looked
    shared: Shared
    kind: _Kind


@dataclass(frozen=True)
class _Looked:
    """A look with the row numbers of what it was taken at, and what is seen beside the inputs."""

    look: Look
    rows: NDArray[np.int64]
    activations: Rows | None = None


def _look(medium: Medium, rows: NDArray[np.int64], rng: np.random.Generator) -> _Looked | None:
    """Look at some samples; None where there are too few."""
    seen, read = _seen(medium, np.sort(rows))
    return _Looked(Look(seen, rng), read) if len(read) >= 2 * FEWEST else None


def _seen(medium: Medium, rows: NDArray[np.int64]) -> tuple[list[View], NDArray[np.int64]]:
    """Return the views of those samples that can be read, and their row numbers."""
    seen, read = [], [np.zeros(0, np.int64)]
    for start in range(0, len(rows), STRETCH):
        inputs, numbers = medium.read(rows[start : start + STRETCH])
        if len(numbers):
            seen.append(medium.views(inputs))  # small beside the inputs, of which few are held at a time
            read.append(numbers)
    return [joined(each) for each in zip(*seen, strict=True)], np.concatenate(read)


def _some(members: NDArray[np.bool_], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return some members, at most half as many as may be looked at, and others."""
    inside, outside = (rng.permutation(np.flatnonzero(side)) for side in (members, ~members))
    inside = inside[: max(most // 2, most - len(outside))]
    return np.concatenate([inside, outside[: most - len(inside)]])


def _seeds(
    looked: _Looked, own: NDArray[np.int64], least: NDArray[np.int64], groups: NDArray[np.int64], activations: Rows
) -> Iterator[NDArray[np.int64]]:
    """Yield samples that may hold a pattern: those that fit their label least, groups, and the ends of the activations."""
    yield own[least]
    for number in np.unique(groups[groups > 0]):
        yield own[groups == number]
    for end in tails(np.asarray(activations[looked.rows], np.float64)):
        yield looked.rows[end]


def _probability(medium: Medium, looked: _Looked, shared: Shared, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the probability that each of some samples shares what is shared, 0 where it cannot be read, shape of ``rows``."""
    probability = np.zeros(1 + max(rows.max(), looked.rows.max()))
    probability[looked.rows] = shared.probability
    others = np.setdiff1d(rows, looked.rows)
    for start in range(0, len(others), STRETCH):
        inputs, read = medium.read(others[start : start + STRETCH])
        if len(read):
            beside = () if looked.activations is None else (_points(looked.activations, read),)
            probability[read] = shared.held_by((*medium.views(inputs), *beside))
    return probability[rows]


def _accused(
    result: ClassResult,
    mine: NDArray[np.bool_],
    columns: Columns,
    found: tuple[NDArray[np.int64], NDArray[np.float64]],
    evidence: dict[str, float],
    reason: str,
) -> ClassResult:
    """Return a class, whose samples are ``mine``, with one more group that is suspicious: rows, and the probability of each."""
    rows, probability = found
    group = GroupResult(1 + max(each.id for each in result.groups), 0, 0.0, Verdict.SUSPICIOUS, evidence)
    _take_over(columns, rows, np.ones(len(rows), bool), probability, group)
    worst = max(result.verdict, Verdict.SUSPICIOUS, key=lambda verdict: verdict.severity)
    return _resized(
        replace(result, verdict=worst, groups=(*result.groups, group)), columns.group[mine], policy.of_group(group.id, reason)
    )


def _take_over(
    columns: Columns, rows: NDArray[np.int64], held: NDArray[np.bool_], probability: NDArray[np.float64], group: GroupResult
) -> None:
    """Make the samples that hold what is shared the group, and clear the others."""
    columns.group[rows] = np.where(held, group.id, 0)
    columns.set(rows[held], group.verdict)
    columns.set(rows[~held], Verdict.CLEAN)
    columns.surely(rows[held], probability[held])


def _resized(result: ClassResult, groups: NDArray[np.int64], reason: str) -> ClassResult:
    """Return a class with one more reason, after the numbers ``groups`` of its samples' groups changed."""
    counts = np.bincount(groups[groups >= 0], minlength=1 + max(group.id for group in result.groups))
    return replace(result, groups=sized(result.groups, counts, result.n), reasons=policy.with_reason(result.reasons, reason))

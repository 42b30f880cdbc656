"""The table ``verdict``: what a scan by the command's defaults says where such methods are known to fail, and what it is to reach.

A row whose model does not obey the trigger (ASR below 50 %) is shown, but does not count: there is no backdoor to find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toxscreen.attacks.base import Attack
from toxscreen.benchmark import paper, tables
from toxscreen.benchmark.cases import Case, Use, hosts, uses
from toxscreen.benchmark.grid import Settings, Steps
from toxscreen.benchmark.measuring import figures, model, retrained
from toxscreen.benchmark.regimes import REGIMES, Regime, in_order
from toxscreen.benchmark.subject import Subject, predict
from toxscreen.poisoning import NEXT
from toxscreen.result import Verdict
from toxscreen.trigger import load
from toxscreen.trigger.words import Words

SEEDS = 3

_OBEYS = 0.5
"""ASR from which a model has a backdoor."""

_SUSPICIOUS = 0.01
"""Part of clean classes that may be suspicious."""

_WITHIN, _CONTROL = 0.05, 0.05
"""How far the recovered trigger may be from the ASR of the true one, and what its controls may flip at most."""

_CAN_BE_RECOVERED = ("badnets", "tact", "words", "sentence", "signature")
"""The attacks whose trigger is a patch or words."""

_N_HOSTS = 2000
_EDGES = (0.1, 0.5, 0.9)
"""Scores between which samples are counted: a score is to be the probability of poison."""

_TRIES = 200
"""Empty texts that show all phrases of an attack on texts."""


def cells(settings: Settings, seeds: int) -> Iterator[tuple[Case, int]]:
    """Yield rows and seeds so that a table that was stopped has the most telling rows of every regime, with few seeds."""
    for seed in range(seeds):
        for case in in_order(quick=settings.scale == "quick"):
            yield (paper.full(case) if settings.scale == "full" else case), seed


def steps(case: Case, seed: int, settings: Settings) -> Steps:
    """Return the measurements of a cell."""
    subject = Subject(case, seed, settings)
    found: dict[str, Callable[[], dict[str, Any]]] = {"model": partial(model, subject), "scan": partial(_scanned, subject)}
    if case.plants:
        found["triggers"] = partial(_triggers, subject)
    if any(case.name == each.name for regime in REGIMES if regime.left is not None for each in regime.cases):
        found["retrained"] = partial(retrained, subject)
    return found


def _scanned(subject: Subject) -> dict[str, Any]:
    """Hold verdicts and flags against the truth; of the missed samples, count those that the model itself misreads."""
    result, planted = subject.result, subject.planted
    metrics = subject.against_truth(result.samples)
    flagged, predicted = result.samples["flagged"].to_numpy(), np.asarray(result.samples["predicted"].to_pylist(), object)
    missed = planted.poisoned & ~flagged
    names = np.asarray(planted.split.class_names, object)[planted.split.labels]
    return {
        **figures(metrics),
        "verdict": str(result.verdict),
        "n_classes": len(result.classes),
        "poisoned_classes": [found.name for found in metrics.classes if found.poisoned],
        "by_verdict": {str(kind): [found.name for found in result.classes if found.verdict is kind] for kind in Verdict},
        "n_flagged": int(flagged.sum()),
        "covers_flagged": metrics.covers_flagged,
        "n_missed": int(missed.sum()),
        "n_missed_misread": int((missed & (predicted != names)).sum()),
        "scores": _by_score(result.samples["score"].to_numpy(), planted.poisoned),
        "timings": dict(result.timings),
        "seconds": sum(result.timings.values()),
    }


def _by_score(score: NDArray[np.float64], poisoned: NDArray[np.bool_]) -> list[dict[str, float]]:
    """Count the examined samples of each range of scores, the poison among them, and what the scores add up to."""
    known = np.isfinite(score)
    number = np.digitize(score[known], _EDGES)
    sums = (np.bincount(number, weights, minlength=len(_EDGES) + 1) for weights in (None, poisoned[known], score[known]))
    return [dict(zip(("n", "poisoned", "sum"), each, strict=True)) for each in np.column_stack([*sums]).tolist()]


def _triggers(subject: Subject) -> dict[str, Any]:
    """Put the recovered trigger of each poisoned class on held-out samples, and the true one on the same."""
    split, rng = subject.held_out, np.random.default_rng(subject.seed)
    names = split.class_names
    plants = zip(subject.case.plants, subject.planted.attacks, strict=True)
    pairs = [one for part, attack in plants for use in uses(part, attack, names) for one in _one_target_each(use, names)]
    return {"triggers": [_beside_the_true_one(subject, use, _N_HOSTS // len(pairs), rng) for use in pairs]}


def _one_target_each(use: Use, names: Sequence[str]) -> list[Use]:
    if use.target != NEXT:
        return [use]
    return [Use(use.attack, name, names[(index + 1) % len(names)]) for index, name in enumerate(names)]


def _beside_the_true_one(subject: Subject, use: Use, most: int, rng: np.random.Generator) -> dict[str, Any]:
    rows, goals = hosts(use, subject.held_out, rng, most)
    inputs = [subject.held_out.inputs[row] for row in rows.tolist()]
    flips = float(np.mean(predict(subject.classifier, use.attack.apply(inputs, rng)) == goals))
    found: dict[str, Any] = {"source": use.source, "target": use.target, "attack_success": flips, "recovered": None}
    groups = [group for each in subject.result.classes if each.name == use.target for group in each.groups if group.trigger]
    if not groups:
        return found
    best = max(groups, key=lambda group: (group.verdict.severity, group.evidence["trigger_flips_lower"]))
    trigger = load(best.trigger or {})
    seen = np.array(inputs, object) if isinstance(inputs[0], str) else np.stack(inputs).astype(np.float32)
    put_on = trigger.put_on(seen)
    given = put_on if isinstance(trigger, Words) else put_on.clip(0, 255).round().astype(np.uint8)
    return {
        **found,
        "recovered": str(trigger),
        "proved": best.verdict is Verdict.POISONED,
        "flips": float(np.mean(predict(subject.classifier, list(given)) == goals)),
        "control": best.evidence["trigger_control"],
        "named": set(trigger.phrases) == _phrases(use.attack, rng) if isinstance(trigger, Words) else None,
    }


def _phrases(attack: Attack, rng: np.random.Generator) -> set[str]:
    """Return what an attack adds to texts."""
    return {str(text).strip() for text in attack.apply([""] * _TRIES, rng)}


def markdown(document: Mapping[str, Any]) -> str:
    """Return one table of the goals, and one of the rows of each regime."""
    by_case = tables.by_case(document, "scan")
    parts = [(regime, [by_case[case.name] for case in _sorted(regime) if case.name in by_case]) for regime in REGIMES]
    measured = [(regime, found) for regime, found in parts if found]
    shown = [_clean(regime, found) if regime.tpr is None else _planted(regime, found) for regime, found in measured]
    return "\n\n".join([_goals(measured), *_scores(measured), *shown])


def _sorted(regime: Regime) -> list[Case]:
    """Return the rows in the order in which they are read: by data and attack, from little poison to much."""

    def key(case: Case) -> tuple[Any, ...]:
        plant = case.plants[0] if case.plants else None
        amount = (plant.attack, plant.target, plant.share or plant.rate) if plant is not None else ()
        return (case.data, case.imbalance, *amount)

    cases = (*regime.cases, *regime.quick)
    return list(cases) if regime.tpr is None else sorted(cases, key=key)


def _goals(measured: Sequence[tuple[Regime, list[list[tables.Cell]]]]) -> str:
    header = ["regime", "goal", "best known", "rows that count", "rows that reach it", "measured"]
    rows = []
    for regime, found in measured:
        counted = [cells for cells in found if _counts(cells)]
        reached = sum(_reaches(regime, cells) for cells in counted)
        rows.append([regime.name, regime.goal, regime.best, str(len(counted)), str(reached), _overall(regime, counted)])
    targets = [target for _, found in measured for cells in found for target in _recoverable(cells)]
    if targets:
        within = [each for each in targets if each["recovered"] and _near(each) and each["control"] <= _CONTROL]
        said = f"{sum(each['recovered'] is not None for each in targets)} recovered"
        goal = "flips within 5 points of the true trigger's ASR, control <= 5%"
        rows.append(["recovered trigger, patches and words, by target", goal, "none", str(len(targets)), str(len(within)), said])
    return tables.markdown(header, rows)


def _scores(measured: Sequence[tuple[Regime, list[list[tables.Cell]]]]) -> list[str]:
    """Return a table of how many samples of each range of scores are poison, in the rows whose model has a backdoor, if any."""
    planted = [row for regime, found in measured if regime.tpr is not None for row in found if _counts(row)]
    counted = [scores for row in planted for scores in tables.figures(row, "scan", "scores")]
    bounds = (0, *_EDGES, 1)
    rows = []
    for number in range(len(bounds) - 1):
        n, poisoned, total = (sum(scores[number][name] for scores in counted) for name in ("n", "poisoned", "sum"))
        shown = [f"{100 * part / n:.2f}" if n else "-" for part in (total, poisoned)]
        rows.append([f"{bounds[number]:g} to {bounds[number + 1]:g}", f"{n:,.0f}", *shown])
    header = ["score of a sample, rows that count", "samples", "mean score %", "poison %"]
    return [tables.markdown(header, rows)] if counted else []


def _counts(cells: Sequence[tables.Cell]) -> bool:
    """Say whether a row has a backdoor that can be found, or none at all."""
    rates = tables.figures(cells, "model", "attack_success")
    return not rates or float(np.mean(rates)) >= _OBEYS


def _reaches(regime: Regime, cells: Sequence[tables.Cell]) -> bool:
    if float(np.mean(tables.figures(cells, "scan", "fpr"))) > regime.fpr:
        return False
    if regime.named and not all(target.get("named") for target in _targets(cells)):
        return False
    left = tables.figures(cells, "retrained", "attack_success")
    if regime.left is not None and not (left and float(np.mean(left)) <= regime.left):
        return False
    if regime.tpr is not None:
        return float(np.mean(tables.figures(cells, "scan", "tpr"))) >= regime.tpr
    suspicious = _classes(cells, Verdict.SUSPICIOUS) / sum(tables.figures(cells, "scan", "n_classes"))
    return not _classes(cells, Verdict.POISONED) and suspicious < _SUSPICIOUS


def _overall(regime: Regime, counted: Sequence[Sequence[tables.Cell]]) -> str:
    """Return means over rows, each the mean of its seeds; or the classes accused, of how many."""
    rates = [
        tables.percent(
            [float(np.mean(tables.figures(row, "scan", name))) for row in counted if regime.tpr or name == "fpr"], digits
        )
        for name, digits in (("tpr", 1), ("fpr", 3))
    ]
    if regime.tpr is not None:
        return f"TPR {rates[0]}, FPR {rates[1]}"
    cells = [cell for row in counted for cell in row]
    n = sum(tables.figures(cells, "scan", "n_classes"))
    poisoned, suspicious = (_classes(cells, kind) for kind in (Verdict.POISONED, Verdict.SUSPICIOUS))
    return f"{poisoned} poisoned and {suspicious} suspicious of {n} classes, {rates[1]}% flagged"


def _classes(cells: Sequence[tables.Cell], verdict: Verdict) -> int:
    return sum(map(len, tables.figures(cells, "scan", "by_verdict", str(verdict))))


def _clean(regime: Regime, found: Sequence[Sequence[tables.Cell]]) -> str:
    header = [regime.name, "samples", "seeds", "CA", "classes", "poisoned", "suspicious", "inconclusive", "flagged %", "seconds"]
    rows = []
    for cells in found:
        row = [str(cells[0]["case"]).removesuffix(", nothing planted"), tables.mean(tables.figures(cells, "model", "n_samples"))]
        row += [str(len(cells)), tables.percent(tables.figures(cells, "model", "clean_accuracy"))]
        row.append(str(sum(tables.figures(cells, "scan", "n_classes"))))
        row += [str(_classes(cells, kind)) for kind in (Verdict.POISONED, Verdict.SUSPICIOUS, Verdict.INCONCLUSIVE)]
        row.append(tables.percent(tables.figures(cells, "scan", "fpr"), 3))
        rows.append([*row, tables.mean(tables.figures(cells, "scan", "seconds"))])
    return tables.markdown(header, rows)


def _planted(regime: Regime, found: Sequence[Sequence[tables.Cell]]) -> str:
    header = [regime.name, "poison", "share of the class", "seeds", "CA", "ASR", "TPR", "FPR", "false alarms"]
    header += ["classes proved", "suspicious", "missed", "triggers recovered", "flips less ASR", "control", "named", "seconds"]
    header += ["ASR after repair"] * (regime.left is not None)
    rows = []
    for cells in found:
        row = [str(cells[0]["case"]), tables.mean(tables.figures(cells, "model", "n_poisoned"))]
        row += [tables.percent(tables.figures(cells, "model", "share"), 1), str(len(cells))]
        row.append(tables.percent(tables.figures(cells, "model", "clean_accuracy"), 1))
        obeys = "" if _counts(cells) else ": does not count"
        row.append(tables.percent(tables.figures(cells, "model", "attack_success"), 1) + obeys)
        row += [tables.percent(tables.figures(cells, "scan", name), digits) for name, digits in (("tpr", 1), ("fpr", 2))]
        row += [tables.alarms(cells, "scan"), *_told(cells), *_recovered(cells)]
        row.append(tables.mean(tables.figures(cells, "scan", "seconds")))
        rows.append([*row, tables.percent(tables.figures(cells, "retrained", "attack_success"), 1)][: len(header)])
    return tables.markdown(header, rows)


def _told(cells: Sequence[tables.Cell]) -> list[str]:
    """Return how many poisoned classes were proved, only suspected, and missed, over all seeds."""
    proved = suspected = 0
    for cell in cells:
        step = cell["steps"]["scan"]
        holding = set(step["poisoned_classes"])
        proved += len(holding & set(step["by_verdict"][Verdict.POISONED]))
        suspected += len(holding & set(step["by_verdict"][Verdict.SUSPICIOUS]))
    n = sum(map(len, tables.figures(cells, "scan", "poisoned_classes")))
    return [f"{proved} of {n}", str(suspected), str(sum(map(len, tables.figures(cells, "scan", "missed"))))]


def _recovered(cells: Sequence[tables.Cell]) -> list[str]:
    """Return how many triggers were recovered, their flips less the ASR of the true one in points, their control, and the exact."""
    targets = _targets(cells)
    found = [target for target in targets if target["recovered"]]
    less = tables.percent([target["flips"] - target["attack_success"] for target in found], 1)
    control = tables.percent([target["control"] for target in found], 1)
    named = [target["named"] for target in found if target["named"] is not None]
    exact = f"{sum(named)} of {len(targets)}" if named else "-"
    return [f"{len(found)} of {len(targets)}", less, control, exact]


def _recoverable(cells: Sequence[tables.Cell]) -> list[dict[str, Any]]:
    """Return the triggers of a row that are patches or words and that the model obeys."""
    attacks = {plant["attack"] for cell in cells for plant in cell["settings"]["plants"]}
    if not attacks or not attacks <= set(_CAN_BE_RECOVERED):
        return []
    return [target for target in _targets(cells) if target["attack_success"] >= _OBEYS]


def _targets(cells: Sequence[tables.Cell]) -> list[dict[str, Any]]:
    return [target for targets in tables.figures(cells, "triggers", "triggers") for target in targets]


def _near(target: Mapping[str, Any]) -> bool:
    return bool(abs(target["flips"] - target["attack_success"]) <= _WITHIN)

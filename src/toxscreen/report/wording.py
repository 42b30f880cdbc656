"""The sentences of terminal and report: the verdict, what to do next, what the numbers mean, what this screen cannot see."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from toxscreen.config import ANALYSES
from toxscreen.result import ClassResult, GroupResult, ScanResult, Verdict
from toxscreen.verdict import POLICY

_NAMES = 3
"""Class names that a sentence lists before it says how many more there are."""
_OPTIONS = ("model", "arch", "split", "input_column", "label_column", "layer", "size", "channels", "mean", "std")
"""What of a recorded command a new one has to repeat: how data and model are read."""

EVIDENCE = {
    "relative_size": "The group's part of its class. A clean class tends to fall into halves; poison is usually the smaller part.",
    "separation": "Distance between the group and the rest of its class, in standard deviations, along a direction that other"
    " samples chose. One single cloud of samples gives 3 to 5, planted groups 5 to 30.",
    "separation_lower": "The same less what a group of its size may owe to chance.",
    "likelihood_ratio": "How much better two clouds of points describe the class than one does; large values speak for two.",
    "label_conflict": "How badly the group's inputs fit their label, asked of something that never saw the trigger: 0 like the rest"
    " of the class, 1 like samples of other classes. A natural kind of its own stays near 0.",
    "label_conflict_lower": "The same less two standard errors: small groups have to be clearer than large ones.",
    "comparisons": "Ways to compare inputs, of which the surest answer counts: 2 for pictures with and without their colours.",
    "shared": "Distance, in standard deviations, between the inputs that show what the group shares and the rest of the class, each"
    " judged by what others taught. Planted patterns in pictures had 11 to 190, natural parts of a class up to 12 (of texts 32).",
    "p_value": "The probability that the most telling group of a clean class tells as much as this one.",
    "trigger_flips": "The part of inputs of other classes that the model gives this class once they carry the recovered trigger.",
    "trigger_flips_lower": "The lower end of its 95 % interval.",
    "trigger_control": "The same with what ordinary samples of the class hold in the trigger's place.",
    "trigger_control_upper": "The upper end of its 95 % interval.",
    "trigger_returns": "The part of the class's samples with the trigger that leave the class when it is taken off.",
    "trigger_returns_lower": "The lower end of its 95 % interval.",
    "trigger_control_returns": "The part of ordinary samples that leave the class when the same place is filled.",
    "trigger_control_returns_upper": "The upper end of its 95 % interval.",
    "exre_l": "Samples of the group that a model trained without it gives their own label: l of exclusionary reclassification.",
    "exre_p": "Those that it gives the most frequent other class: p.",
    "exre_left": "Those that it gives any other class.",
    "exre_classes": "How many other classes it gives them.",
    "exre_score": "l/p. Above 1 the group fits its label, below 1 it looks like another class.",
    "exre_l_share_lower": "The share l of the group, lower end of its 95 % interval.",
    "exre_l_share_upper": "The same, upper end.",
    "exre_p_share_lower": "The share p of the group, lower end of its 95 % interval.",
    "exre_p_share_upper": "The same, upper end.",
    "exre_certainty": "How certain that model is of the other classes that it gives.",
    "exre_resemblance": "How far, for that model, those samples lie among ordinary ones of the classes that it gives them: 1 as if"
    " they were of them, 0 among themselves, as a natural kind of its own does.",
    "exre_agreement": "The part of them that a view of the inputs, blind to the trigger, takes for the same classes.",
    "exre_recall": "The part of the held-out samples of any class, the worst one, that that model reads as labelled.",
    "silhouette_score": "How clearly the group stands apart among the leading components, from -1 to 1.",
    "silhouette_of_one_cloud": "The silhouette score that one single cloud of this size and shape gives when it is cut in two.",
    "leading_variance": "The part of the variance of the class that lies along its leading direction.",
    "mean_que": "How far the samples stick out on average after whitening by a covariance that outliers did not shape; 1 for a"
    " Gaussian.",
    "components": "The principal components that were looked at.",
    "robust_deviations": "How far the likelihood ratio lies from the median of all classes, in median absolute deviations as a"
    " Gaussian's standard deviations.",
    "density_clusters": "The clusters of dense samples that the class has a part in.",
    "noise": "The part of the class that lies in no dense cluster.",
}
"""What each measurement means, one sentence each; a measurement that is not listed is shown without one."""

VERDICTS = {
    Verdict.CLEAN: "No group of samples both stands apart from its class and contradicts its label. A natural sub-population may"
    " stand apart.",
    Verdict.INCONCLUSIVE: "No judgement was possible, or the model may not have learned what was planted; the reasons say which.",
    Verdict.SUSPICIOUS: "A group of samples does not belong, or shares what the model obeys; nothing has yet proved that it was"
    " planted.",
    Verdict.POISONED: "A group stands out, and a second, causal test confirmed it: the model obeys a trigger that was"
    " recovered from it, or a model trained without the group takes it for another class.",
}

TRIGGER_TESTS = {
    "flips": "Put on inputs of other classes: the model gives them this class",
    "returns": "Taken off samples of the class: they leave it",
}
"""What is done with a recovered trigger, by the name of its count in ``result.json``."""

_VERDICTS_BY_RULE = {
    Verdict.CLEAN: "The rule that was chosen accuses no group of the class.",
    Verdict.SUSPICIOUS: "The rule that was chosen accuses a group of samples. It is not calibrated, and nothing has proved that"
    " they were planted.",
}
"""What the verdicts say where a published rule was chosen."""

_UNASKED = (
    "No group of samples stands far apart from its class. Only activations were given, so whether the inputs fit their labels was"
    " not asked."
)
"""What a clean verdict says where the inputs could not be asked."""

LABELS = {
    "p_value": "p-value",
    "trigger_flips": "trigger: sent here",
    "trigger_flips_lower": "trigger: sent here, at least",
    "trigger_control": "control: sent here",
    "trigger_control_upper": "control: sent here, at most",
    "trigger_returns": "trigger taken off: leave",
    "trigger_returns_lower": "trigger taken off: leave, at least",
    "trigger_control_returns": "control taken off: leave",
    "trigger_control_returns_upper": "control taken off: leave, at most",
    "separation_lower": "separation, at least",
    "label_conflict_lower": "label conflict, at least",
    "shared": "what inputs share",
    "exre_l": "left out: own label (l)",
    "exre_p": "left out: one other class (p)",
    "exre_left": "left out: any other class",
    "exre_classes": "left out: other classes",
    "exre_score": "left out: l/p",
    "exre_l_share_lower": "share l, at least",
    "exre_l_share_upper": "share l, at most",
    "exre_p_share_lower": "share p, at least",
    "exre_p_share_upper": "share p, at most",
    "exre_certainty": "left out: certainty",
    "exre_resemblance": "left out: resemblance",
    "exre_agreement": "left out: agreement",
    "exre_recall": "left out: recall of classes",
    "accuracy_on_training_data": "training data read as labelled",
    "channels_first": "channels before height and width",
    "dtype": "the model computes in",
    "interpolation": "resized by",
    "kind": "kind of input",
    "last_hidden": "last hidden layer",
    "longest": "longest text, in words",
    "mean": "mean taken off each channel",
    "n_components": "components",
    "n_samples": "samples",
    "n_words": "words known",
    "out_of_sample": "held-out samples",
    "out_of_sample_accuracy": "accuracy on held-out samples",
    "pattern": "pattern of a word",
    "scale": "pixel values multiplied by",
    "sha256": "SHA-256 of the word list",
    "stored": "activations are kept as",
    "std": "each channel divided by",
    "trained_here": "trained for this scan",
}
"""How the keys of inputs, settings and measurements read; one that is not listed is shown with spaces for underscores."""

BLIND_SPOTS = (
    "Poison that leaves no trace in the activations that were looked at: attacks built to blend in, a handful of samples in a large"
    " class, or poison that the model never learned.",
    "A change of whole pictures that only the poison has, such as a tint or a bend: such pictures can vouch for each other,"
    " and the smallest group that would have been found is meant of such as contradict their label.",
    "Intent. A group that stands out may be planted, but also mislabelled, duplicated, or a second kind of thing under one name;"
    " only people who know where the data comes from can tell.",
    "A model that was tampered with in any other way than through this training data.",
    "Data that was not given to this scan, such as a test split or what the model meets in use.",
)
"""What no screen of this kind can see."""


_PENDING = {
    "triggers": "triggers have not been looked for yet",
    "confirmation": "the confirmation that was asked for has not been made yet",
}
"""What has not been done, by the name of the step."""

_BY_RULE = ("the chosen rule accuses", "the chosen rule accuses")
"""Instead of what a calibrated finding looks like, for one sample and for several."""


@dataclass(frozen=True)
class Step:
    """Something to do next, with the command that does it, if there is one."""

    text: str
    command: str | None = None


def visible(text: str) -> str:
    """Return ``text`` with every character that would not show, or would change how others show, spelled out.

    Control characters become their pictures (``␛``), and marks of direction, zero-width characters, lone surrogates and the like
    their code point (``⟨U+202E⟩``): neither a terminal nor a browser acts on them, and a reader sees that they are there.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character < " ":
        return chr(0x2400 + ord(character))
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
        return f"⟨U+{ord(character):04X}⟩"
    return character


def exactly(text: str) -> str:
    """Return ``text`` made visible, and odd spaces spelled out too: in a trigger they may be all there is."""
    return "".join(f"⟨U+{ord(c):04X}⟩" if c != " " and unicodedata.category(c) == "Zs" else c for c in visible(text))


def clipped(text: str, width: int) -> str:
    """Return ``text`` made visible and cut to ``width`` characters."""
    shown = visible(text[: width + 1])
    return shown if len(shown) <= width else f"{shown[: width - 1]}…"


def count(n: int, noun: str) -> str:
    """Return a number with its noun, such as ``1,959 samples``."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"


def headline(result: ScanResult) -> str:
    """Return the verdict in a few sentences a person can act on."""
    return " ".join(filter(None, [_misread(result), _found(result), unfinished(result)]))


def _misread(result: ScanResult) -> str:
    """Say first of all that the model does not look like that of the data, since nothing that follows is worth more than that."""
    facts = result.inputs.get("model")
    accuracy = facts.get("accuracy_on_training_data") if isinstance(facts, Mapping) else None
    if not isinstance(accuracy, float) or accuracy >= POLICY["model_accuracy"].value or _is(result, "model", "trained_here", True):
        return ""
    return (
        f"The model reads only {accuracy:.1%} of this data as its labels say: first check its preprocessing (--size, --mean, --std)"
        " and the order of its classes."
    )


def unfinished(result: ScanResult) -> str:
    """Say what of a scan was still to come when its result was written; nothing for one that is over."""
    left = " and ".join(_PENDING.get(step, step) for step in result.pending)
    return f"This scan is not finished: {left}." if left else ""


def _found(result: ScanResult) -> str:
    undecided = [c for c in result.classes if c.verdict is Verdict.INCONCLUSIVE]
    clean = sum(c.verdict is Verdict.CLEAN for c in result.classes)
    poisoned = _finding(result.classes, Verdict.POISONED, ("is poison", "are poison"))
    verbs = _BY_RULE if by_rule(result) else ("looks planted", "look planted")
    suspected = _finding(result.classes, Verdict.SUSPICIOUS, verbs)
    accused = [c for c in result.classes if c.accused]
    if poisoned and suspected and len(accused) == 1:
        suspected = suspected.replace(_named(accused[0]), "It also", 1)
    sentences = [poisoned, suspected]
    if not any(sentences):
        return _nothing_found(result, undecided)
    if undecided:
        sentences.append(f"{count(len(undecided), 'class')} could not be judged.")
    elif clean:
        sentences.append(f"Nothing was found in the other {count(clean, 'class') if clean > 1 else 'class'}.")
    return " ".join(filter(None, sentences))


def verdict_meanings(result: ScanResult) -> dict[Verdict, str]:
    """Return what each verdict says in a scan like this one, in a sentence or two."""
    if by_rule(result):
        return VERDICTS | _VERDICTS_BY_RULE
    return VERDICTS if inputs_asked(result) else VERDICTS | {Verdict.CLEAN: _UNASKED}


def by_rule(result: ScanResult) -> bool:
    """Say whether a published rule made the verdicts, which is not calibrated."""
    analysis = result.settings.get("analysis")
    return isinstance(analysis, Mapping) and analysis.get("name", ANALYSES[0]) != ANALYSES[0]


def inputs_asked(result: ScanResult) -> bool:
    """Return False for a scan of activations alone: nothing could say whether the inputs fit their labels."""
    alone = _is(result, "data", "modality", "activations")
    return not alone or any("label_conflict" in group.evidence for c in result.classes for group in c.groups)


def label(key: str) -> str:
    """Return a key of the result as people read it."""
    return LABELS.get(key, key.replace("_", " "))


def drawn(n: int, compared: int, shown: int) -> str:
    """Say why ``shown`` samples of a class of ``n`` are drawn when the screen compared ``compared`` of them."""
    sentences = []
    if compared < n:
        sentences.append(
            f"Only the {compared:,} of the class's {count(n, 'sample')} that the model gives their own label are compared;"
            " it reads the others as another class."
        )
    if shown < compared:
        sentences.append(
            f"Of {count(compared, 'sample')}, {shown:,} are drawn, about as many from each group, so that small groups are seen."
        )
    return " ".join(sentences)


def next_steps(result: ScanResult, run: str | None = None, asked: Mapping[str, Any] | None = None) -> tuple[Step, ...]:
    """Return what to do next, in order; other advice for each verdict.

    Parameters
    ----------
    result
        What the scan found.
    run
        Path of the run folder, where it is known.
    asked
        What the command line was asked for, from the record of the run; placeholders stand for what it does not say.
    """
    steps: list[Step] = []
    found = result.verdict in (Verdict.POISONED, Verdict.SUSPICIOUS)
    if result.pending and asked:
        confirming = " --confirm" if "confirmation" in result.pending else ""
        command = f"{_command(asked)}{confirming} --out {shlex.quote(run or 'RUN')}"
        steps.append(Step("Let the scan go on where it ended: what it says so far may change.", command))
    if found and by_rule(result):
        steps.append(Step("Scan with our own analysis, which is calibrated, before you act on what a published rule says."))
    if found:
        steps += _after_a_finding(result, run, asked or {})
    elif result.verdict is Verdict.CLEAN:
        steps.append(
            Step("Keep this run folder with the model: the fingerprints below say which data and which model were examined.")
        )
        steps.append(Step("Read what this screen cannot see, at the end, before you rely on it."))
    if any(c.verdict is Verdict.INCONCLUSIVE for c in result.classes):
        steps.append(Step("Read why some classes are inconclusive, and supply what their reasons say is missing."))
    if result.not_examined:
        steps.append(Step("Repair what was not examined; it is listed below with the reasons."))
    return (*steps, *_scan_again(result, asked or {}, found=found))


def _scan_again(result: ScanResult, asked: Mapping[str, Any], *, found: bool) -> list[Step]:
    if found:
        again = "Then scan the cleaned data again: the group may be one part of the poison, and a next may show when it is gone."
    elif result.verdict is Verdict.CLEAN:
        again = "Scan again when the data or the model changes."
    else:
        again = "Then scan again."
    if _is(result, "data", "modality", "activations"):
        steps = [Step(f"{again} This takes the activations of the data as it then is.")]
        if not inputs_asked(result):
            steps.append(
                Step("Scan the data with its model too, if you can: only the inputs tell poison from a natural sub-population.")
            )
        return steps
    data = "COPY" if found else None
    if not _is(result, "model", "trained_here", True):
        if found:
            again += " Take the model that was scanned: a repaired one reads poison as what it is, and there is nothing to see."
        return [Step(again, _command({"model": "MODEL", **asked}, data))]
    text = "The model was trained for this scan. If a classifier was trained on this data before, scan the data with it."
    return [Step(again, _command(asked, data)), Step(text, _command({**asked, "model": "MODEL"}))]


def _command(asked: Mapping[str, Any], data: str | None = None) -> str:
    """Return the command that scans ``data``, or what was scanned, with the options that were asked for."""
    words = ["toxscreen", "scan", data or str(asked.get("data") or "DATA")]
    for name in _OPTIONS:
        value = asked.get(name)
        if value is not None:
            between = "x" if name == "size" else ","
            text = between.join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            words += [f"--{name.replace('_', '-')}", text]
    return shlex.join(words)


def _after_a_finding(result: ScanResult, run: str | None, asked: Mapping[str, Any]) -> list[Step]:
    if result.verdict is Verdict.POISONED:
        caution = "Take models trained on this data out of service: whoever knows the trigger decides what they answer."
    else:
        caution = "Do not train on this data, and do not put a model trained on it into service, until this is explained."
    samples = str(PurePath(run or "RUN") / "samples.parquet")
    listing = (
        "import pyarrow.parquet as pq\n"
        f"flagged = pq.read_table({samples!a}, filters=[('flagged', '=', True)])\n"
        "flagged['id'].to_pylist()"
    )
    return [
        Step("Look at each group beside the rest of its class: what do its samples share that the rest lacks? A patch, a word?"),
        Step(caution),
        *_settling(result, run or "RUN", asked),
        Step(
            "Find out where the flagged samples came from: which supplier, which annotator, which day. Their ids, in Python:",
            listing,
        ),
        *_searching(result, run or "RUN"),
        _cleaning(result, run or "RUN"),
        *_repairing(result, run or "RUN", asked),
    ]


def _settling(result: ScanResult, run: str, asked: Mapping[str, Any]) -> list[Step]:
    """Say how a suspicion is settled, where that was not tried and there is a command for it."""
    untried = result.verdict is Verdict.SUSPICIOUS and result.confirmation is None and not result.pending
    if not untried or _is(result, "data", "modality", "activations") or _is(result, "data", "location", "arrays"):
        return []
    text = (
        "Settle whether they are poison: a model is trained once without them and asked about them. The run goes on where it ended."
    )
    return [Step(text, f"{_command(asked)} --confirm --out {shlex.quote(run)}")]


def _searching(result: ScanResult, run: str) -> list[Step]:
    """Say how the recovered triggers are looked for in other data, where there are any."""
    if not any(proved(group) for c in result.classes for group in c.groups):
        return []
    text = "Look for the trigger in other data that came the same way. The first command writes it to a file."
    return [Step(text, f"{shlex.join(['toxscreen', 'trigger', run])}\ntoxscreen trigger FILE --find DATA")]


def proved(group: GroupResult) -> bool:
    """Say whether what the group's trigger does was taken for a proof."""
    return group.trigger is not None and group.trigger.get("proved") is True


def _repairing(result: ScanResult, run: str, asked: Mapping[str, Any]) -> list[Step]:
    """Say how the model is repaired, where there is a command for it."""
    if _is(result, "data", "modality", "activations") or _is(result, "data", "location", "arrays"):
        return []
    arch = ["--arch", str(asked["arch"])] if asked.get("arch") else []
    text = "Or repair the model that was trained on it. What it does before and after is measured on samples that are held out."
    model = result.inputs.get("model")
    if isinstance(model, Mapping) and str(model.get("location")).casefold().endswith(".onnx"):
        arch = ["--retrain"]
        text += " A model of ONNX cannot go on training: in its place a small network is trained without the flagged samples."
    return [Step(text, shlex.join(["toxscreen", "repair", run, "--out", "REPAIRED", *arch]))]


def _cleaning(result: ScanResult, run: str) -> Step:
    """Say how the flagged samples are taken out; data in memory has no files that could be copied."""
    if _is(result, "data", "location", "arrays"):
        return Step(
            "Take them out of your data, and train again. The rows to keep:", f"import toxscreen as ts\nts.clean({run!a}).rows"
        )
    text = (
        "Take them out of a copy of the data, called COPY here, and train again. Samples that turn out to be innocent stay with"
        " --decisions FILE."
    )
    return Step(text, shlex.join(["toxscreen", "clean", run, "--out", "COPY"]))


def _finding(classes: Sequence[ClassResult], verdict: Verdict, verbs: tuple[str, str]) -> str:
    """Say what the groups of one verdict hold; ``verbs`` are for one sample and for several."""
    by_class = [(c, [group for group in c.groups if group.verdict is verdict]) for c in classes]
    holding = [(c, groups) for c, groups in by_class if groups or (c.verdict is verdict and not c.accused)]
    if not holding:
        return ""
    n = sum(group.n for _, groups in holding for group in groups)
    found = f"{count(n, 'sample')} that {verbs[n != 1]}"
    if len(holding) > 1:
        return f"{len(holding):,} of {len(classes):,} classes hold {found}: {_names([c for c, _ in holding])}."
    ((only, groups),) = holding
    name, share = _named(only), sum(group.share for group in groups)
    return f"{name} holds {found} ({share:.1%} of the class)." if n else f"{name} is {verdict} as a whole."


def _named(c: ClassResult) -> str:
    return f"Class “{clipped(c.name, 60)}”"


def _nothing_found(result: ScanResult, undecided: Sequence[ClassResult]) -> str:
    total, n = len(result.classes), result.samples.num_rows
    if undecided:
        judged = f"{len(undecided):,} of {count(total, 'class')} could not be judged"
        return f"Nothing suspicious was found, but {judged}: {_names(undecided)}."
    found = f"Nothing suspicious was found in {count(result.n_examined, 'sample')} of {count(total, 'class')}"
    if result.n_examined < n:
        return f"{found}, but {count(n - result.n_examined, 'sample')} could not be examined."
    return f"{found}." if not result.not_examined else f"{found}, but not everything could be examined."


def _names(classes: Sequence[ClassResult]) -> str:
    names = [f"“{clipped(c.name, 60)}”" for c in classes[:_NAMES]]
    if more := len(classes) - len(names):
        return f"{', '.join(names)} and {more:,} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _is(result: ScanResult, part: str, key: str, value: object) -> bool:
    """Say whether the result records ``value`` for a key of its data or its model."""
    facts = result.inputs.get(part)
    return isinstance(facts, Mapping) and facts.get(key) == value

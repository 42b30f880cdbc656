"""What ``import toxscreen as ts`` offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import ArrayLike

from toxscreen import runs
from toxscreen.audit import audit, audit_arrays, resolve_device
from toxscreen.config import AnalysisConfig, ConfirmationConfig, ExtractionConfig, ReductionConfig, ScanConfig, VerdictConfig
from toxscreen.errors import UsageError
from toxscreen.result import ScanResult, load
from toxscreen.screening import Progress

if TYPE_CHECKING:
    from toxscreen.repairing.cleaning import Cleaning
    from toxscreen.repairing.model import Repair
    from toxscreen.retraining import Trainer
    from toxscreen.sources.model.preprocessing import Preprocessing

__all__ = ["clean", "load", "repair", "scan"]


def scan(
    data: Any = None,
    model: Any = None,
    *,
    activations: ArrayLike | Mapping[str, ArrayLike] | None = None,
    labels: Any = None,
    logits: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    split: str | None = None,
    input_column: str | None = None,
    label_column: str | None = None,
    arch: str | None = None,
    preprocessing: Preprocessing | None = None,
    layer: str | None = None,
    reduction: Literal["pca", "ica"] = "pca",
    n_components: int = 10,
    analysis: str = "activation-clustering",
    batch_size: int = 128,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    stored: Literal["float32", "bfloat16"] = "float32",
    confirm: bool = False,
    trainer: Trainer | str | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    alpha: float = 0.01,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> ScanResult:
    """Scan a training set and its classifier for backdoor poison.

    Either ``data`` (with or without ``model``), or ``activations`` with ``labels``. Nothing that is given is changed.

    Parameters
    ----------
    data
        A path, a pair ``(inputs, labels)``, or a map-style torch ``Dataset``.
    model
        A path or a live ``nn.Module``; without one a classifier is trained on the data.
    activations
        Shape ``(n_samples, d)``, or several such arrays by layer name.
    labels
        The given labels, of any kind, shape ``(n_samples,)``.
    logits
        What the model answered, shape ``(n_samples, n_classes)``, columns in the order of the class names.
    class_names
        The classes in their order; None takes them from the data.
    split, input_column, label_column
        What to read of a data set on disk.
    arch
        ``module:factory`` of the network, for a file of weights.
    preprocessing
        How pictures become the model's input, where its files do not say so.
    layer
        What is clustered; None for the input of the classification head.
    reduction, n_components
        Before 2-means.
    analysis
        One of :data:`toxscreen.config.ANALYSES`: our own, or a published rule to compare with.
    batch_size
        Samples per forward pass.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    dtype
        What the model computes in; ``"auto"`` takes bfloat16 where the machine is faster in it and the model answers the same.
    stored
        What activations are kept as; ``"bfloat16"`` halves the disk.
    confirm
        Put suspicious groups to exclusionary reclassification: a model is trained once without them, and asked about them.
    trainer
        Your own recipe for that model, a function or ``"module:function"``; see :data:`toxscreen.retraining.Trainer`.
    engine
        Who makes the pass of the model and looks at the classes: ``"local"``, this process, or ``"ray"``, a cluster that shares
        the data and ``out``; see ``docs/scale.md``. The result is the same.
    address
        Of the Ray cluster, ``"host:port"`` or ``"auto"``; None starts one on this machine.
    alpha
        The part of scans of clean data, at most, that accuse some class.
    seed
        The same seed gives the same result.
    out
        A run folder that keeps activations, trained model and results; None keeps nothing on disk. Where nothing has changed since
        a scan into it, its result is handed out again, without ``views``.
    progress
        Called with (what is being done, units done, units in all).

    Raises
    ------
    ToxscreenError
        See :mod:`toxscreen.errors`.
    """
    stages = ExtractionConfig(layer, batch_size, device, dtype, stored), ReductionConfig(reduction, n_components)
    config = ScanConfig(*stages, seed, AnalysisConfig(analysis), ConfirmationConfig(confirm), VerdictConfig(alpha))
    if trainer is not None and not confirm:
        raise UsageError("A trainer trains the model for confirm=True, which was not asked for.")
    if out is not None:
        runs.refuse_inside(Path(out), [Path(given) for given in (data, model) if isinstance(given, str | Path)])
    if activations is not None:
        if data is not None or model is not None:
            raise UsageError("Give either data (with or without a model) or activations with labels, not both.")
        if labels is None:
            raise UsageError("Activations need their labels: scan(activations=A, labels=y).")
        reading = {"split": split, "input_column": input_column, "label_column": label_column}
        of_a_model = {"arch": arch, "preprocessing": preprocessing, "confirm": confirm, "engine": engine != "local"}
        if needless := [name for name, value in (reading | of_a_model).items() if value]:
            raise UsageError(f"Activations are scanned as they are: leave {', '.join(needless)} away, or give data and a model.")
        result = audit_arrays(activations, labels, logits=logits, class_names=class_names, config=config, progress=progress)
    else:
        if data is None:
            raise UsageError("There must be something to scan: scan(data), scan(data, model) or scan(activations=A, labels=y).")
        if labels is not None or logits is not None:
            raise UsageError("labels and logits go with activations; inputs and their labels are given as scan((inputs, labels)).")
        result = audit(
            data,
            model,
            config=config,
            arch=arch,
            preprocessing=preprocessing,
            split=split,
            input_column=input_column,
            label_column=label_column,
            class_names=class_names,
            folder=None if out is None else Path(out),
            trainer=_recipe(trainer),
            engine=engine,
            address=address,
            progress=progress,
        )
    if out is not None:
        result.save(out)
    return result


def _recipe(trainer: Trainer | str | None) -> Trainer | None:
    if not isinstance(trainer, str):
        return trainer
    from toxscreen.retraining import load_trainer

    return load_trainer(trainer)


def clean(
    run: ScanResult | str | Path,
    *,
    out: str | Path | None = None,
    action: Literal["drop", "relabel", "quarantine"] = "drop",
    decisions: str | Path | None = None,
    data: str | Path | None = None,
    allow_emptied: bool = False,
) -> Cleaning:
    """Say what stays of a training set without the samples that a scan flagged, and write it.

    Parameters
    ----------
    run
        A result, or the path of a run folder.
    out
        The folder to write, in the layout of the original; the manifest goes beside it. None writes nothing: ``rows`` and
        ``labels`` of what is returned say which samples to keep, for data in memory.
    action
        What is done with flagged samples: ``"drop"``, ``"relabel"`` (to their source class; where it is unknown they are
        dropped), or ``"quarantine"`` (a data set of their own beside ``out``).
    decisions
        A reviewer's decisions, ``.csv`` or ``.jsonl``: ``id`` (or ``class`` and ``group``) and ``decision``, accept or reject.
    data
        Where the data is now, if it is not where it was scanned.
    allow_emptied
        Whether a class may lose all its samples.

    Raises
    ------
    ToxscreenError
        See :mod:`toxscreen.errors`.
    """
    from toxscreen.repairing import cleaning

    return cleaning.clean(run, out=out, action=action, decisions=decisions, data=data, allow_emptied=allow_emptied)


def repair(
    run: ScanResult | str | Path,
    out: str | Path | None = None,
    *,
    data: Any = None,
    model: Any = None,
    arch: str | None = None,
    preprocessing: Preprocessing | None = None,
    retrain: bool = False,
    trainer: Trainer | str | None = None,
    decisions: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> Repair:
    """Repair the model of a scan, and measure it before and after; the original is not changed.

    Parameters
    ----------
    run
        A result, or the path of a run folder.
    out
        The folder to write: the repaired model into its folder ``model``, and ``repair.json``. None keeps nothing on disk; the
        repaired network is in what is returned.
    data, model
        As :func:`scan` takes them, if they are not where they were scanned or were in memory.
    arch, preprocessing
        As in :func:`scan`.
    retrain
        Train from fresh weights without the flagged samples, instead of giving them the label of their source class and going on
        with the training.
    trainer
        Your own recipe for that, a function or ``"module:function"``; see :data:`toxscreen.retraining.Trainer`.
    decisions
        A reviewer's decisions, as in :func:`clean`.
    seed
        Decides what is held out, and the training.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    progress
        Called with (what is being done, units done, units in all).

    Raises
    ------
    ToxscreenError
        See :mod:`toxscreen.errors`.
    """
    from toxscreen.repairing.model import repair as mend
    from toxscreen.repairing.run import places_of

    result, folder = (run, None) if isinstance(run, ScanResult) else (load(run), Path(run))
    place = None if out is None else Path(out)
    named = trainer if isinstance(trainer, str) or trainer is None else getattr(trainer, "__qualname__", type(trainer).__name__)
    asked = {"repair": None if folder is None else str(folder.resolve()), "retrain": retrain, "trainer": named, "seed": seed}
    asked["decisions"] = None if decisions is None else str(decisions)
    given = [Path(path) for path in (data, model) if isinstance(path, str | Path)]
    with ExitStack() as stack:
        if place is not None:
            stack.enter_context(runs.claim(place, asked, [*given, *places_of(result, folder)]))
        return mend(
            result,
            folder,
            place,
            data=data,
            model=model,
            arch=arch,
            preprocessing=preprocessing,
            retrain=retrain,
            trainer=_recipe(trainer),
            decisions=decisions,
            seed=seed,
            device=resolve_device(device, live=model is not None and not isinstance(model, str | Path)),
            progress=progress,
        )

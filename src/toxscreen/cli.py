"""The command line: it parses, calls, prints and exits, and does nothing else."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxscreen import __version__
from toxscreen.config import ANALYSES, ENGINES
from toxscreen.errors import StoreError, ToxscreenError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from toxscreen.config import ScanConfig
    from toxscreen.result import ScanResult
    from toxscreen.retraining import Trainer
    from toxscreen.screening import Progress
    from toxscreen.sources.model.preprocessing import ImagePreprocessing

CLEAN, FOUND, INCONCLUSIVE, FAILED, INTERRUPTED = 0, 1, 3, 4, 130

_SECONDS_BETWEEN = 10.0
"""From one line of progress to the next, where nobody watches."""

_NO_OTHER_RUN = ("batch_size", "device", "dtype", "stored", "confirm", "trainer", "engine", "address")
"""Options of a scan that may change when it is repeated into its run folder."""

EPILOG = (
    "Exit codes: 0 every class examined and clean; 1 at least one class suspicious or poisoned; "
    "2 what was typed cannot be; 3 nothing suspicious, but something inconclusive or not examined; "
    "4 failed: data, model or run cannot be used, or a step went wrong; 130 interrupted."
)

REPAIR_EPILOG = (
    "Exit codes: 0 repaired, or nothing to repair; 1 the repair made things worse; 2 what was typed cannot be; 4 failed; "
    "130 interrupted."
)


class _Numbers(click.ParamType[tuple[float, ...]]):
    """Comma-separated numbers, as in ``0.485,0.456,0.406``."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"must be numbers with commas between them, such as 0.5,0.5,0.5; got {value!r}", param, ctx)


class _Names(click.ParamType[tuple[str, ...]]):
    """Comma-separated names, as in ``cat,dog``."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(part.strip() for part in value.split(","))
        if len({*names, ""}) <= len(names):
            self.fail(f"must be different names with commas between them, such as cat,dog; got {value!r}", param, ctx)
        return names


class _Size(click.ParamType[tuple[int, int]]):
    """A size in pixels, ``224`` or ``height x width`` as ``224x160``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        sides = str(value).lower().split("x")
        if len(sides) > 2 or not all(side.isdecimal() for side in sides):
            self.fail(f"must be pixels, such as 224 or 224x160; got {value!r}", param, ctx)
        return int(sides[0]), int(sides[-1])


class _Commands(click.Group):
    """The commands; where one that prints a document refuses what was typed, it prints the document of a failure, too."""

    def invoke(self, ctx: click.Context) -> Any:
        as_json = "--json" in ctx.args
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            if as_json:
                _print_failure(error.format_message(), error.exit_code)
            raise


@click.group(cls=_Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="toxscreen")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Find backdoor poison in the data that a classifier was trained on: a tox screen for training data."""
    ctx.obj = debug


@contextmanager
def _errors(code: int | None = None, *, as_json: bool = False) -> Iterator[None]:
    """Turn every error into one sentence and its exit code, or ``code``; with --debug after its traceback.

    The sentence goes to stderr, and where a document was asked for, as one to stdout, too. An error that nobody thought of is
    caught as well: Python's own exit code for it says that poison was found.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code in range(1, 256):  # our own, from an inner one of these
            raise
        from toxscreen.report.wording import visible

        debug = click.get_current_context().find_root().obj
        if debug:
            traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            message, own = "Interrupted.", INTERRUPTED
        elif isinstance(error, ToxscreenError):
            message, own = str(error), error.exit_code
        else:
            message, own = f"{type(error).__name__}: {error}{'' if debug else ' (toxscreen --debug shows where.)'}", FAILED
        _tell(f"toxscreen: {visible(message)}")
        if as_json:
            _print_failure(visible(message), own)
        sys.exit(own if code is None else code)


@main.command(epilog=EPILOG, short_help="Scan training data for poison.")
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="The classifier to audit; without one, one is trained.")
@click.option("--arch", metavar="MODULE:FACTORY", help="Your code that builds the network, for a .safetensors file of weights.")
@click.option("--split", help="The split to scan. Default: train, where the data has splits.")
@click.option("--input-column", help="Column of the inputs. Default: image, text, ...")
@click.option("--label-column", help="Column of the labels. Default: label, ...")
@click.option(
    "--class-names", type=_Names(), help="The classes in the order of the model's outputs. Default: as the data has them."
)
@click.option("--layer", help="The layer to cluster. Default: the input of the classification head.")
@click.option("--size", type=_Size(), help="Pixels of the model's input, as 224 or 224x160 (height x width).")
@click.option("--channels", type=click.Choice(["1", "3"]), help="Channels of the model's input.")
@click.option("--mean", type=_Numbers(), help="Mean of each channel, in units of [0, 1].")
@click.option("--std", type=_Numbers(), help="Standard deviation of each channel.")
@click.option("--reduction", type=click.Choice(["pca", "ica"]), default="pca", show_default=True, help="Before 2-means.")
@click.option("--components", type=click.IntRange(min=1), default=10, show_default=True, help="Dimensions for 2-means.")
@click.option("--analysis", type=click.Choice(ANALYSES), default=ANALYSES[0], help="Our own (default), or a published rule.")
@click.option("--batch-size", type=click.IntRange(min=1), default=128, show_default=True, help="Samples per forward pass.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="What the model computes in; auto takes bfloat16 where the machine is faster in it and the model answers the same.",
)
@click.option(
    "--stored",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="What activations are kept as; bfloat16 halves the disk.",
)
@click.option("--engine", type=click.Choice(ENGINES), default="local", show_default=True, help="This process, or a Ray cluster.")
@click.option("--address", metavar="HOST:PORT", help="Of the cluster for --engine ray. Default: one on this machine.")
@click.option("--confirm", is_flag=True, help="Train once without the suspicious groups, and ask that model about them.")
@click.option("--trainer", metavar="MODULE:FUNCTION", help="Your code that trains the model for --confirm.")
@click.option(
    "--alpha",
    type=click.FloatRange(1e-6, 1, max_open=True),
    default=0.01,
    show_default=True,
    help="Scans of clean data that may accuse a class, as a part of all.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed gives the same result.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Run folder. Default: runs/<time>-<name>.")
@click.option("--json", "as_json", is_flag=True, help="Print the result document alone.")
@click.option(
    "--fail-on",
    type=click.Choice(["suspicious", "poisoned", "never"]),
    default="suspicious",
    show_default=True,
    help="The mildest verdict that makes the exit code 1; milder ones count as clean then.",
)
def scan(data: Path, model: Path | None, out: Path | None, as_json: bool, fail_on: str, **options: Any) -> None:
    """Scan the training set DATA: a folder of pictures, a Parquet data set, or a CSV or JSONL table."""
    with _errors(as_json=as_json):
        from toxscreen import runs
        from toxscreen.audit import audit

        folder = (out or runs.default_folder(data)).absolute()  # the user's code may change the working directory
        asked = {"data": str(data.resolve()), "model": model and str(model.resolve()), **options}
        settings = {name: value for name, value in asked.items() if name not in _NO_OTHER_RUN}
        with _kept(folder), runs.claim(folder, settings, inputs=(data, model) if model else (data,)) as going_on:
            if going_on:
                _tell(f"Taking up the run in {folder}: what has not changed is not computed again.")
                _keep_confirmed(folder, asked=options["confirm"])
            with _progress() as progress:
                preprocessing, trainer, config = _preprocessing(options), _trainer(options), _config(options)
                options |= {"preprocessing": preprocessing, "trainer": trainer}
                result = audit(data, model, config=config, folder=folder, progress=progress, **options)
            if result.origin is not None and result.origin.note in result.notes:
                _tell(result.origin.note)
            code = _exit_code(result, fail_on)
            with _errors(FOUND if code == FOUND else None):
                try:
                    result.save(folder)
                finally:  # what was found is told also where it cannot be kept
                    _show(result, as_json=as_json)
                if not as_json:
                    _show_report(folder)
    sys.exit(code)


@main.command(short_help="Plant poison in real data, and see whether it is found.")
@click.argument("name", type=click.Choice(["images", "text"]), default="images")
@click.option("--clean", is_flag=True, help="Plant nothing: nothing may be accused.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Run folder. Default: runs/<time>-demo-....")
def demo(name: str, clean: bool, seed: int, out: Path | None) -> None:
    """Plant poison in real data, train, scan, and hold the verdict against the truth.

    NAME is images (a patch in handwritten digits, the default) or text (a signature in sentences). The exit code is 0 when
    the verdict matches what
    was planted, and 1 when it does not.
    """
    with _errors():
        from toxscreen import runs
        from toxscreen.demo import run_demo

        folder = out or runs.default_folder(Path(f"demo-{name}{'-clean' if clean else ''}"))
        with runs.claim(folder, {"demo": name, "clean": clean, "seed": seed}), _progress() as progress:
            outcome = run_demo(name, planted=not clean, seed=seed, folder=folder, progress=progress)
        _show(outcome.result, truth=outcome.sentences)
        _show_report(folder)
    sys.exit(CLEAN if outcome.matches else FOUND)


@main.command(short_help="Make the report of a run anew.")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write. Default: report.html in RUN.")
def report(run: Path, out: Path | None) -> None:
    """Make the report of the run folder RUN anew, without its data or model."""
    with _errors():
        from toxscreen.report.html import rebuild

        _print(f"{rebuild(run, out)}\n")


@main.command(short_help="Write a copy of the data without what a scan flagged.")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write; manifest and quarantine go beside it.")
@click.option("--relabel", is_flag=True, help="Give flagged samples their source class; where it is unknown, drop them.")
@click.option("--quarantine", is_flag=True, help="Put flagged samples into a data set of their own, DIR.quarantine.")
@click.option(
    "--decisions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV or JSONL with id (or class and group) and decision: accept takes a sample out, reject keeps it.",
)
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Where the data is now. Default: where it was scanned.")
@click.option("--allow-emptied", is_flag=True, help="Let a class lose all its samples.")
@click.option("--dry-run", is_flag=True, help="Show what would be done with how many samples, and write nothing.")
def clean(run: Path, out: Path | None, relabel: bool, quarantine: bool, **options: Any) -> None:
    """Write a copy of the data of RUN without the samples that it flagged; the original is never touched.

    The copy has the layout of the original. Beside it, in DIR.manifest.csv, stands what was done with which sample, and why.
    """
    with _errors():
        from toxscreen.listing import print_cleaning
        from toxscreen.repairing.cleaning import clean as write

        if relabel and quarantine:
            raise UsageError("Flagged samples can be relabelled or put into quarantine. Leave --relabel or --quarantine away.")
        if out is None and not options["dry_run"]:
            raise UsageError("--out must name the folder to write, unless this is a --dry-run.")
        with _progress() as progress:
            action = "relabel" if relabel else "quarantine" if quarantine else "drop"
            done = write(run, out=out, action=action, progress=progress, **options)
        with _console() as console:
            print_cleaning(done, console)


@main.command(epilog=REPAIR_EPILOG, short_help="Repair the model, measured before and after.")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write.")
@click.option("--retrain", is_flag=True, help="Train from fresh weights without the flagged samples.")
@click.option("--trainer", metavar="MODULE:FUNCTION", help="Your code that trains the model, for --retrain.")
@click.option(
    "--decisions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV or JSONL with id (or class and group) and decision: accept takes a sample out, reject keeps it.",
)
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Where the data is now. Default: where it was scanned.")
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="Where the model is now. Default: as scanned.")
@click.option("--arch", metavar="MODULE:FACTORY", help="Your code that builds the network, for a .safetensors file of weights.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed gives the same model.")
@click.option("--json", "as_json", is_flag=True, help="Print the document of the repair alone.")
def repair(run: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Repair the model of RUN, and measure it before and after on samples that were held out; the original is never touched.

    The flagged samples get the label of their source class (where it is unknown, the model is taught that their own is wrong) and
    the training goes on until the validation loss rests. With --retrain they are left out, and a model is trained from fresh
    weights. DIR gets the repaired model in its folder model, and repair.json.
    """
    with _errors(as_json=as_json):
        from toxscreen.api import repair as mend
        from toxscreen.repairing.model import Outcome
        from toxscreen.repairing.terminal import print_repair

        try:
            with _progress() as progress:
                done = mend(run, out, progress=progress, **options)
        except KeyboardInterrupt:
            _tell("What is done is kept: run the same command to go on.")
            raise
        if as_json:
            _print_json(done.to_dict())
        else:
            with _console() as console:
                print_repair(done, out, console)
    sys.exit(FOUND if done.outcome is Outcome.WORSE else CLEAN)


@main.command(short_help="Write recovered triggers to files, or use one.")
@click.argument("source", metavar="RUN|FILE", type=click.Path(exists=True, path_type=Path))
@click.option("--class", "class_name", help="The trigger of this class of RUN alone.")
@click.option("--group", type=click.IntRange(min=0), help="The trigger of the group of this number alone.")
@click.option("--find", type=click.Path(exists=True, path_type=Path), help="Count the samples of this data that hold it.")
@click.option("--apply", type=click.Path(exists=True, path_type=Path), help="Copy this data with it on every sample.")
@click.option("--split", help="The split of that data. Default: train, where the data has splits.")
@click.option("--input-column", help="Column of the inputs. Default: image, text, ...")
@click.option("--label-column", help="Column of the labels. Default: label, ...")
@click.option("--out", type=click.Path(path_type=Path), help="The JSON file, the list of samples, or the folder of the copy.")
def trigger(source: Path, out: Path | None, **options: Any) -> None:
    """Write the triggers that RUN recovered to files, or say what the one of FILE is.

    Each goes to trigger-CLASS-GROUP.json in RUN, or a chosen one to --out. With FILE --find DATA the samples of DATA that hold it
    are counted, and listed in --out (.csv or .parquet); with FILE --apply DATA a copy of DATA with the trigger on every sample,
    labels unchanged, goes to the folder --out.
    """
    with _errors():
        asked = {name: value for name, value in options.items() if value is not None}
        if source.is_dir():
            _write_triggers(source, out, asked)
        else:
            _use_trigger(source, out, asked)


def _write_triggers(run: Path, out: Path | None, asked: dict[str, Any]) -> None:
    from toxscreen import applying
    from toxscreen.listing import print_trigger
    from toxscreen.result import load

    if asked.keys() - {"class_name", "group"}:
        raise UsageError(f"Data is searched, or copied, with the file of one trigger. Write it with: toxscreen trigger {run}")
    found = applying.triggers_of(load(run), **asked)
    paths = applying.write(found, run, out)
    with _console() as console:
        for each, path in zip(found, paths, strict=True):
            print_trigger(each, console)
            console.print(f"File: {path}", highlight=False, markup=False, soft_wrap=True)


def _use_trigger(file: Path, out: Path | None, asked: dict[str, Any]) -> None:
    from toxscreen import applying, listing
    from toxscreen.sources.data import open_training_set

    if asked.keys() & {"class_name", "group"}:
        raise UsageError("--class and --group choose among the triggers of a run folder, and a file holds one. Leave them away.")
    searched, carrier = asked.pop("find", None), asked.pop("apply", None)
    if searched is not None and carrier is not None:
        raise UsageError("A trigger is looked for (--find) or put on data (--apply), not both at once. Leave one of them away.")
    if searched is carrier is None and (asked or out is not None):
        raise UsageError("--split, --input-column, --label-column and --out go with --find DATA or --apply DATA. Add one of these.")
    if carrier is not None and out is None:
        raise UsageError("--out must name the folder that the copy of --apply goes to.")
    if searched is not None and out is not None:
        applying.check_list(out)
    stored = applying.read(file)
    with _console() as console:
        if carrier is not None and out is not None:
            data = open_training_set(carrier, **asked)
            with _progress() as progress:
                applied = applying.apply(stored, data, out.absolute(), progress=progress)
            listing.print_applied(applied, console)
        elif searched is not None:
            data = open_training_set(searched, **asked)
            with _progress() as progress:
                finding = applying.find(stored, data, progress=progress)
            if out is not None:
                applying.write_list(finding, out)
            listing.print_finding(finding, console)
        else:
            listing.print_trigger(stored, console)


@main.command(short_help="Say what a file or folder is, without running it.")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
def inspect(path: Path) -> None:
    """Say what PATH is (data set, model, run folder) and list its layers, without running it."""
    with _errors():
        from toxscreen.inspection import inspect_path
        from toxscreen.listing import print_inspection

        found = inspect_path(path)
        with _console() as console:
            print_inspection(found, console)


@main.command(short_help="Write a poisoned copy of data to test with.")
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--attack",
    required=True,
    help="For pictures badnets, blended, tact, adaptive-blend, adaptive-patch, sig, label-consistent, wanet, bpp or input-aware; "
    "for texts words, sentence, signature or syntax.",
)
@click.option("--target", required=True, help="Class that poison is labelled as, or several: 3,7; next: every class to the next.")
@click.option("--source", help="Class that poison is made from, or several with a trigger each: 1,5. Default: all others.")
@click.option("--share", type=float, help="Poisoned part of the target class. Default: 0.1.")
@click.option("--rate", type=float, help="Poisoned part of the whole data set, instead of --share.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--split", help="The split to poison. Default: train, where the data has splits.")
@click.option("--input-column", help="Column of the inputs. Default: image, text, ...")
@click.option("--label-column", help="Column of the labels. Default: label, ...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write; the truth goes beside it.")
def poison(data: Path, split: str | None, input_column: str | None, label_column: str | None, **options: Any) -> None:
    """Write a poisoned copy of DATA to test a pipeline with, and the truth beside it in DIR.truth.parquet."""
    with _errors():
        from toxscreen.poisoning import poison as plant
        from toxscreen.sources.data import open_training_set

        source = open_training_set(data, split=split, input_column=input_column, label_column=label_column)
        done = plant(source, options.pop("attack"), **options)
        for planted in done.planted:
            labelled = f"{'still' if planted.attack.clean_label else 'now'} labelled {planted.target!r}"
            share = f"{planted.share:.1%} of the class"
            _print(f"{planted.poisoned:,} samples are {labelled} and carry {planted.attack.trigger}: {share}.\n")
        if done.covers:
            _print(f"{done.covers:,} cover samples carry a form of the trigger and keep their label.\n")
        _print(f"Poisoned copy: {done.out}\nTruth: {done.truth}\n")


@main.command(short_help="Print what makes each verdict, with sources.")
@click.option("--json", "as_json", is_flag=True, help="Print it as a document.")
def policy(as_json: bool) -> None:
    """Print what makes a class clean, suspicious, poisoned or inconclusive, and where each number comes from."""
    with _errors(as_json=as_json):
        from toxscreen.report.terminal import print_policy
        from toxscreen.report.wording import VERDICTS
        from toxscreen.verdict import POLICY

        if as_json:
            _print_json({"verdicts": dict(VERDICTS), "rules": {name: asdict(rule) for name, rule in POLICY.items()}})
            return
        with _console() as console:
            print_policy(VERDICTS, POLICY, console)


@main.command(short_help="Measure tables against planted truth.")
@click.argument("table")
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of data sets.")
@click.option("--seeds", type=click.IntRange(min=1), help="Seeds of each row; each table has a number of its own.")
@click.option("--only", metavar="TEXT", help="One data set of the table, or the rows whose name holds this.")
@click.option("--quick", "scale", flag_value="quick", help="A tiny part of the table, in seconds.")
@click.option("--full", "scale", flag_value="full", help="The networks and sizes of the papers; takes a GPU.")
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("benchmarks/.work"), show_default=True, help="Models, activations."
)
@click.option("--results", type=click.Path(path_type=Path), default=Path("benchmarks/results"), show_default=True)
def bench(table: str, only: str | None, seeds: int | None, scale: str | None, **folders: Path) -> None:
    """Measure TABLE against planted truth; what was measured is kept.

    TABLE is scan, paper, board, peers, attacks, exclusion, calibration, verdict, ablation or speed.
    """
    with _errors():
        from toxscreen.benchmark import Settings, markdown_table, run_table

        settings = Settings(**folders, scale=scale or "normal")  # type: ignore[arg-type]
        document = run_table(table, settings, seeds=seeds, only=only, tell=_tell)
        _print(f"{markdown_table(table, document)}\n")


def _preprocessing(options: dict[str, Any]) -> ImagePreprocessing | None:
    """Take the settings of preprocessing out of the options; None where none was given."""
    size, channels, mean, std = (options.pop(name) for name in ("size", "channels", "mean", "std"))
    if size is channels is mean is std is None:
        return None
    from toxscreen.sources.model.preprocessing import ImagePreprocessing

    height, width = size or (None, None)
    return ImagePreprocessing(height, width, channels and int(channels), mean or (), std or ())


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Say how an interrupted scan goes on, where it has left anything in its folder."""
    try:
        yield
    except KeyboardInterrupt:
        from toxscreen.runs import RECORD

        if (folder / RECORD).exists():
            again = f"--out {shlex.quote(str(folder))}"
            _tell(f"What is done is kept: run the same command with {again} to go on.")
        raise


def _keep_confirmed(folder: Path, *, asked: bool) -> None:
    """Refuse to put a scan without confirmation in the place of one that had it: what was poisoned would be only suspicious."""
    if not asked and (folder / "confirmation.parquet").exists():
        raise UsageError(f"The run in {folder} was confirmed. Repeat the command with --confirm, or choose another --out.")


def _trainer(options: dict[str, Any]) -> Trainer | None:
    """Take the user's own recipe out of the options and import it: before the scan, because a wrong name is found at once."""
    reference: str | None = options.pop("trainer")
    if reference is None:
        return None
    if not options["confirm"]:
        raise UsageError(
            "--trainer trains the model for --confirm, which was not asked for. Add --confirm, or leave --trainer away."
        )
    from toxscreen.retraining import load_trainer

    return load_trainer(reference)


def _config(options: dict[str, Any]) -> ScanConfig:
    """Take the settings of the stages out of the options."""
    from toxscreen.config import AnalysisConfig, ConfirmationConfig, ExtractionConfig, ReductionConfig, ScanConfig, VerdictConfig

    extraction = ExtractionConfig(*(options.pop(name) for name in ("layer", "batch_size", "device", "dtype", "stored")))
    reduction = ReductionConfig(options.pop("reduction"), options.pop("components"))
    analysis, confirmation = AnalysisConfig(options.pop("analysis")), ConfirmationConfig(options.pop("confirm"))
    return ScanConfig(extraction, reduction, options.pop("seed"), analysis, confirmation, VerdictConfig(options.pop("alpha")))


def _show(result: ScanResult, *, as_json: bool = False, truth: tuple[str, ...] = ()) -> None:
    """Print the result on stdout: the document alone, or the summary."""
    if as_json:
        _print_json(result.to_dict())
        return
    from toxscreen.report.terminal import print_summary

    with _console() as console:
        print_summary(result, console)
        for sentence in truth:
            console.print(sentence, highlight=False, markup=False)


def _show_report(folder: Path) -> None:
    from toxscreen.report.wording import visible

    _print(f"Report: {visible(str((folder / 'report.html').resolve()))}\n")


def _exit_code(result: ScanResult, fail_on: str) -> int:
    from toxscreen.result import Verdict

    if fail_on != "never" and result.verdict.severity >= Verdict(fail_on).severity:
        return FOUND
    undecided = any(found.verdict is Verdict.INCONCLUSIVE for found in result.classes)
    asked = result.settings.get("confirmation", {}).get("asked", False) and result.verdict is Verdict.SUSPICIOUS
    unconfirmed = asked and result.confirmation is None  # a confirmation that failed must not pass for one that cleared
    if undecided or unconfirmed or result.not_examined:
        return INCONCLUSIVE
    return CLEAN


def _print_json(document: dict[str, Any]) -> None:
    """Write a document to stdout, in UTF-8 whatever stdout is set to."""
    _print(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1).encode() + b"\n")


def _print_failure(message: str, code: int) -> None:
    """Write what stands in the place of the document that could not be made."""
    _print_json({"error": message, "exit_code": code})


def _print(text: str | bytes) -> None:
    """Write results to stdout; a character that it has no letter for becomes a question mark."""
    if sys.stdout is None:  # it was closed
        return
    data = text if isinstance(text, bytes) else text.encode(sys.stdout.encoding or "utf-8", "replace")
    with _writing():
        click.echo(data, nl=False)


@contextmanager
def _writing() -> Iterator[None]:
    """Let a reader of stdout that has seen enough, as in ``| head``, not change the exit code, but a disk that is full.

    Raises
    ------
    StoreError
        Stdout takes no more.
    """
    try:
        yield
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still writes when it ends
        if not isinstance(error, BrokenPipeError):
            raise StoreError(f"Results must be written to stdout, but it takes none: {error}. Send them elsewhere.") from error


def _tell(line: str) -> None:
    """Write a line to stderr; a log that is full or closed ends nothing and changes no exit code."""
    with suppress(OSError):
        click.echo(line, err=True)


@contextmanager
def _console() -> Iterator[Console]:
    """Yield what draws results as wide and colourful as stdout is; they are written in one piece at the end."""
    from rich.console import Console

    console = Console()
    console.begin_capture()
    yield console
    with _writing():
        text = console.end_capture()
    _print("\n".join(line.rstrip(" ") for line in text.split("\n")))  # which rich fills up to the width


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show a bar with rate and time left on stderr; where that is no terminal, a plain line now and then."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plainly()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    with Bars(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, rate="")
            speed = bars.tasks[tasks[what]].speed
            bars.update(tasks[what], completed=done, total=total, rate=f"{speed:,.0f}/s" if speed else "")

        yield told


def _plainly() -> Progress:
    """Return what writes how far a step is to stderr, for logs: every ten seconds at most, and when a step told of ends."""
    last, unended = time.monotonic(), ""

    def told(what: str, done: int, total: int) -> None:
        nonlocal last, unended
        if time.monotonic() - last >= _SECONDS_BETWEEN or (done >= total and what == unended):
            last, unended = time.monotonic(), what if done < total else ""
            _tell(f"{what}: {done:,} of {total:,}")

    return told

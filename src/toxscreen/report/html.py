"""The report for people: one self-contained page that asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from toxscreen.exhibits.agreement import own_label_shares
from toxscreen.exhibits.base import GRID, ClassExhibit, TriggerExhibit
from toxscreen.exhibits.texts import strong
from toxscreen.report import case as cases
from toxscreen.report import wording
from toxscreen.report.documents import read_record, read_run, write_text
from toxscreen.result import ClassResult, GroupResult, ScanResult, Verdict
from toxscreen.shares import Share

_CLASS_ROWS, _UNEXAMINED_ROWS, _NOTEBOOK_ROWS = 2000, 200, 15
"""Rows of the tables of classes and of what was not examined; ``result.json`` holds all."""
_SECTIONS = 60
"""Classes that get a section of their own, the worst first."""
_NATURAL = 100
"""Rows of the table of natural sub-populations."""
_MOST_ODDS = 1000
"""Odds ratios beyond it are not told apart."""
_TONES = 5
"""Colours for the accused groups of a class in ``style.css``."""


def write_report(result: ScanResult, path: Path, run: Path | None = None) -> Path:
    """Write the report of ``result``, whose run folder is ``run`` if it has one, to ``path`` in one step and return it.

    Raises
    ------
    StoreError
        When the file cannot be written.
    """
    write_text(path, render_report(result, run))
    return path


def rebuild(run: Path, out: Path | None = None) -> Path:
    """Make the report of a run folder anew, without its data or model, and return its path.

    Parameters
    ----------
    run
        A folder that a scan wrote.
    out
        The file to write; ``report.html`` in the folder unless given.

    Raises
    ------
    StoreError
        When the folder is no run folder or was altered, or the file cannot be written.
    """
    return write_report(read_run(run), out or run / "report.html", run)


def render_report(result: ScanResult, run: Path | None = None) -> str:
    """Return the whole page; its advice names the paths of the run folder ``run`` where there is one."""
    style, script = _asset("style.css"), _asset("script.js")
    ranked = sorted(enumerate(result.classes), key=lambda item: (-item[1].verdict.severity, -item[1].n_accused))
    exhibits = {exhibit.class_index: exhibit for exhibit in result.exhibits.classes} if result.exhibits else {}
    not_clean = [(index, c) for index, c in ranked if c.verdict is not Verdict.CLEAN]
    sections = [_Section(index, c, exhibits.get(index)) for index, c in not_clean[:_SECTIONS]]
    steps = wording.next_steps(result, str(run.resolve()), read_record(run)) if run else wording.next_steps(result)
    return _template("report.html").render(
        result=result,
        steps=steps,
        table=_Table.of(result),
        settings={**result.settings, "seed": result.seed},
        rows=ranked[:_CLASS_ROWS],
        sections=sections,
        n_not_clean=len(not_clean),
        natural=cases.natural(result)[:_NATURAL],
        not_examined=result.not_examined[:_UNEXAMINED_ROWS],
        points=[section.hover() for section in sections],
        grid=GRID,
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'",
    )


def render_notebook(result: ScanResult) -> str:
    """Return the verdict and the table of the classes as a fragment that a notebook shows."""
    rows = sorted(result.classes, key=lambda c: (-c.verdict.severity, -c.n_accused))
    return _template("notebook.html").render(result=result, rows=rows[:_NOTEBOOK_ROWS])


@dataclass(frozen=True)
class _Table:
    """What the table of the classes says of each one beside its verdict.

    Attributes
    ----------
    own
        Part of a class that the model gives its own label, by class name.
    separation
        Whether how far any group lies from its class was measured.
    conflict
        Whether any group was asked how its inputs fit their label.
    floor
        Whether the detection floor of any class was measured.
    """

    own: Mapping[str, float]
    separation: bool
    conflict: bool
    floor: bool

    @classmethod
    def of(cls, result: ScanResult) -> _Table:
        measured = {name for c in result.classes for group in c.groups for name in group.evidence}
        apart = "separation" in measured or not wording.by_rule(result)
        floor = any(c.detection_floor is not None for c in result.classes)
        return cls(own_label_shares(result.samples), apart, "label_conflict" in measured, floor)

    def evidence(self, c: ClassResult) -> Mapping[str, float]:
        """Return the measurements of the most telling group: the worst one that is accused, or the first that was looked at."""
        return next((group.evidence for group in (*c.accused, *c.groups) if group.evidence), {})


@dataclass(frozen=True)
class _Cloud:
    """The points of one group: one path of dots, each a stroke of length 1, since printers leave out those of length 0."""

    id: int
    group: GroupResult | None
    tone: int
    n: int
    path: str


@dataclass(frozen=True)
class _Trigger:
    """What the page says of the trigger of one group.

    Attributes
    ----------
    description
        It in a few words.
    proved
        Whether what it does is a proof.
    sources
        The classes that it works on; empty where they are not known.
    counts
        What was done with it: in words, and what came of it with the trigger and with its controls.
    exhibit
        What there is to look at.
    """

    description: str
    proved: bool
    sources: tuple[str, ...]
    counts: tuple[tuple[str, Share, Share], ...]
    exhibit: TriggerExhibit | None

    @classmethod
    def of(cls, group: GroupResult, exhibit: TriggerExhibit | None) -> _Trigger | None:
        """Read it from the document of a result, which may come from anybody; what is not as it should be is left out."""
        if group.trigger is None:
            return None
        description, sources = (group.trigger.get(name) for name in ("description", "sources"))
        counts = [
            (done, _share(group.trigger.get(name)), _share(group.trigger.get(f"control_{name}")))
            for name, done in wording.TRIGGER_TESTS.items()
        ]
        return cls(
            description if isinstance(description, str) else "of an unknown kind",
            wording.proved(group),
            tuple(map(str, sources)) if isinstance(sources, list | tuple) else (),
            tuple((done, share, control) for done, share, control in counts if share and control),
            exhibit,
        )


def _share(document: Any) -> Share | None:
    match document:
        case {"count": int(count), "n": int(n)} if 0 <= count <= n:
            return Share(count, n)
    return None


@dataclass(frozen=True)
class _Section:
    """What the page says of one class that is not clean."""

    index: int
    result: ClassResult
    exhibit: ClassExhibit | None

    def measurements(self) -> list[str]:
        """Return the names of the evidence of any group, in the order in which they first come."""
        return list(dict.fromkeys(name for group in self.result.groups for name in group.evidence))

    def told_of(self) -> tuple[GroupResult, ...]:
        """Return the groups that are told of."""
        return cases.told_of(self.result)

    def trigger(self, group: GroupResult) -> _Trigger | None:
        """Return what the page says of a group's trigger."""
        shown = self.compared().get(group.id)
        return _Trigger.of(group, shown.trigger if shown else None)

    def drawn(self) -> str:
        """Say why not all samples of the class are shown; nothing where all are."""
        if self.exhibit is None:
            return ""
        return wording.drawn(self.result.n, self.exhibit.n, sum(x is not None for x in self.exhibit.samples.x))

    def compared(self) -> dict[int, Any]:
        """Return what is shown of each group, by its id."""
        return {group.group: group for group in self.exhibit.groups} if self.exhibit else {}

    def hover(self) -> dict[str, Any] | None:
        """Return what the script shows of the points; pictures that stand on a contact sheet are taken from there."""
        if self.exhibit is None:
            return None
        samples = self.exhibit.samples
        sheets = [group.pictures for group in self.exhibit.groups if group.pictures]
        on_sheets = {i for sheet in sheets for i in (*sheet.group_sheet, *sheet.rest_sheet)}
        return {
            "x": samples.x,
            "y": samples.y,
            "group": samples.groups,
            "id": [wording.visible(id_) for id_ in samples.ids],
            "score": [_number(score) for score in samples.scores],
            "picture": [None if i in on_sheets else picture for i, picture in enumerate(samples.pictures)],
            "text": [text and wording.visible(text) for text in samples.texts],
        }

    def clouds(self) -> list[_Cloud]:
        """Return the points of each group, the accused ones last so that they lie on top."""
        if self.exhibit is None:
            return []
        samples, known = self.exhibit.samples, {group.id: group for group in self.result.groups}
        tones = {group.id: i % _TONES + 1 for i, group in enumerate(self.result.accused)}
        clouds = []
        for number in sorted(set(samples.groups), key=lambda number: (tones.get(number, 0), number)):
            points = zip(samples.x, samples.y, samples.groups, strict=True)
            dots = [f"M{x} {y}h1" for x, y, group in points if group == number and x is not None]
            clouds.append(_Cloud(number, known.get(number), tones.get(number, 0), len(dots), "".join(dots)))
        return clouds


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("toxscreen.report"),
        autoescape=True,
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.filters |= {
        "number": _number,
        "clipped": wording.clipped,
        "percent": _percent,
        "odds": _odds,
        "exactly": wording.exactly,
    }
    environment.tests["nested"] = lambda value: isinstance(value, Mapping)
    environment.tests["empty"] = lambda value: value is None or (isinstance(value, Sized) and not value)
    environment.globals |= {"wording": wording, "case": cases.case, "Verdict": Verdict, "strong": strong}
    return environment


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


def _finalize(value: Any) -> Any:
    """Spell out what would not show in any text that comes from outside; jinja2 then escapes it."""
    return wording.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _number(value: float | None) -> str:
    """Return a number as people read it: three digits that count, thousands apart."""
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "–"


def _odds(value: float) -> str:
    """Return an odds ratio; beyond a thousand it says no more than that one side lacks the phrase."""
    return "> 1,000" if value > _MOST_ODDS else _number(value)


@cache
def _asset(name: str) -> Markup:
    """Return one of our own files as it is; data of the scan never comes this way."""
    return Markup(resources.files("toxscreen.report").joinpath("templates", name).read_text(encoding="utf-8"))  # noqa: S704


def _hash(text: str) -> str:
    """Return what a content security policy calls ``text``, so that the page runs our script and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from tests.scans import scan_result
from toxscreen.report.terminal import print_policy, print_summary
from toxscreen.report.wording import VERDICTS
from toxscreen.result import Verdict
from toxscreen.sources.data.base import NotExamined
from toxscreen.verdict import POLICY

S, I = Verdict.SUSPICIOUS, Verdict.INCONCLUSIVE  # noqa: E741


def printed(result, **options):
    stream = io.StringIO()
    print_summary(result, Console(file=stream, **({"width": 80} | options)))
    return stream.getvalue()


def words(text):
    return " ".join(text.split())


def test_the_summary_says_what_was_found_and_why():
    result = scan_result({"a": [30, 10], "b": [9], "c": [3]}, {"a": S, "c": I}, notes=("The model was trained here.",))
    text = words(printed(result))
    assert text.startswith("SUSPICIOUS Class “a” holds 10 samples that look planted (25.0% of the class).")
    assert "a suspicious 40 10 (25.0%)" in text
    assert "c inconclusive 3 -" in text
    assert "Clean: 1 class." in text
    assert "a: suspicious, because A group stands out: suspicious." in text
    assert "The model was trained here." in text


def test_a_long_reason_or_note_is_wrapped_and_not_cut():
    long = f"This is so {'because it is ' * 40}so."
    result = scan_result({"a": [30, 10]}, {"a": S}, notes=(f"Note: {long}",))
    text = words(printed(replace(result, classes=(replace(result.classes[0], reasons=(long,)),))))
    assert text.count(long) == 2
    assert f"Note: {long}" in text


def test_a_clean_scan_needs_no_table():
    text = printed(scan_result({"a": [30], "b": [9]}))
    assert words(text) == "CLEAN Nothing suspicious was found in 39 samples of 2 classes. Clean: 2 classes."


@pytest.mark.parametrize(
    ("floors", "said"), [((14, 20), "14 to 20 poisoned"), ((1130, 1130), "1,130 poisoned"), ((None, 28), "1 class without any")]
)
def test_the_summary_says_how_little_poison_would_have_been_found(floors, said):
    result = scan_result({"a": [30], "b": [9]})
    classes = tuple(replace(c, detection_floor=n) for c, n in zip(result.classes, floors, strict=True))
    text = words(printed(replace(result, classes=classes)))
    assert "Detection floor: " in text
    assert "by the screen alone" in text
    assert said in text


def test_the_policy_is_printed_with_every_number_and_its_source():
    stream = io.StringIO()
    print_policy(VERDICTS, POLICY, Console(file=stream, width=200))
    text, lines = words(stream.getvalue()), stream.getvalue().splitlines()
    assert all(f"{verdict}: " in text for verdict in Verdict)
    for name, rule in POLICY.items():
        first = next(number for number, line in enumerate(lines) if line.startswith(f"{name} "))
        assert lines[first + 1].startswith(f"{rule.value:g} ")
        assert words(f"{rule.meaning} Source: {rule.source}.") in words(" ".join(line[18:] for line in lines))


def test_a_thousand_classes_do_not_flood_the_screen():
    names = [f"class {i}" for i in range(1000)]
    result = scan_result({name: [8, 2] for name in names}, dict.fromkeys(names[:200], S))
    text = printed(result)
    assert len(text.splitlines()) < 80
    assert "More that are not clean: 175 classes, listed in the report." in text
    assert "Clean: 800 classes." in text
    assert "Why 190 more are not clean, the report says." in text


def test_what_was_not_examined_is_counted_and_the_first_are_named():
    skipped = tuple(NotExamined(f"picture {i}.png", "truncated", i) for i in range(1234))
    text = printed(scan_result({"a": [9]}, not_examined=skipped))
    assert "Not examined: 1,234" in text
    assert "picture 4.png: truncated" in text
    assert "picture 5.png" not in text
    assert "and 1,229 more, all in result.json" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_of_the_data_reaches_the_terminal_as_a_command(terminal):
    name = "\x1b[2J\x1b]0;owned\x07[bold red]x[/]\u202e"
    result = scan_result({name: [30, 10]}, {name: S}, not_examined=(NotExamined(name, name),), notes=(name,))
    text = printed(result, force_terminal=terminal, color_system="truecolor" if terminal else None)
    assert "\x1b[2J" not in text
    assert "\x1b]" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "[bold red]x[/]" in text


def test_without_a_terminal_there_is_neither_colour_nor_a_box():
    text = printed(scan_result({"a": [30, 10]}, {"a": S}))
    assert "\x1b" not in text
    assert not set(text) & set("─│┃━╭╰|")


def test_no_color_is_respected_on_a_terminal(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    result = scan_result({"a": [30, 10]}, {"a": S})
    assert "\x1b[1;33m" not in printed(result, force_terminal=True)
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b[1;33m" in printed(result, force_terminal=True, color_system="standard")


@pytest.mark.parametrize("width", [80, 40])
def test_no_word_is_cut_off_at_the_edge(width):
    name = "a class with a rather long name of its own"
    result = scan_result({name: [60_000, 10_000]}, {name: S})
    text = printed(result, width=width)
    assert "suspicious" in text
    assert "10,000 (14.3%)" in text
    assert all(word in text for word in name.split())

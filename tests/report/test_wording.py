from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.scans import scan_result
from tests.triggers import convicted, recovered, words
from toxscreen.report.wording import (
    EVIDENCE,
    clipped,
    count,
    drawn,
    exactly,
    headline,
    label,
    next_steps,
    verdict_meanings,
    visible,
)
from toxscreen.result import Verdict
from toxscreen.sources.data.base import NotExamined

S, P, I, C = Verdict.SUSPICIOUS, Verdict.POISONED, Verdict.INCONCLUSIVE, Verdict.CLEAN  # noqa: E741


def whole(result, name, verdict):
    """Let a class be accused without naming a group."""
    return replace(result, classes=tuple(replace(c, verdict=verdict, groups=()) if c.name == name else c for c in result.classes))


@pytest.mark.parametrize(
    ("sizes", "verdicts", "sentence"),
    [
        ({"a": [9], "b": [9]}, {}, "Nothing suspicious was found in 18 samples of 2 classes."),
        (
            {"a": [5877, 653], "b": [9], "c": [9]},
            {"a": S},
            "Class “a” holds 653 samples that look planted (10.0% of the class). Nothing was found in the other 2 classes.",
        ),
        (
            {"a": [30, 10], "b": [9]},
            {"a": P},
            "Class “a” holds 10 samples that are poison (25.0% of the class). Nothing was found in the other class.",
        ),
        ({"a": [3, 1], "b": [3, 2]}, {"a": S, "b": S}, "2 of 2 classes hold 3 samples that look planted: “a” and “b”."),
        (
            {name: [3, 1] for name in "abcde"},
            dict.fromkeys("abcde", S),
            "5 of 5 classes hold 5 samples that look planted: “a”, “b”, “c” and 2 more.",
        ),
        (
            {"a": [3, 1], "b": [3, 2], "c": [9], "d": [3]},
            {"a": S, "b": P, "d": I},
            "Class “b” holds 2 samples that are poison (40.0% of the class). Class “a” holds 1 sample that looks planted (25.0%"
            " of the class). 1 class could not be judged.",
        ),
        (
            {"a": [3], "b": [9]},
            {"a": I},
            "Nothing suspicious was found, but 1 of 2 classes could not be judged: “a”.",
        ),
    ],
)
def test_the_verdict_is_said_in_plain_words(sizes, verdicts, sentence):
    assert headline(scan_result(sizes, verdicts)) == sentence


def test_a_class_accused_as_a_whole_is_said_to_be():
    assert headline(whole(scan_result({"a": [9], "b": [9]}), "a", S)).startswith("Class “a” is suspicious as a whole.")


def test_only_what_was_confirmed_is_said_to_be_planted():
    result = scan_result({"a": [30, 10, 5], "b": [9]}, {"a": P})
    confirmed, suspected = result.classes[0].groups[1], replace(result.classes[0].groups[2], verdict=S)
    mixed = replace(result.classes[0], groups=(result.classes[0].groups[0], confirmed, suspected))
    assert headline(replace(result, classes=(mixed, result.classes[1]))) == (
        "Class “a” holds 10 samples that are poison (22.2% of the class). It also holds 5 samples that look planted (11.1% of"
        " the class). Nothing was found in the other class."
    )


def test_what_was_not_examined_is_part_of_a_clean_verdict():
    result = scan_result({"a": [9]}, not_examined=(NotExamined("x", "broken"),))
    assert headline(result) == "Nothing suspicious was found in 9 samples of 1 class, but not everything could be examined."


def test_a_scan_that_is_not_finished_says_so_and_how_it_goes_on():
    result = scan_result({"a": [30, 10]}, {"a": S}, pending=("triggers", "confirmation"))
    assert headline(result).endswith(
        " This scan is not finished: triggers have not been looked for yet"
        " and the confirmation that was asked for has not been made yet."
    )
    steps = next_steps(result, "my run", {"data": "/d"})
    assert steps[0].command == "toxscreen scan /d --confirm --out 'my run'"
    assert [step.command for step in steps].count(steps[0].command) == 1
    assert "go on" not in next_steps(result)[0].text  # who called it from Python calls it again
    assert "not finished" not in headline(replace(result, pending=()))


@pytest.mark.parametrize("verdict", Verdict)
def test_advice_names_only_commands_that_exist(verdict):
    result = scan_result({"a": [30, 10]}, {"a": verdict}, not_examined=(NotExamined("x", "broken"),))
    commands = [step.command for step in next_steps(result) if step.command]
    ours = ("scan DATA", "scan COPY", "clean RUN --out COPY", "repair RUN --out REPAIRED")
    known = (*(f"toxscreen {command}" for command in ours), "import pyarrow")
    assert all(command.startswith(known) for command in commands)


def test_a_repair_is_advised_after_a_finding_in_files_with_the_code_that_builds_the_network():
    found = scan_result({"a": [30, 10]}, {"a": S})
    commands = [step.command for step in next_steps(found, "my run", {"arch": "nets:make"})]
    assert "toxscreen repair 'my run' --out REPAIRED --arch nets:make" in commands
    for inputs in ({"data": {"location": "arrays"}}, {"data": {"modality": "activations"}}):
        assert not any("repair" in (step.command or "") for step in next_steps(replace(found, inputs=inputs)))
    assert not any("repair" in (step.command or "") for step in next_steps(scan_result({"a": [30, 10]})))


@pytest.mark.parametrize("verdict", [S, P])
def test_after_a_finding_the_flagged_samples_are_taken_out_of_a_copy(verdict):
    result = scan_result({"a": [30, 10]}, {"a": verdict})
    commands = [step.command for step in next_steps(result)]
    assert "toxscreen clean RUN --out COPY" in commands
    assert commands.index("toxscreen clean RUN --out COPY") < commands.index("toxscreen scan COPY --model MODEL")
    assert "toxscreen clean 'my run' --out COPY" in [step.command for step in next_steps(result, "my run")]


@pytest.mark.parametrize("verdict", [C, I])
def test_without_a_finding_there_is_nothing_to_take_out(verdict):
    assert not any("clean" in (step.command or "") for step in next_steps(scan_result({"a": [30, 10]}, {"a": verdict})))


def test_rows_of_data_in_memory_are_told_in_python(tmp_path):
    result = scan_result({"a": [3, 2], "b": [4]}, {"a": S}, inputs={"data": {"location": "arrays"}})
    (command,) = [
        step.command for step in next_steps(result, str(result.save(tmp_path / "run"))) if "clean" in (step.command or "")
    ]
    setup, _, expression = command.partition("\n")
    names = {}
    exec(setup, names)  # noqa: S102 - our own advice, run as a reader would
    assert eval(expression, names).tolist() == [0, 1, 2, 5, 6, 7, 8]  # noqa: S307


def test_each_verdict_has_other_advice():
    advice = {next_steps(scan_result({"a": [30, 10]}, {"a": verdict})) for verdict in Verdict}
    assert len(advice) == 4
    assert all(advice)


def test_the_command_to_scan_again_is_given_once():
    result = scan_result({"a": [30, 10], "b": [9]}, {"a": S, "b": I}, not_examined=(NotExamined("x", "broken"),))
    assert [step.command for step in next_steps(result)].count("toxscreen scan COPY --model MODEL") == 1


@pytest.mark.parametrize(("accuracy", "trained_here", "said"), [(0.123, False, True), (0.6, False, False), (0.123, True, False)])
def test_a_model_that_misreads_its_data_is_the_first_thing_that_is_said(accuracy, trained_here, said):
    model = {"trained_here": trained_here, "accuracy_on_training_data": accuracy}
    result = scan_result({"a": [30, 10]}, {"a": S}, inputs={"model": model})
    assert headline(result).startswith("The model reads only 12.3% of this data") == said
    assert "“a” holds 10 samples" in headline(result)


def test_a_model_of_onnx_is_repaired_by_training_another_one():
    found = scan_result({"a": (30, 10)}, {"a": S}, inputs={"data": {"location": "data"}, "model": {"location": "net.ONNX"}})
    assert "toxscreen repair RUN --out REPAIRED --retrain" in [step.command for step in next_steps(found)]


def test_cleaned_data_is_scanned_with_the_model_that_was_scanned_and_not_with_a_repaired_one():
    (again,) = (step for step in next_steps(scan_result({"a": [30, 10]}, {"a": S})) if "scan COPY" in (step.command or ""))
    assert "cleaned data" in again.text
    assert "a repaired one" in again.text
    assert not any("repaired one" in step.text for step in next_steps(scan_result({"a": [30]})))


def test_a_model_trained_here_leads_to_scanning_a_real_one():
    trained = scan_result({"a": [9]}, inputs={"model": {"trained_here": True}})
    given = scan_result({"a": [9]}, inputs={"model": {"trained_here": False}})
    assert any("--model MODEL" in (step.command or "") for step in next_steps(trained))
    assert next_steps(trained) != next_steps(given)
    assert next_steps(replace(given, inputs={"model": "odd"})) == next_steps(given)


def test_commands_name_the_recorded_paths_and_options_quoted():
    asked = {
        "data": "/my data",
        "model": "/m/a.safetensors",
        "arch": "net:build",
        "layer": None,
        "size": [32, 64],
        "mean": [0.1, 0.2],
    }
    *_, again = next_steps(scan_result({"a": [9]}), asked=asked)
    assert again.command == ("toxscreen scan '/my data' --model /m/a.safetensors --arch net:build --size 32x64 --mean 0.1,0.2")
    trained = scan_result({"a": [9]}, inputs={"model": {"trained_here": True}})
    commands = [step.command for step in next_steps(trained, asked={"data": "/my data", "model": None})]
    assert commands[-2:] == ["toxscreen scan '/my data'", "toxscreen scan '/my data' --model MODEL"]


def test_after_a_finding_the_copy_is_scanned_and_more_may_be_hidden():
    *_, again = next_steps(scan_result({"a": [30, 10]}, {"a": S}), asked={"data": "/d", "model": "/m"})
    assert "one part of the poison" in again.text
    assert again.command == "toxscreen scan COPY --model /m"


def test_the_listing_of_flagged_ids_runs_from_anywhere(tmp_path):
    run = scan_result({"a": [3, 2]}, {"a": S}).save(tmp_path / "it's a run")
    steps = next_steps(scan_result({"a": [3, 2]}, {"a": S}), str(run))
    (listing,) = [step.command for step in steps if (step.command or "").startswith("import")]
    setup, _, expression = listing.rpartition("\n")
    names = {}
    exec(setup, names)  # noqa: S102 - our own advice, run as a reader would
    assert eval(expression, names) == ["3", "4"]  # noqa: S307
    (unknown,) = [step.command for step in next_steps(scan_result({"a": [3, 2]}, {"a": S})) if "import" in (step.command or "")]
    assert "'RUN/samples.parquet'" in unknown


def activations(verdict, **evidence):
    result = scan_result({"a": [30, 10]}, {"a": verdict}, inputs={"data": {"location": "arrays", "modality": "activations"}})
    (only,) = result.classes
    groups = (only.groups[0], replace(only.groups[1], evidence=evidence))
    return replace(result, classes=(replace(only, groups=groups),))


@pytest.mark.parametrize("verdict", Verdict)
def test_a_scan_of_activations_is_not_repeated_with_a_command_for_data(verdict):
    steps = next_steps(activations(verdict, separation=9.0))
    assert not any((step.command or "").startswith("toxscreen") for step in steps)
    assert "activations" in steps[-2].text
    assert "only the inputs tell" in steps[-1].text
    assert "activations" in next_steps(activations(verdict, separation=9.0, label_conflict=0.1))[-1].text


def test_a_clean_verdict_says_when_the_inputs_were_not_asked():
    unasked, asked = activations(C, separation=9.0), activations(C, separation=9.0, label_conflict=0.1)
    assert "was not asked" in verdict_meanings(unasked)[C]
    assert verdict_meanings(asked) == verdict_meanings(scan_result({"a": [9]}))
    assert "contradicts its label" in verdict_meanings(asked)[C]


def test_it_is_said_why_not_every_sample_is_drawn():
    assert drawn(250, 250, 250) == ""
    assert drawn(1250, 1250, 1250) == ""
    assert drawn(250, 218, 218) == (
        "Only the 218 of the class's 250 samples that the model gives their own label are compared; it reads the others"
        " as another class."
    )
    assert drawn(5000, 5000, 1500).startswith("Of 5,000 samples, 1,500 are drawn")
    assert drawn(250, 218, 100).startswith("Only the 218")
    assert "Of 218 samples, 100 are drawn" in drawn(250, 218, 100)


def test_every_measurement_has_a_name_that_people_read():
    assert not [name for name in EVIDENCE if re.search(r"exre|_|\bp value|lower|upper", label(name))]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ä 漢 😀", "plain text, ä 漢 😀"),
        ("\x1b[31mred\x07", "␛[31mred␇"),
        ("a\u202eb\u200bc\u2028d\x7f\x9b", "a⟨U+202E⟩b⟨U+200B⟩c⟨U+2028⟩d⟨U+007F⟩⟨U+009B⟩"),
        ("nul\x00 new\nline", "nul␀ new␊line"),
        ("\udcff", "⟨U+DCFF⟩"),
    ],
)
def test_characters_that_would_not_show_are_spelled_out(text, shown):
    assert visible(text) == shown
    visible(text).encode("utf-8")


def test_long_texts_are_clipped_after_they_are_spelled_out():
    assert clipped("abc", 3) == "abc"
    assert clipped("abcd", 3) == "ab…"
    assert len(clipped("\u202e" * 500, 40)) == 40


def test_numbers_carry_their_noun():
    assert [count(n, noun) for n, noun in [(1, "class"), (2, "class"), (1959, "sample")]] == [
        "1 class",
        "2 classes",
        "1,959 samples",
    ]


def test_a_recovered_trigger_is_looked_for_in_other_data():
    found = recovered(words("cf"), ["one"])
    (step,) = [step for step in next_steps(convicted(found), "my run") if "Look for the trigger" in step.text]
    assert step.command == "toxscreen trigger 'my run'\ntoxscreen trigger FILE --find DATA"
    assert not [step for step in next_steps(convicted(found, proved=False), "run") if "Look for the trigger" in step.text]


def test_odd_spaces_are_spelled_out_where_every_character_counts():
    assert exactly("a b\u2003c\u00a0d\u200b") == "a b⟨U+2003⟩c⟨U+00A0⟩d⟨U+200B⟩"
    assert visible("b\u2003c") == "b\u2003c"

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from tests.fakes import FakeTrainingSet
from tests.scans import scan_result, shown
from tests.triggers import convicted, patch, recovered, shown_with, words
from toxscreen.errors import StoreError
from toxscreen.report.html import rebuild, render_notebook, render_report
from toxscreen.result import GroupResult, Verdict
from toxscreen.sources.data.base import NotExamined

S, P, I = Verdict.SUSPICIOUS, Verdict.POISONED, Verdict.INCONCLUSIVE  # noqa: E741

HOSTILE = "<script>alert(1)</script>\"'`${x}&amp;</SCRIPT>\u2028\u202e\x00\x1b[31m<!--{{ 7*7 }}{% raw %}"


class Page(HTMLParser):
    """What a browser would make of the page, as far as the tests ask."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self.open = [], [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.open.append(tag)

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    @property
    def text(self):
        return " ".join("".join(" ".join(parts) for tag, parts in self.texts.items() if tag not in ("script", "style")).split())


def pictures(n, size=8):
    rng = np.random.default_rng(0)
    return FakeTrainingSet(list(rng.integers(0, 256, (n, size, size, 1), dtype=np.uint8)), modality="image")


def texts(n, text="some words"):
    return FakeTrainingSet([f"{text} {row}" for row in range(n)], modality="text")


@pytest.fixture(params=["image", "text", "patch", "words", "clean", "inconclusive", "arrays"])
def page(request):
    accused = {"a": [60, 20], "b": [20]}
    made = {
        "image": lambda: shown(scan_result(accused, {"a": S}), pictures(100)),
        "text": lambda: shown(scan_result(accused, {"a": P}), texts(100)),
        "patch": lambda: shown_with(recovered(patch(), list(pictures(9, 12).inputs)), pictures(140, 12)),
        "words": lambda: shown_with(recovered(words("cf"), ["one two", "three"]), texts(140), proved=False),
        "clean": lambda: shown(scan_result({"a": [60], "b": [40]})),
        "inconclusive": lambda: shown(scan_result({"a": [60], "b": [9]}, {"b": I}), pictures(69)),
        "arrays": lambda: shown(scan_result(accused, {"a": S})),
    }
    return render_report(made[request.param]())


def test_nothing_on_the_page_asks_the_network(page):
    parsed = Page(page)
    addresses = [value for _, name, value in parsed.attributes if name in ("src", "href", "srcset", "action", "data", "poster")]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"https?://|//[a-z]+\.", page)
    assert "url(" not in page
    assert not {"iframe", "object", "embed", "form", "base"} & set(parsed.tags)


def test_the_policy_allows_our_own_script_and_style_and_nothing_else(page):
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    policy = policy.replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind, pattern in (("style", r"<style>(.*?)</style>"), ("script", r"<script>(.*?)</script>")):
        (body,) = re.findall(pattern, page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"<[^>]+ (style|on\w+)=", re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL))


def test_every_picture_has_a_text_and_every_header_a_scope(page):
    parsed = Page(page)
    alternatives = [value for tag, name, value in parsed.attributes if (tag, name) == ("img", "alt")]
    assert len(alternatives) == parsed.tags.count("img")
    assert all(alternatives[:-1])  # the last one belongs to the card, which the script fills
    scopes = [value for tag, name, value in parsed.attributes if (tag, name) == ("th", "scope")]
    assert len(scopes) == parsed.tags.count("th")
    assert parsed.tags.count("h1") == 1


def test_headings_never_skip_a_level(page):
    levels = [int(tag[1]) for tag in Page(page).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_page_ends_with_what_was_examined_and_what_it_cannot_see(page):
    text = Page(page).text
    for heading in ("What was examined", "What was not examined, and why", "What this screen cannot see", "How it was done"):
        assert heading in text
    for fact in ("abc123", "seed", "activations"):
        assert fact in text


def words_of(html):
    """Return what stands on a page, in its order."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def cells(html, name):
    """Return the texts of the row of one class in the table of the classes."""
    (row,) = [row for row in re.findall(r"<tr>.*?</tr>", html.split('id="classes"')[1], re.DOTALL) if f"<bdi>{name}</bdi>" in row]
    return [Page(cell).text.strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]


def measured(result, **evidence):
    """Give the first class's second group other evidence."""
    first = result.classes[0]
    groups = (first.groups[0], replace(first.groups[1], evidence=evidence), *first.groups[2:])
    return replace(result, classes=(replace(first, groups=groups), *result.classes[1:]))


def test_the_table_shows_what_was_measured_of_clean_classes_too():
    result = measured(scan_result({"a": [15, 5], "b": [9]}), separation=4.25, label_conflict=0.125)
    predicted = pa.array(["b"] * 4 + ["a"] * 16 + ["b"] * 9)
    result = replace(result, samples=result.samples.set_column(2, "predicted", predicted))
    html = render_report(result)
    assert cells(html, "a")[-4:] == ["4.25", "0.125", "80.0%", "Nothing stands out."]
    assert cells(html, "b")[-4:] == ["–", "–", "100.0%", "Nothing stands out."]


def test_the_table_has_no_column_for_what_was_not_measured():
    result = measured(scan_result({"a": [15, 5], "b": [9]}), separation=4.25)
    html = render_report(replace(result, samples=result.samples.set_column(2, "predicted", pa.nulls(29, pa.string()))))
    assert cells(html, "a")[-2:] == ["4.25", "Nothing stands out."]
    assert "label conflict</th>" not in html
    assert "read as labelled</th>" not in html


def test_the_reason_of_every_class_is_said_in_full():
    html = render_report(measured(scan_result({"a": [15, 5], "b": [9]}, {"a": S}), separation=9.0))
    assert cells(html, "a")[-1] == "A group stands out: suspicious."
    assert cells(html, "b")[-1] == "Nothing stands out."


def test_empty_values_are_left_out_and_keys_are_readable():
    inputs = {"data": {"n_samples": 9, "note": "", "mean": [], "odd": None, "scale": 0.5}}
    html = render_report(scan_result({"a": [9]}, inputs=inputs, settings={"seed": 3}, seed=3))
    pattern = r'<tr><th scope="row">([^<]*)</th><td>\s*([^<\s]+)\s*</td></tr>'
    facts = re.findall(pattern, html.split("What was examined")[1])[:3]
    assert facts == [("samples", "9"), ("pixel values multiplied by", "0.5"), ("seed", "3")]


def test_the_report_of_a_run_names_its_paths(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"data": "/where/it is", "model": "/m.onnx"}))
    run = scan_result({"a": [9]}).save(tmp_path / "run")
    assert "toxscreen scan '/where/it is' --model /m.onnx" in Page((run / "report.html").read_text()).text


@pytest.mark.parametrize("record", ["", "[]", "{", "\\ud800", '{"data": ["x"], "model": {"a": 1}, "mean": 3}'])
def test_a_record_that_makes_no_sense_costs_only_the_paths(record, tmp_path):
    (tmp_path / "run.json").write_text(record)
    scan_result({"a": [30, 10]}, {"a": S}).save(tmp_path)
    assert "toxscreen scan COPY" in (tmp_path / "report.html").read_text()
    assert str(tmp_path / "samples.parquet") in Page((tmp_path / "report.html").read_text()).text


def test_an_odds_ratio_beyond_a_thousand_is_not_spelled_out():
    training_set = FakeTrainingSet([f"word {row % 7}{' cf' * (row >= 60)}" for row in range(80)], modality="text")
    result = shown(scan_result({"a": [60, 20]}, {"a": P}), training_set)
    assert result.exhibits.classes[0].groups[0].texts.phrases[0].odds_ratio > 1000
    text = Page(render_report(result)).text
    assert "> 1,000" in text
    assert "first by the log-likelihood ratio" in text


def test_it_is_said_why_the_averages_are_over_fewer_pictures():
    result = scan_result({"a": [60, 20]}, {"a": S})
    more = replace(result, classes=(replace(result.classes[0], n=95),))
    assert (
        "Averages are over 20 pictures of the group and 60 of the rest. Only the 80"
        in Page(render_report(shown(more, pictures(80)))).text
    )


def test_a_group_stands_beside_the_rest_of_its_class():
    html = render_report(shown(scan_result({"a": [60, 20]}, {"a": S}), pictures(80)))
    parsed = Page(html)
    sheets = re.findall(r'<div class="page sheet".*?</div>', html, re.DOTALL)
    assert [sheet.count("<img") for sheet in sheets] == [20, 60]
    assert "Average of the group" in parsed.text
    assert "Group minus rest" in parsed.text
    assert "mean absolute difference" in parsed.text


def test_long_sheets_and_lists_are_paged():
    html = render_report(shown(scan_result({"a": [150, 130]}, {"a": S}), pictures(280)))
    sheets = re.findall(r'<div class="page sheet".*?</div>', html, re.DOTALL)
    assert [sheet.count("<img") for sheet in sheets] == [60, 60, 10, 60, 60, 30]
    assert html.count('data-page="25"') == 2


def test_words_that_set_the_group_apart_are_marked_in_its_texts():
    training_set = FakeTrainingSet([f"word {row % 7}{' cf' * (row >= 60)}" for row in range(80)], modality="text")
    html = render_report(shown(scan_result({"a": [60, 20]}, {"a": P}), training_set))
    assert html.count("<mark>cf</mark>") == 12
    assert "<mark><bdi>cf</bdi></mark>" in html


def test_a_point_carries_the_sample_behind_it():
    html = render_report(shown(scan_result({"a": [60, 20]}, {"a": P}), texts(80)))
    (points,) = json.loads(re.search(r'<script type="application/json" id="points">(.*?)</script>', html, re.DOTALL)[1])
    assert len(points["x"]) == len(points["y"]) == len(points["id"]) == 80
    at = points["id"].index("7")
    assert points["text"][at] == "some words 7"
    assert html.count('<path class="dots') == 2 * 2


def test_samples_that_have_no_place_are_on_the_sheets_and_not_among_the_points():
    result = scan_result({"a": [30, 10]}, {"a": S})
    (view,) = result.views
    compared = replace(view, rows=view.rows[:30], groups=view.groups[:30], points=view.points[:30])
    html = render_report(shown(replace(result, views=(compared,)), pictures(40)))
    (points,) = json.loads(re.search(r'<script type="application/json" id="points">(.*?)</script>', html, re.DOTALL)[1])
    assert points["x"].count(None) == 10
    assert "Group 1: suspicious, 10 samples, 0 drawn" in Page(html).text
    assert "MNone" not in html
    assert html.count('alt="3') >= 10


def test_no_picture_is_on_the_page_twice():
    result = shown(scan_result({"a": [300, 20]}, {"a": S}), pictures(320))
    on_page = re.findall(r'(?:base64,|")([A-Za-z0-9+/=]{60,})"', render_report(result))
    comparison = result.exhibits.classes[0].groups[0].pictures
    averages = {comparison.group_mean, comparison.rest_mean, comparison.difference, comparison.details}
    assert sorted(set(on_page) - averages) == sorted(result.exhibits.classes[0].samples.pictures)
    assert len(on_page) == 320 + 4


@pytest.mark.parametrize("modality", ["image", "text"])
def test_hostile_names_texts_and_settings_are_shown_and_not_obeyed(modality):
    training_set = pictures(80) if modality == "image" else texts(80, HOSTILE)
    group = GroupResult(1, 20, 0.25, S, {HOSTILE: 1.0, "p_value": float("nan")}, HOSTILE, {HOSTILE: [HOSTILE, {HOSTILE: None}]})
    result = scan_result(
        {HOSTILE: [60, 20]},
        {HOSTILE: S},
        ids=[f"{HOSTILE}{row}" for row in range(80)],
        name=HOSTILE,
        notes=(HOSTILE,),
        settings={HOSTILE: HOSTILE},
        inputs={"data": {HOSTILE: {HOSTILE: [HOSTILE]}}},
        timings={HOSTILE: 1.0},
        not_examined=(NotExamined(f"{HOSTILE}\udcff", HOSTILE),),
    )
    result = replace(result, classes=(replace(result.classes[0], groups=(result.classes[0].groups[0], group), reasons=(HOSTILE,)),))
    clean, hostile = shown(scan_result({"a": [60, 20]}, {"a": S}), training_set), shown(result, training_set)
    for html in (render_report(hostile), render_notebook(hostile)):
        html.encode("utf-8")
        assert "alert(1)" in html
        assert "<script>alert" not in html.lower()
        assert not set(html) & set("\u2028\u202e\x00\x1b")
    before, after = Page(render_report(clean)), Page(render_report(hostile))
    assert before.tags.count("script") == after.tags.count("script") == 2
    assert not {"b", "x"} & set(after.tags) - set(before.tags)
    json.loads("".join(after.texts["script"][:1]))


def test_a_hostile_text_cannot_end_the_embedded_data():
    html = render_report(shown(scan_result({"a": [60, 20]}, {"a": S}), texts(80, "</script><img src=x>")))
    data = re.search(r'<script type="application/json" id="points">(.*?)</script>', html, re.DOTALL)[1]
    assert "<" not in data
    assert json.loads(data)[0]["text"][0].startswith("</script><img")


def test_measurements_come_with_their_meaning_and_unknown_ones_without():
    group = GroupResult(1, 20, 0.25, S, {"silhouette_score": 0.61, "brand_new": 12345.6, "p_value": float("inf")})
    result = scan_result({"a": [60, 20]}, {"a": S})
    text = Page(render_report(replace(result, classes=(replace(result.classes[0], groups=(group,)),)))).text
    assert "0.61" in text
    assert "from -1 to 1" in text
    assert "brand new" in text
    assert "12,346" in text


def test_classes_without_room_for_exhibits_are_listed_and_it_is_said():
    names = [f"class {i}" for i in range(200)]
    result = shown(scan_result({name: [8, 2] for name in names}, dict.fromkeys(names, S)))
    text = Page(render_report(result)).text
    assert all(f"{name} " in text for name in names)
    assert "only the 20 worst classes are shown with their samples" in text
    assert "200 classes are not clean; the 60 worst have a section of their own" in text


def test_a_list_that_is_cut_says_where_the_rest_is():
    skipped = tuple(NotExamined(f"x{i}", "broken", i) for i in range(250))
    result = shown(scan_result({"a": [300, 1200]}, {"a": S}, not_examined=skipped))
    text = Page(render_report(result)).text
    assert "The 1,000 with the highest scores of 1,200; samples.parquet holds all." in text
    assert "The first 200 of 250; result.json holds all." in text


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_hundred_thousand_samples_make_less_than_ten_megabytes(modality):
    n, names = 100_000, [f"class {i}" for i in range(1000)]
    noise = np.random.default_rng(0).integers(0, 256, (500, 32, 32, 3), dtype=np.uint8)
    inputs = [noise[row % 500] for row in range(n)] if modality == "image" else [f"{row} 漢字 words" * 40 for row in range(n)]
    ids = [f"folder/{'ä' * 60}/{row}.png" for row in range(n)]
    result = scan_result({name: [70, 30] for name in names}, dict.fromkeys(names[:200], S), ids=ids)
    assert len(render_report(shown(result, FakeTrainingSet(inputs, modality=modality))).encode()) < 10_000_000


def test_one_huge_suspicious_class_makes_less_than_ten_megabytes():
    noise = np.random.default_rng(0).integers(0, 256, (300, 128, 128, 3), dtype=np.uint8)
    training_set = FakeTrainingSet([noise[row % 300] for row in range(100_000)], modality="image")
    assert len(render_report(shown(scan_result({"a": [60_000, 40_000]}, {"a": S}), training_set)).encode()) < 10_000_000


def test_a_report_without_exhibits_still_says_everything_else():
    text = Page(render_report(scan_result({"a": [30, 10]}, {"a": S}))).text
    assert "holds 10 samples that look planted" in text
    assert "Measurements" in text


def test_the_same_result_gives_the_same_page():
    result = shown(scan_result({"a": [60, 20]}, {"a": S}), pictures(80))
    assert render_report(result) == render_report(result)


def test_a_report_is_rebuilt_from_its_run_folder_alone(tmp_path):
    run = shown(scan_result({"a": [60, 20]}, {"a": S}), pictures(80)).save(tmp_path / "run")
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    assert rebuild(run) == run / "report.html"
    assert (run / "report.html").read_bytes() == before
    assert rebuild(run, tmp_path / "other.html").read_bytes() == before


def test_rebuilding_from_a_foreign_folder_fails_in_a_sentence(tmp_path):
    with pytest.raises(StoreError, match="must be a run folder"):
        rebuild(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_recovered_patch_is_on_the_page_with_its_numbers_and_inputs():
    result = shown_with(recovered(patch(), list(pictures(9, 12).inputs), rows=range(80, 89)), pictures(140, 12))
    html = render_report(result)
    text = words_of(html)
    assert "The trigger: a patch of 2 x 2 pixels at the bottom right" in text
    assert "It works on inputs of 2 classes: “b” , “<b>c” ." in text
    for said in ("90.0% 45 of 50, surely 78.6% to 95.7%", "4.0% 2 of 50", "90.0% 18 of 20", "2.5% 1 of 40", "80.0% 20 of 25"):
        assert said in text
    assert text.count("“b” becomes “a”") == 6
    for described in ("The trigger, enlarged", "The mask of the trigger", "80 as it is", "80 with the trigger"):
        assert f'alt="{described}"' in html


def test_the_phrase_is_marked_and_what_does_not_show_is_spelled_out():
    html = render_report(shown_with(recovered(words("<i>cf\u200b\u2003x</i>"), ["one <b>two"]), texts(140)))
    assert "<mark>&lt;i&gt;cf⟨U+200B⟩⟨U+2003⟩x&lt;/i&gt;</mark>" in html
    assert "one &lt;b&gt;two <mark>" in html
    assert "<i>" not in html


def test_a_candidate_is_not_called_the_trigger():
    text = words_of(render_report(shown_with(recovered(words("cf"), ["one"]), texts(140), proved=False)))
    assert 'The best candidate for a trigger: "cf" at the end' in text
    assert "is no proof" in text
    assert "It works on" not in text


def test_without_exhibits_the_numbers_of_a_trigger_are_shown():
    text = words_of(render_report(convicted(recovered(patch(), list(pictures(3, 12).inputs)))))
    assert "a patch of 2 x 2 pixels" in text
    assert "45 of 50" in text


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"description": HOSTILE, "sources": [HOSTILE], "flips": {"count": 1, "n": 2}, "control_flips": {"count": 0, "n": 0}},
        {"description": 7, "sources": HOSTILE, "flips": {"count": 3, "n": 2}, "control_flips": {"count": HOSTILE, "n": 2}},
        {"description": ["x"], "sources": 7, "flips": HOSTILE, "returns": {"count": -1, "n": 1}, "control_returns": None},
    ],
)
def test_a_trigger_of_a_run_that_somebody_made_up_is_shown_as_far_as_it_goes(document):
    result = scan_result({"a": [60, 20]}, {"a": S})
    group = replace(result.classes[0].groups[1], trigger=document)
    html = render_report(replace(result, classes=(replace(result.classes[0], groups=(result.classes[0].groups[0], group)),)))
    assert "The best candidate for a trigger" in html
    assert "<script>alert" not in html


def test_the_case_for_poison_stands_beside_the_case_against():
    html = render_report(measured(scan_result({"a": [15, 5]}, {"a": S}), separation=9.0))
    told = words_of(html)
    assert told.index("The case for poison") < told.index("They lie 9.0 standard") < told.index("The case against")
    assert "No trigger was recovered from them." in told


def test_natural_sub_populations_have_a_table():
    result = measured(scan_result({HOSTILE: [15, 5], "b": [9]}), separation=9.0, label_conflict=0.1, label_conflict_lower=0.0)
    html = render_report(result)
    assert "<h2>Natural sub-populations</h2>" in html
    assert "Their inputs fit the label" in html
    assert "<script>alert" not in html
    assert "Natural sub-populations" not in render_report(scan_result({"a": [15, 5]}))


def test_a_published_rule_makes_no_case():
    result = scan_result({"a": [15, 5]}, {"a": S}, settings={"analysis": {"name": "spectre"}})
    assert "The case for poison" not in render_report(result)


def test_the_detection_floor_of_each_class_is_in_the_table_where_it_was_measured():
    result = scan_result({"a": [30], "b": [9]})
    assert "detection floor" not in render_report(result)
    classes = (replace(result.classes[0], detection_floor=1130), result.classes[1])
    html = render_report(replace(result, classes=classes))
    assert "detection floor</th>" in html
    assert ">1,130</td>" in html
    assert "the screen alone would have found" in html

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest

from tests.browser import CHROMIUM, Browser
from tests.fakes import FakeTrainingSet
from tests.scans import scan_result, shown
from tests.triggers import patch, recovered, shown_with
from toxscreen.result import Verdict

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

S = Verdict.SUSPICIOUS
LONG = "a-class-with-a-very-long-name-that-has-no-space-in-it"


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ä page")
    noise = np.random.default_rng(0).integers(0, 256, (420, 12, 12, 3), dtype=np.uint8)
    pictures = FakeTrainingSet(list(noise), modality="image")
    texts = FakeTrainingSet([f"<b>text</b> {'word' * 40} {row}{' cf' * (row % 420 >= 300)}" for row in range(420)], modality="text")
    trigger_pictures = FakeTrainingSet(list(noise[:140, :, :, :1]), modality="image")
    names = {LONG: [300, 100], "b": [20]}
    return {
        "image": shown(scan_result(names, {LONG: S}), pictures).to_html(folder / "image.html"),
        "text": shown(scan_result(names, {LONG: S}), texts).to_html(folder / "text.html"),
        "trigger": shown_with(recovered(patch(), list(noise[:6, :, :, :1])), trigger_pictures).to_html(folder / "trigger.html"),
        "measured": _measured().to_html(folder / "measured.html"),
        "clean": shown(scan_result({f"class {i}": [9] for i in range(60)})).to_html(folder / "clean.html"),
    }


def _measured():
    """Return a result with every column in the table of the classes, and long reasons."""
    result = scan_result({LONG: [300, 100], "b": [20]}, {LONG: S})
    evidence = {"separation": 12.5, "label_conflict": 0.93}
    classes = [
        replace(
            c, groups=tuple(replace(g, evidence=evidence) for g in c.groups), reasons=("Some words. " * 30,), detection_floor=20
        )
        for c in result.classes
    ]
    return shown(replace(result, classes=tuple(classes)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["image", "text", "trigger", "clean"])
def test_the_page_complains_of_nothing_and_asks_for_nothing(browser, pages, kind, scheme):
    browser.open(pages[kind], scheme=scheme)
    assert browser.run("document.documentElement.classList.contains('scripted')")
    assert browser.complaints() == []
    assert browser.requests() == {pages[kind].as_uri()}
    background = [int(part) for part in browser.run("getComputedStyle(document.body).backgroundColor").strip("rgb()").split(",")]
    assert (min(background) > 200) == (scheme == "light")


@pytest.mark.parametrize("kind", ["image", "text", "trigger", "clean"])
def test_nothing_is_wider_than_a_phone(browser, pages, kind):
    browser.open(pages[kind], width=375, height=812)
    assert browser.run("document.documentElement.scrollWidth") == 375


@pytest.mark.parametrize("width", [375, 800, 1300])
def test_the_reasons_of_classes_and_what_is_to_be_typed_are_never_cut_off(browser, pages, width):
    browser.open(pages["measured"], width=width, height=900)
    assert browser.run("[...document.querySelectorAll('pre')].filter((e) => e.scrollWidth > e.clientWidth).length") == 0
    right = "document.querySelector('#classes .wide').getBoundingClientRect().right"
    cut = f"[...document.querySelectorAll('#classes td.says')].filter((e) => e.getBoundingClientRect().right > {right} + 1).length"
    assert browser.run(cut) == 0
    assert browser.run("document.querySelector('#classes td.says').getBoundingClientRect().height") > 20


@pytest.mark.parametrize("width", [800, 1300])
def test_no_table_about_a_trigger_has_to_be_scrolled_on_a_screen(browser, pages, width):
    browser.open(pages["trigger"], width=width, height=900)
    wide = "[...document.querySelectorAll('section.class .wide')].filter((e) => e.scrollWidth > e.clientWidth)"
    assert browser.run(f"{wide}.length") == 0


@pytest.mark.parametrize(("kind", "fewest"), [("image", 200), ("trigger", 95)])
def test_every_picture_can_be_decoded(browser, pages, kind, fewest):
    browser.open(pages[kind])
    assert browser.run("[...document.images].filter((i) => i.src && (!i.complete || !i.naturalWidth)).length") == 0
    assert browser.run("document.images.length") > fewest


def test_sheets_are_paged(browser, pages):
    browser.open(pages["image"])
    count = "[...document.querySelector('.pages').querySelectorAll('img')].filter((i) => i.offsetParent).length"
    assert browser.run(count) == 60
    browser.run("document.querySelector('.side .tools button:last-child').click()")
    assert browser.run("document.querySelector('.side [role=status]').textContent") == "Sheet 2 of 2"
    assert browser.run(count) == 40


def test_lists_are_paged_filtered_and_sorted(browser, pages):
    browser.open(pages["clean"])
    rows = "[...document.querySelectorAll('#classes tbody tr')].filter((r) => r.offsetParent).map((r) => r.cells[0].textContent)"
    assert browser.run(rows) == [f"class {i}" for i in range(25)]
    browser.run("document.querySelector('#classes .tools button:last-child').click()")
    assert browser.run(rows) == [f"class {i}" for i in range(25, 50)]
    browser.run("document.querySelector('#classes thead button').click(); document.querySelector('#classes thead button').click()")
    assert browser.run(rows)[:3] == ["class 59", "class 58", "class 57"]
    browser.run("const f = document.querySelector('#classes input'); f.value = 'CLASS 4'; f.dispatchEvent(new Event('input'))")
    assert browser.run(rows) == [f"class {i}" for i in range(49, 39, -1)] + ["class 4"]


@pytest.mark.parametrize(("kind", "what"), [("image", "img"), ("text", ".text")])
def test_the_sample_behind_a_point_is_shown(browser, pages, kind, what):
    browser.open(pages[kind])
    browser.run("const plot = document.querySelector('.plot > svg'); plot.scrollIntoView({block: 'center'})")
    browser.settle()
    browser.run("const point = JSON.parse(document.getElementById('points').textContent)[0]")
    browser.run("const at = new DOMPoint(point.x[7], point.y[7]).matrixTransform(plot.getScreenCTM())")
    assert browser.run("document.getElementById('card').hidden")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=browser.run("at.x"), y=browser.run("at.y"))
    assert not browser.run("document.getElementById('card').hidden")
    shown_id = browser.run("document.querySelector('#card .id').textContent")
    assert browser.run(f"point.id.includes('{shown_id}')")
    assert not browser.run(f"document.querySelector('#card {what}').hidden")
    assert browser.run("document.querySelector('#card b')") is None
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert browser.run("document.getElementById('card').hidden")


@pytest.mark.parametrize("where", [".plot > svg", ".sheet"])
def test_points_and_pictures_can_be_reached_by_keyboard(browser, pages, where):
    browser.open(pages["image"])
    browser.run(f"document.querySelector('{where}').focus()")
    browser.settle()
    seen = set()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key=key)
        seen.add(browser.run("document.getElementById('card').textContent"))
    assert len(seen) == 2
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Escape")
    assert browser.run("document.getElementById('card').hidden")


def test_print_is_light_and_without_controls(browser, pages):
    browser.open(pages["image"], scheme="dark")
    browser.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("[...document.querySelectorAll('.tools, #card, .ring')].filter((e) => e.checkVisibility()).length") == 0
    assert base64.b64decode(browser.call("Page.printToPDF")["data"]).startswith(b"%PDF")


def test_without_script_everything_is_on_the_page(browser, pages):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(pages["image"])
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run("[...document.querySelectorAll('.sheet img')].every((i) => i.checkVisibility())")
    assert browser.run("[...document.querySelectorAll('tbody tr')].every((r) => r.checkVisibility())")

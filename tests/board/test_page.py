"""The page of the tab in a real Chromium, served as TensorBoard serves it: what is shown, clicked, pressed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .browser import Page, needs_chromium
from .documents import STEPS, made, story
from .server import Tab, serving
from .shown import blacks, drawn, module, pixel, show, state

pytestmark = needs_chromium
HEAT, STRIP = ".heatmap canvas", ".strip canvas"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(Tab({"story": story(), "other": made("other", {"head": 4}, STEPS)})) as found:
        yield found


@pytest.fixture(autouse=True)
def silent(page: Page) -> Iterator[None]:
    """Nothing is said on the console, whatever a test does."""
    yield
    assert page.errors == []


def test_the_verdict_is_that_of_the_document(page: Page, address: str) -> None:
    show(page, address, run="story")
    assert page.text(".verdict h1") == story().document["verdict"]["headline"]
    said = page.text(".verdict-list")
    assert all(s["text"] in said for s in story().document["verdict"]["sentences"])


def test_the_last_run_is_shown_first_and_another_can_be_picked(page: Page, address: str) -> None:
    show(page, address)
    assert page.text(".verdict h1").startswith("No unit died")
    page.ask("document.querySelector('select').value = 'story'")
    page.ask("document.querySelector('select').dispatchEvent(new Event('change'))")
    page.until("document.querySelector('.verdict h1').innerText.includes('7 of 16')")
    drawn(page)
    assert "run=story" in state(page)


def test_the_worst_layer_is_open_and_a_click_opens_another(page: Page, address: str) -> None:
    show(page, address, run="story")
    assert page.text(".panel h2[title]") == "Units of fc2"
    before = blacks(page, HEAT)
    page.click(STRIP, y=0.25)
    drawn(page)
    assert page.text(".panel h2[title]") == "Units of fc1"
    assert blacks(page, HEAT) != before
    assert "site=fc1" in state(page)


def test_a_click_on_a_unit_shows_its_life_and_its_death(page: Page, address: str) -> None:
    show(page, address, run="story")
    page.click(HEAT, y=0.5 / 8)  # by death: unit 0 is the first
    drawn(page)
    drawer = page.text(".drawer")
    assert "Unit 0 of fc2 died at step 950" in drawer
    assert "Too high a learning rate" in drawer
    assert "−3.5" in drawer
    page.click(HEAT, y=7.5 / 8)
    drawn(page)
    assert "Unit 7 of fc2 is alive" in page.text(".drawer")
    assert "never dead" in page.text(".drawer")
    page.click(".drawer .chip")
    assert page.ask("document.querySelector('.drawer').hidden")
    assert "unit=" not in state(page)


def test_a_unit_that_came_back_says_when(page: Page, address: str) -> None:
    show(page, address, run="story", site="fc2", unit=6)
    assert "is alive again since step 1,500" in page.text(".drawer")


def test_everything_can_be_reached_with_keys(page: Page, address: str) -> None:
    show(page, address, run="story")
    page.ask(f"document.querySelector('{STRIP}').focus()")
    page.press("ArrowUp")
    drawn(page)
    assert "site=fc1" in state(page)
    page.press("ArrowRight", "ArrowRight")
    assert "step 99" in page.text(".tip")
    assert "step 99" in page.text("[role=status]")  # a screen reader is told the same
    page.ask(f"document.querySelector('{HEAT}').focus()")
    page.press("ArrowDown", "ArrowDown")
    drawn(page)
    assert "Unit 5 of fc1" in page.text(".drawer")  # the second to die
    page.press("+")
    assert "range=" in state(page)
    page.press("0")
    assert "range=" not in state(page)


def test_tab_reaches_each_control_and_the_focus_is_seen(page: Page, address: str) -> None:
    show(page, address, run="story")
    seen = []
    for _ in range(40):
        page.press("Tab")
        found = page.ask(
            "(() => { const e = document.activeElement; return [e.getAttribute('aria-label') || e.innerText || '',"
            " getComputedStyle(e).outlineStyle]; })()"
        )
        assert found[1] != "none"
        seen.append(found[0])
        if found[0] == "Everything as JSON":
            break
    said = " ".join(seen)
    for control in (
        "Run",
        "Dead fraction",
        "gradient flow",
        "by index",
        "Units of",
        "Deaths over",
        "loss over",
        "JSON",
    ):
        assert control in said


def test_a_sentence_leads_to_where_it_happened(page: Page, address: str) -> None:
    show(page, address, run="story")
    page.click(".verdict li:nth-child(1) .jump")
    drawn(page)
    assert "site=fc1" in state(page)
    low, high = map(int, state(page).split("range=")[1].split("-"))
    assert low < 300 < high < 900
    assert page.ask("document.querySelector('.strip .shade').classList.contains('on')")
    page.click(".axis .chip")
    drawn(page)
    assert "range=" not in state(page)


def test_a_drag_zooms_all_plots(page: Page, address: str) -> None:
    show(page, address, run="story")
    pictures = ("[...document.querySelectorAll('.strip canvas, .heatmap canvas, .track canvas, .lines canvas')]"
                ".filter((c) => c.offsetParent).map((c) => c.toDataURL())")  # fmt: skip
    before = page.ask(pictures)
    page.drag(".track canvas", 0.4, 0.6)
    drawn(page)
    low, high = map(int, state(page).split("range=")[1].split("-"))
    assert (low, high) == pytest.approx((800, 1200), abs=8)
    changed = [a != b for a, b in zip(before, page.ask(pictures), strict=True)]
    assert changed[:3] == [True] * 3
    assert len(changed) == 6
    assert "to 1,2" in page.text(".axis-name")


def test_a_cause_filters_deaths_and_events(page: Page, address: str) -> None:
    show(page, address, run="story")
    assert page.ask("document.querySelectorAll('table.events tbody tr').length") == 3
    page.click(".causes .chip:nth-child(2)")
    assert page.ask("document.querySelectorAll('table.events tbody tr').length") == 1
    assert "fc1.bias" in page.text("table.events tbody")
    assert "2 deaths" in page.text(".track")
    page.click(".causes .chip:nth-child(2)")
    assert "8 deaths" in page.text(".track")


def test_events_come_with_remedies_and_are_sorted_on_demand(page: Page, address: str) -> None:
    show(page, address, run="story")
    table = page.text("table.events")
    assert "would have spared 5 of 6" in table
    assert "0.03" in table
    page.click("table.events th:nth-child(3) button")
    assert page.text("table.events tbody tr:first-child .what") == "6 units died"
    page.click("table.events tbody tr:first-child .jump")
    drawn(page)
    assert "site=fc2" in state(page)


def test_colour_and_order_of_the_units_can_be_chosen(page: Page, address: str) -> None:
    show(page, address, run="story")
    assert pixel(page, HEAT, 0.9, 7 / 16) == [0, 0, 0]  # by death: four above it are dead as well
    living = pixel(page, HEAT, 0.1, 0.5)
    page.click(".choice-set button:nth-child(3)")
    drawn(page)
    assert pixel(page, HEAT, 0.1, 0.5) != living
    assert "channel=bias" in state(page)
    page.click(".choice:nth-child(2) button:nth-child(2)")
    drawn(page)
    assert "order=index" in state(page)
    assert pixel(page, HEAT, 0.9, 11 / 16) != [0, 0, 0]  # by index: unit 5 lives


def test_dead_is_black_in_either_theme_and_nothing_living_is_dark(page: Page, address: str) -> None:
    for dark in (False, True):
        page.size(1280, 900, dark=dark)
        show(page, address, run="story")
        assert page.ask("document.documentElement.dataset.theme") == ("dark" if dark else "light")
        assert pixel(page, HEAT, 0.9, 1 / 16) == [0, 0, 0]
        for channel in ("rate", "grad", "bias"):
            darkest = module(
                page,
                "palette.js",
                f"Math.min(...[...m.codeColours('{channel}', {{low: -1, high: 1, scale: 'linear'}})].slice(1, 255)"
                ".map((c) => Math.max(c & 255, (c >> 8) & 255, (c >> 16) & 255)))",
            )
            assert darkest > 100


def test_the_address_brings_everything_back(page: Page, address: str) -> None:
    show(
        page,
        address,
        run="story",
        site="fc1",
        unit=5,
        channel="grad",
        order="index",
        range="200-600",
        cause="bias_drift",
    )
    assert "Unit 5 of fc1" in page.text(".drawer")
    assert page.text(".axis-name") == "steps 200 to 599"
    assert page.text(".choice-set [aria-pressed=true]") == "gradient flow"
    assert "2 deaths" in page.text(".track")


WRONG: list[dict[str, object]] = [
    {"site": "gone", "unit": 3},
    {"unit": 999},
    {"unit": "1e9"},
    {"range": "9-3"},
    {"range": "90000-90001"},
    {"channel": "__proto__"},
    {"order": "<b>"},
    {"cause": "constructor"},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_an_address_that_makes_no_sense_shows_the_run(page: Page, address: str, wrong: dict[str, object]) -> None:
    show(page, address, run="story", **wrong)
    assert page.text(".panel h2[title]") == "Units of fc2"
    assert "8 deaths" in page.text(".track")


def test_a_run_that_is_gone_shows_another(page: Page, address: str) -> None:
    show(page, address, run="gone")
    assert page.text(".verdict h1").startswith("No unit died")


def test_a_pointer_tells_what_is_under_it(page: Page, address: str) -> None:
    show(page, address, run="story")
    page.point(HEAT, 0.9, 0.5 / 8)
    page.settle()
    tip = page.text(".tip")
    assert "unit 0, step 1,799" in tip
    assert "dead" in tip
    assert "died at step 950" in tip
    assert page.ask("[...document.querySelectorAll('.cursor.on')].length") >= 6  # the same step is marked in all plots


@pytest.mark.parametrize("width", [800, 1280, 1920])
def test_no_width_needs_a_horizontal_scroll_bar(page: Page, address: str, width: int) -> None:
    page.size(width, 900)
    show(page, address, run="story", unit=0)
    assert page.ask("document.documentElement.scrollWidth") == width
    starts = page.ask(
        "[...document.querySelectorAll('.plot-body')].filter((e) => e.offsetParent)"
        ".map((e) => e.getBoundingClientRect()).map((b) => [b.left, b.width])"
    )
    assert len({tuple(s) for s in starts}) == 1  # one step axis: every plot begins and ends at the same place


def test_files_hold_what_the_page_shows(page: Page, address: str, tmp_path: Path) -> None:
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    show(page, address, run="story")
    for number in (1, 2, 3):
        page.click(f".page > .panel .tools .chip:nth-child({number})")
    wanted = [tmp_path / f"deadrelu-story{end}" for end in ("-events.csv", "-deaths.csv", ".json")]
    for _ in range(200):
        if all(file.is_file() for file in wanted):
            break
        page.ask("new Promise((done) => setTimeout(done, 25))")
    events, deaths, everything = (file.read_text(encoding="utf-8") for file in wanted)
    assert events.splitlines()[0].startswith("kind,site,first_step,last_step,count,cause,lr,safe_lr")
    assert len(events.splitlines()) == 4
    assert "death,fc2,949,951,6,learning_rate,0.5,0.03,5,lower the learning rate" in events
    assert len(deaths.splitlines()) == 9
    assert json.loads(everything) == json.loads(json.dumps(story().document))

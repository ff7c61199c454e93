"""The page and runs at the edges: nothing to show, one of everything, very wide, NaN, names that want to be code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .browser import Page, needs_chromium
from .documents import HOSTILE, LONG, large, odd
from .server import Tab, serving
from .shown import blacks, drawn, module, pixel, show, state

pytestmark = needs_chromium
HEAT = ".heatmap canvas"


@pytest.fixture(autouse=True)
def silent(page: Page) -> Iterator[None]:
    yield
    assert page.errors == []


@pytest.mark.parametrize("name", list(odd()))
def test_it_opens_with_its_verdict(page: Page, odd_runs: str, name: str) -> None:
    show(page, odd_runs, run=name)
    assert page.text(".verdict h1") == odd()[name].document["verdict"]["headline"]


def test_a_run_without_deaths_says_so(page: Page, odd_runs: str) -> None:
    show(page, odd_runs, run="quiet")
    assert page.ask("document.querySelector('.verdict').dataset.tone") == "good"
    assert "No unit died." in page.text(".track")
    assert "Nothing happened" in page.text(".page > .panel")
    assert blacks(page, HEAT) == 0


def test_a_run_without_steps_says_so(page: Page, odd_runs: str) -> None:
    show(page, odd_runs, run="no step")
    assert "no steps to draw" in page.text(".empty")
    assert page.ask("document.querySelector('.charts').hidden")


def test_one_step_fills_the_axis(page: Page, odd_runs: str) -> None:
    show(page, odd_runs, run="one step")
    assert pixel(page, HEAT, 0.02, 0.5 / 64) == pixel(page, HEAT, 0.98, 0.5 / 64) == [0, 0, 0]
    assert pixel(page, HEAT, 0.5, 1.5 / 64) != [0, 0, 0]


def test_one_unit_is_one_row(page: Page, odd_runs: str) -> None:
    show(page, odd_runs, run="one unit", site="tiny")
    assert pixel(page, HEAT, 0.3, 0.5) != [0, 0, 0]
    assert pixel(page, HEAT, 0.5, 0.5) == [0, 0, 0]
    page.click(HEAT)
    drawn(page)
    assert "Unit 0 of tiny died at step 730" in page.text(".drawer")


@pytest.mark.parametrize("order", ["death", "index"])
def test_two_dead_units_among_65536_are_seen(page: Page, odd_runs: str, order: str) -> None:
    show(page, odd_runs, run="wide", order=order)
    assert blacks(page, HEAT) > 100
    assert "2 of 65,536 dead" in page.text(".strip")


def test_what_was_not_measured_is_neither_black_nor_a_colour_of_the_ramp(page: Page) -> None:
    run = odd()["quiet"]
    run.kept["fc1", "rate"] = run.codes("fc1", "rate").copy()
    run.kept["fc1", "rate"][:20] = 255
    with serving(Tab({"quiet": run})) as address:
        show(page, address, run="quiet", site="fc1")
        colours = {tuple(pixel(page, HEAT, 0.2 + 0.002 * i, 0.5)) for i in range(10)}
        ramp = module(
            page, "palette.js", "[...m.codeColours('rate', {low: 1e-4, high: 1, scale: 'log'})].slice(0, 255)"
        )
        known = {(c & 255, c >> 8 & 255, c >> 16 & 255) for c in ramp}
        assert len(colours) == 2  # hatched: two greys
        assert not colours & known


def test_nan_leaves_gaps_and_what_cannot_die_is_not_alive(page: Page, odd_runs: str) -> None:
    show(page, odd_runs, run="nan")
    assert "cannot die" in page.text(".strip")
    assert "NaN or infinity" in page.text(".causes")
    assert page.ask("document.querySelectorAll('.choice-set button:disabled').length") == 2


def test_hostile_names_are_text(page: Page, odd_runs: str) -> None:
    show(page, odd_runs, run=HOSTILE, site=HOSTILE, unit=3)
    assert page.ask("document.querySelectorAll('script').length") == 1  # TensorBoard's own
    assert page.ask("document.querySelector('select').value") == HOSTILE
    assert HOSTILE in page.text(".drawer")
    assert HOSTILE in page.text("table.events")
    assert HOSTILE in page.text(".causes")
    assert page.ask("document.querySelector('.panel h2[title]').title") == HOSTILE
    show(page, odd_runs, run=HOSTILE, site=LONG)
    assert page.ask("document.querySelector('.panel h2[title]').title") == LONG
    assert page.ask("document.documentElement.scrollWidth") == 1280
    assert "turned\\u202eround" in page.text(".strip")  # it cannot turn its line round


def test_a_spreadsheet_finds_no_formula(page: Page, odd_runs: str) -> None:
    show(page, odd_runs, run=HOSTILE)
    names = [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        " =1",
        "|calc",
        "%0",
        "＝1",
        'say "a, b"',
        "two\nlines",
        "plain",
    ]
    rows = [{"a": name} for name in names] + [{"a": -1.5}, {"a": None}, {"a": [1, 2]}]
    text = module(page, "download.js", f"m.csv({rows!r}, ['a'])".replace("None", "null"))
    lines = text.split("\r\n")
    assert lines[1:5] == ["'=1+1", "'+1", "'-1", "'@SUM(A1)"]
    assert lines[5] == "'\t=1"
    assert lines[6:8] == ['"\'\r=1"', "' =1"]
    assert lines[8:11] == ["'|calc", "'%0", "'＝1"]
    assert lines[11:14] == ['"say ""a, b"""', '"two\nlines"', "plain"]
    assert lines[14:] == ["-1.5", "", '"[1,2]"', ""]


def test_a_run_at_the_limit_of_size_shows_its_layers_and_reads_one(page: Page) -> None:
    run = large()
    tab = Tab({"large": run})
    with serving(tab) as address:
        show(page, address, run="large")
        assert page.ask("document.querySelectorAll('.row-name').length") == 24
        assert sum(path.endswith("/cells") for path in tab.asked) == 1
        page.click(".strip canvas", y=0.9)
        drawn(page)
        assert "model.layers.21" in state(page)
        assert "409 dead" in page.text(".heatmap")

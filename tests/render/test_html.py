"""The HTML file: opened from disk in a real Chromium, it shows what the report says and asks nobody for anything."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from board.browser import Page, needs_chromium
from board.documents import HOSTILE, Run, death, event, large, made, odd
from board.shown import drawn

from deadrelu.render.html import runs_to_html, write_html
from deadrelu.render.html_cells import LARGEST_BOUND, kept, pack
from deadrelu.render.spoken import verdict_view
from deadrelu.report import Report

from . import handmade
from .trained import CASES

STEPS = list(range(49, 2000, 50))
SCRIPTS = re.compile(r"<script\b", re.IGNORECASE)


def opened(page: Page, path: Path, fragment: str = "") -> None:
    page.open(f"{path.as_uri()}{fragment}")
    drawn(page)


def story() -> Run:
    deaths = [death("fc2", u, 950) for u in range(6)]
    return made("a/story", {"fc1": 8, "fc2": 8}, STEPS, deaths, events=[event("fc2", list(range(6)), (950, 950))])


def ripped(text: str) -> dict[str, object]:
    """Return the JSON that a file holds."""
    found = re.search(r'<script type="application/json" id="deadrelu-data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


AUDITS: Mapping[str, Report] = {
    "dead": handmade.report(
        handmade.site("features.1", 64, dead=3, undecided=5, rare=4),
        handmade.site("features.4", 192, dead=80, always_on=10),
        handmade.site("head", 512, op="gelu", saturated=30),
    ),
    "wide": handmade.report(handmade.site("act", 65_536, dead=1)),
    "one": handmade.report(handmade.site("act", 1)),
    "empty": handmade.report(),
    "unseen": handmade.report(handmade.site("act", 8, samples=0, rate=float("nan"))),
    "hostile": handmade.report(handmade.site(handmade.HOSTILE, 8, dead=2), handmade.site(HOSTILE, 4, undecided=1)),
    **CASES,
}


@needs_chromium
@pytest.mark.parametrize("name", list(AUDITS))
def test_a_report_shows_its_verdict_and_its_layers(page: Page, tmp_path: Path, name: str) -> None:
    report = AUDITS[name]
    assert report.to_html(tmp_path / "out.html") == (tmp_path / "out.html").read_text(encoding="utf-8")
    opened(page, tmp_path / "out.html")
    # HTML folds white space, and nothing else
    assert page.text(".verdict h1").split() == verdict_view(report)["headline"].split()
    rows = page.ask("document.querySelectorAll('table.sites tbody tr').length")
    assert rows == len(report.sites)
    assert page.errors == []


@needs_chromium
def test_a_click_on_a_layer_and_on_a_unit_changes_what_is_shown(page: Page, tmp_path: Path) -> None:
    AUDITS["dead"].to_html(tmp_path / "out.html")
    opened(page, tmp_path / "out.html")
    assert page.text("h2[title]") == "Units of features.4"
    page.click("table.sites tr:nth-child(1) .jump")
    assert page.text("h2[title]") == "Units of features.1"
    page.point(".grid-room canvas", 0, 0)
    page.click(".grid-room canvas", 0.005, 0.5)
    assert "dead" in page.text(".charts > .panel > .facts")
    page.press("ArrowRight")
    page.ask("document.querySelector('.grid-room canvas').focus()")
    page.press("ArrowRight", "ArrowRight", "ArrowRight")
    assert "undecided" in page.text(".charts > .panel > .facts")
    assert page.errors == []


@needs_chromium
def test_a_run_opens_from_disk_and_asks_for_nothing(page: Page, tmp_path: Path) -> None:
    write_html(tmp_path / "out.html", [made("other", {"fc": 4}, STEPS), story()])
    opened(page, tmp_path / "out.html", "#run=a/story&unit=3")
    assert page.text(".verdict h1") == "6 of 16 units are dead"
    assert "Unit 3 of fc2 died at step 950" in page.text(".drawer")
    page.click(".strip canvas", y=0.2)
    assert page.text(".panel h2[title]") == "Units of fc1"
    page.click(".heatmap canvas", y=0.5)
    drawn(page)
    assert "of fc1 is alive" in page.text(".drawer")
    assert page.errors == []
    assert {url.split(":", 1)[0] for url in page.requests} <= {"file", "data"}
    assert sum(url.startswith("file:") for url in page.requests) == 1


@needs_chromium
def test_a_file_may_load_nothing_even_if_it_tried(page: Page, tmp_path: Path) -> None:
    write_html(tmp_path / "out.html", [story()])
    opened(page, tmp_path / "out.html")
    for attempt in (
        "fetch('http://127.0.0.1:9/')",
        "fetch('file:///etc/hostname')",
        "import('http://127.0.0.1:9/x.js')",
    ):
        assert page.ask(f"{attempt}.then(() => 'loaded', () => 'refused')") == "refused"
    assert page.ask("(() => { try { return eval('1'); } catch { return 'refused'; } })()") == "refused"


@needs_chromium
def test_what_the_page_unpacks_is_what_was_packed(page: Page, tmp_path: Path) -> None:
    run = odd()["one unit"]
    run.kept["fc2", "bias"] = np.cumsum(np.ones((40, 8), np.uint8), 0, np.uint8)  # packed as differences
    assert {c.differences for _, channels in pack(run).sites for c in channels.values()} == {True, False}
    write_html(tmp_path / "out.html", [run])
    opened(page, tmp_path / "out.html")
    for site in run.sites:
        for channel in ("rate", "grad", "bias"):
            codes = page.ask(
                "import('deadrelu/source.js').then((m) => m.embeddedSource(JSON.parse(document.getElementById("
                f"'deadrelu-data').textContent)).cells('one unit', '{site}', '{channel}')).then((c) => [...c])"
            )
            assert bytes(codes) == run.cells(site, channel)


@needs_chromium
def test_hostile_names_are_text(page: Page, tmp_path: Path) -> None:
    write_html(tmp_path / "out.html", [odd()[HOSTILE]])
    opened(page, tmp_path / "out.html")
    assert page.ask("document.querySelector('option').innerText") == HOSTILE
    assert page.ask("document.querySelectorAll('script').length") == 3
    assert page.ask("document.title").endswith(HOSTILE)
    assert page.errors == []


@pytest.mark.parametrize("text", [runs_to_html([odd()[HOSTILE]]), AUDITS["hostile"].to_html()])
def test_no_name_can_end_or_begin_a_script(text: str) -> None:
    assert len(SCRIPTS.findall(text)) == 3
    assert text.count("</script>") == 3
    assert "<b>" not in text
    assert text.encode("utf-8")  # also with unpaired surrogates in a name
    assert "http" not in re.sub(r"base64,[^\"]*", "", text).replace("http-equiv", "")


def test_the_verdict_is_there_without_scripts() -> None:
    text = AUDITS["dead"].to_html()
    assert verdict_view(AUDITS["dead"])["headline"] in text
    assert "6 of 16 units are dead" in runs_to_html([story()])


def test_the_same_run_gives_the_same_file() -> None:
    assert runs_to_html([story()]) == runs_to_html([story()])


def test_no_run_is_a_page_too() -> None:
    assert "No run was recorded." in runs_to_html([])


@pytest.mark.parametrize("noise", [2, 250])
def test_3_sites_of_512_units_and_1000_records_stay_under_2_mb(noise: int) -> None:
    """Also if the codes are pure noise, which cannot be compressed, and every unit has died."""
    sites = dict.fromkeys(("fc1", "fc2", "fc3"), 512)
    steps = list(range(49, 50_000, 50))
    shares = {"weight": -1.23456789, "decay": 0.0, "bias": -0.123456789, "input": 0.23456789}
    deaths = [death(s, u, 49_000 + u, shares=shares, parameter=f"{s}.weight") for s in sites for u in range(512)]
    run = made("long", sites, steps, deaths)
    random = np.random.default_rng(0)
    base = random.integers(1, 4, (1, 512))
    for site in sites:
        for channel in ("rate", "grad", "bias"):
            run.kept[site, channel] = (base + random.integers(0, noise, (1000, 512))).astype(np.uint8)
    text = runs_to_html([run])
    assert len(text.encode("utf-8")) < 2_000_000
    assert pack(run).every == (1 if noise == 2 else 5)


@needs_chromium
def test_a_file_that_was_thinned_says_so(page: Page, tmp_path: Path) -> None:
    run = large(sites=2, units=256, records=2000)
    write_html(tmp_path / "out.html", [run])
    every = pack(run).every
    assert every > 1
    opened(page, tmp_path / "out.html")
    assert f"one of every {every} recorded windows" in page.text(".thinned")
    assert page.text(".progress") == "finished at step 99,999"
    assert page.errors == []


def test_thinning_keeps_the_last_record_and_whole_rows() -> None:
    run = large(sites=1, units=64, records=2000)
    assert kept(list(range(10)), 4) == [1, 5, 9]
    assert kept([], 4) == []
    found = pack(run, share=50)
    ((site, _),) = found.sites
    assert found.every > 1
    assert site["steps"][-1] == run.document["steps"][-1]
    assert set(site["steps"]) <= set(run.document["steps"])


def test_runs_that_share_a_file_share_its_bound() -> None:
    run = large(sites=2, units=256, records=500)
    alone, shared = pack(run), pack(run, share=4)
    sizes = [sum(len(c.packed) for _, channels in p.sites for c in channels.values()) for p in (alone, shared)]
    assert sizes[1] <= 1_400_000 // 4 < sizes[0] <= LARGEST_BOUND

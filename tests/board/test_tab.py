"""The tab in a real TensorBoard, in a real Chromium: it appears, and shows what was recorded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from record.played import HOSTILE, Played, play

from deadrelu.render.spoken import verdict_view

from .browser import Browser, Page, needs_chromium

pytestmark = needs_chromium
SITES = (("fc1", 24), ("fc2", 8))
TAB = "[...document.querySelectorAll('.mat-tab-label, [role=tab]')].find((e) => /Dead ReLU/i.test(e.innerText))"
SHOWN = "frames[0]?.document.querySelector('#deadrelu')?.dataset.state === 'shown'"
STARTED = re.compile(r"(http://127\.0\.0\.1:\d+)")
LIMIT = 120.0


def run() -> Played:
    return play(SITES, 40, seed=3, every_death=1)


@pytest.fixture(scope="module", params=["true", "false"], ids=["fast reader", "slow reader"])
def tensorboard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("runs")
    run().recorded(folder / "group" / "run")
    play(tuple((name, 4) for name in HOSTILE if name), 6, seed=1).recorded(folder / "hostile")
    command = [
        sys.executable,
        "-m",
        "deadrelu.board.serve",
        "--logdir",
        str(folder),
        "--port",
        "0",
        "--host",
        "127.0.0.1",
    ]
    process = subprocess.Popen(
        [*command, f"--load_fast={request.param}", "--reload_interval", "1"],
        env={**os.environ, "PYTHONWARNINGS": "ignore"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    alarm = threading.Timer(LIMIT, process.kill)  # a server that says nothing is not waited for
    alarm.start()
    try:
        said = ""
        for line in process.stderr:
            said += line
            if found := STARTED.search(line):
                break
        else:
            raise AssertionError(f"TensorBoard did not start: {said}")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield found[1]
    finally:
        alarm.cancel()
        process.terminate()
        process.wait(timeout=20)
        process.stderr.close()


@pytest.fixture(scope="module")
def opened(browser: Browser, tensorboard: str) -> Iterator[Page]:
    page = browser.page()
    page.open(f"{tensorboard}/#deadrelu&run=group/run")
    page.root = "frames[0].document"
    yield page
    page.close()


@pytest.fixture
def tab(opened: Page) -> Page:
    """Return the page with the first run shown, as it was left by the test before."""
    pick(opened, "group/run", SITES[0][0])
    return opened


def pick(page: Page, run: str, site: str) -> None:
    page.until("Boolean(frames[0]?.document.querySelector('option'))")
    page.ask(f"frames[0].document.querySelector('select').value = {json.dumps(run)}")
    page.ask("frames[0].document.querySelector('select').dispatchEvent(new Event('change'))")
    page.until(f"frames[0].document.querySelector('.row-name')?.title === {json.dumps(site)}")
    page.until(SHOWN)
    page.settle()


def test_the_tab_appears_and_says_what_the_report_says(tab: Page) -> None:
    assert tab.ask(f"Boolean({TAB})")
    assert tab.text(".verdict h1") == verdict_view(run().report)["headline"]
    assert tab.ask("frames[0].document.querySelectorAll('.row-name').length") == len(SITES)


def test_clicks_change_what_is_shown_and_the_address_of_tensorboard(tab: Page) -> None:
    tab.click(".strip canvas", y=0.75)
    tab.until(SHOWN)
    assert tab.text(".panel h2[title]") == "Units of fc2"
    tab.click(".heatmap canvas", y=0.9)
    tab.until("frames[0].document.querySelector('.drawer h3')?.innerText.startsWith('Unit ')")
    assert re.search(r"#deadrelu&run=group%2Frun&site=fc2&unit=\d$", tab.ask("location.href"))


def test_the_page_says_nothing_on_the_console(tab: Page) -> None:
    ours = [e for e in tab.errors if "plugin" in e or "Content Security" in e]
    assert ours == []


def test_it_is_dark_when_tensorboard_is(tab: Page) -> None:
    theme = "frames[0].document.documentElement.dataset.theme"
    assert tab.ask(theme) == "light"
    tab.ask("document.body.classList.add('dark-mode')")
    tab.until(f"{theme} === 'dark'")


def test_hostile_names_are_text(tab: Page) -> None:
    pick(tab, "hostile", HOSTILE[0])
    names = tab.ask("[...frames[0].document.querySelectorAll('.row-name')].map((e) => e.title)")
    assert len(names) == len(HOSTILE) - 1
    assert tab.ask("frames[0].document.querySelectorAll('script').length") == 1
    for place, name in enumerate(n for n in HOSTILE if n):
        tab.click(".strip canvas", y=(place + 0.5) / len(names))
        tab.until(SHOWN)
        assert tab.text(".panel h2[title]").startswith(f"Units of {name[:4]}")


def test_the_other_dashboards_still_work(tab: Page) -> None:
    assert tab.ask(f"Boolean({TAB.replace('Dead ReLU', 'Time Series')})")
    assert tab.ask(
        "fetch('data/plugins_listing').then((r) => r.json()).then((p) => p.timeseries.enabled && p.deadrelu.enabled)"
    )

"""The page over time: runs that grow, runs that are not there yet, a server that fails."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from .browser import Page, needs_chromium
from .documents import STEPS, made, story
from .server import Tab, serving
from .shown import drawn, pixel, show, state

pytestmark = needs_chromium
HEAT = ".heatmap canvas"
ASK = "document.dispatchEvent(new Event('visibilitychange'))"  # the page asks its server at once


@pytest.fixture(autouse=True)
def silent(page: Page) -> Iterator[None]:
    """Nothing is said on the console but what the browser says of an answer 500."""
    yield
    assert [e for e in page.errors if "500" not in e] == []


def test_a_live_run_grows_and_nothing_that_was_chosen_is_lost(page: Page) -> None:
    young = made("grows", {"fc1": 8, "fc2": 8}, STEPS[:20], [], finished=False)
    tab = Tab({"grows": young})
    with serving(tab) as address:
        show(page, address, run="grows", site="fc1", unit=5, order="index", range="100-900")
        assert page.text(".progress") == "training, step 999"
        tab.runs["grows"] = story("grows")
        tab.runs["new"] = made("new", {"fc1": 4}, STEPS)
        page.ask(ASK)
        page.until("document.querySelector('.progress').innerText === 'finished at step 1,999'")
        drawn(page)
        assert "Unit 5 of fc1 died at step 300" in page.text(".drawer")
        for kept in ("site=fc1", "unit=5", "order=index", "range=100-900", "run=grows"):
            assert kept in state(page)
        assert page.ask("[...document.querySelectorAll('option')].map((o) => o.value)") == ["grows", "new"]


@pytest.mark.parametrize(
    ("age", "every", "said"),
    [
        (100, 1.0, "training, step 1,999"),
        (4000, 3600.0, "training, step 1,999"),
        (7300, 1.0, "not finished: step 1,999, last heard of 2 hours ago"),
    ],
)
def test_a_run_that_says_nothing_any_more_does_not_train(page: Page, age: float, every: float, said: str) -> None:
    run = story(finished=False)
    run.document["heard"] = {"at": time.time() - age, "every": every}
    with serving(Tab({"story": run})) as address:
        show(page, address, run="story")
        assert page.text(".progress") == said
        assert page.ask("document.querySelector('.progress').hasAttribute('data-live')") == said.startswith("training")


def test_only_what_is_looked_at_is_asked_for(page: Page) -> None:
    tab = Tab({"other": made("other", {"fc1": 4}, STEPS), "story": story()})
    with serving(tab) as address:
        show(page, address, run="story")
        assert sum(path.endswith("/run") for path in tab.asked) == 1
        assert sum(path.endswith("/cells") for path in tab.asked) == 1
        page.click(HEAT, y=0.1)
        drawn(page)
        assert sum(path.endswith("/cells") for path in tab.asked) == 3


def test_no_run_says_how_to_make_one_and_the_first_one_appears(page: Page) -> None:
    tab = Tab({})
    with serving(tab) as address:
        show(page, address)
        assert "No run has been recorded" in page.text(".empty")
        assert 'log_dir="runs/a"' in page.text(".empty")
        tab.runs["story"] = story()
        page.ask(ASK)
        page.until("document.querySelector('.verdict h1')?.innerText.includes('7 of 16')")
        drawn(page)
        assert not page.ask("document.querySelector('.empty').innerText")


def test_a_server_that_fails_is_said_and_forgotten_when_it_answers(page: Page) -> None:
    tab = Tab({"story": story(finished=False)})
    with serving(tab) as address:
        show(page, address, run="story")
        tab.broken = ("/runs", "/run")
        page.ask(ASK)
        page.until("!document.querySelector('.trouble').hidden")
        assert "500" in page.text(".trouble")
        assert "7 of 16" in page.text(".verdict h1")  # what was read stays
        tab.broken = ()
        page.ask(ASK)
        page.until("document.querySelector('.trouble').hidden")


def test_what_cannot_be_read_is_not_asked_for_again_and_again(page: Page) -> None:
    tab = Tab({"story": story(finished=False)})
    tab.broken = ("/cells",)
    with serving(tab) as address:
        page.open(f"{address}/data/plugin_entry.html?name=deadrelu#deadrelu&run=story")
        page.until("!!document.querySelector('.trouble') && !document.querySelector('.trouble').hidden")
        for _ in range(20):
            page.settle()
        assert sum(path.endswith("/cells") for path in tab.asked) < 5, "by the page's own look every four seconds alone"
        tab.broken = ()
        page.ask(ASK)
        drawn(page)
        assert pixel(page, HEAT, 0.9, 0.05) == [0, 0, 0]

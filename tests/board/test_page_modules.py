"""The page's arithmetic: scales, codes, names and addresses, asked in the browser that runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from .browser import Browser, Page, needs_chromium
from .documents import RATE, encode
from .shown import module, show

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def opened(browser: Browser, odd_runs: str) -> Iterator[Page]:
    page = browser.page()
    show(page, odd_runs, run="quiet")
    yield page
    page.close()


def test_codes_give_back_what_was_encoded(opened: Page) -> None:
    values = np.array([1e-4, 0.01, 0.3, 1.0])
    codes = encode(values, RATE)
    back = module(opened, "scale.js", f"{codes.tolist()}.map((c) => m.valueOf(c, {json.dumps(RATE)}))")
    assert back == pytest.approx(values, rel=0.02)  # half of a code: 1e4 ** (1 / 506)
    linear = {"low": -0.3, "high": 0.3, "scale": "linear"}
    assert module(
        opened, "scale.js", f"[1, 127.5, 254].map((c) => m.valueOf(c, {json.dumps(linear)}))"
    ) == pytest.approx([-0.3, 0.0, 0.3])


@pytest.mark.parametrize(
    ("steps", "borders"),
    [
        ([], [0]),
        ([0], [0, 1]),
        ([49, 99, 149], [0, 50, 100, 150]),
        ([109, 119], [100, 110, 120]),
        ([5, 50], [0, 6, 51]),
    ],
)
def test_a_window_reaches_from_the_last_step_of_the_one_before_to_its_own(
    opened: Page, steps: list[int], borders: list[int]
) -> None:
    assert module(opened, "scale.js", f"[...m.borders({steps})]") == borders


def test_every_step_lies_in_its_window(opened: Page) -> None:
    steps = [4, 9, 30, 31, 99]
    found = module(opened, "scale.js", f"[...Array(100).keys()].map((s) => m.windowAt(m.borders({steps}), s))")
    assert found == [next(i for i, last in enumerate(steps) if s <= last) for s in range(100)]


@pytest.mark.parametrize(("low", "high"), [(0, 2000), (0, 1), (948, 955), (1e9, 1e9 + 3), (0, 1e12)])
def test_ticks_are_round_and_inside(opened: Page, low: float, high: float) -> None:
    ticks = module(opened, "scale.js", f"m.roundTicks({low}, {high}, 8, true)")
    assert 1 <= len(ticks) <= 10
    assert all(low <= t <= high and t == int(t) for t in ticks)
    assert len({b - a for a, b in pairwise(ticks)}) <= 1


def test_columns_cover_what_is_recorded_and_nothing_else(opened: Page) -> None:
    columns = module(
        opened,
        "cells.js",
        "import(new URL('./static/scale.js', document.baseURI).href)"
        ".then((s) => m.columnsOf(s.borders([109, 119, 159]), s.linear([0, 200], 100), 100))",
    )
    assert columns == [
        {"left": 50, "right": 55, "from": 0, "to": 1},
        {"left": 55, "right": 60, "from": 1, "to": 2},
        {"left": 60, "right": 80, "from": 2, "to": 3},
    ]


@pytest.mark.parametrize(("pixels", "records"), [(10, 95), (100, 7), (33, 33)])
def test_each_record_is_in_one_column(opened: Page, pixels: int, records: int) -> None:
    steps = list(range(9, 10 * records, 10))
    columns = module(
        opened,
        "cells.js",
        "import(new URL('./static/scale.js', document.baseURI).href)"
        f".then((s) => m.columnsOf(s.borders({steps}), s.linear([0, {10 * records}], {pixels}), {pixels}))",
    )
    assert [i for c in columns for i in range(c["from"], c["to"])] == list(range(records))
    assert [x for c in columns for x in range(c["left"], c["right"])] == list(range(pixels))


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("m.count(1234567)", "1,234,567"),
        ("m.percent(0.0004)", "<0.1 %"),
        ("m.percent(0.9996)", ">99.9 %"),
        ("m.percent(1)", "100 %"),
        ("m.percent(null)", "not seen"),
        ("m.number(-0.00001234)", "−1.23e−5"),
        ("m.number(0.1 + 0.2)", "0.3"),
        ("m.number(null)", "–"),
        ("m.number(Infinity)", "∞"),
        ("m.signed(0.5)", "+0.5"),
        ("m.stretch(948, 1055)", "steps 948 to 1,055"),
        ("m.causeWords('constructor')", "constructor"),
        ("m.elide(['encoder.layers.3.act', 'encoder.layers.13.act'], 12).join(' ')", "encod….3.act encod…13.act"),
    ],
)
def test_numbers_and_names_as_they_are_written(opened: Page, expression: str, text: str) -> None:
    assert module(opened, "format.js", expression) == text


def test_an_address_holds_the_state(opened: Page) -> None:
    state = {
        "run": "a&b=c#d",
        "site": "x/y",
        "channel": "bias",
        "order": "index",
        "unit": 0,
        "range": [3, 9],
        "cause": "born_dead",
    }
    assert module(opened, "state.js", f"m.decode(m.encode({json.dumps(state)}))") == state
    assert module(opened, "state.js", "m.encode(m.createState({}).get())") == ""


def test_a_unit_is_dead_since_its_death_is_dated_to(opened: Page) -> None:
    """Not since the window in which the silence was long enough; a death that was taken back ends there."""
    told = {
        "site": {"steps": [9, 19, 29, 39, 49, 59], "units": 1},
        "deaths": [
            {"killed_by_step": 12, "confirmed": 24, "revived": 35},
            {"killed_by_step": 41, "confirmed": 55, "revived": None},
        ],
    }
    ask = (
        "m.deadStretches(told.site, Uint8Array.of(9, 9, 0, 9, 9, 0), 0, told.deaths,"
        " Float64Array.of(0, 10, 20, 30, 40, 50, 60))"
    )
    assert module(opened, "cells.js", f"{{ const told = {json.dumps(told)}; return {ask}; }}") == [[13, 30], [42, 60]]
    born = {**told, "deaths": [{"killed_by_step": None, "confirmed": 24, "revived": None}]}
    assert module(opened, "cells.js", f"{{ const told = {json.dumps(born)}; return {ask}; }}")[0] == [0, 30]
    assert module(opened, "cells.js", f"{{ const told = {json.dumps({**told, 'deaths': []})}; return {ask}; }}") == [
        [20, 30],
        [50, 60],
    ]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 seconds ago"), (61, "1 minute ago"), (7300, "2 hours ago"), (9e5, "10 days ago")]
)
def test_how_long_ago(opened: Page, seconds: float, said: str) -> None:
    assert module(opened, "format.js", f"m.ago({seconds})") == said

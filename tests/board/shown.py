"""What is on the page: opening a run, and asking canvases for their pixels."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from .browser import Page

SHOWN = "['shown', 'empty'].includes(document.querySelector('#deadrelu')?.dataset.state)"
TICKET = iter(range(1_000_000))  # another address each time, so that the page is loaded anew


def show(page: Page, address: str, **state: Any) -> None:
    """Open the tab's page with a state in its address, and wait until everything is drawn."""
    page.open(f"{address}/data/plugin_entry.html?name=deadrelu&{next(TICKET)}#deadrelu&{urlencode(state)}")
    drawn(page)


def drawn(page: Page) -> None:
    page.until(SHOWN)
    page.settle()


def state(page: Page) -> str:
    """Return what the page has written into its address."""
    return str(page.ask("decodeURIComponent(location.hash.replace(/[+]/g, ' '))"))


def pixel(page: Page, selector: str, x: float, y: float) -> list[int]:
    """Return red, green, blue of a canvas at fractions of its size."""
    return list(
        page.ask(
            f"(() => {{ const c = document.querySelector({json.dumps(selector)}); const g = c.getContext('2d');"
            f" const at = [Math.floor(c.width * {x}), Math.floor(c.height * {y})];"
            " return [...g.getImageData(...at, 1, 1).data].slice(0, 3); })()"
        )
    )


def blacks(page: Page, selector: str) -> int:
    """Return how many pixels of a canvas are black."""
    return int(
        page.ask(
            f"(() => {{ const c = document.querySelector({json.dumps(selector)});"
            " const p = new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer);"
            " return p.filter((v) => v === 0xff000000).length; })()"
        )
    )


def module(page: Page, name: str, expression: str) -> Any:
    """Return the value of an expression in which `m` is one of the page's modules."""
    return page.ask(f"import(new URL('./static/{name}', document.baseURI).href).then((m) => {expression})")

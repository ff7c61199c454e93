"""One Chromium, and one server of runs made by hand, for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .browser import Browser, Page
from .documents import odd
from .server import Tab, serving


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    found = browser.page()
    yield found
    found.close()


@pytest.fixture(scope="session")
def odd_runs() -> Iterator[str]:
    with serving(Tab(odd())) as address:
        yield address

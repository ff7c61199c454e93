"""Golden screens: what a screen looked like when somebody looked at it and found it right. And the tab's browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from board.conftest import browser, page

__all__ = ["browser", "page"]

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the golden file of that name; `pytest --update-golden` writes it instead."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path.name} is missing: run pytest --update-golden, and look at it"
        assert text == path.read_text(encoding="utf-8"), f"{path.name} differs; if it should, pytest --update-golden"

    return compare

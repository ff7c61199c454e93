"""Options of the test run; pytest reads them from here alone."""

from __future__ import annotations

import os

import pytest

# One implementation from the first test to the last, and nothing written into the user's cache; tests/kernels/
# compares them.
os.environ.setdefault("DEADRELU_KERNELS", "reference")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden screens anew instead of comparing")

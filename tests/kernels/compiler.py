"""The compiler of the native kernels, in tests: whether there is one, programs in its place, and how to wait for it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from deadrelu.kernels import library
from deadrelu.kernels.choice import LARGE, Choice

try:
    library.compiler()
    MISSING = ""
except library.UnusableError as error:
    MISSING = str(error)
compiled = pytest.mark.skipif(bool(MISSING), reason=MISSING)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="native kernels are made on Linux only")


def program(path: Path, script: str) -> str:
    """Write a shell script and return its name."""
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def settled(choice: Choice) -> Choice:
    """Ask for a large tensor's kernels until there is an answer."""
    end = time.monotonic() + 120
    while choice.native is None and not choice.reason and time.monotonic() < end:
        choice.ready(LARGE)
        time.sleep(0.02)
    return choice

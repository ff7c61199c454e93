"""The numbered examples run, from a folder that is not the project's, and say what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
SAYS = {
    "01_audit.py": r"dead units: \[\d+(, \d+)*\]",  # at that learning rate some units do die
    # the one update at the wrong rate is step 100
    "02_monitor.py": (
        r"(?s)died in relu\d.*most at steps? 1\d\d.*too high a.*"
        r"cause: learning_rate, by fc\d\.\w+ at a.*leaves it alive"
    ),
}


def test_every_example_is_expected_to_say_something() -> None:
    assert [path.name for path in EXAMPLES] == sorted(SAYS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8"}
    run = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, env=env, capture_output=True, encoding="utf-8", check=False
    )
    assert run.returncode == 0, run.stderr
    assert re.search(SAYS[path.name], run.stdout), run.stdout
    assert list(tmp_path.iterdir()) == []

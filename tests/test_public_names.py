"""The public names of the package, and what importing it costs."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import deadrelu

PUBLIC = [
    "DeadReluError",
    "DeadReluWarning",
    "Death",
    "Event",
    "Kind",
    "Monitor",
    "Report",
    "SiteReport",
    "TrainingStopped",
    "__version__",
    "audit",
    "diff",
    "register_kind",
    "timeline",
]


def test_names_are_pinned() -> None:
    """Adding or dropping a public name is a decision: it changes this list and the changelog."""
    assert sorted(deadrelu.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_resolves_and_is_listed(name: str) -> None:
    assert getattr(deadrelu, name) is not None
    assert name in dir(deadrelu)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'audits'"):
        _ = deadrelu.audits


def test_version() -> None:
    """Written once, in the package; the distribution takes it from there."""
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|(a|b|rc)\d+)?", deadrelu.__version__)


@pytest.mark.parametrize("statement", ["import deadrelu", "import deadrelu; deadrelu.DeadReluError, dir(deadrelu)"])
def test_import_stays_light(statement: str) -> None:
    """In a fresh interpreter the face brings in nothing beyond the standard library; torch alone costs seconds."""
    code = f"""
import sys
before = set(sys.modules)
{statement}
roots = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(roots - sys.stdlib_module_names))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["deadrelu"]

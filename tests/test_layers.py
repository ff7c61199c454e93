"""The floors of ARCHITECTURE.md: imports inside the package go down only, and the table names every module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "deadrelu"
FACE = "__init__.py"


def read_floors(text: str) -> dict[str, int]:
    """Return the floor of each module in the rows `| 2 | `report.py`, `kernels/` | ... |` of a Markdown table."""
    floors: dict[str, int] = {}
    for number, modules in re.findall(r"^\| *(\d+) *\|([^|]*)\|", text, flags=re.MULTILINE):
        for module in re.findall(r"`([^`]+)`", modules):
            assert module not in floors, f"{module} stands on two floors"
            floors[module] = int(number)
    return floors


def named(part: str) -> str:
    """Return how the table writes the module or package `deadrelu.<part>`; a name that is neither is the face's."""
    if (PACKAGE / f"{part}.py").is_file():
        return f"{part}.py"
    return f"{part}/" if (PACKAGE / part).is_dir() else FACE


def imported(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield (line, module of the table) for each import of deadrelu in a file of `package`, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            paths = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            paths = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for path in paths:
            if path[0] == "deadrelu":
                yield node.lineno, named(path[1]) if len(path) > 1 else FACE


def owner(path: Path) -> str:
    """Return the row entry that a file of the package belongs to."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) == 1 else f"{parts[0]}/"


FLOORS = read_floors((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
FILES = sorted(PACKAGE.rglob("*.py"))


def test_the_table_names_every_module_and_nothing_else() -> None:
    assert set(FLOORS) == {owner(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    """Function-level imports and those for the type checker count too: they are dependencies like any other."""
    here = owner(path)
    package = path.relative_to(ROOT).parts[:-1]
    wrong = [
        f"line {line} imports {module} (floor {FLOORS[module]})"
        for line, module in imported(path.read_text(encoding="utf-8"), package)
        if module != here and FLOORS[module] >= FLOORS[here]
    ]
    assert not wrong, f"{here} stands on floor {FLOORS[here]}, yet {'; '.join(wrong)}"


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("from .errors import InputError", "deadrelu", ["errors.py"]),
        ("from . import screens, rates as r", "deadrelu", ["screens.py", "rates.py"]),
        ("from . import __version__", "deadrelu", [FACE]),
        ("from ..kinds import Kind", "deadrelu.kernels", ["kinds.py"]),
        ("from .. import report", "deadrelu.render", ["report.py"]),
        ("from . import plan\nfrom .plan import Plan", "deadrelu.kernels", ["kernels/", "kernels/"]),
        ("import deadrelu", "deadrelu.cli", [FACE]),
        ("import deadrelu.report as r, numpy", "deadrelu", ["report.py"]),
        ("from deadrelu.kernels.plan import Plan", "deadrelu", ["kernels/"]),
        ("from deadrelu import audit, kinds", "deadrelu.cli", [FACE, "kinds.py"]),
        ("def f():\n    if True:\n        from .rates import rate_upper", "deadrelu", ["rates.py"]),
        ("from deadrelus import x\nimport torch", "deadrelu", []),
    ],
)
def test_every_spelling_of_an_import_is_seen(source: str, package: str, expected: list[str]) -> None:
    assert [module for _, module in imported(source, tuple(package.split(".")))] == expected


def test_reading_the_table() -> None:
    table = "| floor | modules | what |\n|---|---|---|\n| 1 | `b.py`, `c/` | `not me` |\n| 0 | `a.py` | - |\n"
    assert read_floors(table) == {"a.py": 0, "b.py": 1, "c/": 1}

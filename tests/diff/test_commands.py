"""`deadrelu diff` and `deadrelu timeline`: what they print and write; one line and status 2 for what is unusable."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from deadrelu.cli.app import app

SOURCE = """
from torch import nn

def net():
    print("building")
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

def wide():
    return nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3))

def stream():
    import numpy, torch
    yield from torch.from_numpy(numpy.load("x.npy")).split(16)
"""
MODEL = ("--model", "shelf:net", "--data", "x.npy")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Enter a folder with three checkpoints: in the second units 1 and 5 are dead by their bias, in the third 7 too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEADRELU_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "shelf.py").write_text(SOURCE, encoding="utf-8")
    generator = torch.Generator().manual_seed(0)
    np.save("x.npy", torch.randn(64, 4, generator=generator).numpy())
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.constant_(net[0].bias, 1.0)
    Path("runs").mkdir()
    for number, units in ((9, []), (10, [1, 5]), (100, [7])):
        with torch.no_grad():
            net[0].bias[units] = -1e3
        torch.save(net.state_dict(), f"runs/s{number}.pt")
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("shelf", None)


def deadrelu(*words: str) -> Any:
    """Run the command line in this process."""
    separate = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    return CliRunner(**separate).invoke(app, list(words), catch_exceptions=False)


def refused(*words: str) -> str:
    """Run the command line, which must refuse with exit status 2 and one line."""
    result = deadrelu(*words)
    assert result.exit_code == 2, (result.exit_code, result.stdout, result.stderr)
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line != "building"]
    assert len(lines) == 1
    assert lines[0].startswith("deadrelu: error: ")
    return lines[0]


def test_diff_with_data() -> None:
    result = deadrelu("diff", "runs/s9.pt", "runs/s10.pt", *MODEL)
    assert result.exit_code == 0, result.stderr
    assert "2 units died between the two" in result.stdout
    assert "2 its own bias alone" in result.stdout
    assert "building" not in result.stdout


def test_diff_as_json() -> None:
    result = deadrelu("diff", "runs/s9.pt", "runs/s10.pt", *MODEL, "--format", "json", "--json", "d.json")
    told = json.loads(result.stdout)
    assert told == json.loads(Path("d.json").read_text())
    assert told["schema"] == "deadrelu.diff/1"
    (site,) = told["sites"]
    assert [(death["unit"], death["cause"]) for death in site["deaths"]] == [(1, "bias"), (5, "bias")]
    assert site["revived_by"] == {"weights": 0, "bias": 2, "upstream": 0, "own": 2}
    assert [layer["layer"] for layer in told["layers"]] == ["0", "2"]


def test_diff_as_markdown() -> None:
    result = deadrelu("diff", "runs/s9.pt", "runs/s10.pt", *MODEL, "--format", "markdown")
    assert "| 1 | 2 | 0 | 0 | 2 | 8 | bias 2 |" in result.stdout


def test_diff_of_weights_alone() -> None:
    result = deadrelu("diff", "runs/s9.pt", "runs/s10.pt")
    assert result.exit_code == 0
    assert "no data was run" in result.stdout
    assert "the bias of unit" in result.stdout
    assert "who fires is not known" in result.stdout


def test_update_and_rate() -> None:
    result = deadrelu("diff", "runs/s9.pt", "runs/s10.pt", *MODEL, "--update", "--lr", "0.5", "--json", "-")
    for death in json.loads(result.stdout)["sites"][0]["deaths"]:
        assert death["lr"][0] == pytest.approx(0.5 * death["fraction"][0])
        assert death["safe_lr"] == pytest.approx(death["lr"][0], rel=0.06)  # nothing is upstream of it


def test_data_that_can_be_read_once() -> None:
    result = deadrelu(
        "diff", "runs/s9.pt", "runs/s10.pt", "--model", "shelf:net", "--data", "shelf:stream", "--json", "-"
    )
    assert json.loads(result.stdout)["deaths"] == 2


@pytest.mark.parametrize("where", [("runs",), ("runs/*.pt",), ("runs/s100.pt", "runs/s10.pt", "runs/s9.pt")])
def test_timeline(where: tuple[str, ...]) -> None:
    result = deadrelu("timeline", *where, *MODEL, "--json", "-", "--html", "t.html")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["schema"] == "deadrelu.timeline/1"
    assert [moment["step"] for moment in told["moments"]] == [9, 10, 100]
    assert told["order_name"] == "the number in the name"
    assert told["first_bad_name"] == "runs/s10.pt"
    assert told["series"][0]["silent"] == [0.0, 0.25, 0.375]
    assert told["series"][0]["survival"] == [1.0, 0.75, 0.625]
    assert [moment["causes"] for moment in told["moments"]] == [{}, {"1": {"bias": 2}}, {"1": {"bias": 1}}]
    assert "The first bad checkpoint is s10.pt" in Path("t.html").read_text()


def test_timeline_on_the_screen() -> None:
    result = deadrelu("timeline", "runs", *MODEL)
    assert "s9.pt (step 9) is the last good one" in result.stdout
    assert "2 died (by site 1: bias 2)" in result.stdout
    assert deadrelu("timeline", "runs", *MODEL, "--format", "markdown").stdout.startswith("## The first bad")
    healthy = deadrelu("timeline", "runs", *MODEL, "--above", "50%")
    assert "No checkpoint is bad" in healthy.stdout


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_names_are_never_markup() -> None:
    evil = '<img src=x onerror=alert(1)>"&\x1b[31m'
    for number in (1, 2):
        torch.save({f"{evil}.weight": torch.zeros(2, 2) if number == 2 else torch.ones(2, 2)}, f"<b>{number}.pt")
    result = deadrelu("timeline", "<b>1.pt", "<b>2.pt", "--html", "t.html")
    assert result.exit_code == 0, result.stderr
    tags = Tags()
    tags.feed(Path("t.html").read_text())
    assert not tags.tags & {"img", "b", "script"}
    assert not any(name.startswith("on") for name in tags.attributes)
    assert "\x1b" not in Path("t.html").read_text() + result.stdout
    for command in (("timeline",), ("diff",)):
        markdown = deadrelu(*command, "<b>1.pt", "<b>2.pt", "--format", "markdown").stdout
        assert "<b>" not in markdown
        assert "<img" not in markdown


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def hostile(kind: str) -> None:
    good = Path("runs/s9.pt").read_bytes()
    if kind == "code":
        torch.save({"state_dict": Bomb()}, "bad.pt")
    elif kind == "cut":
        Path("bad.pt").write_bytes(good[: len(good) // 2])
    elif kind == "empty":
        Path("bad.pt").touch()
    elif kind == "noise":
        Path("bad.pt").write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == "folder":
        Path("bad.pt").mkdir()


@pytest.mark.parametrize("kind", ["code", "cut", "empty", "noise", "folder", "missing"])
@pytest.mark.parametrize("data", [(), MODEL])
def test_hostile_files(kind: str, data: tuple[str, ...]) -> None:
    hostile(kind)
    assert "bad.pt" in refused("diff", "runs/s9.pt", "bad.pt", *data)
    assert "bad.pt" in refused("diff", "bad.pt", "runs/s9.pt", *data)
    assert "bad.pt" in refused("timeline", "runs", "bad.pt", *data)
    assert not Path("pwned").exists()


def test_nan_weights() -> None:
    state = torch.load("runs/s9.pt", weights_only=True)
    state["0.weight"][0, 0] = float("nan")
    torch.save(state, "runs/s101.pt")
    assert "NaN or inf" in refused("diff", "runs/s9.pt", "runs/s101.pt", *MODEL)
    assert "NaN or inf" in refused("timeline", "runs", *MODEL)


def test_different_architectures() -> None:
    torch.save(nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3)).state_dict(), "wide.pt")
    for data in ((), MODEL):
        line = refused("diff", "runs/s9.pt", "wide.pt", *data)
        assert "different architectures: 0.weight is [8, 4] in one and [9, 4] in the other" in line
        assert "different architectures" in refused("timeline", "runs", "wide.pt", *data)
    assert "does not fit" in refused("diff", "runs/s9.pt", "runs/s10.pt", "--model", "shelf:wide", "--data", "x.npy")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("diff", "runs/s9.pt", "runs/s10.pt", "--data", "x.npy"), "--data needs a model"),
        (("diff", "runs/s9.pt", "runs/s10.pt", "--max-samples", "3"), "go with --data"),
        (("diff", "runs/s9.pt", "runs/s10.pt", "--update"), "add --model and --data"),
        (("diff", "runs/s9.pt", "runs/s10.pt", *MODEL, "--lr", "1"), "update"),
        (("diff", "runs/s9.pt", "runs/s10.pt", *MODEL, "--exhaustive", "--max-samples", "9"), "drop one"),
        (("diff", "runs/s9.pt", "runs/s10.pt", *MODEL, "--json", "no/where.json"), "cannot be written"),
        (("diff", "runs/s9.pt"), "NEW"),
        (("timeline", "runs/s9.pt"), "needs two or more"),
        (("timeline", "runs", "--above", "1.5"), "--above"),
        (("timeline", "runs", "--html", "no/where.html"), "cannot be written"),
    ],
)
def test_usage(words: tuple[str, ...], said: str) -> None:
    assert said in refused(*words)

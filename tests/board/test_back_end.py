"""The back end of the tab in a real TensorBoard, with both of its readers."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from record.played import HOSTILE, Played, play
from torch.utils.tensorboard import SummaryWriter

from deadrelu.board.loader import DeadReluLoader
from deadrelu.record.reader import read_run
from deadrelu.record.writer import RecordWriter
from deadrelu.render.view import View

from .served import ROOT, Board, serving

RUNS = ["hostile", "plain/deadrelu", "users"]


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record three runs: hostile names, beside somebody else's file, and in the user's own writer."""
    root = tmp_path_factory.mktemp("logs")
    play(tuple((name, 3) for name in HOSTILE), 4, every_death=1).recorded(root / "hostile")
    for name, inside in (("plain", False), ("users", True)):
        users = SummaryWriter(str(root / name))
        record = RecordWriter(writer=users) if inside else RecordWriter(root / name)
        played = many() if name == "users" else play(windows=3)
        for summary, samples in zip(played.windows, played.samples, strict=True):
            users.add_scalar("train/loss", 1.0, summary.last)
            record.write(summary, samples)
        record.finish(played.report)
        record.close()
        users.close()
    users = SummaryWriter(str(root / "without"))
    users.add_scalar("loss", 1.0, 1)
    users.close()
    return root


def many() -> Played:
    """More windows than TensorBoard keeps of a plugin unless it is told to (10, or 100)."""
    return play((("fc1", 6), ("fc2", 40)), 130, every_death=5)


@pytest.fixture(scope="module", params=["rust", "python"])
def board(request: pytest.FixtureRequest, logdir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with serving(logdir, tmp_path_factory.mktemp("said"), request.param) as found:
        found.wait_for(RUNS, 3)
        yield found


@pytest.mark.parametrize("run", RUNS)
def test_it_answers_what_the_files_say(board: Board, logdir: Path, run: str) -> None:
    """Every document, and every cell, through the data provider as straight from the event files."""
    view = View(read_run(logdir / run))
    told = board.get("run", run=run)
    assert told.status == 200
    assert told.headers["Content-Type"] == "application/json"
    expected = json.loads(json.dumps(view.document))
    assert {**told.told, "run": None} == {**expected, "run": None}
    assert told.told["run"] == run
    for site in view.sites:
        said = site.replace("\ud800", "\ufffd")  # half of a character: no URL can say it, and this is what browsers do
        assert board.get("site", run=run, site=said).told == json.loads(json.dumps(view.site(site)))
        for channel in ("rate", "grad", "bias"):
            cells = board.get("cells", run=run, site=said, channel=channel)
            assert cells.headers["Content-Type"] == "application/octet-stream"
            assert cells.body == view.cells(site, channel)


def test_every_record_is_there(board: Board) -> None:
    assert len(board.get("run", run="users").told["steps"]) == 130
    assert board.get("run", run="users").told["loss"]["tag"] == "train/loss"
    assert board.get("run", run="plain/deadrelu").told["loss"]["tag"] == "train/loss"
    assert board.get("run", run="hostile").told["loss"] is None


def test_the_tab_is_active(board: Board) -> None:
    listed = board.fetch("data/plugins_listing").told["deadrelu"]
    assert listed["enabled"]
    assert listed["tab_name"] == "Dead ReLU"
    path = listed["loading_mechanism"]["module_path"]
    assert board.fetch(path.lstrip("/")).status == 200
    entry = board.fetch("data/plugin_entry.html?name=deadrelu")
    assert "script-src" in entry.headers["Content-Security-Policy"]


def test_static_files(board: Board) -> None:
    """Every file of the folder, with a type that a browser takes, and nothing from anywhere else."""
    folder = ROOT / "deadrelu" / "board" / "static"
    kinds = {".js": "text/javascript", ".css": "text/css"}
    files = [path for path in folder.iterdir() if path.suffix in kinds]
    assert files
    for path in files:
        found = board.get(f"static/{path.name}")
        assert (found.status, found.body) == (200, path.read_bytes())
        assert found.headers["Content-Type"].startswith(kinds[path.suffix])
        assert found.headers["X-Content-Type-Options"] == "nosniff"


def test_a_browser_keeps_the_files_of_one_edition(board: Board) -> None:
    """The page's modules are asked for once, until one of them changes."""
    entry = board.fetch("data/plugin_entry.html?name=deadrelu").body.decode()
    path = re.search(r"static/(\w{12})/index\.js", entry)
    assert path
    for name in ("index.js", "app.js", "style.css"):
        found = board.get(f"static/{path[1]}/{name}")
        assert found.status == 200
        assert "max-age=31536000" in found.headers["Cache-Control"]
        assert "must-revalidate" in board.get(f"static/{name}").headers["Cache-Control"]
        assert board.get(f"static/000000000000/{name}").status == 404


@pytest.mark.parametrize(
    "path",
    ["../plugin.py", "..%2fplugin.py", "%2e%2e/plugin.py", "/etc/passwd", "%2fetc%2fpasswd", "", ".", "..", "x.js",
     "..%5cplugin.py", "index.js%00.css", "index.js/", "static/../../plugin.py"],
)  # fmt: skip
def test_no_way_out_of_the_folder(board: Board, path: str) -> None:
    found = board.get(f"static/{path}")
    assert found.status in (400, 404)
    assert b"DeadReluPlugin" not in found.body
    assert b"root:" not in found.body


@pytest.mark.parametrize(
    ("path", "query", "status", "said"),
    [
        ("run", {}, 400, "expected the parameter 'run'"),
        ("run", {"run": "nope"}, 404, "no record of a run 'nope'"),
        ("run", {"run": "without"}, 404, "no record of a run 'without'"),
        ("run", {"run": "../hostile"}, 404, "no record"),
        ("site", {"run": "users"}, 400, "expected the parameter 'site'"),
        ("site", {"run": "users", "site": "fc9"}, 404, "no site 'fc9'"),
        ("cells", {"run": "users", "site": "fc1"}, 400, "expected the parameter 'channel'"),
        ("cells", {"run": "users", "site": "fc1", "channel": "z"}, 404, "no channel 'z'"),
    ],
)
def test_refusals(board: Board, path: str, query: dict[str, str], status: int, said: str) -> None:
    found = board.get(path, **query)
    assert found.status == status
    assert said in found.told["error"]
    assert "Traceback" not in board.said.read_text()


def test_only_reading(board: Board) -> None:
    assert board.fetch("data/plugin/deadrelu/runs", method="POST").status == 405


def test_what_did_not_change_is_not_sent_again(board: Board) -> None:
    for path, query in (("run", {"run": "users"}), ("cells", {"run": "users", "site": "fc1", "channel": "rate"})):
        tag = board.get(path, **query).headers["ETag"]
        assert board.get(path, {"If-None-Match": tag}, **query).status == 304
        assert board.get(path, {"If-None-Match": '"x"'}, **query).status == 200
    assert board.get("static/index.js", {"If-None-Match": board.get("static/index.js").headers["ETag"]}).status == 304


@pytest.mark.parametrize("reader", ["rust", "python"])
def test_a_run_that_grows(tmp_path: Path, reader: str) -> None:
    """Sites and cells are those of the run document fetched last, however the record has grown since."""
    played = play((("fc1", 6), ("fc2", 4)), 9, every_death=2)
    writer = RecordWriter(tmp_path / "logs" / "live")
    played.record(writer, finish=False, last=4)
    with serving(tmp_path / "logs", tmp_path, reader) as board:
        board.wait_for(["live"], 4)
        first = board.get("run", run="live").told
        assert not first["finished"]
        played.record(writer, first=4)
        writer.close()
        assert len(board.get("site", run="live", site="fc1").told["steps"]) == 4
        assert len(board.get("cells", run="live", site="fc1", channel="rate").body) == 4 * 6
        board.wait_for(["live"], 9)
        for _ in range(100):
            if (last := board.get("run", run="live").told)["finished"]:
                break
        assert last["finished"]
        assert last["report"]["dead"] == played.report.dead
        assert len(board.get("cells", run="live", site="fc1", channel="rate").body) == 9 * 6


def test_nothing_breaks_the_start_of_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the flags are, and whatever fails while the tab is loaded."""
    loader = DeadReluLoader()
    flags = SimpleNamespace(samples_per_plugin={"images": 3})
    loader.fix_flags(flags)
    assert flags.samples_per_plugin == {"images": 3, "deadrelu": 0}
    chosen = SimpleNamespace(samples_per_plugin={"deadrelu": 7})
    loader.fix_flags(chosen)
    assert chosen.samples_per_plugin == {"deadrelu": 7}
    for odd in (SimpleNamespace(), SimpleNamespace(samples_per_plugin=None), None, object()):
        loader.fix_flags(odd)
    loader.define_flags(None)
    monkeypatch.setitem(sys.modules, "deadrelu.board.plugin", None)
    assert loader.load(None) is None


def test_the_entry_point() -> None:
    """TensorBoard imports what the entry point names: that must exist, and bring in neither torch nor a renderer."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'\[project\.entry-points\.tensorboard_plugins\]\ndeadrelu = "([\w.]+):(\w+)"', text)
    assert found
    assert getattr(importlib.import_module(found.group(1)), found.group(2)) is DeadReluLoader
    code = f"import sys, {found.group(1)}\nassert not {{'torch', 'numpy', 'rich'}} & set(sys.modules), 'slow to start'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    code = "import sys, deadrelu.board.plugin\nassert 'torch' not in sys.modules, 'slow to start'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_tensorboard_without_our_base_class(monkeypatch: pytest.MonkeyPatch) -> None:
    import deadrelu.board.loader as module

    monkeypatch.setitem(sys.modules, "tensorboard.plugins.base_plugin", None)
    again: Any = importlib.reload(module)
    try:
        assert again.DeadReluLoader is not DeadReluLoader
        assert again.DeadReluLoader().fix_flags(None) is None
    finally:
        monkeypatch.undo()
        importlib.reload(module)

"""`deadrelu report`, `live` and `board` on recorded runs, as processes and in this one."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from record.played import HOSTILE, play

from deadrelu.record.reader import read_run
from deadrelu.record.writer import RecordWriter

from .shop import deadrelu
from .test_program import TORCHLESS, environment

pty = pytest.importorskip("pty", reason="a terminal to type into")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    play((("fc1", 6), ("fc2", 4)), 8, every_death=1).recorded(tmp_path / "run")
    return tmp_path / "run"


def test_report_says_what_monitor_said(run: Path) -> None:
    """The screen is that of the report, and below it the course of each site."""
    told = deadrelu("report", str(run))
    assert (told.exit_code, told.stderr) == (0, "")
    assert play((("fc1", 6), ("fc2", 4)), 8, every_death=1).report.to_dict() == read_run(run).report.to_dict()
    for line in str(read_run(run).report).splitlines():
        assert line in told.stdout
    assert "dead, site by site over the steps" in told.stdout


def test_report_as_json(run: Path, tmp_path: Path) -> None:
    report = read_run(run).report.to_dict()
    assert json.loads(deadrelu("report", str(run), "--format", "json").stdout) == report
    assert json.loads(deadrelu("report", str(run), "--json", "-").stdout) == report
    told = deadrelu("report", str(run), "--json", str(tmp_path / "r.json"))
    assert json.loads((tmp_path / "r.json").read_text()) == report
    assert "died in" in told.stdout


def test_report_as_markdown_and_html(run: Path, tmp_path: Path) -> None:
    told = deadrelu("report", str(run), "--format", "markdown", "--html", str(tmp_path / "r.html"))
    assert told.exit_code == 0
    assert told.stdout.startswith("## ")
    assert (tmp_path / "r.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")


def test_report_of_several_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        play(seed=ord(name)).recorded(tmp_path / name)
    told = deadrelu("report", str(tmp_path))
    assert re.findall(r"^ ([ab])$", told.stdout, re.MULTILINE) == ["a", "b"]
    runs = json.loads(deadrelu("report", str(tmp_path), "--format", "json").stdout)
    assert runs["schema"] == "deadrelu.reports/1"
    assert {name: r["dead"] for name, r in runs["runs"].items()} == {
        name: read_run(tmp_path / name).report.dead for name in ("a", "b")
    }
    assert deadrelu("report", str(tmp_path), "--format", "markdown").stdout.count("\n# ") == 1


def test_report_of_hostile_names(tmp_path: Path) -> None:
    play(tuple((name, 3) for name in HOSTILE), 3, every_death=1).recorded(tmp_path)
    for words in (["--all"], ["--format", "markdown"], ["--format", "json"], ["--html", str(tmp_path / "r.html")]):
        told = deadrelu("report", str(tmp_path), *words)
        assert (told.exit_code, told.stderr) == (0, "")
        assert "\x1b" not in told.stdout
        assert "\u202e" not in told.stdout
    assert "<script>alert" not in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "gone"], "gone: no such file or folder"),
        (["report", "."], "no record of a run"),
        (["live", "gone"], "gone: no such file or folder"),  # in a pipe; in a terminal it waits
        (["live", "."], "no record of a run"),
        (["board", "gone"], "gone: no such folder"),
        (["board", "file"], "is a file"),
        (["report", "file"], "no record of a run"),
        (["report", ".", "--html", "gone/x.html"], "--html"),
        (["report", ".", "--format", "pdf"], "pdf"),
        (["report"], "RUN"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    told = deadrelu(*words)
    assert (told.exit_code, told.stdout) == (2, "")
    assert said in told.stderr
    assert told.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["report", "live", "board"])
def test_help_does_not_wait(command: str) -> None:
    words = [sys.executable, "-c", TORCHLESS, command, "--help"]
    found = subprocess.run(words, env=environment(), capture_output=True, encoding="utf-8", check=True)
    assert "RUN" in found.stdout


def test_reading_a_run_needs_no_torch(run: Path) -> None:
    code = (
        "import sys\nfrom deadrelu.cli import main\ntry:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    words = [sys.executable, "-c", code, "report", str(run)]
    subprocess.run(words, env=environment(), capture_output=True, check=True)


def test_live_in_a_pipe_shows_how_it_stands(tmp_path: Path) -> None:
    play(windows=4).recorded(tmp_path, finish=False)
    told = deadrelu("live", str(tmp_path))
    assert (told.exit_code, told.stderr) == (0, "")
    assert "not finished: as of step 199" in told.stdout
    assert "\x1b" not in told.stdout


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.seen = ""
        self.pid, self.handle = pty.fork()
        if not self.pid:
            variables = environment(TERM="xterm-256color", COLUMNS="100", LINES="30")
            os.execve(sys.executable, [sys.executable, "-m", "deadrelu", *words], variables)

    def wait_for(self, text: str, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while text not in " ".join(self.seen.split()):  # wherever a line ends
            assert time.monotonic() < end, f"no {text!r} in {self.seen!r}"
            if select.select([self.handle], [], [], 0.2)[0]:
                self.seen += os.read(self.handle, 65536).decode(errors="replace")

    def status(self, seconds: float = 30.0) -> int:
        """Return its exit status, killing it if it does not end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.handle], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.handle, 65536).decode(errors="replace")
                except OSError:  # the other end is closed
                    break
            found, how = os.waitpid(self.pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(how)
        else:
            os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize("how", ["q", "\x03", "its end"])
def test_live_follows_a_run(tmp_path: Path, how: str) -> None:
    """It waits for the first window, shows each that comes, and leaves on a key or at the end of the run."""
    played = play((("fc1", 6), ("fc2", 4)), 6, every_death=1)
    folder = tmp_path / "runs" / "a"
    terminal = Terminal("live", str(folder), "--interval", "0.1")
    terminal.wait_for("which is not there yet")
    writer = RecordWriter(folder)
    played.record(writer, finish=False, last=3)
    terminal.wait_for("as of step 149")
    played.record(writer, finish=False, first=3)
    terminal.wait_for("as of step 299")
    if how == "its end":
        writer.finish(played.report)
    else:
        os.write(terminal.handle, how.encode())
    assert terminal.status() == 0
    assert "Traceback" not in terminal.seen
    assert terminal.seen.rstrip().endswith("\x1b[?25h"), "the cursor is back"
    writer.close()


def processes(run: Path) -> list[int]:
    """Return the processes that serve this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if str(run) in words and "deadrelu.board.serve" in words:
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc to see what is left running")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_board_starts_tensorboard_and_leaves_nothing(run: Path, how: signal.Signals) -> None:
    """The tab answers at the address that it prints; when the program is gone, so is TensorBoard."""
    words = [sys.executable, "-m", "deadrelu", "board", str(run), "--port", "0", "--host", "127.0.0.1"]
    child = subprocess.Popen(
        words,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    assert child.stdout is not None
    line = child.stdout.readline()
    try:
        found = re.match(r"(http://\S+)#deadrelu  \(Ctrl-C stops it\)$", line)
        assert found, line
        with urllib.request.urlopen(f"{found.group(1)}data/plugins_listing", timeout=30) as answer:
            assert "deadrelu" in json.load(answer)
        assert processes(run)
    finally:
        child.send_signal(how)
        _, err = child.communicate(timeout=30)
    if how == signal.SIGINT:
        assert (child.returncode, err) == (0, "")
    end = time.monotonic() + 20
    while processes(run) and time.monotonic() < end:
        time.sleep(0.1)
    assert processes(run) == []


def test_board_that_cannot_start_is_one_line(run: Path) -> None:
    told = deadrelu("board", str(run), "--port", "0", "--host", "256.256.256.256")
    assert (told.exit_code, told.stdout) == (2, "")
    assert "TensorBoard did not start" in told.stderr
    assert told.stderr.count("\n") == 1

"""A TensorBoard of its own for a test: a child process on this machine alone, stopped whatever happens."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
READERS = {"rust": "true", "python": "false"}


@dataclass(frozen=True)
class Reply:
    """What a request was answered with."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Board:
    """A running TensorBoard."""

    url: str
    said: Path

    def get(self, path: str, headers: dict[str, str] | None = None, **query: str) -> Reply:
        """Ask for a path below the plugin's."""
        words = f"?{urllib.parse.urlencode(query)}" if query else ""
        return self.fetch(f"data/plugin/deadrelu/{path}{words}", headers)

    def _steps(self, run: str) -> int:
        return len(self.get("run", run=run).told.get("steps", ()))

    def fetch(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Reply:
        request = urllib.request.Request(f"{self.url}{path}", headers=headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return Reply(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, dict(error.headers), error.read())

    def wait_for(self, runs: list[str], steps: int = 0) -> None:
        """Wait until these runs are there, each with so many recorded windows."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.get("runs").told["runs"] == runs and all(self._steps(run) >= steps for run in runs):
                return
            time.sleep(0.2)
        raise AssertionError(f"no runs {runs}: {self.get('runs').told}\n{self.said.read_text()}")


@contextmanager
def serving(logdir: Path, scratch: Path, reader: str = "rust") -> Iterator[Board]:
    """Run TensorBoard on a folder until the block ends."""
    said = scratch / f"tensorboard_{reader}.log"
    words = [
        sys.executable,
        "-m",
        "deadrelu.board.serve",
        "--logdir",
        str(logdir),
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]
    words += ["--port", "0", "--load_fast", READERS[reader], "--reload_interval", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    environment["DEADRELU_BOARD_CHILD"] = "1"
    with said.open("w") as out:
        child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        yield Board(_address(child, said), said)
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        assert child.stdin is not None
        child.stdin.close()


def _address(child: subprocess.Popen[bytes], said: Path) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and child.poll() is None:
        found = re.search(r"(http://\S+) \(Press", said.read_text())
        if found:
            return found.group(1)
        time.sleep(0.1)
    raise AssertionError(f"TensorBoard did not start:\n{said.read_text()}")

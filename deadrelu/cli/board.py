"""`deadrelu board`: TensorBoard on recorded runs, with the Dead ReLU tab."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .exits import one_line, say
from .report import RUN

_URL = re.compile(r"https?://\S+(?= \(Press CTRL\+C)")
_PATIENCE = 5.0
_LAST_WORDS = 5


def board(
    run: RUN,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, metavar="N", help="Port, 0 for any; without it the first free one from 6006 on."
        ),
    ] = None,
    host: Annotated[str, typer.Option(metavar="H", help="Address to listen at.")] = "localhost",
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Start TensorBoard on a run, or on a folder of several; Ctrl-C stops it."""
    path = Path(run).expanduser()
    if not path.exists():
        raise InputError(f"{path}: no such folder; give the log_dir of a run, or the folder of several")
    if not path.is_dir():
        raise InputError(f"{path} is a file; TensorBoard reads folders: give the one that it is in")
    words = [sys.executable, "-m", "deadrelu.board.serve", "--logdir", str(path), "--host", host]
    if port is not None:
        words += ["--port", str(port)]
    # In a session of its own, so that Ctrl-C reaches this process alone, which then stops the child. It holds the other
    # end of a pipe and ends when this process is gone, however it went.
    child = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "DEADRELU_BOARD_CHILD": "1"},
    )
    try:
        _attend(child, open_browser=open_browser)
    except KeyboardInterrupt:  # it is how one leaves, not an accident
        pass
    finally:
        _stop(child)


def _attend(child: subprocess.Popen[str], *, open_browser: bool) -> None:
    """Say where TensorBoard listens, and what else it says, until it ends.

    Raises:
        InputError: it did not start.
    """
    assert child.stdout is not None
    said: list[str] = []
    started = False
    for line in child.stdout:
        found = None if started else _URL.search(line)
        if found is None:
            said = [*said, line.strip()][-_LAST_WORDS:]
            if started:
                say(line)
            continue
        started = True
        url = f"{found.group().rstrip('/')}/#deadrelu"
        typer.echo(f"{url}  (Ctrl-C stops it)")
        sys.stdout.flush()
        if open_browser:
            import webbrowser

            webbrowser.open(url)
    if not started:
        words = one_line(" ".join(said)) or f"exit status {child.wait()}"
        raise InputError(f"TensorBoard did not start: {words}; try another --port, or `tensorboard --logdir`")


def _stop(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            stream.close()

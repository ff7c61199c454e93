"""`deadrelu live`: a run that is still training, on the screen as its record grows."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .output import Screen
from .report import RUN

if TYPE_CHECKING:
    from rich.text import Text

    from ..record.reader import Following


def live(
    run: RUN,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600.0, metavar="SECONDS", help="Look that often whether there is more.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show how it stands and leave, as in a pipe.")] = False,
) -> None:
    """Follow a run while it trains, or wait for it to begin; q or Ctrl-C leaves it, and so does its end."""
    from ..record.reader import Following

    screen = Screen(highlight=False)
    stays = screen.is_terminal and not once
    following = Following(run, awaited=stays)
    following.update()
    if not stays:
        _show_once(following, screen)
        return
    with _keys() as pressed:
        _follow(following, screen, interval, pressed)


def _show_once(following: Following, screen: Screen) -> None:
    if not following.runs():
        raise InputError(following.missing())
    for line in _lines(following, screen, sys.maxsize):
        screen.print(line, soft_wrap=True)


def _follow(following: Following, screen: Screen, interval: float, pressed: Callable[[float], str]) -> None:
    """Draw until every run is finished or somebody leaves; what was drawn last stays on the screen."""
    from rich.console import Group
    from rich.live import Live

    def drawn() -> Group:
        return Group(*_lines(following, screen, max(4, screen.height - 1)))

    with Live(drawn(), console=screen, auto_refresh=False, transient=False) as display:
        try:
            while not following.finished():
                if {"q", "Q", "\x03"} & set(pressed(interval)):
                    return
                if following.update():
                    display.update(drawn(), refresh=True)
        except KeyboardInterrupt:  # it is how one leaves, not an accident
            return


def _lines(following: Following, screen: Screen, height: int) -> list[Text]:
    from rich.text import Text

    from ..render.canvas import Canvas
    from ..render.recorded import live_lines

    runs = following.runs()
    if not runs:
        there = "" if following.path.exists() else ", which is not there yet"
        return [Text(f" waiting for the first window of a run in {following.path}{there} ... (q leaves)")]
    return live_lines(runs, Canvas(screen.width, ascii=screen.options.ascii_only), height)


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Give a function that waits for keys, so many seconds; it returns "" if none came or none can be read."""
    before = None
    try:
        import select
        import termios
        import tty

        handle = sys.stdin.fileno()
        before = termios.tcgetattr(handle)
    except Exception:  # no terminal that can be asked: Windows, a pipe, a stream that was closed
        pass
    if before is None:
        yield _sleep
        return

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([handle], [], [], seconds)
        keys = os.read(handle, 64) if ready else b""
        return keys.decode(errors="replace") if keys or not ready else _sleep(seconds)

    try:
        tty.setcbreak(handle)
        yield pressed
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _sleep(seconds: float) -> str:
    time.sleep(seconds)
    return ""

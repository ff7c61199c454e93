"""`deadrelu demo`: real digits, a healthy and a killing learning rate, side by side."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import Screen

if TYPE_CHECKING:
    from .demo_runs import Pair, Run


def demo(
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the four networks and the held-out data there, to audit them yourself."),
    ] = None,
) -> None:
    """Train on real data at a healthy and at a killing learning rate, and show both side by side."""
    from ..render.terminal import show_side_by_side
    from .demo_runs import open_folder, pairs, save

    screen = Screen(highlight=False)
    if out is not None:
        open_folder(out)
    done: list[Pair] = []
    saved: list[Path] = []
    running = pairs()
    while True:
        with _busy():
            pair = next(running, None)
        if pair is None:
            break
        screen.print(f"\n[bold]{pair.title}[/bold] (Adam, batches of 32)")
        for run in (pair.healthy, pair.killed):
            screen.print(f"  {_title(run)}: {_percent(run.accuracy)} of the held-out digits right")
        screen.print()
        show_side_by_side(pair.healthy.report, pair.killed.report, (_title(pair.healthy), _title(pair.killed)), screen)
        done.append(pair)
        if out is not None:
            saved += save(pair, out)
    screen.print("\n[bold]What you see[/bold]")
    screen.print(_explanation(done[-1]), markup=False)
    screen.print("\n[bold]Next[/bold]")
    screen.print(_next(done[-1], saved), markup=False, soft_wrap=True)


def _title(run: Run) -> str:
    return f"{run.name}, lr {run.learning_rate:g}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _explanation(pair: Pair) -> str:
    killed, healthy = pair.killed, pair.healthy
    rows = len(pair.split.held_out)
    return (
        "The two columns are one network, trained twice on the same real handwritten digits, and only the learning "
        f"rate differs: a unit is dead if it put out 0 for every one of the {rows} held-out digits, so that it neither "
        f"helps nor learns. Accuracy is no substitute for counting: the killed {pair.key.upper()} reads "
        f"{_percent(killed.accuracy)} of the digits with {killed.report.dead} of its {killed.report.units_can_die} "
        f"channels dead, the healthy one {_percent(healthy.accuracy)} with {healthy.report.dead}."
    )


def _next(pair: Pair, saved: list[Path]) -> str:
    if not saved:
        return "deadrelu demo --out demo   (keeps the networks and the data, so that you can audit them yourself)"
    checkpoint, data = saved[-2:]
    words = ["deadrelu", "audit", str(checkpoint), "--model", f"deadrelu.cli.demo_models:{pair.key}"]
    return shlex.join([*words, "--data", str(data), "--exhaustive"])


def _busy() -> contextlib.AbstractContextManager[object]:
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return contextlib.nullcontext()
    from rich.console import Console

    return Console(stderr=True).status("training on real digits ...")

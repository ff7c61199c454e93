"""`deadrelu demo`: real digits; a healthy and a killing learning rate side by side, then two mistakes as they kill."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from .output import Screen

if TYPE_CHECKING:
    from .demo_runs import Pair, Run
    from .demo_watched import Watched

T = TypeVar("T")


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Keep the networks, the held-out data and the records of the watched runs there."
        ),
    ] = None,
) -> None:
    """Train on real data: a healthy and a killing learning rate side by side, and two mistakes watched as they kill."""
    from .demo_runs import open_folder

    screen = Screen(highlight=False)
    if out is not None:
        open_folder(out)
    done, saved = _audited(screen, out)
    runs = None if out is None else out / "runs"
    seen = _watched(screen, runs)
    screen.print("\n[bold]What you see[/bold]")
    screen.print(_explanation(done[-1], seen), markup=False)
    screen.print("\n[bold]Next[/bold]")
    for line in _next(done[-1], saved, runs):
        screen.print(line, markup=False, soft_wrap=True)


def _audited(screen: Screen, out: Path | None) -> tuple[list[Pair], list[Path]]:
    """Show two networks, each trained soundly and at a killing learning rate, audited afterwards."""
    from ..render.terminal import show_side_by_side
    from .demo_runs import pairs, save

    done: list[Pair] = []
    saved: list[Path] = []
    for pair in _busily(pairs()):
        screen.print(f"\n[bold]{pair.title}[/bold] (Adam, batches of 32)")
        for run in (pair.healthy, pair.killed):
            screen.print(f"  {_title(run)}: {_percent(run.accuracy)} of the held-out digits right")
        screen.print()
        show_side_by_side(pair.healthy.report, pair.killed.report, (_title(pair.healthy), _title(pair.killed)), screen)
        done.append(pair)
        if out is not None:
            saved += save(pair, out)
    return done, saved


def _watched(screen: Screen, runs: Path | None) -> list[Watched]:
    """Show what a Monitor tells of the first network while it is trained, soundly and with two mistakes."""
    from ..render.terminal import show_briefly
    from .demo_watched import watched

    done: list[Watched] = []
    for run in _busily(watched(runs)):
        if not done:
            screen.print("\n[bold]The MLP again, watched while it trains[/bold] (SGD, deadrelu.Monitor)")
        screen.print(f"\n  {run.mistake.said}", markup=False)
        screen.print(f"  {_percent(run.accuracy)} of the held-out digits right\n")
        show_briefly(run.report, screen)
        done.append(run)
    return done


def _busily(running: Iterator[T]) -> Iterator[T]:
    """Yield what comes, with a sign of life while it is waited for."""
    while True:
        with _busy():
            found = next(running, None)
        if found is None:
            return
        yield found


def _title(run: Run) -> str:
    return f"{run.name}, lr {run.learning_rate:g}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _explanation(pair: Pair, watched: Sequence[Watched]) -> str:
    killed, healthy = pair.killed, pair.healthy
    lost = {run.mistake.key: run.lost for run in watched}
    return (
        "In the tables the two columns are one network, trained twice on the same real handwritten digits, and only "
        f"the learning rate differs: a unit is dead if it put out 0 for every one of the {len(pair.split.held_out)} "
        "held-out digits, so that it neither helps nor learns. Accuracy is no substitute for counting: the killed "
        f"{pair.key.upper()} reads {_percent(killed.accuracy)} of the digits with {killed.report.dead} of its "
        f"{killed.report.units_can_die} channels dead, the healthy one {_percent(healthy.accuracy)} with "
        f"{healthy.report.dead}.\n"
        "An audit sees that units are dead. A Monitor, one line in the training loop, also sees since when and of "
        f"what: {lost['spike']} units of two updates that were too long, {lost['drift']} of a bias that fell a little "
        "at every step."
    )


def _next(pair: Pair, saved: list[Path], runs: Path | None) -> list[str]:
    if not saved or runs is None:
        keeps = "keeps the networks, the data and the records of the watched runs, to look at them yourself"
        return [f"deadrelu demo --out demo   ({keeps})"]
    checkpoint, data = saved[-2:]
    words = ["deadrelu", "audit", str(checkpoint), "--model", f"deadrelu.cli.demo_models:{pair.key}"]
    return [
        shlex.join(["deadrelu", "report", str(runs)]),
        shlex.join(["deadrelu", "board", str(runs)]),
        shlex.join([*words, "--data", str(data), "--exhaustive"]),
    ]


def _busy() -> contextlib.AbstractContextManager[object]:
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return contextlib.nullcontext()
    from rich.console import Console

    return Console(stderr=True).status("training on real digits ...")

"""Recorded: a recorded run on a terminal - the screen of its report, and the dead fraction of each site over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ..record.run import Run, SiteTrack
from .canvas import DEAD, SOFT, STRONG, Canvas
from .page import heading, plain, prose, prose_width, section
from .story import tell
from .table import INDENT
from .training import training_page
from .words import ELLIPSIS, clean, count, many, percent

SITES_SHOWN = 12
EVENTS_SHOWN = 3
SPARK_WIDTH = 48
_NAME_WIDTH = 24
_GAP = 2
_SHARE_WIDTH = 7
_SHORTEST = 12
_FRAME = 4
"""Lines around the sites: the one between, what they are, the axis, how many are left out."""


def show_run(run: Run, console: Console, *, title: bool = False, all_sites: bool = False) -> None:
    """Print a recorded run on a console.

    Args:
        run: the run.
        console: where to print it.
        title: say which run it is.
        all_sites: list every site.
    """
    canvas = Canvas(console.width, ascii=console.options.ascii_only)
    lines = [*_title(run, canvas), Text()] if title else []
    lines += training_page(run.report, canvas, all_sites=all_sites)
    course = _course(run, canvas, len(run.sites) if all_sites else SITES_SHOWN)
    lines += [Text(), *course] if course else []
    lines += [line for remark in _remarks(run) for line in prose(remark, canvas)]
    console.print(Text("\n").join(lines), soft_wrap=True)


def live_lines(runs: Sequence[Run], canvas: Canvas, height: int) -> list[Text]:
    """Draw runs that are under way on at most `height` lines: the one that went on last in more detail."""
    latest = max(runs, key=lambda run: (not run.finished, run.last_step))
    drawn = _live(latest, canvas, height, title=len(runs) > 1)
    for run in runs:
        if run is not latest:
            drawn += [Text(), *_title(run, canvas), *heading(tell(run.report).verdict, canvas)]
    return drawn if len(drawn) <= height else [*drawn[: height - 1], Text(canvas.spell(ELLIPSIS), SOFT)]


def _live(run: Run, canvas: Canvas, height: int, *, title: bool) -> list[Text]:
    story = tell(run.report)
    lines = [*(_title(run, canvas) if title else []), *heading(story.verdict, canvas)]
    lines += [line for remark in _remarks(run) for line in prose(remark, canvas)]
    told = [plain(f"{event.text} {event.remedy}", bullet="- ") for event in story.events[:EVENTS_SHOWN]]
    if told:
        lines += [Text(), *section("events", told, canvas)]
    course = _course(run, canvas, max(1, min(SITES_SHOWN, height - len(lines) - _FRAME)))
    return lines + ([Text(), *course] if course else [])


def _title(run: Run, canvas: Canvas) -> list[Text]:
    return [Text(f" {line}", STRONG) for line in canvas.wrap(clean(run.name), canvas.width - 1)]


def _remarks(run: Run) -> list[str]:
    found = []
    if not run.finished:
        found.append(f"not finished: as of step {count(max(run.last_step, 0))}")
    return [*found, *filter(None, (run.thinned, run.damage))]


def _course(run: Run, canvas: Canvas, limit: int) -> list[Text]:
    """Draw the dead fraction over the recorded steps of each site that ever had a dead unit, the worst first."""
    tracks = sorted((t for t in run.sites if np.nansum(t.dead_fraction) > 0), key=_worst, reverse=True)
    if not tracks:
        return []
    shown = tracks[:limit]
    room = prose_width(canvas, INDENT + 2 * _GAP + _SHARE_WIDTH)
    names = canvas.names([clean(track.site) for track in shown], min(_NAME_WIDTH, room - _SHORTEST))
    wide = max(cell_len(name) for name in names)
    cells = _cells(run, min(SPARK_WIDTH, room - wide))
    lines = [Text(" " * INDENT).append("dead, site by site over the steps", SOFT)]
    for track, name in zip(shown, names, strict=True):
        line = Text(" " * INDENT + name + " " * (wide - cell_len(name) + _GAP))
        line.append_text(canvas.spark(np.nan_to_num(track.dead_fraction[cells]).tolist()))
        share = f"{percent(_last(track)):>{_GAP + _SHARE_WIDTH}}"
        lines.append(line.append(share, DEAD if _last(track) else SOFT))
    begin, end = count(int(run.steps[0])), count(int(run.steps[-1]))
    axis = begin + f"{end:>{max(len(cells) - len(begin), len(end) + 1)}}" if begin != end else begin
    lines.append(Text(" " * (INDENT + wide + _GAP) + axis, SOFT))
    rest = len(tracks) - len(shown)
    return lines + (prose(f"and {many(rest, 'site')} with no more dead units than these", canvas) if rest else [])


def _cells(run: Run, most: int) -> list[int]:
    """Return which record each cell of a spark shows: cells are equal stretches of steps, each with its last."""
    first, last = int(run.steps[0]), int(run.steps[-1])
    width = min(most, len(run.steps))
    ends = first + (last - first) * np.arange(1, width + 1) / width
    return [int(i) - 1 for i in np.searchsorted(run.steps, ends, side="right")]


def _last(track: SiteTrack) -> float:
    return float(track.dead_fraction[np.isfinite(track.dead_fraction)][-1])


def _worst(track: SiteTrack) -> tuple[float, float]:
    return _last(track), float(np.nanmax(track.dead_fraction))

"""The screen of a recorded run: the report's, and the course of each site."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from deadrelu.record.run import Cells, Run, SiteTrack
from deadrelu.render.canvas import Canvas
from deadrelu.render.recorded import live_lines, show_run
from deadrelu.report import Report

from .handmade import HOSTILE
from .trained import CASES

WIDTHS = [40, 80, 160]


def recorded(report: Report, courses: dict[str, list[float]], **of: object) -> Run:
    """Make a run whose sites have these dead fractions at steps 49, 99, ..."""
    windows = max(len(course) for course in courses.values())
    nan = np.full(windows, np.nan)

    def refuse(site: str) -> Cells:
        raise AssertionError("a screen reads no cells")

    tracks = tuple(
        SiteTrack(name, "relu", None, (), 64, True, np.array(course), np.array(course), nan, nan, nan)
        for name, course in courses.items()
    )
    made = {
        "name": "spike",
        "steps": np.arange(windows) * 50 + 49,
        "sites": tracks,
        "dead_fraction": nan,
        "rates": {},
        "loss": None,
        "report": report,
        "finished": True,
        "thinned": None,
        "last_step": windows * 50 - 1,
        "_read": refuse,
    }
    return Run(**{**made, **of})


def screen(run: Run, width: int = 80, **how: bool) -> str:
    console = Console(file=io.StringIO(), width=width)
    show_run(run, console, **how)
    return console.file.getvalue()


COURSES = {"fc1": [0.0] * 10, "fc2": [0.0] * 4 + [0.5] * 3 + [0.25] * 3, "fc3": [0.0] * 9 + [1.0]}


def test_the_course_of_each_site_that_lost_units() -> None:
    """The worst at the end first, a cell a record, the share at the end behind it."""
    text = screen(recorded(CASES["spike"], COURSES))
    lines = text.splitlines()
    at = lines.index("   dead, site by site over the steps")
    assert lines[at + 1].split() == ["fc3", "·········█", "100", "%"]
    assert lines[at + 2].split() == ["fc2", "····▄▄▄▂▂▂", "25.0", "%"]
    assert lines[at + 3].split() == ["49", "499"]
    assert "fc1" not in "".join(lines[at : at + 4])


def test_nothing_died() -> None:
    assert "site by site" not in screen(recorded(CASES["healthy"], {"fc1": [0.0] * 3}))


def test_a_long_run_fits() -> None:
    """Cells are stretches of steps; the last of them shows the end."""
    course = [0.0] * 500 + [1.0] * 499 + [0.5]
    lines = screen(recorded(CASES["spike"], {"fc1": course})).splitlines()
    (line,) = [line for line in lines if line.startswith("   fc1  ·")]
    spark = line.split()[1]
    assert len(spark) == 48
    assert set(spark[:23]) == {"·"}
    assert spark[-1] == "▄"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", CASES)
def test_no_line_is_wider_than_the_screen(case: str, width: int) -> None:
    courses = {HOSTILE: [0.5] * 3, "fc1": [np.nan, 0.0, 0.25], **{f"layer{i}.act": [0.1] * 3 for i in range(20)}}
    run = recorded(CASES[case], courses, finished=False, thinned="every 4th window is kept (bound: 2,000 records)")
    assert all(cell_len(line) <= width for line in screen(run, width, title=True).splitlines())
    for height in (4, 12, 30):
        lines = live_lines([run, run], Canvas(width), height)
        assert len(lines) <= height
        assert all(line.cell_len <= width for line in lines)
        assert not any("\x1b" in line.plain or "\u202e" in line.plain for line in lines)


def test_what_is_left_out_is_said() -> None:
    courses = {f"act{i}": [0.0, 0.5] for i in range(15)}
    text = screen(recorded(CASES["spike"], courses, finished=False, thinned="every 4th window is kept"))
    assert "and 3 sites with no more dead units than these" in text
    assert "not finished: as of step 99" in text
    assert "every 4th window is kept" in text
    assert "and 3 sites" not in screen(recorded(CASES["spike"], courses), all_sites=True)


def test_of_several_live_runs_the_one_that_trains_is_shown() -> None:
    old = recorded(CASES["healthy"], {"fc1": [0.0]}, name="old", last_step=10**6)
    new = recorded(CASES["spike"], COURSES, name="new", finished=False)
    text = "\n".join(line.plain for line in live_lines([old, new], Canvas(80), 60))
    assert text.index(" new\n") < text.index("site by site") < text.index(" old\n")
    assert "not finished: as of step 499" in text

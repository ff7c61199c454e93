"""The terminal screen, on reports made by hand."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from deadrelu.render.canvas import STANDING_STYLES, Canvas
from deadrelu.render.comparison import comparison
from deadrelu.render.page import SITES_SHOWN, page
from deadrelu.render.terminal import show, show_side_by_side, to_text
from deadrelu.report import STATUSES, Report

from .handmade import CASES, HOSTILE, PAIRS, report, site

WIDTHS = [40, 53, 60, 80, 100, 160, 250]
LOOKED_AT = (
    *("bottleneck", "healthy", "healthy_remarks", "harmless", "cut", "worst_of_many", "undecided"),
    *("dead_and_undecided", "exhaustive", "immune", "immune_saturated", "mixed", "nan", "coverage", "hostile"),
)
ROW = re.compile(r"(?P<dead>[\d,]+|-) +/ +(?P<width>[\d,]+) ")


def plain(found: Report, width: int, *, all_sites: bool = False, ascii: bool = False) -> list[str]:
    return [line.plain for line in page(found, Canvas(width, ascii), all_sites=all_sites)]


def rows(lines: list[str]) -> list[tuple[int, int]]:
    """Return (dead, width) of each row of a screen's table."""
    found = [match for line in lines if (match := ROW.search(line))]
    return [(_number(match["dead"]), _number(match["width"])) for match in found]


def _number(text: str) -> int:
    return 0 if text == "-" else int(text.replace(",", ""))


def rest(lines: list[str]) -> int:
    """Return the dead units of the sites that a screen sums up in one line."""
    text = " ".join(lines)
    match = re.search(r"\d other sites?, [\d,]+ +units?: +([\d,]+) +dead", text)
    return _number(match[1]) if match else 0


def random_report(seed: int) -> Report:
    """Make a report of up to 30 sites with any mixture of statuses."""
    rng = np.random.default_rng(seed)
    sites = []
    for i in range(rng.integers(1, 30)):
        op = str(rng.choice(["relu", "relu6", "gelu", "leaky_relu"], p=[0.6, 0.2, 0.1, 0.1]))
        allowed = STATUSES[:4] if op.startswith("relu") else STATUSES[3:6]
        of = {s: int(rng.integers(0, 2 ** rng.integers(0, 13))) for s in allowed if rng.random() < 0.5}
        units = sum(of.values()) + int(rng.integers(1, 2 ** rng.integers(1, 13)))
        name = f"{'block.' * int(rng.integers(0, 12))}{i}.act"
        sites.append(site(name, units, op=op, samples=int(rng.integers(1, 10**6)), rate=float(rng.random()), **of))
    return report(*sites)


@pytest.mark.parametrize("case", LOOKED_AT)
@pytest.mark.parametrize("width", [80, 160])
def test_golden(case: str, width: int, golden: Callable[[str, str], None]) -> None:
    golden(f"{case}.{width}.txt", "\n".join(plain(CASES[case], width)) + "\n")


@pytest.mark.parametrize("pair", ["digits_mlp", "resnet", "different"])
@pytest.mark.parametrize("width", [80, 160])
def test_golden_side_by_side(pair: str, width: int, golden: Callable[[str, str], None]) -> None:
    lines = comparison(*PAIRS[pair], ("healthy", "killed"), Canvas(width), limit=SITES_SHOWN)
    golden(f"side_by_side.{pair}.{width}.txt", "\n".join(line.plain for line in lines) + "\n")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ascii", [False, True])
def test_every_line_fits(case: str, ascii: bool) -> None:
    for width in WIDTHS:
        for all_sites in (False, True):
            for line in plain(CASES[case], width, all_sites=all_sites, ascii=ascii):
                assert cell_len(line) <= width
                assert line == line.rstrip()
                assert line.isprintable()
                assert line.isascii() or not ascii


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("titles", [("healthy", "killed"), (HOSTILE, "層" * 60)])
@pytest.mark.parametrize("limit", [None, 1, SITES_SHOWN])
def test_every_line_fits_side_by_side(pair: str, titles: tuple[str, str], limit: int | None) -> None:
    for width in WIDTHS[2:]:
        for ascii in (False, True):
            for line in comparison(*PAIRS[pair], titles, Canvas(width, ascii), limit=limit):
                assert cell_len(line.plain) <= width
                assert line.plain == line.plain.rstrip()
                assert line.plain.isprintable()


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case].dead])
@pytest.mark.parametrize("width", [40, 80, 160])
def test_dead_counts_are_those_of_the_report(case: str, width: int) -> None:
    found = CASES[case]
    lines = plain(found, width)
    assert sum(dead for dead, _ in rows(lines)) + rest(lines) == found.dead
    everything = rows(plain(found, width, all_sites=True))
    assert sorted(everything) == sorted((int(s.dead.sum()), s.units) for s in found)


@pytest.mark.parametrize("seed", range(25))
def test_any_report(seed: int) -> None:
    """Random mixtures of statuses: lines fit, and dead counts, shown and summed up, are the report's."""
    found = random_report(seed)
    for width in (40, 80, 160):
        lines = plain(found, width)
        assert all(cell_len(line) <= width for line in lines)
        if found.units_can_die:
            assert sum(dead for dead, _ in rows(lines)) + rest(lines) == found.dead
        match = re.search(r"([\d,]+) of [\d,]+ units? \(", " ".join(line.strip() for line in lines[:4]))
        if found.dead and found.dead < found.units_can_die:
            assert match
            assert _number(match[1]) == found.dead
    both = [line.plain for line in comparison(found, random_report(seed + 1), ("a", "b"), Canvas(80))]
    assert all(cell_len(line) <= 80 for line in both)


@pytest.mark.parametrize("pair", ["digits_mlp", "resnet"])
@pytest.mark.parametrize("limit", [None, 2])
def test_dead_counts_side_by_side(pair: str, limit: int | None) -> None:
    """Per row: site, width, then dead and share on the left, and the same on the right."""
    left, right = PAIRS[pair]
    lines = [line.plain for line in comparison(left, right, ("a", "b"), Canvas(80), limit=limit)]
    pattern = r"^ {3}(\S+) +([\d,]+) +(\d+) +\S+ % .*? (\d+) +\S+ %"
    found = {m[1]: (int(m[3]), int(m[4])) for line in lines if (m := re.match(pattern, line))}
    assert len(found) == (len(left) if limit is None else limit)
    assert found == {name: (left[name].dead.sum(), right[name].dead.sum()) for name in found}
    others = re.search(r"other sites?: a (\d+) dead, b (\d+) dead", "\n".join(lines))
    more = (int(others[1]), int(others[2])) if others else (0, 0)
    assert sum(dead for dead, _ in found.values()) + more[0] == left.dead
    assert sum(dead for _, dead in found.values()) + more[1] == right.dead


def test_a_healthy_screen_is_short() -> None:
    assert len(plain(CASES["healthy"], 80)) <= 6
    assert len(rows(plain(CASES["healthy"], 80, all_sites=True))) == 3


def test_the_worst_of_many_sites() -> None:
    found = CASES["worst_of_many"]
    lines = plain(found, 80)
    assert len(rows(lines)) == SITES_SHOWN
    assert rows(lines)[0] == (700, 1024)
    names = [line.split()[0] for line in lines if ROW.search(line)]
    assert len(set(names)) == SITES_SHOWN, "shortened names must stay distinct"
    assert "188 other sites, 192,512 units: 258 dead." in "\n".join(lines)


def test_sites_without_a_silent_unit_are_summed_up() -> None:
    assert "   16 other sites, 3,392 units: none silent." in plain(CASES["harmless"], 80)


@pytest.mark.parametrize(("width", "hidden"), [(80, True), (160, False)])
def test_what_has_no_column_is_a_remark(width: int, hidden: bool) -> None:
    """The number of dormant units stands on the screen once: in a column if it has room, else in words."""
    text = "\n".join(plain(CASES["bottleneck"], width))
    assert ("223 units are dormant (dead ones included)" in text) == hidden
    assert (" dormant " in text.partition("meaning")[0]) != hidden


def test_levels_have_colours_of_their_own() -> None:
    assert len(set(STANDING_STYLES.values())) == len(STANDING_STYLES)


def test_bars_tell_something_from_nothing_and_most_from_all() -> None:
    """Without colour: `#` dead, `?` undecided, `.` the rest."""
    canvas = Canvas(80, ascii=True)
    shares = [(0.0, 0.0), (1e-9, 1e-9), (0.5, 0.5), (1 - 1e-9, 1 - 1e-9), (1.0, 1.0)]
    assert [canvas.bar(d, s, 8).plain for d, s in shares] == ["." * 8, "#.......", "####....", "#######.", "#" * 8]
    assert [canvas.bar(d, s, 8).plain for d, s in [(0.0, 1e-9), (0.25, 0.5), (0.25, 0.26), (0.0, 1.0)]] == [
        *("?.......", "##??....", "##?.....", "????????")
    ]


@pytest.mark.parametrize("dead", np.linspace(0, 1, 41))
def test_bars_keep_their_width(dead: float) -> None:
    for silent in np.linspace(dead, 1, 9):
        for cells in (8, 13):
            assert cell_len(Canvas(80).bar(dead, float(silent), cells).plain) == cells


def terminal_of(monkeypatch: pytest.MonkeyPatch, columns: int, encoding: str = "utf-8") -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda fallback: os.terminal_size((columns, 24)))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))


@pytest.mark.parametrize("width", [80, 160])
def test_printing_a_report(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    terminal_of(monkeypatch, width)
    assert str(CASES["bottleneck"]) == to_text(CASES["bottleneck"]) == "\n".join(plain(CASES["bottleneck"], width))


def test_without_a_terminal_the_width_is_80(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "__stdout__", io.StringIO())
    assert to_text(CASES["cut"]) == "\n".join(plain(CASES["cut"], 80))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("case", ["bottleneck", "hostile"])
def test_printing_never_fails_for_want_of_a_character(
    monkeypatch: pytest.MonkeyPatch, encoding: str, case: str
) -> None:
    terminal_of(monkeypatch, 80, encoding)
    to_text(CASES[case]).encode(encoding)


def draw(found: Report, **console: object) -> str:
    stream = io.StringIO()
    show(found, Console(file=stream, width=100, **console))  # type: ignore[arg-type]
    return stream.getvalue()


def test_show_in_colour() -> None:
    text = draw(CASES["bottleneck"], force_terminal=True, color_system="truecolor", legacy_windows=False)
    assert "\x1b[1;38;2;213;94;0m" in text, "dead units are vermillion"
    assert re.sub(r"\x1b\[[\d;]*m", "", text) == "\n".join(plain(CASES["bottleneck"], 100)) + "\n"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = draw(CASES["bottleneck"], force_terminal=True, color_system="truecolor", legacy_windows=False)
    assert "38;" not in text


@pytest.mark.parametrize("case", CASES)
def test_no_escape_code_leaves_in_a_pipe(case: str) -> None:
    """Neither ours nor one hidden in a name."""
    assert "\x1b" not in draw(CASES[case]) + to_text(CASES[case])


def test_names_are_text_and_no_markup() -> None:
    text = draw(CASES["hostile"], force_terminal=True, color_system="truecolor", legacy_windows=False)
    assert "[bold]markup[/bold]" in text
    assert "[red]x[/red]" in text
    assert set(re.findall(r"\x1b\[[^m]*.", text)) == set(re.findall(r"\x1b\[[\d;]*m", text))


def test_show_side_by_side() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80)
    show_side_by_side(*PAIRS["resnet"], ("healthy", "killed"), console)
    few = stream.getvalue()
    show_side_by_side(*PAIRS["resnet"], ("healthy", "killed"), console, all_sites=True)
    assert "5 other sites: healthy 0 dead, killed 0 dead." in few
    assert "other sites" not in stream.getvalue()[len(few) :]

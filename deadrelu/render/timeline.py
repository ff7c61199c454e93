"""Timeline: a row of checkpoints on a terminal, as Markdown, and as one HTML file."""

from __future__ import annotations

import html
import shutil
import sys
from collections.abc import Sequence
from pathlib import PurePath

from rich.console import Console
from rich.text import Text

from ..differences import Series, Timeline
from .canvas import DEAD, SEVERITY_STYLES, SOFT, Canvas
from .markdown import escaped
from .page import plain, prose, prose_width, section
from .table import GAP, INDENT, Column, grid, indented
from .verdict import Severity
from .words import clean, count, many, percent, spoken

SHOWN = 12
NAME_WIDTH = 28
_SPARK = 12
_EVIDENCE = {
    "data": "silent: not active once on the data given, at that checkpoint",
    "weights": "counted are units whose weights are all zero under a bias <= 0, and units without a recent gradient by "
    "the optimizer's state; the latter may fire all the same, and a unit that is not counted may be dead",
}


_WORD = {"data": "silent", "weights": "counted"}
_VERBS = {
    "data": ("died", "came back", "fired for the first time"),
    "weights": ("more counted", "no longer counted", "no longer counted for the first time"),
}


def to_text(found: Timeline) -> str:
    """Return it as plain text, as wide as the terminal (80 columns where there is none)."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    canvas = Canvas(shutil.get_terminal_size((80, 24)).columns, ascii=not encoding.lower().startswith("utf"))
    return "\n".join(line.plain for line in timeline_page(found, canvas))


def show_timeline(found: Timeline, console: Console, *, all_sites: bool = False) -> None:
    """Print it on a console, in colour where it takes colour."""
    canvas = Canvas(console.width, ascii=console.options.ascii_only)
    console.print(Text("\n").join(timeline_page(found, canvas, all_sites=all_sites)), soft_wrap=True)


def timeline_page(found: Timeline, canvas: Canvas, *, all_sites: bool = False) -> list[Text]:
    """Draw the screen, line by line; no line is wider than the canvas."""
    fine: Severity = "healthy" if found.evidence == "data" else "undecided"
    severity: Severity = fine if found.first_bad is None else "weakened"
    style, mark = SEVERITY_STYLES[severity], canvas.mark(severity)
    lines: list[Text] = []
    for line in canvas.wrap(headline(found), prose_width(canvas, INDENT)):
        lines.append(Text().append((" " * INDENT if lines else f" {mark} ") + line, style))
    lines += prose(scope(found), canvas)
    lines += [Text(), *_table(found, canvas, all_sites)]
    for label, paragraphs in _sections(found):
        lines += [Text(), *section(label, [plain(text) for text in paragraphs], canvas)]
    return lines


def headline(found: Timeline) -> str:
    """Say in a sentence which checkpoint is the first bad one."""
    if found.first_bad is None and found.evidence == "weights":
        return "Weights and optimizer states show no bad checkpoint; with a model and data there may be one."
    if found.first_bad is None:
        return f"No checkpoint is bad: the silent share of no site rose by more than {percent(found.above)}."
    worst, names = found.series[0], named(found)
    share = worst.silent[found.first_bad] or 0.0
    lowest = percent(share - (worst.rises()[found.first_bad] or 0.0))
    where = spoken([worst.site], "site" if found.evidence == "data" else "layer")[0]
    text = f"The first bad checkpoint is {names[found.first_bad]}: the {_WORD[found.evidence]} share of {where} rose"
    return f"{text} to {percent(share)} from {lowest} at its lowest; {names[found.first_bad - 1]} is the last good one."


def scope(found: Timeline) -> str:
    """Say what was looked at, in which order."""
    units = sum(one.units for one in found.series)
    order = "in the order given" if found.order == "given" else f"in the order of {clean(found.order_name)}"
    where = f"on {many(found.samples, 'sample')}" if found.evidence == "data" else "without data"
    series = many(len(found.series), "site" if found.evidence == "data" else "layer")
    return f"{many(len(found.moments), 'checkpoint')} {order}; {many(units, 'unit')} of {series}, {where}."


def named(found: Timeline) -> list[str]:
    """Return the checkpoints' names, without their folders where those do not tell them apart, with their steps."""
    names = [PurePath(moment.name).name for moment in found.moments]
    if len(set(names)) < len(names):
        names = [moment.name for moment in found.moments]
    steps = [f" (step {count(moment.step)})" if moment.step is not None else "" for moment in found.moments]
    return [clean(name) + step for name, step in zip(names, steps, strict=True)]


def happened(found: Timeline) -> list[str]:
    """Say what happened at each checkpoint at which something did, with the causes."""
    lines = []
    for name, moment in zip(named(found), found.moments, strict=True):
        numbers = (moment.deaths, moment.revivals, moment.births)
        words = [f"{count(n)} {verb}" for n, verb in zip(numbers, _VERBS[found.evidence], strict=True) if n]
        if not words:
            continue
        causes = [
            f"{spoken([site])[0]}: {', '.join(f'{cause} {n}' for cause, n in counted.items())}"
            for site, counted in moment.causes.items()
        ]
        lines.append(f"{name}: {', '.join(words)}" + (f" (by {'; '.join(causes)})" if causes else ""))
    return lines


def _sections(found: Timeline) -> list[tuple[str, list[str]]]:
    told = happened(found)
    more = [f"and {count(len(told) - SHOWN)} more checkpoints"] if len(told) > SHOWN else []
    parts = [
        ("when", [*_loudest(told, found), *more]),
        ("how sure", [f"{found.evidence}: {_EVIDENCE[found.evidence]}."]),
        ("note", [clean(note) for note in found.notes]),
    ]
    return [(label, texts) for label, texts in parts if texts]


def _loudest(told: list[str], found: Timeline) -> list[str]:
    """Keep the checkpoints with most deaths, in their order."""
    moments = [m for m in found.moments if m.deaths or m.revivals or m.births]
    ranked = sorted(range(len(told)), key=lambda i: -moments[i].deaths)[:SHOWN]
    return [told[i] for i in sorted(ranked)]


def _table(found: Timeline, canvas: Canvas, all_sites: bool) -> list[Text]:
    shown = found.series if all_sites else found.series[:SHOWN]
    names = canvas.names([clean(one.site) for one in shown], min(NAME_WIDTH, canvas.width // 3))
    last, word = [one.silent[-1] for one in shown], _WORD[found.evidence]
    columns = [
        Column(
            "site", ("site" if found.evidence == "data" else "layer",), tuple(Text(name) for name in names), left=True
        ),
        Column("units", ("units",), tuple(Text(count(one.units)) for one in shown)),
        Column("first", (word, "first"), tuple(Text(percent(one.silent[0])) for one in shown)),
        Column("last", (word, "last"), tuple(Text(percent(f), DEAD if f else SOFT) for f in last)),
    ]
    if canvas.width >= 72 and found.evidence == "data":
        kept = tuple(Text(percent(one.survival[-1])) for one in shown)
        columns.append(Column("kept", ("fired", "throughout"), kept))
    room = canvas.width - INDENT - sum(GAP + column.width for column in columns)
    if room >= _SPARK:
        picks = thinned(len(found.moments), room)
        sparks = tuple(canvas.spark([one.silent[i] or 0.0 for i in picks]) for one in shown)
        columns.append(Column("course", (f"{word} share, by checkpoint"[:room],), sparks, left=True))
    return indented(grid(columns))


def thinned(length: int, room: int) -> list[int]:
    """Return at most `room` indices of `length` things, evenly, the first and the last among them."""
    if length <= room:
        return list(range(length))
    return [round(i * (length - 1) / (room - 1)) for i in range(room)]


def timeline_to_markdown(found: Timeline) -> str:
    """Return it as Markdown. Nothing in a name can be markup, nor HTML."""
    word = _WORD[found.evidence]
    lines = [f"| site | units | {word} first | {word} last | never {word} |", "|---|--:|--:|--:|--:|"]
    for one in found.series[:SHOWN]:
        cells = (one.site, count(one.units), percent(one.silent[0]), percent(one.silent[-1]), percent(one.survival[-1]))
        lines.append(f"| {' | '.join(escaped(clean(cell)) for cell in cells)} |")
    parts = [f"## {escaped(headline(found))}", escaped(scope(found)), "\n".join(lines)]
    for label, texts in _sections(found):
        listed = "\n".join(f"- {escaped(text)}" for text in texts)
        parts.append(f"### {label.capitalize()}\n\n{listed}")
    return "\n\n".join(parts) + "\n"


# The browser itself forbids the page to load or run anything: it has no script at all.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .25rem .75rem .25rem 0; text-align: right; font-variant-numeric: tabular-nums; }}
th:first-child, td:first-child {{ text-align: left; overflow-wrap: anywhere; }}
svg {{ width: 100%; height: auto; }}
svg text {{ font-size: 11px; fill: currentColor; }}
.axis {{ stroke: currentColor; opacity: .3; }}
.silent {{ fill: none; stroke: #d55e00; stroke-width: 2; }}
.survival {{ fill: none; stroke: #0072b2; stroke-width: 2; stroke-dasharray: 5 3; }}
.bad {{ stroke: #b8860b; stroke-width: 2; stroke-dasharray: 2 3; }}
</style>
</head>
<body>
<h1>{headline}</h1>
<p>{scope}</p>
{charts}
{rest}
</body>
</html>
"""
_WIDTH, _HEIGHT, _LEFT, _FLOOR = 800, 160, 48, 130


def timeline_to_html(found: Timeline) -> str:
    """Return it as the text of one HTML file without scripts; every name in it is escaped."""
    rest = "".join(f"<h2>{_safe(label)}</h2><ul>{_items(texts)}</ul>" for label, texts in _html_sections(found))
    return _PAGE.format(
        title=_safe(f"Dead ReLU: {len(found.moments)} checkpoints"),
        headline=_safe(headline(found)),
        scope=_safe(scope(found)),
        charts="".join(_chart(one, found) for one in found.series[: 2 * SHOWN]),
        rest=rest,
    )


def _html_sections(found: Timeline) -> list[tuple[str, list[str]]]:
    silent = [sum(n or 0 for n in moment.silent) for moment in found.moments]
    word = _WORD[found.evidence]
    listed = [f"{name}: {count(number)} {word}" for name, number in zip(named(found), silent, strict=True)]
    sections = [(label, texts) for label, texts in _sections(found) if label != "when"]
    when = [("What happened when", happened(found))] if happened(found) else []
    return [*when, *((label.capitalize(), texts) for label, texts in sections), ("Checkpoints", listed)]


def _items(texts: Sequence[str]) -> str:
    return "".join(f"<li>{_safe(text)}</li>" for text in texts)


def _chart(one: Series, found: Timeline) -> str:
    """Draw the silent share (solid) and the survival (dashed) of one site."""
    at = _places(found)
    lines = "".join(
        f'<polyline class="{kind}" points="{_points(values, at)}"/>'
        for kind, values in (("silent", one.silent), ("survival", one.survival))
    )
    bad = ""
    if found.first_bad is not None:
        x = at[found.first_bad]
        bad = f'<line class="bad" x1="{x:.1f}" x2="{x:.1f}" y1="10" y2="{_FLOOR}"/>'
    ends = (found.moments[0], found.moments[-1])
    labels = [str(m.step) if m.step is not None else clean(m.name)[-24:] for m in ends]
    return (
        f"<h2>{_safe(one.site)}</h2>"
        f"<p>{_safe(many(one.units, 'unit'))}: {_safe(percent(one.silent[0]))} {_WORD[found.evidence]} at first, "
        f"{_safe(percent(one.silent[-1]))} at last{_safe(_kept(one, found))}.</p>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="silent share (solid) and survivors (dashed)">'
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="{_FLOOR}" y2="{_FLOOR}"/>'
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="10" y2="10"/>'
        f'<text x="4" y="14">100 %</text><text x="4" y="{_FLOOR}">0 %</text>'
        f'<text x="{_LEFT}" y="{_FLOOR + 18}">{_safe(labels[0])}</text>'
        f'<text x="{_WIDTH}" y="{_FLOOR + 18}" text-anchor="end">{_safe(labels[1])}</text>{bad}{lines}</svg>'
    )


def _kept(one: Series, found: Timeline) -> str:
    return f"; {percent(one.survival[-1])} of those that fired at first fire in all" if found.evidence == "data" else ""


def _places(found: Timeline) -> list[float]:
    """Return where each checkpoint lies from left to right: by its step if all have one."""
    steps = [moment.step for moment in found.moments]
    keys = [float(i if None in steps else step or 0) for i, step in enumerate(steps)]
    span = max(keys[-1] - keys[0], 1.0)
    return [_LEFT + (key - keys[0]) / span * (_WIDTH - _LEFT - 2) for key in keys]


def _points(values: Sequence[float | None], at: Sequence[float]) -> str:
    return " ".join(
        f"{x:.1f},{_FLOOR - (_FLOOR - 10) * value:.1f}"
        for x, value in zip(at, values, strict=True)
        if value is not None
    )


def _safe(text: str) -> str:
    return html.escape(clean(text))

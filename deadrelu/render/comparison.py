"""Comparison: two reports of one model on a terminal, site by site in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.cells import cell_len
from rich.text import Text

from ..report import Report
from .canvas import SEVERITY_STYLES, SOFT, STANDING_STYLES, UNDECIDED, Canvas
from .page import Paragraph, heading, prose, section
from .table import BAR_WIDTH, GAP, INDENT, NARROW_SITE, SITE_WIDTH, Column, grid, indented
from .tally import Tally, tally
from .verdict import SEVERITIES, Verdict, judge
from .words import clean, count, many, percent

TITLE_WIDTH = 18
_BETWEEN = 3
_LOUD = ("infinite", "saturated", "stuck_negative", "grad_dead", "input_dead")

Pair = tuple[Tally | None, Tally | None]


def comparison(
    left: Report, right: Report, titles: tuple[str, str], canvas: Canvas, *, limit: int | None = None
) -> list[Text]:
    """Draw two reports, line by line: both verdicts, one table, what the worse one means, how sure both are.

    Sites are in order of first execution; with a `limit`, only that many of the worst.
    """
    verdicts = judge(left), judge(right)
    names = canvas.names([clean(title) for title in titles], TITLE_WIDTH)
    lines: list[Text] = []
    for name, verdict in zip(names, verdicts, strict=True):
        lines += [*heading(verdict, canvas, title=name), Text()]
    pairs = _pairs(tally(left), tally(right))
    shown = _worst(pairs, limit)
    if shown:
        lines += _table(shown, names, verdicts, canvas)
    rest = [pair for pair in pairs if pair not in shown]
    if rest:
        dead = [count(sum(t.dead for t in side if t)) for side in zip(*rest, strict=True)]
        lines += prose(
            f"{many(len(rest), 'other site')}: {names[0]} {dead[0]} dead, {names[1]} {dead[1]} dead.", canvas
        )
    return [*lines, *_sections(names, verdicts, canvas)]


def _pairs(left: Sequence[Tally], right: Sequence[Tally]) -> list[Pair]:
    """Match sites by name; those of the right alone come last."""
    other = {t.name: t for t in right}
    pairs: list[Pair] = [(t, other.pop(t.name, None)) for t in left]
    return pairs + [(None, t) for t in other.values()]


def _worst(pairs: Sequence[Pair], limit: int | None) -> list[Pair]:
    ranked = sorted(range(len(pairs)), key=lambda i: max(t.badness for t in pairs[i] if t), reverse=True)
    kept = set(ranked[:limit])
    return [pair for i, pair in enumerate(pairs) if i in kept]


def _table(pairs: Sequence[Pair], names: Sequence[str], verdicts: Sequence[Verdict], canvas: Canvas) -> list[Text]:
    first = [left or right for left, right in pairs]
    widths = Column("width", ("width",), tuple(Text(_widths(pair), SOFT) for pair in pairs))
    sides = [[pair[i] for pair in pairs] for i in (0, 1)]
    required = [_required(side) for side in sides]
    longest = max(cell_len("site"), *(cell_len(canvas.spell(t.name)) for t in first if t))
    room = canvas.width - INDENT - GAP - widths.width - 2 * _BETWEEN
    room -= sum(column.width + GAP for columns in required for column in columns) - 2 * GAP
    site_width = min(longest, max(min(SITE_WIDTH, room), NARROW_SITE))
    room -= site_width
    bar = BAR_WIDTH[0] if room >= 2 * (GAP + BAR_WIDTH[0]) else 0
    room -= 2 * (GAP + bar) if bar else 0
    further = []
    for columns in zip(*(_optional(side) for side in sides), strict=True):
        taken = sum(GAP + column.width for column in columns)
        if taken <= room and any(cell.plain not in ("0", "-") for column in columns for cell in column.cells):
            further.append(columns)
            room -= taken
    grown = min(longest, site_width + room)
    bar = min(bar + (room - grown + site_width) // 2, BAR_WIDTH[1]) if bar else 0
    sites = Column("site", ("site",), tuple(map(Text, canvas.names([t.name for t in first if t], grown))), left=True)
    blocks = [[Text(), *grid([sites, widths])]]
    for i, side in enumerate(sides):
        bars = [Column("bar", ("",), tuple(_bar(t, canvas, bar) for t in side), left=True)] if bar else []
        lines = grid([*required[i], *bars, *(columns[i] for columns in further)])
        title = canvas.names([names[i]], cell_len(lines[0].plain) - 2)[0]
        blocks.append([_title(title, verdicts[i], canvas), *lines])
    return _beside(blocks)


def _widths(pair: Pair) -> str:
    return "/".join(dict.fromkeys(count(t.units) for t in pair if t))


def _title(name: str, verdict: Verdict, canvas: Canvas) -> Text:
    return Text.assemble((f"{canvas.mark(verdict.severity)} ", SEVERITY_STYLES[verdict.severity]), (name, "bold"))


def _bar(site: Tally | None, canvas: Canvas, cells: int) -> Text:
    if site is None or site.dead_fraction is None:
        return Text(" " * cells)
    return canvas.bar(site.dead_fraction, site.silent_fraction or 0.0, cells)


def _column(key: str, head: tuple[str, ...], side: Sequence[Tally | None], cell: Callable[[Tally], Text]) -> Column:
    return Column(key, head, tuple(Text("-", SOFT) if site is None else cell(site) for site in side))


def _required(side: Sequence[Tally | None]) -> list[Column]:
    return [
        _column(
            "dead", ("dead",), side, lambda t: Text(count(t.dead) if t.can_die else "-", "bold" if t.dead else SOFT)
        ),
        _column("share", ("",), side, lambda t: Text(percent(t.dead_fraction), "bold" if t.dead else SOFT)),
    ]


def _optional(side: Sequence[Tally | None]) -> list[Column]:
    def number(site: Tally) -> Text:
        return Text(count(site.undecided), UNDECIDED if site.undecided else SOFT)

    return [
        _column("undecided", ("unde-", "cided"), side, number),
        _column("median_rate", ("median", "firing"), side, lambda t: Text(percent(t.median_rate))),
    ]


def _beside(blocks: Sequence[Sequence[Text]]) -> list[Text]:
    """Put blocks of lines side by side; shorter ones are filled up from the top, below their first line."""
    height = max(map(len, blocks))
    lines = [Text() for _ in range(height)]
    for number, block in enumerate(blocks):
        width = max(cell_len(line.plain) for line in block)
        filled = [block[0], *(Text() for _ in range(height - len(block))), *block[1:]]
        for line, part in zip(lines, filled, strict=True):
            line.append(" " * (_BETWEEN if number else 0)).append_text(part)
            line.append(" " * (width - cell_len(part.plain)))
    return indented(lines)


def _sections(names: Sequence[str], verdicts: Sequence[Verdict], canvas: Canvas) -> list[Text]:
    name, worse = max(zip(names, verdicts, strict=True), key=lambda pair: SEVERITIES.index(pair[1].severity))
    meaning: list[Paragraph] = [("", "", line) for line in worse.meaning]
    if meaning:
        meaning[0] = (f"{name}: ", "bold", worse.meaning[0])
    sure: list[Paragraph] = []
    also: list[Paragraph] = []
    unseen: dict[str, list[str]] = {}
    for name, verdict in zip(names, verdicts, strict=True):
        sure += [(f"{name}, {c.standing}", STANDING_STYLES[c.standing], f": {c.text}") for c in verdict.claims]
        also += [("", "", f"{name}: {note.text}") for note in verdict.notes if note.topic in _LOUD]
        for line in verdict.unseen:
            unseen.setdefault(line, []).append(name)
    parts: tuple[tuple[str, list[Paragraph]], ...] = (
        ("meaning", meaning),
        ("what to do", [("- ", "", line) for line in worse.actions]),
        ("how sure", sure),
        ("also", also),
        ("not seen", [("", "", line if len(by) > 1 else f"{by[0]}: {line}") for line, by in unseen.items()]),
    )
    lines: list[Text] = []
    for label, paragraphs in parts:
        if paragraphs:
            lines += [Text(), *section(label, paragraphs, canvas)]
    return lines

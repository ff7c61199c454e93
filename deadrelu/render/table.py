"""Table: sites as lines of a terminal, with the columns that matter most among those that fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from .canvas import EFFECT_STYLES, SOFT, UNDECIDED, Canvas
from .tally import Tally
from .words import count, listing, percent

GAP = 2
INDENT = 3
SITE_WIDTH = 20
"""Cells of a long site name that other columns must leave to it."""
NARROW_SITE = 6
BAR_WIDTH = (8, 24)
OP_WIDTH = 12
FED_WIDTH = 24
WIDE = 100
"""Cells of a line from which there is room for what fed a site and where it stands in the source."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its key, the lines of its head, one cell per row."""

    key: str
    head: tuple[str, ...]
    cells: tuple[Text, ...]
    left: bool = False

    @property
    def width(self) -> int:
        """Cells that the widest of its texts takes."""
        return max(cell_len(text) for text in (*self.head, *(cell.plain for cell in self.cells)))


def grid(columns: Sequence[Column]) -> list[Text]:
    """Draw columns side by side, all lines of one width: their heads, aligned at the bottom, then their rows."""
    height = max(len(column.head) for column in columns)
    rows = []
    for level in range(height):
        offsets = [level - height + len(column.head) for column in columns]
        rows.append([Text(c.head[o] if o >= 0 else "", SOFT) for c, o in zip(columns, offsets, strict=True)])
    rows += [list(row) for row in zip(*(column.cells for column in columns), strict=True)]
    lines = []
    for row in rows:
        line = Text()
        for column, cell in zip(columns, row, strict=True):
            pad = " " * (column.width - cell_len(cell.plain))
            if line.plain:
                line.append(" " * GAP)
            line.append_text(Text.assemble(cell, pad) if column.left else Text.assemble(pad, cell))
        lines.append(line)
    return lines


def indented(lines: Sequence[Text]) -> list[Text]:
    """Move lines in from the edge, and cut what is blank at their ends."""
    moved = [Text(" " * INDENT).append_text(line) for line in lines]
    for line in moved:
        line.rstrip()
    return moved


def sites_table(sites: Sequence[Tally], canvas: Canvas, *, mortal: bool) -> tuple[list[Text], set[str]]:
    """Draw sites in the order given, and return the lines with the keys of the columns that had room.

    Args:
        sites: the rows; at least one.
        canvas: where to draw.
        mortal: some unit of the report can die; otherwise the table is about saturated and stuck units.
    """
    main = [_against_width(sites, mortal), _share(sites, mortal)]
    room = canvas.width - INDENT - sum(GAP + column.width for column in main)
    longest = max(cell_len("site"), *(cell_len(canvas.spell(t.name)) for t in sites))
    site_width = min(longest, max(min(SITE_WIDTH, room), NARROW_SITE))
    room -= site_width
    chosen = []
    bar_width = BAR_WIDTH[0] if room >= GAP + BAR_WIDTH[0] else 0
    room -= (GAP + bar_width) if bar_width else 0
    for column in _optional(sites, canvas):
        if GAP + column.width <= room:
            chosen.append(column)
            room -= GAP + column.width
    grown = min(longest, site_width + room)
    room -= grown - site_width
    if bar_width:
        main.append(_bars(sites, canvas, mortal, min(bar_width + room, BAR_WIDTH[1])))
    names = tuple(Text(name) for name in canvas.names([t.name for t in sites], grown))
    columns = sorted([*main, *chosen], key=lambda column: _PLACES.index(column.key))
    lines = grid([Column("site", ("site",), names, left=True), *columns])
    return indented(lines), {column.key for column in columns}


_PLACES = [
    *("op", "main", "share", "bar", "undecided", "effect", "rare", "always_on", "dormant"),
    *("saturated", "stuck_negative", "median_rate", "fed_by", "source"),
]


def _against_width(sites: Sequence[Tally], mortal: bool) -> Column:
    hit = [t.dead if mortal else t.flat for t in sites]
    left = [count(n) if t.can_die or not mortal else "-" for n, t in zip(hit, sites, strict=True)]
    right = [count(t.units) for t in sites]
    widths = max(map(len, left)), max(map(len, right))
    cells = (
        Text(f"{a:>{widths[0]}} / {b:>{widths[1]}}", "bold" if n else SOFT)
        for a, b, n in zip(left, right, hit, strict=True)
    )
    return Column("main", ("dead / width" if mortal else "stuck / width",), tuple(cells))


def _share(sites: Sequence[Tally], mortal: bool) -> Column:
    shares = [t.dead_fraction if mortal else t.flat_fraction for t in sites]
    return Column("share", ("",), tuple(Text(percent(share), "bold" if share else SOFT) for share in shares))


def _bars(sites: Sequence[Tally], canvas: Canvas, mortal: bool, cells: int) -> Column:
    def bar(site: Tally) -> Text:
        if not mortal:
            return canvas.bar(0.0, site.flat_fraction or 0.0, cells)
        if site.dead_fraction is None:
            return Text()
        return canvas.bar(site.dead_fraction, site.silent_fraction or 0.0, cells)

    return Column("bar", ("",), tuple(bar(t) for t in sites), left=True)


def _optional(sites: Sequence[Tally], canvas: Canvas) -> list[Column]:
    """Return the further columns that have something to say, by worth."""

    def numbers(key: str, head: tuple[str, ...], value: Callable[[Tally], int], style: str = "") -> list[Column]:
        if not any(map(value, sites)):
            return []
        return [Column(key, head, tuple(Text(count(value(t)), style if value(t) else SOFT) for t in sites))]

    def texts(key: str, head: tuple[str, ...], value: Callable[[Tally], Text], left: bool = True) -> list[Column]:
        cells = tuple(value(t) for t in sites)
        return [Column(key, head, cells, left)] if any(cell.plain for cell in cells) else []

    def short(key: str, head: tuple[str, ...], names: Sequence[str], width: int, style: str = SOFT) -> list[Column]:
        cells = tuple(Text(name, style) for name in canvas.names(names, width))
        return [Column(key, head, cells, left=True)] if any(names) else []

    wide = canvas.width >= WIDE
    return [
        *numbers("undecided", ("undecided",), lambda t: t.undecided, UNDECIDED),
        *(texts("effect", ("effect",), _effect) if any(t.effect for t in sites) else []),
        *texts("median_rate", ("median", "firing"), lambda t: Text(percent(t.median_rate)), left=False),
        *short("op", ("op",), [t.op for t in sites], OP_WIDTH, style=""),
        *numbers("saturated", ("satu-", "rated"), lambda t: t.saturated, UNDECIDED),
        *numbers("stuck_negative", ("stuck", "negative"), lambda t: t.stuck_negative, UNDECIDED),
        *numbers("rare", ("rare",), lambda t: t.rare),
        *numbers("always_on", ("always", "on"), lambda t: t.always_on),
        *(numbers("dormant", ("dormant",), lambda t: t.dormant) if any(t.dormant > t.silent for t in sites) else []),
        *(short("fed_by", ("fed by",), [listing(t.producers, 1) for t in sites], FED_WIDTH) if wide else []),
        *(short("source", ("source",), [t.source or "" for t in sites], FED_WIDTH) if wide else []),
    ]


def _effect(site: Tally) -> Text:
    if not site.can_die and not site.nan:
        return Text("cannot die", SOFT)
    return Text(site.effect, EFFECT_STYLES[site.effect])

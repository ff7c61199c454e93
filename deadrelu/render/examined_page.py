"""Examined page: the terminal screen of a checkpoint without data or model."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from ..findings import findings
from ..report import Report
from .canvas import DEAD, STRONG, Canvas
from .examined import judged, rest, table, worst
from .page import SITES_SHOWN, heading, prose, sections
from .table import GAP, INDENT, Column, grid, indented

_NARROWEST_NAME = 8


def examined_page(report: Report, canvas: Canvas, *, all_sites: bool = False) -> list[Text]:
    """Draw the screen, line by line; layers of which something is claimed are listed, or all."""
    verdict = judged(report)
    sites = worst(findings(report))
    shown = sites if all_sites else [f for f in sites if f.claimed][:SITES_SHOWN]
    lines = heading(verdict, canvas)
    if shown:
        (head, names), *numbers = table(shown)
        columns = [
            Column(" ".join(top), top, tuple(Text(cell, DEAD if top[0] in ("proved", "no") else "") for cell in cells))
            for top, cells in numbers
        ]
        room = canvas.width - INDENT
        while columns and sum(GAP + column.width for column in columns) > room - _NARROWEST_NAME:
            columns.pop()
        room -= sum(GAP + column.width for column in columns)
        width = min(max(cell_len(name) for name in [*names, *head]), room)
        named = tuple(Text(name, STRONG) for name in canvas.names(names, max(width, len(head[0]))))
        lines += [Text(), *indented(grid([Column("layer", head, named, left=True), *columns]))]
        if sites[len(shown) :]:
            lines += prose(rest(sites[len(shown) :]), canvas)
    return [*lines, *sections(verdict, canvas)]

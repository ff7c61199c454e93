"""Page: the parts of a terminal screen, and a whole one of a report."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.text import Text

from ..report import Report
from .canvas import PROSE_WIDTH, SEVERITY_STYLES, SOFT, STANDING_STYLES, Canvas
from .table import INDENT, sites_table
from .tally import Tally, tally, worst_first
from .verdict import Verdict, judge
from .words import count, many

SITES_SHOWN = 12
LABEL_WIDTH = 12

Paragraph = tuple[str, str, str]
"""A leading word, its style, and the text after it."""


def page(report: Report, canvas: Canvas, *, all_sites: bool = False) -> list[Text]:
    """Draw the screen of a report, line by line; no line is wider than the canvas.

    The worst sites are listed and the rest summed up in a line, unless `all_sites`. Of a healthy network no site is.
    """
    verdict = judge(report)
    table, keys = sites_shown(report, canvas, all_sites=all_sites)
    lines = heading(verdict, canvas)
    if table:
        lines += [Text(), *table]
    return [*lines, *sections(verdict, canvas, without=keys)]


def sites_shown(report: Report, canvas: Canvas, *, all_sites: bool = False) -> tuple[list[Text], set[str]]:
    """Draw the worst sites, or all, and return the lines with the keys of the columns; empty if none is worth it."""
    sites = worst_first(tally(report))
    shown = sites if all_sites else _worth_showing(sites)
    if not shown:
        return [], set()
    table, keys = sites_table(shown, canvas, mortal=report.units_can_die > 0)
    return [*table, *_rest(sites[len(shown) :], canvas)], keys


def heading(verdict: Verdict, canvas: Canvas, *, title: str = "") -> list[Text]:
    """Draw the verdict in a sentence, and below it what was looked at."""
    text = f"{title}: {verdict.headline}" if title else verdict.headline
    style = SEVERITY_STYLES[verdict.severity]
    lines: list[Text] = []
    for line in canvas.wrap(text, prose_width(canvas, INDENT)):
        start = " " * INDENT if lines else f" {canvas.mark(verdict.severity)} "
        lines.append(Text().append(start + line, style))
    return lines + prose(verdict.scope, canvas)


def prose(text: str, canvas: Canvas) -> list[Text]:
    """Draw a remark in a soft colour."""
    return [Text(" " * INDENT + line, SOFT) for line in canvas.wrap(text, prose_width(canvas, INDENT))]


def sections(verdict: Verdict, canvas: Canvas, *, without: Collection[str] = ()) -> list[Text]:
    """Draw what the verdict means, what to do, how sure it is, what else was seen and what was not.

    Notes on the topics named by `without` are left out: a column shows them.
    """
    parts: tuple[tuple[str, list[Paragraph]], ...] = (
        ("meaning", [plain(line) for line in verdict.meaning]),
        ("what to do", [plain(line, bullet="- ") for line in verdict.actions]),
        ("how sure", [(c.standing, STANDING_STYLES[c.standing], f": {c.text}") for c in verdict.claims]),
        ("also", [plain(note.text) for note in verdict.notes if note.topic not in without]),
        ("not seen", [plain(line) for line in verdict.unseen]),
    )
    lines: list[Text] = []
    for label, paragraphs in parts:
        if paragraphs:
            lines += [Text(), *section(label, paragraphs, canvas)]
    return lines


def section(label: str, paragraphs: Sequence[Paragraph], canvas: Canvas) -> list[Text]:
    """Draw paragraphs beside their label."""
    lines: list[Text] = []
    indent = INDENT + LABEL_WIDTH
    for lead, style, text in paragraphs:
        hang = len(lead) if not style else 0
        inset = len(lead) - len(lead.lstrip())
        for number, line in enumerate(canvas.wrap(lead.lstrip() + text, prose_width(canvas, indent + hang))):
            start = Text(" " * INDENT).append(f"{'' if lines else label:<{LABEL_WIDTH}}", SOFT)
            body = Text(" " * (hang if number else inset) + line)
            if style and not number:
                body.stylize(style, 0, len(lead))
            lines.append(start.append_text(body))
    return lines


def plain(text: str, bullet: str = "") -> Paragraph:
    """Return a paragraph without a leading word; `bullet` hangs before it."""
    return bullet, "", text


def prose_width(canvas: Canvas, indent: int) -> int:
    """Return the cells that running text has, so far from the edge."""
    return min(canvas.width, PROSE_WIDTH) - indent


def _worth_showing(sites: Sequence[Tally]) -> list[Tally]:
    notable = [t for t in sites if t.silent or t.flat or t.nan]
    if notable and len(sites) <= SITES_SHOWN:
        return list(sites)
    return notable[:SITES_SHOWN]


def _rest(sites: Sequence[Tally], canvas: Canvas) -> list[Text]:
    """Sum up the sites that are not listed."""
    if not sites:
        return []
    found = [
        f"{count(number)} {state}"
        for number, state in (
            (sum(t.dead for t in sites), "dead"),
            (sum(t.undecided for t in sites), "undecided"),
            (sum(t.flat for t in sites), "saturated or stuck"),
        )
        if number
    ]
    text = f"{many(len(sites), 'other site')}, {many(sum(t.units for t in sites), 'unit')}: "
    text += f"{', '.join(found) or 'none silent'}."
    return prose(text, canvas)

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
_LABEL_WIDTH = 12

Paragraph = tuple[str, str, str]
"""A leading word, its style, and the text after it."""


def page(report: Report, canvas: Canvas, *, all_sites: bool = False) -> list[Text]:
    """Draw the screen of a report, line by line; no line is wider than the canvas.

    The worst sites are listed and the rest summed up in a line, unless `all_sites`. Of a healthy network no site is.
    """
    verdict = judge(report)
    sites = worst_first(tally(report))
    shown = sites if all_sites else _worth_showing(sites)
    lines = heading(verdict, canvas)
    keys: set[str] = set()
    if shown:
        table, keys = sites_table(shown, canvas, mortal=report.units_can_die > 0)
        lines += [Text(), *table, *_rest(sites[len(shown) :], canvas)]
    return [*lines, *sections(verdict, canvas, without=keys)]


def heading(verdict: Verdict, canvas: Canvas, *, title: str = "") -> list[Text]:
    """Draw the verdict in a sentence, and below it what was looked at."""
    text = f"{title}: {verdict.headline}" if title else verdict.headline
    style = SEVERITY_STYLES[verdict.severity]
    lines: list[Text] = []
    for line in canvas.wrap(text, _prose_width(canvas, INDENT)):
        start = " " * INDENT if lines else f" {canvas.mark(verdict.severity)} "
        lines.append(Text().append(start + line, style))
    return lines + prose(verdict.scope, canvas)


def prose(text: str, canvas: Canvas) -> list[Text]:
    """Draw a remark in a soft colour."""
    return [Text(" " * INDENT + line, SOFT) for line in canvas.wrap(text, _prose_width(canvas, INDENT))]


def sections(verdict: Verdict, canvas: Canvas, *, without: Collection[str] = ()) -> list[Text]:
    """Draw what the verdict means, what to do, how sure it is, what else was seen and what was not.

    Notes on the topics named by `without` are left out: a column shows them.
    """
    parts: tuple[tuple[str, list[Paragraph]], ...] = (
        ("meaning", [_plain(line) for line in verdict.meaning]),
        ("what to do", [_plain(line, bullet="- ") for line in verdict.actions]),
        ("how sure", [(c.standing, STANDING_STYLES[c.standing], f": {c.text}") for c in verdict.claims]),
        ("also", [_plain(note.text) for note in verdict.notes if note.topic not in without]),
        ("not seen", [_plain(line) for line in verdict.unseen]),
    )
    lines: list[Text] = []
    for label, paragraphs in parts:
        if paragraphs:
            lines += [Text(), *section(label, paragraphs, canvas)]
    return lines


def section(label: str, paragraphs: Sequence[Paragraph], canvas: Canvas) -> list[Text]:
    """Draw paragraphs beside their label."""
    lines: list[Text] = []
    indent = INDENT + _LABEL_WIDTH
    for lead, style, text in paragraphs:
        hang = len(lead) if not style else 0
        for number, line in enumerate(canvas.wrap(lead + text, _prose_width(canvas, indent + hang))):
            start = Text(" " * INDENT).append(f"{'' if lines else label:<{_LABEL_WIDTH}}", SOFT)
            body = Text(" " * (hang if number else 0) + line)
            if style and not number:
                body.stylize(style, 0, len(lead))
            lines.append(start.append_text(body))
    return lines


def _plain(text: str, bullet: str = "") -> Paragraph:
    return bullet, "", text


def _prose_width(canvas: Canvas, indent: int) -> int:
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

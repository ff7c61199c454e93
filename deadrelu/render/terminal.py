"""Terminal: a report on the screen of a terminal, the verdict first."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from ..findings import without_model
from ..report import Report
from .canvas import Canvas
from .comparison import comparison
from .examined_page import examined_page
from .page import SITES_SHOWN, page
from .training import training_brief, training_page


def to_text(report: Report) -> str:
    """Return a report as plain text, as wide as the terminal (80 columns where there is none).

    The text holds no escape codes, so that it can go to a log as well; `show` draws in colour. Where standard output
    takes no Unicode, it is plain ASCII.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    canvas = Canvas(shutil.get_terminal_size((80, 24)).columns, ascii=not encoding.lower().startswith("utf"))
    return "\n".join(line.plain for line in _lines(report, canvas))


def show(report: Report, console: Console, *, all_sites: bool = False) -> None:
    """Print a report on a console, in colour where it takes colour.

    Args:
        report: what was found.
        console: where to print it.
        all_sites: list every site, also of a healthy or a large network.
    """
    _print(_lines(report, _canvas(console), all_sites=all_sites), console)


def show_briefly(report: Report, console: Console) -> None:
    """Print the gist of a training report: the verdict, when, of what, and what to do.

    Args:
        report: what a Monitor found.
        console: where to print it.
    """
    _print(training_brief(report, _canvas(console)), console)


def show_side_by_side(
    left: Report, right: Report, titles: tuple[str, str], console: Console, *, all_sites: bool = False
) -> None:
    """Print two reports of one model, such as a healthy and a killed configuration, in one table per site.

    Args:
        left: what was found in the one configuration.
        right: what was found in the other.
        titles: what the two are called.
        console: where to print them.
        all_sites: list every site, also of a large network.
    """
    limit = None if all_sites else SITES_SHOWN
    _print(comparison(left, right, titles, _canvas(console), limit=limit), console)


def _lines(report: Report, canvas: Canvas, *, all_sites: bool = False) -> list[Text]:
    if without_model(report):
        return examined_page(report, canvas, all_sites=all_sites)
    draw = training_page if report.mode == "training" else page
    return draw(report, canvas, all_sites=all_sites)


def _print(lines: Sequence[Text], console: Console) -> None:
    console.print(Text("\n").join(lines), soft_wrap=True)


def _canvas(console: Console) -> Canvas:
    return Canvas(console.width, ascii=console.options.ascii_only)

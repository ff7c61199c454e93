"""`deadrelu report`: what a recorded run says, on the screen, as JSON, Markdown or HTML."""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from .output import Screen, TextFile

if TYPE_CHECKING:
    from ..record.run import Run

RUN = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="The log_dir of a run that [bold]deadrelu.Monitor(..., log_dir=...)[/bold] recorded, or a folder with "
        "several.",
        show_default=False,
    ),
]


class Format(str, Enum):
    """How a report is printed."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


def report(
    run: RUN,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Also write one HTML file that a browser opens without a server.")
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Also write JSON; - prints it instead of the screen.")
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print the report.")] = Format.TEXT,
    all_sites: Annotated[bool, typer.Option("--all", help="List every site, not the worst alone.")] = False,
) -> None:
    """Show what a recorded run says: the verdict, what happened when, and what to change."""
    page = None if html is None else TextFile(html, "--html")
    file = None if json_file in (None, "-") else TextFile(str(json_file), "--json")
    from ..record.reader import runs

    found = runs(run)
    if page is not None:
        page.write(_html(found))
    if file is not None:
        file.write(_json(found) + "\n")
    if format is Format.JSON or json_file == "-":
        typer.echo(_json(found))
    elif format is Format.MARKDOWN:
        typer.echo(_markdown(found), nl=False)
    else:
        _show(found, all_sites=all_sites)


def _show(runs: list[Run], *, all_sites: bool) -> None:
    from ..render.recorded import show_run

    screen = Screen(highlight=False)
    for number, run in enumerate(runs):
        if number:
            screen.print()
        show_run(run, screen, title=len(runs) > 1, all_sites=all_sites)


def _html(runs: list[Run]) -> str:
    from ..render.html import runs_to_html
    from ..render.view import View

    return runs_to_html([View(run) for run in runs])


def _json(runs: list[Run]) -> str:
    """Return the report of a run as JSON; of several, an object with one for each name."""
    if len(runs) == 1:
        return runs[0].report.to_json()
    told = {"schema": "deadrelu.reports/1", "runs": {run.name: run.report.to_dict() for run in runs}}
    return json.dumps(told, indent=2, allow_nan=False)


def _markdown(runs: list[Run]) -> str:
    from ..render.markdown import escaped, to_markdown

    if len(runs) == 1:
        return to_markdown(runs[0].report)
    return "\n".join(f"# {escaped(run.name)}\n\n{to_markdown(run.report)}" for run in runs)

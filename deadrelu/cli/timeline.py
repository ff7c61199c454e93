"""`deadrelu timeline`: the checkpoints of one training, the first bad one, and what happened between neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .gates import hold, of_timeline, parse_gate
from .output import Screen, TextFile, quiet_stdout
from .report import Format
from .states import (
    AllSites,
    Asked,
    BatchSize,
    Data,
    Device,
    Exclude,
    Exhaustive,
    FailAbove,
    Include,
    JsonFile,
    MaxSamples,
    Model,
    Probe,
)
from .values import parse_fraction

if TYPE_CHECKING:
    from ..differences import Timeline

Checkpoints = Annotated[
    list[str],
    typer.Argument(
        metavar="CKPT...",
        help="Checkpoints, patterns such as [bold]'runs/*.pt'[/bold], or folders with checkpoints in them; put in the "
        "order of the steps inside, else of the numbers in their names.",
        show_default=False,
    ),
]


def timeline(
    checkpoints: Checkpoints,
    model: Model = None,
    data: Data = None,
    above: Annotated[
        str, typer.Option(metavar="FRACTION", help="Bad is a rise of a site's silent share by more than this.")
    ] = "10%",
    exhaustive: Exhaustive = False,
    batch_size: BatchSize = 128,
    max_samples: MaxSamples = None,
    probe: Probe = 512,
    device: Device = None,
    include: Include = None,
    exclude: Exclude = None,
    fail_above: FailAbove = None,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Also write one HTML file that a browser opens without a server.")
    ] = None,
    json_file: JsonFile = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.TEXT,
    all_sites: AllSites = False,
) -> None:
    """Follow a training through its checkpoints: the first bad one, the worst sites, and what did it."""
    gates = [parse_gate(text) for text in fail_above or ()]
    rise = parse_fraction(above, "--above")
    page = None if html is None else TextFile(html, "--html")
    file = None if json_file in (None, "-") else TextFile(str(json_file), "--json")
    asked = Asked(
        model=model,
        data=data,
        exhaustive=exhaustive,
        batch_size=batch_size,
        max_samples=max_samples,
        probe=probe,
        device=device,
        include=include,
        exclude=exclude,
    )
    with quiet_stdout():
        from ..states import find_checkpoints, follow

        states = asked.states(find_checkpoints(checkpoints))
        found = follow(states, None, asked.looking(states), above=rise)
    if page is not None:
        from ..render.timeline import timeline_to_html

        page.write(timeline_to_html(found))
    if file is not None:
        file.write(found.to_json() + "\n")
    _render(found, Format.JSON if json_file == "-" else format, all_sites=all_sites)
    hold(list(of_timeline(found)), gates)


def _render(found: Timeline, format: Format, *, all_sites: bool) -> None:
    if format is Format.JSON:
        typer.echo(found.to_json())
        return
    from ..render.timeline import show_timeline, timeline_to_markdown

    if format is Format.MARKDOWN:
        typer.echo(timeline_to_markdown(found), nl=False)
    else:
        show_timeline(found, Screen(highlight=False), all_sites=all_sites)

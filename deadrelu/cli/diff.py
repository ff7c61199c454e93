"""`deadrelu diff`: which units died between two states of a model, and which part of the change did it."""

from __future__ import annotations

from typing import Annotated

import typer

from .output import Screen, TextFile, quiet_stdout
from .report import Format
from .states import (
    AllSites,
    BatchSize,
    Data,
    Device,
    Exclude,
    Exhaustive,
    Include,
    JsonFile,
    MaxSamples,
    Model,
    Probe,
)

Old = Annotated[str, typer.Argument(metavar="OLD", help="The earlier checkpoint.", show_default=False)]
New = Annotated[str, typer.Argument(metavar="NEW", help="The later checkpoint.", show_default=False)]


def diff(
    old: Old,
    new: New,
    model: Model = None,
    data: Data = None,
    update: Annotated[
        bool, typer.Option("--update", help="NEW is one update after OLD: say which learning rates would have spared.")
    ] = False,
    lr: Annotated[
        float | None, typer.Option(metavar="LR", help="The learning rate of that update; else OLD's optimizer tells.")
    ] = None,
    exhaustive: Exhaustive = False,
    batch_size: BatchSize = 128,
    max_samples: MaxSamples = None,
    probe: Probe = 512,
    device: Device = None,
    include: Include = None,
    exclude: Exclude = None,
    json_file: JsonFile = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.TEXT,
    all_sites: AllSites = False,
) -> None:
    """Compare two checkpoints: who died, who came back, and what did it."""
    file = None if json_file in (None, "-") else TextFile(str(json_file), "--json")
    with quiet_stdout():
        from ..states import diff as compare
        from .states import data_options, open_states

        states = open_states((old, new), model, data)
        options = data_options(
            data,
            model,
            states,
            exhaustive=exhaustive,
            batch_size=batch_size,
            max_samples=max_samples,
            probe=probe,
            device=device,
            include=include,
            exclude=exclude,
        )
        found = compare(*states, update=update, lr=lr, **options)
    if file is not None:
        file.write(found.to_json() + "\n")
    if format is Format.JSON or json_file == "-":
        typer.echo(found.to_json())
        return
    from ..render.difference import difference_to_markdown, show_difference

    if format is Format.MARKDOWN:
        typer.echo(difference_to_markdown(found), nl=False)
    else:
        show_difference(found, Screen(highlight=False), all_sites=all_sites)

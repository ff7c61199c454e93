"""`deadrelu diff`: which units died between two states of a model, and which part of the change did it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .gates import hold, of_difference, parse_gate
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

if TYPE_CHECKING:
    from ..differences import Difference

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
    fail_above: FailAbove = None,
    json_file: JsonFile = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.TEXT,
    all_sites: AllSites = False,
) -> None:
    """Compare two checkpoints: who died, who came back, and what did it."""
    gates = [parse_gate(text) for text in fail_above or ()]
    if data is None and (update or lr is not None):
        raise InputError("--update and --lr are found out by running the model; add --model and --data")
    if lr is not None and not update:
        raise InputError("--lr is the learning rate of an update; add --update, if NEW is one update after OLD")
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
        from ..states import compare

        before, after = states = asked.states((old, new))
        found = compare(before, after, None, asked.looking(states), update=update, lr=lr)
    if file is not None:
        file.write(found.to_json() + "\n")
    _render(found, Format.JSON if json_file == "-" else format, all_sites=all_sites)
    hold(list(of_difference(found)), gates)


def _render(found: Difference, format: Format, *, all_sites: bool) -> None:
    if format is Format.JSON:
        typer.echo(found.to_json())
        return
    from ..render.difference import difference_to_markdown, show_difference

    if format is Format.MARKDOWN:
        typer.echo(difference_to_markdown(found), nl=False)
    else:
        show_difference(found, Screen(highlight=False), all_sites=all_sites)

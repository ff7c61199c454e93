"""`deadrelu audit`: which units of a model are dead on the data given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .exits import Status, say
from .output import Screen, TextFile, quiet_stdout
from .values import parse_fraction

if TYPE_CHECKING:
    from ..report import Report

EPILOG = (
    "[bold]Exit status[/bold]: 0 clean, 1 over --fail-above, 2 usage or unreadable input, 3 internal error, "
    "130 interrupted."
)


def audit(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A Python factory [bold]pkg.mod:factory[/bold] (or an nn.Module there), or a checkpoint "
            "(.pt .pth .bin .ckpt with a state_dict) together with --model.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="Real inputs: a file .npy, .npz (x, y, or all arrays in order), .pt or .safetensors; a folder of "
            "images of one size (decoded to channels x height x width in 0..1, not normalised); "
            "[bold]pkg.mod:callable[/bold] (a DataLoader, Dataset, tensor or iterable, or what returns one); or "
            "[bold]random:1000,3,32,32[/bold] (weak evidence).",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None, typer.Option(metavar="PKG.MOD:FACTORY", help="What builds the model of a checkpoint.")
    ] = None,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="The data is complete: what is silent on all of it is dead.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Samples per forward pass, where the data is not in batches yet.")
    ] = 128,
    max_samples: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N samples.")] = None,
    device: Annotated[str | None, typer.Option(metavar="D", help="Run there: cpu, cuda, cuda:1, mps.")] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="PAT", help="Only sites whose name matches, as in 'layer1.*'.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="PAT", help="No sites whose name matches.")] = None,
    fail_above: Annotated[
        str | None,
        typer.Option(metavar="FRACTION", help="Exit with status 1 if more than 5% (or 0.05) of the units are silent."),
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Also write the report as JSON; - prints it instead of the table."),
    ] = None,
    all_sites: Annotated[bool, typer.Option("--all", help="List every site, not the worst alone.")] = False,
) -> None:
    """Find the dead units of a model on real data."""
    limit = None if fail_above is None else parse_fraction(fail_above, "--fail-above")
    file = None if json_file in (None, "-") else TextFile(str(json_file), "--json")
    with quiet_stdout():
        from .scan import Request, scan

        report = scan(
            Request(
                target=target,
                model=model,
                data=data,
                exhaustive=exhaustive,
                batch_size=batch_size,
                max_samples=max_samples,
                device=device,
                include=tuple(include or ()),
                exclude=tuple(exclude or ()),
            )
        )
    if file is not None:
        file.write(report.to_json() + "\n")
    if json_file == "-":
        typer.echo(report.to_json())
    else:
        from ..render.terminal import show

        show(report, Screen(), all_sites=all_sites)
    if limit is not None:
        _hold(report, limit)


def _hold(report: Report, limit: float) -> None:
    silent = report.silent_fraction
    if silent is None:
        say("note: --fail-above had nothing to compare: no unit of this model is of a kind that can die")
    elif silent > limit:
        count = f"{report.silent} of {report.units_can_die} units ({100 * silent:.4g} %) are silent"
        say(f"{count}, more than --fail-above {100 * limit:.4g} %")
        raise typer.Exit(Status.EXCEEDED)

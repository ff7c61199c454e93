"""`deadrelu audit`: which units of a model are dead: on data, for every input of a range, or by a checkpoint alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .gates import hold, of_report, parse_gate
from .output import Screen, TextFile, quiet_stdout
from .report import Format

if TYPE_CHECKING:
    from ..report import Report

EPILOG = (
    "[bold]Exit status[/bold]: 0 clean, 1 over --fail-above, 2 usage or unreadable input, 3 internal error, "
    "130 interrupted."
)


Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="A checkpoint (.pt .pth .bin .ckpt .safetensors .pt2, or a Hugging Face folder; no code of it runs), or a "
        "Python factory [bold]pkg.mod:factory[/bold] (or an nn.Module there).",
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Real inputs: a file .npy, .npz (x, y, or all arrays in order), .pt or .safetensors; a folder of "
        "images of one size (decoded to channels x height x width in 0..1, not normalised); "
        "[bold]pkg.mod:callable[/bold] (a DataLoader, Dataset, tensor or iterable, or what returns one); or "
        "[bold]random:1000,3,32,32[/bold] (weak evidence). Without it: what a checkpoint says by itself, or "
        "what --input-range proves.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="PKG.MOD:FACTORY",
        help="What builds the model of a checkpoint; or a Hugging Face folder whose config.json describes it, which is "
        "not needed where TARGET is one.",
    ),
]
InputShape = Annotated[
    str | None,
    typer.Option(metavar="C,H,W", help="Without data: the shape of one input, such as 3,224,224; with --input-range."),
]
InputRange = Annotated[
    str | None,
    typer.Option(metavar="LO,HI", help="Without data: prove which units no input within these bounds makes fire."),
]
Exhaustive = Annotated[
    bool, typer.Option("--exhaustive", help="The data is complete: what is silent on all of it is dead.")
]
BatchSize = Annotated[
    int, typer.Option(min=1, metavar="N", help="Samples per forward pass, where the data is not in batches yet.")
]
MaxSamples = Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N samples.")]
Device = Annotated[str | None, typer.Option(metavar="D", help="Run there: cpu, cuda, cuda:1, mps.")]
Include = Annotated[
    list[str] | None, typer.Option(metavar="PAT", help="Only sites whose name matches, as in 'layer1.*'.")
]
Exclude = Annotated[list[str] | None, typer.Option(metavar="PAT", help="No sites whose name matches.")]
FailAbove = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FRACTION",
        help="Exit with status 1 if more than 5% (or 0.05) of the units are silent; 'fc*=10%' holds each site of that "
        "name. May be given several times. Of a checkpoint alone: units proved dead or without a gradient.",
    ),
]
HtmlFile = Annotated[
    str | None,
    typer.Option("--html", metavar="FILE", help="Also write one HTML file that a browser opens without a server."),
]
As = Annotated[Format, typer.Option(help="How to print the report.")]
JsonFile = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Also write the report as JSON; - prints it instead of the table."),
]
AllSites = Annotated[bool, typer.Option("--all", help="List every site, not the worst alone.")]


def audit(
    target: Target,
    data: Data = None,
    model: Model = None,
    input_shape: InputShape = None,
    input_range: InputRange = None,
    exhaustive: Exhaustive = False,
    batch_size: BatchSize = 128,
    max_samples: MaxSamples = None,
    device: Device = None,
    include: Include = None,
    exclude: Exclude = None,
    fail_above: FailAbove = None,
    json_file: JsonFile = None,
    html: HtmlFile = None,
    format: As = Format.TEXT,
    all_sites: AllSites = False,
) -> None:
    """Find the dead units of a model on real data, or see what a checkpoint alone says of its units."""
    gates = [parse_gate(text) for text in fail_above or ()]
    file = None if json_file in (None, "-") else TextFile(str(json_file), "--json")
    page = None if html is None else TextFile(html, "--html")
    with quiet_stdout():
        from .scan import Request, scan

        report = scan(
            Request(
                target=target,
                model=model,
                data=data,
                input_shape=input_shape,
                input_range=input_range,
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
    if page is not None:
        page.write(report.to_html())
    _render(report, Format.JSON if json_file == "-" else format, all_sites=all_sites)
    hold(list(of_report(report)), gates)


def _render(report: Report, format: Format, *, all_sites: bool) -> None:
    if format is Format.JSON:
        typer.echo(report.to_json())
        return
    if format is Format.MARKDOWN:
        from ..render.markdown import to_markdown

        typer.echo(to_markdown(report), nl=False)
        return
    from ..render.terminal import show

    show(report, Screen(), all_sites=all_sites)

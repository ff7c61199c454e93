"""States: the options that `diff` and `timeline` share, and the model states and data that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .exits import say

if TYPE_CHECKING:
    from ..states import State

Model = Annotated[str | None, typer.Option(metavar="PKG.MOD:FACTORY", help="What builds the model of the checkpoints.")]
Data = Annotated[
    str | None,
    typer.Option(metavar="SPEC", help="Real inputs, as for [bold]deadrelu audit[/bold]; with it causes are found."),
]
Exhaustive = Annotated[bool, typer.Option("--exhaustive", help="The data is complete: what is silent on it is dead.")]
BatchSize = Annotated[int, typer.Option(min=1, metavar="N", help="Samples per forward pass.")]
MaxSamples = Annotated[int | None, typer.Option(min=1, metavar="N", help="Look at N samples of the data.")]
Probe = Annotated[int, typer.Option(min=1, metavar="N", help="Samples that the interventions are run on.")]
Device = Annotated[str | None, typer.Option(metavar="D", help="Run there: cpu, cuda, cuda:1, mps.")]
Include = Annotated[
    list[str] | None, typer.Option(metavar="PAT", help="Only sites whose name matches, as in 'layer1.*'.")
]
Exclude = Annotated[list[str] | None, typer.Option(metavar="PAT", help="No sites whose name matches.")]
JsonFile = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Also write JSON; - prints it instead of the screen.")
]
AllSites = Annotated[bool, typer.Option("--all", help="List every site, not the worst alone.")]


def open_states(targets: Sequence[str | Path], model: str | None, data: str | None) -> list[State]:
    """Return the states that checkpoints, or factories `pkg.mod:factory`, hold.

    Raises:
        InputError: a target is neither, or data is given without anything to run it through.
        CheckpointError: a checkpoint cannot be read.
    """
    from ..checkpoint import SUFFIXES, open_checkpoint
    from ..states import State, state_of
    from .imports import is_reference
    from .targets import load_target

    found = []
    for target in targets:
        path = Path(target).expanduser()
        if not path.exists() and path.suffix.lower() not in SUFFIXES and is_reference(str(target)):
            found.append(state_of(load_target(str(target)), str(target)))
            continue
        checkpoint = open_checkpoint(path)
        if data is not None and model is None:
            raise InputError(
                f"--data needs a model to run through; name what builds that of {path}: --model pkg.mod:factory"
            )
        build = None if model is None else _builder(str(target), model)
        found.append(State(str(target), checkpoint.weights, checkpoint, build))
    return found


def _builder(target: str, factory: str) -> Any:
    def build() -> Any:
        from .targets import load_target

        return load_target(target, factory)

    return build


def data_options(
    data: str | None,
    model: str | None,
    states: Sequence[State],
    *,
    exhaustive: bool,
    batch_size: int,
    max_samples: int | None,
    probe: int,
    device: str | None,
    include: list[str] | None,
    exclude: list[str] | None,
) -> dict[str, Any]:
    """Return the options of `deadrelu.diff` that the words of the command line stand for.

    Raises:
        InputError: some of them contradict each other, or the data cannot be read.
    """
    if data is None:
        if exhaustive or max_samples is not None or device is not None or include or exclude:
            raise InputError("--exhaustive, --max-samples, --device, --include and --exclude go with --data; add it")
        return {}
    if exhaustive and max_samples is not None:
        raise InputError("--exhaustive says that the data is complete, --max-samples that a part will do; drop one")
    import sys

    from .sources import model_dtype, open_source
    from .targets import build_model
    from .values import check_device

    place = None if device is None else check_device(device)
    source = open_source(data, model_dtype(states[-1].module(None) if model is None else build_model(model)))
    if source.sample_only and exhaustive:
        raise InputError("--exhaustive says that the data is complete, which random data never is; drop one of the two")
    if source.note is not None:
        say(f"note: {source.note}")
    return {
        "data": source.data,
        "exhaustive": exhaustive,
        "batch_size": batch_size,
        "max_samples": max_samples,
        "probe": probe,
        "device": place,
        "include": list(include or ()) or None,
        "exclude": list(exclude or ()) or None,
        "progress": sys.stderr.isatty(),
    }

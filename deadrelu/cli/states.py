"""States: the options that `diff` and `timeline` share, and the model states and data that they stand for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .exits import say

if TYPE_CHECKING:
    from ..states import Looking, State

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


FailAbove = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FRACTION",
        help="Exit with status 1 if more than 5% (or 0.05) of the units are silent in NEW, or in the last checkpoint; "
        "'fc*=10%' holds each site of that name. May be given several times. Without data: units proved dead or "
        "without a gradient.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for; the fields are the options that `diff` and `timeline` share."""

    model: str | None
    data: str | None
    exhaustive: bool
    batch_size: int
    max_samples: int | None
    probe: int
    device: str | None
    include: list[str] | None
    exclude: list[str] | None

    def states(self, targets: Sequence[str | Path]) -> list[State]:
        """Return the states that checkpoints, or factories `pkg.mod:factory`, hold.

        Raises:
            InputError: a target is neither, or data is given without anything to run it through.
            CheckpointError: a checkpoint cannot be read.
        """
        return [self._state(target) for target in targets]

    def _state(self, target: str | Path) -> State:
        from ..checkpoint import SUFFIXES, open_checkpoint
        from ..states import State, state_of
        from .imports import is_reference
        from .targets import load_target

        path = Path(target).expanduser()
        if not path.exists() and path.suffix.lower() not in SUFFIXES and is_reference(str(target)):
            return state_of(load_target(str(target)), str(target))
        checkpoint = open_checkpoint(path)
        if self.data is not None and self.model is None:
            raise InputError(
                f"--data needs a model to run through; name what builds that of {path}: --model pkg.mod:factory"
            )
        build = None if self.model is None else _builder(str(target), self.model)
        return State(str(target), checkpoint.weights, checkpoint, build)

    def looking(self, states: Sequence[State]) -> Looking | None:
        """Return how the data is looked at; None without data.

        Raises:
            InputError: some of the options contradict each other, or the data cannot be read.
        """
        if self.data is None:
            given = self.exhaustive, self.max_samples is not None, self.device is not None, self.include, self.exclude
            if any(given):
                raise InputError(
                    "--exhaustive, --max-samples, --device, --include and --exclude go with --data; add it"
                )
            return None
        if self.exhaustive and self.max_samples is not None:
            raise InputError("--exhaustive says that the data is complete, --max-samples that a part will do; drop one")
        from ..states import Looking
        from .sources import model_dtype, open_source
        from .targets import build_model
        from .values import check_device

        place = None if self.device is None else check_device(self.device)
        built = states[-1].module(None) if self.model is None else build_model(self.model)
        source = open_source(self.data, model_dtype(built))
        if source.sample_only and self.exhaustive:
            raise InputError(
                "--exhaustive says that the data is complete, which random data never is; drop one of the two"
            )
        if source.note is not None:
            say(f"note: {source.note}")
        return Looking(
            data=source.data,
            exhaustive=self.exhaustive,
            batch_size=self.batch_size,
            max_samples=self.max_samples,
            probe=self.probe,
            device=place,
            include=self.include or None,
            exclude=self.exclude or None,
            progress=sys.stderr.isatty(),
        )


def _builder(target: str, factory: str) -> Any:
    def build() -> Any:
        from .targets import load_target

        return load_target(target, factory)

    return build

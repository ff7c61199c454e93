"""App: the `deadrelu` program and its commands. Nothing here imports torch, so that help is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from . import exits
from .audit import EPILOG, audit
from .board import board
from .demo import demo
from .diff import diff
from .info import info
from .live import live
from .report import report
from .timeline import timeline


class Program(TyperGroup):
    """The group of commands, with every error mapped to an exit status and one line."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *rest: Any, **extra: Any) -> Any:
        """Run the command line `args` and leave with its exit status."""
        words = list(sys.argv[1:] if args is None else args)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a terminal without Unicode gets `?`, not a traceback
                stream.reconfigure(errors="replace")

        def command() -> None:
            with self.make_context("deadrelu", words) as context:
                self.invoke(context)

        sys.exit(int(exits.run(command)))


app = typer.Typer(
    cls=Program,
    name="deadrelu",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=EPILOG)(audit)
app.command()(diff)
app.command()(timeline)
app.command()(demo)
app.command()(report)
app.command()(live)
app.command()(board)
app.command()(info)


@app.callback(invoke_without_command=True)
def program(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Find the dead units of a PyTorch model.

    Start with [bold]deadrelu demo[/bold], or audit your own:

    [bold]deadrelu audit my.models:net --data test.npy[/bold]
    """
    if version:
        typer.echo(f"deadrelu {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


def main() -> None:
    """Run the command line and leave the interpreter with its exit status."""
    app()

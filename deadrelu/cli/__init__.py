"""The command line. A command parses, calls one function, renders, and maps errors to an exit status."""

from __future__ import annotations


def main() -> None:
    """Run the command line and leave the interpreter with its exit status."""
    from .app import main as run

    run()

"""Exits: which exit status an error becomes, and the one line that it prints."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable
from enum import IntEnum

import typer

from ..errors import DeadReluError

DEBUG = "DEADRELU_DEBUG"
_LONGEST = 1000
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

# The base of typer's usage errors: click's own in some releases of typer, a copy of it in others.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


class Status(IntEnum):
    """What the exit status says."""

    CLEAN = 0
    EXCEEDED = 1
    UNUSABLE = 2
    INTERNAL = 3
    INTERRUPTED = 130
    PIPE_CLOSED = 141


def run(command: Callable[[], object]) -> int:
    """Run `command`, print a line on stderr if it fails, and return the exit status."""
    try:
        # A shell that closed a stream (`>&-`) leaves none; what would go there goes nowhere.
        sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        command()
        sys.stderr.flush()
        sys.stdout.flush()
    except typer.Exit as end:
        return _flushed(end.exit_code)
    except BaseException as error:
        return _failed(error)
    return Status.CLEAN


def say(line: str) -> None:
    """Print one line on stderr, under the program's name."""
    sys.stderr.write(f"deadrelu: {one_line(line)}\n")
    sys.stderr.flush()


def one_line(text: str) -> str:
    """Return `text` on one line of bounded length, with what could steer a terminal escaped.

    Names come from files that somebody else wrote.
    """
    text = " ".join(text.split())
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: _LONGEST + 1])
    return safe if len(safe) <= _LONGEST else safe[:_LONGEST] + " ..."


def _failed(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError):
        return _closed()
    if os.environ.get(DEBUG, "0") not in ("", "0") and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        say("interrupted")
        return Status.INTERRUPTED
    if _out_of_memory(error) or _out_of_memory(error.__cause__):
        say("error: out of memory; try a smaller --batch-size, or --max-samples")
        return Status.UNUSABLE
    if isinstance(error, OSError) and error.errno in _FULL:
        _closed()
        say("error: no space left to write the output; free some, or write elsewhere")
        return Status.UNUSABLE
    if isinstance(error, _UsageError):
        say(f"error: {_usage(error)}")
        return Status.UNUSABLE
    if isinstance(error, DeadReluError):
        say(f"error: {error}")
        return Status.UNUSABLE
    if isinstance(error, Exception):
        say(f"internal error: {type(error).__name__}: {error}; set {DEBUG}=1 for the traceback, and please report it")
        return Status.INTERNAL
    raise error


def _out_of_memory(error: BaseException | None) -> bool:
    # torch's own type is told by its name, so that an error before torch is needed does not import it.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "allocate memory" in str(error))


def _usage(error: Exception) -> str:
    message = str(error.format_message()).rstrip(".") if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    return f"{message} (see {context.command_path} --help)" if context is not None else message


def _flushed(status: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _closed()
    return status


def _closed() -> int:
    # Whoever read our output has gone (`| head`). The interpreter flushes stdout once more on its way out.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Status.PIPE_CLOSED

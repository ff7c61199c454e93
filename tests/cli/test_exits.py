"""Which exit status an error becomes, and the one line that goes with it (DESIGN 5.3, 5.4)."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

import pytest
import typer

from deadrelu.cli import exits
from deadrelu.errors import CheckpointError, DataError, InputError, ModelError, RegistryError

from .shop import deadrelu


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


class OutOfMemoryError(RuntimeError):
    """Named as torch's own, which older releases keep elsewhere."""


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


STATUSES: list[tuple[BaseException, int, str]] = [
    (InputError("what, expected, do"), 2, "deadrelu: error: what, expected, do\n"),
    (DataError("x"), 2, "deadrelu: error: x\n"),
    (ModelError("x"), 2, "deadrelu: error: x\n"),
    (CheckpointError("x"), 2, "deadrelu: error: x\n"),
    (RegistryError("x"), 2, "deadrelu: error: x\n"),
    (typer.BadParameter("x"), 2, "deadrelu: error: Invalid value: x\n"),
    (MemoryError(), 2, "deadrelu: error: out of memory; try a smaller --batch-size, or --max-samples\n"),
    (OutOfMemoryError("CUDA"), 2, "deadrelu: error: out of memory; try a smaller --batch-size, or --max-samples\n"),
    (
        caused(DataError("refused"), RuntimeError("DefaultCPUAllocator: can't allocate memory")),
        2,
        "deadrelu: error: out of memory; try a smaller --batch-size, or --max-samples\n",
    ),
    (
        OSError(errno.ENOSPC, "No space left on device"),
        2,
        "deadrelu: error: no space left to write the output; free some, or write elsewhere\n",
    ),
    (KeyboardInterrupt(), 130, "deadrelu: interrupted\n"),
    (BrokenPipeError(), 141, ""),
    (typer.Exit(1), 1, ""),
    (typer.Exit(), 0, ""),
    (
        ZeroDivisionError("by\nzero"),
        3,
        "deadrelu: internal error: ZeroDivisionError: by zero; set DEADRELU_DEBUG=1 for the traceback, "
        "and please report it\n",
    ),
]


@pytest.mark.parametrize(("error", "status", "line"), STATUSES, ids=lambda value: str(value)[:30])
def test_status_and_line(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEADRELU_DEBUG", raising=False)
    assert exits.run(raising(error)) == status
    assert capsys.readouterr() == ("", line)


def test_a_command_that_ends_is_clean() -> None:
    assert exits.run(lambda: "a value that means nothing") == 0


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
@pytest.mark.parametrize("error", [ZeroDivisionError("zero"), InputError("mistake")])
def test_the_traceback_on_request(
    value: str, shown: bool, error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEADRELU_DEBUG", value)
    exits.run(raising(error))
    assert ("Traceback" in capsys.readouterr().err) == shown


@pytest.mark.usefixtures("workplace")
def test_an_error_of_ours_is_internal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the core raises without meaning to is not the user's mistake."""

    def audit(*_: object, **__: object) -> None:
        raise ZeroDivisionError("zero")

    monkeypatch.setattr("deadrelu.auditing.audit", audit)
    result = deadrelu("audit", "shop:net", "--data", "x.npy")
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1
    assert "DEADRELU_DEBUG=1" in result.stderr


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\n  lines\tand a tab", "two lines and a tab"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("right\u202eto left", "right\\u202eto left"),
        ("\ud800", "\\ud800"),
        ("größer als 日本", "größer als 日本"),
        ("x" * 5000, "x" * 1000 + " ..."),
        ("", ""),
    ],
)
def test_one_line(text: str, line: str) -> None:
    assert exits.one_line(text) == line


def test_a_stream_that_the_shell_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`deadrelu ... >&-` starts the interpreter without a stdout."""
    monkeypatch.setattr(sys, "stdout", None)
    assert exits.run(lambda: sys.stdout.write("nobody reads this")) == 0
    sys.stdout.close()

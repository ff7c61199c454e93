"""Blame: an exception of the user's own code in one line, with the place that raised it."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_LIBRARY = tuple({path for key, path in sysconfig.get_paths().items() if key.endswith(("stdlib", "lib"))})


def blame(error: BaseException) -> str:
    """Return `Type: message (file:line)`: the deepest line outside the libraries, else the deepest of all."""
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    name = f"{type(error).__name__}: {text}" if text else type(error).__name__
    place = _place(error)
    return f"{name} ({place})" if place else name


def _place(error: BaseException) -> str | None:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")]
    foreign = [f for f in frames if not _within(f.filename, (_PACKAGE,))]
    own = [f for f in foreign if not _within(f.filename, _LIBRARY)]
    chosen = own or foreign
    return f"{_short(chosen[-1].filename)}:{chosen[-1].lineno}" if chosen else None


def _within(filename: str, folders: tuple[str, ...]) -> bool:
    return any(os.path.abspath(filename).startswith(folder + os.sep) for folder in folders)


def _short(filename: str) -> str:
    here = os.getcwd() + os.sep
    return filename[len(here) :] if filename.startswith(here) else filename

"""Output: where a report goes, and the files that it becomes whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from ..errors import InputError


class Screen(Console):
    """The console on stdout; a reader that has gone is our caller's business, not rich's."""

    def on_broken_pipe(self) -> None:
        """Let the error pass: rich itself would exit with status 1, which here says `threshold exceeded`."""
        raise BrokenPipeError


def quiet_stdout() -> contextlib.AbstractContextManager[object]:
    """Send what the user's own code prints to stderr: stdout holds the report and nothing else."""
    return contextlib.redirect_stdout(sys.stderr)


class TextFile:
    """A text file that is written at the end of long work, or not at all.

    Raises:
        InputError: on construction, if it is known already that the file cannot be written.
    """

    def __init__(self, path: str, option: str) -> None:
        self._option = option
        self._path = Path(os.path.realpath(Path(path).expanduser()))  # replace what a link points to, not the link
        try:
            self._special = self._path.exists() and not stat.S_ISREG(self._path.stat().st_mode)
            if self._path.is_dir():
                raise IsADirectoryError("it is a folder")
            if self._path.exists() and not os.access(self._path, os.W_OK):
                raise PermissionError("no permission to write it")
            if not self._special:
                os.unlink(self._scratch())
        except OSError as error:
            raise self._refused(error) from None

    def write(self, text: str) -> None:
        """Write `text`: readers see the file of before or the whole new one.

        Raises:
            InputError: the file cannot be written (any more).
        """
        try:
            if self._special:  # a device or a named pipe is written to, not replaced
                self._path.write_text(text, encoding="utf-8")
            else:
                self._replace(text)
        except OSError as error:
            raise self._refused(error) from None

    def _replace(self, text: str) -> None:
        mode = stat.S_IMODE(self._path.stat().st_mode) if self._path.exists() else 0o666 & ~_umask()
        scratch = self._scratch()
        try:
            scratch.write_text(text, encoding="utf-8")
            scratch.chmod(mode)
            scratch.replace(self._path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise

    def _scratch(self) -> Path:
        handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        os.close(handle)
        return Path(name)

    def _refused(self, error: OSError) -> InputError:
        reason = error.strerror or str(error)
        return InputError(
            f"{self._option} {self._path}: cannot be written ({reason}); "
            "name a file in an existing folder that you may write to"
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

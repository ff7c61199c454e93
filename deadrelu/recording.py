"""Recording: the record that a monitor keeps, if any. A disk that fails ends the record, not the monitor."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .report import Report
from .summaries import Summary

if TYPE_CHECKING:
    from .record.writer import RecordWriter


class Recording:
    """Writes the record of a monitor, as long as it can be written.

    Args:
        log_dir, writer: where to; None for no record.
        strict: raise what goes wrong.
        warn: told of it, otherwise.

    Raises:
        InputError: the record cannot be written there.
    """

    def __init__(
        self, log_dir: str | os.PathLike[str] | None, writer: Any, *, strict: bool, warn: Callable[[str], None]
    ) -> None:
        self._writer: RecordWriter | None = None
        self._strict, self._warn = strict, warn
        if log_dir is not None or writer is not None:
            from .record.writer import RecordWriter  # not for those who write none

            self._writer = RecordWriter(log_dir, writer)

    @property
    def on(self) -> bool:
        """There is one."""
        return self._writer is not None

    def window(self, summary: Callable[[], Summary | None], samples: int) -> None:
        """Add the window that has ended, after so many samples."""
        if self._writer is not None:
            self._try(lambda writer: None if (told := summary()) is None else writer.write(told, samples))

    def end(self, report: Callable[[], Report]) -> None:
        """Add the final report."""
        if self._writer is not None:
            self._try(lambda writer: writer.finish(report()))

    def close(self) -> None:
        """Write no more."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _try(self, write: Callable[[RecordWriter], None]) -> None:
        writer = self._writer
        assert writer is not None
        try:
            write(writer)
        except Exception as error:
            self._writer = None
            if self._strict:
                raise
            self._warn(f"the record cannot be written any more, training goes on: {type(error).__name__}: {error}")

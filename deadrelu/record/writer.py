"""RecordWriter: a run, window by window, into TensorBoard event files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from .. import screens
from ..errors import InputError
from ..report import Report
from ..summaries import Summary
from .claims import Claim
from .ending import packed
from .pages import Pages
from .protos import Value, event
from .sinks import Borrowed, Folder, Sink
from .thinning import RECORD_BYTES, SLOW_RECORD_BYTES, is_kept, said

HISTOGRAMS = 256
"""Histograms are kept more coarsely than the rest: TensorBoard shows 50 at most."""

_CHUNK = 1 << 16


class RecordWriter:
    """Writes the record of a run: stock summaries, and plugin data from which the run can be read back.

    What it has written is in the file when a call returns, so that a crash loses at most the window under way. Whatever
    fails is raised, and what was written before stays readable. Of several ranks with one folder, the lowest records,
    and the others write nothing.

    Args:
        log_dir: a folder for an event file of the record's own.
        writer: the user's own SummaryWriter, instead; it stays open.

    Raises:
        InputError: neither or both are given, it cannot be written to, or another process records there.
    """

    def __init__(self, log_dir: str | os.PathLike[str] | None = None, writer: Any = None) -> None:
        if (log_dir is None) == (writer is None):
            raise InputError("a record needs log_dir= (a folder) or writer= (a SummaryWriter), and not both")
        self._sink: Sink = Borrowed(writer) if log_dir is None else Folder(log_dir)
        self._claim = Claim(self._sink.folder)
        self._bound = SLOW_RECORD_BYTES if log_dir is None else RECORD_BYTES
        self._pages = Pages(f"{time.time_ns():x}-{os.getpid():x}", self._bound)
        self._windows = self._waiting = self._step = 0
        self._now = 0.0
        self._unrecorded: tuple[Summary, int] | None = None

    @property
    def thinned(self) -> str | None:
        """What the record leaves out, in words; None if nothing."""
        return said(self._windows, self._waiting, self._bound)

    def write(self, summary: Summary, samples: int = 0) -> None:
        """Record one window.

        Args:
            summary: what there is to say of it.
            samples: samples that the run has seen so far.

        Raises:
            OSError: the disk fails.
            Exception: whatever else keeps the writer from writing.
        """
        if not self._claim.holds():
            return
        index, self._windows, self._step = self._windows, self._windows + 1, int(summary.last)
        self._pages.causes.update(death.cause for death in summary.deaths)
        cells: list[Value] = []
        values = self._pages.table(summary)
        if is_kept(index):
            cells, rest = self._window(summary, index, samples, histograms=is_kept(index, HISTOGRAMS))
            values += rest
        values += self._pages.happened(summary)
        self._unrecorded = None if is_kept(index) else (summary, samples)
        self._add(cells, values)

    def finish(self, report: Report) -> None:
        """Record the final report, whole. A later call replaces it.

        Raises:
            OSError: the disk fails.
            Exception: whatever else keeps the writer from writing.
        """
        if not self._claim.holds():
            return
        if self._unrecorded is not None:
            (summary, samples), self._unrecorded = self._unrecorded, None
            self._add(*self._window(summary, self._windows - 1, samples, histograms=True))
        self._add([], [*self._pages.table(None), *self._pages.ending(packed(report))])
        self._add([], self._pages.closing_words(screens.render("markdown", report)))

    def close(self) -> None:
        """Let go of the file. A second call does nothing."""
        self._sink.close()
        self._claim.release()

    def _window(self, summary: Summary, index: int, samples: int, *, histograms: bool) -> tuple[list[Value], ...]:
        cells, values = self._pages.window(summary, index, samples, histograms=histograms)
        self._waiting = max(self._waiting, len(summary.sites) - len(cells))
        return cells, values

    def _add(self, cells: Sequence[Value], values: Sequence[Value]) -> None:
        """Write events of bounded size, what makes the cells readable last."""
        self._now = max(self._now, time.time())  # a clock that is set back must not make this record older than it is
        groups = [*_chunks(cells), values] if values else _chunks(cells)
        events = [event(self._step, self._now, group) for group in groups]
        if not events:
            return
        try:
            self._sink.add(events)
        except BaseException:
            self._pages.tell_again()
            raise


def _chunks(values: Sequence[Value]) -> Iterator[list[Value]]:
    """Yield values in groups, so that a reader of one site need not take in all."""
    group: list[Value] = []
    size = 0
    for value in values:
        if group and size + value.ByteSize() > _CHUNK:
            yield group
            group, size = [], 0
        group.append(value)
        size += value.ByteSize()
    if group:
        yield group

"""Sinks: where the events of a record go - an event file of its own, or the user's SummaryWriter."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary, finalize

from ..errors import InputError
from .claims import hold, is_held, taken
from .frames import pack
from .names import OWN_FOLDER, OWN_SUFFIX
from .protos import opening

_holders: WeakValueDictionary[str, object] = WeakValueDictionary()
"""Who writes into a folder or a SummaryWriter: the last that came, as in a notebook whose cell is run again."""


class Sink(Protocol):
    """What takes events, in order.

    Attributes:
        folder: where they end up, None if that is no local folder.
    """

    folder: Path | None

    def add(self, events: Sequence[Any]) -> None:
        """Write these events, so that a reader finds them at once and all of them."""

    def close(self) -> None:
        """Let go of what is held. A second call does nothing."""


class EventFile:
    """An event file that is written to without a thread or a buffer: what `add` returned from is in the file."""

    def __init__(self, path: Path, *, fresh: bool = True) -> None:
        self.path = path
        self._file = open(path, "xb" if fresh else "ab", buffering=0)  # noqa: SIM115 - held until `close`
        finalize(self, self._file.close)  # a record that nobody closes has lost nothing
        self._end = self._file.seek(0, io.SEEK_END)
        if fresh:
            hold(self._file.fileno())
            self.add([opening(time.time())])

    def add(self, events: Sequence[Any]) -> None:
        """Append these events; if the disk fails, the file ends as it did before.

        Raises:
            OSError: they could not be written.
        """
        data = memoryview(b"".join(pack(event.SerializeToString()) for event in events))
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:])
        except BaseException:
            # What follows half an event would never be read.
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
                self._file.seek(self._end)
            raise
        self._end += written

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Folder:
    """A folder that gets an event file of the record's own, with the first event.

    If somebody else's event files are there by then, the file goes into a folder inside of it: of several files in one
    folder, one of TensorBoard's readers follows the newest alone.

    Raises:
        InputError: the folder cannot be written to.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if "://" in os.fspath(folder):
            raise InputError(
                f"log_dir {os.fspath(folder)!r} is no local folder; pass writer=SummaryWriter(...), which can reach it"
            )
        path = Path(folder).expanduser().absolute()
        self.folder: Path | None = path
        self._folder = path
        self._file: EventFile | None = None
        self._key = os.path.realpath(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error.strerror or str(error)) from None
        if not os.access(path, os.W_OK | os.X_OK):
            raise _unwritable(path, "no permission")
        _holders[self._key] = self

    def add(self, events: Sequence[Any]) -> None:
        """Append these events to the file.

        Raises:
            OSError: they could not be written.
            InputError: another record goes into this folder, of this process since, or of another one.
        """
        _hold(self._key, self, f"log_dir {self._folder}")
        if self._file is None:
            self._file = self._open()
        self._file.add(events)

    def _open(self) -> EventFile:
        folder = self._folder
        if any(is_held(path) for place in (folder, folder / OWN_FOLDER) for path in place.glob(f"*{OWN_SUFFIX}")):
            raise taken(folder)
        if any("tfevents" in name and not name.endswith(OWN_SUFFIX) for name in os.listdir(folder)):
            folder = folder / OWN_FOLDER
            folder.mkdir(exist_ok=True)
        # Files are read in the order of their names.
        seconds, rest = divmod(time.time_ns(), 1_000_000_000)
        host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())
        return EventFile(folder / f"events.out.tfevents.{seconds:010d}.{rest:09d}.{host}.{os.getpid()}{OWN_SUFFIX}")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class Borrowed:
    """The user's own SummaryWriter: that of torch.utils.tensorboard, or of tensorboardX.

    It is not closed here. If the user closed it before, what comes is appended to its file, so that its folder keeps
    one event file. One without a file, as loggers hand to ranks that are to write nothing, is left alone.

    Raises:
        InputError: it is no such writer.
    """

    def __init__(self, writer: Any) -> None:
        if not callable(getattr(writer, "_get_file_writer", None)):
            raise InputError(
                f"writer is a {type(writer).__name__}; expected a SummaryWriter of torch.utils.tensorboard or of "
                "tensorboardX (of a Lightning logger: logger.experiment)"
            )
        self.folder = _folder(writer)
        self._writer = writer
        self._files = writer._get_file_writer()
        self._event = _event_type(writer)
        self._reopened: EventFile | None = None
        self._key = f"writer {id(writer)}"
        _holders[self._key] = self

    def add(self, events: Sequence[Any]) -> None:
        """Hand these events to the writer, and have it write them.

        Raises:
            InputError: another record goes into this writer since.
            Exception: whatever the writer raises.
        """
        _hold(self._key, self, "this SummaryWriter")
        if self._files is None:
            return
        if self._reopened is None and getattr(self._writer, "all_writers", self) is None:  # closed
            path = _path(self._files)
            self._reopened = None if path is None else EventFile(path, fresh=False)
        if self._reopened is not None:
            self._reopened.add(events)
            return
        self._files = self._writer._get_file_writer()
        if self._event is None:
            for event in events:
                self._files.add_event(event, event.step, event.wall_time)
            self._files.flush()
        else:
            self._add_to_tensorboardx([self._event.FromString(event.SerializeToString()) for event in events])

    def _add_to_tensorboardx(self, events: Sequence[Any]) -> None:
        # Its flush() does not wait for its queue: an event in it would be lost in a crash.
        direct = getattr(getattr(self._files, "event_writer", None), "_ev_writer", None)
        for event in events:
            if direct is None:
                self._files.add_event(event, event.step, event.wall_time)
            else:
                direct.write_event(event)
        (self._files if direct is None else direct).flush()

    def close(self) -> None:
        """Let go of the writer, which stays open."""
        if self._reopened is not None:
            self._reopened.close()


def _hold(key: str, sink: Sink, where: str) -> None:
    if _holders.get(key) is not sink:
        raise InputError(f"another monitor records into {where} as well; give each its own folder with log_dir=")


def _event_type(writer: Any) -> Any:
    """Return tensorboardX's own type of events, None for the common one."""
    if not any(kind.__module__.partition(".")[0] == "tensorboardX" for kind in type(writer).__mro__):
        return None
    from tensorboardX.proto.event_pb2 import Event

    return Event


def _folder(writer: Any) -> Path | None:
    """Return the folder that a writer writes into, None if it is none of this machine."""
    name = getattr(writer, "log_dir", None) or getattr(writer, "logdir", None)
    return Path(name) if isinstance(name, (str, os.PathLike)) and os.path.isdir(name) else None


def _path(files: Any) -> Path | None:
    """Return the file that a closed writer wrote to, if it can be told."""
    writer = getattr(files, "event_writer", None)
    name = getattr(writer, "_file_name", None) or getattr(getattr(writer, "_ev_writer", None), "_file_name", None)
    return Path(name) if isinstance(name, str) and os.path.isfile(name) else None


def _unwritable(folder: Path, reason: str) -> InputError:
    return InputError(f"log_dir {folder}: cannot be written ({reason}); name a folder that you may write to")

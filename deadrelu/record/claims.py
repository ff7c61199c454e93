"""Claims: of several processes that would record into one folder, the one that does - the lowest rank, or the first."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary, finalize

from ..errors import InputError

NAME = ".deadrelu-ranks"
"""The file whose bytes are locked, one for each rank. The system frees the locks of a process that ends, however."""

log = logging.getLogger("deadrelu")


class Claim:
    """A process's claim to record into a folder, its own rank's among the ranks of a distributed run.

    Locks are the system's, so that ranks need not talk to each other, and those with folders of their own all record.
    Where locks cannot be had, rank 0 records. Outside of a distributed run there is nothing to claim.

    Args:
        folder: a folder that exists; None claims nothing, and holds.

    Raises:
        InputError: another process of the same rank records there.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._rank, ranks = place()
        self._yielded = False
        self._lock = None if folder is None or ranks == 1 else _lock(folder)
        if self._lock is not None and self._lock.take(self._rank) is False:
            raise taken(folder)

    def holds(self) -> bool:
        """Return whether this process is the one to record; once it is not, it stays so."""
        if self._folder is None or self._rank == 0 or self._yielded:
            return not self._yielded
        self._yielded = self._lock is None or not self._lock.is_free_below(self._rank)
        if self._yielded:
            log.info(
                "rank %d records nothing, a lower rank records into %s; with a folder of its own it would",
                self._rank,
                self._folder,
            )
        return not self._yielded

    def release(self) -> None:
        """Give the claim up. A second call does nothing."""
        self._lock = None


class _Lock:
    """The lock file of a folder, opened once in a process: the first to close it would free what all others hold."""

    def __init__(self, path: Path) -> None:
        import fcntl  # not on Windows

        self._fcntl: Any = fcntl
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        finalize(self, _close, self._handle, path, os.getpid())

    def take(self, number: int) -> bool | None:
        """Lock one byte; return whether it could be had, None if nothing can be locked here."""
        return self._try(self._fcntl.LOCK_EX, 1, number)

    def is_free_below(self, number: int) -> bool:
        """Return whether no other process has locked a byte before this one."""
        if self._try(self._fcntl.LOCK_SH, number, 0) is not True:
            return False
        self._fcntl.lockf(self._handle, self._fcntl.LOCK_UN, number, 0)
        return True

    def _try(self, how: int, length: int, start: int) -> bool | None:
        try:
            self._fcntl.lockf(self._handle, how | self._fcntl.LOCK_NB, length, start)
        except OSError as error:
            return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
        return True


_locks: WeakValueDictionary[str, _Lock] = WeakValueDictionary()


def place() -> tuple[int, int]:
    """Return the rank of this process in a distributed run and how many there are; (0, 1) outside of one."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank()), int(distributed.get_world_size())
    try:
        rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return 0, 1
    return (rank, ranks) if 0 <= rank < ranks else (0, 1)


def taken(folder: Path | None) -> InputError:
    """Return the error of a folder that another process records into."""
    return InputError(f"another process records into {folder} at this moment; give each run a folder of its own")


def hold(handle: int) -> None:
    """Lock an open file for as long as this process has it open, where that can be done.

    Whoever reads the file in this process lets go of it: that costs the guard, and nothing else.
    """
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_held(path: Path) -> bool:
    """Return whether another process holds a file."""
    try:
        import fcntl

        with open(path, "rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except ImportError:
        return False
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN) and os.access(path, os.R_OK)
    return False


def _lock(folder: Path) -> _Lock | None:
    """Return the lock of a folder, None where there is none to be had."""
    path = folder / NAME
    key = os.path.realpath(path)
    found = _locks.get(key)
    if found is None:
        try:
            found = _locks[key] = _Lock(path)
        except (ImportError, OSError):
            return None
    return found


def _close(handle: int, path: Path, process: int) -> None:
    with contextlib.suppress(OSError):
        os.close(handle)
    if os.getpid() == process:  # not in a process that was forked off
        with contextlib.suppress(OSError):
            path.unlink()

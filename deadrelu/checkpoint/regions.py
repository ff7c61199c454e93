"""Regions: ranges of bytes in a file, read or mapped without ever leaving their bounds."""

from __future__ import annotations

import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from .refusals import Damaged, Unreadable

Identity = tuple[int, int, int, int]


class FileBytes:
    """A regular file, opened only while it is read.

    Raises:
        Unreadable: `path` is missing or no regular file (opening a pipe would wait for ever).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise Unreadable("no such file; check the path") from None
        except (ValueError, OSError) as error:
            if isinstance(error, PermissionError):
                raise
            raise Unreadable(f"no file can have this name or be reached there ({error})") from None
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("it is not a regular file; expected a checkpoint on disk")
        self.size = status.st_size
        self._identity = _identity(status)

    def read(self, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`.

        Raises:
            Damaged: the file ends before.
        """
        if start < 0 or length < 0 or start + length > self.size:
            raise Damaged
        with open(self.path, "rb", buffering=0) as stream:
            self._check(stream.fileno())
            stream.seek(start)
            parts = []
            while length:
                part = stream.read(min(length, 1 << 30))
                if not part:
                    raise Damaged
                parts.append(part)
                length -= len(part)
        return b"".join(parts)

    def elements(self, start: int, count: int, dtype: torch.dtype) -> Tensor:
        """Return `count` elements from byte `start`, shape (count,): large ones mapped where the machine can do it.

        A mapping lives as long as its tensor, and is copied on write: writing to the tensor never changes the file.

        Raises:
            CheckpointError: the file changed since it was opened, or cannot be read any more.
        """
        length = count * dtype.itemsize
        try:
            if length >= _WORTH_MAPPING and start % dtype.itemsize == 0:
                first = start - start % mmap.ALLOCATIONGRANULARITY
                mapping = self._mapped(first, start + length - first)
                if mapping is not None:
                    return torch.frombuffer(mapping, dtype=dtype, count=count, offset=start - first)
            return torch.frombuffer(bytearray(self.read(start, length)), dtype=dtype)
        except (Damaged, Unreadable, OSError) as error:
            reason = str(error) or "it became shorter while it was read"
            raise CheckpointError(f"{self.path}: {reason}; open it again") from None

    def _mapped(self, start: int, length: int) -> mmap.mmap | None:
        with open(self.path, "rb") as stream:
            self._check(stream.fileno())
            try:
                return mmap.mmap(stream.fileno(), length, access=mmap.ACCESS_COPY, offset=start)
            except (OSError, ValueError, OverflowError):  # too many mappings, or a file system without them
                return None

    def _check(self, descriptor: int) -> None:
        if _identity(os.fstat(descriptor)) != self._identity:
            raise Unreadable("it changed while it was read")


@dataclass(frozen=True, slots=True)
class Region:
    """`length` bytes of `file` from `start` on; whoever holds a Region cannot read beyond it."""

    file: FileBytes
    start: int
    length: int

    @classmethod
    def whole(cls, path: Path) -> Region:
        """Return the region of all bytes of the file at `path`."""
        file = FileBytes(path)
        return cls(file, 0, file.size)

    def part(self, start: int, length: int) -> Region:
        """Return the region of `length` bytes from `start` of this one.

        Raises:
            Damaged: it would reach beyond this one.
        """
        if start < 0 or length < 0 or start + length > self.length:
            raise Damaged
        return Region(self.file, self.start + start, length)

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, by default all to the end.

        Raises:
            Damaged: they would reach beyond the region.
        """
        wanted = self.part(start, self.length - start if length is None else length)
        return self.file.read(wanted.start, wanted.length)

    def elements(self, start: int, count: int, dtype: torch.dtype) -> Tensor:
        """Return `count` elements of `dtype` from byte `start`, shape (count,), see `FileBytes.elements`."""
        wanted = self.part(start, count * dtype.itemsize)
        return self.file.elements(wanted.start, count, dtype)


class RegionStream:
    """A Region as what a pickle parser reads: never more than the region, nor more than `limit` bytes.

    Raises:
        Unreadable: from `read` and `readline`: more than `limit` bytes were asked for.
    """

    def __init__(self, region: Region, start: int, limit: int) -> None:
        self._region, self._position, self._limit = region, start, start + limit
        self._buffer, self._buffered_from = b"", start

    def tell(self) -> int:
        """Return the position from the start of the region, in bytes."""
        return self._position

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer at the end of the region."""
        first = self._position - self._buffered_from
        if 0 <= count <= len(self._buffer) - first and self._position + count <= self._limit:
            self._position += count
            return self._buffer[first : first + count]
        if count < 0:
            raise Damaged
        found = self._ahead(min(count, self._region.length - self._position))
        self._position += len(found)
        return found

    def readline(self) -> bytes:
        """Return the next line with its line feed, at most 64 KiB of it."""
        ahead = self._ahead(min(_LINE, self._region.length - self._position))
        end = ahead.find(b"\n") + 1
        if not end:
            raise Damaged
        self._position += end
        return ahead[:end]

    def _ahead(self, count: int) -> bytes:
        if self._position + count > self._limit:
            if self._position + count > self._region.length:
                raise Damaged
            raise Unreadable(
                f"what is not tensor data in it exceeds {self._limit >> 20} MiB; save the weights without the rest"
            )
        first = self._position - self._buffered_from
        if first + count > len(self._buffer):
            ahead = min(max(count, _CHUNK), self._region.length - self._position)
            self._buffer, self._buffered_from, first = self._region.read(self._position, ahead), self._position, 0
        return self._buffer[first : first + count]


_LINE = 1 << 16
_CHUNK = 1 << 18
_WORTH_MAPPING = 1 << 20  # a system allows some 65,000 mappings, and a page fault costs more than a short read


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

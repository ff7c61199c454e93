"""Archive: the directory of a zip file whose entries lie in it as they are, checked before anything is used."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from .refusals import Damaged, Unreadable
from .regions import Region

SIGNATURE = b"PK\x03\x04"
_END, _END64, _LOCATOR, _ENTRY = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02"
_LARGEST_DIRECTORY = 64 << 20
_NARROW = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Entry:
    header: int
    length: int
    unusable: str  # why its bytes are not what was stored, empty if they are


class Archive:
    """The entries of the zip file in `region`, by name. Nothing is ever extracted or inflated.

    Raises:
        Damaged: it is no zip file, or its directory contradicts itself.
        Unreadable: a name is there twice, or would leave a folder.
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        self._entries: dict[str, _Entry] = {}
        start, length = _directory(region)
        if length > _LARGEST_DIRECTORY:
            raise Unreadable(f"its table of contents is {length >> 20} MiB long, which no checkpoint needs")
        for name, entry in _entries(region.read(start, length)):
            _check_name(name)
            if name in self._entries:
                raise Unreadable(f"it holds the entry {name[:80]!r} twice; save it again")
            self._entries[name] = entry
        self._ends = sorted([*(entry.header for entry in self._entries.values()), start])
        if any(a == b for a, b in zip(self._ends, self._ends[1:], strict=False)):
            raise Unreadable(_OVERLAP)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def entry(self, name: str) -> Region:
        """Return the bytes of an entry.

        Raises:
            Damaged: there is none, or it lies outside of the file.
            Unreadable: it overlaps another one, or is compressed or encrypted.
        """
        found = self._entries.get(name)
        if found is None:
            raise Damaged
        if found.unusable:
            raise Unreadable(
                f"its entry {name[:80]!r} is {found.unusable}, which torch.save never does, and which has no bound; "
                "expected a file written by torch.save"
            )
        header = self._region.read(found.header, 30)
        if not header.startswith(SIGNATURE):
            raise Damaged
        named, extra = struct.unpack("<HH", header[26:30])
        start = found.header + 30 + named + extra
        if start + found.length > self._ends[bisect.bisect_right(self._ends, found.header)]:
            raise Unreadable(_OVERLAP)
        return self._region.part(start, found.length)

    def root(self, tail: str) -> str | None:
        """Return the folder that holds `tail` directly below the top: `net` for `net/data.pkl`; None if none does.

        Raises:
            Unreadable: several do.
        """
        tops = [name.removesuffix(f"/{tail}") for name in self._entries if name.endswith(f"/{tail}")]
        tops = [top for top in tops if "/" not in top]
        if len(tops) > 1:
            raise Unreadable(f"it holds {len(tops)} checkpoints in one archive; expected one")
        return tops[0] if tops else None


_OVERLAP = "its entries overlap, which no program writes; expected a file written by torch.save"


def _directory(region: Region) -> tuple[int, int]:
    tail_start = max(0, region.length - (1 << 16) - 22)
    tail = region.read(tail_start)
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise Damaged
    length, start = struct.unpack("<II", tail[at + 12 : at + 20])
    end = tail_start + at
    if end >= 20 and region.read(end - 20, 4) == _LOCATOR:
        (end64,) = struct.unpack("<Q", region.read(end - 12, 8))
        record = region.read(end64, 56)
        if not record.startswith(_END64):
            raise Damaged
        length, start = struct.unpack("<QQ", record[40:56])
        end = end64
    if start + length != end:  # something stands before the archive, or between its directory and its end
        raise Damaged
    return start, length


def _entries(directory: bytes) -> Iterator[tuple[str, _Entry]]:
    at = 0
    while at < len(directory):
        if directory[at : at + 4] != _ENTRY:
            raise Damaged
        fields = struct.unpack("<HHHHHHIIIHHHHHII", directory[at + 4 : at + 46])
        flags, method, packed, length, named, extra, comment, header = (
            *(fields[i] for i in (2, 3, 7, 8, 9, 10, 11)),
            fields[15],
        )
        raw = directory[at + 46 : at + 46 + named]
        name = raw.decode("utf-8" if flags & 0x800 else "cp437")
        wide = _wide(directory[at + 46 + named : at + 46 + named + extra], (length, packed, header))
        length, packed, header = wide
        unusable = "compressed" if method or packed != length else "encrypted" if flags & 1 else ""
        yield name, _Entry(header, length, unusable)
        at += 46 + named + extra + comment


def _wide(extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return `values` with those that 32 bits could not hold taken from the zip64 field."""
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        if kind == 1:
            held = iter(struct.unpack(f"<{length // 8}Q", extra[4 : 4 + length // 8 * 8]))
            first, second, third = (next(held) if value == _NARROW else value for value in values)
            return first, second, third
        extra = extra[4 + length :]
    return values


def _check_name(name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if not name or "\0" in name or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise Unreadable(f"its entry {name[:80]!r} points out of the archive, which no program writes by chance")

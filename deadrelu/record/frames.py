"""Frames: records of bytes in a TFRecord file, each with its length and two checksums.

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from .checksum import masked_crc

_HEADER = struct.Struct("<QI")
_LENGTH = struct.Struct("<Q")
_FOOTER = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Frame:
    """One record of a file.

    Attributes:
        start: where the frame begins.
        end: where the next one begins.
        data: its bytes.
        checksum: what the file says of `data`; `is_whole` compares.
    """

    start: int
    end: int
    data: bytes
    checksum: int

    @property
    def is_whole(self) -> bool:
        """The bytes are those that were written."""
        return masked_crc(self.data) == self.checksum


def pack(data: bytes) -> bytes:
    """Return the frame of `data`."""
    length = _LENGTH.pack(len(data))
    return b"".join((length, _FOOTER.pack(masked_crc(length)), data, _FOOTER.pack(masked_crc(data))))


def is_broken(file: BinaryIO, start: int, size: int) -> bool:
    """Return whether no frame begins at `start`, where one should: a file that only is not whole yet is not broken."""
    file.seek(start)
    header = file.read(_HEADER.size)
    return len(header) == _HEADER.size <= size - start and not _is_header(header)


def frames(file: BinaryIO, start: int, size: int) -> Iterator[Frame]:
    """Yield the frames of a file of `size` bytes from `start` on, up to the first that is cut short or not a frame.

    No more is read than the file holds, whatever a header says.
    """
    while True:
        file.seek(start)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return
        length, _ = _HEADER.unpack(header)
        end = start + _HEADER.size + length + _FOOTER.size
        if end > size or not _is_header(header):
            return
        data = file.read(length)
        footer = file.read(_FOOTER.size)
        if len(data) < length or len(footer) < _FOOTER.size:
            return
        yield Frame(start, end, data, _FOOTER.unpack(footer)[0])
        start = end


def _is_header(header: bytes) -> bool:
    return bool(masked_crc(header[: _LENGTH.size]) == _HEADER.unpack(header)[1])

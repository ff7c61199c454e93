"""Frames and checksums, against TensorBoard's own."""

from __future__ import annotations

import io
import random

import pytest
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c as slow_crc32c
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c as slow_masked
from tensorboard.summary.writer.record_writer import RecordWriter

from deadrelu.record.checksum import crc32c, masked_crc
from deadrelu.record.frames import frames, pack


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 7, 8, 12, 1023, 1024, 1025, 1027, 2048, 5000])
def test_checksum(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert crc32c(data) == slow_crc32c(data)
    assert masked_crc(data) == slow_masked(data)


def test_frames_are_those_of_tensorboard() -> None:
    data = [b"", b"x", bytes(range(256)) * 9]
    theirs = io.BytesIO()
    writer = RecordWriter(theirs)
    for one in data:
        writer.write(one)
    assert b"".join(map(pack, data)) == theirs.getvalue()


def test_reading_stops_where_a_file_is_cut() -> None:
    data = [b"first", b"second " * 20, b"third"]
    whole = b"".join(map(pack, data))
    ends = [sum(len(pack(d)) for d in data[: n + 1]) for n in range(3)]
    for size in range(len(whole) + 1):
        found = list(frames(io.BytesIO(whole[:size]), 0, size))
        assert [frame.data for frame in found] == data[: sum(end <= size for end in ends)]
        assert all(frame.is_whole for frame in found)
        assert [frame.end for frame in found] == ends[: len(found)]


def test_a_flipped_byte_is_seen() -> None:
    whole = bytearray(pack(b"first") + pack(b"second"))
    whole[14] ^= 1
    found = list(frames(io.BytesIO(bytes(whole)), 0, len(whole)))
    assert [frame.is_whole for frame in found] == [False, True]
    whole[3] ^= 1  # the length itself
    assert list(frames(io.BytesIO(bytes(whole)), 0, len(whole))) == []


def test_a_length_beyond_the_file_is_not_believed() -> None:
    huge = (2**62).to_bytes(8, "little")
    header = huge + masked_crc(huge).to_bytes(4, "little")
    assert list(frames(io.BytesIO(header + b"x" * 50), 0, 62)) == []

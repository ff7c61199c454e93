"""Files made to do harm, byte by byte, and the one way in which each may end."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from deadrelu.checkpoint import open_checkpoint
from deadrelu.errors import CheckpointError

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00."


def text(value: str) -> bytes:
    """Return the opcode for a text."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    """Return the opcode for a global."""
    return f"c{module}\n{attribute}\n".encode()


def number(value: int) -> bytes:
    """Return the opcode for an integer of any size."""
    data = value.to_bytes(max(1, (value.bit_length() + 8) // 8), "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(*values: int) -> bytes:
    """Return the opcodes for a tuple of integers."""
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str = "0", count: int = 4, kind: str = "FloatStorage") -> bytes:
    """Return the opcodes for a reference to a storage."""
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(of: bytes | None = None, offset: int = 0, shape: bytes | None = None, stride: bytes | None = None) -> bytes:
    """Return the opcodes for a tensor, by default four floats of storage 0."""
    parts = [of or storage(), number(offset), shape or numbers(4), stride or numbers(1), b"\x89", b"N"]
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + b"".join(parts) + b"tR"


def mapping(*items: tuple[bytes, bytes]) -> bytes:
    """Return the opcodes for a dict."""
    return b"}(" + b"".join(key + value for key, value in items) + b"u"


def pickle(body: bytes) -> bytes:
    """Return a whole pickle around opcodes."""
    return b"\x80\x02" + body + b"."


# What every attack tries: it would leave a file behind.
SYSTEM = name("posix", "system") + b"(" + text("touch ran") + b"tR"


def write_zip(body: bytes, path: Path, data: dict[str, bytes] | None = None) -> None:
    """Write an archive laid out like those of torch.save, around a pickle of our own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle(body))
        archive.writestr("archive/byteorder", b"little")
        for key, content in (data if data is not None else {"0": bytes(16)}).items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", b"3\n")


def write_old(body: bytes, path: Path, counts: tuple[int, ...] = (4,), data: bytes = bytes(16)) -> None:
    """Write a file laid out like those of torch.save before 1.6, around a pickle of our own."""
    keys = b"](" + b"".join(text(str(i)) for i in range(len(counts))) + b"e"
    tail = b"".join(struct.pack("<q", count) + data for count in counts)
    path.write_bytes(MAGIC + pickle(body) + pickle(keys) + tail)


def refusal(path: Path) -> str:
    """Open `path`, which must be refused in one line that names it, leaving its folder as it was; return the line."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    line = str(caught.value)
    assert str(path) in line
    assert "\n" not in line
    assert len(line) < 1000 + len(str(path))
    assert sorted(path.parent.rglob("*")) == before
    return line

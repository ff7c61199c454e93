"""Memory: a checkpoint much larger than what reading it may cost, and bombs that would cost more than there is."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="measured by the resource module")

TENSORS, EACH = 8, 1 << 25

LARGE = """
import resource, sys
from deadrelu.checkpoint import open_checkpoint
import torch
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 if sys.platform == "darwin" else 1024)
torch.ones(10).isfinite().sum()
before = peak()
checkpoint = open_checkpoint(sys.argv[1])
opened = peak()
checkpoint.require_finite()
total = sum(float(checkpoint.weights[name].sum()) for name in checkpoint.weights)
print(len(checkpoint.weights), checkpoint.weights.nbytes >> 20, total, opened - before, peak() - before)
"""


def measured(path: Path) -> list[float]:
    """Return what the program above prints: tensors, MiB in them, their sum, MiB to open them, MiB to read them all."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [float(word) for word in done.stdout.split()]


def sparse_safetensors(path: Path) -> None:
    """A quarter of a gigabyte that takes no room on the disk: zeros that were never written, but for one number."""
    described = {
        f"layer.{i}": {"dtype": "F32", "shape": [EACH // 4], "data_offsets": [i * EACH, (i + 1) * EACH]}
        for i in range(TENSORS)
    }
    header = json.dumps(described).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header + struct.pack("<f", 2.5))
        stream.truncate(8 + len(header) + TENSORS * EACH)


def sparse_old(path: Path) -> None:
    """The same as an older file of torch.save."""
    from .crafted import MAGIC, mapping, numbers, pickle, storage, tensor, text

    count = EACH // 4
    items = [(text(f"layer.{i}"), tensor(storage(str(i), count), shape=numbers(count))) for i in range(TENSORS)]
    keys = b"](" + b"".join(text(str(i)) for i in range(TENSORS)) + b"e"
    with open(path, "wb") as stream:
        stream.write(MAGIC + pickle(mapping(*items)) + pickle(keys))
        for i in range(TENSORS):
            stream.write(struct.pack("<q", count) + (struct.pack("<f", 2.5) if i == 0 else b""))
            stream.seek(EACH - (4 if i == 0 else 0), 1)
        stream.truncate(stream.tell())


@pytest.mark.parametrize("write", [sparse_safetensors, sparse_old])
def test_a_large_file_is_read_in_a_fraction_of_it(write: object, tmp_path: Path) -> None:
    """256 MiB in tensors of 32 MiB: to open it costs next to nothing, to read all of it little more than one tensor."""
    path = tmp_path / ("large.safetensors" if write is sparse_safetensors else "large.pt")
    write(path)  # type: ignore[operator]
    tensors, size, total, to_open, to_read = measured(path)
    assert (tensors, size, total) == (TENSORS, TENSORS * EACH >> 20, 2.5)
    assert to_open < 40
    assert to_read < 130

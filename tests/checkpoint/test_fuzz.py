"""Damaged bytes of every format: either they are read, or refused by a CheckpointError, and nothing else happens."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from deadrelu.checkpoint import Checkpoint, open_checkpoint, read_saved
from deadrelu.errors import CheckpointError

from .writers import model, save, trained

ROUNDS = 400
NASTY = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b".",
    b"R",
    b"0",
    b"}",
    b"t",
    b"q\0",
    b"\xff" * 4,
    b"\0" * 8,
    b"\xff" * 8,
    b"PK\x01\x02",
)


def training(path: Path, zipped: bool) -> None:
    network, optimizer = trained(steps=1)
    save(
        {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "x": path}, path, zipped=zipped
    )


def safetensors(path: Path) -> None:
    pytest.importorskip("safetensors.torch").save_file(model().state_dict(), path)


def exported(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model().eval(), (torch.randn(2, 3, 6, 6),)), path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "zip.pt": lambda path: training(path, zipped=True),
    "old.pt": lambda path: training(path, zipped=False),
    "net.safetensors": safetensors,
    "net.pt2": exported,
}


def mutated(data: bytes, chance: random.Random, where: tuple[int, int]) -> bytes:
    """Return `data` with a few bytes changed, cut out, put in, moved or repeated, or cut short."""
    low, high = where
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(low, max(low + 1, min(high, len(data))))
        some = chance.randrange(1, 40)
        kind = chance.randrange(7)
        if kind == 0:
            data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        elif kind == 1:
            nasty = chance.choice(NASTY)
            data = data[:at] + nasty + data[at + len(nasty) :]
        elif kind == 2:
            data = data[:at] + data[at + some :]
        elif kind == 3:
            data = data[:at] + chance.randbytes(some) + data[at:]
        elif kind == 4:
            data = data[:at] + data[at : at + some] * 2 + data[at + some :]
        elif kind == 5:
            other = chance.randrange(low, max(low + 1, min(high, len(data))))
            data = data[:at] + data[other : other + some] + data[at + some :]
        elif chance.random() < 0.2:
            data = data[:at]
    return data


def read_all(checkpoint: Checkpoint) -> None:
    """Read whatever a checkpoint promises."""
    repr(checkpoint)
    for name in checkpoint.weights:
        tensor = checkpoint.weights[name]
        assert tuple(tensor.shape) == checkpoint.weights.shape(name)
        tensor.sum() if tensor.dtype.itemsize > 1 else tensor.numel()
    checkpoint.non_finite()
    for optimizer in checkpoint.optimizers:
        checkpoint.parameter_states(optimizer)
        for kept in optimizer.state.values():
            dict(kept)


def one_line(error: CheckpointError) -> int:
    """Count one refusal, which must be said in one line."""
    assert "\n" not in str(error)
    return 1


def outcomes(path: Path, variants: Iterator[bytes], open_it: Callable[[], Any]) -> tuple[int, int]:
    """Return how many of the variants were read and how many were refused."""
    read = refused = 0
    for variant in variants:
        path.write_bytes(variant)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                open_it()
            read += 1
        except CheckpointError as error:
            refused += one_line(error)
    return read, refused


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    """Half of the changes fall anywhere, half into the first and last two kilobytes, where the structure is."""
    path = tmp_path / name
    WRITERS[name](path)
    data = path.read_bytes()
    chance = random.Random(name)
    spots = [(0, len(data)), (0, 2000), (0, 200), (max(0, len(data) - 2000), len(data))]
    variants = (mutated(data, chance, spots[i % len(spots)]) for i in range(ROUNDS))
    read, refused = outcomes(path, variants, lambda: read_all(open_checkpoint(path)))
    assert read + refused == ROUNDS
    assert refused > ROUNDS / 20
    if name == "old.pt":
        read_saved_variants = (mutated(data, chance, (0, 3000)) for _ in range(50))
        assert sum(outcomes(path, read_saved_variants, lambda: read_saved(path))) == 50
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", WRITERS)
def test_files_cut_short(name: str, tmp_path: Path) -> None:
    """A file that ends too early is never read as if it were whole."""
    path = tmp_path / name
    WRITERS[name](path)
    data = path.read_bytes()
    cuts = {0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1, *range(0, len(data), max(1, len(data) // 60))} - {
        len(data)
    }
    assert outcomes(path, (data[:cut] for cut in cuts), lambda: open_checkpoint(path)) == (0, len(cuts))


def test_random_bytes(tmp_path: Path) -> None:
    """Nothing but noise behind the first bytes of each format."""
    chance = random.Random(0)
    starts = (
        b"",
        b"PK\x03\x04",
        b"\x80\x02",
        b"\x80\x04\x95",
        b"\x10\0\0\0\0\0\0\0{",
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
    )
    for name in ("x.pt", "x.safetensors", "x.pt2"):
        variants = (chance.choice(starts) + chance.randbytes(chance.randrange(300)) for _ in range(150))
        assert outcomes(tmp_path / name, variants, lambda n=name: open_checkpoint(tmp_path / n)) == (0, 150)  # type: ignore[misc]


def test_damaged_folders(tmp_path: Path) -> None:
    """The index, the config and the state of the trainer are JSON that anybody can write."""
    state = model().state_dict()
    save(dict(state), tmp_path / "shard.bin")
    table = json.dumps({"metadata": {}, "weight_map": dict.fromkeys(state, "shard.bin")}).encode()
    other = json.dumps({"global_step": 3, "log_history": [{"loss": 0.5, "step": 1}]}).encode()
    files = {"pytorch_model.bin.index.json": table, "trainer_state.json": other, "config.json": other}
    chance = random.Random(1)
    refused = 0
    for round_ in range(200):
        for file, content in files.items():
            damaged = list(files)[round_ % 3] == file
            (tmp_path / file).write_bytes(mutated(content, chance, (0, len(content))) if damaged else content)
        try:
            read_all(open_checkpoint(tmp_path))
        except CheckpointError as error:
            refused += one_line(error)
    assert 20 < refused < 200

"""Files that were made to do harm: no code of theirs runs, nothing is left behind, one line says why (DESIGN 11)."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from deadrelu.checkpoint import open_checkpoint
from deadrelu.errors import CheckpointError

from .shop import CHECKPOINT, NET, refused

pytestmark = pytest.mark.usefixtures("workplace")


class Attack:
    """Unpickling it leaves a file behind: the proof that code ran."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("ran", "w"))


class Command:
    """Unpickling it runs a shell command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch ran",))


def in_an_archive(payload: bytes) -> bytes:
    """Return an archive laid out like those of torch.save, around a pickle of our own."""
    with zipfile.ZipFile("crafted.zip", "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
    data = Path("crafted.zip").read_bytes()
    Path("crafted.zip").unlink()
    return data


def attacks() -> dict[str, tuple[bytes, str]]:
    crafted = {}
    for protocol in (2, 4):
        for attack, name in ((Attack(), "open"), (Command(), ".system")):
            payload = pickle.dumps({"0.weight": attack}, protocol=protocol)
            crafted[f"plain {name} {protocol}"] = (payload, name)
            crafted[f"archive {name} {protocol}"] = (in_an_archive(payload), name)
    torch.save({"0.weight": Command()}, "saved.zip")
    crafted["torch.save"] = (Path("saved.zip").read_bytes(), ".system")
    torch.save({"0.weight": Command()}, "saved.zip", _use_new_zipfile_serialization=False)
    crafted["torch.save, old format"] = (Path("saved.zip").read_bytes(), ".system")
    Path("saved.zip").unlink()
    return crafted


@pytest.mark.parametrize("command", [CHECKPOINT, (*NET, "bad.pt")], ids=["checkpoint", "data"])
def test_code_in_a_pickle_never_runs(command: tuple[str, ...], workplace: Path) -> None:
    """Source: DESIGN 11: no code from a checkpoint runs, the global is named, nothing is left behind.

    That each attack works is shown first, on a plain unpickler.
    """
    pickle.loads(pickle.dumps(Command()))
    assert Path("ran").exists()
    Path("ran").unlink()
    for name, (payload, culprit) in attacks().items():
        Path("bad.pt").write_bytes(payload)
        line = refused(*command)
        assert culprit in line, (name, line)
        assert "nothing of it was run" in line
    assert {p.name for p in workplace.iterdir()} - {"__pycache__"} == {"shop.py", "x.npy", "net.pt", "bad.pt"}


def test_a_warning_of_the_reader_adds_no_line() -> None:
    """torch warns of a pickle protocol that torch.save does not use, before it refuses the file (DESIGN 5.4, 11)."""
    Path("bad.pt").write_bytes(pickle.dumps({"0.weight": Command()}, protocol=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "nothing of it was run" in refused(*CHECKPOINT)
        with pytest.raises(CheckpointError, match="system"):
            open_checkpoint("bad.pt")


def test_the_environment_cannot_switch_the_protection_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch listens to this variable where weights_only is left to its default."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"0.weight": Command()}, "bad.pt")
    assert ".system" in refused(*CHECKPOINT)
    assert not Path("ran").exists()


def test_a_torchscript_program_is_not_loaded() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 2)).save("bad.pt")
    assert "TorchScript" in refused(*CHECKPOINT)


def test_a_compressed_archive_is_not_inflated() -> None:
    """A few kilobytes can hold gigabytes of zeros."""
    with zipfile.ZipFile("bad.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", bytes(10_000_000))
    assert "compressed" in refused(*CHECKPOINT)


def test_names_in_a_file_cannot_steer_the_terminal() -> None:
    """Keys are whatever the author of the file wrote: escapes, line feeds, any length."""
    torch.save({"\x1b[2J\nerror\x07": torch.ones(1), "long" * 10_000: torch.ones(1)}, "bad.pt")
    line = refused(*CHECKPOINT)
    assert "\\x1b[2J" in line
    assert "\x1b" not in line
    assert "\x07" not in line

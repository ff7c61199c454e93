"""Weights: the tensors in a file of `torch.save`, read so that no code in it can run."""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import CheckpointError

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_NO_STRING_NEEDED = {"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "FRAME"}


def read_weights(path: Path, saved_by: str = "torch.save(model.state_dict(), path)") -> Any:
    """Return what `torch.save` wrote to `path`: tensors and plain containers, on the CPU.

    Only `weights_only` loading is ever tried: a file that names another global is refused, never run. `saved_by` is
    what messages advise.

    Raises:
        CheckpointError: the file is missing, damaged, of another format, or not safe to read.
    """
    import torch

    if not path.exists():
        raise CheckpointError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; expected a file written by torch.save")
    try:
        archive = zipfile.is_zipfile(path)
        if archive:
            _check_archive(path, saved_by)
        with warnings.catch_warnings():  # of the reader, about a format that it may refuse: one line says it all
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except CheckpointError:
        raise
    except PermissionError:
        raise CheckpointError(f"{path}: no permission to read it") from None
    except Exception as error:  # a refusal, or what damaged bytes make of the reader: KeyError, EOFError, struct.error
        raise CheckpointError(f"{path}: {_refusal(path, error, saved_by)}") from None


def _check_archive(path: Path, saved_by: str) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise CheckpointError(f"{path} is a TorchScript program, not tensors; expected a file of {saved_by}")
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise CheckpointError(
            f"{path}: its entry {packed[0][:80]!r} is compressed, which torch.save never does and which has no bound; "
            "expected a file written by torch.save"
        )


def _refusal(path: Path, error: Exception, saved_by: str) -> str:
    named = _GLOBAL.search(str(error))
    culprit = named.group(1) if named else next(_suspects(path), None)
    if culprit is None:
        return f"it is damaged, cut short, or no file of {saved_by}; copy or save it again"
    return (
        f"refused, because it names {culprit[:200]!r}: reading it could run code; nothing of it was run. "
        f"Save tensors alone: {saved_by}"
    )


def _suspects(path: Path) -> Iterator[str]:
    """Yield the globals that a pickle names, without running it, those of torch itself left out."""
    try:
        with _pickle_stream(path) as stream:
            for name in _globals(stream):
                if not name.startswith(("torch.", "collections.OrderedDict")):
                    yield name
    except Exception:  # no pickle at all: then there is nothing to name
        return


@contextmanager
def _pickle_stream(path: Path) -> Iterator[IO[bytes]]:
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as stream:
            yield stream
        return
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        with archive.open(name) as stream:
            yield stream


def _globals(stream: IO[bytes]) -> Iterator[str]:
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
            yield ".".join(strings[-2:])
        elif isinstance(argument, str):
            strings = [*strings[-1:], argument]
        elif opcode.name not in _NO_STRING_NEEDED:
            strings = []

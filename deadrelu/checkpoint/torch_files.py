"""Torch files: what torch.save writes, in its zip form and in the older one, with tensors that are read later."""

from __future__ import annotations

import struct
import sys
from typing import Any

from .archive import SIGNATURE, Archive
from .builders import StorageRef, dtype_of_storage
from .machine import Machine
from .names import Global, Opaque, Refused
from .refusals import STATE_DICT, Damaged, Unreadable
from .regions import Region
from .stored import Storage

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LARGEST = 1 << 62
TORCHSCRIPT = "constants.pkl"


def read_torch(region: Region, saved_by: str = STATE_DICT) -> Any:
    """Return the object in a file of torch.save: containers, numbers, text, `StoredTensor`s and placeholders.

    Raises:
        Unreadable: it could run code, or is of a kind that needs code; the reason says how to convert it.
        Damaged: it is no such file.
    """
    try:
        if region.length >= len(SIGNATURE) and region.read(0, len(SIGNATURE)) == SIGNATURE:
            return read_zip(Archive(region), saved_by)
        return _read_old(region, saved_by)
    except Refused as named:
        raise Unreadable(
            f"refused, because it names {named.name[:200]!r}: reading it could run code; nothing of it was run. "
            f"Save tensors alone: {saved_by}"
        ) from None


def read_zip(archive: Archive, saved_by: str = STATE_DICT) -> Any:
    """Return the object in an archive of torch.save, see `read_torch`."""
    root = archive.root("data.pkl")
    if root is None:
        raise Damaged
    if f"{root}/{TORCHSCRIPT}" in archive:
        raise Unreadable(
            f"it is a TorchScript program, not tensors; expected a file of {saved_by}. If you trust it, convert it: "
            "torch.save(torch.jit.load(path).state_dict(), 'weights.pt')"
        )
    storages = _Storages()
    held = Machine(archive.entry(f"{root}/data.pkl"), persistent=storages.refer).load()
    swapped = _swapped(archive, root)
    for key, storage in storages.found.items():
        storage.place(archive.entry(f"{root}/data/{key}"), swapped=swapped)
    return held


def _swapped(archive: Archive, root: str) -> bool:
    name = f"{root}/byteorder"
    order = archive.entry(name).read(0, min(archive.entry(name).length, 16)) if name in archive else b"little"
    if order not in (b"little", b"big"):
        raise Damaged
    return order.decode() != sys.byteorder


def _read_old(region: Region, saved_by: str) -> Any:
    if b"ustar" in region.read(0, min(region.length, 512)):
        raise Unreadable(
            "it is a tar file of a torch before 0.4, which is not read; if you trust it, convert it: "
            "torch.save(torch.load(path, weights_only=False), 'new.pt')"
        )
    storages = _Storages()
    machine = Machine(region, persistent=storages.refer)
    if machine.load() != _MAGIC or machine.load() != _PROTOCOL:
        raise Damaged
    machine.load()  # the machine that wrote it; numbers are little-endian whatever it says
    held = machine.load()
    keys = machine.load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Damaged
    if len(set(keys)) != len(keys) or set(keys) != set(storages.found):
        raise Damaged
    at = machine.position
    for key in keys:
        (count,) = struct.unpack("<q", region.read(at, 8))
        length = count * storages.itemsizes[key]
        storages.found[key].place(region.part(at + 8, length), swapped=sys.byteorder == "big")
        at += 8 + length
    return held


class _Storages:
    """The storages that a pickle refers to, by their key."""

    def __init__(self) -> None:
        self.found: dict[str, Storage] = {}
        self.itemsizes: dict[str, int] = {}

    def refer(self, saved: Any) -> StorageRef | Opaque:
        """Return what stands for the storage with the persistent id `saved`.

        Raises:
            Damaged: it is not the id of a storage.
            Unreadable: it is the source text of a pickled module.
        """
        if not isinstance(saved, tuple) or len(saved) < 2:
            raise Damaged
        if saved[0] == "module" and isinstance(saved[1], Global):
            raise Unreadable(whole_module(saved[1].path))
        if saved[0] != "storage" or len(saved) not in (5, 6):
            raise Damaged
        kind, key, _, count, *view = saved[1:]
        if not isinstance(key, str) or not _is_count(count):
            raise Damaged
        dtype = dtype_of_storage(kind)
        if dtype is None:
            raise Unreadable("it holds quantized tensors, which are not read; save the weights before quantization")
        storage = self.found.setdefault(key, Storage(0))
        storage.nbytes = max(storage.nbytes, count * dtype.itemsize)
        self.itemsizes.setdefault(key, dtype.itemsize)
        return StorageRef(storage, dtype, _base(view[0], count) if view and view[0] is not None else 0)


def whole_module(name: str) -> str:
    """Return why a pickled module of class `name` is not read, and what to do."""
    return (
        f"it holds a whole pickled module ({name[:120]}), and only code could bring it back; expected a state_dict. "
        "If you trust it, convert it: m = torch.load(path, weights_only=False); "
        "torch.save(getattr(m, 'module', m).state_dict(), 'weights.pt')"
    )


def _base(view: Any, count: int) -> int:
    if not isinstance(view, tuple) or len(view) != 3 or not _is_count(view[1]) or not _is_count(view[2]):
        raise Damaged
    if view[1] + view[2] > count:
        raise Damaged
    return int(view[1])


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST

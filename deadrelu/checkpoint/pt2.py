"""Exported programs (.pt2): their weights alone. The graph, sample inputs and custom objects are never looked at."""

from __future__ import annotations

import sys
from typing import Any

from .archive import Archive
from .json_text import parse_object
from .names import DTYPES, Opaque
from .refusals import Damaged, Unreadable
from .regions import Region
from .stored import Storage, StoredTensor, view_of
from .torch_files import read_torch

_LARGEST_TABLE = 64 << 20
_SAVED_BY = "torch.export.save(program, path)"
_OLD_WEIGHTS = "serialized_state_dict.pt"
_TABLE = "_weights_config.json"
# torch/_export/serde/schema.py, class ScalarType
_DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    9: "complex32",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu",
    34: "uint32",
    35: "uint64",
}


def is_pt2(archive: Archive) -> bool:
    """Return whether the archive is an exported program, of this torch or of an older one."""
    return archive.root("archive_format") is not None or _OLD_WEIGHTS in archive


def read_pt2(archive: Archive) -> dict[str, StoredTensor | Opaque]:
    """Return the weights by their names in the model; of several models in one file, with the model's name before.

    Raises:
        Unreadable: it holds no weights, a name leaves the archive, or a pickled weight could run code.
        Damaged: its tables contradict the bytes.
    """
    if _OLD_WEIGHTS in archive:
        return _read_old(archive)
    tables = [name for name in archive if name.endswith(_TABLE)]
    found: dict[str, StoredTensor | Opaque] = {}
    for table in tables:
        prefix = f"{_model_of(table)}." if len(tables) > 1 else ""
        found.update((prefix + name, tensor) for name, tensor in _read_table(archive, table).items())
    return found


def _model_of(table: str) -> str:
    last = table.rpartition("/")[2]
    return last.removesuffix(_TABLE)


def _read_table(archive: Archive, table: str) -> dict[str, StoredTensor | Opaque]:
    region = archive.entry(table)
    if region.length > _LARGEST_TABLE:
        raise Unreadable(f"its table of weights is {region.length >> 20} MiB long, which no program needs")
    entries = parse_object(region.read(), "its table of weights").get("config")
    if not isinstance(entries, dict):
        raise Damaged
    folder = table.rpartition("/")[0]
    storages: dict[str, Storage] = {}
    return {name: _tensor(archive, folder, entry, storages) for name, entry in entries.items()}


def _tensor(archive: Archive, folder: str, entry: Any, storages: dict[str, Storage]) -> StoredTensor | Opaque:
    name = entry["path_name"]
    if not isinstance(name, str) or "/" in name or "\\" in name:
        raise Unreadable(f"it names the data {str(name)[:80]!r}, which is outside of its folder")
    described = entry["tensor_meta"]
    if described is None:  # a custom object
        return Opaque("custom object")
    region = archive.entry(f"{folder}/{name}")
    if entry["use_pickle"]:
        return _pickled(region)
    dtype = DTYPES.get(_DTYPES.get(described["dtype"], ""))
    if dtype is None:
        return Opaque(f"dtype {str(described['dtype'])[:40]}")
    if name not in storages:
        storages[name] = Storage(region.length, region, sys.byteorder == "big")
    shape, stride = _integers(described["sizes"]), _integers(described["strides"])
    tensor = view_of(storages[name], dtype, _integers([described["storage_offset"]])[0], shape, stride)
    tensor.parameter = entry.get("is_param") is True
    return tensor


def _pickled(region: Region) -> StoredTensor | Opaque:
    held = read_torch(region, _SAVED_BY)
    return held if isinstance(held, StoredTensor) else Opaque("pickled object")


def _integers(values: Any) -> tuple[Any, ...]:
    return tuple(value["as_int"] for value in values)


def _read_old(archive: Archive) -> dict[str, StoredTensor | Opaque]:
    """Torch before 2.8 wrote a file of torch.save into the archive."""
    held = read_torch(archive.entry(_OLD_WEIGHTS), _SAVED_BY)
    if not isinstance(held, dict):
        raise Damaged
    return {name: value for name, value in held.items() if isinstance(name, str) and isinstance(value, StoredTensor)}

"""Safetensors: a length, a JSON header, and the bytes of the tensors one after the other."""

from __future__ import annotations

import struct
import sys

from .json_text import count_of, parse_object
from .names import DTYPES, Opaque
from .refusals import Damaged, Unreadable
from .regions import Region
from .stored import StoredTensor, contiguous

_LARGEST_HEADER = 100_000_000  # as the format has it
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}


def looks_like_safetensors(region: Region) -> bool:
    """Return whether the file starts like one: a length that fits, and a brace."""
    if region.length < 10:
        return False
    (length,) = struct.unpack("<Q", region.read(0, 8))
    return bool(2 <= length <= region.length - 8 and region.read(8, 1) == b"{")


def read_safetensors(region: Region) -> tuple[dict[str, StoredTensor | Opaque], dict[str, str]]:
    """Return the tensors by name, and the metadata; a tensor of a dtype that torch lacks is a placeholder.

    Raises:
        Unreadable: the header is too long, or no JSON object.
        Damaged: header and bytes contradict each other.

    Source: https://github.com/huggingface/safetensors#format: no byte is unused, none is used twice.
    """
    if region.length < 8:
        raise Damaged
    (length,) = struct.unpack("<Q", region.read(0, 8))
    if length > _LARGEST_HEADER:
        raise Unreadable(f"its header claims {length:,} bytes, the format allows {_LARGEST_HEADER:,}; it is damaged")
    header = parse_object(region.read(8, length), "its header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise Damaged
    data = region.part(8 + length, region.length - 8 - length)
    tensors: dict[str, StoredTensor | Opaque] = {}
    spans = []
    for name, described in header.items():
        tensors[name], span = _tensor(data, described)
        spans.append(span)
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise Unreadable("its tensors overlap or leave gaps, which the format forbids; copy or save it again")
        end = last
    if end != data.length:
        raise Damaged
    return tensors, {str(key): str(value)[:1000] for key, value in metadata.items()}


def _tensor(data: Region, described: object) -> tuple[StoredTensor | Opaque, tuple[int, int]]:
    if not isinstance(described, dict) or not {"dtype", "shape", "data_offsets"} <= described.keys():
        raise Damaged
    offsets = described["data_offsets"]
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise Damaged
    first, last = count_of(offsets[0]), count_of(offsets[1])
    region = data.part(first, last - first)
    named = described["dtype"]
    dtype = DTYPES.get(_DTYPES.get(named, "")) if isinstance(named, str) else None
    if dtype is None:
        return Opaque(f"dtype {str(named)[:40]}"), (first, last)
    return contiguous(region, dtype, described["shape"], swapped=sys.byteorder == "big"), (first, last)

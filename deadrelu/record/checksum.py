"""Checksum: CRC-32C (Castagnoli) of bytes, a thousand at a time with numpy; event files carry it masked."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1024
_POLYNOMIAL = 0x82F63B78
_ONES = 0xFFFFFFFF


def masked_crc(data: bytes | memoryview) -> int:
    """Return the checksum as TFRecord files have it.

    Source: tensorflow/core/lib/hash/crc32c.h, `Mask`.
    """
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & _ONES


def crc32c(data: bytes | memoryview) -> int:
    """Return CRC-32C.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    flat, offsets, (first, second, third, fourth) = _tables()
    held = np.frombuffer(data, np.uint8)
    state, whole = _ONES, len(held) // _BLOCK
    blocks = held[: whole * _BLOCK].reshape(whole, _BLOCK)
    for part in np.bitwise_xor.reduce(flat[blocks + offsets], axis=1).tolist():
        # A block's checksum is that of its bytes alone, and of the state so far as if it were added to its first four.
        state = part ^ first[state & 255] ^ second[state >> 8 & 255] ^ third[state >> 16 & 255] ^ fourth[state >> 24]
    rest = held[whole * _BLOCK :]
    if len(rest) >= 4:
        rest = rest.copy()
        rest[:4] ^= np.frombuffer(state.to_bytes(4, "little"), np.uint8)
        state = int(np.bitwise_xor.reduce(flat[rest + offsets[_BLOCK - len(rest) :]]))
    else:
        for byte in rest.tolist():
            state = int(flat[offsets[-1] + ((state ^ byte) & 255)]) ^ (state >> 8)
    return state ^ _ONES


@cache
def _tables() -> tuple[NDArray[np.uint32], NDArray[np.int64], tuple[list[int], ...]]:
    """Return what each byte at each place of a block adds: flat, where each place begins, the first four as lists."""
    last = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        last = np.where(last & 1, (last >> 1) ^ np.uint32(_POLYNOMIAL), last >> 1)
    table = np.empty((_BLOCK, 256), np.uint32)
    table[-1] = last
    for place in range(_BLOCK - 2, -1, -1):
        after = table[place + 1]
        table[place] = last[after & 255] ^ (after >> 8)
    return table.ravel(), np.arange(_BLOCK) * 256, tuple(table[i].tolist() for i in range(4))

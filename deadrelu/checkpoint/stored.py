"""Stored: a tensor as a file describes it, checked against the bytes that there are, loaded when it is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .refusals import Damaged, Unreadable
from .regions import Region

_DIMENSIONS = 64
_REPEATED = 1 << 24
_WORD = 1 << 63


@dataclass(eq=False, slots=True)
class Storage:
    """The bytes that one or more tensors share.

    Attributes:
        nbytes: how many the file's description speaks of.
        region: where they lie; a format that says so only afterwards sets it through `place`.
        swapped: their byte order is not the one of this machine.
    """

    nbytes: int
    region: Region | None = None
    swapped: bool = False

    def place(self, region: Region, *, swapped: bool = False) -> None:
        """Say where the bytes lie.

        Raises:
            Damaged: fewer are there than the tensors were promised.
        """
        if region.length < self.nbytes:
            raise Damaged
        self.region, self.swapped = region, swapped


@dataclass(eq=False, slots=True)
class StoredTensor:
    """A tensor that has not been read: `shape`, `dtype`, and where its elements lie.

    Build it with `view_of`, which does the checking.
    """

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    parameter: bool = field(default=False)

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def place(self) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
        """What two names of one and the same tensor have in common: storage, offset, shape, stride."""
        return id(self.storage), self.offset, self.shape, self.stride

    def load(self) -> Tensor:
        """Return the tensor, on the CPU, mapped where that is possible.

        Raises:
            CheckpointError: the file changed since it was opened.
        """
        if not self.numel:
            return torch.empty(self.shape, dtype=self.dtype)
        region = self.storage.region
        if region is None:
            raise Damaged
        start, count = self.offset * self.dtype.itemsize, _span(self.shape, self.stride)
        if self.dtype is torch.bool:  # any other byte than 0 and 1 in a bool tensor is undefined behaviour
            flat = region.elements(start, count, torch.uint8) != 0
        else:
            flat = region.elements(start, count, self.dtype)
        if self.storage.swapped and self.dtype.itemsize > 1:
            flat = _swapped(flat)
        return flat.as_strided(self.shape, self.stride)


def view_of(
    storage: Storage, dtype: torch.dtype, offset: object, shape: object, stride: object, *, base: int = 0
) -> StoredTensor:
    """Return the tensor that these numbers describe; `offset` and `stride` count elements, `base` is added to `offset`.

    Raises:
        Damaged: they are no numbers, or point outside of the storage.
        Unreadable: the tensor repeats few elements so often that it would not fit in memory.
    """
    sizes, steps = _numbers(shape), _numbers(stride)
    first = _numbers((offset,))[0] + base
    if len(sizes) != len(steps):
        raise Damaged
    numel = math.prod(sizes)
    if numel:
        if (first + _span(sizes, steps)) * dtype.itemsize > storage.nbytes:
            raise Damaged
        if numel > _REPEATED and numel * dtype.itemsize > storage.nbytes:
            raise Unreadable(
                f"a tensor of shape {list(sizes)} repeats a few numbers {numel:,} times; save it contiguous"
            )
    elif math.prod(filter(None, sizes)) >= _WORD:
        raise Damaged
    return StoredTensor(storage, dtype, first, sizes, steps)


def contiguous(region: Region, dtype: torch.dtype, shape: object, *, swapped: bool = False) -> StoredTensor:
    """Return the tensor of `shape`, row after row, that fills `region` exactly.

    Raises:
        Damaged: it does not.
    """
    sizes = _numbers(shape)
    if math.prod(sizes) * dtype.itemsize != region.length:
        raise Damaged
    steps = [1] * len(sizes)
    for i in range(len(sizes) - 2, -1, -1):
        steps[i] = steps[i + 1] * max(sizes[i + 1], 1)
    return view_of(Storage(region.length, region, swapped), dtype, 0, sizes, tuple(steps))


def _numbers(values: object) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > _DIMENSIONS:
        raise Damaged
    if any(type(value) is not int or not 0 <= value < _WORD for value in values):
        raise Damaged
    return tuple(values)


def _span(sizes: tuple[int, ...], steps: tuple[int, ...]) -> int:
    return 1 + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))


def _swapped(flat: Tensor) -> Tensor:
    width = flat.dtype.itemsize // (2 if flat.is_complex() else 1)
    return flat.view(torch.uint8).view(-1, width).flip(1).reshape(-1).view(flat.dtype)

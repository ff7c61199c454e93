"""Shadow: bounds kept beside the memory of tensors, address by address.

Every storage has at most one region. A tensor's bounds are those of the addresses that it covers, so that views,
slices, transposes and writes through any of them agree by construction, whatever made them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from .enclosure import Ball, Enclosure, Trail

Tensor = torch.Tensor

_UNSEEN = "a tensor from code that cannot be seen"
_FOLLOWED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Region:
    """What is known of one storage.

    Attributes:
        held: a weak reference to the storage, whose address is not used again while this lives.
        dtype: of the tensors that the bounds are for; memory read as another dtype has no bounds.
        low, high: float64, one entry per element of the storage; None: the memory is constant, or nothing is known.
        constant: the same for every input of the box, so that the memory itself is the value.
        writes: how often the memory was written.
        ball: what is known of the rows that the whole memory consists of.
        trail, place: what the tensor at exactly this place is on its way to.
        reason: why there are no bounds, where there are none.
    """

    __slots__ = ("ball", "constant", "dtype", "held", "high", "low", "place", "reason", "trail", "writes")

    def __init__(self, tensor: Tensor, *, constant: bool = False, reason: str | None = None) -> None:
        self.held = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        self.dtype = tensor.dtype
        self.low: Tensor | None = None
        self.high: Tensor | None = None
        self.constant = constant
        self.reason = reason
        self.writes = 0
        self.ball: Ball | None = None
        self.trail: Trail | None = None
        self.place: Any = None

    @property
    def expired(self) -> bool:
        """True if the storage is gone."""
        return bool(self.held.expired())  # type: ignore[no-untyped-call]

    def fill(self, tensor: Tensor) -> None:
        """Have bounds of its own for every element of the memory behind `tensor`."""
        size = _elements(tensor)
        if self.low is not None and self.low.numel() == size:
            return
        if self.constant:
            flat = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(tensor.untyped_storage(), 0, (size,))  # type: ignore[call-overload]
            self.low = flat.double()
            self.high = self.low.clone()
            self.constant = False
        else:
            self.low = torch.full((size,), -torch.inf, dtype=torch.float64, device=tensor.device)
            self.high = torch.full((size,), torch.inf, dtype=torch.float64, device=tensor.device)


class Shadow:
    """The regions of one or more forward passes."""

    def __init__(self, constants: Iterable[Tensor]) -> None:
        self._regions: dict[int, Region] = {}
        self._given = [t for t in constants if _has_memory(t)]  # held, so that no address is used again
        self._constants = {t.untyped_storage()._cdata for t in self._given}
        self._limit = 64

    def region(self, tensor: Tensor) -> Region | None:
        """Return the region of the memory of `tensor`; None if nothing is known of it."""
        key = tensor.untyped_storage()._cdata
        region = self._regions.get(key)
        if region is not None:
            return None if region.expired else region
        if key in self._constants:
            region = self._regions[key] = Region(tensor, constant=True)
        return region

    def knows(self, tensor: Tensor) -> bool:
        """True if anything was said of the memory of `tensor`."""
        return not _has_memory(tensor) or self.region(tensor) is not None

    def constant(self, tensor: Tensor) -> bool:
        """True if `tensor` is the same for every input of the box."""
        region = self.region(tensor) if _has_memory(tensor) else None
        return region is not None and region.constant

    def read(self, tensor: Tensor) -> Enclosure:
        """Return the bounds of `tensor`, as views of the shadow where it has any: not to be written."""
        region = self.region(tensor) if _has_memory(tensor) else None
        if region is None:
            return unbounded(tensor, _UNSEEN)
        if region.constant:
            value = tensor.detach().double() if tensor.dtype in (*_FOLLOWED, *_INTEGERS) else None
            return unbounded(tensor, f"{tensor.dtype} is not followed") if value is None else Enclosure(value, value)
        if region.low is None or region.high is None:
            return unbounded(tensor, region.reason)
        if region.dtype != tensor.dtype or region.low.numel() != _elements(tensor) or _is_lazy(tensor):
            return unbounded(tensor, "memory that is read as another dtype")
        low, high = (_seen_as(bound, tensor) for bound in (region.low, region.high))
        ball = region.ball if region.ball is not None and _in_rows(tensor, len(region.ball.scale)) else None
        trail = region.trail if region.place == _place(tensor) else None
        return Enclosure(low, high, ball=ball, trail=trail, reason=region.reason)

    def reason(self, tensor: Tensor) -> str | None:
        """Return why `tensor` has no bounds, None if it has (or if they were lost here)."""
        region = self.region(tensor) if _has_memory(tensor) else None
        if region is None:
            return _UNSEEN
        return None if region.constant else region.reason

    def declare(self, tensor: Tensor, *, constant: bool, reason: str | None = None) -> None:
        """Say of new memory that it is constant, or that nothing is known of it."""
        if _has_memory(tensor):
            self._put(tensor, Region(tensor, constant=constant, reason=reason))

    def new(self, tensor: Tensor, found: Enclosure) -> None:
        """Remember the bounds of a tensor in memory of its own."""
        if not _has_memory(tensor) or tensor.dtype not in (*_FOLLOWED, *_INTEGERS):
            return self.declare(tensor, constant=False, reason=f"{tensor.dtype} is not followed")
        region = Region(tensor, reason=found.reason)
        self._put(tensor, region)
        self._write(region, tensor, found)

    def prepare(self, tensor: Tensor) -> None:
        """Keep the values of constant memory, before it is written with what is not constant."""
        region = self.region(tensor) if _has_memory(tensor) else None
        if region is not None and region.constant and tensor.dtype in (*_FOLLOWED, *_INTEGERS):
            region.dtype = tensor.dtype
            region.fill(tensor)

    def write(self, tensor: Tensor, found: Enclosure | None, reason: str | None) -> None:
        """Remember the bounds of what was written to `tensor`, for all that share its memory; None: anything."""
        if not _has_memory(tensor):
            return
        region = self.region(tensor)
        if region is None:
            return self.declare(tensor, constant=False, reason=_UNSEEN)
        odd = region.dtype != tensor.dtype or _is_lazy(tensor)
        if found is None or odd:
            if odd or tensor.numel() == _elements(tensor) or region.low is None:
                region.low = region.high = None
                region.constant = False
            else:
                region.fill(tensor)
                _seen_as(region.low, tensor).fill_(-torch.inf)
                assert region.high is not None
                _seen_as(region.high, tensor).fill_(torch.inf)
            region.reason = reason
            region.writes += 1
            region.ball = region.trail = None
            return
        self._write(region, tensor, found)

    def source(self, tensor: Tensor) -> Any:
        """Return what tells whether two tensors are the same numbers: memory, writes so far, place in it."""
        region = self.region(tensor) if _has_memory(tensor) else None
        if region is None:
            return None
        return region, region.writes, _place(tensor), tensor.dtype

    def _put(self, tensor: Tensor, region: Region) -> None:
        if len(self._regions) > self._limit:
            self._regions = {key: held for key, held in self._regions.items() if not held.expired}
            self._limit = 16 + len(self._regions)
        self._regions[tensor.untyped_storage()._cdata] = region

    def _write(self, region: Region, tensor: Tensor, found: Enclosure) -> None:
        region.fill(tensor)
        assert region.low is not None
        assert region.high is not None
        _seen_as(region.low, tensor).copy_(found.low)
        _seen_as(region.high, tensor).copy_(found.high)
        region.writes += 1
        whole = tensor.numel() == _elements(tensor)
        rows = whole and found.ball is not None and _in_rows(tensor, len(found.ball.scale))
        region.ball = found.ball if rows else None
        region.trail, region.place = (found.trail, _place(tensor)) if whole else (None, None)
        region.reason = found.reason or (None if whole else region.reason)


def unbounded(tensor: Tensor, reason: str | None) -> Enclosure:
    """Return the enclosure that says nothing of `tensor`."""
    low = torch.full((), -torch.inf, dtype=torch.float64, device=tensor.device).expand(tensor.shape)
    return Enclosure(low, -low, reason=reason)


def living_tensors() -> list[Tensor]:
    """Return every tensor that Python holds."""
    living = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    if hasattr(Tensor, "_fix_weakref"):
        for tensor in living:  # older torch would free one that C++ alone owned, such as a gradient, though held here
            Tensor._fix_weakref(tensor)  # type: ignore[attr-defined]
    return living


def _has_memory(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.is_quantized:
        return False
    try:
        return bool(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):  # wrappers of vmap and the like
        return False


def _is_lazy(tensor: Tensor) -> bool:
    """True if the numbers are not those in memory: a conjugate or a negative that is still to be taken."""
    return tensor.is_neg() or tensor.is_conj()


def _place(tensor: Tensor) -> Any:
    return tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def _in_rows(tensor: Tensor, size: int) -> bool:
    """True if the last dimension of `tensor` is one whole row of memory that consists of rows of `size`."""
    if tensor.ndim == 0 or tensor.shape[-1] != size or (size > 1 and tensor.stride(-1) != 1):
        return False
    steps = (step for step, n in zip(tensor.stride()[:-1], tensor.shape[:-1], strict=True) if n > 1)
    return tensor.storage_offset() % size == 0 and all(step % size == 0 for step in steps)


def _elements(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def _seen_as(flat: Tensor, tensor: Tensor) -> Tensor:
    return flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

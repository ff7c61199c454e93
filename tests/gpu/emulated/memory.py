"""Memory of the emulated device: plain tensors that say they are on cuda:0, whose values lie in host tensors.

Their addresses are no addresses of this machine: code that reads them as memory ends with a fault, as on a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch

_CUDA = 2
_CODES = {torch.bool: 6, torch.bfloat16: 4, torch.uint8: 1}
_START, _GRAIN = 1 << 52, 512
"""The first address, which no processor can map, and what allocations are rounded up to."""


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("index", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Array(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    """The struct of DLPack that hands memory over, which torch takes for that of any device."""


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("array", _Array), ("context", ctypes.c_void_p), ("deleter", _Deleter))
_capsule: Callable[..., Any] = ctypes.pythonapi.PyCapsule_New
_capsule.restype = ctypes.py_object  # type: ignore[attr-defined]
_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)  # type: ignore[attr-defined]


class Memory:
    """What is allocated on the device.

    Attributes:
        live: bytes at present.
        peak: most of them since it was set.
    """

    def __init__(self) -> None:
        self.live = self.peak = 0

    def adopt(self, host: torch.Tensor) -> torch.Tensor:
        """Return a tensor on the device with the values, sizes and strides of a host tensor that nobody else has."""
        storage, item = host.untyped_storage(), host.element_size()
        length = max(1, storage.nbytes() // item)
        managed = _Managed()
        shape, strides = (ctypes.c_int64 * 1)(length), (ctypes.c_int64 * 1)(1)
        address = _address(storage.nbytes())
        dtype = _Type(_code(host.dtype), 8 * item, 1)
        managed.array = _Array(address, _Device(_CUDA, 0), 1, dtype, shape, strides, 0)
        managed.context, managed.deleter = address, _free
        _held[address] = self, storage, storage.nbytes(), (managed, shape, strides)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        flat = torch._C._from_dlpack(_capsule(ctypes.addressof(managed), b"dltensor", None))
        return _over(flat, host)

    def host(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the host tensor that is a tensor of the device."""
        _, storage, *_ = _held[tensor.untyped_storage().data_ptr()]
        whole = torch.empty(0, dtype=tensor.dtype)
        return whole.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())

    @staticmethod
    def view(base: torch.Tensor, host: torch.Tensor) -> torch.Tensor:
        """Return the tensor of the device that is this view of the memory of `base`."""
        return _over(base, host)


_held: dict[int, tuple[Memory, torch.UntypedStorage, int, Any]] = {}
_ends = [_START]


def _address(size: int) -> int:
    """Return an address that no tensor has had."""
    start = _ends[0]
    _ends[0] = start + -(-max(1, size) // _GRAIN) * _GRAIN
    return start


@_Deleter
def _free(managed: Any) -> None:
    """The last tensor of some memory is gone: it may outlast the device."""
    memory, _, size, _ = _held.pop(managed.contents.context)
    memory.live -= size


def _over(base: torch.Tensor, host: torch.Tensor) -> torch.Tensor:
    offset = host.storage_offset() - base.storage_offset()
    made: torch.Tensor = torch.ops.inductor._reinterpret_tensor(base, host.size(), host.stride(), offset)
    return made


def _code(dtype: torch.dtype) -> int:
    return _CODES.get(dtype, 5 if dtype.is_complex else 2 if dtype.is_floating_point else 0)

"""The face of the emulated device: what of `torch.cuda` is asked, while the device is there."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch

from .device import Device
from .guard import present

_FUSED = ("aten::_foreach_", "aten::_fused_", "aten::_amp_", "aten::convolution")
"""Ops with one kernel of their own on a GPU, where a device without kernels would be given several."""


@contextmanager
def emulated(*, lag: int = 100) -> Iterator[Device]:
    """Inside of the block there is a device cuda:0, which is `lag` kernels behind the host."""
    device = Device(lag)
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:  # or it would take what stands for kernels for a part of the model
        device.run, device.copy = dynamo.disable(device.run), dynamo.disable(device.copy)  # type: ignore[method-assign]
    rest, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that these ops are done in another way now
        _register(device, rest, aten)
    present(True)
    try:
        with patched(device):
            yield device
    finally:
        present(False)
        rest._destroy()
        aten._destroy()


def _register(device: Device, rest: torch.library.Library, aten: torch.library.Library) -> None:
    rest.fallback(device.run, "CUDA")
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith(_FUSED) and "backward_overrideable" not in name and "convolution_overr" not in name:
            packet, _, overload = name.removeprefix("aten::").partition(".")
            op = getattr(getattr(torch.ops.aten, packet), overload or "default")
            if torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeExplicitAutograd"):
                aten.impl(name, partial(device.run, op), "CUDA")
    aten.impl("copy_", device.copy, "CUDA")
    aten.impl("_fused_sdp_choice", lambda *args, **kwargs: 0, "CUDA")  # the one in plain operations
    aten.impl("is_pinned", lambda t, device_=None: t.untyped_storage().data_ptr() in device.pinned, "CPU")
    aten.impl("_pin_memory", lambda t, device_=None: _pin(device, t.clone()), "CPU")


@contextmanager
def patched(device: Device) -> Iterator[None]:
    """Inside of the block `torch.cuda` tells of the device."""
    empty = torch.empty

    def make(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        made = empty(*args, **kwargs)
        return _pin(device, made) if pin_memory else made

    class Bound(Event):
        def __init__(self, **options: Any) -> None:
            super().__init__(device, **options)

    def properties(index: Any = None) -> Any:
        return type("Properties", (), {"name": "emulated", "multi_processor_count": 1, "major": 8, "minor": 0})()

    stream = Stream(device)
    face: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_initialized": True,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "current_stream": lambda index=None: stream,
        "synchronize": lambda index=None: device.wait("torch.cuda.synchronize"),
        "is_current_stream_capturing": lambda: device.capturing,
        "memory_allocated": lambda index=None: device.memory.live,
        "default_generators": (device.generator,),
        "get_device_properties": properties,
        "get_device_capability": lambda index=None: (8, 0),
        "Event": Bound,
    }
    random = {name: face[name] for name in ("current_device", "device_count", "_lazy_init")}
    with (
        patch.multiple(torch.cuda, **face),
        patch.multiple(torch.cuda.random, **random),  # which has names of its own for these
        patch.object(torch, "empty", make),
    ):
        yield


def _pin(device: Device, host: torch.Tensor) -> torch.Tensor:
    device.pinned.add(host.untyped_storage().data_ptr())
    return host


class Stream:
    """The only stream of the device."""

    cuda_stream = 0

    def __init__(self, device: Device) -> None:
        self._device = device

    def synchronize(self) -> None:
        """Wait for it."""
        self._device.wait("Stream.synchronize")


class Event:
    """A place in the stream, with the time."""

    def __init__(self, device: Device, *, enable_timing: bool = False, blocking: bool = False) -> None:
        self._device, self._timed = device, enable_timing
        self._number = -1
        self._time = 0.0
        self._captured = False

    def record(self, stream: Any = None) -> None:
        """Note the place."""
        if self._device.capturing and self._timed:
            raise RuntimeError("an event with a time cannot be recorded while a graph is captured")
        self._number, self._time = self._device.launches, time.perf_counter()

    def query(self) -> bool:
        """Return whether the device has come there."""
        return self._number < 0 or self._device.reached(self._number)

    def synchronize(self) -> None:
        """Wait until it has."""
        self._device.wait("Event.synchronize", self._number)

    def elapsed_time(self, end: Event) -> float:
        """Return milliseconds between two events that have passed."""
        if not (self._timed and end._timed):
            raise RuntimeError("these events were made without enable_timing")
        if not (self.query() and end.query()):
            raise RuntimeError("device not ready")
        return 1e3 * (end._time - self._time)

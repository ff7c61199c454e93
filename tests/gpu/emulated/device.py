"""Device: what the emulated GPU does with every operation that reaches it, and what it takes down of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .memory import Memory

PACKAGE = "deadrelu"
_OUTSIDE = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
_WAITING = frozenset(
    f"aten.{name}"
    for name in "_local_scalar_dense nonzero masked_select equal _unique2 unique_dim unique_consecutive".split()
)
_INDEXED = frozenset(f"aten.{name}" for name in "index index_put index_put_ _index_put_impl_".split())
_MEMORY = frozenset(f"aten.{name}" for name in "empty empty_strided empty_like".split())
_GARBAGE = 0x7F


@dataclass(frozen=True, slots=True)
class Wait:
    """The host waited for the device.

    Attributes:
        reason: by what.
        stack: the calls that led to it, outermost first.
        own: deadrelu did so, and not the training.
    """

    reason: str
    stack: tuple[str, ...]
    own: bool

    def __str__(self) -> str:
        return "\n  ".join((self.reason, *self.stack))


@dataclass(slots=True, eq=False)
class Flight:
    """A copy to pinned memory that is under way: what will be there once the device has come to it."""

    number: int
    target: torch.Tensor
    values: torch.Tensor


class Device:
    """An emulated GPU.

    Args:
        lag: kernels by which it is behind the host.

    Attributes:
        launches, own: kernels launched so far, and those of them by deadrelu.
        names: of the latter, if they are wanted.
        waits: how often the host has waited for it.
        capturing: a CUDA graph is being captured: whatever waits is an error.
        memory: what is allocated there.
        pinned: addresses of host memory that it can write into by itself.
    """

    def __init__(self, lag: int) -> None:
        self.launches = self.own = 0
        self.names: list[str] | None = None
        self.waits: list[Wait] = []
        self.capturing = False
        self.memory = Memory()
        self.pinned: set[int] = set()
        self.generator = torch.Generator()
        self._lag, self._known = lag, 0
        self._flights: list[Flight] = []

    # -- operations ----------------------------------------------------------------------------------------------

    def run(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        """Do an operation: on the host tensors underneath."""
        name = name_of(op)
        if name in _WAITING:
            self.wait(name)
        given: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        memories: dict[int, torch.Tensor] = {}
        with torch._C.DisableTorchFunction():
            below = _mapped(args, lambda value: self._below(value, op, given, memories))
            options = {
                key: _mapped(value, lambda v: self._below(v, op, given, memories)) for key, value in kwargs.items()
            }
            out = self._drawn(op, below, options)
            for host, tensor in given.values():
                if host.shape != tensor.shape:  # what it was to be written into was too small, or empty
                    tensor.data = self.memory.adopt(host.clone())
            views = [False]
            above = _mapped(out, lambda value: self._above(value, given, memories, views))
        if name not in _MEMORY and not (views[0] and not op._schema.is_mutable):
            self._launch(name)
        return above

    def _below(
        self,
        value: Any,
        op: Any,
        given: dict[int, tuple[torch.Tensor, torch.Tensor]],
        memories: dict[int, torch.Tensor],
    ) -> Any:
        if isinstance(value, torch.device):
            return torch.device("cpu") if value.type == "cuda" else value
        if not isinstance(value, torch.Tensor):
            return value
        if not value.is_cuda:
            if name_of(op) in _INDEXED:
                self.wait("an index of the host")
                return value
            if value.ndim:
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
                    f"{value.device}! ({op})"
                )
            if str(op) == "aten.where.self":
                self.wait("a number moved to the device by torch.where")
            return value
        host = self.memory.host(value)
        given[id(host)] = host, value
        memories[host.untyped_storage().data_ptr()] = value
        return host

    def _above(
        self,
        value: Any,
        given: dict[int, tuple[torch.Tensor, torch.Tensor]],
        memories: dict[int, torch.Tensor],
        views: list[bool],
    ) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in given:
            return given[id(value)][1]
        base = memories.get(value.untyped_storage().data_ptr()) if value.untyped_storage().nbytes() else None
        if base is None:
            return self.memory.adopt(value)
        if base.dtype != value.dtype:
            raise NotImplementedError("a view of another dtype")
        views[0] = True
        return self.memory.view(base, value)

    def _drawn(self, op: Any, args: Any, kwargs: Any) -> Any:
        """Return what an operation gives; random numbers come from the generator of the device."""
        if torch.Tag.nondeterministic_seeded not in op.tags:
            return op(*args, **kwargs)
        state = torch.get_rng_state()
        torch.set_rng_state(self.generator.get_state())
        try:
            return op(*args, **kwargs)
        finally:
            self.generator.set_state(torch.get_rng_state())
            torch.set_rng_state(state)

    def copy(self, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        """Copy as aten/src/ATen/native/cuda/Copy.cu does: blocking copies wait, as do all from or to pageable memory.

        Not so a copy from pageable memory that need not block: the driver has taken it when the call returns.
        """
        with torch._C.DisableTorchFunction():
            if target.is_cuda and source.is_cuda:
                self._launch("copy_")
                self.memory.host(target).copy_(self.memory.host(source))
            elif target.is_cuda:
                self._moves(source, "a copy to the device", waits=not non_blocking)
                self.memory.host(target).copy_(source)
            else:
                pinned = target.untyped_storage().data_ptr() in self.pinned
                self._moves(target, "a copy from the device", waits=not (non_blocking and pinned))
                self._fly(target, self.memory.host(source), at_once=not (non_blocking and pinned))
        return target

    def _moves(self, host: torch.Tensor, what: str, *, waits: bool) -> None:
        if self.capturing and host.untyped_storage().data_ptr() not in self.pinned:
            raise RuntimeError("Cannot copy between CPU and CUDA tensors during CUDA graph capture")
        if waits and host.numel():
            self.wait(what)
        self._launch("copy_")

    def _fly(self, target: torch.Tensor, source: torch.Tensor, *, at_once: bool) -> None:
        if at_once:
            target.copy_(source)
            return
        if not target.is_contiguous() or target.dtype != source.dtype:
            raise RuntimeError("this copy goes by way of pageable memory, out of which it is taken too early")
        flight = Flight(self.launches, target, source.clone())
        target.untyped_storage().fill_(_GARBAGE)
        self._flights.append(flight)

    def _launch(self, name: str) -> None:
        self.launches += 1
        if _culprit()[0]:
            self.own += 1
            if self.names is not None:
                self.names.append(name)

    # -- waiting -------------------------------------------------------------------------------------------------

    def reached(self, number: int) -> bool:
        """Return whether the device has come to this kernel; what was copied until then is there."""
        if self.capturing:
            raise RuntimeError("operation not permitted when stream is capturing")
        if number > self._known and self.launches - number < self._lag:
            return False
        self._arrive(number)
        return True

    def wait(self, reason: str, number: int | None = None) -> None:
        """The host waits until the device has come to this kernel, or to the end."""
        if self.capturing:
            raise RuntimeError(f"{reason}: operation not permitted when stream is capturing")
        if number is None or not self.reached(number):
            self.waits.append(Wait(reason, tuple(_stack()), _culprit()[0]))
        self._arrive(self.launches if number is None else number)

    def _arrive(self, number: int) -> None:
        self._known = max(self._known, number)
        for flight in [f for f in self._flights if f.number <= number]:
            self._flights.remove(flight)
            flight.target.copy_(flight.values)

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Inside of the block a CUDA graph is captured."""
        self.capturing = True
        try:
            yield
        finally:
            self.capturing = False


def name_of(op: Any) -> str:
    """Return the name of an operation, whichever of its forms it is."""
    return str(op.overloadpacket)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)([_mapped(part, change) for part in value])
    return change(value)


def _culprit() -> tuple[bool, str]:
    """Return whether deadrelu has called, and from where: the innermost code that is not torch's.

    A function mode that passes a call of the model's on is not the one who called.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_OUTSIDE):
            name = frame.f_globals.get("__name__", "")
            own = name.partition(".")[0] == PACKAGE and frame.f_code.co_name != "__torch_function__"
            return own, f"{name}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return False, ""


def _stack() -> list[str]:
    found, frame = [], sys._getframe(2)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_OUTSIDE[1:]):
            found.append(f"{frame.f_globals.get('__name__')}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return found[::-1][-14:]

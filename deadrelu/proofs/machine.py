"""Machine: follows every op of a forward pass, on whatever spelling, and keeps the bounds of what it computes.

It stands below the functions of torch, at the dispatcher: an op is seen once, decomposed, also inside of functions that
are written in C++ and of scripted parts. The schema of an op says what it overwrites, its tags whether its result's
shape or a Python number depends on data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .calls import Call, Result, Unfollowed, flat
from .enclosure import Enclosure, Tensor
from .rounding import settled
from .shadow import Shadow, unbounded
from .table import HANDLERS, UNSET

_LEAKS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class Machine(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps bounds beside what is computed, while it is on.

    Attributes:
        lost: why nothing can be said any more, None as long as it can.
        unfollowed: what has no bounds: place -> reason, in order of first sight.

    Args:
        memory: the bounds.
        scope: path of the module that runs.
    """

    def __init__(self, memory: Shadow, scope: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lost: str | None = None
        self.unfollowed: dict[str, str] = {}
        self._memory = memory
        self._scope = scope
        self._idle = 0
        self._trusting = False

    @contextmanager
    def trusting(self, trust: bool) -> Iterator[None]:
        """Take tensors that are made of Python numbers inside of the block for constants."""
        before, self._trusting = self._trusting, trust
        try:
            yield
        finally:
            self._trusting = before

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Follow nothing inside of the block: what is computed there is not the model's."""
        self._idle += 1
        try:
            yield
        finally:
            self._idle -= 1

    def read(self, tensor: Tensor) -> Enclosure:
        """Return the bounds of a tensor of the forward pass."""
        return unbounded(tensor, self.lost) if self.lost is not None else self._memory.read(tensor)

    def lose(self, what: str) -> None:
        """Say that other inputs may make the model do other things."""
        place = self._scope()
        self.lost = self.lost or f"{what} in {place or 'the model'}: other inputs may take another path"

    def leaves(self, tensor: Tensor) -> None:
        """Say that Python gets to see the numbers of a tensor: harmless only where they are always the same."""
        if self.lost is None and not self._same(tensor):
            self.lose("it reads numbers that depend on the input")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._idle or self.lost is not None:
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            call = Call(func, args, kwargs, self._memory)
            varying = self._before(call)
        if varying and call.name not in HANDLERS and func._can_decompose():
            with self:  # in inference mode ops arrive whole
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        if self.lost is None:
            with torch._C.DisableTorchFunction():
                call.outs = list(flat([out]))
                try:
                    self._after(call, varying)
                except Exception as error:  # an op in a form that nobody thought of
                    reason = self._note(call, f"is not followed ({type(error).__name__})")
                    for tensor in (*call.outs, *call.written):
                        self._memory.declare(tensor, constant=False, reason=reason)
        return out

    # -- before and after an op -----------------------------------------------------------------------------------

    def _before(self, call: Call) -> bool:
        """Return whether the result may differ between inputs; keep what the op is about to overwrite."""
        tags = call.func.tags
        if call.name == "lift_fresh" and self._trusting:
            for tensor in call.tensors:
                if not self._memory.knows(tensor):
                    self._memory.declare(tensor, constant=True)
        drawn = torch.Tag.nondeterministic_seeded in tags
        varying = drawn or call.name in UNSET or not all(map(self._memory.constant, call.tensors))
        if varying and any(tag in tags for tag in _LEAKS) and self._tells(call):
            read = torch.Tag.data_dependent_output in tags
            self.lose("it reads a number that depends on the input" if read else f"{call.name} depends on the input")
        if varying:
            for tensor in call.written:
                self._memory.prepare(tensor)
        return varying

    def _tells(self, call: Call) -> bool:
        """True if the shape of the result, or a number that Python gets, depends on the input."""
        deciding = call.tensors
        if call.name == "index":  # only masks decide how many entries there are
            deciding = [t for t in flat([call["indices"]]) if t.dtype in (torch.bool, torch.uint8)]
        elif call.name == "masked_select":
            deciding = [call["mask"]]
        return not all(map(self._same, deciding))

    def _same(self, tensor: Tensor) -> bool:
        return self._memory.constant(tensor) or self._memory.read(tensor).point

    def _after(self, call: Call, varying: bool) -> None:
        written = call.written
        held = {t.untyped_storage()._cdata for t in (*call.tensors, *written) if t.layout == torch.strided}
        fresh = [t for t in call.outs if t.layout != torch.strided or t.untyped_storage()._cdata not in held]
        if not varying:
            for tensor in fresh:
                self._memory.declare(tensor, constant=True)
            return
        if not fresh and not written:
            return  # a view: the memory is known already
        results, reason = self._results(call)
        # What stands both among the results and the arguments is the one that was written.
        left = list(written)
        for tensor, found in zip(call.outs, results, strict=True):
            mine = next((i for i, t in enumerate(left) if t is tensor or _alias(t, tensor)), None)
            if mine is not None:
                self._memory.write(left.pop(mine), _settled(tensor, found), reason)
            elif any(tensor is t for t in fresh):
                self._fresh(tensor, found, reason)
        for tensor in left:
            self._memory.write(tensor, None, reason)

    def _fresh(self, tensor: Tensor, found: Result, reason: str | None) -> None:
        found = _settled(tensor, found)
        if found is None:
            self._memory.declare(tensor, constant=False, reason=reason)
        else:
            self._memory.new(tensor, found)

    def _results(self, call: Call) -> tuple[list[Result], str | None]:
        """Return the bounds of each result, and why one that has none has none."""
        nothing: list[Result] = [None] * len(call.outs)
        handler = HANDLERS.get(call.name) if str(call.func._schema.name).startswith("aten::") else None
        upstream = next((why for t in call.tensors if (why := self._memory.reason(t))), None)
        if handler is None or not call.outs:
            if call.name in UNSET:
                return nothing, "memory that was not set"
            drawn = torch.Tag.nondeterministic_seeded in call.func.tags
            return nothing, upstream or self._note(call, "is random" if drawn else "is not followed")
        try:
            found = handler(call)
        except Unfollowed as why:
            return nothing, upstream or self._note(call, f"is not followed: {why}")
        except Exception as error:  # a form of the op that its handler does not know
            return nothing, self._note(call, f"is not followed ({type(error).__name__})")
        results = list(found) if isinstance(found, tuple) else [found]
        results += nothing[len(results) :]
        if any(r is not None and not r.bounded for r in results[:1]):
            upstream = upstream or self._note(call, "may overflow, or divide by zero")
        return [_reasoned(r, upstream) for r in results], upstream

    def _note(self, call: Call, why: str) -> str:
        place = f"{self._scope()}.{call.name}".lstrip(".")
        self.unfollowed.setdefault(place, why)
        return f"{place} {why}"


def _alias(a: Tensor, b: Tensor) -> bool:
    same = a.layout == b.layout == torch.strided and a.untyped_storage()._cdata == b.untyped_storage()._cdata
    return same and a.shape == b.shape and a.stride() == b.stride() and a.storage_offset() == b.storage_offset()


def _settled(tensor: Tensor, found: Result) -> Result:
    if found is None:
        return None
    shape = tensor.shape
    if found.low.shape != shape:
        found = Enclosure(found.low.expand(shape), found.high.expand(shape), reason=found.reason)
    low, high = settled(found.low, found.high, tensor.dtype)
    return Enclosure(low, high, ball=found.ball, trail=found.trail, reason=found.reason)


def _reasoned(found: Result, reason: str | None) -> Result:
    if found is None:
        return None
    if found.bounded:
        return found if found.reason is None else replace(found, reason=None)
    if found.reason is not None or reason is None:
        return found
    return Enclosure(found.low, found.high, ball=found.ball, trail=found.trail, reason=reason)

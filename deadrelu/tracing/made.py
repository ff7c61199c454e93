"""Made: what an op has made of traces before. One that comes again in the same way is not worked out anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import EllipsisType, NoneType
from typing import Any

import torch

from ..kinds import Arguments
from .trace import Trace, Tracer

Key = tuple[Any, ...]

_PLAIN = frozenset(
    (int, float, bool, str, NoneType, EllipsisType, torch.dtype, torch.device, torch.layout, torch.memory_format)
)


@dataclass(frozen=True, slots=True)
class Made:
    """What an op made of the traces of its operands.

    Attributes:
        traces: of its results, None of one of which nothing is known.
        label: the weight that its results are again, None if they are none.
        fed: the producers that it is, as (name, which operand is the input, groups, dimension of the features).
    """

    traces: tuple[Trace | None, ...]
    label: str | None
    fed: tuple[tuple[str, int, int, int], ...]

    def again(self, tracer: Tracer, operands: list[torch.Tensor], results: list[torch.Tensor]) -> None:
        """Carry over from other operands what was carried over before."""
        for name, at, groups, dim in self.fed:
            tracer.on_producer(name, operands[at], groups, dim)
        for result, trace in zip(results, self.traces, strict=True):
            if trace is not None:
                tracer.traces.put_one(result, trace)
            elif self.label is not None:
                tracer.derive(result, self.label)


def key_of(
    name: str, tracer: Tracer, call: Arguments, operands: list[torch.Tensor], results: list[torch.Tensor]
) -> Key | None:
    """Return all that the traces of the results depend on, None if it cannot be told; fills in the operands.

    That is the op, the running module, the number of samples, plain arguments, and of each tensor its type, dtype,
    shape, and its trace or the weight that it is. Not what it holds: a handler that looks at values has no key.
    """
    if tracer.unbatched or torch._C._functorch.peek_interpreter_stack() is not None:
        return None
    parts: list[Any] = [name, tracer.batch, tracer.scope()]
    if not _describe(tracer, call.args, operands, parts):
        return None
    if call.kwargs:
        parts += call.kwargs
        if not _describe(tracer, call.kwargs.values(), operands, parts):
            return None
    for result in results:
        parts += (result.shape, bool(operands) and result is operands[0])
    return tuple(parts)


def _describe(tracer: Tracer, values: Iterable[Any], operands: list[torch.Tensor], parts: list[Any]) -> bool:
    """Put what arguments are into `parts`, and tensors into `operands`, too. Returns whether that says it all."""
    for value in values:
        kind = type(value)
        if isinstance(value, torch.Tensor):
            trace, own = tracer.traces.get(value), tracer.names.identity(value)
            if trace is None and own is None:  # from code that cannot be seen
                return False
            shape, dtype = value.shape, value.dtype
            if not shape and not dtype.is_floating_point:  # it may say which dimension is meant
                return False
            operands.append(value)
            parts += (kind, dtype, shape, trace, own)
        elif kind in _PLAIN:
            parts += (kind, value)  # 1, 1.0 and True would be one key
        elif isinstance(value, (tuple, list)):
            parts += (tuple, len(value))
            if not _describe(tracer, value, operands, parts):
                return False
        elif kind is slice:
            parts.append(slice)
            if not _describe(tracer, (value.start, value.stop, value.step), operands, parts):
                return False
        else:
            return False
    return True

"""Witness: a machine that checks, after every op, that what was computed lies within the bounds it keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import BaseTorchFunctionMode

from deadrelu.proofs.calls import Call
from deadrelu.proofs.enclosure import Enclosure, Tensor
from deadrelu.proofs.machine import Machine
from deadrelu.proofs.shadow import Shadow


class Witness(Machine):
    """Follows ops on one concrete input of the box; `escaped` names the first op whose result left its bounds."""

    def __init__(self, constants: list[Tensor]) -> None:
        self.memory = Shadow(constants)
        super().__init__(self.memory, lambda: "here")
        self.escaped: str | None = None
        self.seen: set[str] = set()

    def _after(self, call: Call, varying: bool) -> None:
        super()._after(call, varying)
        if not varying:
            return
        self.seen.add(call.name)
        for tensor in (*call.outs, *call.written):
            self.escaped = self.escaped or self.outside(tensor, call.name)

    def outside(self, tensor: Tensor, name: str) -> str | None:
        """Return what is wrong with the bounds of a tensor, None if nothing is."""
        if tensor.is_complex():
            return None
        found = self.memory.read(tensor)
        value = tensor.detach().double()
        wrong = ~((value >= found.low) & (value <= found.high) | value.isnan())
        if bool(wrong.any()):
            at = wrong.flatten().nonzero()[0]
            v, low, high = (
                float(t.flatten()[at]) for t in (value, found.low.expand_as(value), found.high.expand_as(value))
            )
            return f"{name}: {v!r} is not within [{low!r}, {high!r}]"
        return None


def watched(
    function: Callable[..., Any], value: Tensor, low: Tensor, high: Tensor, constants: list[Tensor]
) -> tuple[Witness, Any, Enclosure | None]:
    """Run `function` on one point of the box; return the witness, the result, and the bounds of the result."""
    witness = Witness(constants)
    witness.memory.new(value, Enclosure(low.double(), high.double()))
    # as in a proof, a function mode is on: it keeps fused paths off
    with torch.no_grad(), witness, witness.trusting(True), BaseTorchFunctionMode():
        out = function(value)
    return witness, out, witness.read(out) if isinstance(out, Tensor) else None


def points(low: Tensor, high: Tensor, dtype: torch.dtype, generator: torch.Generator, count: int) -> list[Tensor]:
    """Return `count` points of the box: random ones, corners, and mixtures; always the two extreme corners."""
    found = [low.to(dtype), high.to(dtype)]
    while len(found) < count:
        share = torch.rand(low.shape, generator=generator, dtype=torch.float64)
        if len(found) % 2:
            share = share.round()
        found.append((low + share * (high - low)).to(dtype))
    return [point.clamp(low.to(dtype), high.to(dtype)) for point in found]

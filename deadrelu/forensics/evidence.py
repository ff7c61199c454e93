"""Evidence: what the weights, the norm and the optimizer state of one layer say of its units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import Weights
from ..errors import DeadReluError, InputError
from ..norm_dating import NormState, VarianceClaim, date_channels
from ..optimizer_state import Reading, read_gradients
from ..proofs import WeightClaim, batch_norm_heuristics, negative_rows, norm_certificates, zero_rows
from .layers import Layer
from .memory import Memory
from .modules import Module

MOMENTUM = 0.1
"""What a BatchNorm has in PyTorch if nothing is said; a checkpoint does not keep it."""

CHANCE = 32
"""Inputs from which a row without a positive number is no chance: 2^-32 of rows with random signs."""

_CHUNK = 1 << 24
_ROUNDING = 1e-6

_ALL_ZERO = (
    "all of its weights are zero: not trained yet, made to start at zero, unused, or dead throughout; no single unit "
    "is claimed"
)
_ZERO_NORM = (
    "all of its norm's weights are zero: made to start at zero, as the last norm of a residual branch, or dead "
    "throughout; no single unit is claimed"
)
_NO_VARIANCE = (
    "no channel of its input varies: it was not run in train mode, or all before it is dead; no single unit is claimed"
)

_UNDONE = " have nothing but zeros for weights, but whether they fire is up to a norm that may follow,"

Claim = dict[str, Any]
Said = tuple[str, str]


class Evidence:
    """The claims on one layer, and what was declined.

    Attributes:
        claims: in order of the units, each the object of the report's JSON.
        declined: (module, reason).
        read: the optimizer's state could be read.
    """

    def __init__(self, layer: Layer, weights: Weights, memory: Memory | None) -> None:
        self.claims: list[Claim] = []
        self.declined: list[Said] = []
        self.read = False
        self._layer = layer
        self._weights = weights
        if not layer.is_norm:
            self._of_rows()
        for norm in [layer.module] if layer.is_norm else [layer.norm] if layer.norm is not None else []:
            self._of_norm(norm)
        if memory is not None:
            self._of_memory(memory)
        self.claims.sort(key=lambda claim: int(claim["unit"]))

    def _of_rows(self) -> None:
        """What the rows of the weight say, unless a norm follows that might undo it."""
        layer = self._layer
        if layer.norm is not None and not layer.norm.is_batch_norm:
            return
        bias = self._held(layer.module, "bias")
        zeros = _by_rows(layer, self._weights, bias, lambda w, b: zero_rows(w, b), all_zero=True)
        if zeros is None:
            self.declined.append((layer.name, _ALL_ZERO))
            return
        if zeros and layer.perhaps is not None:
            self.declined.append((layer.name, f"{len(zeros)} units{_UNDONE} {layer.perhaps}"))
            return
        if layer.norm is not None:
            zeros = _behind(zeros, bias, layer.norm, self._weights)
        self._proved(zeros)
        fan_in = torch.Size(layer.module.shape).numel() // layer.units
        if layer.norm is None and layer.perhaps is None and fan_in >= CHANCE:
            for claim in _by_rows(layer, self._weights, bias, negative_rows) or ():
                self._add(claim.to_dict() | {"level": "heuristic", "given": "no input is ever negative"})
        if layer.before is not None:
            self._by_norm(layer.before, bias)

    def _by_norm(self, before: Module, bias: Tensor | None) -> None:
        gamma, beta = self._held(before, "weight"), self._held(before, "bias")

        def certified(w: Tensor, b: Tensor | None) -> Sequence[WeightClaim]:
            # Not centred: that bound holds for LayerNorm, RMSNorm and GroupNorm alike, which names do not tell apart.
            return norm_certificates(w, b, norm_weight=gamma, norm_bias=beta, centred=False)

        known = {claim["unit"] for claim in self.claims}
        found = _by_rows(self._layer, self._weights, bias, certified) or ()
        self._proved((c for c in found if c.unit not in known), given=f"{before.name} feeds it directly")

    def _of_norm(self, norm: Module) -> None:
        gamma, beta = self._held(norm, "weight"), self._held(norm, "bias")
        if gamma is not None and beta is not None and gamma.shape == beta.shape:
            if bool((gamma == 0).all()):
                self.declined.append((norm.name, _ZERO_NORM))
            else:
                flat = zero_rows(gamma.unsqueeze(1), beta)
                known = {claim["unit"] for claim in self.claims}
                self._proved((claim for claim in flat if claim.unit not in known), layer=norm.name)
                if norm.is_batch_norm:
                    for claim in batch_norm_heuristics(gamma, beta):
                        if gamma[claim.unit] != 0:
                            self._add(claim.to_dict() | {"layer": norm.name})
        if norm.is_batch_norm:
            self._dated(norm)

    def _dated(self, norm: Module) -> None:
        var = self._held(norm, "running_var")
        batches = self._held(norm, "num_batches_tracked")
        count = int(batches) if batches is not None and batches.numel() == 1 and batches.isfinite().all() else None
        if var is None or count == 0:  # never run in train mode: still as it was made
            return
        if len(var) > 1 and bool((var == 0).all()):
            self.declined.append((norm.name, _NO_VARIANCE))
            return
        try:
            found = date_channels(NormState(var, MOMENTUM, count, self._held(norm, "running_mean")))
        except InputError as error:
            self.declined.append((norm.name, str(error)))
            return
        for claim in found:
            self._add(_of_variance(claim) | {"layer": norm.name})

    def _of_memory(self, memory: Memory) -> None:
        layer = self._layer
        readings = [(layer.module, self._reading(layer.module, layer.unit_dim, memory))]
        if layer.norm is not None and "weight" in layer.norm.leaves:
            readings.append((layer.norm, self._reading(layer.norm, 0, memory)))
        known: set[int] = set()
        for module, reading in readings:
            if reading is None:
                continue
            self.read = self.read or reading.steps is not None or bool(reading.claims)
            for part in reading.declined:
                name = module.name if part.part == "layer" else f"{module.name}.{part.part}"
                self.declined.append((name, part.reason))
            for claim in reading.claims:
                if claim.unit not in known:  # the layer's own word comes first
                    known.add(claim.unit)
                    self._add(claim.to_dict() | {"layer": module.name})

    def _reading(self, module: Module, unit_dim: int, memory: Memory) -> Reading | None:
        main, bias = module.leaves.get("weight"), module.leaves.get("bias")
        if main is None:
            return None
        weight = memory.of(main)
        if isinstance(weight, str):
            self.declined.append((module.name, weight))
            return None
        shift = None if bias is None else memory.of(bias)
        if isinstance(shift, str):
            self.declined.append((f"{module.name}.bias", shift))
            shift = None
        try:
            return read_gradients(weight, shift, unit_dim=unit_dim, steps=memory.steps)
        except (DeadReluError, RuntimeError, ValueError, IndexError) as error:
            self.declined.append((module.name, f"its optimizer state cannot be read ({error})"))
            return None

    def _held(self, module: Module, leaf: str) -> Tensor | None:
        name = module.leaves.get(leaf)
        return None if name is None else self._weights[name]

    def _proved(self, found: Any, **more: str) -> None:
        for claim in found:
            self._add(claim.to_dict() | more)

    def _add(self, claim: Claim) -> None:
        self.claims.append({"steps": None, "low": None, "high": None, "layer": self._layer.name} | claim)


def _of_variance(claim: VarianceClaim) -> Claim:
    return {
        "unit": claim.unit,
        "claim": claim.claim,
        "level": claim.level,
        "steps": claim.steps,
        "low": claim.low,
        "high": claim.high,
        "at_least": claim.at_least,
        "momentum": MOMENTUM,
    }


def _by_rows(
    layer: Layer,
    weights: Weights,
    bias: Tensor | None,
    ask: Callable[[Tensor, Tensor | None], Sequence[WeightClaim]],
    *,
    all_zero: bool = False,
) -> list[WeightClaim] | None:
    """Ask a few units at a time, so that a large weight is never copied whole; None if `all_zero` finds it so."""
    found: list[WeightClaim] = []
    anything = False
    for first, part in _parts(weights[layer.module.leaves["weight"]].movedim(layer.unit_dim, 0)):
        anything = anything or bool((part != 0).any())
        shift = None if bias is None else bias[first : first + len(part)]
        found += [replace(claim, unit=claim.unit + first) for claim in ask(part, shift)]
    return None if all_zero and not anything else found


def _parts(rows: Tensor) -> Iterator[tuple[int, Tensor]]:
    step = max(1, _CHUNK // max(1, rows[0].numel()))
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        yield first, part.float() if part.dtype.itemsize == 1 else part


def _behind(zeros: list[WeightClaim], bias: Tensor | None, norm: Module, weights: Weights) -> list[WeightClaim]:
    """Keep the units with a row of zeros that stay silent behind a BatchNorm too, before or after the rectifier.

    Such a channel is the constant u = bias: behind the norm beta in train mode, and in eval mode
    beta + gamma (u - mean) / sqrt(var + eps), which lies between beta and the same with eps = 0.
    """
    if not zeros:
        return []
    units = torch.tensor([claim.unit for claim in zeros])
    count = norm.shape[0]

    def held(leaf: str, default: float) -> Tensor:
        name = norm.leaves.get(leaf)
        return torch.full((len(units),), default).double() if name is None else weights[name][units].double()

    if any(weights.shape(norm.leaves[leaf]) != (count,) for leaf in ("running_mean", "running_var")):
        return []
    u = torch.zeros(len(units), dtype=torch.float64) if bias is None else bias[units].double()
    gamma, beta, mean, var = held("weight", 1), held("bias", 0), held("running_mean", 0), held("running_var", 1)
    lift = gamma * (u - mean)
    top = torch.where(lift > 0, lift / var.clamp_min(0).sqrt(), torch.zeros_like(lift))
    slack = _ROUNDING * (top.abs() + beta.abs() + (gamma.abs() * mean.abs() / var.clamp_min(0).sqrt()).nan_to_num(0))
    upper = beta + top + torch.where(lift == 0, torch.zeros_like(slack), slack)
    return [replace(c, upper=float(z)) for c, z in zip(zeros, upper, strict=True) if z <= 0]

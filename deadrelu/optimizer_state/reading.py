"""Reading: one layer's weight and bias with their optimizer state, checked, and read by the scheme that wrote it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .adam import Found, Layer, read_moments
from .claims import Declined, GradientClaim, Part, Reading
from .moments import CoupledDecay, Decay, Moments
from .remembered import Remembered, number, rows
from .schemes import Scheme, recognised
from .sgd import Buffer, read_buffers, slow_mode

FEWEST = 30
"""Updates under which the averages of a state have not settled, so that nothing is claimed from it."""

SLOWEST = 1e-4
"""Nats a step under which a state does not fade in the length of a training."""

_NO_MOMENTUM = "SGD without momentum keeps no memory of a gradient"


@dataclass(frozen=True, slots=True)
class _Read:
    """One parameter whose state can be read."""

    part: Part
    scheme: Scheme
    settings: tuple[float, ...]
    moments: Moments | Buffer
    coupled: CoupledDecay | None = None
    step: int | None = None


def read_gradients(
    weight: Remembered, bias: Remembered | None = None, *, unit_dim: int = 0, steps: int | None = None
) -> Reading:
    """Read what the optimizer remembers of the gradients of each unit of a layer.

    Args:
        weight: of a Linear, a convolution (any shape with the units along `unit_dim`), or a norm (one number a unit).
        bias: one number a unit; None if the layer has none.
        unit_dim: the axis of the weight that holds the units: 0 for Linear and convolutions, 1 for a transposed
            convolution.
        steps: updates made, if the checkpoint says so, for a state that does not count them itself (SGD).

    Returns:
        Claims on units without a gradient, and what was declined. A unit is claimed only if every number of it that the
        optimizer holds agrees; nothing is claimed of single units where no unit of the layer has a recent gradient.

    Raises:
        IndexError: the weight has no axis `unit_dim`.

    Source: `moments.py` and `sgd.py` say what each memory of a gradient does once there is none.
    """
    units = weight.values.shape[unit_dim]
    declined: list[Declined] = []
    readable: list[_Read] = []
    given: list[tuple[Part, Remembered, int]] = [("weight", weight, unit_dim)]
    if bias is not None:
        given.append(("bias", bias, 0))
    for part, held, axis in given:
        outcome = _member(part, held, axis, units)
        if isinstance(outcome, Declined):
            declined.append(outcome)
        else:
            readable.append(outcome)
    if not readable:
        return Reading(units, None, None, declined=tuple(declined))
    first = readable[0]
    if any(other.settings != first.settings or other.scheme != first.scheme for other in readable):
        reason = "weight and bias were updated by different optimizers, or with different betas or momentum"
        return Reading(units, None, None, declined=(*declined, Declined("mixed", reason)))
    counted = max((read.step for read in readable if read.step is not None), default=steps)
    if counted is not None and counted < FEWEST:
        declined.append(Declined("too_few_steps", _too_few(counted)))
        return Reading(units, first.scheme.name, counted, declined=tuple(declined))
    found = _found(readable)
    claims = tuple(_within(claim, counted) for claim in found.claims)
    return Reading(units, first.scheme.name, counted, claims, (*declined, *found.declined), found.layer)


def _within(claim: GradientClaim, updates: int | None) -> GradientClaim:
    """A gradient that was there once lies no further back than all updates."""
    if updates is None or claim.claim != "no_gradient":
        return claim
    high = None if claim.high is None else min(claim.high, updates)
    return replace(claim, steps=None if claim.steps is None else min(claim.steps, updates), high=high)


def _too_few(steps: int) -> str:
    return f"the optimizer has made {steps} updates; under {FEWEST} its averages tell nothing"


def _found(readable: list[_Read]) -> Found:
    buffers = [read.moments for read in readable if isinstance(read.moments, Buffer)]
    if buffers:
        return read_buffers(buffers)
    moments = [read.moments for read in readable if isinstance(read.moments, Moments)]
    certain = readable[0].scheme.decoupled is not None
    return read_moments(Layer(moments, [read.coupled for read in readable], certain))


def _member(part: Part, held: Remembered, axis: int, units: int) -> _Read | Declined:
    """Return one parameter ready to be read, or why it is not."""
    if held.group is not None and not held.state and held.number("momentum") == 0 and "dampening" in held.group:
        return Declined("no_memory", _NO_MOMENTUM, part)
    if held.group is None or not held.state:
        kept = "no optimizer holds it" if held.group is None else "its optimizer never updated it"
        return Declined("no_state", f"{kept}: frozen, unused, or not yet trained", part)
    scheme = recognised(held.state.keys(), held.group)
    if isinstance(scheme, Declined):
        return Declined(scheme.code, scheme.reason, part)
    read = _moments if scheme.family == "moments" else _buffer
    outcome = read(part, held, axis, scheme)
    if isinstance(outcome, Declined):
        return Declined(outcome.code, outcome.reason, part)
    kept_units = outcome.moments.w.shape[0]
    if kept_units != units:
        return Declined("unreadable", f"it has {kept_units} units where the weight has {units}", part)
    return outcome


def _tensors(held: Remembered, names: tuple[str, ...], axis: int) -> list[torch.Tensor] | Declined:
    """Return entries of the state, each with the parameter's own shape and in full precision, as rows of units."""
    if held.values.numel() == 0 or held.values.is_complex() or not held.values.is_floating_point():
        return Declined("unreadable", "the parameter is empty, or no real number")
    found = []
    for name in names:
        tensor = held.state.get(name)
        if not isinstance(tensor, torch.Tensor) or tensor.shape != held.values.shape or tensor.layout != torch.strided:
            return Declined("unreadable", f"{name} has not the shape of the parameter: a shard, or another optimizer's")
        if tensor.dtype not in (torch.float32, torch.float64):
            return Declined("precision", f"{name} is kept in {str(tensor.dtype).removeprefix('torch.')}: too coarse")
        if not bool(torch.isfinite(tensor).all()):
            return Declined("not_finite", f"{name} holds NaN or infinity")
        found.append(rows(tensor, axis))
    return [*found, rows(held.values, axis)]


def _moments(part: Part, held: Remembered, axis: int, scheme: Scheme) -> _Read | Declined:
    group = held.group or {}
    betas = group.get("betas")
    pair = [number(beta) for beta in betas] if isinstance(betas, (list, tuple)) and len(betas) == 2 else []
    if len(pair) != 2 or pair[0] is None or pair[1] is None or not (0 <= pair[0] < 1 and 0 < pair[1] < 1):
        return Declined("unreadable", "betas are not two numbers from 0 to 1")
    step = number(held.state.get("step", group.get("step")))
    if step is None or step < 0:
        return Declined("unreadable", "the state does not say how many updates it has seen")
    decay = Decay(held.momentum_range("betas", pair[0]), pair[1])
    if decay.beta1[0] <= 0 or decay.rates[0] <= SLOWEST:
        reason = f"with betas ({pair[0]:g}, {pair[1]:g}) the state of a unit without a gradient does not fade"
        return Declined("no_memory", reason)
    tensors = _tensors(held, ("exp_avg", "exp_avg_sq"), axis)
    if isinstance(tensors, Declined):
        return tensors
    m, v, w = tensors
    if bool((v < 0).any()):
        return Declined("unreadable", "exp_avg_sq holds negative numbers")
    coupled = _coupled(held, scheme)
    settings = (*decay.beta1, decay.beta2)
    return _Read(part, scheme, settings, Moments(m, v, w, int(step), decay), coupled, int(step))


def _coupled(held: Remembered, scheme: Scheme) -> CoupledDecay | None:
    weight_decay = held.number("weight_decay", 0.0)
    if scheme.decoupled or not weight_decay:
        return None
    return CoupledDecay(weight_decay, held.number("lr", 0.0) or 0.0, held.number("eps", 1e-8) or 0.0)


def _buffer(part: Part, held: Remembered, axis: int, scheme: Scheme) -> _Read | Declined:
    momentum, dampening = held.number("momentum"), held.number("dampening", 0.0)
    weight_decay, lr = held.number("weight_decay", 0.0), held.number("lr", 0.0)
    if momentum is None or dampening is None or weight_decay is None or lr is None:
        return Declined("unreadable", "momentum, dampening, weight_decay or lr is no number")
    if not 0 < momentum < 1 or held.state.get("momentum_buffer") is None:
        return Declined("no_memory", _NO_MOMENTUM)
    if not 0 <= dampening < 1:
        return Declined("no_memory", f"with a dampening of {dampening:g} the buffer takes up no gradient")
    tensors = _tensors(held, ("momentum_buffer",), axis)
    if isinstance(tensors, Declined):
        return tensors
    values, w = tensors
    slow = slow_mode(lr, momentum, weight_decay, dampening, bool((held.group or {}).get("nesterov")))
    if slow is None:
        return Declined("no_memory", "weight decay and learning rate are so large that the weights swing by themselves")
    span = held.momentum_range("momentum", momentum)
    return _Read(part, scheme, span, Buffer(values, w, span, slow, lr))

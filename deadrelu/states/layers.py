"""Layers: what the weights and the optimizer's memory of two states tell of each unit, without data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint import ParameterStates, bare
from ..differences import LayerDifference, Silence
from ..optimizer_state import Remembered, read_gradients
from .state import State

Parameters = Sequence[str] | None
Mask = NDArray[np.bool_]
_CHUNK = 1 << 22
_TRANSPOSED = re.compile(r"transp|deconv|upconv|up_conv|convt|unpool")
_EMBEDDING = re.compile(r"(^|[._])(\w*embed(s|der|ding|dings|_\w+)?|wte|wpe)\.weight$", re.IGNORECASE)
"""A row of an embedding is a token, no unit."""


def layer_differences(old: State, new: State, parameters: Parameters = None) -> tuple[LayerDifference, ...]:
    """Return what moved, per weight with a row per unit, in the order of the new state.

    Args:
        old, new: states of one architecture.
        parameters: the names of `model.named_parameters()` where the model is at hand: the order of an optimizer.
    """
    before = {bare(name): name for name in old.weights}
    memories = _memory(old, parameters), _memory(new, parameters)
    found = []
    for name in layers_of(new):
        bias = _bias(new, name)
        earlier = before.get(bare(name))
        if earlier is None:
            continue
        rows = rows_of(old, earlier), rows_of(new, name)
        shifts = None
        if bias is not None and bare(bias) in before:
            shifts = old.weights[before[bare(bias)]], new.weights[bias]
        ends = [_silent(*end) for end in zip((old, new), (earlier, name), memories, strict=True)]
        found.append(_difference(name, rows, shifts, ends))
    return tuple(found)


def layers_of(state: State) -> list[str]:
    """Return the names of the weights that have a row per unit, tied ones once."""
    tied = state.checkpoint.weights.tied() if state.checkpoint is not None else {}
    return [
        name
        for name in state.weights
        if _is_weight(name)
        and name not in tied
        and len(_shape(state, name)) >= 2
        and 0 not in _shape(state, name)
        and unit_dim(state, name) is not None
        and state.weights[name].is_floating_point()
    ]


def unit_dim(state: State, name: str) -> int | None:
    """Return the dimension of a weight that holds its units; None if its bias fits neither.

    That is the first, but for transposed convolutions, and a Linear that keeps its weight as (inputs, units).
    """
    rows, columns, *_ = _shape(state, name)
    bias = _bias_name(name)
    if bias in state.weights and len(_shape(state, bias)) == 1 and rows != columns:
        return {rows: 0, columns: 1}.get(_shape(state, bias)[0])
    return int(len(_shape(state, name)) > 2 and _TRANSPOSED.search(name.lower()) is not None)


def rows_of(state: State, name: str) -> Tensor:
    """Return a weight with its units first."""
    return state.weights[name].detach().movedim(unit_dim(state, name) or 0, 0)


def layer_of(name: str) -> str:
    """Return what the layer of a weight is called: its module, or the weight itself if it has another name.

    >>> layer_of("net.0.weight"), layer_of("rnn.weight_ih_l0")
    ('net.0', 'rnn.weight_ih_l0')
    """
    return name.removesuffix(".weight")


def proved_silent(state: State, name: str) -> set[int]:
    """Return the units of a weight whose row is zero and whose bias is not positive: z <= 0 whatever comes in."""
    bias = _bias(state, name)
    zero = (rows_of(state, name).flatten(1) == 0).all(1)
    if bias is not None:
        zero &= state.weights[bias].detach() <= 0
    return set(zero.nonzero().flatten().tolist())


def silence_of(
    state: State, name: str, memory: ParameterStates | None
) -> tuple[tuple[Silence, ...] | None, str | None]:
    """Return the units of a weight without a recent gradient and None, or None and why that is not known."""
    if state.checkpoint is None or memory is None:
        return None, "no optimizer state is there" if state.checkpoint is not None else None
    if name not in memory.states:
        return None, memory.uncertain.get(name, "the optimizer does not hold it")
    bias = _bias(state, name)
    reading = read_gradients(
        _remembered(state, name, memory),
        None if bias is None or bias not in memory.states else _remembered(state, bias, memory),
        unit_dim=unit_dim(state, name) or 0,
        steps=state.step if state.checkpoint.step_name in ("global_step", "step") else None,
    )
    refused = next((declined.reason for declined in reading.declined), None)
    if reading.layer is not None:
        return None, "no unit of the layer has a recent gradient"
    if reading.optimizer is None or (refused is not None and not reading.claims):
        return None, refused
    return tuple(Silence(claim.unit, claim.claim, claim.steps) for claim in reading.claims), None


def counted(state: State, name: str, memory: ParameterStates | None) -> tuple[Mask | None, str | None]:
    """Return which units of a weight are proved silent or without a recent gradient, and why gradients are not known.

    The mask is None if nothing is known: nothing is proved, and there is an optimizer's state that does not tell.
    """
    proved, (found, why) = proved_silent(state, name), silence_of(state, name, memory)
    if found is None and memory is not None and not proved:
        return None, why
    mask = np.zeros(_shape(state, name)[unit_dim(state, name) or 0], dtype=bool)
    mask[[*proved, *(silence.unit for silence in found or ())]] = True
    return mask, why


def memory_of(state: State, parameters: Parameters = None) -> ParameterStates | None:
    """Return what the only optimizer of a state keeps, by the names of its weights; None if there is none."""
    return _memory(state, parameters)


def _memory(state: State, parameters: Parameters) -> ParameterStates | None:
    if state.checkpoint is None:
        return None
    ordered = parameters if parameters is not None and set(parameters) & set(state.weights) else None
    return state.checkpoint.parameter_states(parameters=ordered)


def _remembered(state: State, name: str, memory: ParameterStates) -> Remembered:
    groups = state.checkpoint.optimizer.groups if state.checkpoint and state.checkpoint.optimizer else []
    group: Mapping[str, object] | None = groups[memory.groups[name]] if name in memory.groups else None
    return Remembered(state.weights[name], memory.states[name], group)


def _is_weight(name: str) -> bool:
    """Also `weight_ih_l0` of a recurrent layer, `in_proj_weight` of an attention, `weight_orig` under a norm."""
    last = name.rpartition(".")[2]
    return (last.startswith("weight") or last.endswith("weight")) and _EMBEDDING.search(name) is None


def _bias_name(weight: str) -> str:
    path, dot, last = weight.rpartition(".")
    return path + dot + last.replace("weight", "bias")


def _bias(state: State, weight: str) -> str | None:
    name = _bias_name(weight)
    if name not in state.weights or len(_shape(state, name)) != 1:
        return None
    return name if _shape(state, name)[0] == _shape(state, weight)[unit_dim(state, weight) or 0] else None


def _shape(state: State, name: str) -> tuple[int, ...]:
    shape = getattr(state.weights, "shape", None)
    return tuple(shape(name)) if callable(shape) else tuple(state.weights[name].shape)


@dataclass(frozen=True, slots=True)
class _Moves:
    """What two weights have to do with one another, row by row, float64, (units,)."""

    old_norm: Tensor
    new_norm: Tensor
    distance: Tensor
    dot: Tensor

    @classmethod
    def of(cls, old: Tensor, new: Tensor) -> _Moves:
        """Measure some rows at a time: in double precision, a large weight would fill the memory four times."""
        step = max(1, _CHUNK // max(1, old[0].numel()))
        parts = []
        for first in range(0, len(old), step):
            a = old[first : first + step].double().flatten(1)
            b = new[first : first + step].double().flatten(1)
            parts.append(torch.stack((a.norm(dim=1), b.norm(dim=1), (b - a).norm(dim=1), (a * b).sum(1))))
        return cls(*torch.cat(parts, dim=1))


def _difference(
    name: str,
    rows: tuple[Tensor, Tensor],
    shifts: tuple[Tensor, Tensor] | None,
    ends: Sequence[_End],
) -> LayerDifference:
    moves = _Moves.of(*rows)
    scale, length = moves.old_norm, moves.new_norm
    unknown = torch.full_like(scale, torch.nan)
    cosine = moves.dot / (scale * length)
    moved = None
    if shifts is not None:
        step = shifts[1].detach().double() - shifts[0].detach().double()
        moved = _numbers(torch.where(scale > 0, step / scale, unknown))
    zero_before, zero_now = ((weight.flatten(1) == 0).all(1) for weight in rows)
    before, now = ends
    return LayerDifference(
        layer=layer_of(name),
        units=len(scale),
        weight_move=_numbers(torch.where(scale > 0, moves.distance / scale, unknown)),
        turn=_numbers(torch.where((scale > 0) & (length > 0), 1 - cosine.clamp(-1, 1), unknown)),
        bias_move=moved,
        zeroed=_where(zero_now & ~zero_before),
        refilled=_where(zero_before & ~zero_now),
        old_silence=before.silence,
        new_silence=now.silence,
        counted=(before.counted, now.counted),
        unread=now.unread,
    )


@dataclass(frozen=True, slots=True)
class _End:
    """What one of the states says of a weight's units."""

    silence: tuple[Silence, ...] | None
    counted: int | None
    unread: str | None


def _silent(state: State, name: str, memory: ParameterStates | None) -> _End:
    found, why = silence_of(state, name, memory)
    mask, _ = counted(state, name, memory)
    return _End(found, None if mask is None else int(mask.sum()), why)


def _numbers(values: Tensor) -> tuple[float | None, ...]:
    return tuple(None if value != value else float(value) for value in values.tolist())


def _where(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero().flatten().tolist())

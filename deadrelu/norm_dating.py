"""Norm dating: since when the input of a BatchNorm has not varied, read from its running_var (a ReLU feeds it).

A channel whose inputs are all alike in a forward pass adds a variance of 0, so that running_var shrinks by
1 - momentum in every train-mode forward (micro-batches too). Where a ReLU feeds the norm, such a channel is silent, or
constant above 0: its running_mean, if given, tells the two apart. k such forwards leave running_var at
alive * (1 - momentum)^k, and for momentum=None (a plain average over n forwards) at alive * (n - k) / n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from .errors import InputError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Reference = Literal["earlier", "layer", "initial"]

RULED_OUT = {"earlier": math.log(1e4), "layer": math.log(1e6)}
"""How far, in nats, a living channel does not sink: below its own earlier variance, below the median of its layer."""

FEWEST = 30
"""Forwards under which a channel that has not varied yet is no finding."""

_SPREAD = math.log(1e4)
_LAYER_ERROR = 10
_MEAN = 10.0
_LEAST = 10


@dataclass(frozen=True, slots=True)
class VarianceClaim:
    """One channel that has not varied for a while.

    Attributes:
        unit: the channel.
        claim: `no_variance`: not for the last `steps` train-mode forwards; `never_variance`: not in any.
        steps: how many forwards.
        low: at least that many, short of the error of the reference.
        high: at most that many; None where nothing bounds it.
        reference: what its variance was compared with: its own `earlier` value, the `layer`, or the initial 1
            (`initial`).
        at_least: running_var can show no more; it may be much longer.
        level: how sure, in the words of a report.
    """

    unit: int
    claim: Literal["no_variance", "never_variance"]
    steps: int
    low: int
    high: int | None
    reference: Reference
    at_least: bool = False
    level: Literal["optimizer"] = "optimizer"


@dataclass(frozen=True, slots=True, eq=False)
class NormState:
    """The statistics of a BatchNorm, as a checkpoint holds them.

    Attributes:
        running_var: shape (units,).
        momentum: in (0, 1); None for a plain average over all forwards.
        batches: num_batches_tracked; None if unknown.
        running_mean: shape (units,); None if not at hand.
    """

    running_var: torch.Tensor
    momentum: float | None
    batches: int | None = None
    running_mean: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Ages:
    """Train-mode forwards since each channel last varied, as far as its variance tells; shape (units,) each.

    Attributes:
        steps: forwards, 0 for a channel that varies; NaN where there is nothing to compare with.
        worn: running_var is too small to shrink by rule: at least that many.
    """

    steps: Floats
    worn: Flags


def date_channels(now: NormState, earlier: NormState | None = None) -> tuple[VarianceClaim, ...]:
    """Return the channels that have not varied for a while.

    By its own earlier value a channel is dated to 1 forward, as far as its variance did not change before it fell
    silent; if it shrank by rule ever since that checkpoint, that is certain, and "at least". By the layer it is dated
    to 10 if the living channels are alike; `low` and `high` widen with their spread. Only a channel that has sunk
    further than living ones do is claimed (`RULED_OUT`): `ages` dates any.

    Args:
        now: the statistics to read.
        earlier: those of an older checkpoint of the same run.

    Returns:
        Claims in order of the channels; none of a layer in which no channel varies, or that has only one.

    Raises:
        InputError: the statistics do not fit each other, or are no statistics of a BatchNorm.

    Source: torch.nn.BatchNorm2d: running = (1 - momentum) * running + momentum * variance.

    >>> alive = NormState(torch.ones(3), 0.1, batches=1000)
    >>> [(c.unit, c.steps) for c in date_channels(NormState(torch.tensor([1.0, 0.9**50, 1.1]), 0.1, 1050), alive)]
    [(1, 50)]
    """
    _check(now)
    if earlier is not None:
        _check(earlier)
        if earlier.running_var.shape != now.running_var.shape:
            raise InputError(
                f"running_var has {len(now.running_var)} channels, and {len(earlier.running_var)} in the older "
                "checkpoint; expected two checkpoints of one model"
            )
    found = {claim.unit: claim for claim in _by_layer(now)}
    if earlier is not None:
        found |= {claim.unit: claim for claim in _by_own(now, earlier)}
    found |= {claim.unit: claim for claim in _from_birth(now)}
    return tuple(found[unit] for unit in sorted(found)) if len(found) < len(now.running_var) else ()


def ages(now: NormState, alive: Floats) -> Ages:
    """Return the train-mode forwards since each channel last varied, if its variance was `alive` then.

    Args:
        now: the statistics to read.
        alive: the variance that each channel had while it varied, shape (units,) or ().

    >>> ages(NormState(torch.tensor([0.9**7, 2.0]), 0.1), np.array([1.0, 1.0])).steps.round(3).tolist()
    [7.0, 0.0]
    >>> ages(NormState(torch.tensor([0.25]), None, batches=400), np.array([1.0])).steps.tolist()
    [300.0]
    """
    var = _numbers(now.running_var)
    limits = torch.finfo(now.running_var.dtype)
    if now.momentum is None:
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = (now.batches or math.nan) * (1 - var / alive)
        return Ages(np.clip(steps, 0, None), np.zeros(len(var), dtype=bool))
    # Rounding to the nearest number stops the shrinking where a step is half a unit in the last place; ten times that
    # is right to a twentieth of a nat. What is 0 may have been flushed from anywhere under the smallest normal number.
    coarsest = limits.smallest_normal * limits.eps * 10 / now.momentum
    floor = np.where(var > 0, coarsest, limits.smallest_normal)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = (np.log(np.maximum(var, floor)) - np.log(alive)) / math.log1p(-now.momentum)
    return Ages(np.clip(steps, 0, None), var <= floor)


def _by_own(now: NormState, earlier: NormState) -> list[VarianceClaim]:
    before = _numbers(earlier.running_var)
    apart = None if now.batches is None or earlier.batches is None else now.batches - earlier.batches
    found = ages(now, before)
    means = (
        np.abs(_numbers(earlier.running_mean)) if earlier.running_mean is not None else np.full(len(before), math.inf)
    )
    claims = []
    for unit in np.flatnonzero((before > 0) & (found.steps > 0)):
        steps = float(found.steps[unit])
        # No variance at all was added since: the channel shrank as fast as it can.
        whole = apart is not None and _LEAST <= apart <= steps + 1e-5 * (1 + apart)
        if not (whole or _sunk(now, steps) > RULED_OUT["earlier"]) or not _at_zero(now, int(unit), means[unit], steps):
            continue
        claims.append(_claim(int(unit), apart if whole and apart else steps, 1, "earlier", whole or found.worn[unit]))
    return claims


def _by_layer(now: NormState) -> list[VarianceClaim]:
    var = _numbers(now.running_var)
    if now.momentum is None or not (var > 0).any():
        return []
    logs = np.log(np.maximum(var, np.finfo(np.float64).tiny))
    living = logs >= logs.max() - _SPREAD
    if living.sum() < max(2, 0.05 * len(var)):  # perhaps not the layer, only a channel far larger than all others
        return []
    usual = float(np.median(logs[living]))
    rate = -math.log1p(-now.momentum)
    error = max(_LAYER_ERROR, math.ceil(1.5 * float(np.abs(logs[living] - usual).max()) / rate))
    found = ages(now, np.full(len(var), math.exp(usual)))
    mean = float(np.median(np.abs(_numbers(now.running_mean)[living]))) if now.running_mean is not None else math.inf
    claims = []
    for unit in np.flatnonzero(found.steps * rate > RULED_OUT["layer"]):
        steps = float(found.steps[unit])
        if _at_zero(now, int(unit), mean, steps):
            claims.append(_claim(int(unit), steps, error, "layer", bool(found.worn[unit])))
    return claims


def _from_birth(now: NormState) -> list[VarianceClaim]:
    """Return the channels whose running_var is all that is left of the 1 that it began with."""
    if now.batches is None or now.batches < FEWEST:
        return []
    var, mean = _numbers(now.running_var), _numbers(now.running_mean)
    if now.momentum is None:
        born = var == 0
    else:
        found = ages(now, np.ones(len(var)))
        rounded = now.batches * (1e-4 + 1e-7 / now.momentum)
        born = ~found.worn & (np.abs(found.steps - now.batches) <= rounded / 10)
    if now.running_mean is not None:
        born &= mean == 0
    return [
        VarianceClaim(int(unit), "never_variance", now.batches, now.batches, now.batches, "initial")
        for unit in np.flatnonzero(born)
    ]


def _claim(unit: int, steps: float, error: int, reference: Reference, at_least: bool) -> VarianceClaim:
    whole = round(steps)
    low = max(0, whole - error)
    high = None if at_least else whole + error
    return VarianceClaim(unit, "no_variance", whole, low, high, reference, bool(at_least))


def _sunk(now: NormState, steps: float) -> float:
    """Return the nats that `steps` forwards take off the variance; 0 for a plain average, which forgets too slowly."""
    return 0.0 if now.momentum is None else steps * -math.log1p(-now.momentum)


def _at_zero(now: NormState, unit: int, mean: float, steps: float) -> bool:
    """Return whether the mean has shrunk along with the variance, if it was `mean`: silent, not constant, nor faint."""
    if now.running_mean is None or now.momentum is None:
        return True
    return abs(float(now.running_mean[unit])) <= _MEAN * mean * math.exp(-_sunk(now, steps))


def _numbers(values: torch.Tensor | None) -> Floats:
    numbers: Floats = np.zeros(0) if values is None else values.detach().double().cpu().numpy()
    return numbers


def _check(state: NormState) -> None:
    var = state.running_var
    if var.ndim != 1 or not var.is_floating_point():
        raise InputError(
            f"running_var has shape {tuple(var.shape)} and {var.dtype}; expected one real number per channel"
        )
    if not bool((torch.isfinite(var) & (var >= 0)).all()):
        raise InputError("running_var holds negative numbers, NaN or infinity; a variance is none of these")
    if state.momentum is not None and not 0 < state.momentum < 1:
        raise InputError(f"momentum is {state.momentum}; the age of a variance needs one between 0 and 1, or None")
    if state.running_mean is not None and state.running_mean.shape != var.shape:
        raise InputError(f"running_mean has shape {tuple(state.running_mean.shape)}; expected {tuple(var.shape)}")

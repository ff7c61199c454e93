"""Adam: the silence of each unit of a layer, dated from its moments (Adam, AdamW, NAdam, RAdam keep the same two)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ..findings import WHOLE_LAYER
from .claims import Declined, GradientClaim, LayerSilence
from .fading import Faded, Flags, Floats, faded, sample
from .moments import CoupledDecay, Decay, Levels, Moments, levels, signed

LIVING = math.log(0.01)
"""ln of the r that a unit with a recent gradient exceeds; a healthy one lies between 0.05 and C."""

USUAL = math.log(0.3)
"""ln of the r of a healthy unit, for a layer that has none left to compare with."""

SHOWN = 5.25
"""All that a state with coupled weight decay is asked for, in nats: 50 steps at betas (0.9, 0.999)."""

NOTICED = 0.1
"""The size of a gradient, in parts of sqrt(v), that would have been noticed within the last `low` steps."""

_FAINT = 0.05


@dataclass(slots=True)
class Found:
    """What one layer's state says."""

    claims: list[GradientClaim] = field(default_factory=list)
    declined: list[Declined] = field(default_factory=list)
    layer: LayerSilence | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """The levels of the parts of a layer, and of both together."""

    parts: list[Levels]
    fresh: Floats
    worn: Flags
    coarse: Flags
    touched: Flags

    @property
    def living(self) -> Flags:
        return self.touched & (self.fresh > LIVING)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """The moments of a layer's weight and bias, whichever there are, under one decay.

    Attributes:
        parts: the moments.
        coupled: per part, the weight decay that may have gone into its gradient; None if none did.
        certain: whether `coupled` is known; otherwise the decay may as well be decoupled.
    """

    parts: list[Moments]
    coupled: list[CoupledDecay | None]
    certain: bool

    @property
    def step(self) -> int:
        """Updates that the state has seen."""
        return max(part.step for part in self.parts)

    @property
    def units(self) -> int:
        """Units of the layer."""
        return len(self.parts[0].m)


def read_moments(layer: Layer) -> Found:
    """Return the silence of each unit of `layer`, and of the layer if all of it is silent."""
    found = Found()
    plain = _look(layer, [None] * len(layer.parts))
    never = _never(layer, plain, found)
    if found.layer is not None:
        return found
    if not any(layer.coupled):
        dated = _dated(layer, plain, found, np.ones(layer.units, dtype=bool))
    elif layer.certain:
        dated = _shown(layer, found)
    else:
        # Under a coupled decay m would be decay * w, or more: a unit whose m is far smaller has none.
        dated = _dated(layer, plain, found, _below_decay(layer, plain))
        seen = {claim.unit for claim in dated}
        dated += [claim for claim in _shown(layer, found) if claim.unit not in seen]
    found.claims = sorted([*never, *dated], key=lambda claim: claim.unit)
    return found


def _look(layer: Layer, coupled: list[CoupledDecay | None]) -> _Look:
    parts = [levels(part, decay) for part, decay in zip(layer.parts, coupled, strict=True)]
    fresh = np.stack([part.fresh for part in parts])
    first = fresh.argmax(0)
    units = np.arange(layer.units)
    worn = np.stack([part.worn for part in parts])[first, units]
    coarse = np.stack([part.coarse for part in parts])[first, units]
    return _Look(parts, fresh.max(0), worn, coarse, np.any([part.touched for part in parts], axis=0))


def _never(layer: Layer, look: _Look, found: Found) -> list[GradientClaim]:
    """Return the units that never had a gradient; of a layer that never had one, say just that."""
    if not look.touched.any():
        found.layer = LayerSilence("never_gradient", layer.step, None)
        found.declined.append(whole("ever had a gradient"))
        return []
    low = layer.step
    if not any(part.tiny.any() for part in look.parts):  # else old squares would still be there, however small
        low = min(low, max(_horizon(at, part) for at, part in zip(layer.parts, look.parts, strict=True)))
    return [
        GradientClaim(int(unit), "never_gradient", layer.step, low, layer.step, None)
        for unit in np.flatnonzero(~look.touched)
    ]


def _horizon(at: Moments, part: Levels) -> int:
    """Return the steps after which a machine that flushes tiny numbers to zero has lost the square of a gradient."""
    energy = part.energy[part.touched]
    if not energy.size:
        return 0
    smallest = float(np.finfo(np.float64 if at.v.dtype.itemsize == 8 else np.float32).tiny)
    return max(0, int((math.log(float(np.median(energy))) - math.log(smallest)) / -math.log(at.decay.beta2)))


def _dated(layer: Layer, look: _Look, found: Found, allowed: Flags) -> list[GradientClaim]:
    """Return the claims with an age; for a layer without a living unit, only that of the layer."""
    sunk = _sunk(layer, look, found)
    if sunk is None:
        return []
    decay = layer.parts[0].decay
    slow, fast = decay.rates
    claims = []
    for unit in np.flatnonzero(sunk.deep & look.touched & allowed):
        nats = float(sunk.nats[unit])
        worn = bool(look.worn[unit])
        bound = layer.step - 1 if worn else _bound(layer, float(look.fresh[unit]), coarse=bool(look.coarse[unit]))
        steps = min(round(2 * nats / (slow + fast)), bound)
        low = _since(decay, float(look.fresh[unit]), steps)
        claims.append(GradientClaim(int(unit), "no_gradient", steps, low, bound, bound, math.exp(-nats), worn))
    return claims


def _shown(layer: Layer, found: Found) -> list[GradientClaim]:
    """Return the claims that coupled weight decay leaves room for: no gradient for at least some 50 steps."""
    look = _look(layer, layer.coupled)
    sunk = _sunk(layer, look, found)
    if sunk is None:
        return []
    fast = layer.parts[0].decay.rates[1]
    # Where decay makes up most of v, the gradient was never seen to be larger than now.
    decaying = sum(part.decaying for part in look.parts) > 0.5 * sum(part.numbers for part in look.parts)
    steps, low = min(layer.step - 1, round(SHOWN / fast)), int((SHOWN + math.log(NOTICED)) / fast)
    chosen = sunk.deep & (sunk.nats >= SHOWN - math.log(NOTICED)) & look.touched & ~decaying
    return [
        GradientClaim(int(unit), "no_gradient", steps, low, None, None, math.exp(-sunk.nats[unit]), True)
        for unit in np.flatnonzero(chosen)
    ]


def _sunk(layer: Layer, look: _Look, found: Found) -> Faded | None:
    """Return how far each unit has sunk; None if there is no living unit to compare with, which `found` then says."""
    living = look.living
    if not living.any():
        if found.layer is None:
            fresh = float(look.fresh.max())
            sound = look.touched & ~look.worn
            bound = _bound(layer, float(look.fresh[sound].max()), coarse=True) if sound.any() else layer.step - 1
            steps = min(bound, max(0, round((USUAL - fresh) / layer.parts[0].decay.rates[1])))
            found.layer = LayerSilence("no_gradient", steps, bound)
            found.declined.append(whole(f"had a gradient for about {steps} steps"))
        return None
    sunk = faded(look.fresh, living, signed(layer.parts, sample(living)))
    faint = np.ones(layer.units, dtype=bool)
    for part in look.parts:
        # r is small as well after one huge gradient, which v remembers for long: then m is not small.
        if (living & part.touched).any():
            faint &= part.peak <= _FAINT * np.median(part.peak[living & part.touched])
    return Faded(sunk.nats, sunk.deep & faint)


def _below_decay(layer: Layer, look: _Look) -> Flags:
    """Return the units whose m is far under what a coupled decay would make of it, shape (units,)."""
    below = np.zeros(layer.units, dtype=bool)
    for at, decay, part in zip(layer.parts, layer.coupled, look.parts, strict=True):
        if decay is not None:
            below |= part.peak <= 0.01 * decay.weight_decay * at.w.abs().amax(1).double().numpy()
    return below


def _since(decay: Decay, fresh: float, steps: int) -> int:
    """Return the steps within which no gradient was noticed: one of size g leaves (1 - beta1) g in m, which then fades.

    Half of it is allowed to be cancelled by its neighbours in time; one that they cancel wholly, in every number of the
    unit, could be missed.
    """
    low = (math.log((1 - decay.beta1[1]) * NOTICED / 2) - fresh) / decay.rates[1]
    return max(0, min(steps, int(low)))


def _bound(layer: Layer, fresh: float, *, coarse: bool) -> int:
    """Return the steps within which there was a gradient for certain, rounding allowed for."""
    decay = layer.parts[0].decay
    nats = decay.log_ceiling - fresh + (0.05 if coarse else 0.001)
    return min(layer.step - 1, math.floor(nats / decay.rates[0]))


def whole(what: str) -> Declined:
    return Declined(
        "whole_layer",
        f"{WHOLE_LAYER} {what}: it is frozen, unused, converged, hidden by a spike, or dead throughout; no single unit "
        "is claimed",
    )

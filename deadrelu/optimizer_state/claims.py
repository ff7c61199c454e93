"""Claims: what the optimizer state of one layer says, and what it was not read for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Silence = Literal["no_gradient", "never_gradient"]
Part = Literal["weight", "bias", "layer"]
Reason = Literal[
    "no_state",
    "no_memory",
    "other_optimizer",
    "unreadable",
    "precision",
    "not_finite",
    "too_few_steps",
    "whole_layer",
    "mixed",
]

MEANING = (
    "no gradient worth the name reached the unit's parameters (`residual` says how small one could have hidden): it "
    "did not fire, or what reads it passed nothing back; it may fire all the same"
)


@dataclass(frozen=True, slots=True)
class GradientClaim:
    """One unit whose parameters have had no gradient for a while.

    A step is an update of the unit's own parameters by this optimizer: steps in which the layer had no gradient at all
    (`grad is None`), or that a gradient scaler skipped, do not count.

    Attributes:
        unit: its index.
        claim: `never_gradient`: not once since this optimizer state was begun; `no_gradient`: not for the last `steps`.
        steps: the age of the silence in steps; for `never_gradient` the age of the state. None where the optimizer
            counts no steps.
        low: within the last `low` steps there was no gradient of a tenth of the unit's usual size (Adam: of the root
            mean square that v remembers; SGD: of a hundredth of the layer's present median). Smaller ones go unnoticed.
        high: there was a gradient within the last `high` steps; None where nothing bounds it.
        bound: the same, whatever the gradients were: a theorem, no estimate. None where there is none.
        residual: a gradient that went on, this much smaller than before, would look the same. 0 for `never_gradient`.
        at_least: the state can show no longer a silence than this; it may be much older.
        level: how sure, in the words of a report.

    The error of `steps` lies between `low` and `high`: at betas (0.9, 0.999) a unit that died from one step to
    the next looks up to 10 steps older or younger than it is, one whose gradients faded away up to 40 older than
    its last gradient of some size, one that died in a spike 10 to 60 younger.
    Of `never_gradient`, `low` is under `steps` where a machine that flushes the smallest numbers to zero could have
    wiped out older gradients; SGD, which counts no steps, has 0 there.
    """

    unit: int
    claim: Silence
    steps: int | None
    low: int
    high: int | None
    bound: int | None
    residual: float = 0.0
    at_least: bool = False
    level: Literal["optimizer"] = "optimizer"

    def to_dict(self) -> dict[str, Any]:
        """Return the claim as in `claims` of the report's JSON; `meaning` is left to `MEANING`."""
        return {
            "unit": self.unit,
            "claim": self.claim,
            "level": self.level,
            "steps": self.steps,
            "low": self.low,
            "high": self.high,
            "bound": self.bound,
            "residual": self.residual,
            "at_least": self.at_least,
        }


@dataclass(frozen=True, slots=True)
class LayerSilence:
    """A whole layer without a recent gradient: frozen, unused, converged, after a spike, or dead throughout.

    Which of them it is cannot be told from the state, so that no unit of it is claimed for it.

    Attributes:
        claim: `never_gradient` or `no_gradient`, of every unit.
        steps: for about how long, as in `GradientClaim`; None if the state does not tell.
        bound: there was a gradient within the last `bound` steps; None for `never_gradient`.
    """

    claim: Silence
    steps: int | None
    bound: int | None


@dataclass(frozen=True, slots=True)
class Declined:
    """Something that was not read, or not claimed.

    Attributes:
        code: why, as a word.
        reason: why, as a sentence.
        part: `weight`, `bias`, or `layer` for both.
    """

    code: Reason
    reason: str
    part: Part = "layer"


@dataclass(frozen=True, slots=True)
class Reading:
    """What the optimizer state says about one layer.

    Attributes:
        units: units of the layer.
        optimizer: the optimizer that wrote the state, as far as its keys tell; None where there is no state.
        steps: updates that the state has seen; None where it does not count them.
        claims: units without a gradient, in order. A unit that is not in it is not thereby alive.
        declined: what was not read or not claimed, and why.
        layer: set where the whole layer has no recent gradient.
    """

    units: int
    optimizer: str | None
    steps: int | None
    claims: tuple[GradientClaim, ...] = ()
    declined: tuple[Declined, ...] = ()
    layer: LayerSilence | None = None

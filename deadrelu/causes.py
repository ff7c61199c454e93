"""Causes: what killed a unit, read off its trajectory. One function, asked in the order of DESIGN's verdict."""

from __future__ import annotations

from dataclasses import dataclass

from .deaths import Cause

KICK = 0.1
"""An own step of a tenth of std z by one update is a death within some 20 steps of being healthy."""
CREEP, SPIKE = 0.05, 0.3
"""Below the one no single update matters, above the other one update is enough; between them steadiness tells."""
STEADY = 0.7
"""Replays at lower rates (benchmarks/cause_replay.py): steps that a lower rate prevents swing, under 0.68 in nine of
ten of the deaths; a constant pull is over 0.8 in nine of ten."""
MOVED = 1.0
"""Data have moved once they move the units of the first layer by that many std z; drawing other rows of them seems to
move these by up to half as much."""
HALF = 0.5
"""Where so many of the units upstream went silent, slowly, their inputs shrank because they were dying."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one death.

    Attributes:
        born_dead: it never fired.
        non_finite: z was not finite after the last firing.
        shares: how far each part moved the margin since it was last healthy, None if the site was not followed.
        kick: largest own step of one update, over std z when last healthy.
        steady: own step of the mean update before the silence, over the largest, 0..1; None if it is not known.
        raw_input: the site is fed by the model's input, with no activation between.
        raw_moved: the model's input moved by more than a std z in the fatal stretch.
        upstream_kick: largest kick of the sites upstream in the fatal stretch.
        upstream_dead: share of the units upstream that are silent, 0..1.
        is_norm: the nearest layer is a norm.
    """

    born_dead: bool = False
    non_finite: bool = False
    shares: dict[str, float] | None = None
    kick: float = 0.0
    steady: float | None = None
    raw_input: bool = True
    raw_moved: bool = False
    upstream_kick: float = 0.0
    upstream_dead: float = 0.0
    is_norm: bool = False


def judge(seen: Evidence) -> tuple[Cause, str | None]:
    """Return (cause, part to blame): weight, bias, or None if no parameter of the unit did it.

    >>> judge(Evidence(shares={"weight": -0.1, "decay": 0.0, "bias": -2.0, "input": 0.1, "upstream": 0.0}, kick=0.02))
    ('bias_drift', 'bias')
    >>> judge(Evidence(shares={"weight": -3.0, "decay": 0.0, "bias": -0.5, "input": 0.0, "upstream": 0.0}, kick=4.6))
    ('learning_rate', 'weight')

    A bias that is pulled down by as much at every update falls at any learning rate, however steep:

    >>> shares = {"weight": 0.0, "decay": 0.0, "bias": -2.0, "input": 0.1, "upstream": 0.0}
    >>> judge(Evidence(shares=shares, kick=0.15, steady=0.98)), judge(Evidence(shares=shares, kick=0.15, steady=0.2))
    (('bias_drift', 'bias'), ('learning_rate', 'bias'))
    """
    if seen.born_dead:
        return "born_dead", None
    if seen.non_finite:
        return "non_finite", None
    if seen.shares is None:
        return "unknown", None
    own = min(0.0, seen.shares["weight"] + seen.shares["bias"]) + seen.shares["decay"]
    input_ = seen.shares["input"] + seen.shares["upstream"]
    if seen.is_norm and seen.upstream_dead >= HALF and seen.kick <= KICK:
        return (
            "upstream_death",
            None,
        )  # without inputs a norm's output stands still, and only its parameters seem to move
    if input_ < own and not seen.is_norm:
        return _from_outside(seen)
    part = "bias" if seen.shares["bias"] < seen.shares["weight"] else "weight"
    if _too_fast(seen):
        return "learning_rate", part
    worst = min(("bias", "weight", "decay"), key=seen.shares.__getitem__)
    if seen.shares[worst] >= 0:
        return "unknown", None
    if worst == "decay":
        return "weight_decay", "weight"
    return ("bias_drift", "bias") if worst == "bias" else ("weight_drift", "weight")


def _too_fast(seen: Evidence) -> bool:
    """True if a few updates threw the unit, or it swung; False if many small ones of one sign added up."""
    if seen.steady is None or seen.kick > SPIKE:
        return seen.kick > KICK
    return seen.kick > CREEP and seen.steady < STEADY


def _from_outside(seen: Evidence) -> tuple[Cause, str | None]:
    assert seen.shares is not None
    thrown = seen.upstream_kick > KICK
    if seen.shares["upstream"] < seen.shares["input"] or (seen.upstream_dead >= HALF and not thrown):
        return "upstream_death", None
    if seen.raw_input or seen.raw_moved:
        return "input_shift", None
    return ("learning_rate" if thrown else "input_shift"), None

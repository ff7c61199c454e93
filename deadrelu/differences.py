"""Difference and Timeline: what tells two states of a model apart, or a row of them, and their JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from . import screens

SCHEMA = "deadrelu.diff/1"
TIMELINE_SCHEMA = "deadrelu.timeline/1"

Order = Literal["step", "number", "name", "given"]
Evidence = Literal["dead", "undecided"]


@dataclass(frozen=True, slots=True)
class UnitDeath:
    """One unit that fired in the old state on the data given, and not once in the new one.

    Attributes:
        unit: its index.
        status: `dead`, or `undecided` where the samples do not suffice.
        cause: `weights`, `bias` or `upstream`: that alone silences it, put into the old state; `either` weights or
            bias alone does; `both` only together; `several`: its own step and upstream each do; `together`: only both;
            `unknown`: not settled. None without interventions.
        sufficient: the parts that silence it alone.
        necessary: the parts that revive it when they alone are taken back.
        shares: Shapley shares of the change of max z, in units of z, by part.
        max_z: largest z in the old and the new state.
        rate: activation rate in the old state, 0..1.
        fraction: the first and the last fraction of the unit's own step, at fixed inputs, at which it is silent on the
            rows run (1.0 is the step that was made); None without `update`, where its own step silences it at none, or
            where z is not linear in it. The last is None if there is none.
        lr: the same as learning rates, None where the learning rate is not known.
        safe_fraction: the fraction of the whole update under which it stays alive, None without `update` or if it was
            not pinned down.
        safe_lr: the same as a learning rate.
    """

    unit: int
    status: Evidence
    max_z: tuple[float, float]
    rate: float
    cause: str | None = None
    sufficient: tuple[str, ...] = ()
    necessary: tuple[str, ...] = ()
    shares: dict[str, float] | None = None
    fraction: tuple[float, float | None] | None = None
    lr: tuple[float, float | None] | None = None
    safe_fraction: float | None = None
    safe_lr: float | None = None


@dataclass(frozen=True, slots=True)
class SiteDifference:
    """One activation call in both states, on the same data.

    Attributes:
        site: its name.
        op: canonical kind.
        units: number of units.
        can_die: the slope of this kind is exactly zero somewhere.
        samples: samples seen in each state.
        deaths: units that fired in the old state and are silent in the new one.
        revivals: units that were silent in the old state and fire in the new one (for the first time, or again).
        still: units silent in both.
        silent: number of silent units in the old and the new state.
        causes: how many of the deaths have each cause.
        revived_by: how many of the deaths are undone by taking this alone back: weights, bias, own (both), upstream.
        own: the parameters that the interventions took as the unit's own, by part.
    """

    site: str
    op: str
    units: int
    can_die: bool
    samples: int
    deaths: tuple[UnitDeath, ...] = ()
    revivals: tuple[int, ...] = ()
    still: tuple[int, ...] = ()
    silent: tuple[int, int] = (0, 0)
    causes: dict[str, int] = field(default_factory=dict)
    revived_by: dict[str, int] = field(default_factory=dict)
    own: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Silence:
    """A unit whose parameters had no gradient for a while, from the optimizer's state of one checkpoint.

    Attributes:
        unit: its index.
        claim: `no_gradient` or `never_gradient`.
        steps: for about how many updates, None where that is not counted.
    """

    unit: int
    claim: str
    steps: int | None


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """One weight with its bias in both states, without data. Lists have one number per unit.

    Attributes:
        layer: the module of the weight, or the weight's own name where that is not `weight`.
        units: number of units, along that axis of the weight which its bias tells, else the first.
        weight_move: |w' - w| / |w| of the unit's row, None where w was zero.
        turn: 1 - cos of the angle between w' and w, None where one of them is zero.
        bias_move: (b' - b) / |w|, the move of the unit's threshold on the scale of its own weights; None for none.
        zeroed: units whose row became zero: z is the bias whatever comes in.
        refilled: units whose row was zero and is not any more.
        old_silence, new_silence: units without a recent gradient by the optimizer's state; None where it was not read.
        counted: units that are proved silent by their weights or without a recent gradient, in the old and the new
            state; None where that is not known.
        unread: why the optimizer's state was not read, in the new state.
    """

    layer: str
    units: int
    weight_move: tuple[float | None, ...]
    turn: tuple[float | None, ...]
    bias_move: tuple[float | None, ...] | None
    zeroed: tuple[int, ...]
    refilled: tuple[int, ...]
    old_silence: tuple[Silence, ...] | None = None
    new_silence: tuple[Silence, ...] | None = None
    counted: tuple[int | None, int | None] = (None, None)
    unread: str | None = None

    @property
    def silenced(self) -> tuple[int, ...]:
        """Units without a recent gradient in the new state that had one in the old. Empty where one is not read."""
        if self.old_silence is None or self.new_silence is None:
            return ()
        before = {silence.unit for silence in self.old_silence}
        return tuple(silence.unit for silence in self.new_silence if silence.unit not in before)

    @property
    def median_move(self) -> float | None:
        """The median of `weight_move`, None if none is known."""
        return median(known) if (known := [move for move in self.weight_move if move is not None]) else None

    @property
    def largest_move(self) -> tuple[int, float] | None:
        """The unit whose weights moved most, and how far; None if none is known."""
        return _extreme(self.weight_move, 1)

    @property
    def bias_drop(self) -> tuple[int, float] | None:
        """The unit whose bias fell furthest on the scale of its weights, and its move, < 0; None if none fell."""
        found = _extreme(self.bias_move or (), -1)
        return found if found is not None and found[1] < 0 else None


@dataclass(frozen=True, slots=True)
class Difference:
    """What tells two states of one model apart.

    Attributes:
        old, new: what the states are called.
        steps: the training steps found in them, None where there is none.
        evidence: `intervention` with a model and data, `weights` without.
        samples: samples that both states were run on, 0 without data.
        probed: samples that the interventions were run on.
        sites: per activation, in order of first execution; empty without data.
        layers: per weight, in the order of the new state.
        lr: the learning rate of the update, where the states are one update apart and it is known.
        notes: what a reader must know.
    """

    old: str
    new: str
    steps: tuple[int | None, int | None]
    evidence: Literal["intervention", "weights"]
    samples: int
    probed: int
    sites: tuple[SiteDifference, ...]
    layers: tuple[LayerDifference, ...]
    lr: float | None = None
    notes: tuple[str, ...] = ()

    def __getitem__(self, site: str) -> SiteDifference:
        for found in self.sites:
            if found.site == site:
                return found
        raise KeyError(f"no site {site!r}; the sites are {', '.join(s.site for s in self.sites) or 'none'}")

    def __iter__(self) -> Iterator[SiteDifference]:
        return iter(self.sites)

    @property
    def deaths(self) -> int:
        """Units that died, over all sites."""
        return sum(len(site.deaths) for site in self.sites)

    @property
    def revivals(self) -> int:
        """Units that were silent and fire now, over all sites."""
        return sum(len(site.revivals) for site in self.sites)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types, schema `deadrelu.diff/1`; non-finite numbers become None."""
        told = {name: _plain(value) for name, value in asdict(self).items()}
        for layer, found in zip(told["layers"], self.layers, strict=True):
            layer["silenced"] = list(found.silenced)
        return {"schema": SCHEMA, "deaths": self.deaths, "revivals": self.revivals, **told}

    def to_json(self, path: str | Path | None = None) -> str:
        """Return it as JSON text, and write it to `path` if one is given."""
        return _written(self.to_dict(), path)

    def __str__(self) -> str:
        return screens.render("diff", self)


@dataclass(frozen=True, slots=True)
class Moment:
    """One checkpoint of a timeline. Without data, read "silent" as counted: proved silent, or without a gradient.

    Attributes:
        name: what it is called.
        step: the training step (or the number in its name), None if it has none.
        silent: per series, how many of its units are silent (with data), or proved silent or without a recent
            gradient (without). None where that is not known.
        births: units, over all series, that fire here and were silent in every checkpoint before.
        deaths: units that fired in the checkpoint before and are silent here.
        revivals: units that are silent in the checkpoint before, fired earlier, and fire here.
        causes: how many of the deaths have each cause, by site.
        revived_by: how many deaths are undone by taking back one part alone, by site.
    """

    name: str
    step: int | None
    silent: tuple[int | None, ...]
    births: int = 0
    deaths: int = 0
    revivals: int = 0
    causes: dict[str, dict[str, int]] = field(default_factory=dict)
    revived_by: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Series:
    """One activation (with data), or one layer (without), over all checkpoints.

    Attributes:
        site: its name.
        units: number of its units.
        silent: silent fraction at each checkpoint, in 0..1; None where it is not known.
        survival: of the units that were not silent in the first checkpoint, the fraction that has been silent in none
            since, in 0..1; None where it is not known.
    """

    site: str
    units: int
    silent: tuple[float | None, ...]
    survival: tuple[float | None, ...]

    @property
    def rise(self) -> float:
        """The largest rise of the silent fraction over its lowest before, in 0..1."""
        return max((rise or 0.0 for rise in self.rises()), default=0.0)

    def rises(self) -> list[float | None]:
        """Return at each checkpoint the rise of the silent fraction over its lowest value until then."""
        lowest, found = math.inf, []
        for fraction in self.silent:
            lowest = lowest if fraction is None else min(lowest, fraction)
            found.append(None if fraction is None else fraction - lowest)
        return found


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a row of checkpoints of one training says.

    Attributes:
        moments: the checkpoints, in order.
        series: one per site (with data) or layer (without), the worst first.
        order: by what they were put in order: the `step` inside, the `number` in the name, the `name`, or as `given`.
        order_name: the same in words.
        evidence: `data`: silent on the data given; `weights`: proved silent by zero rows, or without a gradient.
        samples: samples that each was run on, 0 without data.
        above: the rise of a site's silent fraction from which a checkpoint is bad, in 0..1.
        first_bad: index of the first checkpoint with such a rise, None if there is none.
        notes: what a reader must know.
    """

    moments: tuple[Moment, ...]
    series: tuple[Series, ...]
    order: Order
    order_name: str
    evidence: Literal["data", "weights"]
    samples: int
    above: float
    first_bad: int | None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types, schema `deadrelu.timeline/1`; non-finite numbers become None."""
        told = {name: _plain(value) for name, value in asdict(self).items()}
        first = None if self.first_bad is None else self.moments[self.first_bad].name
        return {"schema": TIMELINE_SCHEMA, **told, "first_bad_name": first}

    def to_json(self, path: str | Path | None = None) -> str:
        """Return it as JSON text, and write it to `path` if one is given."""
        return _written(self.to_dict(), path)

    def __str__(self) -> str:
        return screens.render("timeline", self)


def _extreme(values: Sequence[float | None], sign: int) -> tuple[int, float] | None:
    known = [(sign * value, -unit) for unit, value in enumerate(values) if value is not None and math.isfinite(value)]
    return (-max(known)[1], sign * max(known)[0]) if known else None


def _written(told: dict[str, Any], path: str | Path | None) -> str:
    text = json.dumps(told, indent=2, allow_nan=False)
    if path is not None:
        Path(path).write_text(text + "\n", encoding="utf-8")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

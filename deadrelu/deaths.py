"""Death and Event: what Monitor tells of units that died, came back, or are about to die."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Cause = Literal[
    "born_dead",
    "learning_rate",
    "bias_drift",
    "weight_drift",
    "weight_decay",
    "input_shift",
    "upstream_death",
    "non_finite",
    "unknown",
]
PARTS = ("weight", "decay", "bias", "input")
"""What moves the margin of a pre-activation, in the order of `Death.shares`."""


@dataclass(slots=True)
class Death:
    """One confirmed death of one unit.

    Attributes:
        site: name of the site.
        unit: index of the unit.
        last_fired: the last step with a firing, None if born dead.
        killed_by_step: the update after which it was silent: a date, not yet a cause; None if born dead.
        confirmed: the step at which the silence sufficed.
        revived: the step of the next firing, None while it is dead.
        born_dead: silent since the first step seen.
        resolution: steps between observations of the firing.
        cause: what killed it.
        cause_evidence: `trajectory` if the cause is read off what the run did.
        parameter: the parameter that did it, None if none is named.
        origin: the upstream site, for upstream_death and for an input that an upstream site moved.
        shares: how far each part moved the margin, in units of z; they sum to margin_after - margin_before.
        margin_before, margin_after: mean + 2 std of z when last healthy, and at the first silent observation.
        max_z_before, max_z_after: largest z of the last step with a firing, and of the step after it.
        kick: largest own step in mean z over std z of one update in the fatal stretch.
        lr: learning rate of the parameter's group at that kick.
        safe_lr: the learning rate that would have spared it, None if that is not known.
    """

    site: str
    unit: int
    last_fired: int | None
    killed_by_step: int | None
    confirmed: int
    revived: int | None = None
    born_dead: bool = False
    resolution: int = 1
    cause: Cause = "unknown"
    cause_evidence: Literal["trajectory", "intervention"] = "trajectory"
    parameter: str | None = None
    origin: str | None = None
    shares: dict[str, float] | None = None
    margin_before: float | None = None
    margin_after: float | None = None
    max_z_before: float | None = None
    max_z_after: float | None = None
    kick: float | None = None
    lr: float | None = None
    safe_lr: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of this death; non-finite numbers become None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Event:
    """Units of one site that died, came back or are at risk together.

    Attributes:
        kind: death, revival or risk.
        site: name of the site.
        steps: first and last step.
        units: the units.
        cause: the cause they share, None for a revival.
        lr: learning rate of the parameter that did it.
        safe_lr: the learning rate that would have spared `saved` of them, None if that is not known.
        saved: how many units that learning rate would have spared.
        remedy: what to do, in words.
    """

    kind: Literal["death", "revival", "risk"]
    site: str
    steps: tuple[int, int]
    units: tuple[int, ...]
    cause: Cause | None = None
    lr: float | None = None
    safe_lr: float | None = None
    saved: int | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        first, last = self.steps
        when = f"step {first}" if first == last else f"steps {first} to {last}"
        verb = {"death": "died", "revival": "revived", "risk": "at risk"}[self.kind]
        why = f" ({self.cause})" if self.cause else ""
        units = "1 unit" if self.count == 1 else f"{self.count} units"
        return f"{when}: {units} of {self.site} {verb}{why}: {self.remedy}"

    @classmethod
    def from_dict(cls, event: dict[str, Any]) -> Event:
        """Return the event that `to_dict` told of."""
        fields = {name: value for name, value in event.items() if name != "count"}
        return cls(**{**fields, "steps": tuple(event["steps"]), "units": tuple(event["units"])})

    @property
    def count(self) -> int:
        """Number of units."""
        return len(self.units)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of this event."""
        return {
            "kind": self.kind,
            "site": self.site,
            "steps": list(self.steps),
            "units": list(self.units),
            "count": self.count,
            "cause": self.cause,
            "lr": _plain(self.lr),
            "safe_lr": _plain(self.safe_lr),
            "saved": self.saved,
            "remedy": self.remedy,
        }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value

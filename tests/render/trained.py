"""Training reports made by hand, with the records of DESIGN 5.2 as the JSON has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from deadrelu.report import Report

from .handmade import HOSTILE, report, site

LOWER = "lower the learning rate (0.5) to a third or a tenth from step 948, or warm it up"


def death(site: str, unit: int, step: int | None, cause: str = "learning_rate", **of: Any) -> dict[str, Any]:
    """Make one record; `step` None is born dead. The silence sufficed 24 steps later."""
    born = step is None
    return {
        "site": site,
        "unit": unit,
        "last_fired": step,
        "killed_by_step": step,
        "confirmed": 24 if step is None else step + 24,
        "revived": None,
        "born_dead": born,
        "resolution": 1,
        "cause": "born_dead" if born else cause,
        "cause_evidence": "trajectory",
        "parameter": "fc2.weight",
        "origin": None,
        "shares": {"weight": -3.61, "decay": 0.0, "bias": -0.82, "input": -0.08},
        "margin_before": 0.31,
        "margin_after": -4.2,
        "max_z_before": 0.55,
        "max_z_after": -3.9,
        "kick": 4.6,
        "lr": 0.5,
        "safe_lr": None,
        **of,
    }


def event(
    site: str, units: Iterable[int], steps: tuple[int, int], cause: str | None = "learning_rate", **of: Any
) -> dict[str, Any]:
    """Make the event of these units."""
    units = list(units)
    return {
        "kind": "death",
        "site": site,
        "steps": list(steps),
        "units": units,
        "count": len(units),
        "cause": cause,
        "lr": 0.5,
        "safe_lr": None,
        "saved": None,
        "remedy": LOWER,
        **of,
    }


def trained(
    *sites: Any, deaths: Iterable[dict[str, Any]] = (), events: Iterable[dict[str, Any]] = (), **of: Any
) -> Report:
    """Make a training report."""
    return report(*sites, mode="training", deaths=tuple(deaths), events=tuple(events), **of)


_BACK = "firing again: nothing to do"

CASES: dict[str, Report] = {
    # 150 of fc2 at steps 948 to 950 (three of them fire again), 12 of fc1 by their falling biases, 4 born dead
    "spike": trained(
        site("relu1", 512, dead=16, rate=0.31),
        site("relu2", 256, dead=147, rate=0.05, rare=2),
        deaths=[
            *(death("relu2", i, 948 + i % 3, revived=1100 if i >= 147 else None) for i in range(150)),
            *(death("relu1", i, 300 + 40 * i, "bias_drift", parameter="fc1.bias") for i in range(12)),
            *(death("relu1", i, None) for i in range(12, 16)),
        ],
        events=[
            event("relu1", range(12, 16), (24, 24), "born_dead", remedy="never fired: re-initialise relu1"),
            *(
                event("relu1", [i], (300 + 40 * i,) * 2, "bias_drift", remedy="fc1.bias falls step after step")
                for i in range(12)
            ),
            event("relu2", range(150), (948, 950)),
            event("relu2", range(147, 150), (1100, 1100), None, kind="revival", remedy=_BACK),
        ],
    ),
    "healthy": trained(site("features.1", 64, rate=0.47), site("classifier.1", 256, rate=0.21)),
    "quiet": trained(site("fc1", 64, undecided=3), site("fc2", 64)),
    "risk": trained(
        site("fc2", 256),
        events=[
            event(
                "fc2", range(30), (400, 400), "bias_drift", kind="risk", remedy="12 biases of fc2 fall by 0.004 a step"
            ),
        ],
    ),
    "saved_by_itself": trained(
        site("act", 64),
        deaths=[death("act", i, 10, revived=200 + i) for i in range(5)],
        events=[
            event("act", range(5), (10, 10)),
            event("act", range(5), (200, 204), None, kind="revival", remedy=_BACK),
        ],
    ),
    "born_dead": trained(
        site("act", 64, dead=1),
        deaths=[death("act", 0, None)],
        events=[event("act", [0], (24, 24), "born_dead", lr=None, remedy="never fired: re-initialise act")],
    ),
    "twice": trained(
        site("act", 64, dead=2),
        deaths=[death("act", 0, 10, revived=80), death("act", 0, 300, "weight_decay"), death("act", 1, 300, "unknown")],
    ),
    "intervention": trained(
        site("act", 64, dead=40),
        deaths=[death("act", i, 948, cause_evidence="intervention", resolution=10) for i in range(40)],
        events=[
            event("act", range(40), (948, 948), safe_lr=0.03, saved=38, remedy="lr <= 0.03: 38 of 40 would be alive"),
        ],
    ),
    "non_finite": trained(
        site("act1", 64),
        site("act2", 64, dead=64, nan=64),
        deaths=[death("act2", i, 70, "non_finite", max_z_after=None) for i in range(64)],
        events=[event("act2", range(64), (70, 70), "non_finite", remedy="z is NaN or infinite: clip gradients")],
    ),
    "many": trained(
        *(site(f"model.decoder.layers.{i}.activation_fn", 1024, dead=min(i, 300)) for i in range(60)),
        deaths=[
            death(f"model.decoder.layers.{i}.activation_fn", u, 997 * i + u, "weight_drift" if i % 2 else "input_shift")
            for i in range(60)
            for u in range(min(i, 300))
        ],
        events=[
            event(f"model.decoder.layers.{i}.activation_fn", range(i), (997 * i, 998 * i), "weight_drift")
            for i in range(60)
        ],
    ),
    "hostile": trained(
        site(HOSTILE, 64, dead=40),
        site("層.活性化." * 12 + "終", 64, dead=1),
        deaths=[
            *(death(HOSTILE, i, 5, HOSTILE) for i in range(40)),
            death("層.活性化." * 12 + "終", 0, 10**9, revived=None),
        ],
        events=[
            event(HOSTILE, range(40), (5, 5), HOSTILE, remedy=HOSTILE * 3),
            event(HOSTILE, [41], (9, 9), "bias_drift", kind="risk", remedy=HOSTILE),
            event("gone", [0], (9, 9), None, kind="revival", remedy=None),
        ],
    ),
    "immune": trained(site("act", 64, op="gelu")),
    "empty": trained(),
}

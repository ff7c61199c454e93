"""Documents of the view, made by hand: odd runs, and one at the limit of size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]
DEAD, UNSEEN = 0, 255
RATE = {"low": 1e-4, "high": 1.0, "scale": "log"}


@dataclass
class Run:
    """One run as the view has it; cells are asked for by site and channel, shape (records, units)."""

    document: dict[str, Any]
    sites: dict[str, dict[str, Any]]
    codes: Callable[[str, str], Codes]
    kept: dict[tuple[str, str], Codes] = field(default_factory=dict)

    def cells(self, site: str, channel: str) -> bytes:
        if (site, channel) not in self.kept:
            self.kept[site, channel] = self.codes(site, channel)
        return self.kept[site, channel].tobytes()


def encode(values: NDArray[np.float64], channel: dict[str, Any], dead: NDArray[np.bool_] | None = None) -> Codes:
    """Return values as codes 1..254 of a channel, NaN as 255 and dead cells as 0."""
    low, high = channel["low"], channel["high"]
    if channel["scale"] == "log":
        place = np.log(np.maximum(values, low) / low) / np.log(high / low)
    else:
        place = (values - low) / (high - low)
    codes = np.where(np.isnan(place), UNSEEN, 1 + np.round(253 * np.clip(np.nan_to_num(place), 0, 1)))
    return np.where(dead, DEAD, codes).astype(np.uint8) if dead is not None else codes.astype(np.uint8)


def plain(values: Any) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def death(site: str, unit: int, step: int | None, **of: Any) -> dict[str, Any]:
    """One record of a death, as the JSON of a report has it; step None is born dead."""
    born = step is None
    return {
        "site": site, "unit": unit, "last_fired": step, "killed_by_step": step,
        "confirmed": 40 if step is None else step + 40, "revived": None, "born_dead": born, "resolution": 1,
        "cause": "born_dead" if born else "learning_rate", "cause_evidence": "trajectory",
        "parameter": None, "origin": None, "shares": None, "margin_before": None,
        "margin_after": None, "max_z_before": None, "max_z_after": None, "kick": None, "lr": 0.5, "safe_lr": None, **of,
    }  # fmt: skip


def event(site: str, units: list[int], steps: tuple[int, int], **of: Any) -> dict[str, Any]:
    return {
        "kind": "death", "site": site, "steps": list(steps), "units": units, "count": len(units),
        "cause": "learning_rate", "lr": 0.5, "safe_lr": None, "saved": None, "remedy": "lower the learning rate", **of,
    }  # fmt: skip


def site_document(name: str, units: int, steps: list[int], death_step: list[int | None]) -> dict[str, Any]:
    bias = {"low": -0.3, "high": 0.3, "scale": "linear"}
    grad = {"low": 1e-6, "high": 1e-2, "scale": "log"}
    return {
        "site": name,
        "units": units,
        "steps": steps,
        "channels": {"rate": RATE, "grad": grad, "bias": bias},
        "death_step": death_step,
    }


def made(
    name: str,
    sites: dict[str, int],
    steps: list[int],
    deaths: list[dict[str, Any]] = (),  # type: ignore[assignment]
    *,
    events: list[dict[str, Any]] = (),  # type: ignore[assignment]
    seed: int = 0,
    **of: Any,
) -> Run:
    """Make a run of sites and their units with these deaths; the rest fires at random rates."""
    at = np.array(steps)
    dies: dict[str, dict[int, dict[str, Any]]] = {}
    for d in deaths:
        dies.setdefault(d["site"], {})[d["unit"]] = d

    def dead(site: str, units: int) -> NDArray[np.bool_]:
        found = np.zeros((len(steps), units), bool)
        for unit, d in dies.get(site, {}).items():
            start = -1 if d["killed_by_step"] is None else d["killed_by_step"]
            found[(at > start) & (at < (np.inf if d["revived"] is None else d["revived"])), unit] = True
        return found

    def codes(site: str, channel: str) -> Codes:
        random = np.random.default_rng([seed, *channel.encode()])
        units = sites[site]
        found = np.empty((len(steps), units), np.uint8)
        found[:] = random.integers(60, 240, units, np.uint8)
        found += random.integers(0, 12, found.shape, np.uint8)
        found[dead(site, units)] = DEAD
        return found

    def held(site: str, units: int) -> list[int | None]:
        steps_of: list[int | None] = [None] * units
        for unit, d in dies.get(site, {}).items():
            if d["revived"] is None:
                steps_of[unit] = -1 if d["born_dead"] else d["killed_by_step"]
        return steps_of

    entries = []
    for site, units in sites.items():
        fractions = plain(dead(site, units).mean(1))
        entries.append(
            {
                "site": site, "op": "relu", "units": units, "can_die": True, "producers": ["fc"], "source": None,
                "dead_fraction": fractions, "silent_fraction": fractions, "bias_drift": plain(-1e-4 * at),
            }
        )  # fmt: skip
    count = sum(sites.values())
    dead_now = sum(s is not None for site, units in sites.items() for s in held(site, units))
    document = {
        "schema": "deadrelu.view/1", "run": name, "steps": steps,
        "verdict": {
            "tone": "bad" if dead_now else "good",
            "headline": f"{dead_now} of {count} units are dead" if dead_now else f"No unit died: all {count} fire.",
            "sentences": [
                {"text": f"{e['count']} units of {e['site']} died", "site": e["site"], "steps": e["steps"]}
                for e in events
            ],
        },
        "sites": entries,
        "dead_fraction": plain(np.full(len(steps), dead_now / max(1, count))),
        "rates": {"0": [0.1] * len(steps)},
        "loss": {"tag": "train/loss", "steps": steps, "values": plain(np.exp(-at / 500))},
        "deaths": list(deaths), "events": list(events), "causes": dict(Counter(d["cause"] for d in deaths)),
        "thinned": None, "finished": True, "evidence": "statistical", "samples": 128_000, **of,
    }  # fmt: skip
    site_documents = {s: site_document(s, units, steps, held(s, units)) for s, units in sites.items()}
    return Run(document, site_documents, codes)


STEPS = list(range(49, 2000, 50))


def story(name: str = "story", **of: Any) -> Run:
    """fc1 lost 2 of its 8 units, fc2 6 of 8, one of which came back."""
    deaths = [
        *(death("fc1", u, 300, cause="bias_drift", parameter="fc1.bias") for u in (1, 5)),
        *(death("fc2", u, 950, shares={"weight": -3.5, "decay": 0.0, "bias": -0.5, "input": 0.25}) for u in range(5)),
        death("fc2", 6, 950, revived=1500),
    ]
    events = [
        event("fc1", [1, 5], (300, 300), cause="bias_drift", remedy="lower the learning rate of fc1.bias"),
        event("fc2", [0, 1, 2, 3, 4, 6], (949, 951), safe_lr=0.03, saved=5),
        event("fc2", [6], (1500, 1500), kind="revival", cause=None, remedy="firing again"),
    ]
    return made(name, {"fc1": 8, "fc2": 8}, STEPS, deaths, events=events, **of)


HOSTILE = "<script>alert(1)</script>"
LONG = "very/long.'\"&" * 25


def odd() -> dict[str, Run]:
    """Return runs at the edges of what there can be, by name."""
    steps = STEPS
    runs = [
        made("quiet", {"fc1": 64, "fc2": 32}, steps),
        made("one step", {"fc1": 64}, [0], [death("fc1", 3, None)]),
        made("no step", {}, []),
        made("no layer", {}, steps),
        made("one unit", {"tiny": 1, "fc2": 8}, steps, [death("tiny", 0, 730)]),
        made("wide", {"wide": 65_536}, steps[:12], [death("wide", 4321, 130), death("wide", 60_000, 260)]),
        made(
            HOSTILE,
            {HOSTILE: 16, LONG: 16, "a/b": 4, "=1+1": 4, "turned\u202eround": 4},
            steps,
            [death(HOSTILE, 3, 400, cause=HOSTILE, parameter=HOSTILE, origin=LONG), death("=1+1", 0, 400)],
            events=[
                event(HOSTILE, [3], (400, 400), cause=HOSTILE, remedy=HOSTILE),
                event("=1+1", [0], (400, 400), remedy="@SUM(1+1)*cmd|' /C calc'!A0"),
            ],
        ),
    ]
    nan = made("nan", {"fc1": 16, "gelu": 16}, steps, [death("fc1", u, 600, cause="non_finite") for u in range(16)])
    nan.document["loss"]["values"] = [v if i < 12 else None for i, v in enumerate(nan.document["loss"]["values"])]
    nan.document["sites"][1].update(op="gelu", can_die=False, dead_fraction=[None] * len(steps))
    nan.document["sites"][0]["dead_fraction"][:3] = [None] * 3
    nan.document["sites"][0]["bias_drift"] = None
    nan.sites["fc1"]["channels"].update(grad=None, bias=None)
    return {run.document["run"]: run for run in [*runs, nan]}


def large(sites: int = 24, units: int = 4096, records: int = 2000) -> Run:
    """Return a run at the limit of what must open quickly; one unit in ten has died."""
    random = np.random.default_rng(1)
    steps = [50 * i + 49 for i in range(records)]
    names = [f"model.layers.{i}.mlp.act" for i in range(sites)]
    shares = {"weight": -1.5, "decay": 0.0, "bias": -0.1, "input": 0.2}
    deaths = [
        death(name, int(u), int(random.integers(100, 50 * records - 100)), shares=shares)
        for name in names
        for u in random.choice(units, units // 10, replace=False)
    ]  # fmt: skip
    return made("large", dict.fromkeys(names, units), steps, deaths)


def everything() -> dict[str, Run]:
    """Return all of them."""
    return {**odd(), "large": large()}

"""Planted causes are named, and nothing is said where nothing died.

Ground truth: scenarios.py plants one cause a run; the diary (brute.py) and the same run without its plant show, with
no Monitor involved, that the plant is what kills. Causes and verdict: DESIGN 5.2 and 6.4.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from typing import Any

import pytest

from .brute import compare
from .scenarios import HEALTHY, PLANTED, SPARSE
from .stage import Performance, Scenario

CAUSES = sorted({scenario.cause for scenario in PLANTED})
FIELDS = (
    "site unit last_fired killed_by_step confirmed revived born_dead resolution cause cause_evidence parameter origin "
    "shares margin_before margin_after max_z_before max_z_after kick lr safe_lr"
).split()
OWN = {"weight_drift": "weight", "weight_decay": "decay", "bias_drift": "bias"}


def name(scenario: Scenario) -> str:
    return scenario.name


@functools.cache
def performed(scenario: Scenario) -> Performance:
    """Run a scenario, once per session."""
    return scenario.run()


def planted(scenario: Scenario) -> list[Any]:
    """Return the deaths that the plant brought about: at its sites, of its dates if they are known."""
    born = scenario.cause == "born_dead"
    return [
        death
        for death in performed(scenario).monitor.deaths
        if death.site in scenario.sites
        and death.born_dead == born
        and (not scenario.dates or death.last_fired in scenario.dates)
    ]


def plain(scenario: Scenario) -> list[Any]:
    """Return what the diary alone says of the planted deaths."""
    diary = performed(scenario).diary
    lives = [life for site in scenario.sites for life in diary.deaths(site)]
    return [x for x in lives if not scenario.dates or x.last_fired in scenario.dates]


every = pytest.mark.parametrize("scenario", PLANTED, ids=name)


@every
def test_the_plant_kills(scenario: Scenario) -> None:
    """The ground truth itself: units die with the plant, hardly any without it (by the diary alone)."""
    assert len(plain(scenario)) >= scenario.least
    if scenario.cause == "born_dead":
        return
    control = scenario.without().run(watched=False).diary
    lives = [life for site in scenario.sites for life in control.deaths(site) if not life.born_dead]
    died = [life for life in lives if not scenario.dates or life.last_fired in scenario.dates]
    assert len(died) <= 0.1 * len(plain(scenario))


@every
def test_the_deaths_are_dated(scenario: Scenario) -> None:
    """What Monitor tells agrees with the diary."""
    run = performed(scenario)
    compare(run.monitor, run.diary)


@every
def test_the_cause_is_named(scenario: Scenario) -> None:
    """95 % of the deaths of a run, and all but one of a few, are given the cause that was planted."""
    deaths = planted(scenario)
    assert len(deaths) >= min(scenario.least, len(plain(scenario)))
    found = Counter(death.cause for death in deaths)
    assert found[scenario.cause] >= min(math.ceil(0.95 * len(deaths)), max(len(deaths) - 1, 1)), found


@pytest.mark.parametrize("cause", CAUSES)
def test_the_cause_is_named_over_all_runs(cause: str) -> None:
    """At least 95 % of the deaths with a planted cause are named right, cause by cause."""
    found = Counter(death.cause for scenario in PLANTED if scenario.cause == cause for death in planted(scenario))
    assert found[cause] >= 0.95 * found.total(), found


@every
def test_parameter_and_origin(scenario: Scenario) -> None:
    """The parameter that did it is named, and the upstream site."""
    deaths = [death for death in planted(scenario) if death.cause == scenario.cause]
    if scenario.parameter is not None:
        assert {death.parameter for death in deaths} == {scenario.parameter}
    if scenario.origin is not None:
        assert {death.origin for death in deaths} == {scenario.origin}
    if scenario.cause == "learning_rate":
        lr = max(group["lr"] for group in spiked(scenario))
        assert Counter(death.lr for death in deaths).most_common(1)[0][0] == pytest.approx(lr)


def spiked(scenario: Scenario) -> list[dict[str, Any]]:
    """Return the parameter groups as they are at the planted update."""
    world = scenario.build()
    scenario.before(world, scenario.dates[0])
    return world.optimizer.param_groups


@every
def test_shares(scenario: Scenario) -> None:
    """The shares sum to the change of the margin; that of the planted part is the largest fall (DESIGN 5.2, 6.4)."""
    for death in planted(scenario):
        if death.born_dead or scenario.cause == "non_finite" or death.shares is None:
            continue
        assert set(death.shares) == {"weight", "decay", "bias", "input"}
        change = death.margin_after - death.margin_before
        assert math.isclose(sum(death.shares.values()), change, rel_tol=1e-3, abs_tol=1e-3), death
        if death.cause in OWN:
            assert min(death.shares, key=death.shares.__getitem__) == OWN[death.cause], death
        if death.cause in ("input_shift", "upstream_death"):
            assert min(death.shares, key=death.shares.__getitem__) == "input", death


@pytest.mark.parametrize("scenario", HEALTHY + SPARSE, ids=name)
def test_nothing_died(scenario: Scenario) -> None:
    """Healthy runs, and sparse ones that are alive: no death, no event (DESIGN 1: sparsity is not death)."""
    run = performed(scenario)
    assert [life for site in run.diary.ears for life in run.diary.deaths(site)] == []
    assert run.monitor.deaths == []
    assert run.monitor.events == []
    report = run.monitor.report()
    assert report.dead == 0
    assert report.dead_fraction == 0


def test_the_sparse_are_sparse() -> None:
    """The ground truth itself: the planted layers fire on a small part of what they see."""
    for scenario in SPARSE[:2]:
        last = performed(scenario).diary.steps[-1]["act1"]
        assert (last.fired / last.rows).mean() < 0.2, scenario.name


@pytest.mark.parametrize("scenario", [PLANTED[0]], ids=name)
def test_the_report(scenario: Scenario) -> None:
    """Deaths and events of the report are those of the monitor, as JSON with exactly the fields of DESIGN 5.2."""
    monitor = performed(scenario).monitor
    report = monitor.report().to_dict()
    assert (report["schema"], report["mode"]) == ("deadrelu.report/1", "training")
    assert [list(death) for death in report["deaths"]] == [FIELDS] * len(monitor.deaths)
    for death, told in zip(report["deaths"], monitor.deaths, strict=True):
        for field in FIELDS:
            value = getattr(told, field)
            assert death[field] == (None if isinstance(value, float) and not math.isfinite(value) else value), field
    assert len(report["events"]) == len(monitor.events)
    in_events = [(e["site"], unit) for e in report["events"] if e["kind"] == "death" for unit in e["units"]]
    assert sorted(in_events) == sorted((d["site"], d["unit"]) for d in report["deaths"])
    for event in report["events"]:
        assert event["count"] == len(event["units"])
        assert event["steps"][0] <= event["steps"][1]
        if event["kind"] == "death":
            assert event["remedy"]
    assert str(monitor.report())


def test_on_event_and_stop() -> None:
    """`on_event` hears each event once, as it happens; `stop_when` ends training with a DeadReluError."""
    from deadrelu.errors import DeadReluError

    heard: list[Any] = []
    run = PLANTED[0].run(on_event=heard.append)
    assert [(e.kind, e.site, tuple(e.units)) for e in heard] == [
        (e.kind, e.site, tuple(e.units)) for e in run.monitor.events
    ]
    with pytest.raises(DeadReluError):
        PLANTED[0].run(stop_when=0.1)
    with pytest.raises(DeadReluError):
        PLANTED[0].run(stop_when=lambda monitor: len(monitor.deaths) >= 5)
    PLANTED[0].run(stop_when=0.99)

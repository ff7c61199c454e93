"""Who is about to die, and what is about to overflow, is said while there is time; a healthy run hears nothing.

Ground truth: the margin mean + 2 std of z (DESIGN 6.4) over every batch of the run, by a plain hook, smoothed over 15
steps; `left` of a warning is right if the smoothed margin is under zero, or the unit dead, within half to twice of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import deadrelu

from .scenarios import HEALTHY, SPARSE, falling_bias, pulled
from .stage import Scenario, digits, sgd, standard

SMOOTH = 7


@dataclass
class Margins:
    """The margin of every unit of one site at every step."""

    seen: list[Tensor] = field(default_factory=list)

    def hear(self, module: nn.Module, args: Any, z: Tensor) -> None:
        if module.training:
            flat = z.detach().transpose(0, 1).flatten(1)
            self.seen.append(flat.mean(1) + 2 * flat.std(1))

    def zero(self, unit: int, after: int) -> int | None:
        """Return the first step from `after` on at which the smoothed margin is under zero."""
        path = torch.stack(self.seen)[:, unit].numpy()
        for step in range(after, len(path)):
            if np.median(path[max(0, step - SMOOTH) : step + SMOOTH + 1]) < 0:
                return step
        return None


@dataclass(frozen=True)
class Warned:
    """One unit of one `risk` event: at which step it was told, and in how many steps it meets zero."""

    site: str
    unit: int
    step: int
    left: float


def play(scenario: Scenario, seed: int = 0) -> tuple[Any, dict[str, Margins], list[Warned]]:
    """Train under a Monitor and listen to the margins; return the monitor, the margins, the warnings."""
    world, margins = scenario.build(seed), {site: Margins() for site in ("act1", "act2")}
    for site, listener in margins.items():
        world.model.get_submodule(f"{world.last}{site[-1]}").register_forward_hook(listener.hear)
    with deadrelu.Monitor(world.model, world.optimizer, strict=True) as monitor:
        for step, (x, y) in zip(range(scenario.steps), scenario.batches(), strict=False):
            scenario.before(world, step)
            out = world.model(scenario.inputs(x, step))
            world.optimizer.zero_grad()
            scenario.loss(world, out, y, step).backward()
            world.optimizer.step()
            with torch.no_grad():
                scenario.after(world, step)
    return monitor, margins, warnings(monitor)


def warnings(monitor: Any) -> list[Warned]:
    """Return the warnings, unit by unit; the numbers of an event are those of its middle unit."""
    found = []
    for event in monitor.events:
        told = re.search(r"meets? zero in about (\d+) steps", event.remedy or "")
        if event.kind == "risk" and event.cause is None:
            assert told is not None, event.remedy
            found += [Warned(event.site, unit, event.steps[1], float(told[1])) for unit in event.units]
    return found


def happened(monitor: Any, margins: dict[str, Margins], warned: Warned) -> int | None:
    """Return in how many steps a unit that was warned of met zero or died, None if it did not."""
    met = margins[warned.site].zero(warned.unit, warned.step)
    dates = [d.last_fired for d in monitor.deaths if (d.site, d.unit) == (warned.site, warned.unit) and d.last_fired]
    dates = [date + 1 for date in dates if date >= warned.step - SMOOTH]
    dates += [met] if met is not None else []
    return max(0, min(dates) - warned.step) if dates else None


def slow(net: str, layer: int, by: float, steps: int) -> Scenario:
    """Return a run in which the biases of a layer fall by so much a step."""
    return Scenario(
        f"{net}-{layer}-{by}", net, "bias_drift", (f"act{layer}",), steps, sgd(0.01), after=falling_bias(layer, by)
    )


SLOW = (
    slow("mlp", 1, 0.008, 500),
    slow("mlp-bn", 1, 0.006, 600),
    slow("cnn", 1, 0.008, 450),
    replace(
        slow("mlp", 1, 0.0, 500),
        name="pulled",
        after=lambda *_: None,
        loss=pulled(lambda world: world.bias().sum(), 0.5),
    ),
)


@pytest.mark.parametrize("scenario", SLOW, ids=lambda s: s.name)
def test_a_slow_drift_is_foretold(scenario: Scenario) -> None:
    """Half of the units that a slowly falling bias kills were warned of, in time to act, at the right parameter.

    The numbers of an event are those of its middle unit: the steps that it tells are right within a factor of two.
    """
    monitor, margins, warned = play(scenario)
    site = scenario.sites[0]
    died = {d.unit: d.last_fired for d in monitor.deaths if d.site == site and d.last_fired and d.last_fired > 150}
    before = {w.unit: w.step for w in warned if w.site == site}
    foretold = [unit for unit, date in died.items() if before.get(unit, date) < date]
    assert len(died) >= 8
    assert len(foretold) >= 0.5 * len(died), (len(foretold), len(died))
    assert np.median([died[unit] - before[unit] for unit in foretold]) >= 40
    parameter = "bn1.bias" if scenario.net.endswith("bn") else "fc1.bias"
    said = [e for e in monitor.events if e.kind == "risk" and e.site == site]
    assert sum(e.count for e in said if parameter in (e.remedy or "")) >= 0.7 * sum(e.count for e in said)
    for step, left in {(w.step, w.left) for w in warned if w.site == site}:
        together = [w for w in warned if (w.site, w.step) == (site, step)]
        ends = [happened(monitor, margins, w) for w in together]
        if len(ends) < 4 or step + 3 * left > scenario.steps:
            continue
        assert sum(end is None for end in ends) <= 0.15 * len(ends)
        middle = float(np.median([scenario.steps if end is None else end for end in ends]))
        assert max(left, 10) / 2 <= max(middle, 10) <= 2 * max(left, 10), (step, left, sorted(map(str, ends)))


MORE = tuple(replace(scenario, steps=400) for scenario in (*HEALTHY[:6:2], *SPARSE))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("scenario", MORE, ids=lambda s: s.name)
def test_the_living_are_not_at_risk(scenario: Scenario, seed: int) -> None:
    """Healthy runs, and sparse ones that are alive, for longer: at most one unit in a hundred is ever named."""
    monitor, _, warned = play(scenario, seed)
    units = sum(site.units for site in monitor.report())
    assert len({(w.site, w.unit) for w in warned}) <= 0.01 * units, warned


# -- explosions ----------------------------------------------------------------------------------------------------


def small(depth: int, scale: float) -> nn.Sequential:
    """Return hidden layers of 64 units whose weights start out far too small, or too large."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(64, 64)
        nn.init.kaiming_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    return model


def grown(
    model: nn.Sequential,
    optimizer: torch.optim.Optimizer,
    steps: int,
    act: Callable[[int], Any] = lambda _: None,
    **options: Any,
) -> tuple[Any, NDArray[np.float64], list[float]]:
    """Train on the digits; return the monitor, the largest z of the last site by step, and the losses."""
    tops: list[float] = []
    losses = []
    model[-3].register_forward_hook(lambda _, __, z: tops.append(float(z.detach().max())))
    generator, (x, y) = torch.Generator().manual_seed(1), (standard(), digits()[1])
    with deadrelu.Monitor(model, optimizer, strict=True, **options) as monitor:
        for step in range(steps):
            rows = torch.randint(len(x), (128,), generator=generator)
            loss = F.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            with torch.no_grad():
                act(step)
    return monitor, np.array(tops), losses


def explosions(monitor: Any) -> list[Any]:
    return [e for e in monitor.events if e.kind == "risk" and e.cause == "non_finite"]


@pytest.mark.parametrize("factor", [1.015, 1.05, 1.1])
def test_growth_without_bound_is_said_before_it_is_infinite(factor: float) -> None:
    """A weight grows by a constant factor a step: said once a site, while z is finite, with z as it then was."""
    torch.manual_seed(0)
    model = small(2, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def grow(step: int) -> None:
        if step > 60:
            model[2].weight.mul_(factor)

    steps = int(60 + np.log(1e36) / np.log(factor))
    monitor, tops, _ = grown(model, optimizer, min(steps, 1500), grow)
    assert np.isfinite(tops).all()
    found = explosions(monitor)
    assert [e.site for e in found].count("3") == 1
    assert "1" not in {e.site for e in found}
    (event,) = (e for e in found if e.site == "3")
    said = re.search(r"z has reached (\S+)", event.remedy)
    assert said is not None
    window = tops[event.steps[1] - 49 : event.steps[1] + 1]
    assert float(said[1]) == pytest.approx(window.max(), rel=0.01)
    assert len(event.units) == 1


CASES = [(depth, scale, window) for depth, scale in ((3, 0.01), (6, 0.1)) for window in (5, 10, 20, 50)]


@pytest.mark.parametrize(("depth", "scale", "window"), CASES)
def test_a_healthy_network_that_starts_out_small_grows(depth: int, scale: float, window: int) -> None:
    """Weights that start out small grow a thousandfold while the loss falls: that is learning, not an explosion."""
    torch.manual_seed(0)
    model = small(depth, scale)
    monitor, tops, losses = grown(model, torch.optim.Adam(model.parameters(), lr=1e-3), 200, window=window)
    assert losses[-1] < 0.8 * losses[0]
    assert tops[-20:].max() > 100 * tops[:5].max()  # the ground truth itself
    assert explosions(monitor) == []


def test_large_inputs_are_no_explosion() -> None:
    """z is large from the start where the features are in the millions; it does not grow."""
    torch.manual_seed(0)
    model = small(2, 1.0)
    with torch.no_grad():
        model[0].weight.mul_(1e6)
    monitor, tops, _ = grown(model, torch.optim.SGD(model.parameters(), lr=1e-12), 150)
    assert tops.max() > 1e5
    assert explosions(monitor) == []

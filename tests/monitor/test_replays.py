"""What a learning-rate death means: a lower rate spares the unit, and `safe_lr` is where that begins.

Ground truth: the same training is run again, by hand, at other learning rates (DESIGN 5.2, 6.4, 6.5).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deadrelu

from .scenarios import layer_groups
from .stage import BATCH, Scenario, digits, mlp, sgd, standard

STEPS = 120


def adam(lr: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.Adam(model.parameters(), lr=lr)


def adamw(lr: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.AdamW(model.parameters(), lr=lr)


def momentum(lr: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return sgd(lr, 0.9)


# net, optimizer, a rate that is too high from the start, the rungs of the ladder that are tried
HIGH = (
    ("mlp", sgd, 2.0, (10,)),
    ("mlp", momentum, 0.3, (10,)),
    ("mlp", adam, 0.1, (10,)),
    ("mlp-bn", adamw, 0.1, (10,)),
    ("mlp-bn", momentum, 0.3, (10,)),
)


def alive_at(net: str, make: Callable[[float], Any], lr: float, rung: int) -> dict[str, Tensor]:
    """Train from the same start at lr/rung for as many times the steps; return which units fire on the data."""
    scenario = Scenario("replay", net, "", optimizer=make(lr / rung))
    world, fired = scenario.build(), dict[str, Tensor]()
    for _, (x, y) in zip(range(STEPS * rung), scenario.batches(), strict=False):
        world.optimizer.zero_grad()
        F.cross_entropy(world.model(x), y).backward()
        world.optimizer.step()
    for i in (1, 2):
        world.model.get_submodule(f"{world.last}{i}").register_forward_hook(
            lambda _, __, z, site=f"act{i}": fired.__setitem__(site, (z > 0).any(dim=0))
        )
    with torch.no_grad():
        world.model(standard())
    return fired


def test_organic_deaths_of_a_rate_that_is_too_high() -> None:
    """Of the deaths that a lower rung of the ladder prevents, 85 % are called learning-rate deaths."""
    right, spared, wrong = 0, 0, []
    for net, make, lr, rungs in HIGH:
        run = Scenario("high", net, "learning_rate", steps=STEPS, optimizer=make(lr)).run()
        deaths = [d for d in run.monitor.deaths if not d.born_dead]
        ladder = [alive_at(net, make, lr, rung) for rung in rungs]
        lower = [d for d in deaths if any(fired[d.site][d.unit] for fired in ladder)]
        assert len(lower) >= 5, (net, lr)
        spared += len(lower)
        right += sum(d.cause == "learning_rate" for d in lower)
        wrong += [(net, lr, d.site, d.cause, d.kick) for d in lower if d.cause != "learning_rate"]
    assert right >= 0.85 * spared, wrong


class Spike:
    """Full-batch SGD, so that the batches of the fatal stretch are one batch; one update is far too long."""

    def __init__(self, at: int, lr: float, group: int | None, norm: bool = False) -> None:
        torch.manual_seed(0)
        self.model = mlp(norm)
        self.at, self.lr, self.group = at, lr, group
        self.x, self.y = digits()[0][: 8 * BATCH], digits()[1][: 8 * BATCH]
        self.before: nn.Module = self.model
        self.gradients: list[Tensor] = []

    def train(self) -> Any:
        """Train under a Monitor; keep what the killing update started from."""
        optimizer = layer_groups(0.05)(self.model)
        with deadrelu.Monitor(self.model, optimizer, strict=True, window=10) as monitor:
            for step in range(self.at + 25):
                optimizer.zero_grad()
                F.cross_entropy(self.model(self.x), self.y).backward()
                for i, group in enumerate(optimizer.param_groups):
                    group["lr"] = self.lr if step == self.at and self.group in (None, i) else 0.05
                if step == self.at:
                    self.keep()
                optimizer.step()
        return monitor

    def keep(self) -> None:
        """Keep weights and gradients, in a model without hooks."""
        self.before = mlp(any(isinstance(m, nn.BatchNorm1d) for m in self.model.modules()))
        self.before.load_state_dict(copy.deepcopy(self.model.state_dict()))
        self.gradients = [p.grad.clone() for p in self.model.parameters() if p.grad is not None]

    def fires(self, lr: float) -> dict[str, Tensor]:
        """Make the killing update at another rate and return which units fire on the batch."""
        model, fired = copy.deepcopy(self.before), dict[str, Tensor]()
        with torch.no_grad():
            for (name, p), g in zip(model.named_parameters(), self.gradients, strict=True):
                layer = 2 if name.startswith("out") else int(name.split(".")[0][-1]) - 1
                p -= (lr if self.group in (None, layer) else 0.05) * g
        last = "bn" if any(isinstance(m, nn.BatchNorm1d) for m in model.modules()) else "fc"
        for i in (1, 2):
            model.get_submodule(f"{last}{i}").register_forward_hook(
                lambda _, __, z, site=f"act{i}": fired.__setitem__(site, (z > 0).any(dim=0))
            )
        with torch.no_grad():
            model(self.x)
        return fired


@pytest.mark.parametrize(
    ("at", "lr", "group", "norm"),
    [(24, 30.0, None, False), (36, 10.0, None, False), (24, 30.0, 1, False), (36, 300.0, None, True)],
    ids=["all", "all-less", "layer2", "batchnorm"],
)
def test_safe_lr(at: int, lr: float, group: int | None, norm: bool) -> None:
    """Alive at 0.9 of `safe_lr` and silent at 1.1 of it, for 90 % of the deaths that have one (DESIGN 6.4)."""
    spike = Spike(at, lr, group, norm)
    deaths = [d for d in spike.train().deaths if d.last_fired == at and d.cause == "learning_rate"]
    assert len(deaths) >= 3
    told = [d for d in deaths if d.safe_lr is not None]
    assert len(told) >= 0.5 * len(deaths), "a mass death in one update can be replayed"
    assert all(0 < d.safe_lr < lr for d in told)
    good = sum(
        bool(spike.fires(0.9 * d.safe_lr)[d.site][d.unit]) and not spike.fires(1.1 * d.safe_lr)[d.site][d.unit]
        for d in told
    )
    assert good >= 0.9 * len(told)


def test_events_of_a_mass_death() -> None:
    """Units of a site that die together are one event, with a remedy in numbers (DESIGN 5.2)."""
    spike = Spike(24, 30.0, None)
    monitor = spike.train()
    for site in ("act1", "act2"):
        dead = {d.unit for d in monitor.deaths if d.site == site and d.last_fired == 24}
        events = [e for e in monitor.events if (e.kind, e.site) == ("death", site) and e.steps[0] <= 24 <= e.steps[1]]
        (event,) = (e for e in events if e.cause == "learning_rate")
        assert len(dead & set(event.units)) >= 0.9 * len(dead)
        assert event.lr == pytest.approx(30.0)
        if event.safe_lr is not None:
            fires = spike.fires(event.safe_lr)[site]
            assert sum(bool(fires[unit]) for unit in event.units) == pytest.approx(event.saved, abs=1)

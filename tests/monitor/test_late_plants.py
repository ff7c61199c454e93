"""Causes that set in late, after a long calm stretch in which little is captured.

A penalty that is switched on, and a rate that is raised, at step 650 of a run that was sound until then. The causes are
known because nothing dies in the same run without them (asserted).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import deadrelu

ONSET, END = 650, 900
Plant = Callable[[nn.Sequential, torch.optim.Optimizer, torch.Tensor], torch.Tensor | float]


def run(plant: Plant | None) -> tuple[deadrelu.Monitor, list[bool]]:
    """Train on standardised digits; the plant adds to the loss, and may change rates, from the onset on."""
    torch.manual_seed(0)
    digits = load_digits()
    x = torch.tensor(digits.data, dtype=torch.float32)
    x, y = (x - x.mean(0)) / (x.std(0) + 1e-6), torch.tensor(digits.target)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    calm = []
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for step in range(END):
            if step == ONSET:
                calm.append(monitor._schedule._calm)
            rows = torch.randint(len(x), (128,))
            planted = plant(model, optimizer, torch.tensor(step)) if plant and step >= ONSET else 0.0
            loss = F.cross_entropy(model(x[rows]), y[rows]) + planted
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return monitor, calm


def causes(monitor: deadrelu.Monitor, site: str) -> Counter[str]:
    return Counter(d.cause for d in monitor.deaths if d.site == site and not d.born_dead and d.last_fired >= ONSET)


def test_nothing_dies_without_a_plant() -> None:
    monitor, calm = run(None)
    assert calm == [True]  # otherwise the other tests say nothing
    assert not [d for d in monitor.deaths if not d.born_dead]


@pytest.mark.parametrize(
    ("layer", "site", "strength", "least"),
    [(0, "1", 3.0, 40), (2, "3", 2.0, 40), (2, "3", 1.0, 8)],
    ids=["first", "second", "slow"],
)
def test_a_bias_that_is_pulled_down(layer: int, site: str, strength: float, least: int) -> None:
    """Steep (dead within 20 updates) and slow."""
    monitor, _ = run(lambda model, *_: strength * model[layer].bias.sum())
    found = causes(monitor, site)
    assert found.total() >= least
    assert found["bias_drift"] >= 0.95 * found.total(), found  # DESIGN 10: the aim for planted causes


def test_a_rate_that_is_raised() -> None:
    """One update at a rate of 300 between two captures."""

    def spike(model: nn.Sequential, optimizer: torch.optim.Optimizer, step: torch.Tensor) -> float:
        optimizer.param_groups[0]["lr"] = 300.0 if int(step) == ONSET + 13 else 0.01
        return 0.0

    monitor, _ = run(spike)
    deaths = [d for d in monitor.deaths if d.last_fired == ONSET + 13]
    assert deaths
    assert {(d.cause, d.lr) for d in deaths if d.origin is None} == {("learning_rate", 300.0)}


def test_features_that_vanish_from_the_data_have_not_died() -> None:
    """The inputs of the first layer turn to zero: no unit upstream did that."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 2))
    with torch.no_grad():
        model[0].bias.fill_(-0.3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for step in range(200):
            x = torch.randn(128, 32)
            model(x * (step < 60)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    found = Counter(d.cause for d in monitor.deaths)
    assert found == {"input_shift": 48}
    assert all(d.last_fired == 59 for d in monitor.deaths)

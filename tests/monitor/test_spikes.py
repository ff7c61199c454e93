"""A rate that was far too high for an update: what dies in the next ones, of large gradients, is told of it."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import deadrelu
from deadrelu.groups import RECENT, SPIKE, Groups


def spike_of(rates: list[list[float]], step: int) -> tuple[int, float] | None:
    """The slow way: look at every update up to this one, and back from it to where its rate began."""
    found: list[tuple[float, int]] = []
    for own in zip(*rates, strict=True):
        for s in range(step + 1):
            if s < step and own[s + 1] == own[s]:
                continue  # not the last with this rate
            rise = s
            while rise > 0 and own[rise - 1] == own[s]:
                rise -= 1
            stands_out = rise > 0 and own[s] > SPIKE * own[rise - 1]
            if s < step and own[s] > SPIKE * own[step] and stands_out and s >= step - RECENT:
                found.append((own[s], s))
            if s == step and stands_out and rise >= step - RECENT:
                found.append((own[s], s))
    return max(found)[::-1] if found else None


@pytest.mark.parametrize("seed", range(20))
def test_every_update_is_looked_at(seed: int) -> None:
    """Source: `spike_of`, on two groups whose rates change at random, sometimes, and stay for a while."""
    draw = torch.Generator().manual_seed(seed)
    layers = nn.Linear(2, 2), nn.Linear(2, 2)
    model = nn.ModuleList(layers)
    optimizer = torch.optim.SGD([{"params": layer.parameters(), "lr": 0.1} for layer in layers])
    groups, rates = Groups(model, [optimizer]), []
    for step in range(60):
        for group in optimizer.param_groups:
            if torch.rand((), generator=draw) < 0.2:
                group["lr"] = float(10 ** torch.empty(()).uniform_(-3, 1, generator=draw))
        rates.append([group["lr"] for group in optimizer.param_groups])
        groups.after_update(optimizer, step, wait=True)
    found = [groups.spike(step) for step in range(60)]
    assert found == [spike_of(rates, step) for step in range(60)]
    assert any(found)
    assert not all(found)


def remedies(base: float, spike: float, momentum: float, snapshots: int) -> list[str]:
    """Return what the events of a training say of the learning rate; it is `spike` in update 83."""
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=base, momentum=momentum)
    with deadrelu.Monitor(model, optimizer, strict=True, snapshot_memory=snapshots) as monitor:
        for step in range(200):
            optimizer.param_groups[0]["lr"] = spike if step == 83 else base
            rows = torch.randint(len(x), (128,))
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return [e.remedy for e in monitor.events if e.kind == "death" and e.cause == "learning_rate" and e.steps[0] >= 83]


def test_the_remedy_names_the_spike_before() -> None:
    """Momentum carries on: most die some updates later, at the usual rate, and lowering that one is no remedy."""
    told = remedies(0.02, 5.0, 0.9, 64 * 2**20)
    late = [remedy for remedy in told if "(it was 0.02" in remedy]
    assert late, told
    assert all(", and 5 at step 83: mend that first)" in remedy for remedy in late), late
    assert not any("warm-up" in remedy for remedy in told), told


def test_a_spike_wants_no_warm_up() -> None:
    """It comes in the first hundred steps, and yet no ramp would have kept it away."""
    told = remedies(0.02, 20.0, 0.0, 64 * 2**20)
    assert any(re.match(r"lr <= \S+ at step 83 \(it was 20\): ", remedy) for remedy in told), told
    assert not any("warm-up" in remedy for remedy in told), told


def test_a_rate_that_is_lowered_leaves_no_spike() -> None:
    """It was the usual one, and a schedule has come to its next step; nor does a ramp leave one."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    groups = Groups(model, [optimizer])
    for step in range(60):
        optimizer.param_groups[0]["lr"] = 0.1 if step < 20 else 0.01 * 1.1 ** (step - 20)
        groups.after_update(optimizer, step, wait=True)
    assert [groups.spike(step, 0.1) for step in range(60)] == [None] * 60


def test_without_replays_the_spike_is_named_alone() -> None:
    told = remedies(0.05, 200.0, 0.0, 0)
    assert told
    assert set(told) == {"the learning rate was 200 at step 83: mend that first"}

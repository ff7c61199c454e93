"""A bound on the overhead: fewer steps are observed, and the dates say how coarse they are."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import deadrelu
from deadrelu.errors import ModelError

KILLED = 700


def train(
    bound: float | None, *, watch: bool = True
) -> tuple[list[float], list[torch.Tensor], deadrelu.Monitor | None]:
    """Train a small network, one unit of which is silenced after update KILLED."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor = deadrelu.Monitor(model, optimizer, strict=True, max_overhead=bound) if watch else None
    losses, followed = [], 0
    for step in range(2500):
        x, y = torch.randn(256, 16), torch.randint(4, (256,))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        followed += bool(model[1]._forward_pre_hooks)
        optimizer.step()
        losses.append(loss.item())
        if step == KILLED:
            with torch.no_grad():
                model[0].bias[5] = -100.0
    if monitor is not None:
        assert monitor.steps == 2500
        if bound is not None:
            assert followed < 1000, "between two observed steps the hooks are gone"
        monitor.close()
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    return losses, [p.detach().clone() for p in model.parameters()], monitor


def test_dates_are_as_coarse_as_they_say(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="deadrelu"):
        losses, weights, monitor = train(1e-4)
    plain, bare, _ = train(None, watch=False)
    assert losses == plain
    assert all(torch.equal(a, b) for a, b in zip(weights, bare, strict=True))
    assert monitor is not None
    assert monitor.resolution >= 8
    assert f"one step in {monitor.resolution} is observed" in caplog.text
    (death,) = [d for d in monitor.deaths if not d.born_dead]
    assert death.unit == 5
    assert death.resolution > 1
    assert death.last_fired <= KILLED < death.last_fired + death.resolution


def test_a_generous_bound_changes_nothing() -> None:
    _, _, monitor = train(None)
    assert monitor is not None
    assert (monitor.resolution, [(d.unit, d.last_fired, d.resolution) for d in monitor.deaths]) == (1, [(5, KILLED, 1)])


@pytest.mark.parametrize("bound", [0, -0.1, float("nan"), float("inf")])
def test_bounds_that_mean_nothing(bound: float) -> None:
    with pytest.raises(ModelError, match="max_overhead"):
        deadrelu.Monitor(nn.ReLU(), max_overhead=bound)

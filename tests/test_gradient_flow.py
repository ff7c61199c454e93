"""What passes through a unit: the gradient at its pre-activation, against autograd, and inputs that are all 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import deadrelu


class ByHand(nn.Module):
    """Two layers written out, so that autograd can be asked for dL/dz: convolution, then Linear."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.conv, self.relu = nn.Conv1d(2, 6, 3), nn.ReLU(inplace=inplace)
        self.map, self.act, self.head = nn.Linear(6, 5), nn.LeakyReLU(0.1, inplace=inplace), nn.Linear(5, 2)
        with torch.no_grad():
            self.conv.bias[1] = -100.0  # dead
            self.map.weight[:, 3] = 0.0  # active, but nobody listens: gradient-dead

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv(x)).mean(-1)
        return self.head(self.act(self.map(x)))

    def flow(self, batches: list[torch.Tensor], loss: Callable[..., torch.Tensor]) -> list[np.ndarray]:
        """Return the root mean square of dL/dz per unit, over the (sample, position) pairs of all batches."""
        squares = [torch.zeros(6), torch.zeros(5)]
        pairs = [0, 0]
        for x in batches:
            z1 = self.conv(x).detach().requires_grad_()
            z2 = self.map(F.relu(z1).mean(-1))
            z2.retain_grad()
            loss(self.head(F.leaky_relu(z2, 0.1)), x).backward()
            for i, grad in enumerate((z1.grad.movedim(1, -1).flatten(0, 1), z2.grad)):
                squares[i] += grad.square().sum(0)
                pairs[i] += len(grad)
        self.zero_grad()
        return [(s / n).sqrt().numpy() for s, n in zip(squares, pairs, strict=True)]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("mean", [False, True])
def test_grad_flow_against_autograd(mean: bool, inplace: bool, frozen: bool) -> None:
    """Source: DESIGN 2: RMS of dL/dz at the pre-activation, L the loss of its batch; also in a frozen model."""

    def loss(output: torch.Tensor, _batch: Any) -> torch.Tensor:
        return output.square().mean() if mean else output.square().sum()

    batches = list(torch.randn(45, 2, 9, generator=torch.Generator().manual_seed(3)).split(16))
    model = ByHand(inplace)
    want = model.flow(batches, loss)
    model.requires_grad_(not frozen)
    report = deadrelu.audit(model, batches, loss=loss, exhaustive=True)
    for site, flow in zip((report["relu"], report["act"]), want, strict=True):
        np.testing.assert_allclose(site.grad_flow, flow, rtol=1e-4, atol=1e-9)
    assert report["relu"].grad_flow is not None
    assert report["relu"].grad_flow[1] == 0
    assert report["relu"].grad_dead.nonzero()[0].tolist() == [3]  # unit 1 is dead, not gradient-dead
    assert not report["act"].grad_dead.any()


def test_without_a_loss_there_is_no_gradient() -> None:
    """Source: DESIGN 2: zero never stands for unknown."""
    site = deadrelu.audit(ByHand(False), torch.randn(20, 2, 9), exhaustive=True)["relu"]
    assert site.grad_flow is None
    assert not site.grad_dead.any()
    assert site.to_dict()["grad_flow"] is None


def test_input_dead() -> None:
    """Source: DESIGN 2: all inputs are 0. Behind a wholly dead layer every unit is; a zero weight row alone is not."""
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU())
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
        model[2].bias.copy_(torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]))
        model[4].weight[2] = 0.0
    report = deadrelu.audit(model, torch.randn(30, 3), exhaustive=True)
    assert report["1"].dead.all()
    assert not report["1"].input_dead.any()
    assert report["3"].input_dead.all()
    assert report["3"].status == ("always_on", "dead", "always_on", "dead", "always_on")
    assert not report["5"].input_dead.any()


def test_input_dead_is_per_group() -> None:
    """A grouped convolution: the units of a group whose own inputs are all 0 are input-dead, the others are not."""
    torch.manual_seed(6)
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.ReLU(), nn.Conv1d(4, 6, 1, groups=2), nn.ReLU())
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([-100.0, -100.0, 100.0, 100.0]))
    report = deadrelu.audit(model, torch.randn(30, 2, 5), exhaustive=True)
    assert report["3"].input_dead.tolist() == [True] * 3 + [False] * 3

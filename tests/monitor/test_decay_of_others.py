"""Decay by optimizers that say nothing of how they decay, and through a momentum that is dampened.

The head is zero and frozen, so that no gradient reaches the first layer: all that moves its weight is decay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import deadrelu

from .stage import digits

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.02, weight_decay=0.5),
    "muon": lambda p: torch.optim.Muon(p, lr=0.02, weight_decay=0.5),
    "dampened": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, dampening=0.9, weight_decay=0.5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_is_told_from_the_rest_of_the_step(name: str) -> None:
    if name == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    torch.manual_seed(0)
    pixels, labels = digits()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    nn.init.constant_(model[0].bias, -0.3)
    nn.init.zeros_(model[2].weight).requires_grad_(False)
    optimizer = OPTIMIZERS[name]([model[0].weight])
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for _ in range(400):
            rows = torch.randint(len(pixels), (128,))
            F.cross_entropy(model(pixels[rows]), labels[rows]).backward()
            optimizer.step()
            model.zero_grad()
    deaths = [d for d in monitor.deaths if d.shares is not None]  # the others were never healthy
    assert len(deaths) >= 20
    named = Counter((d.cause, d.parameter) for d in deaths)
    assert named["weight_decay", "0.weight"] >= 0.95 * len(deaths), named
    weight, decay = (sum(abs(d.shares[part]) for d in deaths) for part in ("weight", "decay"))
    assert weight < 0.2 * decay  # of which the first updates, while a momentum warms in, are a part

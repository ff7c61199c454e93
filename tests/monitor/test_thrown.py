"""A rate that is far too high throws the whole network: the data, which never moved, are not blamed for it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import deadrelu


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW], ids=["adam", "adamw"])
def test_data_that_stand_still_are_not_blamed(make: type[torch.optim.Optimizer]) -> None:
    """At a tenth of the rate hardly a unit dies (benchmarks/cause_replay.py), and batches come from one set of data."""
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    torch.manual_seed(2)
    layers = [layer for _ in range(3) for layer in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(64, 10)).train()
    optimizer = make(model.parameters(), lr=0.05)  # type: ignore[call-arg]
    order = torch.Generator().manual_seed(0)
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for _ in range(8):
            for rows in torch.randperm(len(x), generator=order)[: len(x) // 128 * 128].split(128):
                optimizer.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
    named = Counter(d.cause for d in monitor.deaths if d.site != "1" and not d.born_dead and d.revived is None)
    known = named.total() - named["unknown"]
    assert known > 20
    assert named["input_shift"] == 0, named
    assert named["learning_rate"] >= 0.9 * known, named

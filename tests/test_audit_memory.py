"""An audit keeps no activation of a batch alive."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from awkward import square
from torch import nn

import deadrelu


class Tracked(nn.Module):
    """Four layers whose pre-activations lie in numpy memory: a weak reference tells when it is really freed."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        self.alive: list[weakref.ref[Any]] = []
        self.most = 0
        self.left_over: list[int] = []

    def count(self) -> int:
        return sum(ref() is not None for ref in self.alive)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left_over.append(self.count())
        for layer in self.layers:
            memory = np.empty((x.shape[0], 16), dtype=np.float32)
            self.alive.append(weakref.ref(memory))
            x = F.relu(torch.from_numpy(memory).copy_(layer(x)))
            del memory
            self.most = max(self.most, self.count())
        return x


@pytest.mark.parametrize("loss", [None, square])
def test_no_activation_is_kept(loss: Any) -> None:
    """Nothing of a batch is left when the next one starts, nor after the audit, without help of the garbage collector.

    Without a loss, at most the activation at hand and one more live at a time: O(units) beside it (DESIGN 6.2).
    """
    model = Tracked()
    gc.collect()
    gc.disable()
    try:
        report = deadrelu.audit(model, torch.randn(64, 16), batch_size=8, loss=loss)
        assert model.count() == 0
    finally:
        gc.enable()
    assert len(report.sites) == 4
    assert len(model.left_over) >= 8
    assert set(model.left_over) == {0}
    if loss is None:
        assert model.most <= 2

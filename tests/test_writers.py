"""Models whose forward writes their own parameters and buffers: an audit takes it all back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from awkward import square
from states import assert_same, module_state
from torch import nn

import deadrelu


class Writer(nn.Module):
    """A model whose forward writes its own tensors, each in a way that some real model uses."""

    def __init__(self, write: Callable[[Any, torch.Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.write, self.map = write, nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.write(self, x)
        return F.relu(self.map(x))


def write_without_grad(model: Any, _x: torch.Tensor) -> None:
    with torch.no_grad():
        model.map.weight.clamp_(min=0)
        model.map.bias.copy_(torch.ones(4))


WRITES: dict[str, Callable[[Any, torch.Tensor], object]] = {
    "buffer, in place": lambda m, x: m.seen.add_(1),
    "buffer, through .data": lambda m, x: m.seen.data.lerp_(torch.ones(3), 0.5),
    "buffer, new .data": lambda m, x: setattr(m.seen, "data", m.seen + 1),
    "buffer, resized": lambda m, x: m.seen.resize_(len(x)).fill_(1.0),
    "buffer, registered in forward": lambda m, x: m.register_buffer("cache", x.clone()),
    "parameter, under no_grad": write_without_grad,
    "parameter, through .data": lambda m, x: m.map.weight.data.clamp_(min=0),
    "parameter, new .data": lambda m, x: setattr(m.map.weight, "data", m.map.weight.data.clamp(min=0)),
    "parameter, replaced": lambda m, x: setattr(m.map, "bias", nn.Parameter(torch.ones(4))),
    "requires_grad": lambda m, x: m.map.bias.requires_grad_(False),
    ".training": lambda m, x: m.map.train(),
}


@pytest.mark.parametrize("loss", [None, square])
@pytest.mark.parametrize("write", WRITES)
def test_a_forward_that_writes_its_own_tensors(write: str, loss: Any) -> None:
    """Source: DESIGN 5.1: bit for bit as before, whatever the forward does to parameters and buffers."""
    model = Writer(WRITES[write])
    before = module_state(model)
    deadrelu.audit(model, torch.ones(8, 4), batch_size=4, loss=loss)
    assert_same(before, module_state(model))

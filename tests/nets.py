"""Small networks and data that several test files use."""

from __future__ import annotations

import torch
from torch import nn

ROWS, WIDTH, UNITS, DEAD = 50, 6, 12, [1, 4]


def through(units: int, activation: nn.Module | None = None) -> nn.Sequential:
    """Return a net whose unit i sees input i: its pre-activations are the data, exactly."""
    model = nn.Sequential(nn.Linear(units, units, bias=False), activation or nn.ReLU())
    model[0].weight.data.copy_(torch.eye(units))
    return model


def mlp() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(WIDTH, UNITS), nn.ReLU(), nn.Linear(UNITS, 3))
    with torch.no_grad():
        model[0].bias[DEAD] = -100.0
    return model


def rows(n: int = ROWS) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(7))


class Named(nn.Module):
    """A model whose forward takes one input, by the name that dictionaries use."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Masked(Named):
    """A model with a second, optional input."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.body(x if mask is None else x * mask)


class Pair(Named):
    """A model with two inputs that it needs."""

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.body(x * scale)

"""Training: small networks trained with a known time of the last gradient of every unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from deadrelu.optimizer_state import Reading, Remembered, read_gradients

Maker = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def remembered(optimizer: torch.optim.Optimizer, parameter: torch.Tensor | None) -> Remembered | None:
    """Return what a checkpoint of `optimizer` would hold of a parameter."""
    if parameter is None:
        return None
    holds = [g for g in optimizer.param_groups if any(p is parameter for p in g["params"])]
    return Remembered(parameter.detach(), optimizer.state.get(parameter, {}), holds[0] if holds else None)


def read(optimizer: torch.optim.Optimizer, layer: nn.Module, unit_dim: int = 0, steps: int | None = None) -> Reading:
    weight = remembered(optimizer, layer.weight)
    assert weight is not None
    return read_gradients(weight, remembered(optimizer, layer.bias), unit_dim=unit_dim, steps=steps)


@dataclass
class Run:
    """A training whose first layer is watched: gradients per unit, as autograd gives them.

    Attributes:
        model: a Sequential whose first layer is `layer`.
        optimizer: of the model.
        batch: returns inputs and targets of a step.
        updates: made so far.
        last: per unit, the update with the last gradient that was not 0; -1 for none.
        noticed: the same, for a gradient over a tenth of sqrt(exp_avg_sq).
    """

    model: nn.Sequential
    optimizer: torch.optim.Optimizer
    batch: Callable[[], tuple[torch.Tensor, torch.Tensor]]
    updates: int = 0
    last: torch.Tensor = field(init=False)
    noticed: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.last = torch.full((len(self.layer.weight),), -1)
        self.noticed = self.last.clone()

    @property
    def layer(self) -> nn.Module:
        return self.model[0]

    def train(self, steps: int) -> Run:
        for _ in range(steps):
            x, y = self.batch()
            self.optimizer.zero_grad()
            (self.model(x) - y).square().mean().backward()
            given = [p for p in (self.layer.weight, self.layer.bias) if p is not None and p.grad is not None]
            gradients = [p.grad.detach().clone() for p in given]
            self.optimizer.step()
            for p, g in zip(given, gradients, strict=True):
                self.last[(g != 0).reshape(len(g), -1).any(1)] = self.updates
                usual = self.optimizer.state[p].get("exp_avg_sq")
                if usual is not None:
                    self.noticed[(g.abs() > 0.1 * usual.sqrt()).reshape(len(g), -1).any(1)] = self.updates
            self.updates += 1
        return self

    @property
    def silent(self) -> torch.Tensor:
        """Per unit, the updates since the last one with a gradient."""
        return self.updates - 1 - self.last

    @property
    def unnoticed(self) -> torch.Tensor:
        return self.updates - 1 - self.noticed

    def kill(self, units: Iterable[int], by: float = 1e3) -> None:
        with torch.no_grad():
            for unit in units:
                self.layer.bias[unit] -= by

    def read(self, **options: int) -> Reading:
        return read(self.optimizer, self.layer, **options)


def start(make: Maker, *, inputs: int = 20, units: int = 32, batch: int = 32, bias: bool = True, seed: int = 0) -> Run:
    """Return a run of Linear, ReLU, Linear on noisy targets: gradients never vanish by convergence."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(inputs, units, bias=bias), nn.ReLU(), nn.Linear(units, 1))
    generator = torch.Generator().manual_seed(seed + 1)

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(batch, inputs, generator=generator)
        y = x[:, :1].sin() + 0.3 * torch.randn(batch, 1, generator=generator)
        return x, y

    return Run(model, make(model.parameters()), draw)

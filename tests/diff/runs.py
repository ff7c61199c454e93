"""A real training on the digits, with a learning-rate spike, a checkpoint every 50 steps, and a Monitor watching."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import deadrelu
from deadrelu.cli.demo_digits import features

STEPS, EVERY, SPIKE = 400, 50, 220
"""Updates SPIKE to SPIKE + 2 are made at a learning rate 200 times the usual."""
RATE, FACTOR = 0.05, 200
BAD = 250
"""The first checkpoint after it."""


@dataclass(frozen=True)
class Run:
    """What a training left behind.

    Attributes:
        folder: holds `ckpt_50.pt`, `ckpt_100.pt`, ...
        data: all rows.
        deaths: what Monitor said.
        before, after: the states right before and after each of the large updates, by its step.
        batch: the rows of each.
    """

    folder: Path
    data: torch.Tensor
    deaths: list[deadrelu.Death]
    before: dict[int, dict[str, torch.Tensor]]
    after: dict[int, dict[str, torch.Tensor]]
    batch: dict[int, torch.Tensor]


def network() -> nn.Sequential:
    """Return the architecture, with weights drawn from the global generator."""
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))


def train(folder: Path) -> Run:
    """Train with SGD, and write a training dictionary every 50 steps."""
    torch.manual_seed(0)
    model, split = network(), features()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(1)
    before: dict[int, dict[str, torch.Tensor]] = {}
    after: dict[int, dict[str, torch.Tensor]] = {}
    batch: dict[int, torch.Tensor] = {}
    with deadrelu.Monitor(model, optimizer) as monitor:
        for step in range(STEPS):
            rows = torch.randint(split.training, (64,), generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(split.inputs[rows]), split.labels[rows]).backward()
            hit = SPIKE <= step < SPIKE + 3
            optimizer.param_groups[0]["lr"] = RATE * FACTOR if hit else RATE
            if hit:
                before[step], batch[step] = snapshot(model), split.inputs[rows]
            optimizer.step()
            if hit:
                after[step] = snapshot(model)
            if (step + 1) % EVERY == 0:
                held = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "global_step": step + 1}
                torch.save(held, folder / f"ckpt_{step + 1}.pt")
    return Run(folder, split.inputs, list(monitor.deaths), before, after, batch)


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the state."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

"""The plain loop that the trainers are held against: one model with a planted spike of the learning rate."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

import deadrelu

ROWS, BATCHES = 128, 64
WINDOW = 10
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=2e-3),
}


class Net(nn.Module):
    """8-24-16-3 with a fully silent unit at the start, in a form that every trainer can call."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.fc1, self.act1 = nn.Linear(8, 24), nn.ReLU()
        self.fc2, self.act2 = nn.Linear(24, 16), nn.ReLU(inplace=True)
        self.out = nn.Linear(16, 3)
        self.calls = {"training": 0, "evaluation": 0}
        with torch.no_grad():
            self.fc1.bias[5] = -100.0

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        self.calls["training" if self.training else "evaluation"] += 1
        logits = self.out(self.act2(self.fc2(self.act1(self.fc1(x)))))
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def spiked(optimizer: torch.optim.Optimizer) -> LambdaLR:
    """Return a schedule that multiplies the learning rate by 300 for the update 12 alone."""
    return LambdaLR(optimizer, lambda step: 300.0 if step == 12 else 1.0)


@functools.cache
def rows(batches: int = BATCHES) -> list[dict[str, Tensor]]:
    """Return the samples in the order in which every trainer is to see them."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(ROWS * batches, 8, generator=generator)
    labels = (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()
    return [{"x": x[i], "labels": labels[i]} for i in range(len(x))]


@dataclass
class Told:
    """What a run leaves: every death and event in full, the steps and the samples."""

    deaths: list[dict[str, Any]]
    events: list[dict[str, Any]]
    steps: int
    samples: int

    @classmethod
    def by(cls, monitor: deadrelu.Monitor) -> Told:
        report = monitor.report().to_dict()
        return cls(report["deaths"], report["events"], monitor.steps, report["samples"])


def plain(model: nn.Module, net: Net, make: Callable[..., torch.optim.Optimizer], accumulate: int = 1) -> Told:
    """Train `net`, watched as a part of `model`, in a loop that anyone would write."""
    optimizer = make(net.parameters())
    schedule = spiked(optimizer)
    data = rows()
    model.train()
    with deadrelu.Monitor(model, optimizer, window=WINDOW, strict=True) as monitor:
        for i in range(BATCHES):
            part = data[i * ROWS : (i + 1) * ROWS]
            batch = {key: torch.stack([row[key] for row in part]) for key in ("x", "labels")}
            (net(**batch)["loss"] / accumulate).backward()
            if (i + 1) % accumulate == 0:
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
    return Told.by(monitor)


def hooks(model: nn.Module, *optimizers: torch.optim.Optimizer) -> int:
    """Return how many hooks there are on a model and its optimizers."""
    held = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    on_modules = sum(len(getattr(module, name)) for module in model.modules() for name in held)
    return on_modules + sum(len(o._optimizer_step_post_hooks) for o in optimizers)


class Planted(Exception):
    """Raised in the middle of a training by a test."""

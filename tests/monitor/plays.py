"""One training run, played under a Monitor and a diary at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import deadrelu

from .brute import Diary, Ear

Edits = Mapping[int, Callable[[], None]]

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
}


def error(output: Tensor) -> Tensor:
    """Return a loss that a model with any output has."""
    return (output.float() - 1).square().mean()


@torch.no_grad()
def put(model: nn.Module, parameter: str, unit: int, value: float) -> None:
    """Set one entry of a bias behind the optimizer's back."""
    model.get_parameter(parameter)[unit] = value


@dataclass
class Play:
    """A model in training; `step` is one plain step of it, for the loops that need nothing else."""

    model: nn.Module
    ears: dict[str, Ear]
    make: Callable[..., torch.optim.Optimizer] = OPTIMIZERS["momentum"]
    optimizer: torch.optim.Optimizer = field(init=False)
    diary: Diary = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = self.make(self.model.parameters())
        self.diary = Diary(self.model, self.ears)

    @contextmanager
    def watched(self, optimizer: Any = "own", **options: Any) -> Iterator[Any]:
        """Run with a Monitor on; by default it knows the optimizer of the play."""
        own = self.optimizer if optimizer == "own" else optimizer
        with deadrelu.Monitor(self.model, own, strict=True, **options) as monitor:
            yield monitor

    def forward(self, batch: Tensor) -> Tensor:
        """Return the loss of one training forward."""
        with self.diary.forward(len(batch)):
            output = self.model(batch)
        return error(output)

    def step(self, *batches: Tensor) -> None:
        """Forwards and backwards of these micro-batches, then one update."""
        self.optimizer.zero_grad()
        for batch in batches:
            self.forward(batch).backward()
        self.optimizer.step()
        self.diary.update()

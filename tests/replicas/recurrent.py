"""Hand-written recurrent loops: one relu, called once per time step, is one site whose calls add positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .tape import Replica, Want, note, sequences


class Cell(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.ih = nn.Linear(inputs, hidden)
        self.hh = nn.Linear(hidden, hidden, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        z = self.ih(x) + self.hh(h)
        note(self, "relu", z, "nu")
        return self.relu(z)


class Loop(nn.Module):
    """h = relu(W x_t + U h), the cell a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = Cell(8, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 6)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return self.out(h)


class Precomputed(nn.Module):
    """The input projection is computed for all time steps at once and indexed by t."""

    def __init__(self) -> None:
        super().__init__()
        self.ih = nn.Linear(8, 6)
        self.hh = nn.Linear(6, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        projected = self.ih(x)
        h = torch.zeros(x.shape[0], 6)
        states = []
        for t in range(x.shape[1]):
            z = projected[:, t] + self.hh(h)
            note(self, "relu()", z, "nu")
            h = torch.relu(z)
            states.append(h)
        return self.out(torch.stack(states, dim=1))


class TimeFirst(nn.Module):
    """The sequence is (time, batch, features) inside, stepped through by `unbind`; two stacked cells."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([Cell(8, 6), Cell(6, 4)])
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.transpose(0, 1)
        first, second = x.new_zeros(x.shape[0], 6), x.new_zeros(x.shape[0], 4)
        for step in steps.unbind(0):
            first = self.cells[0](step, first)
            second = self.cells[1](first, second)
        return self.out(second)


def _ragged(rows: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, 2 + rows, 8, generator=generator)


_LOOP = (Want("cell.relu", "relu", 6, ("cell.ih", "cell.hh"), "cell.ih.bias", (1, 4)),)

REPLICAS = (
    Replica("recurrent-loop", Loop, sequences(), _LOOP),
    Replica("recurrent-loop-ragged", Loop, _ragged, _LOOP),
    Replica(
        "recurrent-precomputed",
        Precomputed,
        sequences(),
        (Want("relu()", "relu", 6, ("ih", "hh"), "hh.bias", (0, 5)),),
    ),
    Replica(
        "recurrent-stacked",
        TimeFirst,
        sequences(),
        (
            Want("cells.0.relu", "relu", 6, ("cells.0.ih", "cells.0.hh"), "cells.0.ih.bias", (2,)),
            Want("cells.1.relu", "relu", 4, ("cells.1.ih", "cells.1.hh"), "cells.1.ih.bias", (3,)),
        ),
    ),
)

"""Course: a small net under training that knows when each unit last had a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from deadrelu.checkpoint import open_checkpoint
from deadrelu.forensics import examine
from deadrelu.report import Report

SHOT, BORN = [1, 4], [7, 8]
AGE = 120


class Course:
    """A small net under training, with the update of every unit's last gradient, as autograd gives it."""

    def __init__(self, make: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer] | None = None) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 1))
        self.optimizer = (make or (lambda p: torch.optim.Adam(p, lr=1e-3)))(self.model.parameters())
        self.updates = 0
        self.last = np.full(64, -1)
        self._generator = torch.Generator().manual_seed(1)

    def shift(self, units: list[int], by: float = -1e3) -> None:
        with torch.no_grad():
            self.model[0].bias[units] += by  # type: ignore[index, operator]

    def train(self, updates: int) -> None:
        for _ in range(updates):
            x = torch.randn(32, 20, generator=self._generator)
            y = x[:, :1].sin() + 0.3 * torch.randn(32, 1, generator=self._generator)
            self.optimizer.zero_grad()
            (self.model(x) - y).square().mean().backward()
            weight = self.model[0].weight
            if weight.is_leaf and weight.grad is not None:  # type: ignore[union-attr]
                self.last[(weight.grad != 0).any(1).numpy()] = self.updates  # type: ignore[union-attr, operator]
            self.optimizer.step()
            self.updates += 1

    def saved(self, path: Path) -> Report:
        held = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.updates}
        torch.save(held, path)
        return examine(open_checkpoint(path))


def of(report: Report, site: str, claim: str) -> dict[int, dict[str, Any]]:
    return {c["unit"]: c for c in report[site].claims if c["claim"] == claim}


def alone(tmp_path: Path, model: nn.Module, **options: Any) -> Report:
    torch.save(model.state_dict(), tmp_path / "w.pt")
    return examine(open_checkpoint(tmp_path / "w.pt"), **options)

"""Trainings on any device: small nets of the usual kinds, in which units are planted that die."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deadrelu

KILLED = 70
"""The update after which biases are edited."""
BATCH, CLASSES = 64, 4


class Block(nn.Module):
    """One activation module that is called twice, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 12, 3, stride=2), nn.BatchNorm2d(12)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))).mean((2, 3))


def cnn() -> nn.Module:
    """A block of convolutions with norms, and a head."""
    return nn.Sequential(Block(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def mlp() -> nn.Module:
    """Two hidden layers, the second with a kind that is flat on both sides."""
    return nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU6(), nn.Linear(16, CLASSES))


class Tokens(nn.Module):
    """A Transformer, whose activations are functions."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(1))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[str, ...]]] = {
    "mlp": (mlp, (20,), ("0.bias",)),
    "cnn": (cnn, (3, 8, 8), ("0.norm1.bias", "1.bias")),
    "transformer": (Tokens, (6, 16), ("body.layers.0.linear1.bias",)),
}
"""How each is built, the shape of a sample, and the biases that are edited."""


class Training:
    """One training.

    Args:
        net: which of NETS.
        device: where.
        dtype: that of autocast, None for none; with float16 the loss is scaled.
        lr: the learning rate.
        options: those of Monitor; None to train without.
    """

    def __init__(
        self,
        net: str,
        device: str,
        *,
        dtype: torch.dtype | None = None,
        lr: float = 0.05,
        options: dict[str, Any] | None = None,
    ) -> None:
        build, self.shape, self.edited = NETS[net]
        torch.manual_seed(0)
        self.model = build().to(device)
        self.device, self._dtype = device, dtype
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.9, foreach=True)
        self.scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
        rng = torch.Generator().manual_seed(1)
        self.x = torch.randn(16, BATCH, *self.shape, generator=rng).to(device)
        self.y = torch.randint(CLASSES, (16, BATCH), generator=rng).to(device)
        self.monitor = None
        if options is not None:
            self.monitor = deadrelu.Monitor(self.model, self.optimizer, strict=True, **options)
        self.steps = 0

    def forward(self) -> Tensor:
        """Return the loss of the next batch."""
        mode: AbstractContextManager[Any] = nullcontext()
        if self._dtype is not None:
            mode = torch.autocast(self.device, self._dtype)
        with mode:
            return F.cross_entropy(self.model(self.x[self.steps % 16]), self.y[self.steps % 16])

    def step(self) -> None:
        """Make one step."""
        loss = self.forward()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.steps == KILLED:
            with torch.no_grad():
                for name in self.edited:
                    self.model.get_parameter(name)[1] = -100.0
        self.steps += 1

    def run(self, steps: int, silent: Callable[[], AbstractContextManager[None]] | None = None) -> None:
        """Make so many steps, past the first 20 each in a block of `silent`."""
        for _ in range(steps):
            with nullcontext() if silent is None or self.steps <= 20 else silent():
                self.step()

    def told(self) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """Return what the monitor tells, as far as it does not depend on the last digits: deaths, and sites."""
        assert self.monitor is not None
        report = self.monitor.report()
        deaths = [(d.site, d.unit, d.last_fired, d.confirmed, d.cause, d.parameter) for d in self.monitor.deaths]
        sites = [(s.site, s.op, s.samples, s.positions, s.dead.tolist()) for s in report.sites]
        return sorted(deaths, key=str), sites


def close_to(found: Training, expected: Training, tolerance: float) -> None:
    """Check that two trainings have found the same: deaths to the step, rates and largest z up to a tolerance."""
    assert found.monitor is not None
    assert expected.monitor is not None
    (deaths, sites), (known, there) = found.told(), expected.told()
    assert deaths == known
    assert sites == there
    for one, other in zip(found.monitor.report().sites, expected.monitor.report().sites, strict=True):
        for name in ("activation_rate", "sample_rate", "max_z"):
            a, b = (torch.as_tensor(getattr(site, name)) for site in (one, other))
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)

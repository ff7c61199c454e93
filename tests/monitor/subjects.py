"""Small models that train, where to hear their pre-activations, and which bias (or norm beta) silences a unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from replicas.encoder import Encoder
from replicas.recurrent import Loop
from replicas.shared import FromBatchFirst
from torch import Tensor, nn

from .brute import Ear


class Functional(nn.Module):
    """The same rectifier as three functions of the root."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3, self.out = nn.Linear(8, 12), nn.Linear(12, 10), nn.Linear(10, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(x))
        x = torch.relu_(self.fc2(x))
        return self.out(self.fc3(x).clamp(min=0))


class Reused(nn.Module):
    """One in-place `self.relu` for two convolutions under BatchNorm and a Linear, as every ResNet has it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5)
        self.fc, self.out = nn.Linear(5, 8), nn.Linear(8, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.out(self.relu(self.fc(x.mean((2, 3)))))


class Residual(nn.Module):
    """relu(x + f(x)), in place, after a sum that no module returns."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc1, self.fc2 = nn.Linear(8, 10), nn.Linear(10, 7), nn.Linear(7, 10)
        self.act1, self.act2, self.out = nn.ReLU(), nn.ReLU(inplace=True), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.out(self.act2(x + self.fc2(self.act1(self.fc1(x)))))


class Tied(nn.Module):
    """One Linear with one relu, applied twice in a forward pass: one site, two positions a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.block(self.block(x)))


class FlatEnds(nn.Module):
    """Kinds that are flat somewhere else than under zero."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act1 = nn.Linear(8, 8), nn.ReLU6()
        self.fc2, self.act2 = nn.Linear(8, 7), nn.Hardswish()
        self.fc3, self.act3 = nn.Linear(7, 6), nn.Hardtanh()
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.fc1(x))
        return self.out(self.act3(self.fc3(self.act2(self.fc2(x)))))


def mlp() -> nn.Module:
    """8-12-10-3, the second rectifier in place."""
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(inplace=True), nn.Linear(10, 3))


MLP_EARS = {"1": Ear("0"), "3": Ear("2")}


@dataclass(frozen=True)
class Subject:
    """A model, its inputs, its ears, and per site the parameter that lifts or silences its units.

    Attributes:
        low: a value of that parameter at which a unit is silent for good.
        high: a value at which it fires again.
        lift: added to every such parameter, so that the units fire often.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    ears: dict[str, Ear]
    levers: dict[str, str]
    rows: int = 300
    low: float = -1e3
    high: float = 2.0
    lift: float = 0.7

    def model(self, seed: int = 0) -> nn.Module:
        """Return the model in training mode, every unit of every site firing on about half of its inputs or more."""
        torch.manual_seed(seed)
        model = self.build()
        with torch.no_grad():
            for lever in self.levers.values():
                model.get_parameter(lever).abs_().add_(self.lift)
        return model.train()

    def batch(self, rows: int, generator: torch.Generator) -> Tensor:
        """Return random inputs."""
        return torch.randn(rows, *self.shape, generator=generator)


SUBJECTS = (
    Subject("mlp", mlp, (8,), MLP_EARS, {"1": "0.bias", "3": "2.bias"}),
    Subject(
        "functional",
        Functional,
        (8,),
        {"relu()": Ear("fc1"), "relu()#1": Ear("fc2"), "clamp()": Ear("fc3", op="clamp")},
        {"relu()": "fc1.bias", "relu()#1": "fc2.bias", "clamp()": "fc3.bias"},
    ),
    Subject(
        "reused-inplace-bn-cnn",
        Reused,
        (2, 7, 7),
        {"relu": Ear("bn1", "nupp"), "relu#1": Ear("bn2", "nupp"), "relu#2": Ear("fc")},
        {"relu": "bn1.bias", "relu#1": "bn2.bias", "relu#2": "fc.bias"},
    ),
    Subject(
        "residual",
        Residual,
        (8,),
        {"act1": Ear("act1", side="in"), "act2": Ear("act2", side="in")},
        {"act1": "fc1.bias", "act2": "fc2.bias"},
    ),
    Subject("tied", Tied, (8,), {"block.1": Ear("block.0")}, {"block.1": "block.0.bias"}),
    Subject(
        "encoder-dropout",
        lambda: Encoder(False, True, "relu"),
        (5, 8),
        {f"encoder.layers.{i}.relu()": Ear(f"encoder.layers.{i}.linear1", "npu") for i in range(2)},
        {f"encoder.layers.{i}.relu()": f"encoder.layers.{i}.linear1.bias" for i in range(2)},
    ),
    Subject(
        "encoder-time-first-inside",
        FromBatchFirst,
        (5, 8),
        {"encoder.relu()": Ear("encoder.linear1", "pnu")},
        {"encoder.relu()": "encoder.linear1.bias"},
    ),
    Subject("recurrent", Loop, (4, 8), {"cell.relu": Ear("cell.relu", side="in")}, {"cell.relu": "cell.ih.bias"}),
    Subject(
        "flat-ends",
        FlatEnds,
        (8,),
        {
            "act1": Ear("fc1", op="relu6"),
            "act2": Ear("fc2", op="hardswish"),
            "act3": Ear("fc3", op="hardtanh"),
        },
        {"act1": "fc1.bias", "act2": "fc2.bias", "act3": "fc3.bias"},
        high=0.3,
        lift=0.0,
    ),
    Subject(
        "conv1d-groupnorm",
        lambda: nn.Sequential(
            nn.Conv1d(4, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3)
        ),
        (4, 9),
        {"2": Ear("1", "nup")},
        {"2": "1.bias"},
    ),
)

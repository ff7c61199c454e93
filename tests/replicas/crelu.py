"""CReLU: relu of z and of -z, concatenated: two sites. After Shang et al. 2016 (arXiv:1603.05201)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tape import Replica, Want, images, note


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        note(self, "relu()", x, "nupp")
        note(self, "relu()#1", -x, "nupp")
        x = torch.cat([F.relu(x), F.relu(-x)], dim=1)
        return self.fc(x.mean((2, 3)))


class CReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        note(self, "relu", x, "nupp")
        note(self, "relu#1", -x, "nupp")
        return torch.cat([self.relu(x), self.relu(-x)], dim=1)


class Modular(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.crelu = CReLU()
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.crelu(self.conv(x)).mean((2, 3)))


REPLICAS = (
    Replica(
        "crelu-functions",
        Functional,
        images(),
        (
            Want("relu()", "relu", 4, ("conv",), "conv.bias", (0,)),
            Want("relu()#1", "relu", 4, ("conv",), "conv.bias", (), (2, 3)),
        ),
    ),
    Replica(
        "crelu-module",
        Modular,
        images(),
        (
            Want("crelu.relu", "relu", 4, ("conv",), "conv.bias", (0,)),
            Want("crelu.relu#1", "relu", 4, ("conv",), "conv.bias", (), (2, 3)),
        ),
    ),
)

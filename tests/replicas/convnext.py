"""ConvNeXt: permute to channels-last, LayerNorm, Linear, activation, Linear, permute back.

After facebookresearch/ConvNeXt models/convnext.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .tape import Replica, Want, images, note


class Block(nn.Module):
    def __init__(self, width: int, act: nn.Module) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 2 * width)
        self.act = act
        self.pwconv2 = nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.dwconv(x)
        x = x.permute(0, 2, 3, 1)
        x = self.pwconv1(self.norm(x))
        note(self, "act", x, "nppu")
        x = self.pwconv2(self.act(x))
        x = self.gamma * x
        x = x.permute(0, 3, 1, 2)
        return shortcut + x


class ConvNeXt(nn.Module):
    def __init__(self, act: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 2, 2)
        self.stages = nn.Sequential(Block(5, act()), Block(5, act()))
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.stem(x))
        return self.head(self.norm(x.mean([-2, -1])))


def _wants(op: str) -> tuple[Want, ...]:
    return (
        Want("stages.0.act", op, 10, ("stages.0.pwconv1",), "stages.0.pwconv1.bias", (0, 9)),
        Want("stages.1.act", op, 10, ("stages.1.pwconv1",), "stages.1.pwconv1.bias", (5,)),
    )


REPLICAS = (
    Replica("convnext-relu", lambda: ConvNeXt(nn.ReLU), images(), _wants("relu")),
    Replica("convnext-gelu", lambda: ConvNeXt(nn.GELU), images(), _wants("gelu")),
)

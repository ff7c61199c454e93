"""MLP-Mixer: one MLP over transposed tokens, one over channels. After rishikksh20/MLP-Mixer-pytorch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .tape import Replica, Want, images, note


class MixerBlock(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.token1, self.token2 = nn.Linear(tokens, 7), nn.Linear(7, tokens)
        self.channel1, self.channel2 = nn.Linear(width, 9), nn.Linear(9, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.token1(self.norm1(x).transpose(1, 2))
        note(self, "relu()", y, "npu")
        x = x + self.token2(F.relu(y)).transpose(1, 2)
        y = self.channel1(self.norm2(x))
        note(self, "relu()#1", y, "npu")
        return x + self.channel2(F.relu(y))


class Mixer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(MixerBlock(4, width), MixerBlock(4, width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


def _wants() -> tuple[Want, ...]:
    wants: list[Want] = []
    for i, (token, channel) in enumerate((((0, 6), (8,)), ((3,), (0, 1)))):
        block = f"blocks.{i}"
        wants += [
            Want(f"{block}.relu()", "relu", 7, (f"{block}.token1",), f"{block}.token1.bias", token),
            Want(f"{block}.relu()#1", "relu", 9, (f"{block}.channel1",), f"{block}.channel1.bias", channel),
        ]
    return tuple(wants)


REPLICAS = (
    Replica("mixer", lambda: Mixer(6), images(), _wants()),
    Replica("mixer-as-many-tokens-as-channels", lambda: Mixer(4), images(), _wants()),
)

"""Networks: the architectures that the benchmarks time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """A residual block with one reused in-place ReLU."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.short = nn.Conv2d(before, width, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(y)) + self.short(x))


def resnet(width: int = 32) -> nn.Module:
    """Return a residual network for 32 x 32 images: 3 stages of 2 blocks, 13 rectifier calls."""
    blocks, before = [], width
    for stage in range(3):
        for index in range(2):
            after = width * 2**stage
            blocks.append(Block(before, after, 2 if stage and not index else 1))
            before = after
    stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


class Encoder(nn.Module):
    """A post-norm Transformer encoder with ReLU, on embedded tokens."""

    def __init__(self, width: int = 128, layers: int = 4) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, F.relu, batch_first=True)
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Classifier(nn.Module):
    """A Transformer encoder with ReLU and a linear head on the mean token."""

    def __init__(self, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.body = Encoder(width, layers)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean(1))


def mlp(inputs: int, width: int, hidden: int) -> nn.Module:
    """Return hidden layers of one width, each with its ReLU, and a linear head."""
    layers: list[nn.Module] = []
    for before in [inputs] + [width] * (hidden - 1):
        layers += [nn.Linear(before, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))

"""Squeeze-excite ResNet: pooled channels through Linear, relu, Linear, sigmoid. After moskomule/senet.pytorch."""

from __future__ import annotations

from torch import Tensor, nn

from .tape import Replica, Want, images, note


class SELayer(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, squeezed, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(squeezed, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = self.fc[0](self.avg_pool(x).view(b, c))
        note(self, "fc.1", y, "nu")
        y = self.fc[2](self.fc[1](y))
        note(self, "fc.3", y, "nu")
        return x * self.fc[3](y).view(b, c, 1, 1).expand_as(x)


class SEBasicBlock(nn.Module):
    def __init__(self, inputs: int, planes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.se = SELayer(planes, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x))
        note(self, "relu", out, "nupp")
        out = self.se(self.bn2(self.conv2(self.relu(out))))
        out += x
        note(self, "relu#1", out, "nupp")
        return self.relu(out)


class SENet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(SEBasicBlock(6, 6), SEBasicBlock(6, 6))
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean(dim=(2, 3)))


def _block(i: int, dead: int) -> tuple[Want, ...]:
    block = f"blocks.{i}"
    return (
        Want(f"{block}.relu", "relu", 6, (f"{block}.conv1",), f"{block}.bn1.bias", (dead,)),
        Want(f"{block}.se.fc.1", "relu", 3, (f"{block}.se.fc.0",)),
        Want(f"{block}.se.fc.3", "sigmoid", 6, (f"{block}.se.fc.2",), f"{block}.se.fc.2.bias", (0,), (2,)),
        Want(f"{block}.relu#1", "relu", 6, (f"{block}.conv2",)),
    )


REPLICAS = (Replica("squeeze-excite", SENet, images(), (*_block(0, 1), *_block(1, 3))),)

"""GoogLeNet: `F.relu` after a norm, four branches concatenated. After torchvision.models.googlenet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tape import Replica, Want, images, note


class BasicConv2d(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        note(self, "relu()", x, "nupp")
        return F.relu(x, inplace=True)


class Inception(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1 = BasicConv2d(inputs, 3, 1)
        self.branch2 = nn.Sequential(BasicConv2d(inputs, 2, 1), BasicConv2d(2, 4, 3, 1))
        self.branch3 = nn.Sequential(BasicConv2d(inputs, 2, 1), BasicConv2d(2, 3, 3, 1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), BasicConv2d(inputs, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = BasicConv2d(3, 4, 3, 1)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a = Inception(4)
        self.inception3b = Inception(12)
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inception3b(self.inception3a(self.maxpool1(self.conv1(x))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def _branches(block: str, dead: dict[str, tuple[int, ...]]) -> tuple[Want, ...]:
    widths = {"branch1": 3, "branch2.0": 2, "branch2.1": 4, "branch3.0": 2, "branch3.1": 3, "branch4.1": 2}
    return tuple(
        Want(
            f"{block}.{branch}.relu()",
            "relu",
            width,
            (f"{block}.{branch}.conv",),
            f"{block}.{branch}.bn.bias",
            dead.get(branch, ()),
        )
        for branch, width in widths.items()
    )


REPLICAS = (
    Replica(
        "googlenet",
        GoogLeNet,
        images(),
        (
            Want("conv1.relu()", "relu", 4, ("conv1.conv",), "conv1.bn.bias", (2,)),
            *_branches("inception3a", {"branch1": (0, 1), "branch2.1": (3,), "branch4.1": (0,)}),
            *_branches("inception3b", {"branch2.0": (1,), "branch3.1": (0, 2)}),
        ),
    ),
)

"""Dual-path network: the unit axis is sliced, added and concatenated right before the relu.

After kuangliu/pytorch-cifar dpn.py (Chen et al. 2017, arXiv:1707.01629).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tape import Replica, Want, images, note


class Bottleneck(nn.Module):
    def __init__(self, last: int, width: int, out: int, dense: int, stride: int, first: bool) -> None:
        super().__init__()
        self.out_planes = out
        self.conv1 = nn.Conv2d(last, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out + dense, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out + dense)
        self.shortcut = nn.Sequential()
        if first:
            self.shortcut = nn.Sequential(
                nn.Conv2d(last, out + dense, 1, stride, bias=False), nn.BatchNorm2d(out + dense)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x))
        note(self, "relu()", out, "nupp")
        out = self.bn2(self.conv2(F.relu(out)))
        note(self, "relu()#1", out, "nupp")
        out = self.bn3(self.conv3(F.relu(out)))
        x = self.shortcut(x)
        d = self.out_planes
        out = torch.cat([x[:, :d, :, :] + out[:, :d, :, :], x[:, d:, :, :], out[:, d:, :, :]], 1)
        note(self, "relu()#2", out, "nupp")
        return F.relu(out)


class DualPath(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(Bottleneck(4, 4, 5, 2, 1, True), Bottleneck(5 + 4, 4, 5, 2, 1, False))
        self.layer2 = nn.Sequential(Bottleneck(5 + 6, 6, 4, 3, 2, True))
        self.linear = nn.Linear(4 + 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x))
        note(self, "relu()", out, "nupp")
        out = self.layer2(self.layer1(F.relu(out)))
        out = F.avg_pool2d(out, 4)
        return self.linear(out.view(out.size(0), -1))


REPLICAS = (
    Replica(
        "dual-path",
        DualPath,
        images(),
        (
            Want("relu()", "relu", 4, ("conv1",), "bn1.bias", (0,)),
            Want("layer1.0.relu()", "relu", 4, ("layer1.0.conv1",), "layer1.0.bn1.bias", (3,)),
            Want("layer1.0.relu()#1", "relu", 4, ("layer1.0.conv2",)),
            Want(
                "layer1.0.relu()#2",
                "relu",
                9,
                ("layer1.0.conv3", "layer1.0.shortcut.0"),
                "layer1.0.bn3.bias",
                (1, 5),
            ),
            Want("layer1.1.relu()", "relu", 4, ("layer1.1.conv1",)),
            Want("layer1.1.relu()#1", "relu", 4, ("layer1.1.conv2",), "layer1.1.bn2.bias", (2,)),
            Want("layer1.1.relu()#2", "relu", 11, ("layer1.1.conv3",), "layer1.1.bn3.bias", (0, 6)),
            Want("layer2.0.relu()", "relu", 6, ("layer2.0.conv1",)),
            Want("layer2.0.relu()#1", "relu", 6, ("layer2.0.conv2",), "layer2.0.bn2.bias", (4, 5)),
            Want(
                "layer2.0.relu()#2",
                "relu",
                10,
                ("layer2.0.conv3", "layer2.0.shortcut.0"),
                "layer2.0.shortcut.1.bias",
                (2, 5),
            ),
        ),
    ),
)

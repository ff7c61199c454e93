"""ShuffleNets: the channels are permuted between convolutions. After kuangliu/pytorch-cifar shufflenet(v2).py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tape import Replica, Want, images, note


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.size()
    return x.view(n, groups, c // groups, h, w).permute(0, 2, 1, 3, 4).reshape(n, c, h, w)


class BottleneckV1(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, groups: int = 2) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        middle = outputs // 2
        self.conv1 = nn.Conv2d(inputs, middle, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x))
        note(self, "relu()", out, "nupp")
        out = channel_shuffle(F.relu(out), self.groups)
        out = self.bn2(self.conv2(out))
        note(self, "relu()#1", out, "nupp")
        out = self.bn3(self.conv3(F.relu(out)))
        out = torch.cat([out, F.avg_pool2d(x, 3, 2, 1)], 1) if self.stride == 2 else out + x
        note(self, "relu()#2", out, "nupp")
        return F.relu(out)


class ShuffleNetV1(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1 = nn.Sequential(BottleneckV1(4, 8, 2), BottleneckV1(12, 12, 1))
        self.linear = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer1(self.conv1(x))
        return self.linear(out.flatten(2).mean(-1))


class BasicBlockV2(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, dim=1)
        out = self.bn1(self.conv1(x2))
        note(self, "relu()", out, "nupp")
        out = self.bn2(self.conv2(F.relu(out)))
        out = self.bn3(self.conv3(out))
        note(self, "relu()#1", out, "nupp")
        out = torch.cat([x1, F.relu(out)], 1)
        return channel_shuffle(out, 2)


class ShuffleNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.stage = nn.Sequential(BasicBlockV2(8), BasicBlockV2(8))
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem[1](self.stem[0](x))
        note(self, "stem.2", x, "nupp")
        x = self.stage(self.stem[2](x))
        return self.fc(x.mean([2, 3]))


REPLICAS = (
    Replica(
        "shufflenet-v1",
        ShuffleNetV1,
        images(),
        (
            Want("layer1.0.relu()", "relu", 4, ("layer1.0.conv1",), "layer1.0.bn1.bias", (1,)),
            Want("layer1.0.relu()#1", "relu", 4, ("layer1.0.conv2",), "layer1.0.bn2.bias", (2,)),
            Want("layer1.0.relu()#2", "relu", 12, ("layer1.0.conv3", "conv1"), "layer1.0.bn3.bias", (0, 7)),
            Want("layer1.1.relu()", "relu", 6, ("layer1.1.conv1",), "layer1.1.bn1.bias", (1, 3)),
            Want("layer1.1.relu()#1", "relu", 6, ("layer1.1.conv2",)),
            Want("layer1.1.relu()#2", "relu", 12, ("layer1.1.conv3",), "layer1.1.bn3.bias", (11,)),
        ),
    ),
    Replica(
        "shufflenet-v2",
        ShuffleNetV2,
        images(),
        (
            Want("stem.2", "relu", 8, ("stem.0",), "stem.1.bias", (6,)),
            Want("stage.0.relu()", "relu", 4, ("stage.0.conv1",), "stage.0.bn1.bias", (0,)),
            Want("stage.0.relu()#1", "relu", 4, ("stage.0.conv3",), "stage.0.bn3.bias", (1, 2)),
            Want("stage.1.relu()", "relu", 4, ("stage.1.conv1",)),
            Want("stage.1.relu()#1", "relu", 4, ("stage.1.conv3",), "stage.1.bn3.bias", (3,)),
        ),
    ),
)

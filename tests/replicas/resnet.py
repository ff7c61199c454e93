"""ResNets: one in-place `self.relu` reused in a block, and the pre-activation form (v2).

After torchvision.models.resnet (BasicBlock, Bottleneck, downsample) and He et al. 2016 (arXiv:1603.05027).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tape import Replica, Want, images, note


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _downsample(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.bn1(self.conv1(x))
        note(self, "relu", out, "nupp")
        out = self.relu(out)
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        note(self, "relu#1", out, "nupp")
        return self.relu(out)


class Bottleneck(nn.Module):
    expansion = 2

    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(inputs, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.bn1(self.conv1(x))
        note(self, "relu", out, "nupp")
        out = self.relu(out)
        out = self.bn2(self.conv2(out))
        note(self, "relu#1", out, "nupp")
        out = self.relu(out)
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        note(self, "relu#2", out, "nupp")
        return self.relu(out)


def _downsample(inputs: int, planes: int, stride: int) -> nn.Sequential | None:
    if inputs == planes and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))


class ResNet(nn.Module):
    def __init__(self, block: type[BasicBlock] | type[Bottleneck]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(block(4, 4), block(4 * block.expansion, 4))
        self.layer2 = nn.Sequential(block(4 * block.expansion, 6, 2), block(6 * block.expansion, 6))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(6 * block.expansion, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))
        note(self, "relu", x, "nupp")
        x = self.maxpool(self.relu(x))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class PreActivationBlock(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, planes, 1, stride, bias=False) if stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(x)
        note(self, "relu()", out, "nupp")
        out = F.relu(out)
        shortcut = x if self.shortcut is None else self.shortcut(out)
        out = self.bn2(self.conv1(out))
        note(self, "relu()#1", out, "nupp")
        out = self.conv2(F.relu(out))
        return out + shortcut


class PreActivationResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.blocks = nn.ModuleList([PreActivationBlock(4, 4), PreActivationBlock(4, 6, 2), PreActivationBlock(6, 6)])
        self.bn = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for block in self.blocks:
            x = block(x)
        x = self.bn(x)
        note(self, "relu()", x, "nupp")
        return self.fc(F.relu(x).mean((2, 3)))


REPLICAS = (
    Replica(
        "resnet-basic",
        lambda: ResNet(BasicBlock),
        images(),
        (
            Want("relu", "relu", 4, ("conv1",), "bn1.bias", (1,)),
            Want("layer1.0.relu", "relu", 4, ("layer1.0.conv1",), "layer1.0.bn1.bias", (0, 3)),
            Want("layer1.0.relu#1", "relu", 4, ("layer1.0.conv2",), "layer1.0.bn2.bias", (2,)),
            Want("layer1.1.relu", "relu", 4, ("layer1.1.conv1",)),
            Want("layer1.1.relu#1", "relu", 4, ("layer1.1.conv2",), "layer1.1.bn2.bias", (0,)),
            Want("layer2.0.relu", "relu", 6, ("layer2.0.conv1",), "layer2.0.bn1.bias", (5,)),
            Want(
                "layer2.0.relu#1",
                "relu",
                6,
                ("layer2.0.conv2", "layer2.0.downsample.0"),
                "layer2.0.downsample.1.bias",
                (4,),
            ),
            Want("layer2.1.relu", "relu", 6, ("layer2.1.conv1",)),
            Want("layer2.1.relu#1", "relu", 6, ("layer2.1.conv2",), "layer2.1.bn2.bias", (1, 2)),
        ),
    ),
    Replica(
        "resnet-bottleneck",
        lambda: ResNet(Bottleneck),
        images(),
        (
            Want("relu", "relu", 4, ("conv1",)),
            Want("layer1.0.relu", "relu", 4, ("layer1.0.conv1",), "layer1.0.bn1.bias", (1,)),
            Want("layer1.0.relu#1", "relu", 4, ("layer1.0.conv2",), "layer1.0.bn2.bias", (2, 3)),
            Want(
                "layer1.0.relu#2",
                "relu",
                8,
                ("layer1.0.conv3", "layer1.0.downsample.0"),
                "layer1.0.bn3.bias",
                (7,),
            ),
            Want("layer1.1.relu", "relu", 4, ("layer1.1.conv1",)),
            Want("layer1.1.relu#1", "relu", 4, ("layer1.1.conv2",)),
            Want("layer1.1.relu#2", "relu", 8, ("layer1.1.conv3",), "layer1.1.bn3.bias", (0, 5)),
            Want("layer2.0.relu", "relu", 6, ("layer2.0.conv1",)),
            Want("layer2.0.relu#1", "relu", 6, ("layer2.0.conv2",), "layer2.0.bn2.bias", (3,)),
            Want("layer2.0.relu#2", "relu", 12, ("layer2.0.conv3", "layer2.0.downsample.0")),
            Want("layer2.1.relu", "relu", 6, ("layer2.1.conv1",)),
            Want("layer2.1.relu#1", "relu", 6, ("layer2.1.conv2",)),
            Want("layer2.1.relu#2", "relu", 12, ("layer2.1.conv3",), "layer2.1.bn3.bias", (10, 11)),
        ),
    ),
    Replica(
        "resnet-v2",
        PreActivationResNet,
        images(),
        (
            Want("blocks.0.relu()", "relu", 4, ("conv",), "blocks.0.bn1.bias", (0,)),
            Want("blocks.0.relu()#1", "relu", 4, ("blocks.0.conv1",), "blocks.0.bn2.bias", (1, 2)),
            Want("blocks.1.relu()", "relu", 4, ("blocks.0.conv2", "conv"), "blocks.1.bn1.bias", (3,)),
            Want("blocks.1.relu()#1", "relu", 6, ("blocks.1.conv1",)),
            Want("blocks.2.relu()", "relu", 6, ("blocks.1.conv2", "blocks.1.shortcut"), "blocks.2.bn1.bias", (0, 5)),
            Want("blocks.2.relu()#1", "relu", 6, ("blocks.2.conv1",)),
            Want("relu()", "relu", 6, ("blocks.2.conv2", "blocks.1.conv2"), "bn.bias", (4,)),
        ),
    ),
)

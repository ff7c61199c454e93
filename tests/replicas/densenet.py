"""DenseNets: norm, relu, conv over concatenated features, with functions and with modules.

After kuangliu/pytorch-cifar densenet.py (`F.relu`) and torchvision.models.densenet (in-place modules, `F.relu` last).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tape import Replica, Want, images, note


class FunctionalLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 2 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * growth)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(x)
        note(self, "relu()", out, "nupp")
        out = self.bn2(self.conv1(F.relu(out)))
        note(self, "relu()#1", out, "nupp")
        out = self.conv2(F.relu(out))
        return torch.cat([out, x], 1)


class Transition(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(x)
        note(self, "relu()", x, "nupp")
        return F.avg_pool2d(self.conv(F.relu(x)), 2)


class FunctionalDenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.dense1 = nn.Sequential(FunctionalLayer(6, 3), FunctionalLayer(9, 3))
        self.trans1 = Transition(12, 6)
        self.dense2 = nn.Sequential(FunctionalLayer(6, 3))
        self.bn = nn.BatchNorm2d(9)
        self.linear = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.trans1(self.dense1(self.conv1(x)))
        out = self.bn(self.dense2(out))
        note(self, "relu()", out, "nupp")
        out = F.avg_pool2d(F.relu(out), 4)
        return self.linear(out.view(out.size(0), -1))


class ModuleLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, 2 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * growth)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        x = self.norm1(torch.cat(inputs, 1))
        note(self, "relu1", x, "nupp")
        x = self.norm2(self.conv1(self.relu1(x)))
        note(self, "relu2", x, "nupp")
        return self.conv2(self.relu2(x))


class DenseBlock(nn.ModuleDict):
    def __init__(self, layers: int, inputs: int, growth: int) -> None:
        super().__init__()
        for i in range(layers):
            self.add_module(f"denselayer{i + 1}", ModuleLayer(inputs + i * growth, growth))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


class ModuleDenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                conv0=nn.Conv2d(3, 6, 3, padding=1, bias=False),
                norm0=nn.BatchNorm2d(6),
                relu0=nn.ReLU(inplace=True),
                pool0=nn.MaxPool2d(3, 2, 1),
                denseblock1=DenseBlock(2, 6, 3),
                norm5=nn.BatchNorm2d(12),
            )
        )
        self.classifier = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = x
        for name, layer in self.features.named_children():
            if name == "relu0":
                note(self, "features.relu0", features, "nupp")
            features = layer(features)
        note(self, "relu()", features, "nupp")
        out = F.relu(features, inplace=True)
        out = torch.flatten(F.adaptive_avg_pool2d(out, (1, 1)), 1)
        return self.classifier(out)


REPLICAS = (
    Replica(
        "densenet-functions",
        FunctionalDenseNet,
        images(),
        (
            Want("dense1.0.relu()", "relu", 6, ("conv1",), "dense1.0.bn1.bias", (0,)),
            Want("dense1.0.relu()#1", "relu", 6, ("dense1.0.conv1",), "dense1.0.bn2.bias", (5,)),
            Want("dense1.1.relu()", "relu", 9, ("dense1.0.conv2", "conv1"), "dense1.1.bn1.bias", (2, 3)),
            Want("dense1.1.relu()#1", "relu", 6, ("dense1.1.conv1",)),
            Want(
                "trans1.relu()",
                "relu",
                12,
                ("dense1.1.conv2", "dense1.0.conv2", "conv1"),
                "trans1.bn.bias",
                (0, 11),
            ),
            Want("dense2.0.relu()", "relu", 6, ("trans1.conv",)),
            Want("dense2.0.relu()#1", "relu", 6, ("dense2.0.conv1",), "dense2.0.bn2.bias", (1,)),
            Want("relu()", "relu", 9, ("dense2.0.conv2", "trans1.conv"), "bn.bias", (7,)),
        ),
    ),
    Replica(
        "densenet-modules",
        ModuleDenseNet,
        images(),
        (
            Want("features.relu0", "relu", 6, ("features.conv0",), "features.norm0.bias", (1,)),
            Want(
                "features.denseblock1.denselayer1.relu1",
                "relu",
                6,
                (),
                "features.denseblock1.denselayer1.norm1.bias",
                (2,),
            ),
            Want(
                "features.denseblock1.denselayer1.relu2",
                "relu",
                6,
                ("features.denseblock1.denselayer1.conv1",),
                "features.denseblock1.denselayer1.norm2.bias",
                (0, 4),
            ),
            Want(
                "features.denseblock1.denselayer2.relu1",
                "relu",
                9,
                ("features.denseblock1.denselayer1.conv2",),
                "features.denseblock1.denselayer2.norm1.bias",
                (8,),
            ),
            Want(
                "features.denseblock1.denselayer2.relu2",
                "relu",
                6,
                ("features.denseblock1.denselayer2.conv1",),
            ),
            Want("relu()", "relu", 12, ("features.denseblock1.denselayer2.conv2",), "features.norm5.bias", (6, 9)),
        ),
    ),
)

"""MobileNets: ReLU6 inverted residuals (v2); squeeze-excite with Hardsigmoid, and Hardswish (v3).

After torchvision.models.mobilenetv2 and mobilenetv3, and ops.misc.SqueezeExcitation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .tape import Replica, Want, images, note


class ConvNormActivation(nn.Sequential):
    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, groups: int, activation: type[nn.Module]
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            activation(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self[1](self[0](x))
        note(self, "2", x, "nupp")
        return self[2](x)


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = 2 * inputs
        self.use_res_connect = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            ConvNormActivation(inputs, hidden, 1, 1, 1, nn.ReLU6),
            ConvNormActivation(hidden, hidden, 3, stride, hidden, nn.ReLU6),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvNormActivation(3, 4, 3, 1, 1, nn.ReLU6),
            InvertedResidual(4, 4, 1),
            InvertedResidual(4, 6, 2),
            ConvNormActivation(6, 10, 1, 1, 1, nn.ReLU6),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(10, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.ReLU()
        self.scale_activation = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        scale = self.fc1(self.avgpool(x))
        note(self, "activation", scale, "nupp")
        scale = self.fc2(self.activation(scale))
        note(self, "scale_activation", scale, "nupp")
        return self.scale_activation(scale) * x


class InvertedResidualV3(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            ConvNormActivation(channels, hidden, 1, 1, 1, nn.Hardswish),
            ConvNormActivation(hidden, hidden, 5, 1, hidden, nn.Hardswish),
            SqueezeExcitation(hidden, 4),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class MobileNetV3(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvNormActivation(3, 4, 3, 2, 1, nn.Hardswish),
            InvertedResidualV3(4, 8),
        )
        self.classifier = nn.Sequential(nn.Linear(4, 7), nn.Hardswish(inplace=True), nn.Linear(7, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(nn.functional.adaptive_avg_pool2d(self.features(x), 1), 1)
        x = self.classifier[0](x)
        note(self, "classifier.1", x, "nu")
        return self.classifier[2](self.classifier[1](x))


def _want(block: str, op: str, units: int, *dead: int, high: tuple[int, ...] = ()) -> Want:
    return Want(f"{block}.2", op, units, (f"{block}.0",), f"{block}.1.bias", dead, high)


REPLICAS = (
    Replica(
        "mobilenet-v2",
        MobileNetV2,
        images(),
        (
            _want("features.0", "relu6", 4, 2),
            _want("features.1.conv.0", "relu6", 8, 0, 7, high=(3,)),
            _want("features.1.conv.1", "relu6", 8, 5),
            _want("features.2.conv.0", "relu6", 8),
            _want("features.2.conv.1", "relu6", 8, 1, high=(2, 6)),
            _want("features.3", "relu6", 10, high=(9,)),
        ),
    ),
    Replica(
        "mobilenet-v3",
        MobileNetV3,
        images(),
        (
            _want("features.0", "hardswish", 4, 1),
            _want("features.1.block.0", "hardswish", 8, 0, 6),
            _want("features.1.block.1", "hardswish", 8, 3),
            Want(
                "features.1.block.2.activation",
                "relu",
                4,
                ("features.1.block.2.fc1",),
                "features.1.block.2.fc1.bias",
                (2,),
            ),
            Want(
                "features.1.block.2.scale_activation",
                "hardsigmoid",
                8,
                ("features.1.block.2.fc2",),
                "features.1.block.2.fc2.bias",
                (1,),
                (5, 7),
            ),
            Want("classifier.1", "hardswish", 7, ("classifier.0",), "classifier.0.bias", (0, 1)),
        ),
    ),
)

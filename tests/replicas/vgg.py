"""VGG: convolutions, then flatten, then Linear layers with in-place ReLU. After torchvision.models.vgg."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .tape import Replica, Want, images, note


class VGG(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(24, 10), nn.ReLU(True), nn.Dropout(), nn.Linear(10, 9), nn.ReLU(True), nn.Linear(9, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        for part, layout in (("features", "nupp"), ("classifier", "nu")):
            for i, layer in enumerate(getattr(self, part)):
                if isinstance(layer, nn.ReLU):
                    note(self, f"{part}.{i}", x, layout)
                x = layer(x)
            if part == "features":
                x = torch.flatten(self.avgpool(x), 1)
        return x


REPLICAS = (
    Replica(
        "vgg",
        VGG,
        images(),
        (
            Want("features.1", "relu", 4, ("features.0",), "features.0.bias", (3,)),
            Want("features.4", "relu", 6, ("features.3",), "features.3.bias", (0, 1)),
            Want("classifier.1", "relu", 10, ("classifier.0",), "classifier.0.bias", (9,)),
            Want("classifier.4", "relu", 9, ("classifier.3",), "classifier.3.bias", (2, 4)),
        ),
    ),
)

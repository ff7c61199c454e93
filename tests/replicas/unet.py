"""U-Nets: skip concatenation and transposed convolutions.

After milesial/Pytorch-UNet, and pix2pix (junyanz/pytorch-CycleGAN-and-pix2pix), whose in-place LeakyReLU overwrites
the tensor that the skip connection then concatenates, and whose ReLU reads the concatenation itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .tape import Replica, Want, images, note


class DoubleConv(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.double_conv):
            if isinstance(layer, nn.ReLU):
                note(self, f"double_conv.{i}", x, "nupp")
            x = layer(x)
        return x


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inc = DoubleConv(3, 4)
        self.down = nn.Sequential(nn.MaxPool2d(2), DoubleConv(4, 6))
        self.up = nn.ConvTranspose2d(6, 3, 2, 2)
        self.conv = DoubleConv(7, 4)
        self.outc = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.inc(x)
        up = self.up(self.down(skip))
        return self.outc(self.conv(torch.cat([skip, up], dim=1)))


class SkipBlock(nn.Module):
    def __init__(self, outer: int, inner: int, submodule: nn.Module | None) -> None:
        super().__init__()
        self.downrelu = nn.LeakyReLU(0.01, inplace=True)
        self.downconv = nn.Conv2d(outer, inner, 4, 2, 1, bias=False)
        self.downnorm = nn.BatchNorm2d(inner)
        self.submodule = submodule
        self.uprelu = nn.ReLU(inplace=True)
        self.upconv = nn.ConvTranspose2d(2 * inner if submodule else inner, outer, 4, 2, 1, bias=False)
        self.upnorm = nn.BatchNorm2d(outer)

    def forward(self, x: Tensor) -> Tensor:
        note(self, "downrelu", x, "nupp")
        y = self.downnorm(self.downconv(self.downrelu(x)))
        if self.submodule is not None:
            y = self.submodule(y)
        note(self, "uprelu", y, "nupp")
        y = self.upnorm(self.upconv(self.uprelu(y)))
        return torch.cat([x, y], 1)


class Pix2Pix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = SkipBlock(4, 5, SkipBlock(5, 6, None))
        self.head = nn.Conv2d(8, 3, 1)
        self.tanh = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.block(self.stem(x)))
        note(self, "tanh", x, "nupp")
        return self.tanh(x)


def _double(block: str, units: int, first: tuple[int, ...], second: tuple[int, ...]) -> tuple[Want, Want]:
    return (
        Want(f"{block}.2", "relu", units, (f"{block}.0",), f"{block}.1.bias", first),
        Want(f"{block}.5", "relu", units, (f"{block}.3",), f"{block}.4.bias", second),
    )


REPLICAS = (
    Replica(
        "unet",
        UNet,
        images(),
        (
            *_double("inc.double_conv", 4, (0,), (1, 2)),
            *_double("down.1.double_conv", 6, (5,), ()),
            *_double("conv.double_conv", 4, (2,), (3,)),
        ),
    ),
    Replica(
        "pix2pix",
        Pix2Pix,
        images(),
        (
            Want("block.downrelu", "leaky_relu", 4, ("stem",), "stem.bias", (1,)),
            Want("block.submodule.downrelu", "leaky_relu", 5, ("block.downconv",), "block.downnorm.bias", (0, 4)),
            Want(
                "block.submodule.uprelu",
                "relu",
                6,
                ("block.submodule.downconv",),
                "block.submodule.downnorm.bias",
                (3,),
            ),
            Want("block.uprelu", "relu", 10, ("block.submodule.upconv",), "block.submodule.upnorm.bias", (2,)),
            Want("tanh", "tanh", 3, ("head",), "head.bias", (0,), (2,)),
        ),
    ),
)

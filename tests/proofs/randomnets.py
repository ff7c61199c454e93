"""Random networks over the ops that are bounded, with units planted under zero, and the points to try them on."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor, nn

SHAPE = (3, 8, 8)
ACTIVATIONS = (
    nn.ReLU,
    lambda: nn.ReLU(inplace=True),
    nn.ReLU6,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.ELU,
    nn.Softplus,
    nn.Sigmoid,
    nn.Tanh,
    lambda: nn.Threshold(0.1, -0.2),
    lambda: nn.Softshrink(0.2),
)


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Both(nn.Module):
    """Two branches, one after the other."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.first(x), self.second(x)), 1)


class Scale(nn.Module):
    """Squeeze and excite: channels times a gate of their own means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(channels, 4), nn.Linear(4, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


def network(seed: int) -> nn.Module:
    """Return a random network on images of `SHAPE`."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    channels, layers = SHAPE[0], []
    for _ in range(draw.randint(2, 3)):
        block, channels = _block(channels, draw)
        layers += [block]
    layers += [nn.AdaptiveAvgPool2d(2) if draw.random() < 0.5 else nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(10)]
    layers += [nn.LayerNorm(10) if draw.random() < 0.5 else nn.Identity(), nn.Linear(10, 12), nn.ReLU()]
    model = nn.Sequential(*layers).eval()
    model(torch.zeros(1, *SHAPE))
    _plant(model, draw)
    return model


def _block(channels: int, draw: random.Random) -> tuple[nn.Module, int]:
    width = draw.choice((4, 6, 8))
    mode = draw.choice(("zeros", "circular", "reflect", "replicate"))
    groups = draw.choice((1, math.gcd(channels, width)))
    conv = nn.Conv2d(channels, width, 3, padding=1, dilation=1, groups=groups, padding_mode=mode)
    norm = draw.choice(
        (nn.BatchNorm2d(width), nn.GroupNorm(2, width), nn.InstanceNorm2d(width, affine=True), nn.Identity())
    )
    body = nn.Sequential(conv, norm, draw.choice(ACTIVATIONS)())
    kind = draw.randrange(4)
    if kind == 0:
        inner = nn.Sequential(nn.Conv2d(width, width, 1), draw.choice(ACTIVATIONS)())
        return nn.Sequential(body, Residual(inner), nn.ReLU()), width
    if kind == 1:
        return Both(body, nn.Sequential(nn.Conv2d(channels, 2, 1), nn.AvgPool2d(3, 1, 1), nn.ReLU())), width + 2
    if kind == 2:
        return nn.Sequential(body, Scale(width), nn.Dropout(0.3), nn.ReLU()), width
    return nn.Sequential(body, nn.MaxPool2d(3, 1, 1)), width


def _plant(model: nn.Module, draw: random.Random) -> None:
    """Generic statistics, and shifts that leave some units silent: from barely so to hopelessly."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.2, 2.0)
            bias = getattr(module, "bias", None)
            if isinstance(bias, nn.Parameter):
                bias -= draw.choice((0.5, 1.0, 2.0, 6.0)) * torch.rand_like(bias)


def points(low: Tensor, high: Tensor, count: int, seed: int) -> Tensor:
    """Return random points of a box, a third of them corners, a third on faces."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(count, *low.shape, generator=generator)
    share[: count // 3] = share[: count // 3].round()
    faces = torch.rand(count // 3, *low.shape, generator=generator) < 0.5
    part = share[count // 3 : 2 * (count // 3)]
    part[faces] = part[faces].round()
    share[-1], share[-2] = 0.0, 1.0
    return (low + share * (high - low)).clamp(low, high)

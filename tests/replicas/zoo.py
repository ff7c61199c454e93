"""The same rectifier in every spelling that torch has, one after another; and calls that only look like one."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tape import Replica, Want, note, vectors

SPELLINGS: tuple[tuple[str, str, Callable[[Tensor], Tensor]], ...] = (
    ("relu()", "relu", torch.relu),
    ("relu()#1", "relu", lambda z: torch.relu_(z)),
    ("relu()#2", "relu", lambda z: z.relu()),
    ("relu()#3", "relu", lambda z: z.relu_()),
    ("relu()#4", "relu", lambda z: F.relu(z)),
    ("relu()#5", "relu", lambda z: F.relu(z, inplace=True)),
    ("relu()#6", "relu", lambda z: F.relu_(z)),
    ("clamp()", "clamp", lambda z: z.clamp(min=0)),
    ("clamp()#1", "clamp", lambda z: torch.clamp(z, 0)),
    ("clamp()#2", "clamp", lambda z: z.clamp_(min=0.0)),
    ("clamp_min()", "clamp_min", lambda z: z.clamp_min(0)),
    ("clamp_min()#1", "clamp_min", lambda z: torch.clamp_min(z, 0.0)),
    ("clamp_min()#2", "clamp_min", lambda z: z.clamp_min_(0)),
    ("maximum()", "maximum", lambda z: torch.maximum(z, torch.zeros_like(z))),
    ("maximum()#1", "maximum", lambda z: torch.maximum(torch.tensor(0.0), z)),
    ("maximum()#2", "maximum", lambda z: z.maximum(z.new_zeros(()))),
    ("relu6()", "relu6", lambda z: F.relu6(z)),
    ("relu6()#1", "relu6", lambda z: F.relu6(z, inplace=True)),
    ("hardtanh()", "relu6", lambda z: F.hardtanh(z, 0.0, 6.0)),
    ("hardtanh()#1", "hardtanh", lambda z: F.hardtanh(z)),
    ("threshold()", "threshold", lambda z: F.threshold(z, 0.1, 20.0)),
    ("hardswish()", "hardswish", lambda z: F.hardswish(z)),
    ("hardsigmoid()", "hardsigmoid", lambda z: F.hardsigmoid(z)),
    ("leaky_relu()", "leaky_relu", lambda z: F.leaky_relu(z, 0.01)),
    ("leaky_relu()#1", "leaky_relu", lambda z: F.leaky_relu_(z, 0.01)),
    ("rrelu()", "rrelu", lambda z: F.rrelu(z)),
    ("elu()", "elu", lambda z: F.elu(z)),
    ("celu()", "celu", lambda z: torch.celu(z)),
    ("selu()", "selu", lambda z: F.selu(z)),
    ("selu()#1", "selu", lambda z: torch.selu(z)),
    ("gelu()", "gelu", lambda z: F.gelu(z)),
    ("silu()", "silu", lambda z: F.silu(z)),
    ("mish()", "mish", lambda z: F.mish(z)),
    ("softplus()", "softplus", lambda z: F.softplus(z)),
    ("sigmoid()", "sigmoid", lambda z: torch.sigmoid(z)),
    ("sigmoid()#1", "sigmoid", lambda z: z.sigmoid()),
    ("tanh()", "tanh", lambda z: torch.tanh(z)),
    ("tanh()#1", "tanh", lambda z: z.tanh_()),
)


class Zoo(nn.Module):
    """One Linear per spelling; the sums keep every branch in use."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 4) for _ in SPELLINGS)

    def forward(self, x: Tensor) -> Tensor:
        out = x.new_zeros(())
        for layer, (site, _, call) in zip(self.layers, SPELLINGS, strict=True):
            z = layer(x)
            note(self, site, z, "nu")
            out = out + call(z).sum(1)
        return out


class Lookalikes(nn.Module):
    """Guards against division by zero and limits that cut nothing off at zero: none of them is an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        note(self, "relu()", x, "nu")
        x = F.normalize(F.relu(x), dim=-1)
        x = x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        x = x / x.sum(-1, keepdim=True).clamp(min=1e-6)
        return torch.maximum(x, torch.ones(4)) * self.scale.clamp(max=100)


REPLICAS = (
    Replica(
        "spellings",
        Zoo,
        vectors(),
        tuple(
            Want(site, op, 4, (f"layers.{i}",), f"layers.{i}.bias", (i % 4,))
            for i, (site, op, _) in enumerate(SPELLINGS)
        ),
    ),
    Replica("lookalikes", Lookalikes, vectors(), (Want("relu()", "relu", 4, ("fc",), "fc.bias", (2,)),)),
)

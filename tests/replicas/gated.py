"""Gated linear units: the gate is scored. After Shazeer 2020 (arXiv:2002.05202), x-transformers, LLaMA."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .tape import Replica, Want, note, sequences


class GEGLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(8, 2 * 7)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        note(self, "gelu()", gate, "npu")
        return x * F.gelu(gate)


class ReGLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(8, 2 * 7)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        gate, x = self.proj(x).split(7, dim=-1)
        note(self, "act", gate, "npu")
        return self.act(gate) * x


class SwiGLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(8, 7), nn.Linear(8, 7)

    def forward(self, x: Tensor) -> Tensor:
        z = self.w1(x)
        note(self, "silu()", z, "npu")
        return F.silu(z) * self.w3(x)


class FeedForward(nn.Module):
    def __init__(self, gate: type[nn.Module]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.net = nn.Sequential(gate(), nn.Dropout(0.1), nn.Linear(7, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(self.norm(x))


REPLICAS = (
    Replica(
        "geglu",
        lambda: FeedForward(GEGLU),
        sequences(),
        (Want("net.0.gelu()", "gelu", 7, ("net.0.proj",), "net.0.proj.bias", (7 + 1, 7 + 6)),),
    ),
    Replica(
        "reglu",
        lambda: FeedForward(ReGLU),
        sequences(),
        (Want("net.0.act", "relu", 7, ("net.0.proj",), "net.0.proj.bias", (0, 5)),),
    ),
    Replica(
        "swiglu",
        lambda: FeedForward(SwiGLU),
        sequences(),
        (Want("net.0.silu()", "silu", 7, ("net.0.w1",), "net.0.w1.bias", (3,)),),
    ),
)

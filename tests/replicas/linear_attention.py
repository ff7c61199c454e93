"""Attention with relu on per-head tensors: the units are all features of the projection, never the heads alone.

After ReLU linear attention (cosFormer, EfficientViT) in the spellings that are found in the wild.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tape import Replica, Want, note, sequences


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    norm = q @ k.sum(-2, keepdim=True).transpose(-1, -2) + 1e-6
    return (q @ (k.transpose(-1, -2) @ v)) / norm


class Separate(nn.Module):
    """Three projections, (B, T, H, d) transposed to (B, H, T, d)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (f(x).view(b, t, 2, d // 2).transpose(1, 2) for f in (self.q, self.k, self.v))
        note(self, "relu()", q, "nupu")
        q = F.relu(q)
        note(self, "relu()#1", k, "nupu")
        k = F.relu(k)
        return self.out(_attend(q, k, v).transpose(1, 2).reshape(b, t, d))


class Chunked(nn.Module):
    """One projection for q, k and v, cut into three by `chunk`."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        note(self, "relu()", q, "npu")
        q = F.relu(q)
        note(self, "relu()#1", k, "npu")
        k = F.relu(k)
        return _attend(q, k, v)


class Unbound(nn.Module):
    """One projection viewed as (B, T, 3, H, d), permuted and unbound, as timm writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.proj = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        qkv = self.qkv(x).reshape(b, t, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        note(self, "relu()", q, "nupu")
        q = F.relu(q)
        note(self, "relu()#1", k, "nupu")
        k = F.relu(k)
        return self.proj(_attend(q, k, v).transpose(1, 2).reshape(b, t, d))


class Folded(nn.Module):
    """The heads are folded into the batch, (B * H, T, d), as fairseq and nn.MultiheadAttention do."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.v = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, v = (f(x).view(b, t, 2, d // 2).transpose(1, 2).reshape(b * 2, t, d // 2) for f in (self.q, self.v))
        note(self, "relu()", q, "(nu)pu", 8)
        q = F.relu(q)
        return (q @ (q.transpose(1, 2) @ v)).view(b, 2, t, d // 2).transpose(1, 2).reshape(b, t, d)


class Einsum(nn.Module):
    """The projection to heads is one einsum with a parameter; its features are (heads, width of a head)."""

    def __init__(self) -> None:
        super().__init__()
        self.wq = nn.Parameter(torch.randn(8, 2, 3) / 3)
        self.bq = nn.Parameter(torch.randn(2, 3) / 3)

    def forward(self, x: Tensor) -> Tensor:
        q = torch.einsum("btd,dhe->bthe", x, self.wq) + self.bq
        note(self, "relu()", q, "npuu")
        return F.relu(q).flatten(2)


REPLICAS = (
    Replica(
        "heads-separate",
        Separate,
        sequences(),
        (Want("relu()", "relu", 8, ("q",), "q.bias", (1, 6)), Want("relu()#1", "relu", 8, ("k",), "k.bias", (3,))),
    ),
    Replica(
        "heads-chunked",
        Chunked,
        sequences(),
        (
            Want("relu()", "relu", 8, ("qkv",), "qkv.bias", (0, 5)),
            Want("relu()#1", "relu", 8, ("qkv",), "qkv.bias", (8 + 2,)),
        ),
    ),
    Replica(
        "heads-unbound",
        Unbound,
        sequences(),
        (
            Want("relu()", "relu", 8, ("qkv",), "qkv.bias", (0, 5)),
            Want("relu()#1", "relu", 8, ("qkv",), "qkv.bias", (8 + 2,)),
        ),
    ),
    Replica("heads-folded", Folded, sequences(), (Want("relu()", "relu", 8, ("q",), "q.bias", (2, 7)),)),
    Replica("heads-einsum", Einsum, sequences(), (Want("relu()", "relu", 6, ("",), "bq", (1,)),)),
)

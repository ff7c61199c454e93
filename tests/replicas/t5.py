"""T5: RMSNorm, pre-norm residuals, DenseReluDense. After transformers.models.t5; here the tokens are folded
into the batch by `reshape(-1, D)` around the feed-forward part, as sharded trainers do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .tape import Replica, Want, note, tokens


class LayerNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class DenseReluDense(nn.Module):
    def __init__(self, width: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.wi = nn.Linear(width, hidden, bias=bias)
        self.wo = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(0.1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.wi(x)
        note(self, "act", x, "(np)u")
        return self.wo(self.dropout(self.act(x)))


class Block(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.DenseReluDense = DenseReluDense(width, 12, bias)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        y = self.norm1(x)
        q, k, v = (f(y).view(b, t, 2, d // 2).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = torch.matmul(q, k.transpose(3, 2)).softmax(-1)
        x = x + self.o(torch.matmul(weights, v).transpose(1, 2).contiguous().view(b, -1, d))
        y = self.norm2(x).reshape(-1, d)
        return x + self.DenseReluDense(y).reshape(b, t, d)


class T5(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.shared = nn.Embedding(20, 8)
        self.block = nn.ModuleList([Block(8, bias), Block(8, bias)])
        self.final_layer_norm = LayerNorm(8)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.shared(input_ids)
        for block in self.block:
            x = block(x)
        return self.final_layer_norm(x) @ self.shared.weight.t()


class NoBias(T5):
    """T5 as published has no bias: a unit dies by its weights, here zero with a tie at z = 0."""

    def __init__(self) -> None:
        super().__init__(False)
        with torch.no_grad():
            self.block[0].DenseReluDense.wi.weight[[1, 11]] = 0  # type: ignore[union-attr]


def _wants(bias: bool) -> tuple[Want, ...]:
    dead = ((0, 5), (11,)) if bias else ((1, 11), ())
    return tuple(
        Want(
            f"block.{i}.DenseReluDense.act",
            "relu",
            12,
            (f"block.{i}.DenseReluDense.wi",),
            f"block.{i}.DenseReluDense.wi.bias" if bias else None,
            dead[i],
        )
        for i in range(2)
    )


REPLICAS = (
    Replica("t5", lambda: T5(True), tokens(), _wants(True)),
    Replica("t5-without-bias", NoBias, tokens(), _wants(False)),
)

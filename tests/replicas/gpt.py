"""GPT-2: Conv1D (`torch.addmm` on a transposed weight) and a causal mask. After transformers.models.gpt2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tape import Replica, Want, note, tokens


class Conv1D(nn.Module):
    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.empty(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))
        nn.init.normal_(self.weight, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        size_out = (*x.size()[:-1], self.nf)
        x = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return x.view(size_out)


class MLP(nn.Module):
    def __init__(self, width: int, hidden: int, act: nn.Module | None) -> None:
        super().__init__()
        self.c_fc = Conv1D(hidden, width)
        self.c_proj = Conv1D(width, hidden)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        if self.act is None:
            note(self, "relu()", x, "npu")
            return self.c_proj(F.relu(x))
        note(self, "act", x, "npu")
        return self.c_proj(self.act(x))


class Block(nn.Module):
    def __init__(self, width: int, act: nn.Module | None) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.c_attn = Conv1D(3 * width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 10, act)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).split(d, dim=2)
        q, k, v = (y.view(b, t, 2, d // 2).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + y.transpose(1, 2).reshape(b, t, d)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, act: type[nn.Module] | None) -> None:
        super().__init__()
        self.wte = nn.Embedding(20, 8)
        self.wpe = nn.Embedding(5, 8)
        self.h = nn.ModuleList([Block(8, act() if act else None) for _ in range(2)])
        self.ln_f = nn.LayerNorm(8)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.wte(input_ids) + self.wpe(torch.arange(input_ids.shape[1]))
        for block in self.h:
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight)


def _wants(site: str) -> tuple[Want, ...]:
    return (
        Want(f"h.0.mlp.{site}", "relu", 10, ("h.0.mlp.c_fc",), "h.0.mlp.c_fc.bias", (0, 9)),
        Want(f"h.1.mlp.{site}", "relu", 10, ("h.1.mlp.c_fc",), "h.1.mlp.c_fc.bias", (4,)),
    )


REPLICAS = (
    Replica("gpt-module", lambda: GPT(nn.ReLU), tokens(), _wants("act")),
    Replica("gpt-function", lambda: GPT(None), tokens(), _wants("relu()")),
)

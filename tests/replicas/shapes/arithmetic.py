"""What combines tensors or reduces one: sums, concatenations, masks, products from the left, pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .case import CONV, IMAGE, LINEAR, TOKENS, TWO_CONVS, TWO_LINEARS, Case, only, part

MIXED = (
    Case("residual-add", IMAGE, "nupp", 8, TWO_CONVS, lambda m, x: m.a(x) + m.b(x), producers=("a", "b")),
    Case(
        "add-parameter-per-channel",
        IMAGE,
        "nupp",
        8,
        part(b=lambda: nn.Conv2d(3, 8, 3), a=lambda: nn.Parameter(torch.zeros(8, 1, 1))),
        lambda m, x: m.b(x) * 2 + m.a,
        kill="a",
        producers=("b",),
    ),
    Case(
        "add-positions",
        TOKENS,
        "npu",
        8,
        part(a=lambda: nn.Linear(6, 8), b=lambda: nn.Parameter(torch.randn(1, 5, 8))),
        lambda m, x: m.b + m.a(x),
    ),
    Case(
        "add-pairs",
        TOKENS,
        "nppu",
        8,
        TWO_LINEARS,
        lambda m, x: m.a(x).unsqueeze(2) + m.b(x[:, :3]).unsqueeze(1),
        producers=("a", "b"),
    ),
    Case("add-rows-to-tokens", TOKENS, "npu", 8, TWO_LINEARS, lambda m, x: m.a(x) + m.b(x[:, 0])[:, None]),
    Case(
        "pad-shortcut",
        (6, 4, 4),
        "nupp",
        8,
        part(a=lambda: nn.Conv2d(6, 8, 3, 2, 1)),
        lambda m, x: m.a(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)),
    ),
    Case("cat-units", (6,), "nu", 16, TWO_LINEARS, lambda m, x: torch.cat([m.b(x), m.a(x)], 1), producers=("a", "b")),
    Case(
        "cat-units-of-tokens",
        TOKENS,
        "npu",
        16,
        TWO_LINEARS,
        lambda m, x: torch.cat((m.a(x), m.b(x)), dim=-1),
        producers=("a", "b"),
    ),
    Case("cat-tokens", TOKENS, "npu", 8, LINEAR, lambda m, x: torch.cat([m.a(x), m.a(x[:, :2])], 1)),
    Case(
        "cat-cls-token",
        TOKENS,
        "npu",
        8,
        part(a=lambda: nn.Linear(6, 8), b=lambda: nn.Parameter(torch.full((1, 1, 8), -1.0))),
        lambda m, x: torch.cat([m.b.expand(x.shape[0], -1, -1), m.a(x)], dim=1),
    ),
    Case("stack", (6,), "npu", 8, LINEAR, lambda m, x: torch.stack([m.a(x), m.a(2 * x)], 1)),
    Case(
        "graph-matmul",
        TOKENS,
        "npu",
        8,
        LINEAR,
        lambda m, x: torch.softmax(torch.arange(25.0).view(5, 5), 1) @ m.a(x),
    ),
    Case(
        "graph-einsum",
        TOKENS,
        "npu",
        8,
        LINEAR,
        lambda m, x: torch.einsum("vw,nwf->nvf", torch.softmax(torch.arange(25.0).view(5, 5), 1), m.a(x)),
    ),
    Case(
        "einsum-heads-first",
        TOKENS,
        "nupu",
        8,
        part(w=lambda: nn.Parameter(torch.randn(6, 2, 4) / 3), a=lambda: nn.Parameter(torch.zeros(2, 1, 4))),
        lambda m, x: torch.einsum("btd,dhe->bhte", x, m.w) + m.a,
        kill="a",
        producers=("w",),
    ),
    Case(
        "attention-weights",
        TOKENS,
        "npu",
        8,
        LINEAR,
        lambda m, x: torch.bmm((x @ x.transpose(1, 2)).softmax(-1), m.a(x)),
    ),
    Case("masked-fill", TOKENS, "npu", 8, LINEAR, lambda m, x: m.a(x).masked_fill(x[..., :1] > 1, -1.0)),
    Case("where", TOKENS, "npu", 8, LINEAR, lambda m, x: torch.where(x[..., :1] > 1, x.new_tensor(-1.0), m.a(x))),
    Case(
        "dropout-clone-double",
        (6,),
        "nu",
        8,
        LINEAR,
        lambda m, x: F.dropout(m.a(x), 0.5, False).clone().double().contiguous(),
    ),
    Case("in-place-arithmetic", IMAGE, "nupp", 8, CONV, lambda m, x: m.a(x).mul_(0.5).add_(0.1).div_(2)),
)

POOLS = (
    Case("max-pool", IMAGE, "nupp", 8, CONV, lambda m, x: F.max_pool2d(m.a(x), 2)),
    Case("avg-pool1d", (3, 7), "nup", 8, only(nn.Conv1d, 3, 8, 3), lambda m, x: F.avg_pool1d(m.a(x), 2)),
    Case("global-pool", IMAGE, "nupp", 8, CONV, lambda m, x: F.adaptive_avg_pool2d(m.a(x), 1)),
    Case("global-pool-flatten", IMAGE, "nu", 8, CONV, lambda m, x: torch.flatten(F.adaptive_avg_pool2d(m.a(x), 1), 1)),
    Case("mean-over-pixels", IMAGE, "nu", 8, CONV, lambda m, x: m.a(x).mean((2, 3))),
    Case("mean-over-pixels-kept", IMAGE, "nupp", 8, CONV, lambda m, x: m.a(x).mean([-2, -1], keepdim=True)),
    Case("mean-over-tokens", TOKENS, "nu", 8, LINEAR, lambda m, x: m.a(x).mean(dim=1)),
    Case("max-over-points", (3, 7), "nu", 8, only(nn.Conv1d, 3, 8, 1), lambda m, x: torch.max(m.a(x), 2)[0]),
    Case("max-over-tokens", TOKENS, "nu", 8, LINEAR, lambda m, x: m.a(x).max(dim=1).values),
    Case("sum-over-tokens-time-first", TOKENS, "nu", 8, LINEAR, lambda m, x: m.a(x).sum(0), batch_dim=1),
    Case("interpolate", IMAGE, "nupp", 8, CONV, lambda m, x: F.interpolate(m.a(x), scale_factor=2)),
)

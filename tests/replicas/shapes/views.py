"""What moves, splits, merges or cuts the unit axis and the batch axis."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .case import CONV, IMAGE, LINEAR, TOKENS, Case, only, part

VIEWS = (
    Case("heads", TOKENS, "npuu", 8, LINEAR, lambda m, x: m.a(x).view(*x.shape[:2], 2, 4)),
    Case("heads-transposed", TOKENS, "nupu", 8, LINEAR, lambda m, x: m.a(x).view(*x.shape[:2], 2, 4).transpose(1, 2)),
    Case(
        "heads-and-back",
        TOKENS,
        "npu",
        8,
        LINEAR,
        lambda m, x: m.a(x).view(*x.shape[:2], 2, 4).transpose(1, 2).transpose(1, 2).reshape(*x.shape[:2], 8),
    ),
    Case("unflatten", (6,), "nuu", 8, LINEAR, lambda m, x: m.a(x).unflatten(1, (2, 4))),
    Case("linear-to-image", (6,), "nuuu", 8, LINEAR, lambda m, x: m.a(x).view(-1, 2, 2, 2)),
    Case(
        "linear-to-image-norm",
        (6,),
        "nuuu",
        8,
        part(a=lambda: nn.Linear(6, 8), b=lambda: nn.BatchNorm2d(2)),
        lambda m, x: m.b(m.a(x).view(-1, 2, 2, 2)),
    ),
    Case("flatten-conv", IMAGE, "n(up)", 8, CONV, lambda m, x: m.a(x).flatten(1)),
    Case("view-conv", IMAGE, "n(up)", 8, CONV, lambda m, x: m.a(x).view(x.size(0), -1)),
    Case("flatten-pixels", IMAGE, "nup", 8, CONV, lambda m, x: m.a(x).flatten(2)),
    Case("patches-to-tokens", IMAGE, "npu", 8, CONV, lambda m, x: m.a(x).flatten(2).transpose(1, 2)),
    Case("channels-last-flatten", IMAGE, "n(pu)", 8, CONV, lambda m, x: m.a(x).permute(0, 2, 3, 1).flatten(1)),
    Case("permute", IMAGE, "nppu", 8, CONV, lambda m, x: m.a(x).permute(0, 2, 3, 1)),
    Case("movedim", IMAGE, "nppu", 8, CONV, lambda m, x: torch.movedim(m.a(x), 1, -1)),
    Case("transposed-matrix", TOKENS, "nup", 8, LINEAR, lambda m, x: m.a(x).mT),
    Case("batch-last", (6,), "un", 8, LINEAR, lambda m, x: m.a(x).t()),
    Case("tokens-to-image", (4, 6), "nupp", 8, LINEAR, lambda m, x: m.a(x).transpose(1, 2).reshape(-1, 8, 2, 2)),
    Case(
        "channel-shuffle",
        IMAGE,
        lambda z: z.view(-1, 4, 2, 20).permute(0, 3, 2, 1).reshape(-1, 20, 8),
        8,
        CONV,
        lambda m, x: m.a(x).view(-1, 2, 4, 4, 5).transpose(1, 2).reshape(-1, 8, 4, 5),
    ),
    Case(
        "pixel-shuffle",
        IMAGE,
        lambda z: z.view(-1, 2, 4, 2, 5, 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, 20, 8),
        8,
        CONV,
        lambda m, x: F.pixel_shuffle(m.a(x), 2),
    ),
    Case("squeeze", (6,), "nu", 8, only(nn.Conv1d, 6, 8, 1), lambda m, x: m.a(x.unsqueeze(-1)).squeeze(-1)),
    Case("expand", (6,), "npu", 8, LINEAR, lambda m, x: m.a(x)[:, None].expand(-1, 3, -1)),
    Case("repeat", (6,), "nup", 8, LINEAR, lambda m, x: m.a(x)[..., None].repeat(1, 1, 3)),
    Case("folded-tokens", TOKENS, "(np)u", 8, LINEAR, lambda m, x: m.a(x.reshape(-1, 6))),
    Case("folded-after", TOKENS, "(np)u", 8, LINEAR, lambda m, x: m.a(x).flatten(0, 1)),
    Case("folded-frames", (3, 3, 4, 4), "(np)upp", 8, only(nn.Conv2d, 3, 8, 3), lambda m, x: m.a(x.flatten(0, 1))),
    Case("folded-and-back", TOKENS, "npu", 8, LINEAR, lambda m, x: m.a(x.view(-1, 6)).view(*x.shape[:2], 8)),
)

CUTS = (
    Case("chunk", TOKENS, "npu", 4, LINEAR, lambda m, x: m.a(x).chunk(2, -1)[0]),
    Case("split", IMAGE, "nupp", 5, CONV, lambda m, x: torch.split(m.a(x), [5, 3], dim=1)[0]),
    Case("slice-units", IMAGE, "nupp", 4, CONV, lambda m, x: m.a(x)[:, :4]),
    Case("strided-units", (6,), "nu", 4, LINEAR, lambda m, x: m.a(x)[..., ::2]),
    Case("narrow", (6,), "nu", 4, LINEAR, lambda m, x: m.a(x).narrow(1, 0, 4)),
    Case("index-units", (6,), "nu", 5, LINEAR, lambda m, x: m.a(x)[:, [7, 2, 0, 5, 1]]),
    Case("cls-token", TOKENS, "nu", 8, LINEAR, lambda m, x: m.a(x)[:, 0]),
    Case("last-token", TOKENS, "nu", 8, LINEAR, lambda m, x: m.a(x)[:, -1, :]),
    Case("select", TOKENS, "nu", 8, LINEAR, lambda m, x: m.a(x).select(1, 2)),
    Case("drop-cls-token", TOKENS, "npu", 8, LINEAR, lambda m, x: m.a(x)[:, 1:]),
    Case("time-first-last-step", TOKENS, "nu", 8, LINEAR, lambda m, x: m.a(x)[-1], batch_dim=1),
)

# The samples are the inner part of the folded dimension, or the batch is doubled: right numbers, or a stated loss.
INNER = (
    Case("folded-time-first", TOKENS, "(pn)u", 8, LINEAR, lambda m, x: m.a(x.reshape(-1, 6)), batch_dim=1),
    Case("folded-after-transpose", TOKENS, "(pn)u", 8, LINEAR, lambda m, x: m.a(x.transpose(0, 1).reshape(-1, 6))),
    Case("doubled-batch", (6,), "(pn)u", 8, LINEAR, lambda m, x: m.a(torch.cat([x, -x], 0))),
)

"""A model with everything that an audit could disturb, and data and a loss for it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm


class Awkward(nn.Module):
    """Everything that an audit could disturb: noise, counters, frozen parts, in-place and functional rectifiers."""

    def __init__(self, parametrised: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.3)
        self.mid, self.out = nn.Linear(8, 12), nn.Linear(12, 12)
        if parametrised:
            weight_norm(self.mid)
            spectral_norm(self.out)
        self.tied = nn.Linear(12, 12)
        self.head = nn.Linear(12, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("total", torch.zeros(3), persistent=False)
        self.fail: BaseException | None = None
        self.until = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1  # a buffer changed in place
        x = self.relu(self.norm(self.conv(x)))
        x = self.drop(x).mean((2, 3)) + 0.01 * torch.randn(x.shape[0], 8) + random.random() * float(np.random.rand())
        x = F.relu(self.mid(x), inplace=True)
        x = self.relu(self.out(x))
        x = self.relu(self.tied(self.tied(x)))
        y = self.head(x)
        self.total = self.total + y.detach().sum(0)  # a buffer replaced
        if self.fail is not None and int(self.calls) > self.until:
            raise self.fail
        return y


def keep(*_args: Any, **_kwargs: Any) -> None:
    """A user's hook that changes nothing; at module level, so that the model can be pickled."""


def awkward(parametrised: bool = True) -> Awkward:
    torch.manual_seed(0)
    model = Awkward(parametrised).train()
    model.norm.eval()  # the frozen BatchNorm of a fine-tuned model
    model.out.eval()
    model.conv.weight.requires_grad_(False)
    model.head.bias.grad = torch.randn(3)
    model.head.weight.grad = torch.zeros(3, 12)
    model.conv.register_forward_hook(keep)
    model.conv.register_forward_hook(keep, with_kwargs=True, always_call=True)
    model.mid.register_forward_pre_hook(keep, with_kwargs=True)
    model.relu.register_forward_pre_hook(keep)
    model.head.register_full_backward_hook(keep)
    model.head.register_full_backward_pre_hook(keep)
    model.register_state_dict_pre_hook(keep)
    return model


def images(rows: int = 24) -> torch.Tensor:
    return torch.randn(rows, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def square(output: torch.Tensor, _batch: Any) -> torch.Tensor:
    return output.square().sum()

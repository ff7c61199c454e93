"""Audit of a data set against plain inference over the same data, as paired ratios (DESIGN 9: at most 1.10).

    python benchmarks/audit_overhead.py [--quick] [--threads N] [--device cuda] [--processor-time]

Plain inference is `model.eval()`, `torch.no_grad()`, the same batches in the same order. The two alternate, and which
comes first alternates too, so that a drift of the machine hits both; every pair gives one ratio, and the table shows
the median and the middle half of them. An audit is timed whole: finding the sites, counting, building the report.

`nn.TransformerEncoder` runs fused kernels in eval mode under no_grad. Nobody can look at an activation inside of them:
any hook or function mode turns them off. That model is therefore compared with both, the fused and the plain path.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from paired import Setting, cells, measure, setting_from
from torch import nn

import deadrelu


class Block(nn.Module):
    """A residual block with one reused in-place ReLU."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.short = nn.Conv2d(before, width, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(y)) + self.short(x))


def resnet(width: int = 32) -> nn.Module:
    """Return a residual network for 32 x 32 images: 3 stages of 2 blocks, 13 rectifier calls."""
    blocks, before = [], width
    for stage in range(3):
        for index in range(2):
            after = width * 2**stage
            blocks.append(Block(before, after, 2 if stage and not index else 1))
            before = after
    stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


class Encoder(nn.Module):
    """A post-norm Transformer encoder with ReLU, on embedded tokens."""

    def __init__(self, width: int = 128, layers: int = 4) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, F.relu, batch_first=True)
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def mlp(width: int = 1024) -> nn.Module:
    """Return three hidden layers on 784 inputs."""
    hidden = [nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int
    batches: int
    fused: bool = True


CASES = (
    Case("CNN (residual, 32 x 32)", resnet, (3, 32, 32), 128, 6),
    Case("Transformer encoder, fused plain path", Encoder, (64, 128), 64, 8),
    Case("Transformer encoder, unfused plain path", Encoder, (64, 128), 64, 8, fused=False),
    Case("MLP (784-1024-1024-1024-10)", mlp, (784,), 128, 60),
)


@contextmanager
def unfused() -> Iterator[None]:
    """Turn the fused path of nn.TransformerEncoder off."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def batches_of(case: Case, setting: Setting) -> int:
    """Return the number of batches of one run."""
    return max(2, case.batches // 4) if setting.quick else case.batches


def row(case: Case, setting: Setting) -> str:
    """Measure one case and return its row of the table."""
    torch.manual_seed(0)
    model = case.build().to(setting.device).eval()
    batches = batches_of(case, setting)
    data = [torch.randn(case.batch, *case.shape, device=setting.device) for _ in range(batches)]

    def plain() -> None:
        with torch.no_grad(), nullcontext() if case.fused else unfused():
            for batch in data:
                model(batch)

    def audit() -> None:
        deadrelu.audit(model, data)

    plain(), audit()
    return f"| {case.name} | {batches} x {case.batch} | {cells(measure(plain, audit, setting), batches)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Audit against plain inference, as paired ratios.")
    setting = setting_from(parser, pairs=15, quick_pairs=5)
    print("| model | batches | plain, ms a batch | audit, ms a batch | audit / plain | middle half |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        print(row(case, setting), flush=True)


if __name__ == "__main__":
    main()

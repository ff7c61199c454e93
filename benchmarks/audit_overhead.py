"""Audit of a data set against plain inference over the same data, as paired ratios (DESIGN 9: at most 1.10).

    python benchmarks/audit_overhead.py [--quick] [--threads N] [--device cuda] [--processor-time]

Plain inference is `model.eval()`, `torch.no_grad()`, the same batches in the same order. The two alternate, and which
comes first alternates too, so that a drift of the machine hits both; every pair gives one ratio, and the table shows
the median and the middle half of them. An audit is timed whole: finding the sites, counting, building the report. It
computes with compiled kernels where there is a compiler (DEADRELU_KERNELS=reference: without).

`nn.TransformerEncoder` runs fused kernels in eval mode under no_grad. Nobody can look at an activation inside of them:
any hook or function mode turns them off. That model is therefore compared with both, the fused and the plain path.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from networks import Encoder, mlp, resnet
from paired import Setting, cells, measure, setting_from
from torch import nn

import deadrelu
from deadrelu.errors import InputError
from deadrelu.kernels import described


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
    Case("MLP (784-1024-1024-1024-10)", lambda: mlp(784, 1024, 3), (784,), 128, 60),
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


def kernels() -> str:
    """Wait for the kernels that an audit computes with, and return which they are."""
    given = os.environ.setdefault("DEADRELU_KERNELS", "native")
    try:
        return described()
    except InputError:
        if given != "native":
            raise
        os.environ["DEADRELU_KERNELS"] = "reference"
        return described()


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
    print(f"Kernels: {kernels()}\n")
    print("| model | batches | plain, ms a batch | audit, ms a batch | audit / plain | middle half |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        print(row(case, setting), flush=True)


if __name__ == "__main__":
    main()

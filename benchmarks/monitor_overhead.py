"""A training step under Monitor against the same step without it, as paired ratios (DESIGN 9).

    python benchmarks/monitor_overhead.py [--quick] [--threads N] [--device cuda] [--processor-time] [--max-overhead X]
        [--compiled]

A step is forward, loss, backward and `optimizer.step()`. Two copies of a model train on the same data, one of them
under a Monitor with its defaults. They take turns step by step (on a GPU, which would have to be waited for, window by
window), and what is compared is the time of a window of 50 steps, which holds the captures of the watched copy and one
look at what was observed. The first 500 steps, in which the model is traced, every update is kept for a while and
captures are dense, are told apart from those that follow.
"""

from __future__ import annotations

import argparse
import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from networks import Classifier, mlp, resnet
from paired import Setting, cells, measure, setting_from
from torch import nn

import deadrelu

WINDOW = 50
EARLY = 10
"""Windows before the run counts as calm."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int
    aim: float
    heavy: bool = False


CASES = (
    Case("CNN (residual, 32 x 32, 13 ReLUs)", lambda: resnet(16), (3, 32, 32), 16, 1.02, heavy=True),
    Case("Transformer encoder (2 x 128, 64 tokens)", Classifier, (64, 128), 8, 1.02, heavy=True),
    Case("MLP (784-512-512-512-10)", lambda: mlp(784, 512, 3), (784,), 128, 1.05),
    Case("MLP (64-128-128-128-10)", lambda: mlp(64, 128, 3), (64,), 64, 1.10),
    Case("small MLP (64-64-64-64-10)", lambda: mlp(64, 64, 3), (64,), 64, 1.10),
)


def block(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor, steps: int = WINDOW
) -> Callable[[], None]:
    """Return the work of some training steps, those of one window."""

    def work() -> None:
        for _ in range(steps):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return work


def row(case: Case, setting: Setting, bound: float | None, compiled: bool) -> str:
    """Measure one case and return its row of the table."""
    torch.manual_seed(0)
    model = case.build().to(setting.device).train()
    batch = case.batch // 4 if setting.quick and case.heavy else case.batch
    x = torch.randn(batch, *case.shape, device=setting.device)
    y = torch.randint(10, (batch,), device=setting.device)
    watched = copy.deepcopy(model)
    optimizers = [torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9) for net in (model, watched)]
    nets = [torch.compile(net) if compiled else net for net in (model, watched)]
    turns = 1 if setting.device.type == "cuda" else WINDOW
    plain, seen = (
        block(net, optimizer, x, y, WINDOW // turns) for net, optimizer in zip(nets, optimizers, strict=True)
    )
    torch.compiler.reset()  # models of one class share their code, and one of them is watched
    with deadrelu.Monitor(nets[1], optimizers[1], window=WINDOW, strict=True, max_overhead=bound) as monitor:
        if compiled:
            seen()
        plain()
        early = measure(plain, seen, replace(setting, pairs=EARLY), turns)
        times = measure(plain, seen, setting, turns)
        aim = 1.03 if compiled else case.aim if bound is None else 1 + bound
        coarse = "" if bound is None else f" {monitor.resolution} |"
    first = sum(early[1]) / sum(early[0])
    return f"| {case.name} | {batch} | {cells(times, WINDOW)} | {first:.2f} | {aim:.2f} |{coarse}"


def main() -> None:
    """Print the table."""
    logging.getLogger("deadrelu").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description="A training step under Monitor against one without, as paired ratios.")
    parser.add_argument("--max-overhead", type=float, help="the bound to keep; none without it")
    parser.add_argument("--compiled", action="store_true", help="both copies under torch.compile")
    setting = setting_from(parser, pairs=21, quick_pairs=7)
    options = parser.parse_args()
    bound = options.max_overhead
    head = "step | batch | plain, ms | watched, ms | watched / plain | middle half | first 500 steps | to reach".split(
        " | "
    )
    head += [] if bound is None else ["one step observed in"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for case in CASES:
        print(row(case, setting, bound, options.compiled), flush=True)


if __name__ == "__main__":
    main()

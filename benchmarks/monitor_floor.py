"""What stands between Monitor and nothing on a step of half a millisecond: the same step with more and more of it.

    python benchmarks/monitor_floor.py [--quick] [--threads N] [--processor-time]

All contenders train a copy of one small MLP in turns of one window of 50 steps, 600 steps after their start. Each line
holds what the one above does, and more:

- hooks that do nothing, where Monitor has its own;
- hooks that write the largest z of each unit into a buffer, the least that sees every unit at every step;
- Monitor that captures nothing and never looks at what it observed;
- Monitor with its defaults.
"""

from __future__ import annotations

import argparse
import copy
import logging
import statistics
from collections.abc import Callable
from typing import Any

import torch
from monitor_overhead import CASES, WINDOW, block
from paired import Work, setting_from
from torch import nn

import deadrelu

SETTLE = 12
"""Turns before the first one that counts."""


def hooked(model: nn.Module, optimizer: torch.optim.Optimizer, look: Callable[..., Any]) -> None:
    """Put a hook before each ReLU, around the model and around the update."""
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(look)
    model.register_forward_pre_hook(lambda *_: None)
    model.register_forward_hook(lambda *_: None, always_call=True)
    optimizer.register_step_pre_hook(lambda *_: None)
    optimizer.register_step_post_hook(lambda *_: None)


def largest() -> Callable[..., None]:
    """Return a hook that keeps the largest z of each unit."""
    kept: dict[nn.Module, torch.Tensor] = {}

    def look(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        z = args[0].detach()
        if module not in kept:
            kept[module] = z.new_empty(z.shape[1])
        torch.amax(z, (0,), out=kept[module])

    return look


def contenders() -> dict[str, Work]:
    """Return one window of training for each contender."""
    torch.manual_seed(0)
    case = CASES[-1]
    first = case.build().train()
    x, y = torch.randn(case.batch, *case.shape), torch.randint(10, (case.batch,))
    works: dict[str, Work] = {}
    for name in ("plain", "empty hooks", "hooks with the largest z", "Monitor, observing alone", "Monitor"):
        model = copy.deepcopy(first)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        if name == "empty hooks":
            hooked(model, optimizer, lambda *_: None)
        elif name.startswith("hooks"):
            hooked(model, optimizer, largest())
        elif name.startswith("Monitor"):
            monitor = deadrelu.Monitor(model, optimizer, window=WINDOW, strict=True)
            if name != "Monitor":
                monitor._schedule.captures = lambda *_: False  # type: ignore[method-assign]
                monitor._stepper._full = monitor._window.close
        works[name] = block(model, optimizer, x, y)
    return works


def main() -> None:
    """Print the table."""
    logging.getLogger("deadrelu").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    setting = setting_from(parser, pairs=61, quick_pairs=21)
    works = contenders()
    for work in works.values():
        for _ in range(SETTLE):
            work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(setting.pairs):
        for name, work in works.items():
            seconds[name].append(setting.seconds(work))
    plain = seconds["plain"]
    print("| step with | us | over plain, us | ratio | middle half |\n|---|--:|--:|--:|---|")
    for name, column in seconds.items():
        low, ratio, high = statistics.quantiles((a / b for a, b in zip(column, plain, strict=True)), n=4)
        more = statistics.median(a - b for a, b in zip(column, plain, strict=True)) / WINDOW
        each = statistics.median(column) / WINDOW
        print(f"| {name} | {1e6 * each:.0f} | {1e6 * more:.0f} | **{ratio:.2f}** | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()

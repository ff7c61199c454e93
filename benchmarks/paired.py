"""Paired timing: two works that alternate, one ratio a pair, so that a slow minute of the machine hits both."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Work = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """How to measure: pairs of runs, a first look or all of it, device and clock."""

    pairs: int
    quick: bool
    device: torch.device
    clock: Callable[[], float]

    def seconds(self, work: Work) -> float:
        """Return the time of `work`, the device's queue included."""
        self._wait()
        start = self.clock()
        work()
        self._wait()
        return self.clock() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure(plain: Work, watched: Work, setting: Setting, parts: int = 1) -> tuple[list[float], list[float]]:
    """Return the seconds of both works, pair by pair, each done `parts` times, in turns; which is first alternates.

    The shorter the turns, the less it matters that a machine is faster now and slower then.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(setting.pairs):
        spent = [0.0, 0.0]
        for part in range(parts):
            order = ((0, plain), (1, watched)) if (pair + part) % 2 == 0 else ((1, watched), (0, plain))
            for column, work in order:
                spent[column] += setting.seconds(work)
        for column in (0, 1):
            times[column].append(spent[column])
    return times


def rounds(works: Sequence[Work], setting: Setting, count: int, parts: int = 1) -> list[list[float]]:
    """Return the seconds of each work in each of `count` rounds, in which it is done `parts` times, in turns.

    Each time the works come in another order, drawn from a fixed seed: what ran before leaves the caches as it wants.
    """
    times = [[0.0] * count for _ in works]
    draw, order = random.Random(0), list(range(len(works)))
    for turn in range(count):
        for _ in range(parts):
            draw.shuffle(order)
            for at in order:
                times[at][turn] += setting.seconds(works[at])
    return times


def middle(values: Iterable[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile of at least two values."""
    low, median, high = statistics.quantiles(values, n=4)
    return low, median, high


def save(file: Path, what: str, setting: Setting, **numbers: Any) -> None:
    """Write what a benchmark measured, with what it ran on, as JSON."""
    document = {
        "what": what,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(setting.device) if setting.device.type == "cuda" else "CPU",
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "quick": setting.quick,
        **numbers,
    }
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def cells(times: tuple[list[float], list[float]], parts: int) -> str:
    """Return the cells of a row: ms of one of `parts` parts for both, median ratio, middle half of the ratios."""
    plain, watched = times
    low, median, high = statistics.quantiles((w / p for p, w in zip(plain, watched, strict=True)), n=4)
    each = [1e3 * statistics.median(column) / parts for column in times]
    return f"{each[0]:.2f} | {each[1]:.2f} | **{median:.3f}** | {low:.3f} to {high:.3f}"


def setting_from(parser: argparse.ArgumentParser, *, pairs: int, quick_pairs: int) -> Setting:
    """Add the options that all benchmarks share, read the command line, and say how it is measured."""
    parser.add_argument("--quick", action="store_true", help=f"{quick_pairs} pairs, not {pairs}, of smaller work")
    parser.add_argument("--threads", type=int, help="threads of torch; its own choice without it")
    parser.add_argument("--device", default="cpu", help="device of model and data")
    parser.add_argument("--processor-time", action="store_true", help="time of this process, for a busy machine")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    setting = Setting(
        pairs=quick_pairs if options.quick else pairs,
        quick=options.quick,
        device=torch.device(options.device),
        clock=time.process_time if options.processor_time else time.perf_counter,
    )
    clock = "processor time" if options.processor_time else "wall time"
    device, threads = setting.device.type, torch.get_num_threads()
    print(f"torch {torch.__version__}, {device}, {threads} threads, {setting.pairs} pairs, {clock}\n")
    return setting

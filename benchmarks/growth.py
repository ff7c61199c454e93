"""How the cost of deadrelu.Monitor grows: microseconds a step against units, layers, batch and the steps of the run.

    python benchmarks/growth.py [--quick] [--threads N] [--device cuda] [--out FILE]

A network of one width trains twice, side by side: with a Monitor and without. Both alternate in blocks of one window of
50 steps; each pair of blocks gives one difference, and the table shows the median and the middle half of them. One axis
is varied at a time. A slope is that of a least-squares line through the logarithms: 1 is proportional, under 1 is less
than that, 0 is not at all. The first 500 steps, which are looked at more closely, are not in these numbers.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from monitor_overhead import WINDOW, block
from networks import mlp
from paired import Setting, Work, measure, middle, save, setting_from

import deadrelu

INPUTS = 32
SETTLE = 11
"""Windows before the first that counts, one more than the first 500 steps have."""


@dataclass(frozen=True)
class Net:
    """A network that trains: units of each layer, hidden layers, samples of a batch."""

    units: int
    layers: int
    batch: int

    @contextmanager
    def trained(self, setting: Setting) -> Iterator[tuple[Work, Work]]:
        """Yield the work of a window, without a Monitor and with one that has settled."""
        torch.manual_seed(0)
        model = mlp(INPUTS, self.units, self.layers).to(setting.device).train()
        for layer in model.modules():  # at torch's own scale a deep network's signal fades, and it is never calm
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.kaiming_normal_(layer.weight)
        x = torch.randn(self.batch, INPUTS, device=setting.device)
        y = torch.randint(10, (self.batch,), device=setting.device)
        nets = [model, copy.deepcopy(model)]
        optimizers = [torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9) for net in nets]
        plain, watched = (block(net, optimizer, x, y) for net, optimizer in zip(nets, optimizers, strict=True))
        with deadrelu.Monitor(nets[1], optimizers[1], window=WINDOW, strict=True):
            for _ in range(SETTLE):
                watched()
            plain()
            yield plain, watched


@dataclass(frozen=True)
class Point:
    """What one step took at one value of an axis, microseconds: the plain step, and what Monitor added to it."""

    value: int
    plain: float
    added: float
    low: float
    high: float
    differences: list[float]

    def row(self, axis: Axis) -> str:
        """Return the row of the table."""
        share = f"{self.added / self.plain:.1%}"
        return (
            f"| {axis.name} | {self.value:,} | {self.plain:.0f} | **{self.added:.1f}** | "
            f"{self.low:.1f} to {self.high:.1f} | {share} |"
        )


@dataclass(frozen=True)
class Axis:
    """What is varied, over which values, from which network; `quick` of the values are a first look."""

    name: str
    net: Net
    values: tuple[int, ...]
    quick: int

    def points(self, setting: Setting) -> Iterator[Point]:
        """Measure along the axis."""
        values = self.values[: self.quick] if setting.quick else self.values
        if self.name == "steps":
            yield from along_a_run(self.net, values, setting)
            return
        for value in values:
            with replace(self.net, **{self.name: value}).trained(setting) as works:
                yield point(value, works, setting)

    @property
    def fixed(self) -> str:
        """Say what is not varied."""
        return ", ".join(f"{name} {value:,}" for name, value in asdict(self.net).items() if name != self.name)


AXES = (
    Axis("units", Net(units=0, layers=1, batch=32), (256, 1024, 4096, 16384), quick=3),
    Axis("layers", Net(units=256, layers=0, batch=32), (1, 2, 4, 8, 16, 32), quick=4),
    Axis("batch", Net(units=256, layers=2, batch=0), (32, 128, 512, 2048), quick=3),
    Axis("steps", Net(units=256, layers=2, batch=32), (1000, 4000, 16000, 32000), quick=2),
)


def along_a_run(net: Net, values: Sequence[int], setting: Setting) -> Iterator[Point]:
    """Measure at several lengths of one run; between them only the watched copy trains."""
    with net.trained(setting) as works:
        done = SETTLE
        for value in values:
            for _ in range(value // WINDOW - done):
                works[1]()
            yield point(value, works, setting)
            done = value // WINDOW + setting.pairs


def point(value: int, works: tuple[Work, Work], setting: Setting) -> Point:
    """Measure what Monitor adds to a step."""
    plain, watched = measure(*works, setting)
    differences = [1e6 * (b - a) / WINDOW for a, b in zip(plain, watched, strict=True)]
    low, median, high = middle(differences)
    return Point(value, 1e6 * statistics.median(plain) / WINDOW, median, low, high, differences)


def slope(points: Sequence[Point]) -> float | None:
    """Return the slope of log(added) over log(value) by least squares; None where less than two points are above 0."""
    logs = [(math.log(p.value), math.log(p.added)) for p in points if p.added > 0]
    if len(logs) < 2:
        return None
    return statistics.linear_regression(*zip(*logs, strict=True)).slope


def main() -> None:
    """Print both tables."""
    logging.getLogger("deadrelu").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file for all numbers, as JSON")
    setting = setting_from(parser, pairs=31, quick_pairs=7)
    print("| varied | value | plain step, µs | Monitor adds, µs | middle half | of the step |")
    print("|---|--:|--:|--:|---|--:|")
    measured = []
    for axis in AXES:
        points = []
        for found in axis.points(setting):
            points.append(found)
            print(found.row(axis), flush=True)
        measured.append((axis, points))
    print("\n| varied | from | to | held | slope |\n|---|--:|--:|---|--:|")
    for axis, points in measured:
        ends = f"{points[0].value:,} | {points[-1].value:,}"
        rise = slope(points)
        print(f"| {axis.name} | {ends} | {axis.fixed} | {'unknown' if rise is None else f'**{rise:.2f}**'} |")
    file = parser.parse_args().out
    if file is not None:
        told = [
            {"axis": axis.name, "held": axis.fixed, "slope": slope(points), "points": [asdict(p) for p in points]}
            for axis, points in measured
        ]
        save(file, "growth", setting, pairs=setting.pairs, axes=told)


if __name__ == "__main__":
    main()

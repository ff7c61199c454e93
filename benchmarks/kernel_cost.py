"""What one look at a tensor costs, against the ReLU that it observes and against the bandwidth of the memory.

    python benchmarks/kernel_cost.py [--quick] [--threads N] [--device cuda] [--out FILE]

Looked at is z, the input of a ReLU, float32 and bfloat16, as convolutions and linear layers leave it: a small tensor
that stays in the caches and a large one that does not. Timed are

- tap: the largest z of each unit, which Monitor takes at every step (`kernels.reach`);
- count: in how many positions each unit fires, for which samples, and its largest z (`kernels.engaged`);
- audit: all that an audit takes of a call: these, and the sum of the output.

Each is timed twice: by the reference in plain torch, and by compiled kernels: on the CPU those that the machine's
compiler made, where there is one, on a GPU those of torch's inductor, which has none for the tap (DEADRELU_KERNELS
chooses others). The ReLU writes a new tensor, as in training. The copy is that of z into a tensor that
exists: one read and one write of each element, whose rate is the bandwidth in the table. All of them alternate, and a
look is compared with the ReLU and the copy of its own round; medians of the ratios are shown.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch
from paired import Setting, Work, middle, rounds, save, setting_from

from deadrelu.errors import InputError
from deadrelu.kernels import Plan, Sums, described, described_cuda, reference
from deadrelu.kernels.choice import CHOICE
from deadrelu.kinds import KINDS

LEAST = 4e-3
"""Seconds that the repetitions of a work take at least, so that the clock tells them."""
RELU = KINDS["relu"]
LOOKS = ("tap", "count", "audit", "tap, compiled", "count, compiled", "audit, compiled")


@dataclass(frozen=True)
class Case:
    """A tensor: its layout in words, and where its units are. The first dimension holds the samples."""

    layout: str
    shape: tuple[int, ...]
    unit_dim: int
    last: bool = False

    def tensor(self, dtype: torch.dtype, setting: Setting) -> torch.Tensor:
        """Return normal values in this layout."""
        torch.manual_seed(0)
        z = torch.randn(self.shape, device=setting.device).to(dtype)
        return z.contiguous(memory_format=torch.channels_last) if self.last else z

    @property
    def plan(self) -> Plan:
        """Return how it is reduced to its samples and units."""
        positions = tuple(i for i in range(1, len(self.shape)) if i != self.unit_dim)
        return Plan(None, (self.unit_dim,), (0,), positions, self.shape)


CASES = (
    Case("(N, C, H, W)", (16, 32, 16, 16), 1),
    Case("(N, C, H, W)", (32, 64, 56, 56), 1),
    Case("(N, C, H, W) channels_last", (16, 32, 16, 16), 1, last=True),
    Case("(N, C, H, W) channels_last", (32, 64, 56, 56), 1, last=True),
    Case("(B, T, F)", (8, 64, 256), 2),
    Case("(B, T, F)", (16, 256, 1024), 2),
    Case("(B, F)", (128, 1024), 1),
    Case("(B, F)", (1024, 4096), 1),
)


@dataclass(frozen=True)
class Row:
    """What was measured on one tensor: seconds of each work round by round, and medians of their ratios."""

    layout: str
    shape: tuple[int, ...]
    dtype: str
    bandwidth: float
    seconds: dict[str, list[float]]
    of_relu: dict[str, float]
    of_copy: dict[str, float]

    def line(self) -> str:
        """Return the row of the table."""
        relu = 1e6 * middle(self.seconds["ReLU"])[1]
        looks = (
            f"**{self.of_relu[look]:.2f}** / {self.of_copy[look]:.2f}" if look in self.of_relu else "-"
            for look in LOOKS
        )
        shape = " x ".join(map(str, self.shape))
        head = f"| {self.layout} | {shape} | {self.dtype} | {self.bandwidth / 1e9:.1f} | {relu:.0f} |"
        return f"{head} {' | '.join(looks)} |"


def works_on(case: Case, z: torch.Tensor) -> Iterator[tuple[str, Work]]:
    """Return what is timed, by name; of compiled kernels only what there is for this tensor."""
    plan, units = case.plan, case.shape[case.unit_dim]
    place, top = torch.empty_like(z), torch.empty(units, device=z.device)
    h, sums = z.relu(), Sums(units, z.device)

    def tap() -> None:
        if z.dtype == top.dtype:
            torch.amax(z, plan.over, out=top)
        else:
            top.copy_(z.amax(plan.over))

    def audit() -> None:
        reference.engaged(z, RELU, plan, sums)
        sums.magnitude.add_(reference.magnitude(h, RELU, plan))

    yield "copy", lambda: place.copy_(z)
    yield "ReLU", lambda: torch.relu(z)
    yield "tap", tap
    yield "count", lambda: reference.engaged(z, RELU, plan, sums)
    yield "audit", audit
    native = CHOICE.ready(z.numel()) if z.is_cpu else CHOICE.ready_on(z)
    if native is None:
        return
    reach = native.reach(z, plan, top)
    if reach is not None and reach.into(z, top.data_ptr()):
        yield "tap, compiled", lambda: reach.into(z, top.data_ptr())
    for look, rectified in (("count, compiled", False), ("audit, compiled", True)):
        if native.engaged(z, RELU, plan, sums, rectified=rectified) is not None:
            yield look, partial(native.engaged, z, RELU, plan, sums, rectified=rectified)


def repeated(work: Work, setting: Setting) -> tuple[Work, int]:
    """Return a work that does this one so often that it takes long enough, and how often that is."""
    work()
    count = 1

    def again() -> None:
        for _ in range(count):
            work()

    while setting.seconds(again) < LEAST:
        count *= 2
    return again, count


def row(case: Case, dtype: torch.dtype, setting: Setting) -> Row:
    """Measure one tensor."""
    z = case.tensor(dtype, setting)
    with torch.no_grad():
        names, works = zip(*works_on(case, z), strict=True)
        again, counts = zip(*(repeated(work, setting) for work in works), strict=True)
        times = rounds(again, setting, setting.pairs)
    seconds = {
        name: [taken / count for taken in column] for name, count, column in zip(names, counts, times, strict=True)
    }

    def against(name: str) -> dict[str, float]:
        of = seconds[name]
        return {
            look: middle(a / b for a, b in zip(seconds[look], of, strict=True))[1] for look in LOOKS if look in seconds
        }

    moved = 2 * z.numel() * z.element_size()
    name = str(dtype).removeprefix("torch.")
    bandwidth = moved / middle(seconds["copy"])[1]
    return Row(case.layout, case.shape, name, bandwidth, seconds, against("ReLU"), against("copy"))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file for all numbers, as JSON")
    setting = setting_from(parser, pairs=31, quick_pairs=5)
    print("Of each look: its time as a part of that of the **ReLU** / of that of the copy.\n")
    on_cpu = setting.device.type == "cpu"
    os.environ.setdefault("DEADRELU_KERNELS", "native" if on_cpu else "inductor")  # waits; fails where there is none
    try:
        print(f"Kernels: {described() if on_cpu else described_cuda()}\n")
    except InputError as error:
        print(f"Without compiled kernels: {error}\n")
        os.environ["DEADRELU_KERNELS"] = "reference"
    print(f"| z | shape | dtype | copy, GB/s | ReLU, µs | {' | '.join(LOOKS)} |")
    print(f"|---|---|---|--:|--:|{'--:|' * len(LOOKS)}")
    rows = []
    for case, dtype in product(CASES, (torch.float32, torch.bfloat16)):
        rows.append(row(case, dtype, setting))
        print(rows[-1].line(), flush=True)
    file = parser.parse_args().out
    if file is not None:
        save(file, "kernel cost", setting, rounds=setting.pairs, rows=[asdict(found) for found in rows])


if __name__ == "__main__":
    main()

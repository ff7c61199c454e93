"""A training step under deadrelu and under what else people use, side by side in one run.

    python benchmarks/alternatives.py [--quick] [--only WORD] [--threads N] [--device cuda] [--out FILE]

The steps are those of `monitor_overhead.py`: forward, loss, backward and update. Every contender watches a copy of the
model that trains on the same data. In each round all of them have a turn of some steps (ten at a time where steps are
long), and each turn is compared with that of the unwatched copy in the same round. The table holds the median of these
ratios, and the middle half of them. A second unwatched copy shows what of that is noise. `--out` keeps every number.

What the others do is what their own defaults or documentation do at every step: torchmortem as in its quick start (the
row says so if it is not installed), a histogram of each activation by a SummaryWriter, the statistics of fastai's
`ActivationStats(with_hist=True)` of each layer with parameters, and a hook that takes the share of units that fire.
Where a model calls a ReLU as a function, no hook sees its output: the layer whose output it takes is hooked instead.

A turn under deadrelu is as long as one of its windows, so that it holds its share of the dearer steps and a look at
what was observed: 50 steps, or as many more as `max_overhead` thins, up to 400 where steps are long, 4,000 elsewhere.
The first 500 steps, which it looks at more closely, are over before the first turn; `monitor_overhead.py` tells what
they take.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monitor_overhead import CASES, WINDOW, Case
from paired import Setting, middle, rounds, save, setting_from
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import deadrelu

TORCHMORTEM = importlib.util.find_spec("torchmortem") is not None
SETTLE = 11
"""Windows before the first that counts, one more than the first 500 steps have."""
FEW = 10
"""Steps of a turn of a contender that does the same at every step, on a model whose steps are long; those of a part at
least."""
MOST = {True: 400, False: 4000}
"""Steps of a turn at most, on a model whose steps are long and on others."""
PARTS = {True: 5, False: 1}
"""Parts that a turn is cut into, between which the others have one: short against what slows a machine down for a
while, and long enough for each to run in its own caches, as a training does."""
SETTLING = 3
"""Turns that a Monitor is given at most to find its resolution."""


class Training:
    """A copy of a model in training, and the tool that watches it.

    Attributes:
        after: called with the loss at the end of each step.
        finish: called at the end of each turn, to wait for what a tool does in the background.
        turn: returns the steps of the next turn.
        most: steps of a turn at most.
        note: says what was peculiar, empty if nothing.
    """

    def __init__(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, turn: int, heavy: bool) -> None:
        self.model = copy.deepcopy(model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.after: Callable[[torch.Tensor], object] | None = None
        self.finish: Callable[[], object] | None = None
        self.turn: Callable[[], int] = lambda: turn
        self.most, self._parts = MOST[heavy], PARTS[heavy]
        self.note: Callable[[], str] = str
        self.steps: list[int] = []
        self._data = x, y
        self._part = self._left = 0

    def __call__(self) -> None:
        """Train for the next part of a turn."""
        if self._part == 0:
            self.steps.append(self.turn())
            self._left = self.steps[-1]
        steps = min(self._left, max(FEW, -(-self.steps[-1] // self._parts)))
        self.run(steps)
        self._left -= steps
        self._part = (self._part + 1) % self._parts
        if self._part == 0 and self.finish is not None:
            self.finish()

    def run(self, steps: int) -> None:
        """Train for some steps."""
        x, y = self._data
        for _ in range(steps):
            loss = F.cross_entropy(self.model(x), y)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            if self.after is not None:
                self.after(loss)


# -- contenders --------------------------------------------------------------------------------------------------------


def activations(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Return the ReLU modules, and the layers whose output goes into a ReLU that is called as a function."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ReLU):
            yield name, module
        elif isinstance(module, nn.TransformerEncoderLayer):
            yield f"{name}.linear1", module.linear1


def hooked(layer: nn.Module, note: Callable[[torch.Tensor], object], stack: ExitStack) -> None:
    """Call `note` with each output of a layer."""

    def hook(module: nn.Module, args: Any, out: torch.Tensor) -> None:
        note(out.detach())

    stack.enter_context(layer.register_forward_hook(hook))


def unwatched(training: Training, stack: ExitStack) -> None:
    """Attach nothing."""


def monitored(training: Training, stack: ExitStack, bound: float | None = None) -> None:
    """Attach a Monitor, and train until its first 500 steps are over and it has found its resolution."""
    monitor = deadrelu.Monitor(training.model, training.optimizer, window=WINDOW, max_overhead=bound, strict=True)
    stack.enter_context(monitor)
    training.turn = lambda: min(WINDOW * monitor.resolution, training.most)
    if bound is not None:
        training.note = lambda: f"1 step in {monitor.resolution}"
    training.run(WINDOW * SETTLE)
    for _ in range(SETTLING):
        before = monitor.resolution
        training.run(training.turn())
        if monitor.resolution == before:
            break


def bounded(training: Training, stack: ExitStack) -> None:
    """Attach a Monitor that is to take 2 % at most."""
    monitored(training, stack, 0.02)


def autopsied(training: Training, stack: ExitStack) -> None:
    """Attach torchmortem as its quick start does."""
    autopsy = importlib.import_module("torchmortem").Autopsy(training.model, optimizer=training.optimizer)
    stack.enter_context(autopsy)
    training.after = lambda loss: autopsy.step(loss=loss.item())


def drawn(training: Training, stack: ExitStack) -> None:
    """Write a histogram of each activation at each step; what a turn wrote is on disk when the turn ends."""
    writer = stack.enter_context(SummaryWriter(stack.enter_context(tempfile.TemporaryDirectory())))
    counted = [0]

    def note(name: str) -> Callable[[torch.Tensor], object]:
        return lambda out: writer.add_histogram(name, out, counted[0])

    def count(loss: torch.Tensor) -> None:
        counted[0] += 1

    for name, layer in activations(training.model):
        hooked(layer, note(name), stack)
    training.after, training.finish = count, writer.flush


def described(training: Training, stack: ExitStack) -> None:
    """Take the statistics of each layer with parameters at each step."""
    stored: list[dict[str, Any]] = []

    def note(out: torch.Tensor) -> None:
        out = out.float()
        near = (out <= 0.05).long().sum().item() / out.numel()
        stored.append({"mean": out.mean().item(), "std": out.std().item(), "near": near, "hist": out.histc(40, 0, 10)})

    for layer in training.model.modules():
        if next(layer.children(), None) is None and next(layer.parameters(), None) is not None:
            hooked(layer, note, stack)


def counted(training: Training, stack: ExitStack) -> None:
    """Take the share of the outputs of each ReLU that are above zero, at each step."""
    rates: list[float] = []
    for _, layer in activations(training.model):
        hooked(layer, lambda out: rates.append((out > 0).float().mean().item()), stack)


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Attributes:
        attach: attaches the tool to a training, for as long as the stack is open.
        even: it does the same at every step, so that a few of them tell.
    """

    name: str
    attach: Callable[[Training, ExitStack], None]
    even: bool = False


PLAIN = Contender("plain", unwatched)
CONTENDERS = (
    Contender("no tool (a second copy)", unwatched),
    Contender("deadrelu.Monitor", monitored),
    Contender("deadrelu.Monitor(max_overhead=0.02)", bounded),
    Contender("naive hook: (y > 0).float().mean().item()", counted, even=True),
    Contender("fastai-style statistics", described, even=True),
    Contender("TensorBoard histogram per activation", drawn, even=True),
    Contender("torchmortem", autopsied, even=True),
)


# -- rounds ------------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """What one contender took on one case: seconds a step, and its ratio to the plain step, round by round."""

    contender: str
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    missing: str = ""
    note: str = ""

    def cell(self) -> str:
        """Return the cell of the table."""
        if self.missing:
            return self.missing
        low, median, high = middle(self.ratios)
        return f"**{median:.3f}** ({low:.3f} to {high:.3f}){f', {self.note}' if self.note else ''}"

    def document(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        low, median, high = middle(self.ratios) if self.ratios else (None, None, None)
        return {**vars(self), "low": low, "median": median, "high": high}


def attached(contender: Contender, make: Callable[[], Training], stack: ExitStack) -> Training:
    """Return a training under a contender; one that fails on ReLUs that work in place gets them out of place."""
    try:
        with ExitStack() as trial:
            training = make()
            contender.attach(training, trial)
            training.run(1)
            stack.push(trial.pop_all())
        return training
    except RuntimeError as error:
        if "inplace" not in str(error) and "in-place" not in str(error):
            raise
    training = make()
    for module in training.model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    training.note = lambda: "fails on in-place ReLUs; timed on a copy without them"
    contender.attach(training, stack)
    training.run(1)
    return training


def play(case: Case, setting: Setting) -> tuple[Row, ...]:
    """Measure one case; the first row is the plain step."""
    torch.manual_seed(0)
    model = case.build().to(setting.device).train()
    batch = batch_of(case, setting)
    x = torch.randn(batch, *case.shape, device=setting.device)
    y = torch.randint(10, (batch,), device=setting.device)
    present = [c for c in (PLAIN, *CONTENDERS) if c.attach is not autopsied or TORCHMORTEM]
    with ExitStack() as stack:
        trainings = []
        for contender in present:
            turn = FEW if contender.even and case.heavy else WINDOW
            trainings.append(attached(contender, partial(Training, model, x, y, turn, case.heavy), stack))
            print(f"  {case.name}: {contender.name} is ready", file=sys.stderr, flush=True)
        rounds(trainings, setting, 1, PARTS[case.heavy])
        for training in trainings:
            training.steps.clear()
        times = rounds(trainings, setting, setting.pairs, PARTS[case.heavy])
        notes = [training.note() for training in trainings]
    plain = each(times[0], trainings[0])
    rows = {}
    for contender, training, column, note in zip(present, trainings, times, notes, strict=True):
        taken = each(column, training)
        ratios = [a / b for a, b in zip(taken, plain, strict=True)]
        rows[contender.name] = Row(contender.name, taken, ratios, note=note)
    return tuple(rows.get(c.name) or Row(c.name, missing="not installed") for c in (PLAIN, *CONTENDERS))


def batch_of(case: Case, setting: Setting) -> int:
    """Return the number of samples of a step."""
    return case.batch // 4 if setting.quick and case.heavy else case.batch


def each(seconds: list[float], training: Training) -> list[float]:
    """Return the seconds of a step of each turn."""
    return [taken / steps for taken, steps in zip(seconds, training.steps, strict=True)]


def main() -> None:
    """Print the table."""
    logging.getLogger("deadrelu").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "Full backward hook is firing")  # torchmortem's, on a model's first layer
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only steps with this word in their name, such as CNN")
    parser.add_argument("--out", type=Path, help="a file for all numbers, as JSON")
    setting = setting_from(parser, pairs=21, quick_pairs=3)
    options = parser.parse_args()
    cases = [case for case in CASES if options.only in case.name]
    if not cases:
        parser.error(f"no step has {options.only!r} in its name; there are {', '.join(c.name for c in CASES)}")
    played = [play(case, setting) for case in cases]
    print(
        f"Whole training steps, as a multiple of the plain step: median of {setting.pairs} rounds (middle half).\n"
        f"deadrelu had seen {SETTLE} windows of {WINDOW} steps before: the first 500 steps, which it looks at more\n"
        "closely, are not in these numbers.\n"
        "1 step in N: with max_overhead, that many were observed at the end, and deaths are dated so.\n"
    )
    heads = [f"{c.name}, {1e3 * middle(rows[0].seconds)[1]:.2f} ms" for c, rows in zip(cases, played, strict=True)]
    print("| contender | " + " | ".join(heads) + " |\n|" + "---|" * (1 + len(cases)))
    for i, contender in enumerate(CONTENDERS, 1):
        print(f"| {contender.name} | " + " | ".join(rows[i].cell() for rows in played) + " |")
    if options.out is not None:
        told = [
            {"case": c.name, "batch": batch_of(c, setting), "rows": [row.document() for row in rows]}
            for c, rows in zip(cases, played, strict=True)
        ]
        save(options.out, "alternatives", setting, rounds=setting.pairs, cases=told)


if __name__ == "__main__":
    main()

"""The stage for planted causes: real digits, four nets, and a run of one training under Monitor and diary."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import deadrelu

from .brute import Diary, Ear

BATCH = 128
Optimizers = Callable[[nn.Module], torch.optim.Optimizer]


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """Return the digits in [0, 1], shape (1797, 64), and their labels."""
    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)


@functools.cache
def standard() -> Tensor:
    """Return the digits with mean 0 and variance 1 in every pixel that varies."""
    x, _ = digits()
    return (x - x.mean(0)) / x.std(0).clamp_min(0.05)


def mlp(norm: bool) -> nn.Module:
    """64-64-64-10 with or without BatchNorm; the sites are `act1` and `act2`."""
    parts: list[tuple[str, nn.Module]] = []
    for i in (1, 2):
        parts += [(f"fc{i}", nn.Linear(64, 64))]
        parts += [(f"bn{i}", nn.BatchNorm1d(64))] if norm else []
        parts += [(f"act{i}", nn.ReLU(inplace=i == 2))]
    return nn.Sequential(OrderedDict([*parts, ("out", nn.Linear(64, 10))]))


def cnn(norm: bool) -> nn.Module:
    """Two convolutions of 16 channels over 8 x 8 images, the second of stride 2; the sites are `act1` and `act2`."""
    parts: list[tuple[str, nn.Module]] = [("image", nn.Unflatten(1, (1, 8, 8)))]
    for i, channels in ((1, 1), (2, 16)):
        parts += [(f"fc{i}", nn.Conv2d(channels, 16, 3, stride=i))]
        parts += [(f"bn{i}", nn.BatchNorm2d(16))] if norm else []
        parts += [(f"act{i}", nn.ReLU(inplace=i == 1))]
    return nn.Sequential(OrderedDict([*parts, ("flat", nn.Flatten()), ("out", nn.LazyLinear(10))]))


NETS: dict[str, tuple[Callable[[bool], nn.Module], bool]] = {
    "mlp": (mlp, False),
    "mlp-bn": (mlp, True),
    "cnn": (cnn, False),
    "cnn-bn": (cnn, True),
}


def sgd(lr: float = 0.05, momentum: float = 0.0, **options: Any) -> Optimizers:
    """Return a maker of SGD over all parameters."""
    return lambda model: torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, **options)


SGD = sgd()


@dataclass
class World:
    """What a plant may touch."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    last: str  # of the op before act1: `fc` or `bn`
    memory: dict[str, Any] = field(default_factory=dict)

    def bias(self, layer: int = 1) -> Tensor:
        """Return the additive parameter that feeds z of a layer: bias, or beta of the norm."""
        return self.model.get_parameter(f"{self.last}{layer}.bias")

    def weight(self, layer: int = 1) -> Tensor:
        """Return the multiplicative parameter that feeds z of a layer: weight, or gamma of the norm."""
        return self.model.get_parameter(f"{self.last}{layer}.weight")

    def rate(self, lr: float) -> None:
        """Set the learning rate of every group."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr


def nothing(*_: Any) -> None:
    """Do nothing."""


def same(x: Tensor, _: int) -> Tensor:
    """Leave the inputs alone."""
    return x


def cross_entropy(_: World, out: Tensor, y: Tensor, __: int) -> Tensor:
    """Return the plain loss."""
    return F.cross_entropy(out, y)


@dataclass(frozen=True)
class Scenario:
    """One run.

    Attributes:
        cause: what must be named for the deaths at `sites`; empty for a run in which nothing dies.
        parameter: the parameter that must be named, if one must.
        origin: the upstream site that must be named, if one must.
        dates: `last_fired` of the deaths that are planted, if it is known.
        start: sets the model up.
        before: called before the forward of each step, `after` behind its update.
        inputs: what becomes of a batch of inputs.
        control: the optimizer of the run without the plant, where the optimizer is the plant.
        least: planted deaths that there must be at least.
    """

    name: str
    net: str
    cause: str
    sites: tuple[str, ...] = ("act1",)
    steps: int = 200
    optimizer: Optimizers = SGD
    parameter: str | None = None
    origin: str | None = None
    dates: tuple[int, ...] = ()
    raw: bool = False
    full_batch: bool = False
    start: Callable[[World], None] = nothing
    before: Callable[[World, int], None] = nothing
    after: Callable[[World, int], None] = nothing
    inputs: Callable[[Tensor, int], Tensor] = same
    loss: Callable[[World, Tensor, Tensor, int], Tensor] = cross_entropy
    control: Optimizers | None = None
    least: int = 10

    def without(self) -> Scenario:
        """Return the run without its plant."""
        plain = replace(self, before=nothing, after=nothing, inputs=same, loss=cross_entropy, cause="")
        return replace(plain, optimizer=self.control or self.optimizer)

    def build(self, seed: int = 0) -> World:
        """Return the model in training mode and its optimizer."""
        torch.manual_seed(seed)
        make, norm = NETS[self.net]
        model = make(norm).train()
        model(digits()[0][:2])  # lazy layers
        model = model.train()
        world = World(model, None, "bn" if norm else "fc")  # type: ignore[arg-type]
        with torch.no_grad():
            self.start(world)
        world.optimizer = self.optimizer(model)
        return world

    def batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Return the batches, in an order of their own."""
        x, y = (digits()[0] if self.raw else standard()), digits()[1]
        generator = torch.Generator().manual_seed(7)
        while True:
            if self.full_batch:
                yield x, y
                continue
            order = torch.randperm(len(x), generator=generator)
            for rows in order.split(BATCH):
                yield x[rows], y[rows]

    def run(self, *, watched: bool = True, seed: int = 0, **options: Any) -> Performance:
        """Train; return what Monitor told and what the diary has."""
        world = self.build(seed)
        ears = {f"act{i}": Ear(f"{world.last}{i}", "nu" if "mlp" in self.net else "nupp") for i in (1, 2)}
        diary = Diary(world.model, ears)
        on = deadrelu.Monitor(world.model, world.optimizer, strict=True, **options) if watched else nullcontext()
        with on as monitor:
            for step, (x, y) in zip(range(self.steps), self.batches(), strict=False):
                self.before(world, step)
                x = self.inputs(x, step)
                with diary.forward():
                    out = world.model(x)
                world.optimizer.zero_grad()
                self.loss(world, out, y, step).backward()
                world.optimizer.step()
                diary.update()
                with torch.no_grad():
                    self.after(world, step)
        return Performance(world, diary, monitor)


@dataclass(frozen=True)
class Performance:
    """A run that is over."""

    world: World
    diary: Diary
    monitor: Any

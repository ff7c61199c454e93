"""Training runs on real digits with a planted cause of death, and runs in which nothing dies.

Each plants one cause from section 5.2 of the design so that nothing else can kill at the planted sites: the same run
without the plant leaves them alive (`without`), which test_causes.py checks with the brute-force diary alone.
"""

from __future__ import annotations

import functools
import math
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


# -- plants -----------------------------------------------------------------------------------------------------------


def spike(at: int, lr: float, usual: float, group: int | None = None) -> Callable[[World, int], None]:
    """One update at a learning rate that is far too high, of one group or of all."""

    def before(world: World, step: int) -> None:
        groups = world.optimizer.param_groups if group is None else [world.optimizer.param_groups[group]]
        for each in groups:
            each["lr"] = lr if step == at else usual

    return before


def layer_groups(lr: float, momentum: float = 0.0) -> Optimizers:
    """Return SGD with a group per layer: 0 is the first."""

    def make(model: nn.Module) -> torch.optim.Optimizer:
        parts: list[list[nn.Parameter]] = [[], [], []]
        for name, p in model.named_parameters():
            parts[2 if name.startswith("out") else int(name.split(".")[0][-1]) - 1].append(p)
        return torch.optim.SGD([{"params": part} for part in parts], lr=lr, momentum=momentum)

    return make


def falling_bias(layer: int, by: float) -> Callable[[World, int], None]:
    """The bias falls by a constant after each update, behind the optimizer's back."""
    return lambda world, _: world.bias(layer).sub_(by).sum().item()  # type: ignore[return-value]


def pulled(pull: Callable[[World], Tensor], strength: float) -> Callable[[World, Tensor, Tensor, int], Tensor]:
    """A term of the loss that pulls a parameter down at a constant rate."""
    return lambda world, out, y, _: F.cross_entropy(out, y) + strength * pull(world)


def decayed(kind: str, lr: float, decay: float, norm: bool = False) -> Optimizers:
    """Return an optimizer that decays the weight (or gamma) of the first layer, and nothing else."""

    def make(model: nn.Module) -> torch.optim.Optimizer:
        target = model.get_parameter("bn1.weight" if norm else "fc1.weight")
        rest = [p for p in model.parameters() if p is not target]
        groups = [{"params": [target], "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
        if kind == "adamw":
            return torch.optim.AdamW(groups, lr=lr)
        return torch.optim.SGD(groups, lr=lr, momentum=0.9 if kind == "momentum" else 0.0)

    return make


def low_bias(layer: int, value: float, cut: bool = False) -> Callable[[World], None]:
    """Start with this bias; `cut` takes the gradient of the task away from the layer below `out`."""

    def start(world: World) -> None:
        world.bias(layer).fill_(value)
        if cut:
            world.model.get_submodule("out").weight.zero_().requires_grad_(False)

    return start


def bright(world: World) -> None:
    """Start with filters that every stroke lights up, and that the dark background does not."""
    world.weight().abs_()
    world.bias().fill_(-0.05)


def moving(direction: Tensor, begin: int, speed: float, most: float = math.inf) -> Callable[[Tensor, int], Tensor]:
    """The raw data moves along a direction, from a step on, by so much a step."""
    return lambda x, step: x + direction * min(max(step - begin, 0) * speed, most)


@functools.cache
def direction() -> Tensor:
    """Return a direction of norm 1 in pixel space."""
    d = torch.randn(64, generator=torch.Generator().manual_seed(3))
    return d / d.norm()


def strike(at: int, what: Callable[[World], Any]) -> Callable[[World, int], None]:
    """Do something once, after an update."""
    return lambda world, step: what(world) if step == at else None


HEALTHY = tuple(
    Scenario(f"healthy-{net}-{name}", net, "", steps=150, optimizer=optimizer, least=0)
    for net in NETS
    for name, optimizer in (
        ("sgd", sgd(0.05)),
        ("momentum", sgd(0.01, 0.9)),
        ("adam", lambda model: torch.optim.Adam(model.parameters(), lr=1e-3)),
    )
    if net.startswith("mlp") or name != "sgd"
)

SPARSE = (
    Scenario("sparse-mlp", "mlp", "", optimizer=sgd(0.01), start=low_bias(1, -0.6), least=0),
    Scenario("sparse-mlp-bn", "mlp-bn", "", optimizer=sgd(0.01), start=low_bias(1, -1.2), least=0),
    Scenario("sparse-cnn-bn", "cnn-bn", "", optimizer=sgd(0.01), start=low_bias(2, -1.5), least=0),
)


def learning_rates() -> Iterable[Scenario]:
    """One update that is far too long, of the whole network or of one layer."""
    for net, at, lr, least in (
        ("mlp", 8, 30.0, 25), ("mlp", 40, 30.0, 15), ("mlp-bn", 40, 300.0, 6), ("cnn", 8, 100.0, 5),
        ("cnn-bn", 40, 300.0, 2),
    ):  # fmt: skip
        yield Scenario(
            f"spike-{net}-{at}", net, "learning_rate", ("act1", "act2"), at + 90, raw=True,
            before=spike(at, lr, 0.05), dates=(at,), least=least,
        )  # fmt: skip
    yield Scenario(
        "spike-layer2-mlp", "mlp", "learning_rate", ("act2",), 110, raw=True,
        optimizer=layer_groups(0.05), before=spike(20, 30.0, 0.05, group=1), dates=(20,), least=5,
    )  # fmt: skip


def drifts() -> Iterable[Scenario]:
    """A parameter that falls a little at every step: by the loss, or behind the optimizer's back."""
    for net in NETS:
        norm = net.endswith("bn")
        parameter = "bn1.bias" if norm else "fc1.bias"
        yield Scenario(
            f"bias-set-{net}", net, "bias_drift", steps=250, optimizer=sgd(0.01), parameter=parameter,
            after=falling_bias(1, 0.03),
        )  # fmt: skip
    for net in ("mlp", "mlp-bn"):
        yield Scenario(
            f"bias-pulled-{net}", net, "bias_drift", steps=250, optimizer=sgd(0.01),
            parameter="bn1.bias" if net == "mlp-bn" else "fc1.bias", loss=pulled(lambda world: world.bias().sum(), 3.0),
        )  # fmt: skip
    yield Scenario(
        "bias-set-layer2-mlp", "mlp", "bias_drift", ("act2",), 500, sgd(0.01), "fc2.bias", after=falling_bias(2, 0.004)
    )
    yield Scenario(
        "bias-pulled-momentum-mlp", "mlp", "bias_drift", steps=250, optimizer=sgd(0.001, 0.9), parameter="fc1.bias",
        loss=pulled(lambda world: world.bias().sum(), 3.0),
    )  # fmt: skip
    yield Scenario(
        "weight-pulled-mlp", "mlp", "weight_drift", steps=400, optimizer=sgd(0.01), parameter="fc1.weight", raw=True,
        loss=pulled(lambda world: world.weight().sum(), 0.02),
    )  # fmt: skip
    yield Scenario(
        "weight-pulled-cnn", "cnn", "weight_drift", steps=400, optimizer=sgd(0.01), parameter="fc1.weight", raw=True,
        loss=pulled(lambda world: world.weight().sum(), 0.1), start=bright,
    )  # fmt: skip
    yield Scenario(
        "gamma-shrinks-mlp-bn", "mlp-bn", "weight_drift", steps=250, optimizer=sgd(0.001), parameter="bn1.weight",
        start=low_bias(1, -0.5), after=lambda world, _: world.weight().sub_(0.01).clamp_(min=0.02),
    )  # fmt: skip


def decays() -> Iterable[Scenario]:
    """Decay of the weight alone, zero-mean inputs, negative bias: the tail shrinks until it is under zero."""
    for kind, lr in (("sgd", 0.02), ("momentum", 0.002), ("adamw", 0.02)):
        yield Scenario(
            f"decay-{kind}-mlp", "mlp", "weight_decay", steps=400, optimizer=decayed(kind, lr, 0.5),
            control=decayed(kind, lr, 0.0),
            parameter="fc1.weight", start=low_bias(1, -0.3, cut=kind == "adamw"),
        )  # fmt: skip
    yield Scenario(
        "decay-sgd-cnn", "cnn", "weight_decay", steps=400, optimizer=decayed("sgd", 0.02, 0.5),
            control=decayed("sgd", 0.02, 0.0),
        parameter="fc1.weight", start=low_bias(1, -0.3, cut=True),
    )  # fmt: skip
    yield Scenario(
        "decay-gamma-mlp-bn", "mlp-bn", "weight_decay", steps=400, optimizer=decayed("adamw", 0.02, 0.5, norm=True),
            control=decayed("adamw", 0.02, 0.0, norm=True),
        parameter="bn1.weight", start=low_bias(1, -0.4, cut=True),
    )  # fmt: skip


def shifts() -> Iterable[Scenario]:
    """The raw data moves away, slowly or at once, or dims."""
    yield Scenario(
        "inputs-wander-mlp", "mlp", "input_shift", steps=300, optimizer=sgd(1e-5), inputs=moving(direction(), 40, 0.3)
    )
    yield Scenario(
        "inputs-jump-mlp", "mlp", "input_shift", steps=140, optimizer=sgd(1e-5),
        inputs=lambda x, step: x + 60 * direction() * (step > 60), dates=(60,),
    )  # fmt: skip
    yield Scenario(
        "inputs-dim-mlp", "mlp", "input_shift", steps=250, optimizer=sgd(1e-4), start=low_bias(1, -0.3),
        inputs=lambda x, step: x * 0.98 ** max(step - 40, 0),
    )  # fmt: skip
    yield Scenario(
        "inputs-darken-cnn", "cnn", "input_shift", steps=300, optimizer=sgd(1e-4), start=low_bias(1, 0.1),
        inputs=lambda x, step: x - 0.05 * max(step - 40, 0), least=3,
    )  # fmt: skip


def upstream() -> Iterable[Scenario]:
    """The first layer is silenced; the second, with negative biases, has nothing left to fire on."""
    for net in NETS:
        yield Scenario(
            f"upstream-{net}", net, "upstream_death", ("act2",), 140, sgd(1e-3), origin="act1", dates=(60,),
            start=low_bias(2, -0.2), after=strike(60, lambda world: world.bias(1).fill_(-1e3)),
        )  # fmt: skip


def not_finite() -> Iterable[Scenario]:
    """NaN in the data or in a weight, and an update that overflows."""
    for net in ("mlp", "cnn-bn"):
        yield Scenario(
            f"nan-inputs-{net}", net, "non_finite", ("act1", "act2"), 120,
            inputs=lambda x, step: x * (float("nan") if step == 60 else 1), dates=(59,),
        )  # fmt: skip
    yield Scenario(
        "nan-weight-mlp", "mlp", "non_finite", ("act1", "act2"), 120, dates=(60,),
        after=strike(60, lambda world: world.weight().view(-1)[5].fill_(float("nan"))),
    )  # fmt: skip
    yield Scenario("overflow-mlp", "mlp", "non_finite", ("act1", "act2"), 120, before=spike(60, 1e38, 0.05))


def births() -> Iterable[Scenario]:
    """Silent from the first step on."""
    for net in NETS:
        yield Scenario(
            f"born-{net}", net, "born_dead", ("act1", "act2"), 60, sgd(0.01),
            start=lambda world: [world.bias(i)[:6].fill_(-1e3) for i in (1, 2)],
        )  # fmt: skip


PLANTED = (*learning_rates(), *drifts(), *decays(), *shifts(), *upstream(), *not_finite(), *births())

"""Training runs on real digits with a planted cause of death, and runs in which nothing dies.

Each plants one cause from section 5.2 of the design so that nothing else can kill at the planted sites: the same run
without the plant leaves them alive (`without`), which test_causes.py checks with the brute-force diary alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .stage import NETS, Optimizers, Scenario, World, sgd


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

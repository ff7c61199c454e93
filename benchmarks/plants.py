"""Plant: a training run with one known cause of death, so that nothing else can kill at its sites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from digits import digits, standardised
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

import deadrelu

STRIKE = 60
"""The step at which what happens once happens."""
FIRST, SECOND = "1", "3"
"""The two sites of the network."""

Loss = Callable[[nn.Sequential], torch.Tensor]


def plain(model: nn.Module) -> Optimizer:
    """Return SGD at a rate that does no harm."""
    return SGD(model.parameters(), lr=0.01)


@dataclass(frozen=True)
class Plant:
    """One planted run.

    Attributes:
        cause: what must be named.
        sites: where the plant kills.
        date: the update that kills, if it is one.
        bias: what the biases of the first and the second layer start at, if not at PyTorch's.
        optimizer: makes the optimizer.
        lr: called with the step, returns its learning rate.
        extra: a term of the loss.
        data: called with inputs and step, returns the inputs.
        after: called with model and step after each update.
        raw: the digits are in 0..1, else of mean 0 and variance 1 per pixel.
    """

    name: str
    cause: str
    sites: tuple[str, ...] = (FIRST,)
    date: int | None = None
    bias: tuple[float | None, float | None] = (None, None)
    steps: int = 300
    optimizer: Callable[[nn.Module], Optimizer] = plain
    lr: Callable[[int], float] | None = None
    extra: Loss | None = None
    data: Callable[[torch.Tensor, int], torch.Tensor] = lambda x, step: x
    after: Callable[[nn.Sequential, int], object] | None = None
    raw: bool = False


def decayed(kind: str) -> Callable[[nn.Module], Optimizer]:
    """Return an optimizer that decays the first weight, and nothing else."""

    def make(model: nn.Module) -> Optimizer:
        first, *rest = model.parameters()
        groups = [{"params": [first], "weight_decay": 0.5}, {"params": rest}]
        if kind == "adamw":
            return AdamW(groups, lr=0.02, weight_decay=0.0)
        return SGD(groups, lr=0.002 if kind == "momentum" else 0.02, momentum=0.9 if kind == "momentum" else 0.0)

    return make


def silence(model: nn.Sequential, step: int) -> None:
    """Silence the first layer at the strike."""
    if step == STRIKE:
        model[0].bias.fill_(-1e3)


def direction() -> torch.Tensor:
    """Return a direction of norm 1 in pixel space."""
    d = torch.randn(64, generator=torch.Generator().manual_seed(3))
    return d / d.norm()


WAY = direction()
BOTH = (FIRST, SECOND)
PLANTS = (
    Plant(
        "one update at a rate of 30", "learning_rate", BOTH, STRIKE, raw=True, steps=150,
        lr=lambda step: 30.0 if step == STRIKE else 0.05,
    ),
    Plant("a constant rate of 0.3, momentum 0.9", "learning_rate", BOTH, raw=True,
          optimizer=lambda model: SGD(model.parameters(), lr=0.3, momentum=0.9)),
    Plant("a constant rate of 2, plain", "learning_rate", BOTH, raw=True,
          optimizer=lambda model: SGD(model.parameters(), lr=2.0)),
    Plant("the loss pulls the bias down", "bias_drift", extra=lambda model: 3 * model[0].bias.sum()),
    Plant("the loss pulls the second bias down", "bias_drift", (SECOND,), extra=lambda model: 2 * model[2].bias.sum()),
    Plant("the loss pulls the weight down", "weight_drift", raw=True, steps=500,
          extra=lambda model: 0.02 * model[0].weight.sum()),
    *(
        Plant(f"decay of 0.5 under a negative bias, {kind}", "weight_decay", bias=(-0.3, None), steps=400,
              optimizer=decayed(kind))
        for kind in ("sgd", "momentum")
    ),
    Plant("the data wander", "input_shift", optimizer=lambda model: SGD(model.parameters(), lr=1e-5),
          data=lambda x, step: x + WAY * max(step - 40, 0) * 0.3),
    Plant("the data jump", "input_shift", date=STRIKE, steps=150, data=lambda x, step: x + 60 * WAY * (step > STRIKE),
          optimizer=lambda model: SGD(model.parameters(), lr=1e-5)),
    Plant("the first layer is silenced", "upstream_death", (SECOND,), STRIKE, (None, -0.2), 150, after=silence),
    Plant("NaN in the data", "non_finite", BOTH, STRIKE - 1, steps=150,
          data=lambda x, step: x * float("nan") if step == STRIKE else x),
    Plant("an update that overflows", "non_finite", BOTH, steps=150,
          lr=lambda step: 1e38 if step == STRIKE else 0.05),
    Plant("biases of -1000", "born_dead", BOTH, bias=(-1e3, -1e3), steps=60),
)  # fmt: skip


def named(plant: Plant, seed: int) -> Counter[str]:
    """Play a plant under Monitor and return the causes that it names, for the deaths that the plant brought about."""
    torch.manual_seed(seed)
    x, y = digits()
    if not plant.raw:
        x = standardised(x)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    with torch.no_grad():
        for layer, bias in zip((model[0], model[2]), plant.bias, strict=True):
            if bias is not None:
                layer.bias.fill_(bias)
    optimizer = plant.optimizer(model)
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for step in range(plant.steps):
            _step(plant, step, model, optimizer, x, y)
    return Counter(
        death.cause
        for death in monitor.deaths
        if death.site in plant.sites
        and death.born_dead == (plant.cause == "born_dead")
        and plant.date in (None, death.last_fired)
    )


def _step(
    plant: Plant, step: int, model: nn.Sequential, optimizer: Optimizer, x: torch.Tensor, y: torch.Tensor
) -> None:
    rows = torch.randint(len(x), (128,))
    if plant.lr is not None:
        for group in optimizer.param_groups:
            group["lr"] = plant.lr(step)
    loss = F.cross_entropy(model(plant.data(x[rows], step)), y[rows])
    if plant.extra is not None:
        loss = loss + plant.extra(model)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if plant.after is not None:
        with torch.no_grad():
            plant.after(model, step)

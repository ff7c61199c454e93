"""Training cases whose step of death is known in closed form (DESIGN 10), in float64, on 2,995 equal rows."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deadrelu

from .brute import Diary, Ear, compare

N = 2995
TARGET = 0.1


def unit(w: float, b: float) -> nn.Sequential:
    """One unit h = relu(wx + b)."""
    model = nn.Sequential(nn.Linear(1, 1).double(), nn.ReLU())
    with torch.no_grad():
        model[0].weight.fill_(w)
        model[0].bias.fill_(b)
    return model


def approach(steps: int, **sgd: float) -> Any:
    """Train w0 + b0 = 1 towards the target 0.1 at x = 1 with loss 0.5 (h - t)^2 (mean over the equal rows)."""
    model, x = unit(0.5, 0.5), torch.ones(N, 1, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), **sgd)
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            (0.5 * (model(x) - TARGET) ** 2).mean().backward()
            optimizer.step()
    return monitor


def test_threshold_of_the_learning_rate() -> None:
    """Silent in forward 1 iff eta >= 5/9: z1 = 1 - eta * (1 - t) * (x^2 + 1) = 1 - 1.8 eta (DESIGN 10)."""
    (death,) = approach(20, lr=5 / 9 * (1 + 1e-9)).deaths
    assert (death.site, death.unit, death.last_fired, death.killed_by_step, death.confirmed) == ("1", 0, 0, 0, 1)
    assert death.max_z_before == pytest.approx(1)
    assert death.max_z_after == pytest.approx(-1e-9, rel=1e-3)
    assert death.lr == pytest.approx(5 / 9)
    assert (death.born_dead, death.revived, death.resolution) == (False, None, 1)
    assert approach(20, lr=5 / 9 * (1 - 1e-9)).deaths == []


@pytest.mark.parametrize("empty", [{0}, {3}, {7, 8}, {49, 50}, set(range(0, 60, 10)), set(range(1, 60, 2))])
def test_a_step_on_no_samples_is_a_step(empty: set[int]) -> None:
    """Steps are counted by the updates; b = -1 from step 30 on: the last firing is at the last step that saw a row."""
    model, x = unit(0.5, 0.5), torch.ones(N, 1, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for step in range(60):
            if step == 30:
                model[0].bias.data.fill_(-1.0)
            optimizer.zero_grad()
            model(x[: 0 if step in empty else N]).sum().backward()
            optimizer.step()
    seen = sorted(set(range(60)) - empty)
    (death,) = monitor.deaths
    assert (death.last_fired, death.confirmed) == (max(s for s in seen if s < 30), min(s for s in seen if s >= 30))
    assert monitor.steps == 60
    assert monitor.report().samples == N * len(seen)


def test_a_tie_is_silence() -> None:
    """z = 0 is inactive (DESIGN 2): a step of exactly 1 lands on it."""
    rows = 4096  # a power of two: the mean is exact
    model, x = unit(0.5, 0.5), torch.ones(rows, 1, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for _ in range(5):
            optimizer.zero_grad()
            (model(x).sum() / rows).backward()  # dL/dz = 1: both fall by 0.5
            optimizer.step()
    (death,) = monitor.deaths
    assert (death.last_fired, death.confirmed, death.max_z_after) == (0, 1, 0.0)


@pytest.mark.parametrize(("beta", "forward"), [(0.8, 15), (0.9, 10), (0.95, 9)])
def test_heavy_ball(beta: float, forward: int) -> None:
    """First silent forward 15, 10, 9; killed by the update before it (DESIGN 10)."""
    (death,) = approach(60, lr=0.02, momentum=beta).deaths
    assert (death.last_fired, death.killed_by_step, death.confirmed) == (forward - 1, forward - 1, forward)


def test_light_ball() -> None:
    """With beta = 0.5 it never dies (2,000 steps, DESIGN 10)."""
    assert approach(2000, lr=0.02, momentum=0.5).deaths == []


@pytest.mark.parametrize(
    ("lr", "decay", "start", "bias", "forward"), [(0.01, 0.1, 1.0, -0.5, 693), (0.001, 0.5, 2.0, -0.1, 5990)]
)
def test_decay(lr: float, decay: float, start: float, bias: float, forward: int) -> None:
    """First silent forward D = ceil(ln(-b/M) / ln(1 - lr wd)) under AdamW, decay on w only (DESIGN 10)."""
    assert math.ceil(math.log(-bias / start) / math.log(1 - lr * decay)) == forward
    model, x = unit(start, bias), torch.ones(N, 1, dtype=torch.float64)
    groups = [{"params": [model[0].weight]}, {"params": [model[0].bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=decay)
    zero = torch.zeros((), dtype=torch.float64)
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for _ in range(forward + 20):
            optimizer.zero_grad()
            (model(x) * zero).sum().backward()
            optimizer.step()
    (death,) = monitor.deaths
    assert (death.last_fired, death.killed_by_step, death.confirmed) == (forward - 1, forward - 1, forward)
    assert death.max_z_before == pytest.approx(start * (1 - lr * decay) ** (forward - 1) + bias, rel=1e-6)
    assert death.max_z_after == pytest.approx(start * (1 - lr * decay) ** forward + bias, rel=1e-6)
    assert (death.cause, death.parameter) == ("weight_decay", "0.weight")


class Numbers(nn.Module):
    """A layer whose unit 0 goes nowhere, so that NaN in it stays in it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act, self.out = nn.Linear(4, 6), nn.ReLU(), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.act(self.fc(x))[:, 1:])


@pytest.mark.parametrize(
    ("bias", "dies"), [(math.nan, True), (-math.inf, True), (math.inf, False)], ids=["nan", "-inf", "inf"]
)
def test_numbers_that_are_not_finite(bias: float, dies: bool) -> None:
    """NaN counts as inactive, +inf as active (DESIGN 2); the rest of the layer goes on."""
    torch.manual_seed(0)
    model = Numbers()
    model.fc.bias.data.abs_()
    optimizer = torch.optim.SGD([*model.fc.parameters(), *model.out.parameters()], lr=1e-3)
    generator = torch.Generator().manual_seed(1)
    # training must go on; what is said about exploding activations is the business of other tests
    with warnings.catch_warnings(), deadrelu.Monitor(model, optimizer, strict=True, window=8) as monitor:
        warnings.simplefilter("ignore")
        for step in range(40):
            optimizer.zero_grad()
            model(torch.randn(300, 4, generator=generator)).square().mean().backward()
            optimizer.step()
            if step == 12:
                model.fc.bias.data[0] = bias
    found = [(d.unit, d.last_fired, d.confirmed, d.revived) for d in monitor.deaths]
    assert found == ([(0, 12, 22, None)] if dies else [])
    if dies:
        assert monitor.deaths[0].cause == "non_finite"
    monitor.report().to_json()  # non-finite numbers become null


@pytest.mark.parametrize("window", [5, 50])
def test_a_rare_unit_needs_more(window: int) -> None:
    """A unit at a past rate of r = 1/200 needs ln(.05) / ln(1 - r/10) = 5,990 silent samples (DESIGN 3).

    It fires on exactly one row of 200 in every batch, so every way to measure r finds 1/200.
    """
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[0].bias.zero_()
    x = torch.full((200, 2), -1.0)
    x[0, 0] = x[:100, 1] = 1.0
    optimizer = torch.optim.SGD(model[2].parameters(), lr=1e-3)
    with deadrelu.Monitor(model, optimizer, strict=True, window=window) as monitor:
        for step in range(200):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            if step == 99:
                model[0].bias.data.fill_(-1e3)
    found = {d.unit: d for d in monitor.deaths}
    assert {d.last_fired for d in monitor.deaths} == {99}
    assert found[1].confirmed == 99 + 15  # 15 * 200 = 3,000
    assert (
        99 + 30 <= found[0].confirmed <= 99 + 60
    )  # 30 * 200 = 6,000 at least; a cautious r is no more than half of it


def test_rare_units_do_not_flicker() -> None:
    """Living units at sample rates of 1e-3 to 1e-2, over 600,000 samples (DESIGN 3).

    A rule of n = 2,995 alone would call them dead some 30 times; doubling n after a revival leaves about 2 in a million
    samples for the rarest, and asking for more evidence of a unit with a known past rate leaves none.
    """
    torch.manual_seed(0)
    rates = torch.tensor([1e-3, 2e-3, 4e-3, 1e-2])
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4))
        model[0].bias.copy_(torch.distributions.Normal(0.0, 1.0).icdf(rates))
    optimizer = torch.optim.SGD(model[2].parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(5)
    diary = Diary(model, {"1": Ear("0")})
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for _ in range(1200):
            optimizer.zero_grad()
            with diary.forward():
                output = model(torch.randn(500, 4, generator=generator))
            output.square().mean().backward()
            optimizer.step()
            diary.update()
    assert naive(diary) > 10  # what it would be without care
    compare(monitor, diary)
    assert len(monitor.deaths) <= 2
    assert {death.unit for death in monitor.deaths} <= {0}
    assert all(death.revived is not None for death in monitor.deaths)


def naive(diary: Diary) -> int:
    """Return how often a unit was silent for n samples and fired again, n never doubled."""
    found = 0
    for unit in range(4):
        silence = 0
        for step in diary.steps:
            if step["1"].fired[unit]:
                found += silence >= N
                silence = 0
            else:
                silence += step["1"].rows
    return found

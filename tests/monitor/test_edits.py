"""A parameter that something else than the optimizer changes: the death is not blamed on the learning rate."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deadrelu

from .stage import digits


def train(edit: Callable[[nn.Module, int], None], steps: int = 160) -> deadrelu.Monitor:
    torch.manual_seed(0)
    data, labels = digits()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with deadrelu.Monitor(model, optimizer, window=10, strict=True) as monitor:
        for step in range(steps):
            rows = torch.randint(len(data), (64,), generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            F.cross_entropy(model(data[rows]), labels[rows]).backward()
            optimizer.step()
            edit(model, step)
    return monitor


def lower(bias: Tensor) -> None:
    with torch.no_grad():
        bias[:6] -= 50.0


def lower_data(bias: Tensor) -> None:
    bias.data[:6] -= 50.0


def replace_data(bias: Tensor) -> None:
    bias.data = torch.cat((bias.data[:6] - 50.0, bias.data[6:]))


@pytest.mark.parametrize("edit", [lower, lower_data, replace_data])
@pytest.mark.parametrize("step", [43, 40, 47])
def test_an_edit_is_named(step: int, edit: Callable[[Tensor], None]) -> None:
    """The biases of six units are lowered by hand once: no cause of the training's, the parameter is named."""
    monitor = train(lambda model, now: edit(model[0].bias) if now == step else None)
    deaths = [d for d in monitor.deaths if d.unit < 6 and not d.born_dead]
    assert len(deaths) >= 5
    assert {d.killed_by_step for d in deaths} == {step}
    assert {(d.cause, d.parameter, d.safe_lr) for d in deaths} == {("unknown", "0.bias", None)}
    (event,) = (e for e in monitor.events if e.units == tuple(sorted(d.unit for d in deaths)))
    assert event.remedy == f"0.bias was changed after step {step}, outside of the optimizer: look at what did it"


@pytest.mark.parametrize("step", [30, 88, 101])
@pytest.mark.parametrize("name", ["0.bias", "0.weight"])
def test_no_death_after_an_edit_is_blamed_on_the_training(name: str, step: int) -> None:
    """Also not of units that fired rarely, last some steps before: what was measured since holds the edit."""

    def edit(model: nn.Module, now: int) -> None:
        parameter = model.get_parameter(name)
        if now == step:
            parameter.data.copy_(-50.0 * torch.ones_like(parameter))

    deaths = [d for d in train(edit).deaths if d.killed_by_step is not None and step - 3 <= d.killed_by_step <= step]
    assert len(deaths) >= 20
    assert {(d.cause, d.parameter) for d in deaths} == {("unknown", name)}


def test_what_is_edited_all_the_time_is_part_of_the_training() -> None:
    """Weights are clipped after every update, as in a Wasserstein GAN; a learning rate kills: that is what is told."""

    def clip(model: nn.Module, step: int) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.clamp_(-3, 3)

    torch.manual_seed(0)
    data, labels = digits()
    data = 1 + 0.3 * data
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with deadrelu.Monitor(model, optimizer, window=10, strict=True) as monitor:
        for step in range(160):
            optimizer.param_groups[0]["lr"] = 5.0 if step == 60 else 0.01
            optimizer.zero_grad()
            F.cross_entropy(model(data[:64]), labels[:64]).backward()
            optimizer.step()
            clip(model, step)
    deaths = [d for d in monitor.deaths if d.killed_by_step == 60]
    assert len(deaths) >= 3
    assert {d.cause for d in deaths} == {"learning_rate"}


@pytest.mark.parametrize("how", ["copied", "loaded"])
def test_weights_that_are_swapped_and_put_back_are_not_blamed(how: str) -> None:
    """The average of the weights takes their place for a validation, right after the update that kills."""
    torch.manual_seed(0)
    data, labels = digits()
    data = 1 + 0.3 * data
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    average = copy.deepcopy(model.state_dict())

    def swap() -> None:
        own = {name: p.detach().clone() for name, p in model.named_parameters()}
        for held in (average, own):
            if how == "loaded":
                model.load_state_dict(held)
            else:
                with torch.no_grad():
                    for name, p in model.named_parameters():
                        p.copy_(held[name])

    with deadrelu.Monitor(model, optimizer, window=10, strict=True) as monitor:
        for step in range(160):
            optimizer.param_groups[0]["lr"] = 5.0 if step == 83 else 0.01
            optimizer.zero_grad()
            F.cross_entropy(model(data[:64]), labels[:64]).backward()
            optimizer.step()
            if step % 42 == 41:
                swap()
    deaths = [d for d in monitor.deaths if d.killed_by_step == 83]
    assert len(deaths) >= 3
    assert {(d.cause, d.lr) for d in deaths} == {("learning_rate", 5.0)}


@pytest.mark.parametrize("begin", [20, 250])
@pytest.mark.parametrize("by_data", [False, True], ids=["no_grad", "data"])
def test_a_pull_by_hand_is_a_drift(by_data: bool, begin: int) -> None:
    """Biases are lowered a little after every update, late as well as early: many small steps that add up."""

    def pull(model: nn.Module, step: int) -> None:
        if step < begin:
            return
        bias = model[0].bias
        if by_data:
            bias.data[:6] -= 0.015
        else:
            with torch.no_grad():
                bias[:6] -= 0.015

    deaths = [d for d in train(pull, steps=begin + 500).deaths if d.unit < 6 and not d.born_dead]
    assert len(deaths) >= 4
    assert {(d.cause, d.parameter) for d in deaths} == {("bias_drift", "0.bias")}


@pytest.mark.parametrize("number", [math.nan, -math.inf])
def test_a_number_that_is_not_finite_comes_first(number: float) -> None:
    """Whoever wrote it there; the parameter is named."""

    def spoil(model: nn.Module, step: int) -> None:
        if step == 43:
            with torch.no_grad():
                model[0].bias[2] = number

    deaths = {d.unit: d for d in train(spoil).deaths}
    assert (deaths[2].killed_by_step, deaths[2].cause, deaths[2].parameter) == (43, "non_finite", "0.bias")

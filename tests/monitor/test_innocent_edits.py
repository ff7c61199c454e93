"""Edits that killed nobody: the training is told to be what killed, though parameters were written beside it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deadrelu

from .stage import digits

Edit = Callable[[nn.Module, int], None]
SPIKE = 83


def train(
    edit: Edit, *, steps: int = 160, spike: float = 0.0, low: float = 0.05, two: bool = False, **options: Any
) -> deadrelu.Monitor:
    """Train a small net; `spike` is the learning rate of one update, `edit` comes after each."""
    torch.manual_seed(0)
    data, labels = digits()
    data = 1 + 0.3 * data if spike and low < 0.05 else data
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    groups = [list(model[0].parameters()), list(model[2].parameters())]
    optimizers = [torch.optim.SGD(g, lr=low) for g in groups] if two else [torch.optim.SGD(model.parameters(), lr=low)]
    with deadrelu.Monitor(model, optimizers, window=10, strict=True, **options) as monitor:
        for step in range(steps):
            rows = torch.randint(len(data), (64,), generator=torch.Generator().manual_seed(step))
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = spike if spike and step == SPIKE else low
            model.zero_grad()
            F.cross_entropy(model(data[rows]), labels[rows]).backward()
            for optimizer in optimizers:
                optimizer.step()
            edit(model, step)
    return monitor


def born_again(at: Callable[[int], bool], *, by_data: bool) -> Edit:
    """Return what initialises unit 31 anew (Sokar et al. 2023, arXiv:2302.12902)."""

    def edit(model: nn.Module, step: int) -> None:
        if not at(step):
            return
        row = torch.randn(64, generator=torch.Generator().manual_seed(step)) / 8
        weight, bias = model[0].weight, model[0].bias
        with torch.no_grad():
            (weight.data if by_data else weight)[31] = row
            (bias.data if by_data else bias)[31] = 0.0

    return edit


def killed(monitor: deadrelu.Monitor, step: int = SPIKE) -> Counter[tuple[str, str | None]]:
    """Return causes and parameters of the deaths of a step, those of unit 31 aside."""
    return Counter((d.cause, d.parameter) for d in monitor.deaths if d.killed_by_step == step and d.unit != 31)


@pytest.mark.parametrize("by_data", [False, True], ids=["no_grad", "data"])
@pytest.mark.parametrize("delta", [-30, -2, -1, 0, 2, 5])
def test_units_that_are_born_again_beside_a_spike(delta: int, by_data: bool) -> None:
    """Without a replay, which would tell."""
    edit = born_again(lambda step: step == SPIKE + delta, by_data=by_data)
    found = killed(train(edit, spike=4.0, low=0.01, snapshot_memory=1))
    assert sum(found.values()) >= 5
    assert set(found) == {("learning_rate", "0.weight")}


@pytest.mark.parametrize("how", ["copied", "copied by data", "assigned", "loaded"])
def test_weights_that_are_swapped_for_a_validation(how: str) -> None:
    """Everything is put back, as it was to the last bit."""
    average: dict[str, Tensor] = {}

    def edit(model: nn.Module, step: int) -> None:
        if not average:
            average.update(copy.deepcopy(model.state_dict()))
        if step % 42 != SPIKE % 42:
            return
        own = {name: p.detach().clone() for name, p in model.named_parameters()}
        for held in (average, own):
            for name, p in model.named_parameters():
                if how == "copied":
                    with torch.no_grad():
                        p.copy_(held[name])
                elif how == "copied by data":
                    p.data.copy_(held[name])
                elif how == "assigned":
                    p.data = held[name]
            if how == "loaded":
                model.load_state_dict(held)

    found = killed(train(edit, spike=4.0, low=0.01, snapshot_memory=1))
    assert sum(found.values()) >= 5
    assert set(found) == {("learning_rate", "0.weight")}


@pytest.mark.parametrize("by_data", [False, True], ids=["no_grad", "data"])
def test_numbers_that_the_training_spoilt(by_data: bool) -> None:
    """A learning rate without measure; an edit of another unit right before it, or right after."""
    for at in (SPIKE - 1, SPIKE + 1):
        edit = born_again(lambda step, at=at: step == at, by_data=by_data)
        monitor = train(edit, spike=1e30)
        found = sum((killed(monitor, step) for step in range(SPIKE, SPIKE + 5)), Counter())
        assert found["non_finite", None] >= 10
        assert not [key for key in found if key[0] == "unknown" or (key[0] == "non_finite" and key[1])]


@pytest.mark.parametrize("by_data", [False, True], ids=["no_grad", "data"])
def test_an_edit_between_the_steps_of_several_optimizers(by_data: bool) -> None:
    """What their updates left is known only once the next forward pass begins: a replay would do the edit again."""

    def edit(model: nn.Module, step: int) -> None:
        bias = model[0].bias
        if step == 43:
            with torch.no_grad():
                (bias.data if by_data else bias)[:6] -= 50.0

    found = [d for d in train(edit, two=True).deaths if d.unit < 6 and not d.born_dead]
    assert len(found) >= 4
    assert {(d.killed_by_step, d.cause, d.parameter, d.safe_lr) for d in found} == {(43, "unknown", "0.bias", None)}


def test_a_replay_begins_with_what_an_edit_left() -> None:
    """Weights are written right before the update that kills, in a way that raises no version, and in one that does."""

    def larger(model: nn.Module, step: int, *, by_data: bool) -> None:
        weight = model[0].weight
        if step == SPIKE - 1:
            with torch.no_grad():
                (weight.data if by_data else weight).mul_(3.0)

    told = []
    for by_data in (False, True):
        monitor = train(lambda m, s, by_data=by_data: larger(m, s, by_data=by_data), spike=1.0, low=0.01, steps=260)
        told.append([(d.unit, d.killed_by_step, d.cause, d.safe_lr) for d in monitor.deaths])
    assert told[0] == told[1]
    assert any(safe is not None for _, _, _, safe in told[0])


def test_the_step_of_an_edit_is_told() -> None:
    """Also where it came some steps before the last firing."""

    def edit(model: nn.Module, step: int) -> None:
        if step == 43:
            model[0].bias.data[:6] -= 50.0

    monitor = train(edit)
    remedies = {e.remedy for e in monitor.events if e.cause == "unknown" and "changed" in e.remedy}
    assert remedies == {"0.bias was changed after step 43, outside of the optimizer: look at what did it"}

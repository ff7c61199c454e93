"""A NaN in some of what a unit sees is not its death; nothing but NaN is."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import deadrelu

BATCH = 3000
"""More than the samples of silence that a death takes, so that one step could be mistaken for it."""


def run(spoil: dict[int, slice | int], *, forever: bool = False) -> deadrelu.Monitor:
    """Watch a layer whose units all fire; `spoil` says which units get a NaN in one sample, by step."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 5)
    model = nn.Sequential(layer, nn.ReLU())
    with warnings.catch_warnings(), deadrelu.Monitor(model, strict=True, window=10) as monitor:
        warnings.simplefilter("ignore")
        for step in range(45):
            x = torch.rand(BATCH, 4) * 2 - 1
            hit = [units for at, units in spoil.items() if at == step or (forever and at <= step)]
            hook = layer.register_forward_hook(lambda m, a, z, hit=hit: _spoilt(z, hit), prepend=True)
            model(x)
            hook.remove()
            monitor.step()
    return monitor


def _spoilt(z: torch.Tensor, hit: list[slice | int]) -> torch.Tensor:
    z = z.clone()
    for units in hit:
        z[0, units] = torch.nan
    return z


@pytest.mark.parametrize("forever", [False, True])
@pytest.mark.parametrize("units", [slice(None), 0, 3])
@pytest.mark.parametrize("step", [3, 7, 9, 10, 21])
def test_one_sample_that_is_nan_kills_nobody(units: slice | int, step: int, forever: bool) -> None:
    monitor = run({step: units}, forever=forever)
    assert [(d.unit, d.last_fired, d.confirmed) for d in monitor.deaths] == []
    assert monitor.report()["1"].dead.tolist() == [False] * 5


@pytest.mark.parametrize("unit", [0, 3])
def test_a_unit_of_which_nothing_but_nan_is_left_has_died(unit: int) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 5)
    model = nn.Sequential(layer, nn.ReLU())
    with warnings.catch_warnings(), deadrelu.Monitor(model, strict=True) as monitor:
        warnings.simplefilter("ignore")
        for step in range(100):
            model(torch.rand(100, 4) * 2 - 1)
            monitor.step()
            if step == 41:
                layer.bias.data[unit] = torch.nan
    (death,) = monitor.deaths
    assert (death.unit, death.last_fired, death.confirmed, death.cause) == (unit, 41, 71, "non_finite")

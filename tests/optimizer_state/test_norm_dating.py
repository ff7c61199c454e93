"""ReLU -> BatchNorm: a silent channel is dated by its running_var (DESIGN sections 6.7 and 10)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from deadrelu.errors import InputError
from deadrelu.norm_dating import NormState, ages, date_channels

SILENT = (2, 5)


def state_of(norm: nn.modules.batchnorm._BatchNorm) -> NormState:
    assert norm.running_var is not None
    assert norm.running_mean is not None
    return NormState(norm.running_var.clone(), norm.momentum, int(norm.num_batches_tracked), norm.running_mean.clone())


def forwards(norm: nn.Module, count: int, silent: tuple[int, ...] = (), constant: tuple[int, ...] = ()) -> None:
    generator = torch.Generator().manual_seed(count)
    for _ in range(count):
        x = torch.randn(64, 16, generator=generator)
        x[:, list(silent)] = -1.0
        x[:, list(constant)] = 0.7
        norm(x.relu())


@pytest.mark.parametrize("k", [10, 100, 500, 900])
def test_by_its_own_earlier_variance_within_one_forward(k: int) -> None:
    norm = nn.BatchNorm1d(16)
    forwards(norm, 100)
    earlier = state_of(norm)
    forwards(norm, k, SILENT)
    now = state_of(norm)
    steps = ages(now, earlier.running_var.double().numpy()).steps
    assert all(abs(steps[unit] - k) <= 1 for unit in SILENT)
    found = {c.unit: c for c in date_channels(now, earlier)}
    assert set(found) == set(SILENT)
    assert all(c.steps == k and c.at_least and c.high is None for c in found.values())  # the checkpoint bounds no more


@pytest.mark.parametrize("k", [100, 500, 900])
def test_a_death_between_two_checkpoints(k: int) -> None:
    norm = nn.BatchNorm1d(16)
    forwards(norm, 100)
    earlier = state_of(norm)
    forwards(norm, 50)
    forwards(norm, k, SILENT)
    found = {c.unit: c for c in date_channels(state_of(norm), earlier)}
    assert set(found) == set(SILENT)
    assert all(abs(c.steps - k) <= 6 and not c.at_least for c in found.values())


@pytest.mark.parametrize("k", [10, 100, 500, 900])
def test_by_the_median_of_the_layer_within_ten(k: int) -> None:
    norm = nn.BatchNorm1d(16)
    forwards(norm, 100)
    forwards(norm, k, SILENT)
    now = state_of(norm)
    median = float(np.median(np.delete(now.running_var.double().numpy(), SILENT)))
    steps = ages(now, np.full(16, median)).steps
    assert all(abs(steps[unit] - k) <= 10 for unit in SILENT)
    found = {c.unit: c for c in date_channels(now)}
    assert set(found) == (set(SILENT) if k > 131 else set())
    assert all(c.low <= k <= (c.high or k) for c in found.values())


def test_where_running_var_sticks_the_age_is_at_least_that() -> None:
    norm = nn.BatchNorm1d(16)
    forwards(norm, 50)
    forwards(norm, 1200, SILENT)
    found = date_channels(state_of(norm))
    assert [c.unit for c in found] == list(SILENT)
    assert all(c.at_least and 850 < c.steps <= 1200 and c.high is None for c in found)


@pytest.mark.parametrize("momentum", [0.1, 0.03, None])
def test_channels_that_never_varied(momentum: float | None) -> None:
    norm = nn.BatchNorm1d(16, momentum=momentum)
    forwards(norm, 200, SILENT)
    found = date_channels(state_of(norm))
    assert [(c.unit, c.claim, c.steps, c.low, c.high) for c in found] == [
        (unit, "never_variance", 200, 200, 200) for unit in SILENT
    ]


def test_a_plain_average_of_all_forwards() -> None:
    norm = nn.BatchNorm1d(16, momentum=None)
    forwards(norm, 300)
    earlier = state_of(norm)
    forwards(norm, 100, SILENT)
    now = state_of(norm)
    steps = ages(now, earlier.running_var.double().numpy()).steps
    assert all(abs(steps[unit] - 100) <= 1 for unit in SILENT)
    assert [(c.unit, c.steps) for c in date_channels(now, earlier)] == [(unit, 100) for unit in SILENT]


def test_a_constant_channel_is_not_silent() -> None:
    norm = nn.BatchNorm1d(16)
    forwards(norm, 100)
    earlier = state_of(norm)
    forwards(norm, 300, SILENT, constant=(7,))
    assert [c.unit for c in date_channels(state_of(norm), earlier)] == list(SILENT)
    assert [c.unit for c in date_channels(state_of(norm))] == list(SILENT)


@pytest.mark.parametrize("every", [2, 7, 40])
def test_rare_channels_live(every: int) -> None:
    """One sample of 64 fires in one forward of `every`."""
    norm = nn.BatchNorm1d(16)
    generator = torch.Generator().manual_seed(0)
    earlier = None
    for step in range(600):
        x = torch.randn(64, 16, generator=generator)
        x[:, 3] = -1.0
        if step % every == 0:
            x[0, 3] = 0.05
        norm(x.relu())
        if step % 100 == 99:
            now = state_of(norm)
            assert not [c for c in date_channels(now, earlier) if c.steps > every]
            assert not [c for c in date_channels(now) if c.steps > every]
            earlier = now


def test_channels_of_very_different_size_live() -> None:
    norm = nn.BatchNorm1d(16)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        norm(torch.randn(64, 16, generator=generator).relu() * torch.logspace(-2, 2, 16))
    assert date_channels(state_of(norm)) == ()


@pytest.mark.parametrize("outlier", [1e3, 1e8, 1e20])
def test_one_huge_channel_kills_no_other(outlier: float) -> None:
    var = torch.ones(16)
    var[0] = outlier
    assert date_channels(NormState(var, 0.1, 1000)) == ()


def test_a_layer_that_is_silent_throughout_is_not_taken_apart() -> None:
    norm = nn.BatchNorm1d(16)
    forwards(norm, 100)
    earlier = state_of(norm)
    forwards(norm, 300, tuple(range(16)))
    assert date_channels(state_of(norm)) == ()
    assert date_channels(state_of(norm), earlier) == ()


def test_a_norm_in_eval_mode_ages_nothing() -> None:
    norm = nn.BatchNorm1d(16)
    forwards(norm, 100)
    earlier = state_of(norm)
    norm.eval()
    forwards(norm, 300, SILENT)
    assert date_channels(state_of(norm), earlier) == ()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (NormState(torch.tensor([1.0, math.nan]), 0.1), "NaN"),
        (NormState(torch.tensor([1.0, -1.0]), 0.1), "negative"),
        (NormState(torch.tensor(1.0), 0.1), "shape"),
        (NormState(torch.ones(2), 0.0), "momentum"),
        (NormState(torch.ones(2), 1.0), "momentum"),
        (NormState(torch.ones(2), 0.1, running_mean=torch.ones(3)), "running_mean"),
    ],
)
def test_statistics_that_no_norm_writes(state: NormState, words: str) -> None:
    with pytest.raises(InputError, match=words):
        date_channels(state)


def test_checkpoints_of_two_models() -> None:
    with pytest.raises(InputError, match="one model"):
        date_channels(NormState(torch.ones(2), 0.1), NormState(torch.ones(3), 0.1))

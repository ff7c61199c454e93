"""Dating from Adam's moments, on trainings whose last gradient per unit is known (DESIGN sections 6.7 and 10)."""

from __future__ import annotations

import statistics

import pytest
import torch
from versions import told

from deadrelu.optimizer_state import GradientClaim, Reading

from .training import Maker, Run, read, remembered, start

O = torch.optim  # noqa: E741 - the module of the optimizers
KILLED, BORN = range(8), (20, 21)
MAKERS: dict[str, Maker] = {
    "Adam": lambda p: O.Adam(p, lr=1e-3),
    "AdamW": lambda p: O.AdamW(p, lr=1e-3, weight_decay=0.01),
}
VARIANTS: dict[str, Maker] = {
    "NAdam": lambda p: O.NAdam(p, lr=1e-3),
    "RAdam": lambda p: O.RAdam(p, lr=1e-3),
    "amsgrad": lambda p: O.Adam(p, lr=1e-3, amsgrad=True),
    "foreach": lambda p: O.Adam(p, lr=1e-3, foreach=True),
    "fused": lambda p: O.Adam(p, lr=1e-3, fused=True),
    "maximize": lambda p: O.Adam(p, lr=1e-4, maximize=True),
    "capturable": lambda p: O.Adam(p, lr=torch.tensor(1e-3), betas=(torch.tensor(0.9), torch.tensor(0.999))),
    "decoupled NAdam": lambda p: O.NAdam(p, lr=1e-3, weight_decay=0.01, decoupled_weight_decay=True),
    "decoupled RAdam": lambda p: O.RAdam(p, lr=1e-3, weight_decay=0.01, decoupled_weight_decay=True),
}


def dated(reading: Reading) -> dict[int, GradientClaim]:
    return {c.unit: c for c in reading.claims if c.claim == "no_gradient"}


def never(reading: Reading) -> dict[int, GradientClaim]:
    return {c.unit: c for c in reading.claims if c.claim == "never_gradient"}


def check_honest(run: Run, reading: Reading) -> None:
    """Each claim's bounds hold of the gradients that there were."""
    silent, unnoticed = run.silent.tolist(), run.unnoticed.tolist()
    for claim in dated(reading).values():
        assert claim.bound is None or silent[claim.unit] <= claim.bound
        assert claim.high is None or silent[claim.unit] <= claim.high
        assert unnoticed[claim.unit] >= claim.low
        assert claim.low <= claim.steps <= (claim.high or claim.steps)
    for unit in never(reading):
        assert run.last[unit] == -1


@pytest.mark.parametrize("name", MAKERS)
def test_killed_units_are_dated_and_born_dead_ones_are_exact(name: str) -> None:
    """Killed by bias -= 1e3 after 1,000 steps, read 50, 200, 800 steps later: +-15 %, +-8 at 50 (layer median)."""
    run = start(MAKERS[name])
    run.kill(BORN)
    run.train(1000)
    assert not dated(run.read())
    run.kill(KILLED)
    for more, truth, error in ((50, 50, 8), (150, 200, 30), (600, 800, 120)):
        reading = run.train(more).read()
        found = dated(reading)
        assert set(found) == set(KILLED)
        assert abs(statistics.median(c.steps for c in found.values()) - truth) <= error
        assert all(not c.at_least and c.bound - truth >= 0 for c in found.values())
        assert set(never(reading)) == set(BORN)
        assert {(c.steps, c.low, c.high) for c in never(reading).values()} == {(run.updates,) * 3}
        check_honest(run, reading)
    assert reading.optimizer == told(name)


def test_an_age_beyond_what_float32_holds_is_said_to_be_at_least() -> None:
    run = start(MAKERS["Adam"]).train(200)
    run.kill(KILLED)
    found = dated(run.train(1300).read())
    assert set(found) == set(KILLED)
    assert all(c.at_least and 700 < c.steps <= 1300 and c.high == 1499 for c in found.values())


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_the_update_leave_the_same_moments(name: str) -> None:
    run = start(VARIANTS[name]).train(300)
    run.kill(KILLED)
    reading = run.train(100).read()
    assert set(dated(reading)) == set(KILLED)
    assert abs(statistics.median(c.steps for c in reading.claims) - 100) <= 8
    check_honest(run, reading)


def test_other_betas() -> None:
    run = start(lambda p: O.AdamW(p, lr=1e-3, betas=(0.8, 0.95))).train(300)
    run.kill(KILLED)
    reading = run.train(100).read()
    assert set(dated(reading)) == set(KILLED)
    assert abs(statistics.median(c.steps for c in dated(reading).values()) - 100) <= 8
    check_honest(run, reading)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lr", [0.03, 0.1])
def test_deaths_by_a_learning_rate_too_high(lr: float, seed: int) -> None:
    """Nobody edits a bias here: units die in spikes, or fade away; the bounds hold for either."""
    run = start(lambda p: O.Adam(p, lr=lr), inputs=8, batch=16, seed=seed)
    claims = 0
    for _ in range(6):
        reading = run.train(100).read()
        check_honest(run, reading)
        claims += len(reading.claims)
    assert claims > 0


@pytest.mark.parametrize("decay", [1e-4, 1e-2])
@pytest.mark.parametrize("cls", [O.Adam, O.NAdam, O.RAdam])
def test_coupled_weight_decay_leaves_room_for_at_least_about_50_steps(cls: type[O.Optimizer], decay: float) -> None:
    run = start(lambda p: cls(p, lr=1e-3, weight_decay=decay)).train(600)
    assert not run.read().claims
    run.kill(KILLED, by=50)
    assert not run.train(20).read().claims
    reading = run.train(180).read()
    found = set(dated(reading))
    assert found == set(KILLED) or (decay == 1e-2 and found and found < set(KILLED))  # decay may make up all of v
    assert {(c.steps, c.low, c.high, c.bound, c.at_least) for c in reading.claims} == {(50, 28, None, None, True)}
    check_honest(run, reading)


def test_without_the_key_that_tells_adam_from_adamw_both_are_read_right() -> None:
    """Before torch 2.7 both write the same group; the moments of the silent units tell."""
    for cls, steps in ((O.AdamW, 200), (O.Adam, 50)):
        run = start(lambda p, cls=cls: cls(p, lr=1e-3, weight_decay=0.01)).train(600)
        run.optimizer.param_groups[0].pop("decoupled_weight_decay", None)
        assert not run.read().claims
        run.optimizer.param_groups[0]["decoupled_weight_decay"] = cls is O.AdamW
        run.kill(KILLED, by=50)
        run.train(200)
        run.optimizer.param_groups[0].pop("decoupled_weight_decay", None)
        reading = run.read()
        assert reading.optimizer == "Adam or AdamW"
        assert set(dated(reading)) == set(KILLED)
        assert abs(statistics.median(c.steps for c in reading.claims) - steps) <= 8


def test_momentum_that_a_scheduler_cycles_widens_the_error() -> None:
    """OneCycleLR moves beta1 between 0.85 and 0.95: the decay of the past is known within these only."""
    run = start(lambda p: O.Adam(p, lr=1e-3))
    schedule = O.lr_scheduler.OneCycleLR(run.optimizer, max_lr=1e-3, total_steps=1000)
    for step in range(900):
        if step == 700:
            run.kill(KILLED)
        run.train(1)
        schedule.step()
    reading = run.read()
    found = dated(reading)
    assert set(found) == set(KILLED)
    assert all(c.low < 200 <= c.high and c.high - c.low > 100 for c in found.values())
    check_honest(run, reading)


def test_convolutions_and_transposed_ones() -> None:
    for layer, axis in ((torch.nn.Conv2d(3, 12, 3), 0), (torch.nn.ConvTranspose2d(3, 12, 3), 1)):
        torch.manual_seed(0)
        model = torch.nn.Sequential(layer, torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(1))
        model.append(torch.nn.Linear(12, 1))
        optimizer = O.AdamW(model.parameters(), lr=1e-3)
        for step in range(260):
            if step == 160:
                with torch.no_grad():
                    layer.bias[5] -= 1e3
            x = torch.randn(8, 3, 6, 6)
            optimizer.zero_grad()
            (model(x) - torch.randn(8, 1)).square().mean().backward()
            optimizer.step()
        reading = read(optimizer, layer, unit_dim=axis)
        assert reading.units == 12
        assert [c.unit for c in reading.claims] == [5]
        assert abs(reading.claims[0].steps - 100) <= 15


def test_a_state_loaded_into_a_fresh_optimizer_says_the_same() -> None:
    run = start(MAKERS["AdamW"]).train(300)
    run.kill(KILLED)
    run.train(100)
    before = run.read()
    saved = run.optimizer.state_dict()
    fresh = O.AdamW(run.model.parameters())
    fresh.load_state_dict(saved)
    run.optimizer = fresh
    assert run.read() == before
    assert remembered(fresh, run.layer.weight).state["step"].item() == 400

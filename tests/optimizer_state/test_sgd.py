"""Dating from SGD's momentum buffer, with and without coupled weight decay."""

from __future__ import annotations

import statistics

import pytest
import torch

from deadrelu.optimizer_state import GradientClaim, Reading
from deadrelu.optimizer_state.sgd import slow_mode

from .training import read, start

KILLED, BORN = range(8), (20, 21)


def dated(reading: Reading) -> dict[int, GradientClaim]:
    return {c.unit: c for c in reading.claims if c.claim == "no_gradient"}


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 5e-4])
def test_killed_units_are_dated(decay: float, nesterov: bool) -> None:
    run = start(lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, weight_decay=decay, nesterov=nesterov))
    run.train(600)
    assert not run.read().claims
    run.kill(KILLED, by=50)
    assert not run.train(20).read().claims  # that long a silence lies in the range of living units
    reading = run.train(120).read()
    found = dated(reading)
    assert set(found) == set(KILLED)
    assert abs(statistics.median(c.steps for c in found.values()) - 140) <= 20
    assert all(c.low <= 140 <= (c.high or 140) and c.bound is None for c in found.values())
    assert reading.optimizer == "SGD"


def test_with_weight_decay_an_old_silence_is_at_least_that_old() -> None:
    run = start(lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, weight_decay=5e-4)).train(400)
    run.kill(KILLED, by=50)
    found = dated(run.train(600).read())
    assert set(found) == set(KILLED)
    assert all(c.at_least and 100 < c.steps < 600 and c.high is None for c in found.values())


def test_a_learning_rate_that_decays_moves_the_slow_mode_and_no_claim() -> None:
    run = start(lambda p: torch.optim.SGD(p, lr=3e-2, momentum=0.9, weight_decay=5e-4))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(run.optimizer, 1000)
    for step in range(900):
        if step == 750:
            run.kill(KILLED, by=50)
        run.train(1)
        schedule.step()
    found = dated(run.read())
    assert set(found) == set(KILLED)
    assert all(c.low <= 150 <= (c.high or 150) for c in found.values())


def test_born_dead_without_weight_decay() -> None:
    run = start(lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9))
    run.kill(BORN)
    reading = run.train(200).read()
    assert [(c.unit, c.claim, c.steps, c.low, c.high) for c in reading.claims] == [
        (unit, "never_gradient", None, 0, None) for unit in BORN
    ]
    assert run.read(steps=200).steps == 200


def test_a_momentum_that_rounds_to_zero_tells_nothing_of_zeros() -> None:
    run = start(lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.4)).train(50)
    run.kill(KILLED)
    reading = run.train(300).read()
    assert not reading.claims
    assert [d.code for d in reading.declined] == ["no_memory"]


@pytest.mark.parametrize("spread", [1.0, 100.0])
def test_a_layer_whose_gradients_differ_widely_is_healthy(spread: float) -> None:
    """Weak outgoing weights make weak gradients: four orders of magnitude between units are no death."""
    run = start(lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9))
    with torch.no_grad():
        run.model[2].weight.mul_(torch.logspace(-2, 2, 32) ** (spread > 1))
    for group in run.optimizer.param_groups:
        group["lr"] = 1e-6
    assert not run.train(100).read().claims


def test_where_all_units_are_silent_there_is_nothing_to_bound_the_age() -> None:
    """Units that died at different times, none left alive: the oldest lie under the youngest, which are silent too."""
    run = start(lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9)).train(200)
    run.kill(range(16))
    run.train(150)
    run.kill(range(16, 32))
    reading = run.train(250).read()
    assert set(dated(reading)) <= set(range(16))
    assert all(c.high is None and c.steps <= 400 for c in dated(reading).values())


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("lr", "decay", "mu"), [(0.1, 5e-3, 0.9), (0.5, 1e-3, 0.8), (0.0, 1e-2, 0.9)])
def test_the_slow_mode_against_a_simulation(lr: float, decay: float, mu: float, nesterov: bool) -> None:
    w, buffer = 1.0, 0.0
    for _ in range(1000):
        buffer = mu * buffer + decay * w
        w -= lr * (decay * w + mu * buffer if nesterov else buffer)
    slow = slow_mode(lr, mu, decay, nesterov=nesterov)
    assert slow is not None
    assert buffer / w == pytest.approx(slow, rel=1e-9) if lr else slow == pytest.approx(decay / (1 - mu))


def test_there_is_no_slow_mode_where_the_weights_swing() -> None:
    assert slow_mode(1.0, 0.9, 1.0) is None


def test_a_layer_that_is_silent_as_a_whole_is_said_to_be_so() -> None:
    """All units at once, as after a spike: nothing is left to compare with, but the buffer has faded to nothing."""
    run = start(lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9)).train(300)
    healthy = run.read()
    assert healthy.layer is None
    run.kill(range(len(run.layer.weight)), by=1e3)
    reading = run.train(300).read()
    assert reading.layer is not None
    assert (reading.layer.claim, reading.layer.steps, reading.layer.bound) == ("no_gradient", None, None)
    assert any(said.code == "whole_layer" for said in reading.declined)


def test_no_age_goes_beyond_the_updates_that_were_made() -> None:
    run = start(lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9)).train(60)
    run.kill(KILLED, by=50)
    run.train(100)
    beyond = dated(run.read())
    assert any((c.high or 0) > 160 for c in beyond.values())  # a buffer has no clock of its own
    assert all((c.high or 0) <= 160 for c in dated(read(run.optimizer, run.layer, steps=160)).values())

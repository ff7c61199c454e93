"""What is not dead: healthy, rare, frozen, young, spiked, faded. Nothing may be claimed that the gradients deny."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deadrelu.optimizer_state import read_gradients

from .training import Run, read, remembered, start

O = torch.optim  # noqa: E741 - the module of the optimizers


def adam(p: object, **options: object) -> torch.optim.Optimizer:
    return O.Adam(p, lr=1e-3, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("inputs", [1, 2, 8, 64])
@pytest.mark.parametrize("bias", [True, False])
def test_healthy_layers_whatever_their_width(inputs: int, bias: bool) -> None:
    """Rows of one or two numbers are small by chance now and then: 512 units, looked at 15 times."""
    run = start(lambda p: adam(p), inputs=inputs, units=512, batch=8, bias=bias)
    for _ in range(10):
        reading = run.train(30).read()
        silent, unnoticed = run.silent, run.unnoticed
        for claim in reading.claims:
            if claim.claim == "never_gradient":  # with one input and no bias, a unit of no sign in a batch of 8
                assert run.last[claim.unit] == -1
            else:
                assert unnoticed[claim.unit] >= claim.low
                assert silent[claim.unit] > 20


def test_inputs_all_alike_make_one_number_of_a_row() -> None:
    """The gradient of a row is then a multiple of one vector: 100 numbers are as much evidence as one."""
    run = start(lambda p: adam(p), inputs=100, units=256)
    x = torch.randn(1, 100)
    generator = torch.Generator().manual_seed(0)
    run.batch = lambda: (x.expand(16, -1), torch.randn(16, 1, generator=generator))
    with torch.no_grad():
        run.layer.weight.abs_().mul_(x.sign())  # all units fire
    for _ in range(10):
        for claim in run.train(40).read().claims:  # some do die of it
            assert run.unnoticed[claim.unit] >= claim.low > 60


@pytest.mark.parametrize("every", [10, 25, 60, 150])
def test_a_unit_that_fires_rarely_is_said_to_be_as_silent_as_it_is(every: int) -> None:
    """One batch in `every` makes unit 0 fire; no age goes back beyond the last one by more than the error."""
    run = start(lambda p: adam(p))
    draw, count = run.batch, iter(range(10**6))

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        x, y = draw()
        x[:, 0] = 1.0 if next(count) % every == 0 else 0.0
        return x, y

    run.batch = batch
    with torch.no_grad():
        run.layer.weight[0, 0], run.layer.bias[0] = 200.0, -100.0
    for more in (300, 13, 22, 40, 45, 30):
        reading = run.train(more).read()
        for claim in reading.claims:
            assert claim.unit == 0
            assert claim.low <= run.silent[0] <= claim.high


def test_a_frozen_layer_has_no_state() -> None:
    run = start(lambda p: adam([q for q in p if q.shape[0] == 1]))
    run.layer.requires_grad_(False)
    reading = run.train(50).read()
    assert not reading.claims
    assert [(d.code, d.part) for d in reading.declined] == [("no_state", "weight"), ("no_state", "bias")]


@pytest.mark.parametrize("to_none", [True, False])
def test_a_layer_frozen_half_way(to_none: bool) -> None:
    """Gradients set to None leave the state as it was; zeros let all units fade alike: the layer, not its units."""
    run = start(lambda p: adam(p)).train(200)
    run.layer.requires_grad_(False)
    for _ in range(200):
        x, y = run.batch()
        run.optimizer.zero_grad(set_to_none=to_none)
        (run.model(x) - y).square().mean().backward()
        run.optimizer.step()
    reading = run.read()
    assert not reading.claims
    if to_none:
        assert reading.layer is None
    else:
        assert reading.layer is not None
        assert reading.layer.claim == "no_gradient"
        assert abs(reading.layer.steps - 200) < 20
        assert reading.layer.bound >= 200
        assert [d.code for d in reading.declined] == ["whole_layer"]


@pytest.mark.parametrize("make", [adam, lambda p: O.SGD(p, lr=1e-2, momentum=0.9)])
def test_a_layer_that_never_had_a_gradient(make: object) -> None:
    """Zero weights and biases behind a ReLU: the whole layer, which may as well be frozen or unused."""
    run = start(make)
    with torch.no_grad():
        run.layer.weight.zero_(), run.layer.bias.zero_()
    reading = run.train(100).read()
    assert not reading.claims
    assert reading.layer is not None
    assert reading.layer.claim == "never_gradient"
    assert [d.code for d in reading.declined] == ["whole_layer"]


def test_zero_initialised_outgoing_weights_cost_one_gradient_only() -> None:
    run = start(lambda p: adam(p))
    nn.init.zeros_(run.model[2].weight)
    for _ in range(5):
        assert not run.train(40).read().claims


@pytest.mark.parametrize("updates", [1, 5, 29])
def test_an_optimizer_just_begun(updates: int) -> None:
    run = start(lambda p: adam(p))
    run.kill([3])
    reading = run.train(updates).read()
    assert not reading.claims
    assert reading.steps == updates
    assert [d.code for d in reading.declined] == ["too_few_steps"]
    momentum = start(lambda p: O.SGD(p, lr=1e-2, momentum=0.9))
    momentum.kill([3])
    assert [d.code for d in momentum.train(updates).read(steps=updates).declined] == ["too_few_steps"]


def test_nearly_all_units_died() -> None:
    run = start(lambda p: adam(p)).train(300)
    run.kill(range(1, 32))
    reading = run.train(200).read()
    assert [c.unit for c in reading.claims] == list(range(1, 32))
    assert all(c.low <= 200 <= c.high and abs(c.steps - 200) <= 35 for c in reading.claims)


def test_all_units_died() -> None:
    run = start(lambda p: adam(p)).train(300)
    run.kill(range(32))
    reading = run.train(200).read()
    assert not reading.claims
    assert abs(reading.layer.steps - 200) < 20
    assert reading.layer.bound >= 200


@pytest.mark.parametrize("make", [adam, lambda p: O.SGD(p, lr=1e-2, momentum=0.9)])
def test_a_layer_of_one_unit(make: object) -> None:
    run = start(make, units=1).train(100)
    assert not run.read().claims
    run.kill([0])
    assert not run.train(200).read().claims


def test_inputs_that_are_always_zero_are_no_evidence() -> None:
    run = start(lambda p: adam(p))
    draw = run.batch

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        x, y = draw()
        x[:, 3:] = 0
        return x, y

    run.batch = batch
    assert not run.train(300).read().claims
    run.kill([4])
    assert [c.unit for c in run.train(100).read().claims] == [4]


def test_inputs_that_died_leave_the_bias_its_gradient() -> None:
    """Every weight fades, but no unit: its bias goes on."""
    run = start(lambda p: adam(p)).train(200)
    draw = run.batch
    run.batch = lambda: (torch.zeros(32, 20), draw()[1])
    with torch.no_grad():
        run.layer.bias.abs_()
    assert not run.train(200).read().claims


@pytest.mark.parametrize("factor", [1e3, 1e5, 1e7])
@pytest.mark.parametrize("bias", [True, False])
def test_one_huge_gradient_hides_no_living_unit(factor: float, bias: bool) -> None:
    """v remembers a spike for thousands of steps: |m| / sqrt(v) of a living unit is tiny, of half of the layer here."""
    run = start(lambda p: adam(p), bias=bias).train(300)
    x, y = run.batch()
    run.optimizer.zero_grad()
    (run.model(x) - y).square().mean().backward()
    run.layer.weight.grad[:16] *= factor
    if bias:
        run.layer.bias.grad[:16] *= factor
    for group in run.optimizer.param_groups:
        group["lr"] = 1e-5
    run.optimizer.step()
    for _ in range(5):
        reading = run.train(60).read()
        assert not [c for c in reading.claims if c.claim == "no_gradient"]


def test_clipping_loss_scaling_and_a_learning_rate_of_zero_change_nothing() -> None:
    run = start(lambda p: O.AdamW(p, lr=0.0)).train(100)
    run.kill([7])
    assert [c.unit for c in run.train(150).read().claims] == [7]
    small = start(lambda p: O.AdamW(p, lr=1e-6))
    with torch.no_grad():
        small.model[2].weight *= 1e-5
    assert not small.train(200).read().claims

    clipped = start(lambda p: O.Adam(p, lr=1e-3))
    clipped.optimizer.register_step_pre_hook(
        lambda optimizer, *_: nn.utils.clip_grad_norm_(clipped.model.parameters(), 1e-3) and None
    )
    assert not clipped.train(200).read().claims


def test_units_whose_outgoing_weights_differ_by_orders_of_magnitude() -> None:
    run = start(lambda p: O.Adam(p, lr=1e-6))
    with torch.no_grad():
        run.model[2].weight.mul_(torch.logspace(-6, 0, 32))
    for _ in range(5):
        assert not run.train(50).read().claims


def test_strong_weight_decay_on_a_living_layer() -> None:
    """m = decay * w for living units too, once decay outweighs their gradients: no evidence of silence."""
    run = start(lambda p: O.Adam(p, lr=1e-4, weight_decay=10.0))
    for _ in range(4):
        assert not run.train(60).read().claims


def test_full_batch_training_that_converges_fades_as_a_layer() -> None:
    """Gradients that shrink by the step look like silence, but all alike: no unit is singled out."""
    torch.manual_seed(0)
    x = torch.randn(64, 4, dtype=torch.float64)
    target = x @ torch.randn(4, 6, dtype=torch.float64)
    layer = nn.Linear(4, 6, dtype=torch.float64)
    optimizer = O.RAdam(layer.parameters(), lr=1e-2)
    for step in range(3000):
        optimizer.zero_grad()
        (layer(x) - target).square().mean().backward()
        optimizer.step()
        if step % 100 == 99:
            reading = read(optimizer, layer)
            assert all(c.high >= 0 for c in reading.claims)
            assert not [c for c in reading.claims if c.claim == "never_gradient"]


def test_a_parameter_updated_by_another_optimizer_than_its_bias() -> None:
    torch.manual_seed(0)
    run = start(lambda p: adam(p))
    weight, bias = run.layer.weight, run.layer.bias
    optimizer = O.SGD([weight], lr=1e-2, momentum=0.9)
    other = O.Adam([bias], lr=1e-3)
    run.optimizer = optimizer
    for _ in range(60):
        x, y = run.batch()
        run.model.zero_grad()
        (run.model(x) - y).square().mean().backward()
        optimizer.step(), other.step()
    reading = read_gradients(remembered(optimizer, weight), remembered(other, bias))
    assert [d.code for d in reading.declined] == ["mixed"]
    assert not reading.claims


def test_the_run_tells_the_truth() -> None:
    """The record that the tests compare with: a unit killed after 40 of 100 updates is silent for 60."""
    run: Run = start(lambda p: adam(p)).train(40)
    run.kill([2])
    run.train(60)
    assert run.silent[2] == 60
    assert run.unnoticed[2] >= 60
    assert run.silent[3:].max() < 5

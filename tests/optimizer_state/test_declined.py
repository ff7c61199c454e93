"""What is declined, and why: optimizers of another memory, coarse or broken states, hostile values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from deadrelu.optimizer_state import Reading, Remembered, read_gradients

from .training import read

O = torch.optim  # noqa: E741 - the module of the optimizers

OTHERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "RMSprop": lambda p: O.RMSprop(p),
    "RMSprop with momentum": lambda p: O.RMSprop(p, momentum=0.9, centered=True),
    "Adagrad": lambda p: O.Adagrad(p),
    "Adadelta": lambda p: O.Adadelta(p),
    "Adamax": lambda p: O.Adamax(p),
    "Adafactor": lambda p: O.Adafactor(p),
    "Rprop": lambda p: O.Rprop(p),
    "ASGD": lambda p: O.ASGD(p),
    "LBFGS": lambda p: O.LBFGS(p),
}


def trained(make: Callable[[Any], torch.optim.Optimizer], steps: int = 60) -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    layer = nn.Linear(4, 6)
    optimizer = make(list(layer.parameters()))
    x = torch.randn(8, 4)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = layer(x).relu().square().mean()
        loss.backward()
        return loss

    for _ in range(steps):
        closure()
        optimizer.step(closure if isinstance(optimizer, O.LBFGS) else None)
    return layer, optimizer


@pytest.mark.parametrize("name", OTHERS)
def test_optimizers_of_torch_with_another_memory_are_declined_by_name(name: str) -> None:
    layer, optimizer = trained(OTHERS[name], 3)
    reading = read(optimizer, layer)
    assert not reading.claims
    assert reading.layer is None
    assert reading.optimizer is None
    if name == "LBFGS":  # which keeps its state under its first parameter alone
        assert name in reading.declined[0].reason
    else:
        assert [d.code for d in reading.declined] == ["other_optimizer"] * 2
        assert all(name.split()[0] in d.reason for d in reading.declined)


def test_muon_and_sparse_adam() -> None:
    weight = nn.Parameter(torch.randn(4, 3))
    muon = O.Muon([weight]) if hasattr(O, "Muon") else None
    if muon is not None:
        weight.grad = torch.randn(4, 3)
        muon.step()
        reading = read_gradients(Remembered(weight.detach(), muon.state[weight], muon.param_groups[0]))
        assert "Muon" in reading.declined[0].reason
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = O.SparseAdam(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    optimizer.step()
    reading = read_gradients(
        Remembered(embedding.weight.detach(), optimizer.state[embedding.weight], optimizer.param_groups[0])
    )
    assert "SparseAdam" in reading.declined[0].reason


GROUP = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}


def adam_state(units: int = 4, numbers: int = 3, **other: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    m = torch.randn(units, numbers)
    return {"step": torch.tensor(500.0), "exp_avg": m * 0.2, "exp_avg_sq": m.square() + 1} | other


def reading_of(state: dict[str, Any], group: dict[str, Any] | None = None, units: int = 4) -> Reading:
    return read_gradients(Remembered(torch.zeros(units, 3), state, GROUP if group is None else group))


@pytest.mark.parametrize(
    ("keys", "group", "name"),
    [
        ("step state1 state2 qmap1", GROUP, "8-bit"),
        ("exp_avg", {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.0}, "Lion"),
        ("step exp_avg exp_avg_var", GROUP, "AdaBelief"),
        ("step exp_avg exp_avg_sq exp_avg_diff", GROUP, "Adan"),
        ("step exp_avg exp_avg_sq", GROUP | {"precondition_frequency": 10}, "SOAP"),
        ("step exp_avg exp_avg_sq", GROUP | {"clip_lambda": None, "decouple": False}, "setting 'clip_lambda'"),
        ("step exp_avg exp_avg_sq projector", GROUP, "not known"),
        ("step exp_avg_sq_row exp_avg_sq_col", {"lr": None, "relative_step": True}, "Adafactor"),
        ("z exp_avg_sq", GROUP, "ScheduleFree"),
        ("whatever", {"lr": 1.0}, "not known"),
        (
            "momentum_buffer",
            {"lr": 1.0, "momentum": 0.9, "dampening": 0, "trust_coefficient": 0.1},
            "trust_coefficient",
        ),
    ],
)
def test_optimizers_of_others_are_told_by_their_keys(keys: str, group: dict[str, Any], name: str) -> None:
    reading = reading_of({key: torch.zeros(4, 3) for key in keys.split()}, group)
    assert not reading.claims
    assert [d.code for d in reading.declined] == ["other_optimizer"]
    assert name in reading.declined[0].reason


@pytest.mark.parametrize("key", ["initial_lr", "lr_scale", "name", "group_name", "layer_id"])
def test_labels_in_a_group_are_no_settings(key: str) -> None:
    assert not reading_of(adam_state(), GROUP | {key: 1}).declined


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_moments_of_half_precision(dtype: torch.dtype) -> None:
    for name in ("exp_avg", "exp_avg_sq"):
        state = adam_state()
        state[name] = state[name].to(dtype)
        assert [d.code for d in reading_of(state).declined] == ["precision"]
    group = {"lr": 0.1, "momentum": 0.9, "dampening": 0, "nesterov": False, "weight_decay": 0}
    assert [d.code for d in reading_of({"momentum_buffer": torch.ones(4, 3, dtype=dtype)}, group).declined] == [
        "precision"
    ]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"exp_avg": torch.full((4, 3), math.nan)}, "not_finite"),
        ({"exp_avg_sq": torch.full((4, 3), math.inf)}, "not_finite"),
        ({"exp_avg_sq": -torch.ones(4, 3)}, "unreadable"),
        ({"exp_avg": torch.zeros(3, 4)}, "unreadable"),
        ({"exp_avg": torch.zeros(12)}, "unreadable"),
        ({"exp_avg": None}, "unreadable"),
        ({"exp_avg": "x"}, "unreadable"),
        ({"exp_avg": torch.zeros(4, 3, dtype=torch.complex64)}, "precision"),
        ({"exp_avg": torch.zeros(4, 3).to_sparse()}, "unreadable"),
        ({"step": None}, "unreadable"),
        ({"step": math.nan}, "unreadable"),
        ({"step": torch.tensor([1.0, 2.0])}, "unreadable"),
        ({"step": -3}, "unreadable"),
        ({"step": 3}, "too_few_steps"),
    ],
)
def test_states_that_no_adam_wrote(changed: dict[str, Any], code: str) -> None:
    reading = reading_of(adam_state(**changed))
    assert not reading.claims
    assert [d.code for d in reading.declined] == [code]


@pytest.mark.parametrize(
    ("betas", "code"),
    [
        ((0.0, 0.999), "no_memory"),
        ((0.95, 0.9), "no_memory"),
        ((0.9, 0.81), "no_memory"),
        ((0.9, 1.0), "unreadable"),
        ((math.nan, 0.9), "unreadable"),
        ((0.9,), "unreadable"),
        ("ab", "unreadable"),
        (None, "unreadable"),
    ],
)
def test_betas_that_do_not_fade(betas: Any, code: str) -> None:
    assert [d.code for d in reading_of(adam_state(), GROUP | {"betas": betas}).declined] == [code]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"momentum": 0.0}, "no_memory"),
        ({"momentum": 1.0}, "no_memory"),
        ({"dampening": 1.0}, "no_memory"),
        ({"weight_decay": 3.0, "lr": 1.0}, "no_memory"),
        ({"lr": None}, "unreadable"),
        ({"momentum": "0.9"}, "unreadable"),
    ],
)
def test_settings_of_sgd_without_a_memory(changed: dict[str, Any], code: str) -> None:
    group = {"lr": 0.1, "momentum": 0.9, "dampening": 0, "nesterov": False, "weight_decay": 0}
    reading = reading_of({"momentum_buffer": torch.ones(4, 3)}, group | changed)
    assert not reading.claims
    assert [d.code for d in reading.declined] == [code]


def test_plain_sgd_keeps_no_memory() -> None:
    layer, optimizer = trained(lambda p: O.SGD(p, lr=0.1))
    assert {d.code for d in read(optimizer, layer).declined} == {"no_memory"}


def test_a_parameter_that_no_optimizer_holds() -> None:
    reading = read_gradients(Remembered(torch.zeros(4, 3)))
    assert [(d.code, d.part) for d in reading.declined] == [("no_state", "weight")]


def test_a_bias_of_other_units_than_the_weight() -> None:
    bias = Remembered(torch.zeros(5), {k: v if k == "step" else v[:, 0] for k, v in adam_state(5).items()}, GROUP)
    weight = Remembered(torch.zeros(4, 3), adam_state(), GROUP)
    assert [(d.code, d.part) for d in read_gradients(weight, bias).declined] == [("unreadable", "bias")]


def test_an_empty_weight() -> None:
    state = {"step": 100, "exp_avg": torch.zeros(0, 3), "exp_avg_sq": torch.zeros(0, 3)}
    assert read_gradients(Remembered(torch.zeros(0, 3), state, GROUP)).declined[0].code == "unreadable"
    state = {"step": 100, "exp_avg": torch.zeros(4, 0), "exp_avg_sq": torch.zeros(4, 0)}
    assert read_gradients(Remembered(torch.zeros(4, 0), state, GROUP)).declined[0].code == "unreadable"


def test_flushed_squares_are_not_sold_as_never() -> None:
    """With beta2 = 0.95 a square sinks under the smallest normal number in some 1,600 steps: `low` says so."""
    state = adam_state(step=50_000)
    state["exp_avg"][2], state["exp_avg_sq"][2] = 0, 0
    claim = reading_of(state, GROUP | {"betas": (0.9, 0.95)}).claims[0]
    assert (claim.unit, claim.claim, claim.steps) == (2, "never_gradient", 50_000)
    assert 1600 < claim.low < 1900
    state["exp_avg_sq"][1, 1] = 1e-42  # this machine keeps such numbers
    assert reading_of(state, GROUP | {"betas": (0.9, 0.95)}).claims[0].low == 50_000


def test_squares_that_underflow_are_no_silence() -> None:
    """Gradients of 1e-25 have a square of 0, and a mean that is not."""
    state = adam_state()
    state["exp_avg"][2], state["exp_avg_sq"][2] = 1e-25, 0
    assert not reading_of(state).claims


def test_a_claim_as_json() -> None:
    state = adam_state()
    state["exp_avg"][2], state["exp_avg_sq"][2] = 0, 0
    assert reading_of(state).claims[0].to_dict() == {
        "unit": 2,
        "claim": "never_gradient",
        "level": "optimizer",
        "steps": 500,
        "low": 500,
        "high": 500,
        "bound": None,
        "residual": 0.0,
        "at_least": False,
    }

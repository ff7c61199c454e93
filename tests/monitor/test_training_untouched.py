"""Training is bit for bit the same with and without Monitor, and Monitor never takes it down (DESIGN 5.1, 11).

Ground truth: the same run without Monitor.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from replicas import REPLICAS, Replica
from test_transparency import Awkward, assert_same, hook_state, module_state, tensor_state, torch_state
from torch import Tensor, nn

import deadrelu

from .plays import OPTIMIZERS, error
from .subjects import SUBJECTS, mlp

pytestmark = [
    # the models' own warnings: reentrant checkpointing and a padding mask, both in validation
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True:UserWarning"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning"),
]

TRAINS = [r for r in REPLICAS if r.wrap is None]


def outputs(found: Any) -> Iterator[Tensor]:
    """Return every floating-point tensor in what a model returned."""
    if isinstance(found, Tensor):
        if found.is_floating_point():
            yield found
    elif isinstance(found, dict):
        for value in found.values():
            yield from outputs(value)
    elif isinstance(found, (tuple, list)):
        for value in found:
            yield from outputs(value)


def call(model: nn.Module, batch: Any) -> Any:
    return model(**batch) if isinstance(batch, dict) else model(*batch) if isinstance(batch, tuple) else model(batch)


def seed(value: int) -> None:
    torch.manual_seed(value)
    np.random.seed(value)
    random.seed(value)


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return weights, gradients, buffers, optimizer state and random states, bit for bit."""
    state: dict[str, Any] = {}
    for name, p in model.named_parameters():
        state[name] = (tensor_state(p), tensor_state(p.grad))
        for key, value in optimizer.state.get(p, {}).items():
            state[f"{name} {key}"] = tensor_state(value) if isinstance(value, Tensor) else value
    for name, b in model.named_buffers():
        state[name] = tensor_state(b)
    state["random"] = (torch.get_rng_state().numpy().tobytes(), random.getstate(), np.random.get_state()[1].tobytes())
    return state


def trained(
    build: Callable[[], nn.Module],
    data: list[Any],
    *,
    watched: bool,
    name: str = "adamw",
    spike: dict[int, float] | None = None,
    noise: bool = True,
    **options: Any,
) -> list[Any]:
    """Return every loss, and everything else after each step."""
    seed(0)
    model = build().train()
    optimizer = OPTIMIZERS[name](model.parameters())
    usual = [group["lr"] for group in optimizer.param_groups]
    record: list[Any] = []
    with deadrelu.Monitor(model, optimizer, strict=True, **options) if watched else nullcontext():
        for step, batch in enumerate(data):
            for group, lr in zip(optimizer.param_groups, usual, strict=True):
                group["lr"] = (spike or {}).get(step, lr)
            optimizer.zero_grad()
            loss = torch.stack([error(out) for out in outputs(call(model, batch))]).mean()
            if noise:
                loss = loss * (1 + 0.01 * torch.rand(()))
            loss.backward()
            optimizer.step()
            record.append((tensor_state(loss), everything(model, optimizer)))
            if step % 3 == 2:
                model.eval()
                with torch.no_grad():
                    record.append([tensor_state(out) for out in outputs(call(model, batch))])
                model.train()
    return record


def assert_equal_runs(one: list[Any], other: list[Any]) -> None:
    """Compare step by step; the first difference is named."""
    assert len(one) == len(other)
    for step, (a, b) in enumerate(zip(one, other, strict=True)):
        if isinstance(a, tuple) and isinstance(a[1], dict):
            assert a[0] == b[0], f"the loss of record {step}"
            assert [key for key in a[1] if a[1][key] != b[1].get(key)] == [], f"record {step}"
        assert a == b, f"record {step}"


@pytest.mark.parametrize("replica", TRAINS, ids=lambda r: r.name)
def test_every_replica_trains_the_same(replica: Replica) -> None:
    """Awkward architectures with dropout, norms, shared and in-place parts; dear quantities are measured in between."""

    def build() -> nn.Module:
        return replica.model().train()

    def run(watched: bool) -> list[Any]:
        return trained(build, replica.data((4, 3, 5, 4), seed=2), watched=watched, window=2)

    assert_equal_runs(run(False), run(True))


@pytest.mark.parametrize("parametrised", [False, True])
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_a_spike_that_kills_trains_the_same(parametrised: bool, name: str) -> None:
    """A mass death makes Monitor look closer (snapshots, replays): noise, counters and buffers must not notice."""
    data = [torch.randn(200, 2, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(50)]

    def run(watched: bool, **options: Any) -> list[Any]:
        return trained(
            lambda: Awkward(parametrised), data, watched=watched, name=name, spike={12: 5.0, 13: 5.0}, **options
        )

    seen: list[Any] = []
    watched = run(True, window=8, on_event=seen.append)
    assert_equal_runs(run(False), watched)
    assert any(event.kind == "death" for event in seen), "no unit died: this proves nothing"


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.name)
def test_subjects_train_the_same(subject: Any) -> None:
    """The models of the dating tests, over several windows."""
    data = [subject.batch(16, torch.Generator().manual_seed(i)) for i in range(25)]

    def run(watched: bool) -> list[Any]:
        return trained(subject.model, data, watched=watched, window=6, name="momentum", noise=False)

    assert_equal_runs(run(False), run(True))


def hooks_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return hooks, modes and attributes of model, optimizer and torch (not the values that training changes)."""
    state = {key: value for key, value in module_state(model).items() if key.endswith((" hooks", " module", " own"))}
    state["parameters"] = [(p._backward_hooks, p._post_accumulate_grad_hooks) for p in model.parameters()]
    state["optimizer"] = hook_state(optimizer)
    own = torch_state()
    state.update({key: own[key] for key in own if "rng" not in key})
    return state


@pytest.mark.parametrize("how", ["exit", "close", "exception", "exception in forward", "exception in backward"])
def test_nothing_is_left_behind(how: str) -> None:
    """Hooks are gone after exit, also on an exception, wherever it is raised."""
    seed(0)
    model = Awkward(parametrised=True)
    optimizer = OPTIMIZERS["adam"](model.parameters())
    before = hooks_of(model, optimizer)

    def steps(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            error(model(torch.randn(6, 2, 6, 6))).backward()
            optimizer.step()

    if how == "close":
        monitor = deadrelu.Monitor(model, optimizer, window=3, strict=True)
        steps(7)
        monitor.close()
        monitor.close()
    elif how == "exit":
        with deadrelu.Monitor(model, optimizer, window=3, strict=True) as monitor:
            steps(7)
    else:
        with pytest.raises(KeyError, match="boom"):
            end_badly(how, model, optimizer, steps)
    assert_same(before, hooks_of(model, optimizer))
    model.fail = None
    steps(2)


def end_badly(how: str, model: Awkward, optimizer: torch.optim.Optimizer, steps: Callable[[int], None]) -> None:
    """Raise in the middle of a monitored run, at a place of choice."""
    with deadrelu.Monitor(model, optimizer, window=3, strict=True):
        steps(4)
        if how == "exception in forward":
            model.fail = KeyError("boom")
            model(torch.randn(6, 2, 6, 6))
        if how == "exception in backward":
            out = model(torch.randn(6, 2, 6, 6))
            out.register_hook(raise_boom)
            error(out).backward()
        raise KeyError("boom")


def raise_boom(_: Tensor) -> None:
    raise KeyError("boom")


def test_two_monitors_on_one_model() -> None:
    """Each sees the same; the one that leaves first takes nothing of the other's along."""
    seed(0)
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    before = hooks_of(model, optimizer)
    first = deadrelu.Monitor(model, optimizer, window=5, strict=True)
    second = deadrelu.Monitor(model, optimizer, window=5, strict=True)
    for step in range(40):
        if step == 4:
            model[0].bias.data[1] = -1e3
        optimizer.zero_grad()
        error(model(torch.randn(200, 8))).backward()
        optimizer.step()
        if step == 30:
            first.close()
    second.close()
    assert_same(before, hooks_of(model, optimizer))
    for monitor in (first, second):
        assert [(d.last_fired, d.confirmed) for d in monitor.deaths if (d.site, d.unit) == ("1", 1)] == [(3, 18)]


def test_the_model_is_let_go() -> None:
    """A closed Monitor keeps neither activations nor gradients alive."""
    seed(0)
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with deadrelu.Monitor(model, optimizer, window=5, strict=True) as monitor:
        for _ in range(12):
            optimizer.zero_grad()
            error(model(torch.randn(937, 8))).backward()
            optimizer.step()
    gc.collect()
    big = [t for t in gc.get_objects() if issubclass(type(t), Tensor) and t.dim() and t.shape[0] == 937]
    assert big == []
    assert monitor.report().mode == "training"

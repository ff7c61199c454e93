"""Monitor never takes training down: whatever fails inside of it, it detaches, says so once, and training goes on.

Ground truth: the same run without Monitor (DESIGN 11). The failures are planted in every function of deadrelu that runs
during training, one at a time, by exchanging its code; `strict=True` must raise them.
"""

from __future__ import annotations

import gc
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_transparency import hook_state, tensor_state
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack, _pop_mode

import deadrelu

from .plays import OPTIMIZERS, error

# What catches failures and what clears up after them cannot itself be made to fail.
# Those that clear up, and `_on_producer`: what the tracer cannot follow is "unknown" to it, not a failure.
EXEMPT = (
    "close",
    "detach",
    "release",
    "disarm",
    "forget",
    "clear",
    "_pop",
    "guard",
    "fail",
    "_on_producer",
    "__torch_function__",
    "__post_init__",
    "let_go",
    "before.__call__",
    "after.__call__",
    "entry.__call__",
    "exit.__call__",
    "express.stop",
    "passage.shut",
    "placed.rest",
    "scout._blind",
    "canonical_name",
    "in_compiled",
    "beacon.__call__",
    "kernels.choice",  # decides once in a process
)


def boom(*_: Any, **__: Any) -> Any:
    raise ArithmeticError("planted")  # nothing but builtins: this code runs among the names of another module


class Mixed(nn.Module):
    """Modules and functions, a norm, an in-place rectifier and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.fc, self.drop, self.out = nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.out(self.drop(F.relu(self.fc(x))))


def run(watched: bool = True, strict: bool = False, on_built: Callable[[], None] = lambda: None) -> list[Any]:
    """Train for 11 steps with planted deaths; return losses and weights, and see that nothing is left behind."""
    torch.manual_seed(0)
    model = Mixed()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    before = left_behind(model, optimizer)
    monitor = deadrelu.Monitor(model, optimizer, window=3, strict=strict) if watched else None
    on_built()
    record: list[Any] = []
    try:
        for step in range(11):
            if step == 2:
                model.norm.bias.data[:2] = -1e3
                model.fc.bias.data[:3] = -1e3
            optimizer.zero_grad()
            loss = error(model(torch.randn(1000, 2, 4, 4)))
            loss.backward()
            optimizer.step()
            record.append((tensor_state(loss), [tensor_state(p) for p in model.parameters()]))
    finally:
        if monitor is not None:
            monitor.close()
        after = left_behind(model, optimizer)
        while _get_current_function_mode_stack():  # one test must not spoil the next
            _pop_mode()
        assert after == before, "left behind"
    return record


def left_behind(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    """Return the hooks and modes that are there."""
    tables = [hook_state(owner) for owner in (*model.modules(), optimizer, torch.nn.modules.module)]
    tensors = [p._backward_hooks for p in model.parameters() if p._backward_hooks]
    return [tables, tensors, _get_current_function_mode_stack()]


def functions_that_run() -> list[types.FunctionType]:
    """Return the functions of deadrelu that run after construction and not in it, those that clear up aside."""
    codes: dict[bool, set[types.CodeType]] = {False: set(), True: set()}
    built = [False]

    def profile(frame: types.FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_globals.get("__name__", "").startswith("deadrelu."):
            codes[built[0]].add(frame.f_code)

    sys.setprofile(profile)
    try:
        run(on_built=lambda: built.__setitem__(0, True))
    finally:
        sys.setprofile(None)
    training = codes[True] - codes[False]
    functions = [f for f in gc.get_objects() if type(f) is types.FunctionType]
    found = [f for f in functions if f.__code__ in training]
    named = {name_of(f): f for f in found if f.__code__.co_freevars in ((), ("__class__",))}
    chosen = [name for name in sorted(named) if not any(word in name.lower() for word in EXEMPT)]
    deep = [name for name in chosen if ".tracing." in name]  # all of them are reached in one way: a few will do
    return [named[name] for name in chosen if name not in deep or name in deep[::8]]


def name_of(function: types.FunctionType) -> str:
    return f"{function.__module__}.{function.__qualname__}"


@contextmanager
def broken(function: types.FunctionType) -> Iterator[None]:
    """Exchange the code of a function for one that raises."""
    code = function.__code__
    function.__code__ = boom.__code__.replace(co_freevars=code.co_freevars)
    try:
        yield
    finally:
        function.__code__ = code


def test_whatever_fails_training_goes_on() -> None:
    """Every function of deadrelu that runs in training raises once: detached, said once, training bit for bit."""
    plain = run(watched=False)
    functions = functions_that_run()
    assert len(functions) > 30
    wrong: list[str] = []
    for function in functions:
        name = name_of(function)
        with broken(function), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                same = run() == plain
            except Exception as error:  # whatever comes out is a finding
                wrong.append(f"{name}: {type(error).__name__}: {error}")
                continue
        if not same:
            wrong.append(f"{name}: training differs")
        # an op that cannot be traced is "unknown" to the tracer: no failure
        if len(said) > 1 or (not said and ".tracing." not in name and ".producers." not in name):
            wrong.append(f"{name}: said {[str(w.message) for w in said]}")
    assert wrong == []


def test_strict_raises() -> None:
    """With `strict=True` the failure comes out, and the hooks are gone all the same."""
    for function in (f for f in functions_that_run() if f.__module__ == "deadrelu.lifetimes"):
        with broken(function), pytest.raises(ArithmeticError, match="planted"):
            run(strict=True)

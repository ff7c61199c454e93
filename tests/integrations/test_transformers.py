"""The transformers callback tells what a plain loop with a Monitor tells, and leaves nothing behind."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import deadrelu

from .runs import BATCHES, OPTIMIZERS, ROWS, WINDOW, Net, Planted, Told, hooks, plain, rows, spiked

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate", reason="the Trainer of transformers needs it")
from deadrelu.integrations.transformers import DeadReLUCallback  # noqa: E402

# The Trainer advises on its own future and on pinned memory; every warning of ours is still an error.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("error::deadrelu.DeadReluWarning")]
Make = Callable[..., torch.optim.Optimizer]
MOMENTUM = OPTIMIZERS["momentum"]


class Failing(Net):
    """A net whose forward or backward raises at one of its training calls."""

    def __init__(self, at: int, where: str) -> None:
        super().__init__()
        self.at, self.where = at, where

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        out = super().forward(x, labels)
        if self.calls["training"] > self.at:
            if self.where == "forward":
                raise Planted
            out["loss"].register_hook(raising)
        return out


def raising(gradient: Tensor) -> None:
    raise Planted


def trainer(watch: DeadReLUCallback, net: Net, folder: Path, make: Make = MOMENTUM, **options: Any) -> Any:
    optimizer = make(net.parameters())
    options = {"num_train_epochs": 1, **options}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=ROWS, per_device_eval_batch_size=ROWS, use_cpu=True,
        max_grad_norm=0.0, train_sampling_strategy="sequential", report_to="none", save_strategy="no",
        disable_tqdm=True, dataloader_pin_memory=False, logging_strategy="no", **options,
    )  # fmt: skip
    return transformers.Trainer(
        model=net, args=arguments, train_dataset=rows(), eval_dataset=rows(2),
        optimizers=(optimizer, spiked(optimizer)), callbacks=[watch],
    )  # fmt: skip


@functools.cache
def expected(make: Make, accumulate: int = 1) -> Told:
    net = Net()
    return plain(net, net, make, accumulate)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_equal_to_a_plain_loop(name: str, accumulate: int, tmp_path: Path) -> None:
    """Source: issue of the monitor: same model, seed and data give equal deaths, dates and causes; to the last bit."""
    watch = DeadReLUCallback(window=WINDOW, strict=True)
    train = trainer(watch, Net(), tmp_path, OPTIMIZERS[name], gradient_accumulation_steps=accumulate)
    train.train()
    told = Told.by(watch.monitor)
    assert {"born_dead", "learning_rate"} <= {death["cause"] for death in told.deaths}
    assert 12 in {death["killed_by_step"] for death in told.deaths}
    assert told.steps == BATCHES // accumulate == train.state.global_step
    assert told == expected(OPTIMIZERS[name], accumulate)
    assert [d.to_dict() for d in watch.deaths] == told.deaths
    assert [e.to_dict() for e in watch.events] == told.events == watch.report().to_dict()["events"]


def test_evaluation_does_not_count(tmp_path: Path) -> None:
    """Source: section 5.1 of the design: forwards in eval mode or without gradients are not training."""
    watch, net = DeadReLUCallback(window=WINDOW, strict=True), Net()
    trainer(watch, net, tmp_path, eval_strategy="steps", eval_steps=16, eval_on_start=True).train()
    assert net.calls == {"training": BATCHES, "evaluation": 2 * (BATCHES // 16 + 1)}
    told = Told.by(watch.monitor)
    assert told.samples == BATCHES * ROWS
    assert told == expected(MOMENTUM)


def test_steps_that_the_scaler_skips_are_none(tmp_path: Path) -> None:
    """Source: issue of the monitor: skipped steps are not steps. A scale of 2**127 overflows until it was halved."""
    watch, net, applied = DeadReLUCallback(window=WINDOW, strict=True), Net(), []
    train = trainer(watch, net, tmp_path)
    train.optimizer.register_step_post_hook(lambda *_: applied.append(1))
    train.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=10**6)
    train.train()
    assert 0 < len(applied) < BATCHES
    assert watch.monitor.steps == len(applied)


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("at", [0, 25])
def test_an_exception_leaves_no_hooks(at: int, where: str, tmp_path: Path) -> None:
    """Source: issue of the monitor: hooks are gone after exit, also on an exception; what was seen is kept."""
    net = Failing(at, where)
    before = hooks(net)
    with DeadReLUCallback(window=WINDOW, strict=True) as watch:
        train = trainer(watch, net, tmp_path)
        optimizer = train.optimizer
        with pytest.raises(Planted):
            train.train()
        assert watch.monitor.attached  # the Trainer tells nobody
    assert not watch.monitor.attached
    assert hooks(net, optimizer) == before
    assert watch.monitor.steps == at
    assert watch.report().samples == (at + 1) * ROWS


def test_the_next_training_closes_one_that_failed(tmp_path: Path) -> None:
    """Source: as above; a notebook trains again with the same callback."""
    watch, failing = DeadReLUCallback(window=WINDOW, strict=True), Failing(3, "forward")
    train = trainer(watch, failing, tmp_path)
    optimizer = train.optimizer
    with pytest.raises(Planted):
        train.train()
    first = watch.monitor
    trainer(watch, Net(), tmp_path, max_steps=5).train()
    assert hooks(failing, optimizer) == 0
    assert (first.steps, watch.monitor.steps) == (3, 5)


def test_the_end_leaves_no_hooks(tmp_path: Path) -> None:
    """Source: as above, without an exception."""
    watch, net = DeadReLUCallback(window=WINDOW, strict=True), Net()
    train = trainer(watch, net, tmp_path, max_steps=3)
    optimizer = train.optimizer
    train.train()
    assert (hooks(net, optimizer), watch.monitor.attached) == (0, False)


@pytest.mark.parametrize("stop_when", [0.05, lambda monitor: len(monitor.deaths) >= 3])
def test_stop_when_ends_the_training(stop_when: Any, tmp_path: Path) -> None:
    """Source: issue of the monitor: stop_when ends training cleanly; 4 of 40 units are dead by the look at step 40."""
    watch = DeadReLUCallback(window=WINDOW, strict=True, stop_when=stop_when)
    output = trainer(watch, Net(), tmp_path).train()
    assert output.global_step == watch.monitor.steps == 40
    assert len(watch.deaths) >= 3


def test_before_a_training() -> None:
    """Source: section 5.4 of the design: a mistake that the caller can mend says so; options are those of Monitor."""
    watch = DeadReLUCallback()
    assert (watch.monitor, watch.deaths, watch.events) == (None, [], [])
    with pytest.raises(deadrelu.DeadReluError, match="train first"):
        watch.report()
    with pytest.raises(TypeError, match="widnow"):
        DeadReLUCallback(widnow=3)

"""The Lightning callback tells what a plain loop with a Monitor tells, and leaves nothing behind."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import deadrelu

from .runs import BATCHES, OPTIMIZERS, ROWS, WINDOW, Net, Planted, Told, hooks, plain, rows, spiked

pl = pytest.importorskip("lightning.pytorch")
from deadrelu.integrations.lightning import DeadReLUCallback  # noqa: E402

# Lightning advises on workers and on its own future; every warning of ours is still an error.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("error::deadrelu.DeadReluWarning")]
Make = Callable[..., torch.optim.Optimizer]


class Module(pl.LightningModule):
    def __init__(self, make: Make = OPTIMIZERS["momentum"], fail_at: int | None = None) -> None:
        super().__init__()
        self.net, self.make, self.fail_at = Net(), make, fail_at
        self.seen = 0

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        loss = self.net(**batch)["loss"]
        if self.seen == self.fail_at:
            raise Planted
        self.seen += 1
        return loss

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        self.net(**batch)

    def configure_optimizers(self) -> Any:
        optimizer = self.make(self.parameters())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": spiked(optimizer), "interval": "step"}}


class Manual(Module):
    """Manual optimization: the module steps Lightning's wrapper of the optimizer itself."""

    def __init__(self, make: Make) -> None:
        super().__init__(make)
        self.automatic_optimization = False

    def training_step(self, batch: dict[str, Tensor], index: int) -> None:
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        optimizer.zero_grad()
        self.manual_backward(self.net(**batch)["loss"])
        optimizer.step()
        schedule.step()


def trainer(watch: DeadReLUCallback, folder: Path, **options: Any) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    options = {"max_epochs": 1, "enable_checkpointing": False, **quiet, **options}
    return pl.Trainer(callbacks=[watch], default_root_dir=folder, **options)


def loader() -> DataLoader[Any]:
    return DataLoader(rows(), batch_size=ROWS)


@functools.cache
def expected(make: Make, accumulate: int = 1, kind: type[Module] = Module) -> Told:
    module = kind(make)
    return plain(module, module.net, make, accumulate)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_equal_to_a_plain_loop(name: str, accumulate: int, tmp_path: Path) -> None:
    """Source: issue of the monitor: same model, seed and data give equal deaths, dates and causes; to the last bit."""
    watch = DeadReLUCallback(window=WINDOW, strict=True)
    fit = trainer(watch, tmp_path, accumulate_grad_batches=accumulate)
    fit.fit(Module(OPTIMIZERS[name]), loader())
    told = Told.by(watch.monitor)
    assert {"born_dead", "learning_rate"} <= {death["cause"] for death in told.deaths}
    assert 12 in {death["killed_by_step"] for death in told.deaths}
    assert told.steps == BATCHES // accumulate == fit.global_step
    assert told == expected(OPTIMIZERS[name], accumulate)
    assert [d.to_dict() for d in watch.deaths] == told.deaths
    assert [e.to_dict() for e in watch.events] == told.events == watch.report().to_dict()["events"]


def test_manual_optimization(tmp_path: Path) -> None:
    """Source: as above; the step that counts is that of the torch optimizer inside of LightningOptimizer."""
    watch = DeadReLUCallback(window=WINDOW, strict=True)
    trainer(watch, tmp_path).fit(Manual(OPTIMIZERS["momentum"]), loader())
    assert Told.by(watch.monitor) == expected(OPTIMIZERS["momentum"], kind=Manual)


@pytest.mark.parametrize("count_eval", [False, True])
def test_validation_does_not_count(count_eval: bool, tmp_path: Path) -> None:
    """Source: section 5.1 of the design; with count_eval validation counts because it was asked for, sanity never."""
    watch = DeadReLUCallback(window=WINDOW, strict=True, count_eval=count_eval)
    module = Module()
    fit = trainer(watch, tmp_path, val_check_interval=16, limit_val_batches=2, num_sanity_val_steps=2)
    fit.fit(module, loader(), loader())
    assert module.net.calls == {"training": BATCHES, "evaluation": 2 * (BATCHES // 16) + 2}
    told = Told.by(watch.monitor)
    assert told.steps == BATCHES
    assert told.samples == (BATCHES + (2 * (BATCHES // 16) if count_eval else 0)) * ROWS
    if not count_eval:
        assert told == expected(OPTIMIZERS["momentum"])


def test_steps_that_the_scaler_skips_are_none(tmp_path: Path) -> None:
    """Source: issue of the monitor: skipped steps are not steps. A scale of 2**30 overflows until it was halved."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, growth_interval=10**6)
    plugin = pl.plugins.MixedPrecision("16-mixed", "cpu", scaler)
    applied = []
    watch = DeadReLUCallback(window=WINDOW, strict=True)
    module = Module()

    class Count(pl.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            trainer.optimizers[0].register_step_post_hook(lambda *_: applied.append(1))

    fit = pl.Trainer(
        callbacks=[watch, Count()], plugins=[plugin], accelerator="cpu", max_epochs=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    fit.fit(module, loader())
    assert 0 < len(applied) < BATCHES
    assert watch.monitor.steps == len(applied)


@pytest.mark.parametrize("fail_at", [0, 25])
def test_an_exception_leaves_no_hooks(fail_at: int, tmp_path: Path) -> None:
    """Source: issue of the monitor: hooks are gone after exit, also on an exception; what was seen is kept."""
    watch = DeadReLUCallback(window=WINDOW, strict=True)
    module = Module(fail_at=fail_at)
    before = hooks(module)
    fit = trainer(watch, tmp_path)
    with pytest.raises(Planted):
        fit.fit(module, loader())
    assert not watch.monitor.attached
    assert hooks(module, *fit.optimizers) == before
    assert watch.monitor.steps == fail_at
    assert watch.report().samples == (fail_at + 1) * ROWS


def test_the_end_leaves_no_hooks(tmp_path: Path) -> None:
    """Source: as above, without an exception."""
    watch = DeadReLUCallback(window=WINDOW, strict=True)
    module = Module()
    fit = trainer(watch, tmp_path, max_steps=3)
    fit.fit(module, loader())
    assert (hooks(module, *fit.optimizers), watch.monitor.attached) == (0, False)


@pytest.mark.parametrize("stop_when", [0.05, lambda monitor: len(monitor.deaths) >= 3])
def test_stop_when_ends_the_fit(stop_when: Any, tmp_path: Path) -> None:
    """Source: issue of the monitor: stop_when ends training cleanly; 4 of 40 units are dead by the look at step 40."""
    watch = DeadReLUCallback(window=WINDOW, strict=True, stop_when=stop_when)
    fit = trainer(watch, tmp_path)
    fit.fit(Module(), loader())
    assert fit.state.finished
    assert fit.global_step == watch.monitor.steps == 40
    assert len(watch.deaths) >= 3


def test_a_resumed_fit_continues_its_record(tmp_path: Path) -> None:
    """Source: issue of the monitor: a resumed run continues its record. The checkpoint falls into a silence."""
    first, second = (DeadReLUCallback(window=WINDOW, strict=True) for _ in range(2))
    parts = [DataLoader(half, batch_size=ROWS) for half in (rows()[: 20 * ROWS], rows()[20 * ROWS :])]
    begun = trainer(first, tmp_path)
    begun.fit(Module(), parts[0])
    assert not first.deaths
    begun.save_checkpoint(tmp_path / "part.ckpt")
    resumed = trainer(second, tmp_path, max_epochs=2)
    resumed.fit(Module(), parts[1], ckpt_path=tmp_path / "part.ckpt", weights_only=True)
    keys = ("unit", "last_fired", "killed_by_step", "confirmed", "revived", "born_dead")
    by_hand = expected(OPTIMIZERS["momentum"])
    assert [[d[k] for k in keys] for d in Told.by(second.monitor).deaths] == [
        [d[k] for k in keys] for d in by_hand.deaths
    ]
    assert second.monitor.steps == BATCHES


def test_a_second_fit_is_a_record_of_its_own(tmp_path: Path) -> None:
    """Source: section 5.1 of the design: a monitor attaches at the start of a training, here twice."""
    watch = DeadReLUCallback(window=WINDOW, strict=True)
    trainer(watch, tmp_path, max_steps=3).fit(Module(), loader())
    first = watch.monitor
    trainer(watch, tmp_path, max_steps=5).fit(Module(), loader())
    assert (first.steps, watch.monitor.steps) == (3, 5)


def test_before_a_fit() -> None:
    """Source: section 5.4 of the design: a mistake that the caller can mend says so; options are those of Monitor."""
    watch = DeadReLUCallback()
    assert (watch.monitor, watch.deaths, watch.events, watch.state_dict()) == (None, [], [], {})
    with pytest.raises(deadrelu.DeadReluError, match="train first"):
        watch.report()
    with pytest.raises(TypeError, match="widnow"):
        DeadReLUCallback(widnow=3)

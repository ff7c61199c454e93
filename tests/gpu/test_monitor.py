"""Monitor on a GPU: it finds what it finds on the CPU, waits for nothing, and keeps O(units)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import deadrelu
from deadrelu.record.reader import read_run
from deadrelu.stepper import LAG

from .conftest import Gpu
from .trainings import KILLED, NETS, Training, close_to

STEPS = 160
every_net = pytest.mark.parametrize("net", NETS)


def cuda(net: str, **settings: Any) -> Training:
    return Training(net, "cuda", options={}, **settings)


@every_net
def test_the_same_is_found_as_on_the_cpu(gpu: Gpu, net: str) -> None:
    """Deaths, dates, causes and counts; the edited unit among them."""
    found, expected = cuda(net, lr=1e-3), Training(net, "cpu", options={}, lr=1e-3)
    for training in (found, expected):
        training.run(STEPS)
    close_to(found, expected, 5e-3)
    assert any(d.last_fired == KILLED and d.unit == 1 for d in found.monitor.deaths)


@every_net
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=str)
def test_nothing_waits_for_the_device(gpu: Gpu, net: str, dtype: torch.dtype | None) -> None:
    """Past step 20: ordinary steps, captured steps and the ends of windows."""
    training = cuda(net, dtype=dtype, lr=1e-3)
    if dtype == torch.float16 and gpu.device is None:  # there GradScaler itself waits in each step
        pytest.skip("the training waits by itself")
    steps = 62 if dtype else 115  # past a window, or two
    training.run(steps, gpu.silent)
    assert training.monitor.report().samples == steps * 64
    assert training.monitor.attached


def test_nothing_waits_for_a_batch_of_another_size(gpu: Gpu) -> None:
    """The places of its reference rows are worked out on the host, and sent."""
    training = cuda("cnn", lr=1e-3)
    training.run(25)
    for size in (63, 40, 17):
        training.x, training.y = training.x[:, :size], training.y[:, :size]
        training.run(30, gpu.silent)


def test_a_step_that_the_scaler_skips_is_none(gpu: Gpu) -> None:
    """Its update did not come: the forward passes until the next one are one step."""
    training, updates = cuda("mlp", dtype=torch.float16, lr=1e-3), []
    training.optimizer.register_step_post_hook(lambda *_: updates.append(None))
    training.x[5] = torch.inf
    training.run(40)
    assert training.monitor.steps == len(updates) < 40
    assert training.monitor.report().samples == 40 * 64


def test_windows_are_looked_at_while_the_training_goes_on(gpu: Gpu) -> None:
    """A fixed number of steps after their end, so that what is found does not depend on who is faster."""
    training = cuda("mlp")
    training.run(50)
    assert training.monitor.dead_fraction is None
    training.run(LAG - 1)
    assert training.monitor.dead_fraction is None
    training.run(1)
    assert training.monitor.dead_fraction is not None


def test_whoever_asks_before_is_told(gpu: Gpu) -> None:
    """A report, and the end of the run, wait for what is under way."""
    asked, closed = cuda("mlp"), cuda("mlp")
    asked.run(52)
    assert asked.monitor.report().samples == 52 * 64
    assert asked.monitor.dead_fraction is not None
    closed.run(52)
    closed.monitor.close()
    assert closed.monitor.dead_fraction is not None


def test_a_site_that_joins_while_a_window_is_under_way(gpu: Gpu) -> None:
    """What is on its way knows nothing of it: it is looked at first."""
    training = cuda("mlp")
    training.run(52)
    training.model.append(torch.nn.ReLU().to("cuda"))
    training.run(60)
    assert [site.site for site in training.monitor.report().sites] == ["1", "3", "5"]


@pytest.mark.parametrize("window", [2, 3, 7])
def test_short_windows(gpu: Gpu, window: int) -> None:
    found = Training("mlp", "cuda", options={"window": window})
    expected = Training("mlp", "cpu", options={"window": window})
    for training in (found, expected):
        training.run(100)
    assert found.told()[0] == expected.told()[0]


def test_not_a_number(gpu: Gpu) -> None:
    """NaN in a sample is seen when a window is looked at; from then on the others are told of, which are silent."""
    training = Training("mlp", "cuda", options={})
    training.model[0].bias.data[2] = -100.0
    training.x[:, 5] = torch.nan
    training.x = training.x.repeat(1, 8, 1)  # so many samples that eight steps of silence would be a death
    for step in range(STEPS):
        training.model(training.x[step % 16])
        training.optimizer.step()  # without gradients: the weights stay
    (death,) = [d for d in training.monitor.deaths if d.site == "1"]
    assert (death.unit, death.born_dead) == (2, True)
    assert death.confirmed < 50 + LAG + 50
    assert [d.unit for d in training.monitor.deaths if not d.born_dead] == []


def test_what_would_have_spared_the_units(gpu: Gpu) -> None:
    """A spike is replayed on the device, and the same rate is found."""
    found = []
    for device in ("cuda", "cpu"):
        training = Training("mlp", device, options={}, lr=1e-2)
        training.edited = ()
        training.run(40)
        training.optimizer.param_groups[0]["lr"] = 3000.0
        training.run(1)
        training.optimizer.param_groups[0]["lr"] = 1e-2
        training.run(90)
        found.append([(d.site, d.unit, d.cause, d.safe_lr) for d in training.monitor.deaths if d.last_fired == 40])
    assert len(found[0]) > 3
    assert [d[:3] for d in found[0]] == [d[:3] for d in found[1]]
    for (*_, one), (*_, other) in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=0.1)


def test_a_record(gpu: Gpu, tmp_path: Path) -> None:
    """It is written, and tells what the monitor does."""
    training = Training("mlp", "cuda", options={"log_dir": tmp_path}, lr=1e-3)
    training.run(120, gpu.silent)
    training.monitor.close()
    report = read_run(tmp_path).report
    assert report is not None
    assert report.samples == 120 * 64


def test_a_bound_on_the_overhead(gpu: Gpu) -> None:
    """Events tell the device's time, read without a wait."""
    training = Training("mlp", "cuda", options={"max_overhead": 1e-4}, lr=1e-3)
    training.run(400, gpu.silent)
    assert training.monitor.attached
    assert training.monitor.resolution > 1


def test_nothing_is_kept_but_a_number_per_unit_and_step(gpu: Gpu) -> None:
    """Between steps: the ring, the counters, the reference rows; nothing that grows with the activations."""
    held = []
    for options in (None, {"snapshot_memory": 0}):
        training = Training("cnn", "cuda", options=options, lr=1e-3)
        training.run(62)
        held.append(gpu.held())
        units = 8 + 12 + 16
        del training
    rows, ring, counters = 64 * (8 * 3 * 9 + 12 * 8 * 9 + 16 * 12) * 4, 50 * units * 4, 6 * units * 8
    assert held[1] - held[0] < 3 * (rows + ring + counters)


def test_a_batch_twice_as_large_takes_no_more(gpu: Gpu) -> None:
    """What is kept does not grow with the batch."""
    kept = []
    for times in (1, 4):
        with_and_without = []
        for options in (None, {"snapshot_memory": 0}):
            training = Training("cnn", "cuda", options=options, lr=1e-3)
            training.x, training.y = training.x.repeat(1, times, 1, 1, 1), training.y.repeat(1, times)
            training.run(25)
            with_and_without.append(gpu.held())
            del training
        kept.append(with_and_without[1] - with_and_without[0])
    assert abs(kept[1] - kept[0]) < 16_384  # the places of the reference rows in it


def test_an_ordinary_step_takes_no_memory(gpu: Gpu) -> None:
    """At its peak it holds what the plain step holds, in which one activation alone has 40 KB."""
    peaks = []
    for options in (None, {"snapshot_memory": 0}):
        training = Training("cnn", "cuda", options=options, lr=1e-3)
        training.x, training.y = training.x.repeat(1, 4, 1, 1, 1), training.y.repeat(1, 4)
        training.run(62)
        peaks.append(sorted(gpu.peak(training.step) for _ in range(30))[15])
    assert abs(peaks[1] - peaks[0]) < 4096


def test_an_audit(gpu: Gpu) -> None:
    """It runs where the model is, and finds what it finds on the CPU."""
    found = []
    for device in ("cuda", "cpu"):
        training = Training("cnn", device)
        found.append(deadrelu.audit(training.model, training.x.flatten(0, 1)))
    for one, other in zip(found[0].sites, found[1].sites, strict=True):
        assert one.dead.tolist() == other.dead.tolist()
        torch.testing.assert_close(torch.as_tensor(one.max_z), torch.as_tensor(other.max_z), rtol=1e-3, atol=1e-3)


def test_an_audit_moves_data_and_model(gpu: Gpu) -> None:
    """From the host to the device and back."""
    training = Training("mlp", "cpu")
    report = deadrelu.audit(
        training.model, training.x.flatten(0, 1), device="cuda", loss=lambda out, _: out.square().mean()
    )
    assert next(training.model.parameters()).device.type == "cpu"
    assert report["1"].grad_flow is not None


def captured(training: Training, gpu: Gpu, *, update: bool) -> None:
    """Capture a step."""
    with gpu.capture():
        loss = training.forward()
        training.optimizer.zero_grad()
        loss.backward()
        if update:
            training.optimizer.step()


@pytest.mark.parametrize("part", ["forward and backward", "whole step", "rest of a step"])
def test_a_step_that_becomes_a_graph_is_told_of(gpu: Gpu, part: str) -> None:
    """Nothing of ours is done while it is captured, for that would end the training, and the remedy is named."""
    if gpu.device is None:
        pytest.skip("a real capture is in test_graphs.py")
    training = cuda("mlp", lr=1e-3)
    training.run(45)
    if part == "rest of a step":
        training.forward()
        with torch.no_grad():
            training.model[0].bias.add_(0)  # so that the parameters before the update are others than after the last
    launched = gpu.device.own
    with pytest.warns(deadrelu.DeadReluWarning, match="reduce-overhead"):
        captured(training, gpu, update=part != "forward and backward")
    assert gpu.device.own == launched
    assert training.monitor.attached
    assert training.monitor.steps == 45
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.run(60)
    assert training.monitor.steps == 105


def test_what_is_captured_with_a_bound_on_the_overhead(gpu: Gpu) -> None:
    """Events that tell the time are no part of a graph."""
    if gpu.device is None:
        pytest.skip("a real capture is in test_graphs.py")
    training = Training("mlp", "cuda", options={"max_overhead": 0.02}, lr=1e-3)
    training.run(60)
    with pytest.warns(deadrelu.DeadReluWarning), gpu.capture():
        training.forward()
    assert training.monitor.attached

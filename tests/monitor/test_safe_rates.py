"""safe_lr: an oracle of plain torch does the killing update again at other rates; the unit lives or dies as told."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deadrelu
from deadrelu.replays import ReplayError, copied, safe_fractions
from deadrelu.snapshots import Snapshots

from .stage import digits

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.05),
    "rprop": lambda p: torch.optim.Rprop(p, lr=1e-3),
}


class Small(nn.Module):
    """Two hidden layers; `norm` puts BatchNorm before the rectifiers."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.fc1, self.fc2, self.out = nn.Linear(64, 48), nn.Linear(48, 32), nn.Linear(32, 10)
        self.n1, self.n2 = (nn.BatchNorm1d(48), nn.BatchNorm1d(32)) if norm else (nn.Identity(), nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.n2(self.fc2(F.relu(self.n1(self.fc1(x)))))))

    def fires(self, x: Tensor) -> dict[str, Tensor]:
        """Which units fire on x, by hand."""
        z1 = self.n1(self.fc1(x))
        z2 = self.n2(self.fc2(z1.relu()))
        return {"relu()": (z1 > 0).any(0), "relu()#1": (z2 > 0).any(0)}


def spike(name: str, norm: bool, factor: float, at: int = 30) -> tuple[Any, Callable[[float], dict[str, Tensor]]]:
    """Train with one update at `factor` times the rate; return the monitor, and what fires with it at a rate."""
    torch.manual_seed(3)
    data, labels = digits()
    data = 1 + 0.3 * data  # what all inputs have in common lets a step throw a unit
    model = Small(norm)
    optimizer = OPTIMIZERS[name](model.parameters())
    usual = optimizer.param_groups[0]["lr"]
    kept: list[Any] = []
    batches: list[Tensor] = []
    with deadrelu.Monitor(model, optimizer, strict=True, window=10) as monitor:
        for step in range(at + 100):
            rows = torch.randint(len(data), (64,), generator=torch.Generator().manual_seed(step))
            batches.append(data[rows])
            optimizer.zero_grad()
            F.cross_entropy(model(data[rows]), labels[rows]).backward()
            # Hardly any learning after it, so that who fell silent stays so.
            optimizer.param_groups[0]["lr"] = usual * (1 if step < at else factor if step == at else 1e-4)
            if step == at:
                with torch.no_grad():
                    state = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
                kept += [*state, [p.grad.clone() for p in model.parameters() if p.grad is not None]]
            optimizer.step()

    def fires(rate: float) -> dict[str, Tensor]:
        again = Small(norm)
        again.load_state_dict(kept[1])
        other = OPTIMIZERS[name](again.parameters())
        other.load_state_dict(copy.deepcopy(kept[0]))
        for parameter, gradient in zip(again.parameters(), kept[2], strict=True):
            parameter.grad = gradient.clone()
        other.param_groups[0]["lr"] = rate
        other.step()
        with torch.no_grad():
            seen = [again.fires(x) for x in batches[at : at + 2]]
        return {site: seen[0][site] | seen[1][site] for site in seen[0]}

    return monitor, fires


@pytest.mark.parametrize(
    ("name", "norm", "factor"),
    [
        ("sgd", False, 400),
        ("momentum", False, 300),
        ("adam", False, 30),
        ("adamw", False, 30),
        ("rmsprop", False, 200),
    ],
)
def test_alive_below_and_silent_above(name: str, norm: bool, factor: float) -> None:
    """Alive at 0.9 of `safe_lr` and silent at 1.1 of it, for 90 % of the deaths that have one (DESIGN 6.4)."""
    monitor, fires = spike(name, norm, factor)
    deaths = [d for d in monitor.deaths if d.killed_by_step == 30 and d.cause == "learning_rate"]
    told = [d for d in deaths if d.safe_lr is not None]
    assert len(deaths) >= 5
    assert len(told) >= 0.8 * len(deaths)
    good = sum(
        bool(fires(0.9 * d.safe_lr)[d.site][d.unit]) and not fires(1.1 * d.safe_lr)[d.site][d.unit] for d in told
    )
    assert good >= 0.9 * len(told)
    assert all(d.cause_evidence == "intervention" and d.safe_lr < d.lr for d in told)


@pytest.mark.parametrize(("name", "factor"), [("adafactor", 3000.0), ("asgd", 400.0), ("rprop", 1.0)])
def test_a_rate_that_does_not_scale_the_update_is_not_searched(name: str, factor: float) -> None:
    """Adafactor bounds the rate, ASGD takes that of the update before, Rprop looks at it once, in the beginning."""
    monitor, _ = spike(name, False, factor)
    deaths = [d for d in monitor.deaths if not d.born_dead]
    assert deaths
    assert {(d.safe_lr, d.cause_evidence) for d in deaths} == {(None, "trajectory")}


def test_the_event_says_what_would_have_saved_them() -> None:
    """`saved` of an event counts the units that its own `safe_lr` spares, and the remedy says both."""
    monitor, fires = spike("sgd", False, 400)
    events = [e for e in monitor.events if e.cause == "learning_rate" and e.safe_lr is not None]
    assert events
    for event in events:
        alive = fires(event.safe_lr)[event.site]
        spared = sum(bool(alive[unit]) for unit in event.units)
        assert abs(spared - event.saved) <= max(1, 0.1 * len(event.units))
        assert f"lr <= {event.safe_lr:.2g}" in event.remedy
        assert f"{event.saved} of " in event.remedy


def test_fractions_against_a_fine_scan() -> None:
    """The search finds, for units with thresholds of every size, what a scan of 20,000 fractions finds."""
    rng = np.random.default_rng(0)
    thresholds = np.exp(rng.uniform(np.log(1e-3), 0, 12))
    asked: list[float] = []

    def alive(fraction: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
        asked.append(fraction)
        return fraction < thresholds

    found = safe_fractions(alive, trials=200)
    grid = np.linspace(0, 1, 20_001)[1:]
    scanned = np.array([grid[grid < t].max() for t in thresholds])
    np.testing.assert_allclose(found, scanned, rtol=0.06)
    assert len(asked) <= 200


def test_fractions_of_units_that_the_update_does_not_kill() -> None:
    """Silent before it, or alive after it: there is no such rate. Below the smallest fraction: not known."""
    cases = safe_fractions(lambda c: np.array([False, True, c < 1e-9, c < 0.5]))
    assert np.isnan(cases[:3]).all()
    assert 0.45 < cases[3] < 0.55


def test_few_trials_leave_the_rest_open() -> None:
    """What was not pinned down within the trials has no rate: a bracket is no answer."""
    thresholds = np.geomspace(1e-3, 0.9, 40)
    found = safe_fractions(lambda c: c < thresholds, trials=20)
    assert np.isnan(found).any()
    known = np.isfinite(found)
    np.testing.assert_allclose(found[known], thresholds[known], rtol=0.06)


class Counting(nn.Module):
    """Counts its calls, draws from every generator, and keeps what it saw in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.drop = nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.3)
        self.head = nn.Linear(32, 10)
        self.calls = 0
        self.log: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.log.append(len(x))
        noise = random.random() + np.random.rand() + torch.rand(()).item()
        return self.head(self.drop(self.norm(F.relu(self.fc(x)))) * (1 + 1e-3 * noise))


@pytest.mark.parametrize("watched", [True])
def test_replays_leave_the_training_as_it_is(watched: bool) -> None:
    """Weights, running statistics, counters, lists and every generator are those of the run without a monitor."""

    def run(watch: bool) -> tuple[Any, ...]:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        data, labels = digits()
        data = 1 + 0.3 * data
        model = Counting()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        monitor = deadrelu.Monitor(model, optimizer, strict=True, window=10) if watch else None
        for step in range(120):
            optimizer.zero_grad()
            F.cross_entropy(model(data[:64]), labels[:64]).backward()
            optimizer.param_groups[0]["lr"] = 50.0 if step == 20 else 0.05 if step < 20 else 1e-5
            optimizer.step()
        state = [t.clone() for t in model.state_dict().values()]
        beside = model.calls, model.log, random.random(), float(np.random.rand()), float(torch.rand(()))
        if monitor is not None:
            monitor.close()
            told = [d for d in monitor.deaths if d.safe_lr is not None]
            assert told, "a replay took place"
        return state, beside

    (weights, beside), (plain, aside) = run(watched), run(False)
    assert beside == aside
    assert all(torch.equal(a, b) for a, b in zip(weights, plain, strict=True))


def test_a_copy_shares_nothing_that_training_moves() -> None:
    """Tied parameters stay tied; parameters, buffers, lists and hooks are its own; what is foreign stays shared."""
    model = Counting()
    model.tied = nn.Linear(64, 32)
    model.tied.weight = model.fc.weight
    model.trainer = object()
    with deadrelu.Monitor(model):
        twin = copied(model)
    assert twin.tied.weight is twin.fc.weight
    assert twin.fc.weight is not model.fc.weight
    assert torch.equal(twin.fc.weight, model.fc.weight)
    assert twin.norm.running_mean is not model.norm.running_mean
    assert twin.log is not model.log
    assert twin.trainer is model.trainer
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in twin.modules())
    assert twin.training == model.training


def test_hooks_of_others_and_bound_code_refuse_a_replay() -> None:
    """They would run, and they are not ours to run."""
    hooked, bound, held = Counting(), Counting(), Counting()
    hooked.fc.register_forward_hook(lambda *_: None)
    bound.forward = bound.forward
    held.parts = [held.fc]
    for model in (hooked, bound, held):
        with pytest.raises(ReplayError):
            copied(model)


def test_memory_is_bounded() -> None:
    """The bytes that are held stay under the bound, whatever is asked to be kept; a model that is too large is not."""
    model = nn.Linear(100, 100)
    bound = 10 * 100 * 101 * 4
    snapshots = Snapshots(model, {}, bound)
    for step in range(60):
        snapshots.begin_forward(model, (torch.randn(8, 100),), {}, True)
        snapshots.before_update(step, {(0, 0): 0.1}, True)
        if step % 3 == 0:  # edited outside of the optimizer: nothing can be shared
            model.weight.data.add_(1)
            model.weight.data = model.weight.data
        with torch.no_grad():
            model.weight.mul_(0.9)
        snapshots.after_update()
        snapshots.want({0, step})
        held = {id(t): t for u in snapshots.updates.values() for t in (*u.before, *u.after)}
        inputs = {id(b): b for u in snapshots.updates.values() for b in u.batches}
        total = sum(t.nbytes for t in held.values()) + sum(b.args[0].nbytes for b in inputs.values())
        assert total <= bound
    assert len(snapshots.updates) >= 2
    assert Snapshots(model, {}, 1000).refused is not None


def test_no_snapshots_no_rate() -> None:
    """With `snapshot_memory=0`, and where only every other step is seen, `safe_lr` is unknown, not wrong."""
    data, labels = digits()
    for options in ({"snapshot_memory": 0}, {"every": 2}):
        torch.manual_seed(3)
        model = Small(False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with deadrelu.Monitor(model, optimizer, strict=True, window=10, **options) as monitor:
            for step in range(130):
                optimizer.zero_grad()
                F.cross_entropy(model(data[:64]), labels[:64]).backward()
                optimizer.param_groups[0]["lr"] = 20.0 if step == 30 else 0.05
                optimizer.step()
        assert monitor.deaths
        assert all(d.safe_lr is None and d.cause_evidence == "trajectory" for d in monitor.deaths)

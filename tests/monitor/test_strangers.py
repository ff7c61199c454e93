"""Training scripts of strangers: every death is dated as the brute-force diary has it, and the training is untouched.

Ground truth: the diary (brute.py), from DESIGN 2, 5.1, 5.2 and 6.3; and the same script without a Monitor, bit for bit.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import deadrelu

from .strangers import architectures, changes, loops
from .strangers.sets import DEATHS, MLP, STEPS, Script, Set, error, mlp, plain, planted, play, sgd

SCRIPTS = (*architectures.SCRIPTS, *loops.SCRIPTS, *changes.SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_script(script: Script) -> None:
    """Nothing is missed, nothing invented, and what was planted is there."""
    lives, on = play(script)
    assert lives
    for site, deaths in (dict.fromkeys(on.plants, DEATHS) if on.expected is None else on.expected).items():
        assert planted(lives, site) >= deaths, site


@pytest.mark.parametrize("way", ["numbers", "mask", "selected", "order"])
def test_experts_that_get_a_part_of_the_batch(way: str) -> None:
    """What a router sends to an expert are samples, as many as there are rows."""
    lives, on = play(partial(architectures.routed, way=way))
    assert {(x.site, x.last_fired) for x in lives if x.unit == 1} == {(site, 5) for site in on.plants}
    report = on.monitor.report()
    assert report.coverage.batch_lost == ()
    assert sum(report[site].samples for site in on.plants) == report.samples


class Chunks(nn.Module):
    """A batch that is taken in parts, by a module that sees the second of them in some steps only."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act, self.out, self.both = nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 2), False

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.split([200, 100])
        out = self.out(self.act(self.fc(first)))
        return torch.cat((out, self.out(self.act(self.fc(second))))) if self.both else out


def test_parts_of_a_batch_that_are_seen_now_and_then() -> None:
    """Samples add up, in steps that run as traced as in others."""
    torch.manual_seed(0)
    model = Chunks()
    optimizer = sgd(model)
    seen = 0
    with deadrelu.Monitor(model, optimizer, window=8, strict=True) as monitor:
        for step in range(60):
            model.both = step % 2 == 0
            seen += 300 if model.both else 200
            optimizer.zero_grad()
            error(model(torch.randn(300, 6))).backward()
            optimizer.step()
    assert monitor.report()["act"].samples == seen


class Pairs(nn.Module):
    """Rows that come more than once, as the nodes of a graph do at each of their edges."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act, self.out = nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.arange(len(x)) % (len(x) // 2)
        return self.out(self.act(self.fc(x[rows])))


def test_rows_that_come_twice() -> None:
    """They are samples no more: a call counts as one, coverage says so, and no death comes early."""
    torch.manual_seed(0)
    on, model = Set(True), Pairs()
    optimizer = sgd(model)
    on.watch(model, optimizer, {})
    with torch.no_grad():
        model.fc.bias[1] = -1e3
    plain(on, model, optimizer, 6)
    on.monitor.close()
    report = on.monitor.report()
    assert report.coverage.batch_lost == ("act",)
    assert on.monitor.deaths == []
    assert bool(report["act"].undecided[1])
    assert report["act"].samples <= STEPS


@pytest.mark.parametrize("what", ["losses", "weights"])
def test_the_comparison_of_trainings_can_fail(what: str) -> None:
    """A monitor that touches the training is found out."""

    def script(on: Set) -> None:
        model = mlp()
        optimizer = sgd(model)
        on.watch(model, optimizer, MLP)
        for _, x in zip(range(3), on.batches(6), strict=False):
            with on.forward():
                loss = error(model(x)) + (1e-9 if on.on and what == "losses" else 0)
            loss.backward()
            optimizer.step()
            on.update(loss)
        if on.on and what == "weights":
            model[0].weight.data[0, 0] += 1e-6

    with pytest.raises(AssertionError, match="the training differs"):
        play(script)

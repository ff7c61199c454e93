"""Every death is dated to the update, in models that replay, freeze, change or are changed in the middle of a run.

Ground truth: the brute-force diary (brute.py), from DESIGN 2, 5.1, 5.2, 6.1 and 8.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .brute import Ear, compare
from .course import CNN, MLP, ROWS, STEPS, batches, check, edit
from .plays import Play


class Checkpointed(nn.Module):
    """The middle block runs again in backward."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem, self.act = nn.Linear(8, 8), nn.ReLU()
        self.block = nn.Sequential(nn.Linear(8, 12), nn.ReLU(inplace=True), nn.Linear(12, 9), nn.Dropout(0.1))
        self.out = nn.Linear(9, 3)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        x = checkpoint(self.block, x, use_reentrant=self.reentrant)
        return self.out(torch.relu(x))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_counts_once(reentrant: bool) -> None:
    """A replay inside backward is not a training forward (DESIGN 5.1, 8)."""
    torch.manual_seed(0)
    model, data = Checkpointed(reentrant), batches()
    with torch.no_grad():
        for layer in (model.stem, model.block[0], model.block[2]):
            layer.bias.abs_().add_(0.7)
    play = Play(model, {"act": Ear("stem"), "block.1": Ear("block.0"), "relu()": Ear("block.3")})
    with play.watched(window=8) as monitor:
        for step in range(STEPS):
            play.step(next(data))
            edit(model, step, "block.0.bias")
            edit(model, step, "stem.bias")
    check(monitor, play.diary, "block.1")
    check(monitor, play.diary, "act")
    assert [site.samples for site in monitor.report()] == [STEPS * ROWS] * 3


def test_frozen_layers() -> None:
    """A layer that does not train has units that die when its inputs change, too."""
    model, data = MLP.model(), batches()
    for p in model[0].parameters():
        p.requires_grad_(False)
    play = Play(model, MLP.ears, lambda p: torch.optim.AdamW([q for q in p if q.requires_grad], lr=1e-3))
    with play.watched(window=8) as monitor:
        for step in range(STEPS):
            play.step(next(data))
            edit(model, step)
    check(monitor, play.diary)


def test_parts_thaw_and_change_mode() -> None:
    """A frozen BatchNorm in eval mode, and layers that thaw in the middle of the run."""
    model, data = CNN.model(), batches(CNN)
    for p in model.conv1.parameters():
        p.requires_grad_(False)
    play = Play(model, CNN.ears)
    with play.watched(window=8) as monitor:
        for step in range(STEPS):
            model.bn2.train(step % 2 == 0)
            if step == 20:
                for p in model.conv1.parameters():
                    p.requires_grad_(True)
            play.step(next(data))
            edit(model, step, "bn1.bias")
    check(monitor, play.diary, "relu")


class Late(nn.Module):
    """A branch that opens after a while, and a module that is replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.act = nn.ReLU()
        self.open = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.a(x))
        if self.open:
            x = torch.relu(self.b(x))
        return self.out(x)


def test_a_site_that_appears_later() -> None:
    """Discovery repeats when an unknown call appears (DESIGN 6.1): within a window, before which nothing is seen."""
    torch.manual_seed(0)
    model, data = Late(), batches()
    with torch.no_grad():
        for layer in (model.a, model.b):
            layer.bias.abs_().add_(0.7)
        model.b.bias[4] = -1e3
    play = Play(model, {"act": Ear("a"), "relu()": Ear("b")})
    with play.watched(window=8) as monitor:
        for step in range(60):
            model.open = step >= 12 and step % 5 != 0
            play.step(next(data))
            edit(model, step, "a.bias")
            edit(model, step - 20, "b.bias")
    late = {d.unit: d for d in monitor.deaths if d.site == "relu()"}
    assert (late[1].last_fired, late[2].last_fired) == (24, 28)
    assert late[4].born_dead
    assert 23 <= late[4].confirmed <= 23 + 8  # silent from step 12 on, found a window later at most
    monitor.deaths[:] = [d for d in monitor.deaths if d.site == "act"]
    play.diary.ears.pop("relu()")
    check(monitor, play.diary, "act")


def test_a_module_is_replaced() -> None:
    """A new activation module in the place of the old one, of the same name, goes on with the record."""
    model, data = MLP.model(), batches()
    play = Play(model, MLP.ears)
    with play.watched(window=8) as monitor:
        for step in range(STEPS):
            if step == 11:
                model[1] = nn.ReLU(inplace=True)
            play.step(next(data))
            edit(model, step)
    check(monitor, play.diary)


def test_a_lonely_last_batch() -> None:
    """One row, then a full batch again: shapes change, sites do not."""
    play = Play(CNN.model(), CNN.ears)
    generator = torch.Generator().manual_seed(1)
    with play.watched(window=8) as monitor:
        for step in range(STEPS):
            play.step(CNN.batch(300 if step % 4 else 2, generator))
            edit(play.model, step, "bn1.bias")
    lives = compare(monitor, play.diary)
    assert {(x.unit, x.last_fired) for x in lives if x.site == "relu" and x.steady} == {(1, 5), (2, 8)}

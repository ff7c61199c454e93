"""Every death is dated to the update, in training loops of every shape.

Ground truth: the brute-force diary (brute.py), from DESIGN 2, 5.1, 5.2 and 8: which forwards count, and what a step is.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import deadrelu

from .brute import Ear, compare
from .course import CNN, MLP, ROWS, STEPS, batches, check, edit
from .plays import OPTIMIZERS, Play, error, put
from .subjects import MLP_EARS, Subject, mlp


def test_gradient_accumulation() -> None:
    """Several forwards and one update are one step; its micro-batches are one batch (DESIGN 2, 4, 5.2)."""
    play, data = Play(MLP.model(), MLP.ears), batches(rows=100)
    with play.watched(window=8) as monitor:
        for step in range(STEPS):
            play.step(next(data), next(data), next(data))
            edit(play.model, step)
    check(monitor, play.diary)
    assert monitor.report().samples == STEPS * ROWS


def test_a_death_between_micro_batches() -> None:
    """It fires in the first micro-batch of step 5 and never again: last fired in step 5."""
    play, data = Play(MLP.model(), MLP.ears), batches(rows=150)
    with play.watched(window=8) as monitor:
        for step in range(STEPS):
            play.forward(next(data)).backward()
            if step == 5:
                put(play.model, "0.bias", 1, -1e3)
            play.forward(next(data)).backward()
            play.optimizer.step()
            play.optimizer.zero_grad()
            play.diary.update()
    lives = compare(monitor, play.diary)
    assert any((x.unit, x.last_fired) == (1, 5) for x in lives if x.site == "1")


@pytest.mark.parametrize("subject", [MLP, CNN], ids=lambda s: s.name)
def test_validation_is_not_counted(subject: Subject) -> None:
    """Eval mode, no_grad, inference mode, and training mode under no_grad: none of them counts (DESIGN 5.1)."""
    play, data = Play(subject.model(), subject.ears), batches(subject)
    site, lever = next(iter(subject.levers.items()))
    revive = torch.full((ROWS, *subject.shape), 3.0)

    def validate() -> None:
        kept = copy.deepcopy(play.model.state_dict())
        play.model.get_parameter(lever).data.fill_(5.0)  # everything fires in validation
        play.model.eval()
        play.model(revive)  # with gradients on
        with torch.no_grad():
            play.model(revive)
        with torch.inference_mode():
            play.model(revive)
        play.model.train()
        with torch.no_grad():
            play.model(revive)
        play.model.load_state_dict(kept)

    with play.watched(window=8) as monitor:
        for step in range(STEPS):
            if step % 3 == 0:
                validate()
            play.step(next(data))
            edit(play.model, step, lever)
    check(monitor, play.diary, site)
    assert monitor.report().samples == play.diary.rows == STEPS * ROWS


def test_an_eval_root_with_a_training_child_is_not_counted() -> None:
    """The mode of the outermost module decides, and a child called alone is outermost itself (DESIGN 5.1)."""
    play, data = Play(nn.Sequential(MLP.model(), nn.Identity()), {"0.1": Ear("0.0"), "0.3": Ear("0.2")}), batches()
    with play.watched(window=8) as monitor:
        for step in range(STEPS):
            play.model.eval()
            play.model[0].train()
            play.model(next(data))
            if step % 2:
                play.model.train()
                play.step(next(data))
            else:
                play.optimizer.zero_grad()
                with play.diary.forward():
                    out = play.model[0](next(data))
                error(out).backward()
                play.optimizer.step()
                play.diary.update()
            edit(play.model, step, "0.0.bias")
    check(monitor, play.diary, "0.1")


class Task(nn.Module):
    """What frameworks do: the network is an attribute, the root is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.extra = MLP.model(), nn.Linear(3, 3)

    def training_step(self, batch: Tensor) -> Tensor:
        return error(self.extra(self.net(batch)))


def test_the_root_is_never_called() -> None:
    """The outermost monitored module is `self.net`; the sites keep their full path (DESIGN 2, 5.1)."""
    task, data = Task(), batches()
    play = Play(task, {"net.1": Ear("net.0"), "net.3": Ear("net.2")})
    with play.watched(window=8) as monitor:
        for step in range(STEPS):
            with play.diary.forward():
                loss = task.training_step(next(data))
            play.optimizer.zero_grad()
            loss.backward()
            play.optimizer.step()
            play.diary.update()
            edit(task, step, "net.0.bias")
    check(monitor, play.diary, "net.1")


def test_without_an_optimizer() -> None:
    """`monitor.step()` says that a step is over: here updates by hand."""
    play, data = Play(MLP.model(), MLP.ears), batches()
    with play.watched(None, window=8) as monitor:
        for step in range(STEPS):
            play.model.zero_grad()
            play.forward(next(data)).backward()
            with torch.no_grad():
                for p in play.model.parameters():
                    p -= 0.01 * p.grad
            monitor.step()
            play.diary.update()
            edit(play.model, step)
    check(monitor, play.diary)


def test_schedule_groups_and_clipping() -> None:
    """Parameter groups, a learning-rate schedule and gradient clipping change nothing about the dates."""
    model, data = MLP.model(), batches()
    groups = [
        {"params": model[0].parameters(), "lr": 0.02},
        {"params": [*model[2].parameters(), *model[4].parameters()]},
    ]
    play = Play(model, MLP.ears, lambda _: torch.optim.SGD(groups, lr=0.01, momentum=0.5))
    schedule = torch.optim.lr_scheduler.OneCycleLR(play.optimizer, max_lr=0.05, total_steps=STEPS)
    with play.watched(window=8) as monitor:
        for step in range(STEPS):
            play.optimizer.zero_grad()
            play.forward(next(data)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            play.optimizer.step()
            schedule.step()
            play.diary.update()
            edit(model, step)
    check(monitor, play.diary)


def test_autocast() -> None:
    """Pre-activations in bfloat16 are dated as they are."""
    play, data = Play(MLP.model(), MLP.ears), batches()
    with play.watched(window=8) as monitor:
        for step in range(STEPS):
            play.optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = play.forward(next(data))
            loss.backward()
            play.optimizer.step()
            play.diary.update()
            edit(play.model, step)
    check(monitor, play.diary)


def test_grad_scaler_skips_are_not_steps() -> None:
    """A step that the scaler skips updates nothing: its forwards belong to the next update (DESIGN 5.2)."""
    play, data = Play(MLP.model(), MLP.ears), batches(rows=ROWS)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    skipped, updates = 0, 0
    with play.watched(window=8) as monitor:
        while updates < STEPS:
            bad = updates in (3, 6, 7, 30) and skipped < updates  # not for ever
            play.optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = play.forward(next(data))
            scaler.scale(loss * float("inf") if bad else loss).backward()
            scaler.step(play.optimizer)
            scaler.update()
            if bad:
                skipped += 1
                continue
            play.diary.update()
            edit(play.model, updates)
            updates += 1
    assert skipped > 4
    lives = compare(monitor, play.diary)
    assert {(x.unit, x.last_fired) for x in lives if x.site == "1"} >= {(1, 5), (2, 8)}
    assert monitor.report().samples == (STEPS + skipped) * ROWS


def test_adversaries_with_a_monitor_each() -> None:
    """Generator and discriminator, each with its optimizer and Monitor: each sees its own updates only."""
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, out)) for out in (8, 1)]
    with torch.no_grad():
        for net in nets:
            net[0].bias.abs_().add_(0.7)
    made, judge = (Play(net, {"1": Ear("0")}, OPTIMIZERS["adam"]) for net in nets)
    data = batches(rows=150)
    with made.watched(window=8) as first, judge.watched(window=8) as second:
        for step in range(STEPS):
            for play in (judge, made):  # first the discriminator's turn, then the generator's
                with made.diary.forward():
                    fake = made.model(next(data))
                with judge.diary.forward():
                    score = judge.model(fake if play is made else fake.detach())
                if play is judge:
                    with judge.diary.forward():
                        score = score - judge.model(next(data))
                play.optimizer.zero_grad()
                error(score).backward()
                play.optimizer.step()
                play.diary.update()
            edit(made.model, step)
            edit(judge.model, step)
    check(first, made.diary)
    lives = compare(second, judge.diary)
    # its own update 5 came before the generator's turn, whose forward through it belongs to its step 6
    assert {(x.unit, x.last_fired) for x in lives} >= {(1, 6), (2, 9)}


def test_two_optimizers_of_one_model() -> None:
    """Every update is a step, whichever optimizer makes it (DESIGN 5.2: the forwards since the last update)."""
    torch.manual_seed(0)
    model, data = MLP.model(), batches(rows=150)
    play = Play(model, MLP.ears)
    pair = [torch.optim.SGD(model[0].parameters(), lr=0.01), torch.optim.Adam(model[2].parameters(), lr=1e-3)]
    with play.watched(pair, window=8) as monitor:
        for step in range(2 * STEPS):
            model.zero_grad()
            play.forward(next(data)).backward()
            pair[step % 2].step()
            play.diary.update()
            edit(model, step - 10)
    lives = compare(monitor, play.diary)
    found = {(x.unit, x.last_fired, x.confirmed, x.revived) for x in lives if x.site == "1"}
    assert found >= {(1, 15, 35, None)}


def test_include_and_exclude() -> None:
    """Only the sites asked for are told of."""
    for options in ({"include": ["1"]}, {"exclude": ["3"]}):
        play, data = Play(MLP.model(), MLP.ears), batches()
        with play.watched(window=8, **options) as monitor:
            for step in range(STEPS):
                play.step(next(data))
                edit(play.model, step)
                edit(play.model, step, "2.bias")
        assert {death.site for death in monitor.deaths} == {"1"}
        assert [site.site for site in monitor.report()] == ["1"]


def test_count_eval() -> None:
    """With `count_eval=True` a model that trains in eval mode is seen."""
    play, data = Play(MLP.model().eval(), MLP.ears), batches()
    with play.watched(window=8, count_eval=True) as monitor:
        for step in range(STEPS):
            play.step(next(data))
            edit(play.model, step)
    check(monitor, play.diary)


@pytest.mark.parametrize("every", [2, 5])
def test_observed_every_few_steps(every: int) -> None:
    """With `every=k` a date is known to k steps, and the record says so (`resolution`, DESIGN 5.2)."""
    play, data = Play(MLP.model(), MLP.ears), batches()
    with play.watched(window=10, every=every) as monitor:
        for step in range(80):
            play.step(next(data))
            if step == 13:
                put(play.model, "0.bias", 1, -1e3)
    (death,) = (d for d in monitor.deaths if d.site == "1")
    assert death.resolution == every
    assert 13 - every < death.last_fired <= 13
    assert play.diary.samples("1", 14, death.confirmed) >= 2995


def test_a_step_that_saw_nothing_warns_once() -> None:
    """The model is trained in eval mode: say so once, with the remedy (DESIGN 5.1)."""
    model = mlp().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with warnings.catch_warnings(record=True) as caught, deadrelu.Monitor(model, optimizer) as monitor:
        warnings.simplefilter("always")
        for _ in range(5):
            error(model(torch.randn(4, 8))).backward()
            optimizer.step()
    assert len(caught) == 1, [str(w.message) for w in caught]
    assert "training mode" in str(caught[0].message)
    assert monitor.deaths == []


def make_pieces() -> list[tuple[str, Callable[[Play], None]]]:
    """What may happen between two steps without being one."""
    return [
        ("a deep copy of the model", lambda play: copy.deepcopy(play.model)(torch.full((4, 8), 9.0))),
        ("a copy that trains, too", lambda play: error(copy.deepcopy(play.model)(torch.ones(4, 8))).backward()),
        ("a state dict and back", lambda play: play.model.load_state_dict(copy.deepcopy(play.model.state_dict()))),
        ("optimizer state and back", lambda play: play.optimizer.load_state_dict(play.optimizer.state_dict())),
        ("parameters are moved", lambda play: play.model.double().float()),
        ("a forward that fails", fail),
    ]


def fail(play: Play) -> None:
    with pytest.raises(RuntimeError, match=r"shape|size"):
        play.model(torch.randn(4, 7))


@pytest.mark.parametrize(("name", "between"), make_pieces(), ids=lambda x: x if isinstance(x, str) else "")
def test_between_steps(name: str, between: Callable[[Play], None]) -> None:
    """Copies, checkpoints and failures in the middle of a run do not disturb the record."""
    play, data = Play(MLP.model(), dict(MLP_EARS)), batches()
    with play.watched(window=8) as monitor:
        for step in range(STEPS):
            if step in (3, 12, 20):
                between(play)
            play.step(next(data))
            edit(play.model, step)
    check(monitor, play.diary)

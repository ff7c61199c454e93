"""Compiled models as strangers write them: state of their own, shapes that change, failures in the middle.

Ground truth: the same training without a monitor, bit for bit, and the deaths of the model that is not compiled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deadrelu


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)
        self.stage = 0


class Auxiliary(Base):
    """What is beside the output is kept in a list, as mixtures of experts do."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.a(x))
        self.kept.append(h.detach().mean())
        return self.b(h) + sum(self.kept[-2:])


class Stateful(Base):
    """The last state is an attribute."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.a(x) + 0.1 * getattr(self, "state", torch.zeros(8)))
        self.state = h.detach().mean(0)
        return self.b(h)


class Annealed(Base):
    """A frozen parameter is written in the forward pass, and the inputs are scaled in place."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0.5)
        with torch.no_grad():
            self.scale.mul_(0.99)
        return self.b(self.act(self.a(x)) * self.scale)


class Hooked(Base):
    """Somebody's hook draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.b.register_forward_pre_hook(lambda _, args: (args[0] + 0.1 * torch.rand(()),))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x)))


class Stages(Base):
    """One activation serves other widths later in the training."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.back = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        if self.stage:
            h = self.back(self.act(self.wide(h)))
        return self.b(self.act(h))


class Squeeze(nn.Module):
    """Units with one position."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Conv2d(6, 8, 1), nn.ReLU(), nn.Linear(8, 2)
        self.stage = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x[:, :, None, None]))[:, :, 0, 0])


def train(
    build: Callable[[], Any],
    *,
    compiled: bool,
    watched: bool,
    steps: int = 60,
    fail: Callable[[int], bool] = lambda step: False,
    **options: Any,
) -> tuple[Any, list[Tensor]]:
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    called = torch.compile(model, backend="eager") if compiled else model
    monitor = deadrelu.Monitor(called, optimizer, strict=True, window=20, **options) if watched else None
    torch.manual_seed(1)
    record: list[Tensor] = []
    for step in range(steps):
        if step == 12:
            with torch.no_grad():
                model.a.bias[:3] -= 100.0
        model.stage = int(step >= 30)
        if fail(step):
            with pytest.raises((RuntimeError, torch._dynamo.exc.TorchRuntimeError)):
                called(torch.randn(400, 5))
        loss = called(torch.randn(400, 6)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        record.append(loss.detach())
    if monitor is not None:
        monitor.close()
    return monitor, record + [t.detach().clone() for t in model.state_dict().values()]


def deaths(monitor: Any) -> list[tuple[Any, ...]]:
    return [(d.site, d.unit, d.last_fired, d.confirmed, d.born_dead) for d in monitor.deaths]


@pytest.mark.parametrize("build", [Auxiliary, Stateful, Annealed, Hooked, Stages, Squeeze])
def test_training_is_untouched_and_deaths_are_told(build: Callable[[], Any]) -> None:
    _, alone = train(build, compiled=True, watched=False)
    torch._dynamo.reset()
    monitor, watched = train(build, compiled=True, watched=True)
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    plain, _ = train(build, compiled=False, watched=True)
    early = [d for d in deaths(plain) if d[2] is not None and d[2] < 25]
    assert len(early) >= 3
    assert [d for d in deaths(monitor) if d[2] is not None and d[2] < 25] == early


@pytest.mark.parametrize("first", [0, 5])
def test_a_forward_pass_that_fails(first: int) -> None:
    """At the first call, and later; the samples of the failed batch count for nothing."""
    plain, _ = train(Squeeze, compiled=False, watched=True)
    monitor, _ = train(Squeeze, compiled=True, watched=True, fail=lambda step: step in (first, 17))
    assert deaths(monitor) == deaths(plain)
    assert monitor.report().samples == plain.report().samples == 60 * 400


def test_rests_under_a_bound_of_the_overhead() -> None:
    """The hooks stay, for the code depends on them; nothing is compiled anew, and no step is lost."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor, _ = train(Squeeze, compiled=True, watched=True, steps=1500, max_overhead=1e-6)
    assert monitor.resolution > 1
    assert monitor.steps == 1500
    assert monitor.report().samples < 1500 * 400


def test_a_closure() -> None:
    """The forward pass comes inside of the update."""
    model = Squeeze()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)
    called = torch.compile(model, backend="eager")
    x = torch.randn(4000, 6)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = called(x).square().mean()
        loss.backward()
        return loss

    with torch.no_grad():
        model.a.bias[0] = -100.0
    with deadrelu.Monitor(called, optimizer, strict=True) as monitor:
        for _ in range(4):
            optimizer.step(closure)
    assert [(d.unit, d.born_dead) for d in monitor.deaths] == [(0, True)]
    assert [site.site for site in monitor.report().sites] == ["act"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_an_optimizer_whose_step_is_compiled_is_told_of() -> None:
    model = Squeeze()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    called = torch.compile(model, backend="eager")
    step = torch.compile(lambda: optimizer.step(), backend="eager")
    monitor = deadrelu.Monitor(called, optimizer)
    for _ in range(3):
        called(torch.randn(40, 6)).sum().backward()
        step()
        optimizer.zero_grad(set_to_none=False)
    with pytest.warns(deadrelu.DeadReluWarning, match=r"monitor\.step\(\)"):
        monitor.close()


def test_a_compiled_part_is_named() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.act, self.out = Squeeze(), nn.ReLU(), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.act(self.part(x)))

    model = Whole()
    model.part.compile(backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for _ in range(12):
            model(torch.randn(40, 6)).sum().backward()
            optimizer.step()
    report = monitor.report()
    assert [site.site for site in report.sites] == ["act"]
    assert dict(report.coverage.unsupported)["part"].startswith("compiled:")
    assert not report.coverage.uncalled


def test_a_backward_pass_that_is_still_to_come() -> None:
    """Two optimizers, one forward pass, and a buffer that it writes and that the graph has saved."""

    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.act = nn.Linear(6, 8), nn.ReLU()
            self.heads = nn.ModuleList([nn.Linear(8, 1), nn.Linear(8, 1)])
            self.register_buffer("scale", torch.ones(()))

        def forward(self, x: Tensor) -> list[Tensor]:
            with torch.no_grad():
                self.scale.mul_(0.99)
            h = self.act(self.a(x)) * self.scale
            return [head(h) for head in self.heads]

    model = Trunk()
    called = torch.compile(model, backend="eager")
    optimizers = [torch.optim.SGD(head.parameters(), lr=0.1) for head in model.heads]
    with deadrelu.Monitor(called, optimizers, strict=True) as monitor:
        for _ in range(3):
            first, second = called(torch.randn(40, 6))
            F.mse_loss(first, torch.zeros_like(first)).backward(retain_graph=True)
            optimizers[0].step()
            F.mse_loss(second, torch.zeros_like(second)).backward()
            optimizers[1].step()
    assert monitor.steps == 3
    assert monitor.report().samples == 120
    assert model.scale == torch.tensor(0.99).pow(3)  # by the three forward passes of the training and no other

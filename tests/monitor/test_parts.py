"""Modules inside of a model rest once it was called as a whole for some time, and are followed again when need be."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

import deadrelu
from deadrelu.taps.frames import WHOLE

STEPS = 3 * WHOLE


class Pair(nn.Module):
    """An encoder and a head, which can be called one by one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Sequential(nn.Linear(12, 12), nn.ReLU()))
        self.head = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.encoder(x))
        return out


@pytest.fixture
def pair() -> Pair:
    return Pair()


def hooked(model: nn.Module) -> set[str]:
    """Return the paths of the modules inside of a model that hold others and have hooks."""
    holds = ((path, m) for path, m in model.named_modules() if path and next(m.children(), None) is not None)
    return {path for path, m in holds if m._forward_hooks or m._forward_pre_hooks}


def watched(pair: Pair) -> tuple[deadrelu.Monitor, Callable[..., None]]:
    """Return a monitor, and a function that takes one step with a forward pass of the given kind."""
    optimizer = torch.optim.SGD(pair.parameters(), lr=1e-3)
    monitor = deadrelu.Monitor(pair, optimizer, window=10, strict=True)
    rng = torch.Generator().manual_seed(1)

    def step(forward: Callable[[torch.Tensor], torch.Tensor] = pair) -> None:
        optimizer.zero_grad()
        forward(torch.randn(300, 6, generator=rng)).square().sum().backward()
        optimizer.step()

    return monitor, step


ALL = {"encoder", "encoder.2", "head"}


def test_the_inside_rests(pair: Pair) -> None:
    monitor, step = watched(pair)
    with monitor:
        assert hooked(pair) == ALL
        for _ in range(STEPS):
            step()
        assert hooked(pair) == set()
        assert monitor.report().coverage.uncalled == ()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pair.modules())
    assert [(site.site, site.samples) for site in monitor.report().sites] == [
        (name, 300 * STEPS) for name in ("encoder.1", "encoder.2.1", "head.1")
    ]


def parts(pair: Pair) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    yield lambda x: pair.head(pair.encoder(x))
    yield pair.forward
    yield lambda x: pair.encoder(x)
    yield lambda x: pair.encoder[2](pair.encoder[1](pair.encoder[0](x)))


@pytest.mark.parametrize("kind", range(4))
def test_a_part_that_runs_by_itself(pair: Pair, kind: int) -> None:
    """The pass that shows it is missed in part, but it is a step; those after it are seen; deaths keep their dates."""
    monitor, step = watched(pair)
    forward = list(parts(pair))[kind]
    with monitor:
        for _ in range(STEPS):
            step()
        assert hooked(pair) == set()
        step(forward)
        assert monitor.steps == STEPS + 1
        assert hooked(pair) == ALL
        for _ in range(9):
            step(forward)
        with torch.no_grad():
            layer = pair.encoder[2][0]
            layer.bias[3] = -100.0  # after update STEPS + 9: last fired in forward STEPS + 9
        for _ in range(30):
            step(forward)
        assert monitor.steps == STEPS + 40
        assert hooked(pair) == ALL  # for good
    found = [(d.site, d.unit, d.killed_by_step) for d in monitor.deaths]
    assert ("encoder.2.1", 3, STEPS + 9) in found
    samples = {site.site: site.samples for site in monitor.report().sites}["encoder.2.1"]
    assert samples == 300 * (STEPS + 39) or samples == 300 * (STEPS + 40)


def test_a_part_in_which_nothing_is_looked_at() -> None:
    """Its steps are steps, before and after the rest has come to rest."""

    class Probed(Pair):
        def __init__(self) -> None:
            super().__init__()
            self.probe = nn.Sequential(nn.Dropout(0.1), nn.Linear(6, 2))

    pair = Probed()
    monitor, step = watched(pair)
    with monitor:
        for _ in range(STEPS):
            step()
        assert hooked(pair) == {"probe"}
        for _ in range(7):
            step(pair.probe)
        step()
        assert monitor.steps == STEPS + 8


def test_what_runs_outside_of_all_parts(pair: Pair) -> None:
    """Layers that are called by hand, or that another network shares, are no forward pass of the model."""
    monitor, step = watched(pair)
    shared = nn.Sequential(nn.Linear(6, 9), pair.head[1], nn.Linear(9, 2))
    other = torch.optim.SGD(shared.parameters(), lr=1e-3)
    with monitor:
        for _ in range(STEPS):
            step()
        for _ in range(3):
            other.zero_grad()
            shared(torch.randn(5, 6)).sum().backward()
            other.step()
            pair.encoder[1](pair.encoder[0](torch.randn(5, 6))).sum().backward()
        assert hooked(pair) == set()
        step()
        assert monitor.steps == STEPS + 1
        assert monitor.report().samples == 300 * (STEPS + 1)


def test_a_part_that_fails(pair: Pair) -> None:
    """An exception in the pass that wakes the others leaves nothing behind."""
    monitor, step = watched(pair)

    def fail(*_: object) -> None:
        raise ValueError("a loss of nerve")

    with monitor:
        for _ in range(STEPS):
            step()
        handle = pair.encoder[2].register_forward_pre_hook(fail)
        with pytest.raises(ValueError, match="nerve"):
            pair.encoder(torch.randn(5, 6))
        handle.remove()
        for _ in range(5):
            step()
        assert monitor.steps == STEPS + 5
        assert hooked(pair) == ALL
    assert {site.site: site.samples for site in monitor.report().sites}["head.1"] == 300 * (STEPS + 5)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pair.modules())


def test_what_is_no_step_makes_none(pair: Pair) -> None:
    """Without gradients, in eval mode or in backward, a part that runs says nothing."""
    monitor, step = watched(pair)
    with monitor:
        for _ in range(STEPS):
            step()
        with torch.no_grad():
            pair.encoder(torch.randn(5, 6))
        pair.eval()
        pair.encoder(torch.randn(5, 6))
        pair(torch.randn(5, 6))
        pair.train()
        torch.func.vmap(pair.encoder[2])(torch.randn(4, 5, 12))
        assert hooked(pair) == set()
        step()
        assert monitor.steps == STEPS + 1
        assert monitor.report().samples == 300 * (STEPS + 1)


def test_a_module_that_joins_inside(pair: Pair) -> None:
    """Seen in the very next step, in a module that is not followed."""
    monitor, step = watched(pair)
    with monitor:
        for _ in range(STEPS):
            step()
        pair.encoder[2].append(nn.Sequential(nn.Linear(12, 12), nn.ReLU()))
        step()
        step()
    found = {site.site: site.samples for site in monitor.report().sites}
    assert found["encoder.2.2.1"] == 600
    assert found["head.1"] >= 300 * STEPS


def test_functional_activations_are_always_followed() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.body(x) + x.sum())

    model = Functional()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with deadrelu.Monitor(model, optimizer, window=10, strict=True) as monitor:
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(torch.randn(8, 6)).sum().backward()
            optimizer.step()
        assert hooked(model) == {"body"}
        assert [site.samples for site in monitor.report().sites] == [8 * STEPS]


def test_training_is_the_same(pair: Pair) -> None:
    """Bit for bit, across resting and waking."""

    def train(model: Pair, step: Callable[..., None]) -> list[float]:
        for i in range(STEPS + 20):
            step(*([lambda x: model.head(model.encoder(x))] if i % 7 == 6 and i > STEPS else []))
        return [float(p.detach().double().sum()) for p in model.parameters()]

    monitor, step = watched(pair)
    with monitor:
        seen = train(pair, step)
    other = Pair()
    monitor, step = watched(other)
    monitor.close()
    assert train(other, step) == seen

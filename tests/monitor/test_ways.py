"""Models that take another way from step to step: what is seen belongs to the site that it came from."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deadrelu
from deadrelu.taps.marks import Mark
from deadrelu.taps.ways import drawn

STEPS, BATCH = 400, 64
FOUND = 20
"""Steps of a way that may go by before it is traced: the rows that are traced are one to six steps long."""


class Fork(nn.Module):
    """Two layers, `a` with eight dead units and `b` with four others; each forward pass is told which way to take."""

    dead: ClassVar = {"a": list(range(8)), "b": list(range(28, 32))}
    runs: ClassVar[tuple[str, str]]  # which of them, by the way that is taken

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.relu = nn.Linear(16, 32), nn.Linear(16, 32), nn.ReLU()
        self.out, self.outs = nn.Linear(32, 10), nn.Linear(64, 10)
        self.silence(self.a, self.b)

    def silence(self, a: nn.Module, b: nn.Module) -> None:
        """Make the dead units of two layers."""
        for layer, dead in ((a, self.dead["a"]), (b, self.dead["b"])):
            assert isinstance(layer.bias, Tensor)
            layer.bias.data[dead] = -100.0


class Either(Fork):
    """One module takes what either layer made."""

    runs = ("b", "a")

    def forward(self, x: Tensor, way: int) -> Tensor:
        out: Tensor = self.out(self.relu(self.a(x) if way else self.b(x)))
        return out


class Normed(Fork):
    """The same behind a norm, which feeds the site."""

    runs = ("b", "a")

    def __init__(self) -> None:
        super().__init__()
        self.m, self.n = nn.BatchNorm1d(32), nn.BatchNorm1d(32)
        self.silence(self.m, self.n)

    def forward(self, x: Tensor, way: int) -> Tensor:
        out: Tensor = self.out(self.relu(self.m(self.a(x)) if way else self.n(self.b(x))))
        return out


class Swapped(Fork):
    """One module takes what both made, in an order that changes."""

    runs = ("ab", "ab")

    def forward(self, x: Tensor, way: int) -> Tensor:
        layers = (self.a, self.b) if way else (self.b, self.a)
        made = {layer: self.relu(layer(x)) for layer in layers}
        out: Tensor = self.outs(torch.cat([made[self.a], made[self.b]], 1))
        return out


class SwappedCalls(Fork):
    """The same with a function."""

    runs = ("ab", "ab")

    def forward(self, x: Tensor, way: int) -> Tensor:
        layers = (self.a, self.b) if way else (self.b, self.a)
        made = {layer: F.relu(layer(x) * 1.0) for layer in layers}
        out: Tensor = self.outs(torch.cat([made[self.a], made[self.b]], 1))
        return out


class OneMore(Fork):
    """What one more layer made comes before it, now and then."""

    runs = ("a", "ab")

    def forward(self, x: Tensor, way: int) -> Tensor:
        more = self.relu(self.b(x)) if way else 0.0
        out: Tensor = self.out(self.relu(self.a(x)) + more)
        return out


class OneMoreOwn(OneMore):
    """That one with an activation module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.ReLU()

    def forward(self, x: Tensor, way: int) -> Tensor:
        more = self.own(self.b(x)) if way else 0.0
        out: Tensor = self.out(self.relu(self.a(x)) + more)
        return out


class OneMoreCall(OneMore):
    """That one with a function."""

    def forward(self, x: Tensor, way: int) -> Tensor:
        more = F.relu(self.b(x)) if way else 0.0
        out: Tensor = self.out(self.relu(self.a(x)) + more)
        return out


class Residual(Fork):
    """What is added to the way is what differs; behind it the sum is rectified."""

    runs = ("b", "a")

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.a, self.b = nn.Linear(32, 32), nn.Linear(32, 32)
        self.silence(self.a, self.b)

    def forward(self, x: Tensor, way: int) -> Tensor:
        h = self.relu(self.first(x))
        out: Tensor = self.out(self.relu(h + self.a(h)) if way else self.relu(h + self.b(h)))
        return out


def ways(rhythm: str) -> Iterator[int]:
    """Return which way each step takes."""
    rng = random.Random(0)
    rhythms: dict[str, Callable[[int], bool]] = {
        "in turn": lambda i: i % 2 == 1,
        "at random": lambda i: rng.random() < 0.5,
        "from step 130 on": lambda i: i >= 130,
        "one in seven": lambda i: i % 7 == 3,
    }
    return (int(rhythms[rhythm](i)) for i in range(STEPS))


NETS = (Either, Normed, Swapped, SwappedCalls, OneMore, OneMoreOwn, OneMoreCall, Residual)


@pytest.mark.parametrize("rhythm", ["in turn", "at random", "from step 130 on", "one in seven"])
@pytest.mark.parametrize("net", NETS)
def test_what_is_seen_belongs_to_its_site(net: type[Fork], rhythm: str) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    rng = torch.Generator().manual_seed(0)
    ran = {"a": 0, "b": 0}
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for way in ways(rhythm):
            for layer in net.runs[way]:
                ran[layer] += BATCH
            optimizer.zero_grad()
            x, y = torch.randn(BATCH, 16, generator=rng), torch.randint(10, (BATCH,), generator=rng)
            F.cross_entropy(model(x, way), y).backward()
            optimizer.step()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    sites = {layer: site for site in monitor.report().sites for layer in site.producers if layer in ran}
    assert sites.keys() == ran.keys()
    for layer, site in sites.items():
        always = all(layer in way for way in net.runs)
        missed = 0 if always else FOUND * BATCH
        assert ran[layer] - missed <= site.samples <= ran[layer], layer
        found = site.dead if site.samples >= 2995 else site.silent
        assert found.nonzero()[0].tolist() == net.dead[layer], layer


@pytest.mark.parametrize("seen", [0, 1])
def test_what_makes_it_is_no_longer_asked_where_it_changes(seen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that gets a new parameter at every step would else be traced at each of them."""
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    rng = torch.Generator().manual_seed(0)
    begun = []
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        begin = monitor._taps.scout.begin

        def noted(*args: Any) -> None:
            begun.append(monitor.steps)
            begin(*args)

        monkeypatch.setattr(monitor._taps.scout, "begin", noted)
        for step in range(100):
            if step >= 10 * seen:
                model[0].bias = nn.Parameter(model[0].bias.detach().clone())
            model(torch.randn(BATCH, 16, generator=rng)).square().sum().backward()
            optimizer.step()
    assert len(begun) <= 3
    (site,) = monitor.report().sites
    assert site.samples >= 98 * BATCH


def test_what_is_drawn() -> None:
    """One in `share` of all numbers, and of those of any rhythm; 400 of 6,400 with a deviation of 19."""
    for start, every in ((0, 1), (0, 2), (1, 2), (49, 50), (7, 10), (0, 64), (0, 128)):
        found = sum(drawn(number, 16) for number in range(start, 6400 * every, every))
        assert 320 <= found <= 480, (start, every)


@pytest.fixture
def layers() -> tuple[nn.Linear, nn.Linear, Tensor]:
    return nn.Linear(4, 4), nn.Linear(4, 4), torch.randn(3, 4)


def marked(z: Tensor) -> Mark:
    mark = Mark.of(z)
    assert mark is not None
    return mark


def test_a_mark_is_that_of_the_nearest_parameter(layers: tuple[nn.Linear, nn.Linear, Tensor]) -> None:
    a, b, x = layers
    mark, other = marked(a(x)), marked(b(x))
    for z, fits in ((a(x), True), (b(x), False), (a(b(x)), True), (b(a(x)), False), (-a(x), False), (x, False)):
        assert mark.on(z) is fits
    assert not mark.alike(other)
    assert not mark.same(other)
    assert mark.same(marked(-a(x)))


def test_what_autograd_does_not_know_has_no_mark(layers: tuple[nn.Linear, nn.Linear, Tensor]) -> None:
    a, _, x = layers
    mark = marked(a(x))
    with torch.no_grad():
        z = a(x)
    for unknown in (x, z, torch.randn(4, requires_grad=True) * 2):
        assert Mark.of(unknown) is None
        assert not mark.on(unknown)


def test_a_mark_learns_ways(layers: tuple[nn.Linear, nn.Linear, Tensor]) -> None:
    a, _, x = layers
    plain, turned = marked(a(x)), marked(-a(x))
    assert not plain.alike(turned)
    plain.learn(turned)
    assert plain.on(a(x))
    assert plain.on(-a(x))
    assert plain.alike(turned)


def test_a_mark_keeps_no_parameter() -> None:
    layer = nn.Linear(4, 4)
    held = weakref.ref(layer.bias)
    mark = marked(layer(torch.randn(3, 4)))
    del layer
    assert held() is None
    assert not mark.on(nn.Linear(4, 4)(torch.randn(3, 4)))

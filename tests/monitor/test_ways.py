"""Models that take another way from step to step: what is seen belongs to the site that it came from."""

from __future__ import annotations

import copy
import gc
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deadrelu
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


class Gained(Fork):
    """What either layer made, times a gain that is common to both."""

    runs = ("b", "a")

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(32))

    def forward(self, x: Tensor, way: int) -> Tensor:
        out: Tensor = self.out(self.relu((self.a(x) if way else self.b(x)) * self.gain))
        return out


class Branched(Residual):
    """The sum with a branch that is dropped out: what is added to it is as near as the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor, way: int) -> Tensor:
        h = self.relu(self.first(x))
        out: Tensor = self.out(self.relu(h * 0 + self.drop(self.a(h) if way else self.b(h))))
        return out


class Between(Residual):
    """Either layer with a trainable one before it, and a module that all three share."""

    def forward(self, x: Tensor, way: int) -> Tensor:
        h = self.relu(self.first(x))
        out: Tensor = self.out(self.relu(self.a(h) if way else self.b(h)))
        return out


class Several(Fork):
    """A module that is called twice, a function, and a module of its own, in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.d, self.own = nn.Linear(32, 32), nn.Linear(32, 32), nn.ReLU()

    def forward(self, x: Tensor, way: int) -> Tensor:
        h = self.relu(self.c(self.relu(self.a(x))) * 1.0)
        out: Tensor = self.out(self.own(F.relu(self.d(h) * 1.0) - 1))
        return out


class Heads(Fork):
    """Two heads in turn, without activations."""

    runs = ("a", "a")

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(32, 10), nn.Linear(32, 10)])
        self.unused = nn.Linear(8, 8)

    def forward(self, x: Tensor, way: int) -> Tensor:
        out: Tensor = self.heads[way](self.relu(self.a(x)))
        return out


class Deep(Fork):
    """Forty layers that share one module."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16 if i == 0 else 32, 32) for i in range(40))

    def forward(self, x: Tensor, way: int) -> Tensor:
        for layer in self.layers:
            x = self.relu(layer(x)) + 0.1
        out: Tensor = self.out(x)
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


NETS = (Either, Normed, Swapped, SwappedCalls, OneMore, OneMoreOwn, OneMoreCall, Residual, Gained)


Change = Callable[[int, Fork, torch.optim.Optimizer], None]


def nothing(step: int, model: Fork, optimizer: torch.optim.Optimizer) -> None:
    """Leave the model as it is."""


def frozen(step: int, model: Fork, optimizer: torch.optim.Optimizer) -> None:
    """Freeze a layer, with a trainable one before it, and let it go again."""
    if step in (100, 250):
        model.a.requires_grad_(step == 250)


def assigned(step: int, model: Fork, optimizer: torch.optim.Optimizer) -> None:
    """Give every layer other parameters."""
    if step == 150:
        model.load_state_dict({key: value.clone() for key, value in model.state_dict().items()}, assign=True)
        optimizer.param_groups[0]["params"] = list(model.parameters())


def replaced(step: int, model: Fork, optimizer: torch.optim.Optimizer) -> None:
    """Replace a layer by a copy."""
    if step == 150:
        model.a = copy.deepcopy(model.a)
        optimizer.param_groups[0]["params"] = list(model.parameters())


def train(model: Fork, turns: Iterator[int], change: Change = nothing, **patterns: Any) -> tuple[Any, list[int]]:
    """Return the report of a training under Monitor, and the steps whose forward pass was traced."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    traced = []
    with deadrelu.Monitor(model, optimizer, strict=True, **patterns) as monitor:
        begin = monitor._taps.scout.begin

        def noted(*args: Any) -> None:
            traced.append(monitor.steps)
            begin(*args)

        monitor._taps.scout.begin = noted  # type: ignore[method-assign]
        for step, way in enumerate(turns):
            change(step, model, optimizer)
            optimizer.zero_grad()
            x, y = torch.randn(BATCH, 16, generator=rng), torch.randint(10, (BATCH,), generator=rng)
            F.cross_entropy(model(x, way), y).backward()
            optimizer.step()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return monitor.report(), traced


def check(report: Any, model: Fork, turns: Iterator[int], missed: int) -> None:
    """Compare what was seen of both layers with what ran; a layer that does not always run may have been missed."""
    ran = {"a": 0, "b": 0}
    for way in turns:
        for layer in model.runs[way]:
            ran[layer] += BATCH
    sites = {layer: site for site in report.sites for layer in site.producers if layer in ran}
    assert sites.keys() == ran.keys()
    for layer, site in sites.items():
        assert ran[layer] - missed * BATCH <= site.samples <= ran[layer], layer
        found = site.dead if site.samples >= 2995 else site.silent
        assert found.nonzero()[0].tolist() == model.dead[layer], layer


@pytest.mark.parametrize("rhythm", ["in turn", "at random", "from step 130 on", "one in seven"])
@pytest.mark.parametrize("net", NETS)
def test_what_is_seen_belongs_to_its_site(net: type[Fork], rhythm: str) -> None:
    model = net()
    report, traced = train(model, ways(rhythm))
    always = set(net.runs[0]) & set(net.runs[1]) == {"a", "b"}
    check(report, model, ways(rhythm), 0 if always else FOUND)
    assert len(traced) <= 40


@pytest.mark.parametrize("change", [frozen, assigned, replaced])
@pytest.mark.parametrize("net", [Branched, Between])
def test_layers_that_change(net: type[Fork], change: Change) -> None:
    model = net()
    report, traced = train(model, ways("at random"), change)
    check(report, model, ways("at random"), FOUND)
    assert len(traced) <= 40


@pytest.mark.parametrize(
    ("patterns", "seen"),
    [
        ({"exclude": "own"}, {"relu", "relu#1", "relu()"}),
        ({"exclude": "relu"}, {"relu#1", "relu()", "own"}),
        ({"exclude": "relu#1"}, {"relu", "relu()", "own"}),
        ({"exclude": "relu()"}, {"relu", "relu#1", "own"}),
        ({"include": ["own", "relu()"]}, {"relu()", "own"}),
    ],
)
def test_what_is_left_out_is_not_looked_for(patterns: dict[str, Any], seen: set[str]) -> None:
    report, traced = train(Several(), ways("in turn"), **patterns)
    assert {site.site: site.samples for site in report.sites} == dict.fromkeys(seen, STEPS * BATCH)
    assert traced == [0]


def test_a_head_without_activations_is_met_once() -> None:
    """It has run in a traced pass: there is nothing more to look for."""
    report, traced = train(Heads(), ways("in turn"))
    (site,) = report.sites
    assert site.samples == STEPS * BATCH
    assert site.dead.nonzero()[0].tolist() == Heads.dead["a"]
    assert len(traced) <= 10


@pytest.mark.parametrize("frozen_layers", [0, 20, 40])
def test_many_sites_at_one_place(frozen_layers: int) -> None:
    """Forty layers that share one module, the first of them frozen: those have no graph, and keep their order."""
    model = Deep()
    model.layers[:frozen_layers].requires_grad_(False)
    report, traced = train(model, ways("in turn"))
    assert [(site.producers, site.samples) for site in report.sites] == [
        ((f"layers.{i}",), STEPS * BATCH) for i in range(40)
    ]
    assert traced == [0]


def test_a_module_that_was_never_called_is_not_kept() -> None:
    model = Heads()
    held = []

    def another(step: int, model: Fork, optimizer: torch.optim.Optimizer) -> None:
        if step % 50 == 25:
            model.unused = nn.Linear(8, 8)  # type: ignore[assignment]
            held.append(weakref.ref(model.unused))

    train(model, ways("in turn"), another)
    gc.collect()
    assert [ref() is not None for ref in held] == [False] * (len(held) - 1) + [True]


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
    assert len(begun) <= 20
    (site,) = monitor.report().sites
    assert site.samples >= 98 * BATCH


def test_what_is_drawn() -> None:
    """One in `share` of all numbers, and of those of any rhythm; 400 of 6,400 with a deviation of 19."""
    for start, every in ((0, 1), (0, 2), (1, 2), (49, 50), (7, 10), (0, 64), (0, 128)):
        found = sum(drawn(number, 16) for number in range(start, 6400 * every, every))
        assert 320 <= found <= 480, (start, every)

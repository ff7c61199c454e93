"""Models that torch.compile compiled are watched without a graph break, and told of as if they were not compiled.

Ground truth: the same training, not compiled (the backend `eager` computes the same bits), and the compiler's own
counters.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

import deadrelu
from deadrelu import DeadReluWarning

Step = Callable[[nn.Module, int], None]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


class Plain(nn.Module):
    """An activation module and a function of what a layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.b, self.c = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.b(self.act(self.a(x)))))


class Block(nn.Module):
    """One module of activation that is called twice, in place, after a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x))))) + x)


class Residual(nn.Module):
    """Nested blocks, flat units on both sides, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.tanh = nn.Conv2d(2, 6, 3), nn.Hardtanh()
        self.blocks = nn.Sequential(Block(6), Block(6))
        self.b = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.dropout(self.blocks(self.tanh(self.a(x))).mean((2, 3)), 0.1, self.training))


class Tokens(nn.Module):
    """Samples and tokens along one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Linear(5, 7), nn.ReLU6(), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x.flatten(0, 1)))).unflatten(0, x.shape[:2]).mean(1)


SUBJECTS = {"plain": (Plain, (6,), "a"), "residual": (Residual, (2, 6, 6), "a"), "tokens": (Tokens, (4, 5), "a")}
Maker = Callable[[nn.Module], nn.Module]


def in_place(**options: Any) -> Maker:
    def compiled(model: nn.Module) -> nn.Module:
        model.compile(**options)
        return model

    return compiled


def wrapped(**options: Any) -> Maker:
    return lambda model: torch.compile(model, **options)  # type: ignore[return-value]


def train(
    subject: str,
    compiled: Maker,
    *,
    order: str = "after",
    watched: bool = True,
    steps: int = 70,
    micro: int = 1,
    extra: Step | None = None,
    autocast: bool = False,
    **options: Any,
) -> tuple[deadrelu.Monitor | None, list[Tensor]]:
    """Train with planted deaths and a revival; return the monitor, and losses and final weights."""
    build, shape, layer = SUBJECTS[subject]
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    monitor = None
    if watched and order == "before":
        monitor = deadrelu.Monitor(model, optimizer, strict=True, window=20, **options)
    called = compiled(model)
    if watched and order == "after":
        monitor = deadrelu.Monitor(called, optimizer, strict=True, window=20, **options)
    torch.manual_seed(1)
    record = []
    for step in range(steps):
        with torch.no_grad():
            bias = model.get_submodule(layer).bias
            if step == 12:
                bias[:3] -= 100.0
            if step == 40:
                bias[0] += 100.0
        for _ in range(micro):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                out = called(torch.randn(400, *shape))
            loss = out.float().square().mean()
            loss.backward()
            record.append(loss.detach())
        optimizer.step()
        optimizer.zero_grad()
        if extra is not None:
            extra(called, step)
    if monitor is not None:
        monitor.close()
    return monitor, record + [p.detach().clone() for p in model.parameters()]


def deaths(monitor: deadrelu.Monitor | None) -> list[tuple[Any, ...]]:
    assert monitor is not None
    return [(d.site, d.unit, d.last_fired, d.confirmed, d.revived, d.born_dead) for d in monitor.deaths]


HOWS = {"wrapped": wrapped, "in place": in_place}


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("full", [False, True], ids=["", "fullgraph"])
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_deaths_are_those_of_the_model_that_is_not_compiled(subject: str, how: str, full: bool, order: str) -> None:
    plain, _ = train(subject, lambda model: model)
    monitor, _ = train(subject, HOWS[how](backend="eager", fullgraph=full), order=order)
    assert len(deaths(plain)) >= 3
    unseen = {name for name, _ in monitor.report().coverage.unsupported}
    assert deaths(monitor) == [d for d in deaths(plain) if d[0] not in unseen]
    assert not counters["graph_break"]
    assert {d[0] for d in deaths(monitor)} & {"act", "tanh"}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_training_is_untouched(subject: str, order: str, backend: str) -> None:
    """Losses and weights, bit for bit; dropout draws the same numbers, norms keep the same statistics."""
    _, alone = train(subject, wrapped(backend=backend), watched=False)
    torch._dynamo.reset()
    _, watched = train(subject, wrapped(backend=backend), order=order)
    assert len(alone) == len(watched)
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))


@pytest.mark.parametrize("subject", SUBJECTS)
def test_nothing_is_compiled_once_more(subject: str) -> None:
    train(subject, wrapped(backend="eager"), watched=False)
    alone = counters["stats"]["unique_graphs"]
    torch._dynamo.reset()
    counters.clear()
    train(subject, wrapped(backend="eager"))
    assert counters["stats"]["unique_graphs"] == alone


def test_an_example_spares_the_second_compilation() -> None:
    train("plain", wrapped(backend="eager"), watched=False)
    alone = counters["stats"]["unique_graphs"]
    for example in (torch.randn(4, 6), (torch.randn(4, 6),), {"x": torch.randn(4, 6)}):
        torch._dynamo.reset()
        counters.clear()
        monitor, _ = train("plain", wrapped(backend="eager"), order="before", example=example)
        assert counters["stats"]["unique_graphs"] == alone
        assert len(deaths(monitor)) >= 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_inductor() -> None:
    """Where another compiler computes the numbers: planted deaths to the step."""
    monitor, _ = train("plain", wrapped())
    found = [(d.unit, d.last_fired, d.revived) for d in monitor.deaths if d.site == "act"]
    assert (1, 11, None) in found
    assert (2, 11, None) in found
    assert (0, 11, 40) in found
    assert not counters["graph_break"]


def test_validation_is_not_counted_and_micro_batches_are() -> None:
    def validate(model: nn.Module, step: int) -> None:
        model.eval()
        with torch.no_grad():
            model(torch.full((50, 6), 1e6))
        model.train()

    plain, _ = train("plain", lambda model: model, micro=3, extra=validate)
    monitor, _ = train("plain", wrapped(backend="eager"), micro=3, extra=validate)
    assert deaths(monitor) == deaths(plain)
    assert monitor.report().samples == plain.report().samples == 70 * 3 * 400


def test_autocast() -> None:
    plain, _ = train("plain", lambda model: model, autocast=True)
    monitor, _ = train("plain", wrapped(backend="eager"), autocast=True)
    assert deaths(monitor) == deaths(plain)


def test_what_cannot_be_seen_is_said() -> None:
    """The sum of a residual block is no layer's output, and no module sees it."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.act = nn.Linear(6, 6), nn.Linear(6, 2), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.relu(self.act(self.a(x)) + x))

    SUBJECTS["sum"] = (Sum, (6,), "a")
    try:
        monitor, _ = train("sum", wrapped(backend="eager", fullgraph=True))
    finally:
        del SUBJECTS["sum"]
    report = monitor.report()
    assert dict(report.coverage.unsupported)["relu()"].startswith("compiled:")
    assert {d.site for d in monitor.deaths} == {site.site for site in report.sites} == {"act"}


def test_inside_of_a_checkpoint_nothing_is_seen() -> None:
    """It is a graph of its own, which may write nothing outside of it: the training must not fail of it."""

    class Checkpointed(Plain):
        def forward(self, x: Tensor) -> Tensor:
            h = checkpoint(lambda x: self.act(self.a(x)), x, use_reentrant=False)
            return self.c(F.relu(self.b(h)))

    SUBJECTS["checkpointed"] = (Checkpointed, (6,), "b")
    try:
        monitor, _ = train("checkpointed", wrapped(backend="eager", fullgraph=True))
    finally:
        del SUBJECTS["checkpointed"]
    report = monitor.report()
    assert dict(report.coverage.unsupported)["act"].startswith("compiled:")
    assert {d.site for d in monitor.deaths} == {site.site for site in report.sites} == {"relu()"}


@pytest.mark.parametrize("by", ["itself", "another", "a monitor"])
def test_code_that_was_compiled_before_is_told_of(by: str) -> None:
    """By a call of the model, or of another one of its class; after a reset it is seen."""
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(40, 6)
    compiled = torch.compile(model, backend="eager")
    if by == "a monitor":
        deadrelu.Monitor(compiled, optimizer).close()
    (torch.compile(Plain(), backend="eager") if by == "another" else compiled)(x)
    with deadrelu.Monitor(compiled, optimizer, strict=True) as monitor:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for _ in range(3):
                compiled(x).sum().backward()
                optimizer.step()
        assert ["torch.compiler.reset()" in str(w.message) for w in said if w.category is DeadReluWarning] == [True]
        torch.compiler.reset()
        with torch.no_grad():
            model.a.bias[0] = -100.0
        for _ in range(20):
            compiled(torch.randn(400, 6)).sum().backward()
            optimizer.step()
    assert [(d.site, d.unit) for d in monitor.deaths if d.unit == 0 and d.site == "act"] == [("act", 0)]


def test_many_models_in_one_process() -> None:
    """The compiler keeps a few versions of one function and no more: each model's hooks are functions of their own."""
    for _ in range(12):
        scope: dict[str, Any] = {}
        exec("def forward(self, x): return self.c(self.act(self.a(x)))", scope)  # its own code, as of another file
        model = type("Net", (Plain,), {"forward": scope["forward"]})()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
            compiled = torch.compile(model, backend="eager", fullgraph=True)
            for _ in range(3):
                compiled(torch.randn(40, 6)).sum().backward()
                optimizer.step()
        assert monitor.report().samples == 120


def test_arguments_that_change_at_every_call() -> None:
    class Described(Plain):
        def forward(self, x: Tensor, about: str = "") -> Tensor:
            return super().forward(x)

    model = Described()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with deadrelu.Monitor(compiled, optimizer, strict=True) as monitor:
        for step in range(20):
            compiled(torch.randn(40, 6), about=f"batch {step}").sum().backward()
            optimizer.step()
    assert monitor.report().samples == 800


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler's own, also without a monitor
def test_a_break_of_the_models_own() -> None:
    """What runs between two graphs is not seen; what is in them is."""

    class Broken(Plain):
        def forward(self, x: Tensor) -> Tensor:
            h = self.act(self.a(x))
            torch._dynamo.graph_break()
            return self.c(F.relu(self.b(h)))

    SUBJECTS["broken"] = (Broken, (6,), "a")
    try:
        plain, _ = train("broken", lambda model: model)
        monitor, _ = train("broken", wrapped(backend="eager"))
    finally:
        del SUBJECTS["broken"]
    assert deaths(monitor) == deaths(plain)


def test_nothing_is_left_behind() -> None:
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.compile(backend="eager")
    impl = model._compiled_call_impl
    wrapper = torch.compile(model, backend="eager")
    with deadrelu.Monitor(wrapper, optimizer):
        wrapper(torch.randn(4, 6)).sum().backward()
        optimizer.step()
    assert model._compiled_call_impl is impl
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in (*model.modules(), wrapper))


def test_not_a_number() -> None:
    """A unit that is NaN in some samples is told by the others; one that is nothing else has not fired."""
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
        model[0].bias.copy_(torch.tensor([0.0, 0.0, torch.nan]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    compiled = torch.compile(model, backend="eager")
    x = torch.rand(3000, 2) + 1
    x[0, 0] = torch.nan
    with deadrelu.Monitor(compiled, optimizer, strict=True, window=2) as monitor, warnings.catch_warnings():
        for _ in range(4):
            compiled(x)
            optimizer.step()
    assert {(d.unit, d.born_dead) for d in monitor.deaths} == {(1, True), (2, True)}

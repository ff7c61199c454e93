"""What an op made of traces is remembered: calls that differ in what matters must not be taken for one another.

Ground truth: the same call asked of a tracer that has seen nothing before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deadrelu.kinds import Arguments
from deadrelu.tracing import ParameterNames, Trace, Tracer, Traces, canonical_name, propagate
from deadrelu.tracing.layout import Layout, batch, position, unit

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

X = torch.randn(4, 3, 6)
TOKENS = Layout((batch(4), position(3), unit(6)))
LONGER = torch.randn(4, 5, 6)
ROWS = torch.randn(3, 6)
TWIN, PLAIN, DOUBLE = X.clone(), X.clone(), X.double()
CUBE = torch.randn(4, 4, 4)
TURNED, SAME = torch.tensor([3, 2, 1, 0]), torch.tensor([0, 0, 0, 0])
KNOWN = (
    (X, TOKENS),
    (LONGER, Layout((batch(4), position(5), unit(6)))),
    (ROWS, Layout((position(3), unit(6)))),
    (TWIN, TOKENS),
    (PLAIN, Layout((position(4), position(3), unit(6)))),
    (DOUBLE, TOKENS),
    (CUBE, Layout((batch(4), position(4), unit(4)))),
    (TURNED, None),
    (SAME, None),
)


class Twice(nn.Module):
    """Two weights of one shape, one of them in two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.tied = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.tied.weight = self.a.weight


NET = Twice()


class Asked:
    """A tracer that can be asked one call after the other."""

    def __init__(self) -> None:
        self.scope = ""
        self.fed: list[tuple[str, int]] = []
        names = ParameterNames(NET, lambda: self.scope)
        self.tracer = Tracer(Traces(), names, lambda: self.scope, lambda name, x, *_: self.fed.append((name, id(x))))
        for tensor, layout in KNOWN:
            self.tracer.traces.put(tensor, Trace(layout))

    def __call__(self, call: Call, samples: int = 4, scope: str = "") -> Any:
        """Return what is known of the result of a call, and which producers it told of."""
        function, args, kwargs = call
        self.tracer.batch, self.scope = samples, scope
        self.fed.clear()
        with torch.no_grad():
            out = function(*args, **kwargs)
        propagate(canonical_name(function), self.tracer, Arguments(args, kwargs), out)
        trace = self.tracer.traces.get(out)
        said = None if trace is None else (trace.layout, trace.producers, trace.lineage, trace.zero)
        return said, self.tracer.parameter_name(out), list(self.fed)


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Call:
    return function, args, kwargs


A, B = NET.a.weight, NET.b.weight
SUM = "nti,nti,oi->no"
PAIRS: dict[str, tuple[Call, Call]] = {
    "an argument": (call(torch.transpose, X, 0, 1), call(torch.transpose, X, 1, 2)),
    "a named argument": (call(torch.flatten, X, start_dim=0), call(torch.flatten, X, start_dim=1)),
    "which name": (
        call(torch.movedim, CUBE, source=0, destination=2),
        call(torch.movedim, CUBE, destination=0, source=2),
    ),
    "a sign": (call(torch.mul, X, 2.0), call(torch.mul, X, -2.0)),
    "a type": (call(torch.full, (4,), 0), call(torch.full, (4,), False)),
    "a slice": (call(torch.Tensor.__getitem__, X, slice(2)), call(torch.Tensor.__getitem__, X, slice(4))),
    "a weight": (call(F.linear, X, A), call(F.linear, X, B)),
    "a shape": (call(torch.matmul, X, A), call(torch.matmul, LONGER, A)),
    "a trace": (call(torch.relu, X), call(torch.relu, PLAIN)),
    "a dtype": (call(torch.add, X, 1), call(torch.add, DOUBLE, 1)),
    "an order of rows": (call(torch.Tensor.__getitem__, X, TURNED), call(torch.Tensor.__getitem__, X, SAME)),
    "picked rows": (call(torch.index_select, X, 0, TURNED), call(torch.index_select, X, 0, SAME)),
    "one operand twice": (call(torch.einsum, SUM, X, X, A), call(torch.einsum, SUM, X, TWIN, A)),
    "a derived weight": (call(torch.t, A), call(torch.t, B)),
}


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("pair", PAIRS)
def test_calls_that_differ_are_told_apart(pair: str, first: int) -> None:
    """Either one first: the other, and then the first again, as if nothing had been before."""
    one, other = PAIRS[pair][first], PAIRS[pair][1 - first]
    asked = Asked()
    assert asked(one) == Asked()(one)
    assert asked(other) == Asked()(other)
    assert asked(one) == Asked()(one)


def test_the_number_of_samples_tells_calls_apart() -> None:
    """Rows padded to as many as there are samples are the samples; of another batch they are not."""
    padded, asked = call(F.pad, ROWS, (0, 0, 0, 1)), Asked()
    for samples in (4, 5, 4):
        said = asked(padded, samples=samples)
        assert said == Asked()(padded, samples=samples)
        assert (said[0][0].samples == 4) == (samples == 4)


def test_the_running_module_tells_calls_apart() -> None:
    """A tied weight belongs to the module that runs."""
    asked = Asked()
    for scope in ("a", "tied", "a"):
        (_, producers, _, _), _, fed = asked(call(F.linear, X, A), scope=scope)
        assert producers == (scope,)
        assert fed == [(scope, id(X))]


def test_what_is_remembered_is_not_worked_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call asks no handler, and says the same."""
    asked, layer = Asked(), call(F.linear, X, A)
    before = asked(layer)
    monkeypatch.setattr("deadrelu.tracing.table._work_out", None)
    assert asked(layer) == before


def test_names_that_change_are_not_remembered() -> None:
    """A model that has changed may give the place of a weight to another one."""
    asked = Asked()
    asked(call(F.linear, X, A))
    other = nn.Sequential(NET.a)
    asked.tracer.rename(ParameterNames(other, lambda: ""))
    assert asked(call(F.linear, X, A))[0][1] == ("0",)


def test_an_op_on_what_comes_from_elsewhere_is_asked_each_time() -> None:
    """Rows of unknown origin, as many as samples, are taken for the samples and named, in each forward pass."""
    asked = Asked()

    def stranger() -> Tensor:
        return torch.randn(4, 6)

    for _ in range(2):
        asked.tracer.foreign.clear()
        said, _, _ = asked(call(F.linear, stranger(), A), scope="a")
        assert said[0].samples == 4
        assert asked.tracer.foreign == {"a"}

"""Every activation kind against the slope that autograd gives to the function it stands for, in float64.

A flat kind is engaged exactly where the slope is not zero, a smooth one where |slope| >= 1e-3, a leaky one on the
positive side. Ends of intervals are left out of the grid: there one-sided slopes differ, and PyTorch takes the side
that the function's author liked (clamp passes a gradient at its bounds, relu does not). deadrelu counts every such tie
as inactive. They are approached to within 1e-9 from both sides instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deadrelu.kinds import KINDS, Arguments, Kind, kind_of_module, refined

NEAR = 1e-9
STATIONARY = {"hardswish": (-1.5,), "tanhshrink": (0.0,)}
"""Single points at which the slope vanishes, without a flat region: the minimum of hardswish, a saddle."""

Function = Callable[[Tensor], Tensor]


def quick_gelu(z: Tensor) -> Tensor:
    return z * torch.sigmoid(1.702 * z)


def gated(z: Tensor) -> Tensor:
    """GLU as a function of its gate, beside a value of 1."""
    return F.glu(torch.stack((torch.ones_like(z), z), -1)).squeeze(-1)


def won(z: Tensor) -> Tensor:
    """Maxout as a function of the margin of one piece over the other."""
    return torch.maximum(z, torch.zeros_like(z))


PLAIN: dict[str, Function] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "threshold": lambda z: F.threshold(z, 0.0, 7.0),
    "clamp": lambda z: z.clamp(min=0),
    "clamp_min": lambda z: z.clamp_min(0),
    "maximum": won,
    "maxout": won,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "softshrink": F.softshrink,
    "hardshrink": F.hardshrink,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda z: F.prelu(z, torch.tensor([0.25], dtype=z.dtype)),
    "rrelu": F.rrelu,
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "gelu": F.gelu,
    "quick_gelu": quick_gelu,
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "logsigmoid": F.logsigmoid,
    "tanh": torch.tanh,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "glu": gated,
}

# What the arguments of a call make of a kind: (name in the registry, function, further arguments).
CALLS: list[tuple[str, Callable[..., Tensor], tuple[Any, ...], dict[str, Any]]] = [
    ("hardtanh", F.hardtanh, (-2.0, 0.5), {}),
    ("hardtanh", F.hardtanh, (), {"min_val": 1.0, "max_val": 3.0}),
    ("hardtanh", F.hardtanh, (-3.5,), {"max_val": -1.25}),
    ("hardtanh", F.hardtanh, (0.0, 6.0), {}),
    ("hardtanh", F.hardtanh, (), {"min_val": 0, "max_val": 6}),
    ("threshold", F.threshold, (1.5, 0.0), {}),
    ("threshold", F.threshold, (-2.0, 20.0), {}),
    ("threshold", F.threshold, (), {"threshold": 0.1, "value": 20.0}),
    ("clamp", torch.clamp, (0,), {}),
    ("clamp", torch.clamp, (0.0, 6.0), {}),
    ("clamp", torch.clamp, (), {"min": 0, "max": 1.5}),
    ("clamp_min", torch.clamp_min, (0.0,), {}),
    ("leaky_relu", F.leaky_relu, (0.3,), {}),
    ("leaky_relu", F.leaky_relu, (), {"negative_slope": -0.1}),
    ("leaky_relu", F.leaky_relu, (0.0,), {}),
    ("leaky_relu", F.leaky_relu, (), {"negative_slope": 0}),
    ("rrelu", F.rrelu, (0.2, 0.4), {}),
    ("elu", F.elu, (0.5,), {}),
    ("elu", F.elu, (), {"alpha": 3.0}),
    ("elu", F.elu, (-2.0,), {}),
    ("elu", F.elu, (5e-4,), {}),
    ("elu", F.elu, (0.0,), {}),
    ("celu", F.celu, (0.25,), {}),  # autograd rounds this alpha to float32: only such numbers have an exact slope
    ("celu", F.celu, (), {"alpha": 2.5}),
    ("celu", F.celu, (-0.5,), {}),
    ("softplus", F.softplus, (2,), {}),
    ("softplus", F.softplus, (), {"beta": 0.5}),
    ("softplus", F.softplus, (5.0, 1.0), {}),
    ("softplus", F.softplus, (-1.0,), {}),
    ("gelu", F.gelu, (), {"approximate": "none"}),
    ("gelu", F.gelu, (), {"approximate": "tanh"}),
    ("softshrink", F.softshrink, (2.0,), {}),
    ("softshrink", F.softshrink, (), {"lambd": 0.125}),
    ("hardshrink", F.hardshrink, (1.25,), {}),
    ("hardshrink", F.hardshrink, (), {"lambd": 3}),
]


def cases() -> Iterator[Any]:
    """Yield (kind, function of z) for every kind as it is registered, and for calls with arguments."""
    for name, function in PLAIN.items():
        yield pytest.param(KINDS[name], function, id=name)
    for name, function, args, kwargs in CALLS:
        kind = refined(KINDS[name], Arguments((None, *args), kwargs))
        call = ", ".join([name, *map(str, args), *(f"{k}={v}" for k, v in kwargs.items())])
        yield pytest.param(kind, lambda z, f=function, a=args, k=kwargs: f(z, *a, **k), id=call)


every = pytest.mark.parametrize(("kind", "function"), list(cases()))


def grid(kind: Kind) -> Tensor:
    """Return points of [-40, 40], 1/1000 apart, and some far out, none of them an end of an interval."""
    far = torch.tensor([50.0, 80.0, 200.0, 600.0], dtype=torch.float64)
    z = torch.cat([-far, torch.arange(-40_000, 40_001, dtype=torch.float64) / 1000, far])
    left_out = torch.tensor([*ends(kind), *STATIONARY.get(kind.name, ())], dtype=torch.float64)
    return z[((z[:, None] - left_out).abs() >= NEAR).all(1)]


def ends(kind: Kind) -> list[float]:
    return [end for interval in kind.intervals for end in interval if math.isfinite(end)]


def slope(function: Function, z: Tensor) -> Tensor:
    z = z.clone().requires_grad_()
    return torch.autograd.grad(function(z).sum(), z)[0]


def truly_engaged(kind: Kind, function: Function, z: Tensor) -> Tensor:
    """Return the mask that the family of the kind asks for, from the slope of the function."""
    found = slope(function, z)
    if kind.family == "flat":
        return found != 0
    if kind.family == "leaky":
        return (z > 0) & (found == 1)
    return found.abs() >= 1e-3


def test_every_registered_kind_has_a_function_here() -> None:
    assert PLAIN.keys() == KINDS.keys()


@every
def test_engaged_is_where_the_slope_is(kind: Kind, function: Function) -> None:
    """Source: autograd on 80,000 points; DESIGN 2 (active, saturated, stuck negative)."""
    z = grid(kind)
    wrong = z[kind.engaged(z) != truly_engaged(kind, function, z)]
    assert wrong.tolist() == []


@every
def test_ends_of_intervals_are_exact(kind: Kind, function: Function) -> None:
    """Source: autograd 1e-9 inside and outside of every end; the end itself, a tie, is inactive."""
    for low, high in kind.intervals:
        for end, inward in ((low, NEAR), (high, -NEAR)):
            if math.isfinite(end):
                z = torch.tensor([end - inward, end + inward, end], dtype=torch.float64)
                assert truly_engaged(kind, function, z)[:2].tolist() == [False, low < high], (end, z)
                assert kind.engaged(z).tolist() == [False, low < high, False]


@every
def test_infinities_and_nan(kind: Kind, function: Function) -> None:
    """Source: DESIGN 2: NaN counts as inactive, +inf as active where the interval has no upper end."""
    nan, top, bottom = kind.engaged(torch.tensor([math.nan, math.inf, -math.inf])).tolist()
    assert not nan
    assert top == any(high == math.inf for _, high in kind.intervals)
    assert bottom == any(low == -math.inf and high != math.inf for low, high in kind.intervals)


@every
def test_slope_of_a_leaky_kind_has_two_values(kind: Kind, function: Function) -> None:
    """A leaky kind is linear on both sides and never flat; one that is flat is no leaky kind."""
    found = slope(function, grid(kind)).unique().tolist()
    two_lines = len(found) == 2 and 0 not in found and kind.intervals == ((0.0, math.inf),)
    assert (kind.family == "leaky") == (two_lines and kind.name not in ("elu", "celu"))


@every
def test_can_die_means_that_the_slope_is_zero_somewhere(kind: Kind, function: Function) -> None:
    """Source: DESIGN 2: only kinds whose slope is exactly zero over a region can be dead. A smooth kind underflows
    to zero only far out, where no tail of float64 is left."""
    z = grid(kind)
    z = z[z.abs() < 5]
    assert kind.can_die == bool((slope(function, z) == 0).any())


@every
def test_nonnegative_is_true_of_the_outputs(kind: Kind, function: Function) -> None:
    """`magnitude` sums h without |h| where this is declared."""
    assert not kind.nonnegative or bool((function(grid(kind)) >= 0).all())


@every
def test_intervals_are_written_in_order(kind: Kind, function: Function) -> None:
    flat = [end for interval in kind.intervals for end in interval]
    assert flat == sorted(flat)
    assert kind.positive == (len(flat) == 2 and flat[1] == math.inf)


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("clamp", (), {"max": 0}),
        ("clamp", (), {"max": 6.0}),
        ("clamp", (1e-6,), {}),
        ("clamp", (-20.0, 2.0), {}),
        ("clamp", (), {"min": -1, "max": 1}),
        ("clamp", (False,), {}),
        ("clamp", (0, 0), {}),
        ("clamp", (0, -1.0), {}),
        ("clamp", (torch.zeros(3),), {}),
        ("clamp", (0, torch.ones(3)), {}),
        ("clamp_min", (1,), {}),
        ("clamp_min", (), {"min": torch.zeros(3)}),
        ("clamp_min", (False,), {}),
    ],
)
def test_calls_that_are_no_activation(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A bound elsewhere than zero guards a division or a logarithm; bounds per element are not one activation."""
    assert refined(KINDS[name], Arguments((None, *args), kwargs)) is None


def test_arguments_change_what_they_say() -> None:
    """Other names and families where arguments make another function of a kind."""
    call = Arguments((None, 0.0, 6.0), {})
    assert refined(KINDS["hardtanh"], call) is KINDS["relu6"]
    for name, args in (("leaky_relu", (0.0,)), ("elu", (0.0,))):
        kind = refined(KINDS[name], Arguments((None, *args), {}))
        assert kind is not None
        assert (kind.name, kind.family, kind.can_die) == (name, "flat", True)
    assert refined(KINDS["relu"], call) is KINDS["relu"]


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_the_gate_of_a_glu_is_its_second_half(dim: int) -> None:
    """Source: the formula of PyTorch's documentation, value * sigmoid(gate)."""
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kind = KINDS["glu"]
    assert kind.gate is not None
    for call in (Arguments((x, dim), {}), Arguments((x,), {"dim": dim})):
        gate = kind.gate(x, call)
        torch.testing.assert_close(F.glu(x, dim), x.chunk(2, dim)[0] * torch.sigmoid(gate), rtol=1e-12, atol=0)


def test_activations_of_transformers() -> None:
    """Source: autograd through the modules themselves, which compute their function in several ops."""
    activations = pytest.importorskip("transformers.activations")
    for name in ("NewGELUActivation", "FastGELUActivation", "QuickGELUActivation", "AccurateGELUActivation"):
        module = getattr(activations, name)()
        kind = kind_of_module(module)
        assert kind is not None
        assert kind.family == "smooth"
        z = grid(kind)
        assert torch.equal(kind.engaged(z), truly_engaged(kind, module, z)), name


def test_a_kind_without_intervals_is_never_engaged() -> None:
    assert Kind("never", intervals=()).engaged(torch.randn(3, 2)).tolist() == [[False, False]] * 3

"""Kind: what an activation function does to its units, and which of its spellings torch knows.

A kind says where on the line of pre-activations z a unit is *engaged*: a union of open intervals. What silence (never
engaged in what was seen) means depends on the family:

- `flat`: the slope is exactly zero outside of the intervals (ReLU, Hardtanh, Hardswish...). A silent unit is **dead**.
- `leaky`: the intervals are the positive side (LeakyReLU, PReLU, RReLU). A silent unit is **stuck negative**.
- `smooth`: outside of the intervals |slope| < 1e-3 (GELU, sigmoid, tanh...). A silent unit is **saturated**.

At a tie (z = 0 for ReLU) a unit is not engaged. PyTorch's `clamp` and `maximum` pass a gradient there and `relu` does
not; the same network must give the same report in every spelling, so the tie counts as inactive for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from .errors import RegistryError

Family = Literal["flat", "leaky", "smooth"]
Interval = tuple[float, float]

INF = math.inf
FLAT_SLOPE = 1e-3
"""|slope| under which a smooth kind counts as saturated (DESIGN 2)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One activation kind.

    Attributes:
        name: canonical lower-case name, the `op` of a report.
        family: what silence means; see the module's text.
        intervals: open intervals of z in which a unit is engaged, ascending. `(0, inf)` contains +inf, never NaN.
        functions: names of the torch functions that compute it, without a trailing underscore.
        modules: classes (or their qualified names) whose call is this activation as a whole, whatever is inside.
        refine: what the arguments of one call make of the kind; None says that the call is no activation at all.
        gate: picks the pre-activation out of the first argument (GLU scores its gate).
        nonnegative: the output is never under 0, so that the sum of |h| is the sum of h.
        rectifier: the output is max(z, 0).
    """

    name: str
    family: Family = "flat"
    intervals: tuple[Interval, ...] = ((0.0, INF),)
    functions: tuple[str, ...] = ()
    modules: tuple[type | str, ...] = ()
    refine: Callable[[Kind, Arguments], Kind | None] | None = None
    gate: Callable[[torch.Tensor, Arguments], torch.Tensor] | None = None
    nonnegative: bool = False
    rectifier: bool = False

    @property
    def can_die(self) -> bool:
        """True if the slope is exactly zero somewhere."""
        return self.family == "flat"

    @property
    def positive(self) -> bool:
        """True if a unit is engaged exactly when z exceeds one bound."""
        return len(self.intervals) == 1 and self.intervals[0][1] == INF

    def engaged(self, z: torch.Tensor) -> torch.Tensor:
        """Return where z is engaged, bool, of z's shape. NaN is not.

        >>> KINDS["relu6"].engaged(torch.tensor([-1.0, 0.0, 3.0, 6.0, float("nan")])).tolist()
        [False, False, True, False, False]
        """
        mask: torch.Tensor | None = None
        for low, high in self.intervals:
            inside = z < high if low == -INF and high != INF else z > low
            if low != -INF and high != INF:
                inside = inside.logical_and_(z < high)
            mask = inside if mask is None else mask.logical_or_(inside)
        if mask is None:
            return torch.zeros_like(z, dtype=torch.bool)
        return mask


class Arguments:
    """The arguments of one call, found by position or by name as torch spells them."""

    __slots__ = ("args", "kwargs")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = args
        self.kwargs = kwargs

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """Return the argument at `position` or of that `name`, else `default`."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def number(self, position: int, name: str, default: float) -> float | None:
        """Return a numeric argument as float; None if it is a tensor or missing."""
        value = self.get(position, name, default)
        return float(value) if isinstance(value, (int, float)) else None


def _hardtanh(kind: Kind, call: Arguments) -> Kind | None:
    low, high = call.number(1, "min_val", -1.0), call.number(2, "max_val", 1.0)
    if low is None or high is None:
        return None
    if (low, high) == (0.0, 6.0):
        return KINDS["relu6"]
    return replace(kind, intervals=((low, high),))


def _threshold(kind: Kind, call: Arguments) -> Kind | None:
    bound = call.number(1, "threshold", 0.0)
    return None if bound is None else replace(kind, intervals=((bound, INF),))


def _clamp(kind: Kind, call: Arguments) -> Kind | None:
    # Only a floor at zero makes a rectifier: clamp(min=eps) guards a division, clamp(-20, 2) bounds a logarithm.
    low, high = call.get(1, "min"), call.get(2, "max")
    if isinstance(low, bool) or not isinstance(low, (int, float)) or low != 0:
        return None
    if high is None:
        return kind
    if not isinstance(high, (int, float)) or high <= 0:
        return None
    return replace(kind, intervals=((0.0, float(high)),), rectifier=False)


def _clamp_min(kind: Kind, call: Arguments) -> Kind | None:
    low = call.get(1, "min")
    return kind if isinstance(low, (int, float)) and not isinstance(low, bool) and low == 0 else None


def _leaky(kind: Kind, call: Arguments) -> Kind | None:
    slope = call.number(1, "negative_slope", 0.01)
    return replace(kind, family="flat") if slope == 0 else kind


def _elu(kind: Kind, call: Arguments) -> Kind | None:
    # alpha exp(z) >= 1e-3 below zero, slope 1 above
    alpha = call.number(1, "alpha", 1.0)
    if alpha is None:
        return None
    if alpha == 0:
        return replace(kind, family="flat", intervals=((0.0, INF),))
    return replace(kind, intervals=((min(0.0, math.log(FLAT_SLOPE / abs(alpha))), INF),))


def _celu(kind: Kind, call: Arguments) -> Kind | None:
    # exp(z / alpha) >= 1e-3 below zero, slope 1 above; a negative alpha makes it steeper than 1 on all of the left
    alpha = call.number(1, "alpha", 1.0)
    if not alpha:
        return None
    return replace(kind, intervals=((alpha * math.log(FLAT_SLOPE) if alpha > 0 else -INF, INF),))


def _softplus(kind: Kind, call: Arguments) -> Kind | None:
    # the slope is sigmoid(beta z): with a negative beta this is a logsigmoid
    beta = call.number(1, "beta", 1.0)
    if not beta:
        return None
    return replace(kind, intervals=((-_LOGIT / beta, INF) if beta > 0 else (-INF, -_LOGIT / beta),))


def _gelu(kind: Kind, call: Arguments) -> Kind | None:
    return replace(kind, intervals=_GELU_TANH) if call.get(1, "approximate", "none") == "tanh" else kind


def _shrink(kind: Kind, call: Arguments) -> Kind | None:
    bound = call.number(1, "lambd", 0.5)
    return None if bound is None else replace(kind, intervals=((-INF, -bound), (bound, INF)))


def _second_half(z: torch.Tensor, call: Arguments) -> torch.Tensor:
    return z.chunk(2, call.get(1, "dim", -1))[1]


_LOGIT = math.log((1 - FLAT_SLOPE) / FLAT_SLOPE)  # sigmoid(-6.907) = 1e-3
_SIGMOID = math.log((1 + math.sqrt(1 - 4 * FLAT_SLOPE)) / (1 - math.sqrt(1 - 4 * FLAT_SLOPE)))  # s (1 - s) = 1e-3
_TANH = math.atanh(math.sqrt(1 - FLAT_SLOPE))  # 1 - tanh^2 = 1e-3

# Where the slopes of GELU, SiLU and Mish have absolute value 1e-3: once in the left tail and on both sides of their
# minimum, found by bisection on the closed-form derivatives in float64 (tests/test_kinds.py checks them).
_GELU = ((-3.81037143600164, -0.7541139079563277), (-0.7494788078490218, INF))
_GELU_TANH = ((-3.7373491698594616, -0.7547897229903366), (-0.7501428422325565, INF))
_QUICK_GELU = ((-5.279119602864453, -0.7538601268058771), (-0.7484650611995856, INF))
_SILU = ((-8.985061564075298, -1.2830699358236028), (-1.2738875341616946, INF))
_MISH = ((-8.985213726841021, -1.1961880798277136), (-1.1886958743988068, INF))

_BUILT_IN = (
    Kind("relu", functions=("relu",), nonnegative=True, rectifier=True),
    Kind("relu6", intervals=((0.0, 6.0),), functions=("relu6",), nonnegative=True),
    Kind("hardtanh", intervals=((-1.0, 1.0),), functions=("hardtanh",), refine=_hardtanh),
    Kind("threshold", functions=("threshold",), refine=_threshold),
    Kind("clamp", functions=("clamp", "clip"), refine=_clamp, nonnegative=True, rectifier=True),
    Kind("clamp_min", functions=("clamp_min",), refine=_clamp_min, nonnegative=True, rectifier=True),
    # maximum(x, 0): told from other maxima by what is known of the second operand
    Kind("maximum", nonnegative=True, rectifier=True),
    Kind("maxout"),  # engaged where the piece wins
    Kind("hardswish", intervals=((-3.0, INF),), functions=("hardswish",)),
    Kind("hardsigmoid", intervals=((-3.0, 3.0),), functions=("hardsigmoid",)),
    Kind("softshrink", intervals=((-INF, -0.5), (0.5, INF)), functions=("softshrink",), refine=_shrink),
    Kind("hardshrink", intervals=((-INF, -0.5), (0.5, INF)), functions=("hardshrink",), refine=_shrink),
    Kind("leaky_relu", "leaky", functions=("leaky_relu",), refine=_leaky),
    Kind("prelu", "leaky", functions=("prelu", "_prelu_kernel")),
    Kind("rrelu", "leaky", functions=("rrelu", "rrelu_with_noise")),
    Kind("elu", "smooth", ((math.log(FLAT_SLOPE), INF),), ("elu",), refine=_elu),
    Kind("celu", "smooth", ((math.log(FLAT_SLOPE), INF),), ("celu",), refine=_celu),
    Kind("selu", "smooth", ((math.log(FLAT_SLOPE / (1.0507009873554805 * 1.6732632423543772)), INF),), ("selu",)),
    Kind("gelu", "smooth", _GELU, ("gelu",), refine=_gelu),
    Kind("quick_gelu", "smooth", _QUICK_GELU, modules=("transformers.activations.QuickGELUActivation",)),
    Kind("silu", "smooth", _SILU, ("silu",)),
    Kind("mish", "smooth", _MISH, ("mish",)),
    Kind("softplus", "smooth", ((-_LOGIT, INF),), ("softplus",), refine=_softplus),
    Kind("sigmoid", "smooth", ((-_SIGMOID, _SIGMOID),), ("sigmoid", "special_expit", "expit")),
    Kind("logsigmoid", "smooth", ((-INF, _LOGIT),), ("logsigmoid", "log_sigmoid")),
    Kind("tanh", "smooth", ((-_TANH, _TANH),), ("tanh",)),
    Kind("softsign", "smooth", ((1 - FLAT_SLOPE**-0.5, FLAT_SLOPE**-0.5 - 1),), ("softsign",)),
    Kind(
        "tanhshrink",
        "smooth",
        ((-INF, -math.atanh(FLAT_SLOPE**0.5)), (math.atanh(FLAT_SLOPE**0.5), INF)),
        functions=("tanhshrink",),
    ),
    Kind("glu", "smooth", ((-_SIGMOID, _SIGMOID),), ("glu",), gate=_second_half),
)

_TANH_GELU_MODULES = tuple(f"transformers.activations.{name}GELUActivation" for name in ("New", "Fast", "Accurate"))

KINDS: dict[str, Kind] = {}
_BY_FUNCTION: dict[str, Kind] = {}
_BY_MODULE: dict[type | str, Kind] = {}


def register_kind(kind: Kind) -> Kind:
    """Add an activation kind, so that audits find it by its functions and modules. Returns `kind`.

    >>> class Step(torch.nn.Module):
    ...     def forward(self, z):
    ...         return torch.where(z > 1, z, 0.0)
    >>> kind = register_kind(Kind("doctest_step", intervals=((1.0, math.inf),), modules=(Step,)))
    >>> kind_of_module(Step()).name
    'doctest_step'
    >>> unregister_kind("doctest_step")

    Raises:
        RegistryError: the name, a function or a module class is taken.
    """
    taken = [kind.name] if kind.name in KINDS else []
    taken += [name for name in kind.functions if name in _BY_FUNCTION]
    taken += [str(module) for module in kind.modules if module in _BY_MODULE]
    if taken:
        raise RegistryError(f"activation kind {kind.name!r}: {', '.join(taken)} is registered already; choose another")
    KINDS[kind.name] = kind
    _BY_FUNCTION.update(dict.fromkeys(kind.functions, kind))
    _BY_MODULE.update(dict.fromkeys(kind.modules, kind))
    return kind


def unregister_kind(name: str) -> None:
    """Take back what `register_kind` added.

    Raises:
        RegistryError: there is no kind of that name.
    """
    if name not in KINDS:
        raise RegistryError(f"no activation kind {name!r} is registered; there are {', '.join(KINDS)}")
    kind = KINDS.pop(name)
    for function in kind.functions:
        del _BY_FUNCTION[function]
    for module in kind.modules:
        del _BY_MODULE[module]


def kind_of_function(name: str) -> Kind | None:
    """Return the kind that a torch function of this name computes (no trailing underscore), before its arguments."""
    return _BY_FUNCTION.get(name)


def kind_of_module(module: torch.nn.Module) -> Kind | None:
    """Return the kind whose module classes `module` is an instance of; None for plain torch activation modules,
    which are seen by the function that they call."""
    for cls in type(module).__mro__[:-2]:
        kind = _BY_MODULE.get(cls) or _BY_MODULE.get(f"{cls.__module__}.{cls.__qualname__}")
        if kind is not None:
            return kind
    return None


def is_activation_module(module: torch.nn.Module) -> bool:
    """True if `module` is of a class that is known to be an elementwise activation."""
    home = torch.nn.modules.activation
    if isinstance(module, (home.MultiheadAttention, home.Softmax, home.Softmax2d, home.LogSoftmax, home.Softmin)):
        return False
    return kind_of_module(module) is not None or any(cls.__module__ == home.__name__ for cls in type(module).__mro__)


def refined(kind: Kind, call: Arguments) -> Kind | None:
    """Return what the arguments of a call make of `kind`; None if the call is no activation."""
    return kind if kind.refine is None else kind.refine(kind, call)


for _kind in _BUILT_IN:
    register_kind(_kind)
_BY_MODULE.update(dict.fromkeys(_TANH_GELU_MODULES, replace(KINDS["gelu"], intervals=_GELU_TANH)))

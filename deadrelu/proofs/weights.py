"""Weights: what tensors alone prove of a unit, where it is known how they are put together.

Plain tensors in, frozen claims out. Levels: `proved` holds for every input of the domain named (in real arithmetic,
widened by what float rounding may add); `heuristic` says what is likely, and is printed beside its rigorous bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..errors import DataError
from .rounding import roundoff

Tensor = torch.Tensor
Claim = Literal["zero_row", "negative_row", "norm_bound", "batch_norm_bound", "likely_rare"]


@dataclass(frozen=True, slots=True)
class WeightClaim:
    """What the weights say of one unit that a rectifier follows.

    Attributes:
        unit: index of the unit.
        claim: `zero_row`: z is its bias, which is <= 0, for every input; `negative_row`: no weight and no bias is
            positive, so z <= 0 for every input >= 0, such as one behind a ReLU; `norm_bound`: z <= `upper` for every
            input of the norm; `batch_norm_bound`: z <= `upper` in train mode with the number of values declared;
            `likely_rare`: z > 0 with probability `probability` if the norm's output is Gaussian.
        level: `proved` or `heuristic`.
        upper: the bound of z; None for a heuristic.
        probability: Phi(beta / |gamma|), in 0..1; None for a proof.
        cantelli: what the probability cannot exceed for any distribution, gamma^2 / (gamma^2 + beta^2); None for a
            proof.
    """

    unit: int
    claim: Claim
    level: Literal["proved", "heuristic"]
    upper: float | None = None
    probability: float | None = None
    cantelli: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the claim, without what it does not say."""
        named = {name: getattr(self, name) for name in ("unit", "claim", "level", "upper", "probability", "cantelli")}
        return {name: value for name, value in named.items() if value is not None}


def zero_rows(weight: Tensor, bias: Tensor | None = None) -> tuple[WeightClaim, ...]:
    """Return the units whose weights are all zero and whose bias is not positive: z is the bias, whatever comes in.

    Args:
        weight: shape (units, ...), of a Linear or a convolution.
        bias: shape (units,), None for none.

    Raises:
        DataError: the shapes do not fit.

    >>> zero_rows(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([-1.0, -1.0]))[0].to_dict()
    {'unit': 0, 'claim': 'zero_row', 'level': 'proved', 'upper': -1.0}
    """
    rows, shift = _rows(weight, bias)
    silent = (rows == 0).all(1) & (shift <= 0)
    return tuple(_proved(i, "zero_row", float(shift[i])) for i in _where(silent))


def negative_rows(weight: Tensor, bias: Tensor | None = None) -> tuple[WeightClaim, ...]:
    """Return the units with no positive weight and no positive bias: z <= 0 for every input >= 0, also in floats.

    For layers whose inputs are >= 0: behind a ReLU, ReLU6, sigmoid, softmax, or their pooling. Rows of zeros belong to
    `zero_rows` and are left out.

    Args:
        weight: shape (units, ...).
        bias: shape (units,), None for none.

    Raises:
        DataError: the shapes do not fit.

    >>> [claim.unit for claim in negative_rows(torch.tensor([[-1.0, 0.0], [1.0, -3.0]]))]
    [0]
    """
    rows, shift = _rows(weight, bias)
    silent = (rows <= 0).all(1) & (shift <= 0) & (rows < 0).any(1)
    return tuple(_proved(i, "negative_row", float(shift[i])) for i in _where(silent))


def norm_bounds(
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    centred: bool = True,
) -> Tensor:
    """Return the supremum of z over all inputs of a LayerNorm (or RMSNorm) and a Linear, float64, shape (units,).

    sup z = b + w . beta + sqrt(d) |P(w gamma)|, P subtracting the mean (RMSNorm: no P). Approached as the input grows,
    never reached (eps > 0), never exceeded.

    Args:
        weight: of the Linear, shape (units, d).
        bias: of the Linear, shape (units,), None for none.
        norm_weight, norm_bias: gamma and beta, shape (d,), None for ones and zeros.
        centred: the norm subtracts the mean: LayerNorm, not RMSNorm.

    Raises:
        DataError: the shapes do not fit.
    """
    rows, shift = _rows(weight, bias)
    gamma = _vector(norm_weight, rows.shape[1], "norm_weight", rows.device, 1.0)
    beta = _vector(norm_bias, rows.shape[1], "norm_bias", rows.device, 0.0)
    return _norm_bounds(rows, shift, gamma, beta, centred)[0]


def _norm_bounds(rows: Tensor, shift: Tensor, gamma: Tensor, beta: Tensor, centred: bool) -> tuple[Tensor, Tensor]:
    """The supremum, and the sum of absolute values that rounding is relative to."""
    d = rows.shape[1]
    v = rows * gamma
    part = v - v.mean(1, keepdim=True) if centred else v
    upper = shift + rows @ beta + math.sqrt(d) * part.norm(dim=1)
    return upper, shift.abs() + rows.abs() @ beta.abs() + math.sqrt(d) * v.norm(dim=1)


def norm_certificates(
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    centred: bool = True,
) -> tuple[WeightClaim, ...]:
    """Return the units of LayerNorm (or RMSNorm) -> Linear -> rectifier that no input makes fire.

    Proved if the supremum of `norm_bounds`, widened by 2 (d + 8) u of the sum of absolute values (u the roundoff of the
    weights' dtype), is not positive. Behind a LayerNorm that holds as long as the inputs are not so large, against
    their spread, that the mean that is subtracted is lost in rounding; `prove` takes that into account too.

    Args: as `norm_bounds`.

    Raises:
        DataError: the shapes do not fit.
    """
    rows, shift = _rows(weight, bias)
    d = rows.shape[1]
    gamma = _vector(norm_weight, d, "norm_weight", rows.device, 1.0)
    beta = _vector(norm_bias, d, "norm_bias", rows.device, 0.0)
    upper, size = _norm_bounds(rows, shift, gamma, beta, centred)
    upper = upper + (d + 8) * roundoff(weight.dtype) * size
    return tuple(_proved(i, "norm_bound", float(upper[i])) for i in _where(upper <= 0))


def batch_norm_certificates(weight: Tensor | None, bias: Tensor | None, *, values: int) -> tuple[WeightClaim, ...]:
    """Return the channels of BatchNorm -> rectifier that no batch makes fire in train mode.

    Of m values, none deviates from their mean by more than sqrt(m - 1) of their standard deviations (Samuelson 1968):
    z <= beta + |gamma| sqrt(m - 1).

    Args:
        weight, bias: gamma and beta, shape (channels,); None for ones and zeros.
        values: m, how many values of a channel are normalised together: batch times positions.

    Raises:
        DataError: the shapes do not fit, or there is no value.
    """
    gamma, beta = _pair(weight, bias)
    if values < 1:
        raise DataError(f"values is {values}; expected how many values of a channel are normalised at once, 1 or more")
    u = max([roundoff(given.dtype) for given in (weight, bias) if given is not None], default=0.0)
    spread = gamma.abs() * math.sqrt(values - 1)
    upper = beta + spread + 32 * u * (spread + beta.abs())
    return tuple(_proved(i, "batch_norm_bound", float(upper[i])) for i in _where(upper <= 0))


def batch_norm_heuristics(weight: Tensor | None, bias: Tensor | None, *, rate: float = 1e-3) -> tuple[WeightClaim, ...]:
    """Return the channels of BatchNorm -> rectifier that are likely to fire less often than `rate`, in 0..1.

    Phi(beta / |gamma|) if the normalised values are Gaussian. They need not be: Cantelli's inequality, which holds for
    every distribution with the norm's statistics, stands beside it.

    Args:
        weight, bias: gamma and beta, shape (channels,); None for ones and zeros.

    Raises:
        DataError: the shapes do not fit.

    >>> [claim] = batch_norm_heuristics(torch.tensor([1.0]), torch.tensor([-4.0]))
    >>> round(claim.probability * 1e5, 2), round(claim.cantelli, 4)
    (3.17, 0.0588)
    """
    gamma, beta = _pair(weight, bias)
    claims = []
    for i in _where(beta <= 0):
        g, b = abs(float(gamma[i])), float(beta[i])
        probability = 0.5 * math.erfc(-b / g / math.sqrt(2)) if g else 0.0
        if probability < rate:
            share = g * g / (g * g + b * b) if g else 0.0
            claims.append(WeightClaim(i, "likely_rare", "heuristic", probability=probability, cantelli=share))
    return tuple(claims)


def _proved(unit: int, claim: Claim, upper: float) -> WeightClaim:
    return WeightClaim(unit, claim, "proved", upper=upper)


def _where(mask: Tensor) -> list[int]:
    found: list[int] = mask.nonzero().flatten().tolist()
    return found


def _rows(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    if weight.ndim < 2:
        raise DataError(f"weight has shape {tuple(weight.shape)}; expected (units, ...), of a Linear or a convolution")
    rows = weight.detach().double().flatten(1)
    return rows, _vector(bias, len(rows), "bias", rows.device, 0.0)


def _pair(weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    known = weight if weight is not None else bias
    if known is None:
        return torch.ones(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    gamma = _vector(weight, known.numel(), "weight", known.device, 1.0)
    return gamma, _vector(bias, known.numel(), "bias", known.device, 0.0)


def _vector(value: Tensor | None, size: int, name: str, device: torch.device, default: float) -> Tensor:
    if value is None:
        return torch.full((size,), default, dtype=torch.float64, device=device)
    if tuple(value.shape) != (size,):
        raise DataError(f"{name} has shape {tuple(value.shape)}; expected ({size},)")
    return value.detach().double()

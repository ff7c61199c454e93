"""Fading: how far the memory of each unit has sunk below that of the living ones, and whether chance could do it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

CHANCE = 1e-4
"""The risk, per layer, that one of its living units is found to have faded by chance alone."""

DEEP = 4.4
"""The least fading that is dated, in nats: 42 steps at betas (0.9, 0.999). Under about 30 a state tells nothing."""

_SAMPLE = 64


@dataclass(frozen=True, slots=True)
class Faded:
    """How far each unit has sunk below the median of the living ones.

    Attributes:
        nats: ln(living / unit), shape (units,); at most 0 for half of the living, inf where nothing is left.
        deep: sunk further than chance explains, shape (units,).
    """

    nats: Floats
    deep: Flags


def faded(levels: Floats, living: Flags, numbers: torch.Tensor) -> Faded:
    """Return how far each unit has sunk.

    Args:
        levels: ln of the largest of the unit's numbers, shape (units,).
        living: the units with a recent gradient, shape (units,), at least one.
        numbers: signed numbers of a sample of living units, (sample, numbers).

    Source: along each principal direction of the living units' numbers, of standard deviation s, a living unit lies
    within x of 0 with a chance of at most sqrt(2 / pi) x / s if its numbers are spread as a normal distribution; x is
    at most the length of its numbers. The directions are independent, so that the chances multiply. A layer whose
    inputs are all alike has one direction, however long its rows are.
    """
    usual = float(np.median(levels[living]))
    nats = usual - levels
    length = levels + 0.5 * math.log(numbers.shape[1])
    chance = np.zeros(len(levels))
    for spread in _spreads(numbers):
        chance += np.minimum(0.0, length - math.log(spread) + 0.5 * math.log(2 / math.pi))
    return Faded(nats, (nats >= DEEP) & (chance <= math.log(CHANCE / len(levels))))


def _spreads(numbers: torch.Tensor) -> list[float]:
    """Return the root mean squares of (sample, numbers) along its principal directions, those of nothing left out."""
    squares = torch.linalg.eigvalsh(numbers @ numbers.T / len(numbers))
    return [math.sqrt(square) for square in squares.tolist() if square > 1e-12 * float(squares[-1])]


def sample(living: Flags) -> NDArray[np.int64]:
    """Return some of the living units, at most 64, spread over the layer."""
    chosen = np.flatnonzero(living)
    return chosen[:: max(1, -(-len(chosen) // _SAMPLE))]

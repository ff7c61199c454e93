"""The exact interval of learning rates at which one step silences a unit, against stepping and looking."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deadrelu.errors import InputError
from deadrelu.interventions import death_interval

Array = NDArray[np.float64]
INF = float("inf")


def column(*values: float) -> Array:
    return np.array(values, dtype=np.float64)[:, None]


def interval(z: Array, speed: Array) -> list[float]:
    low, high = death_interval(z, speed)
    return [*low.tolist(), *high.tolist()]


def test_units_flip_at_both_ends() -> None:
    """DESIGN 10: X uniform [-1, 1]^(8x4), w, b, d normal, 4,000 units, float64: each flips within 1e-6 of both ends."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (8, 4))
    w, dw = rng.standard_normal((2, 4, 4000))
    b, db = rng.standard_normal((2, 4000))
    low, high = death_interval(x @ w + b, x @ dw + db)

    def silent(eta: Array) -> NDArray[np.bool_]:
        return (x @ (w - eta * dw) + (b - eta * db) <= 0).all(0)

    empty = np.isnan(low)
    assert 0.1 < empty.mean() < 0.95
    lower = ~empty & (low > 0) & ~(high / np.where(low > 0, low, 1) < 1 + 1e-5)
    finite = np.where(lower, low, 1.0)
    assert lower.sum() > 300
    assert silent(finite * (1 + 1e-6))[lower].all()
    assert not silent(finite * (1 - 1e-6))[lower].any()
    upper = lower & np.isfinite(high)
    assert upper.sum() > 100
    finite = np.where(upper, high, 1.0)
    assert silent(finite * (1 - 1e-6))[upper].all()
    assert not silent(finite * (1 + 1e-6))[upper].any()
    for eta in (0.0, *np.geomspace(1e-4, 1e4, 60)):  # empty: it survives every rate
        assert not silent(np.full(4000, eta))[empty].any()


@pytest.mark.parametrize(
    ("z", "speed", "expected"),
    [
        ((1.0, -1.0), (2.0, -0.5), [0.5, 2.0]),
        ((-1.0, -2.0), (1.0, -4.0), [0.0, 0.5]),  # silent already: the lower end is 0
        ((1.0, 2.0), (1.0, 1.0), [2.0, INF]),  # nothing ever wakes it
        ((0.0, 1.0), (0.0, 4.0), [0.25, INF]),  # a tie that does not move is silent
        ((0.0,), (-1.0,), [0.0, 0.0]),  # silent at 0 alone
        ((-1.0,), (0.0,), [0.0, INF]),
    ],
)
def test_by_hand(z: tuple[float, ...], speed: tuple[float, ...], expected: list[float]) -> None:
    assert interval(column(*z), column(*speed)) == expected


@pytest.mark.parametrize(
    ("z", "speed"),
    [
        ((1.0,), (0.0,)),  # it does not move
        ((1.0,), (-1.0,)),
        ((2.0, -1.0), (1.0, -1.0)),  # one row wakes at 1, the other falls at 2
        ((float("nan"),), (1.0,)),
        ((1.0,), (float("inf"),)),
    ],
)
def test_never(z: tuple[float, ...], speed: tuple[float, ...]) -> None:
    assert np.isnan(interval(column(*z), column(*speed))).all()


def test_no_rows() -> None:
    assert interval(np.zeros((0, 1)), np.zeros((0, 1))) == [0.0, INF]


def test_parts_of_the_rows_intersect() -> None:
    rng = np.random.default_rng(1)
    z, speed = rng.standard_normal((2, 40, 500)) + np.array([0.0, 1.5])[:, None, None]
    low, high = death_interval(z, speed)
    first, second = death_interval(z[:13], speed[:13]), death_interval(z[13:], speed[13:])
    lows, highs = np.maximum(first[0], second[0]), np.minimum(first[1], second[1])
    known = ~np.isnan(low)
    assert known.any()
    np.testing.assert_array_equal(low[known], lows[known])
    np.testing.assert_array_equal(high[known], highs[known])
    assert not (lows[~known] <= highs[~known]).any()


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"expected \(rows, units\) for both"):
        death_interval(np.zeros(3), np.zeros(3))

"""Coalitions, shares and causes, against a plain network of one layer and an enumeration of all orders."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from deadrelu.interventions import ALL, COALITIONS, NONE, PARTS, Coalition, Outcome, intervene

UNITS = 200


def outcomes(seed: int) -> dict[Coalition, Outcome]:
    """Return what random steps of weights, bias and input do to random units, every coalition worked out by hand."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 30, 5)) - np.array([0.0, 1.0])[:, None, None]
    w = rng.standard_normal((5, UNITS))
    w = np.stack([w, w + rng.standard_normal((5, UNITS))])
    b = np.stack([np.full(UNITS, 0.5), 0.5 - 3 * rng.random(UNITS)])
    found = {}
    for coalition in COALITIONS:
        weights, bias, upstream = (int(part in coalition) for part in PARTS)
        z = x[upstream] @ w[weights] + b[bias]
        found[coalition] = Outcome(z.max(0), (z > 0).mean(0))
    return found


def test_shares_are_the_mean_over_all_orders() -> None:
    table = outcomes(0)
    found = intervene(range(UNITS), table.__getitem__)
    for part in PARTS:
        total = np.zeros(UNITS)
        for order in permutations(PARTS):
            before = frozenset(order[: order.index(part)])
            total += (table[before | {part}].max_z - table[before].max_z) / 6
        np.testing.assert_allclose(found.shares[part], total, atol=1e-12)
    whole = table[ALL].max_z - table[NONE].max_z
    np.testing.assert_allclose(sum(found.shares.values()), whole, atol=1e-12)


def test_sufficient_and_necessary() -> None:
    """Sufficient: silent with that part alone from the later state. Necessary: fires once it alone is taken back."""
    table = outcomes(1)
    found = intervene(range(UNITS), table.__getitem__)
    died = (table[NONE].rate > 0) & (table[ALL].rate == 0)
    assert died.any()
    np.testing.assert_array_equal(found.settled, died)
    for part in PARTS:
        np.testing.assert_array_equal(found.sufficient(part), died & (table[frozenset([part])].rate == 0))
        np.testing.assert_array_equal(found.revives(part), died & (table[ALL - {part}].rate > 0))


W, B, U = (frozenset([part]) for part in PARTS)


@pytest.mark.parametrize(
    ("killing", "cause"),
    [
        ({W, W | B, W | U}, "weights"),
        ({B, W | B, B | U}, "bias"),
        ({W, B, W | B}, "either"),
        ({W | B}, "both"),
        ({U, W | U, B | U}, "upstream"),
        ({W, W | B, U}, "several"),
        ({W | U}, "together"),
        ({W}, "together"),  # the weights alone do, yet the new bias would save it
        (set(), "together"),
        ({NONE, W, B, U}, "unknown"),  # silent before
    ],
)
def test_causes(killing: set[Coalition], cause: str) -> None:
    """`killing` are the coalitions under which the unit is silent, beside all parts together."""

    def run(later: Coalition) -> Outcome:
        silent = later in killing or later == ALL
        return Outcome(np.array([-1.0 if silent else 1.0]), np.array([0.0 if silent else 0.5]))

    assert intervene([0], run).cause(0) == cause


def test_a_unit_that_fires_after_all() -> None:
    found = intervene([0], lambda later: Outcome(np.ones(1), np.ones(1)))
    assert found.cause(0) == "unknown"
    assert not found.sufficient("weights").any()
    assert not found.revives("weights").any()

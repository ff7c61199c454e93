"""Bounds of firing rates, against exact binomial tails, scipy, and the numbers of the literature."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from deadrelu.errors import InputError
from deadrelu.rates import (
    rate_upper,
    samples_for_known_rate,
    samples_needed,
    silent_upper,
)

ALPHAS = (1e-6, 0.01, 0.05, 0.5, 0.9)
fixed = settings(derandomize=True, deadline=None, max_examples=150)


def exact_tail(p: Fraction, k: int, n: int) -> Fraction:
    """P(Binomial(n, p) <= k), term by term in whole numbers."""
    a, b = p.numerator, p.denominator
    return Fraction(sum(math.comb(n, i) * a**i * (b - a) ** (n - i) for i in range(k + 1)), b**n)


def decimal_error(bound: float, k: int, n: int, alpha: float) -> float:
    """Relative distance of `bound` from the root of P(Binomial(n, p) <= k) = alpha, one Newton step in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        p, q = Decimal(bound), 1 - Decimal(bound)
        tail = term = q**n
        for i in range(k):
            term *= p * (n - i) / ((i + 1) * q)
            tail += term
        slope = (n - k) * term / q  # -dP/dp, term being the last one of the sum
        return float((tail - Decimal(alpha)) / slope / p)


def test_samples_needed_is_the_smallest_number_that_suffices():
    """(1 - p)^n <= alpha in exact arithmetic, p and alpha as decimal fractions; 2,995 by default."""
    assert samples_needed() == 2995
    for rate, alpha in [
        ("1/1000", "1/20"),
        ("1/100", "1/20"),
        ("1/2", "1/1024"),
        ("1/10", "81/100"),
        ("9/10", "1/2"),
    ]:
        p, a = Fraction(rate), Fraction(alpha)
        n = samples_needed(float(p), float(a))
        assert (1 - p) ** n <= a
        assert n == 1 or (1 - p) ** (n - 1) > a


def test_samples_for_known_rate_asks_for_a_tenth():
    """ceil(ln(alpha) / ln(1 - r/10)): a unit that fired on 1 % needs 2,995 samples, one on 10 % needs 299."""
    assert samples_for_known_rate(0.01) == 2995
    assert samples_for_known_rate(0.1) == 299
    assert samples_for_known_rate(1.0, alpha=0.9**3) == 3
    assert samples_for_known_rate(0.01, alpha=0.01) == math.ceil(math.log(0.01) / math.log(0.999))


def test_silent_upper():
    """1 - (alpha / units)^(1/n), and 1 where there is no sample; about 3/n at 95 %."""
    assert silent_upper(0) == 1.0
    assert silent_upper(1) == pytest.approx(0.95, rel=1e-15)
    assert silent_upper(2995) == pytest.approx(0.00099974, rel=1e-5)
    assert silent_upper(10**9) == pytest.approx(-math.log(0.05) / 10**9, rel=1e-8)
    assert silent_upper(10, units=5) == pytest.approx(1 - 0.01**0.1, rel=1e-14)
    table = silent_upper(np.array([[0, 1], [2, 2995]]), alpha=0.1)
    np.testing.assert_allclose(table, [[1, 0.9], [1 - 0.1**0.5, silent_upper(2995, alpha=0.1)]], rtol=1e-14)
    assert silent_upper(np.array([], dtype=int)).shape == (0,)


def test_published_bounds():
    """The values for n = 2,995 at 95 % (Clopper & Pearson 1934)."""
    bounds = rate_upper(np.array([0, 1, 5, 20]), 2995)
    np.testing.assert_allclose(bounds, [0.00099974, 0.0015829, 0.0035070, 0.0096888], rtol=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 45])
def test_root_of_the_exact_tail(n, alpha):
    """For every k the exact tail, in whole numbers, crosses alpha within 1e-12 of the bound."""
    for k, bound in enumerate(rate_upper(np.arange(n), n, alpha=alpha)):
        p = Fraction(float(bound))
        assert exact_tail(p * (1 - Fraction(1, 10**12)), k, n) > Fraction(alpha)
        assert exact_tail(min(p * (1 + Fraction(1, 10**12)), Fraction(1)), k, n) < Fraction(alpha)
    assert rate_upper([n], n, alpha=alpha).tolist() == [1.0]


@pytest.mark.parametrize("n", [10**3, 10**6, 10**9])
def test_root_in_sixty_digits(n):
    """Against the tail summed in 60 decimal digits: float libraries lose digits where n is large and k small."""
    for k in (1, 2, 9, 300):
        for alpha in ALPHAS:
            assert abs(decimal_error(float(rate_upper([k], n, alpha=alpha)[0]), k, n, alpha)) < 1e-12


@pytest.mark.parametrize("alpha", ALPHAS)
def test_against_scipy(alpha):
    """The quantile of Beta(k + 1, n - k); scipy itself is off by 1e-8 for few firings in 1e9 samples."""
    rng = np.random.default_rng(0)
    for n, tolerance in [(50, 1e-11), (2995, 1e-11), (10**6, 2e-11), (10**9, 2e-8)]:
        k = np.unique(
            [
                0,
                1,
                n - 1,
                *rng.integers(0, n, 30),
                *np.floor(n ** rng.random(30)).astype(int),
            ]
        )
        k = k[k < n]
        np.testing.assert_allclose(
            rate_upper(k, n, alpha=alpha),
            stats.beta.isf(alpha, k + 1, n - k),
            rtol=tolerance,
        )


@fixed
@given(n=st.integers(1, 10**9), alpha=st.floats(1e-9, 0.49), data=st.data())
def test_grows_with_firings_and_shrinks_with_samples(n, alpha, data):
    """Over the observed share, more for each firing, less for each further sample, more for less risk."""
    k = data.draw(st.integers(0, n - 1))
    low, high = rate_upper([k, k + 1], n, alpha=alpha)
    assert k / n < low <= high <= 1.0
    assert low < high or 1 - low < 1e-9
    assert rate_upper([k], n + 1, alpha=alpha)[0] < low or 1 - low < 1e-9
    assert rate_upper([k], n, alpha=alpha / 2)[0] >= low


@fixed
@given(
    n=st.integers(1, 60),
    rate=st.fractions(0, 1, max_denominator=1000),
    alpha=st.sampled_from(ALPHAS),
)
def test_coverage(n, rate, alpha):
    """Whatever the true rate, the bound lies under it with probability alpha at most, summed exactly over k."""
    bounds = rate_upper(np.arange(n + 1), n, alpha=alpha)
    missed = [k for k in range(n + 1) if bounds[k] < rate]
    assert not missed or exact_tail(rate, max(missed), n) <= Fraction(alpha) * (1 + Fraction(1, 10**9))


def test_shapes_and_repeated_counts():
    """Units with the same count share one solution, and the shape is that of the counts."""
    counts = np.random.default_rng(1).integers(0, 8, (5, 40))
    bounds = rate_upper(counts, 7)
    assert bounds.shape == counts.shape
    assert bounds.dtype == np.float64
    for k in range(8):
        assert set(bounds[counts == k]) == set(rate_upper([k], 7))
    assert rate_upper(np.zeros((0, 3), dtype=int), 7).shape == (0, 3)
    assert rate_upper([], 7).shape == (0,)
    assert rate_upper(3, 7).shape == ()


def test_without_samples_nothing_is_known():
    assert rate_upper([0, 0], 0).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: samples_needed(0.0),
        lambda: samples_needed(1.0),
        lambda: samples_needed(float("nan")),
        lambda: samples_needed(alpha=1.5),
        lambda: samples_for_known_rate(0.0),
        lambda: samples_for_known_rate(1.1),
        lambda: silent_upper(-1),
        lambda: silent_upper(np.array([3, -2])),
        lambda: silent_upper(10, alpha=0.0),
        lambda: silent_upper(10, units=0),
        lambda: rate_upper([0], -1),
        lambda: rate_upper([8], 7),
        lambda: rate_upper([-1], 7),
        lambda: rate_upper([0.5], 7),
        lambda: rate_upper([0], 7, alpha=1.0),
    ],
)
def test_refuses_what_is_no_count_or_probability(call):
    with pytest.raises(InputError, match=r"(is|holds|runs)"):
        call()

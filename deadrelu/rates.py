"""Rates: how far the samples seen pin down how often a unit fires.

Each sample is one trial: it makes the unit fire somewhere, or it does not. All bounds are one-sided upper bounds of the
probability that it does, and hold with confidence 1 - alpha for a unit that is looked at once.

Source: Clopper & Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial",
Biometrika 26(4), 404-413. With k firings in n samples the bound is the p at which P(Binomial(n, p) <= k) = alpha; with
k = 0 that is 1 - alpha^(1/n), about 3/n at alpha = 0.05.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

Array = NDArray[np.float64]

# Below exp(-40) of its peak a density adds nothing to a float64 sum. Over the stretch that is left, 64 nodes of
# Gauss-Legendre are exact to rounding; here they are for an integral from 0 to 1.
_NEGLIGIBLE = 40.0
_NODES, _WEIGHTS = (np.polynomial.legendre.leggauss(64) + np.array([[1.0], [0.0]])) / 2

# Newton's method squares the relative error: after a last step of this size nothing is left of it.
_SETTLED = 1e-9

_LOG_EXCESS = np.array([0.0, *(math.lgamma(m + 1) - m * math.log(m) + m for m in range(1, 16))])


def samples_needed(rate: float = 1e-3, alpha: float = 0.05) -> int:
    """Return the samples without a firing that show a rate below `rate`: ceil(ln(alpha) / ln(1 - rate)).

    A quotient that misses a whole number by float rounding alone counts as that number.

    Args:
        rate: the rate to be ruled out, in (0, 1).
        alpha: the risk that a unit firing at `rate` stays silent that long, in (0, 1).

    Raises:
        InputError: `rate` or `alpha` is outside (0, 1).

    Source: P(no firing in n samples) = (1 - rate)^n <= alpha, solved for n.

    >>> samples_needed()
    2995
    >>> samples_needed(rate=0.5, alpha=0.25)  # two tosses of a coin
    2
    """
    _check_open("rate", rate)
    _check_open("alpha", alpha)
    quotient = math.log(alpha) / math.log1p(-rate)
    return max(1, math.ceil(quotient * (1 - 1e-13)))


def samples_for_known_rate(rate: float, alpha: float = 0.05) -> int:
    """Return the samples of silence that show a unit to fire ten times less often than it used to.

    Args:
        rate: the sample rate of the unit while it was alive, in (0, 1].
        alpha: the risk that the unit is called dead at a tenth of that rate, in (0, 1).

    Raises:
        InputError: `rate` is outside (0, 1], or `alpha` outside (0, 1).

    Source: ceil(ln(alpha) / ln(1 - rate / 10)), `samples_needed` at a tenth of the rate.

    >>> samples_for_known_rate(0.01) == samples_needed(0.001)
    True
    """
    if not 0 < rate <= 1:
        raise InputError(f"rate is {rate}; a rate at which a unit has fired lies in (0, 1]")
    return samples_needed(rate / 10, alpha)


@overload
def silent_upper(samples: int, *, alpha: float = ..., units: int = ...) -> float: ...
@overload
def silent_upper(samples: NDArray[np.integer], *, alpha: float = ..., units: int = ...) -> Array: ...
def silent_upper(samples: int | NDArray[np.integer], *, alpha: float = 0.05, units: int = 1) -> float | Array:
    """Return the upper bound of the rate of a unit that never fired: 1 - (alpha / units)^(1 / samples).

    Args:
        samples: samples seen, at least 0; a number, or an integer array of any shape, empty included.
        alpha: the risk that the true rate is larger, in (0, 1).
        units: how many units the bound must hold for at once (Bonferroni), at least 1.

    Returns:
        A rate in [0, 1] of the shape of `samples`. Without a sample nothing is known: the bound is 1.

    Raises:
        InputError: `samples` is negative, `alpha` outside (0, 1), or `units` under 1.

    Source: Clopper & Pearson 1934, the case of no success.

    >>> round(silent_upper(2995), 8)
    0.00099974
    >>> silent_upper(0)
    1.0
    >>> silent_upper(2995, units=1000) < silent_upper(2995) * 4
    True
    """
    _check_open("alpha", alpha)
    if units < 1:
        raise InputError(f"units is {units}; the bound needs at least one unit to hold for")
    counts = np.asarray(samples)
    if counts.size and counts.min() < 0:
        raise InputError(f"samples is {counts.min()}; a number of samples is 0 or more")
    with np.errstate(divide="ignore"):  # no samples: log(alpha) / 0 = -inf, and the bound is 1
        bound = -np.expm1(np.divide(math.log(alpha / units), counts.astype(np.float64)))
    return bound if isinstance(samples, np.ndarray) else float(bound)


def rate_upper(active: ArrayLike, samples: int, *, alpha: float = 0.05) -> Array:
    """Return the one-sided Clopper-Pearson upper bound of the firing rate of each unit.

    Accurate to about 1e-13 relative, for up to 1e9 samples and alpha up to 0.9. Read it once, at the end: a bound
    looked at after every batch, and believed when it is low, holds with less confidence than it says.

    Args:
        active: per unit, the samples in which it fired, 0 to `samples`; integers of any shape, such as (units,).
        samples: the samples that every unit was seen on, at least 0.
        alpha: the risk, per unit, that the true rate is larger, in (0, 1).

    Returns:
        Rates in [0, 1], float64, of the shape of `active` (empty for empty); all 1 if there were no samples.

    Raises:
        InputError: `active` does not hold whole numbers from 0 to `samples`, or `alpha` is outside (0, 1).

    Source: Clopper & Pearson 1934: the p at which P(Binomial(samples, p) <= active) = alpha.

    >>> rate_upper([0, 1, 5, 20, 2995], 2995).round(7).tolist()
    [0.0009997, 0.0015829, 0.003507, 0.0096888, 1.0]
    >>> rate_upper([1], 2, alpha=0.19).round(12).tolist()  # 1 - p^2 = 0.19
    [0.9]
    """
    _check_open("alpha", alpha)
    if samples < 0:
        raise InputError(f"samples is {samples}; a number of samples is 0 or more")
    counts = np.asarray(active)
    if counts.size == 0:
        return np.ones(counts.shape)
    if counts.dtype.kind not in "iu":
        raise InputError(f"active holds {counts.dtype}; the samples in which a unit fired are whole numbers")
    if counts.min() < 0 or counts.max() > samples:
        raise InputError(f"active runs from {counts.min()} to {counts.max()}; expected 0 to {samples}, the samples")
    distinct, where = np.unique(counts.ravel(), return_inverse=True)
    bounds = np.ones(distinct.shape)
    bounds[distinct == 0] = silent_upper(samples, alpha=alpha)
    between = (distinct > 0) & (distinct < samples)
    if between.any():
        bounds[between] = _solve(distinct[between].astype(np.float64), float(samples), alpha)
    return bounds[where].reshape(counts.shape)


def _solve(k: Array, n: float, alpha: float) -> Array:
    """Return the p at which P(Binomial(n, p) <= k) = alpha, for 0 < k < n. Shape (distinct,).

    That probability is the area right of p under the density of Beta(k + 1, n - k), proportional to
    t^k (1 - t)^(n - 1 - k). The density is log-concave, so the logarithm of the area is concave in p: from wherever it
    starts, Newton's method is right of the root after a step, and then falls towards it without ever passing it.
    """
    rest = n - 1 - k
    mode = k / (n - 1)
    log_total = _log_excess(k) + _log_excess(rest) - _log_excess(np.array(n - 1)) - math.log(n)
    highest = _highest(k, n, alpha)
    p = np.minimum(_near(k, n, alpha), highest)
    open_ = np.arange(len(p))
    while len(open_):
        at, k_, rest_ = p[open_], k[open_], rest[open_]
        area = _area_right(at, 1 - at, k_, rest_)
        log_tail = _log_ratio(at - mode[open_], mode[open_], rest_ / (n - 1), k_, rest_) + np.log(area)
        step = (log_tail - log_total[open_] - math.log(alpha)) * area  # the slope of log_tail is -1 / area
        p[open_] = np.minimum(at + step, highest[open_])
        open_ = open_[(np.abs(step) > _SETTLED * np.minimum(at, 1 - at)) & (p[open_] != at)]
    return p


def _near(k: Array, n: float, alpha: float) -> Array:
    """Return a p near the root. Shape (distinct,).

    Source: Abramowitz & Stegun 1964, 26.5.22, for the quantile of Beta(k + 1, n - k).
    """
    z = NormalDist().inv_cdf(alpha)
    a, b = 1 / (2 * k + 1), 1 / (2 * (n - k) - 1)
    h, spread = 2 / (a + b), (z * z - 3) / 6
    w = z * np.sqrt(h + spread) / h - (b - a) * (spread + 5 / 6 - 2 / (3 * h))
    near: Array = (k + 1) / (k + 1 + (n - k) * np.exp(2 * w))
    return near


def _highest(k: Array, n: float, alpha: float) -> Array:
    """Return a p at or right of the root: P(Binomial(n, p) <= k) <= alpha. Shape (distinct,).

    Two bounds, whichever is nearer. Chernoff's, exp(-n D(k/n, p)) <= alpha with D(a, p) >= (p - a)^2 / (2 p), solved
    for p. And the root at k = n - 1, where 1 - p^n = alpha, because the root grows with k.
    """
    excess = -math.log(alpha) / n
    chernoff = k / n + excess + np.sqrt(excess * (excess + 2 * k / n))
    last = math.exp(math.log1p(-alpha) / n)
    return np.minimum(chernoff, min(last, math.nextafter(1, 0)))


def _log_excess(m: Array) -> Array:
    """Return ln(m!) - (m ln m - m), small beside either: m = 0, 1, 2... Shape as `m`.

    With it, the integral of t^k (1 - t)^(n - 1 - k) over [0, 1], in units of its largest value, loses no digits.

    Source: Stirling's series, as Loader 2000, "Fast and accurate computation of binomial probabilities", uses it.
    """
    large = np.maximum(m, len(_LOG_EXCESS))
    x = 1 / (large * large)
    series = (1 / 12 - x * (1 / 360 - x * (1 / 1260 - x * (1 / 1680 - x / 1188)))) / large
    tabled = _LOG_EXCESS[np.minimum(m, len(_LOG_EXCESS) - 1).astype(np.intp)]
    return np.where(m < len(_LOG_EXCESS), tabled, 0.5 * np.log(2 * np.pi * large) + series)


def _area_right(p: Array, q: Array, k: Array, rest: Array) -> Array:
    """Return the integral from p to 1 of f(t) / f(p), with f(t) = t^k (1 - t)^rest, k > 0 and q = 1 - p. Shape as `p`.

    The integral ends where f has certainly fallen to exp(-_NEGLIGIBLE) of its largest value right of p. From
    -d ln f/dt = N (t - mode) / (t (1 - t)), N = k + rest, follow two such ends: one good for small t, one for t near 1.
    """
    n = k + rest
    mode = k / n
    ahead = np.maximum(p - mode, 0.0)
    excess = _NEGLIGIBLE / n
    low = excess + np.sqrt(excess * (excess + 2 * mode) + ahead**2)
    high = np.sqrt(ahead**2 + 2 * excess * np.minimum(q, rest / n))
    width = np.minimum(np.minimum(low, high) - (p - mode), q)
    growth, decline = width / p, -width / np.where(rest == 0, 1.0, q)
    total: Array = np.zeros_like(p)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):  # node by node: the memory stays O(units)
        total += weight * np.exp(k * np.log1p(node * growth) + rest * np.log1p(node * decline))
    total *= width
    return total


def _log_ratio(u: Array, p: Array, q: Array, k: Array, rest: Array) -> Array:
    """Return ln f(p + u) - ln f(p) for f(t) = t^k (1 - t)^rest, k > 0 and q = 1 - p. Shape as `p`."""
    # an exponent of zero gives zero, also where its base is
    ratio: Array = k * np.log1p(u / p) + rest * np.log1p(-u / np.where(rest == 0, 1.0, q))
    return ratio


def _check_open(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(f"{name} is {value}; expected a number between 0 and 1, both excluded")

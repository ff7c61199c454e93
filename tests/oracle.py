"""The oracle: what an audit must report of a site, computed slowly and obviously from its recorded pre-activations.

One unit at a time, in float64, from arrays (samples, positions, units). Slopes and formulas are those of the
PyTorch documentation of each function; the words are those of the design (active, sample rate, dormant, dead).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deadrelu.report import SiteReport

Array = NDArray[np.float64]


def _rectify(z: Array) -> Array:
    return np.where(z > 0, z, 0.0)


def _erf(z: Array) -> Array:
    return np.vectorize(math.erf, otypes=[float])(z)


def _sigmoid(z: Array) -> Array:
    return np.exp(-np.logaddexp(0, -z))


def _softplus(z: Array) -> Array:
    return np.logaddexp(0, z)


SELU = (1.6732632423543772, 1.0507009873554805)

# Kinds with a flat region: where the slope is not zero, and the output.
FLAT: dict[str, tuple[Callable[[Array], NDArray[np.bool_]], Callable[[Array], Array]]] = {
    "relu": (lambda z: z > 0, _rectify),
    "relu6": (lambda z: (z > 0) & (z < 6), lambda z: np.clip(z, 0, 6)),
    "hardtanh": (lambda z: (z > -1) & (z < 1), lambda z: np.clip(z, -1, 1)),
    "threshold": (lambda z: z > 0.1, lambda z: np.where(z > 0.1, z, 20.0)),
    "clamp": (lambda z: z > 0, _rectify),
    "clamp_min": (lambda z: z > 0, _rectify),
    "maximum": (lambda z: z > 0, _rectify),
    "hardswish": (lambda z: z > -3, lambda z: z * np.clip(z + 3, 0, 6) / 6),
    "hardsigmoid": (lambda z: (z > -3) & (z < 3), lambda z: np.clip(z + 3, 0, 6) / 6),
}

# Kinds that are linear on both sides, and smooth kinds: the output, and the slope.
LEAKY: dict[str, Callable[[Array], Array]] = {
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "prelu": lambda z: np.where(z > 0, z, 0.25 * z),
    "rrelu": lambda z: np.where(z > 0, z, (1 / 8 + 1 / 3) / 2 * z),
}
SMOOTH: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "elu": (
        lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
        lambda z: np.exp(np.minimum(z, 0)),
    ),
    "celu": (
        lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
        lambda z: np.exp(np.minimum(z, 0)),
    ),
    "selu": (
        lambda z: SELU[1] * np.where(z > 0, z, SELU[0] * np.expm1(np.minimum(z, 0))),
        lambda z: SELU[1] * np.where(z > 0, 1, SELU[0] * np.exp(np.minimum(z, 0))),
    ),
    "gelu": (
        lambda z: z * 0.5 * (1 + _erf(z / math.sqrt(2))),
        lambda z: 0.5 * (1 + _erf(z / math.sqrt(2))) + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi),
    ),
    "silu": (
        lambda z: z * _sigmoid(z),
        lambda z: _sigmoid(z) * (1 + z * (1 - _sigmoid(z))),
    ),
    "mish": (
        lambda z: z * np.tanh(_softplus(z)),
        lambda z: np.tanh(_softplus(z)) + z * (1 - np.tanh(_softplus(z)) ** 2) * _sigmoid(z),
    ),
    "softplus": (_softplus, _sigmoid),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * (1 - _sigmoid(z))),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
}


@dataclass(frozen=True)
class Expected:
    """What a site must report; arrays are (units,). The masks not meant for a kind are all False."""

    units: int
    samples: int
    positions: int
    can_die: bool
    activation_rate: Array | None
    sample_rate: Array | None
    max_z: Array
    dormant_score: Array
    dead: NDArray[np.bool_]
    always_on: NDArray[np.bool_]
    saturated: NDArray[np.bool_]
    stuck_negative: NDArray[np.bool_]


def expect(op: str, batches: Sequence[Array]) -> Expected:
    """Return what a site of kind `op` must report of these pre-activations, declared exhaustive."""
    units = batches[0].shape[2]
    samples = sum(z.shape[0] for z in batches)
    positions = sum(z.shape[0] * z.shape[1] for z in batches)
    active, fired = np.zeros(units), np.zeros(units)
    top, output = np.full(units, np.nan), np.zeros(units)
    flat, negative = np.ones(units, bool), np.ones(units, bool)
    for z in batches:
        for unit in range(units):
            values = z[:, :, unit]
            known = values[~np.isnan(values)]
            if known.size:
                top[unit] = np.fmax(top[unit], known.max())
            output[unit] += np.abs(_output(op, values)).sum()
            negative[unit] &= bool((known <= 0).all())
            if op in SMOOTH:
                flat[unit] &= bool((np.abs(SMOOTH[op][1](values)) < 1e-3).all())
            if op in FLAT:
                on = FLAT[op][0](values)
                active[unit] += on.sum()
                fired[unit] += on.any(axis=1).sum()
    mean = output / positions
    can_die, nobody = op in FLAT, np.zeros(units, bool)
    return Expected(
        units,
        samples,
        positions,
        can_die,
        active / positions if can_die else None,
        fired / samples if can_die else None,
        top,
        mean / mean.mean() if mean.mean() else np.zeros(units),
        active == 0 if can_die else nobody,
        active == positions if can_die else nobody,
        flat if op in SMOOTH else nobody,
        negative if op in LEAKY else nobody,
    )


def _output(op: str, z: Array) -> Array:
    if op in FLAT:
        return FLAT[op][1](z)
    return SMOOTH[op][0](z) if op in SMOOTH else LEAKY[op](z)


def compare(site: SiteReport, expected: Expected) -> None:
    """Compare every number of a site with the oracle's."""
    found = (site.units, site.samples, site.positions, site.can_die)
    wanted = (expected.units, expected.samples, expected.positions, expected.can_die)
    assert found == wanted, f"{site.site}: units, samples, positions, can_die are {found}, not {wanted}"
    if expected.activation_rate is not None and expected.sample_rate is not None:
        np.testing.assert_allclose(site.activation_rate, expected.activation_rate, atol=1e-6, rtol=0)
        np.testing.assert_allclose(site.sample_rate, expected.sample_rate, atol=1e-6, rtol=0)
    np.testing.assert_allclose(site.max_z, expected.max_z, atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(site.dormant_score, expected.dormant_score, atol=1e-6, rtol=1e-4)
    for mask in ("dead", "saturated", "stuck_negative"):
        np.testing.assert_array_equal(getattr(site, mask), getattr(expected, mask), err_msg=f"{site.site}: {mask}")
    if expected.can_die:
        np.testing.assert_array_equal(site.always_on, expected.always_on, err_msg=f"{site.site}: always on")

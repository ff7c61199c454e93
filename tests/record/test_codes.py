"""Codes against a slow oracle: one unit at a time, in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deadrelu.record.codes import DEAD, HIGHEST, LOWEST, RATE, UNSEEN, Scale, channel_codes, encode, rate_codes
from deadrelu.record.units import Units

values = st.one_of(st.floats(-1e30, 1e30), st.floats(1e-30, 1.0), st.just(0.0), st.just(math.nan), st.just(math.inf))


def one(value: float, low: float, high: float, kind: str) -> int:
    if math.isnan(value) or (kind == "log" and value < 0):
        return UNSEEN
    if kind == "log" and value == 0:
        return LOWEST
    if math.isinf(value):
        return HIGHEST if value > 0 else LOWEST
    if kind == "log":
        place = 1 + 253 * (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
        return min(max(round(place), 2), 254)
    return min(max(round(1 + 253 * (value - low) / (high - low)), 1), 254)


@given(st.lists(values, max_size=30), st.sampled_from(["log", "linear"]))
@settings(max_examples=200, deadline=None)
def test_codes_of_one_unit_at_a_time(found: list[float], kind: str) -> None:
    low, high = (1e-6, 1e3) if kind == "log" else (-2.5, 7.0)
    codes = encode(np.array(found, dtype=float), low, high, kind).tolist()
    assert all(abs(code - one(v, low, high, kind)) <= 1e-9 for code, v in zip(codes, found, strict=True))


@given(st.floats(1e-4, 1.0))
def test_a_rate_comes_back_within_a_step(rate: float) -> None:
    (code,) = RATE.encode(np.array([rate]))
    assert RATE.values()[code] == pytest.approx(rate, rel=1.001 * (1e4 ** (1 / 253) - 1) if code == 2 else 0.0184)


def test_dead_silent_rare_and_unseen_never_look_alike() -> None:
    rate = np.array([0.0, 0.0, 0.0, 1e-9, 0.0, np.nan, np.nan, 1.0])
    silent = np.array([1, 1, 0, 0, 0, 0, 1, 0], bool)
    dead = np.array([1, 0, 0, 0, 0, 0, 0, 0], bool)
    assert rate_codes(rate, silent, dead).tolist() == [DEAD, 1, 2, 2, 2, UNSEEN, 1, 254]


@given(st.lists(st.tuples(st.lists(values, max_size=6), st.booleans()), max_size=5), st.sampled_from(["log", "linear"]))
@example([([1.1125369292536007e-308], False)], "log")
@settings(max_examples=200, deadline=None)
def test_each_site_has_its_own_scale(sites: list[tuple[list[float], bool]], kind: str) -> None:
    """Together or one by one: the same codes and ends. A scale reaches from the least to the largest of the living."""
    flat = np.array([v for found, _ in sites for v in found], dtype=float)
    dead = np.array([first and not i for found, first in sites for i in range(len(found))], dtype=bool)
    codes, low, high = channel_codes(flat, dead, Units([len(found) for found, _ in sites]), kind)
    at = 0
    for place, (found, first) in enumerate(sites):
        part = slice(at, at + len(found))
        alone = channel_codes(flat[part], dead[part], Units([len(found)]), kind)
        assert codes[part].tolist() == alone[0].tolist()
        living = [v for i, v in enumerate(found) if not (first and not i) and abs(v) <= 1e300]
        living = [v for v in living if v >= 1e-300] if kind == "log" else living
        if not living:
            assert math.isnan(low[place])
            assert math.isnan(high[place])
        else:
            assert low[place] < high[place]
            assert low[place] <= min(living)
            assert high[place] >= max(living)
        for i, (value, code) in enumerate(zip(found, codes[part].tolist(), strict=True)):
            if first and not i:
                assert code == DEAD
            elif value == 0 and kind == "log":
                assert code == LOWEST
            elif math.isfinite(value) and living and (kind == "linear" or value >= 1e-300):
                assert (code >= 2) if kind == "log" else (LOWEST <= code <= HIGHEST)
        at += len(found)


def test_another_scale_keeps_the_values() -> None:
    own, common = Scale(1e-6, 1e-3, "log"), Scale(1e-8, 1.0, "log")
    table = own.table(common)
    assert table[[DEAD, UNSEEN, LOWEST]].tolist() == [DEAD, UNSEEN, LOWEST]
    codes = np.arange(2, 255)
    ratio = common.values()[table[codes]] / own.values()[codes]
    assert np.abs(np.log(ratio)).max() <= math.log(1e8) / 253 / 2 + 1e-12
    assert Scale.around([None, own, common, None]) == common
    assert Scale.around([None]) is None

"""Thinning: bounded, evenly spaced, never out of turn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadrelu.record.thinning import SITE_BYTES, Turns, is_kept, said, stride


@pytest.mark.parametrize("bound", [1, 2, 7, 50])
def test_what_is_kept_is_bounded_and_evenly_spaced(bound: int) -> None:
    kept: list[int] = []
    for index in range(40 * bound):
        kept += [index] if is_kept(index, bound) else []
        every = stride(index + 1, bound)
        assert every & (every - 1) == 0
        assert set(range(0, index + 1, every)) <= set(kept), "what is on the present grid was written"
        assert len(range(0, index + 1, every)) <= bound
        doublings = every.bit_length() - 1
        assert len(kept) <= bound * (1 + doublings / 2) + doublings + 1


def test_words() -> None:
    assert said(2000, 0) is None
    assert said(2001, 0) == "every 2nd window is kept (bound: 2,000 records)"
    assert said(9000, 3) == (
        "every 8th window is kept (bound: 2,000 records); units are kept in turns, site by site "
        "(bound: 312 KiB a record)"
    )


def test_the_bound_of_a_slow_writer_is_named() -> None:
    assert said(1, 2, 80_000) == "units are kept in turns, site by site (bound: 78 KiB a record)"


def test_all_write_where_all_fit() -> None:
    turns = Turns(3 * (100 + SITE_BYTES))
    assert [turns.take([100, 100, 100]) for _ in range(5)] == [[0, 1, 2]] * 5
    assert turns.take([]) == []
    assert turns.take([0]) == [0]


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=12), st.integers(2_000, 30_000))
def test_turns_are_fair_and_bounded(sizes: list[int], bound: int) -> None:
    turns = Turns(bound)
    rounds = 60
    written = np.zeros(len(sizes), int)
    total = 0
    for _ in range(rounds):
        chosen = turns.take(sizes)
        assert chosen == sorted(set(chosen))
        written[chosen] += 1
        total += sum(sizes[site] + SITE_BYTES for site in chosen)
    assert total <= rounds * bound + max(sizes) + SITE_BYTES
    assert written.max() - written.min() <= 1

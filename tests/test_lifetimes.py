"""Death dating: `Lifetimes` against a slow loop over single units, and against what DESIGN section 3 says."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deadrelu.lifetimes import NEVER, Lifetimes

NEED = 2995


def by_hand(fired: list[bool], samples: list[int]) -> list[tuple[int, int, bool]]:
    """Return the turns (step, last_fired, alive) of one unit, step by step."""
    turns, last, silence, need, dead = [], NEVER, 0, NEED, False
    for step, (on, rows) in enumerate(zip(fired, samples, strict=True)):
        if on:
            if dead:
                turns.append((step, last, True))
                dead, need = False, 2 * need
            last, silence = step, 0
        else:
            silence += rows
            if not dead and rows and silence >= need:
                turns.append((step, last, False))
                dead = True
    return turns


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=40),
    st.lists(st.sampled_from([0, 1, 700, 1500, 4000]), min_size=40, max_size=40),
    st.lists(st.integers(1, 9), min_size=1, max_size=40),
)
def test_turns_against_a_loop_in_windows_of_any_length(
    rows: list[list[bool]], samples: list[int], lengths: list[int]
) -> None:
    """Source: DESIGN 3 and 6.3: n samples of silence, dated back, n doubles after each revival."""
    fired = np.array(rows, bool)
    seen = np.array(samples[: len(rows)])
    fired[seen == 0] = False  # a site that was not executed fired in no unit
    lives = Lifetimes()
    lives.add_units(3)
    got: list[list[tuple[int, int, bool]]] = [[], [], []]
    at = 0
    for length in [*lengths, len(rows)]:
        part = slice(at, at + length)
        steps = np.arange(len(rows))[part]
        for turn in lives.update(steps, fired[part], np.repeat(seen[part, None], 3, 1)):
            got[turn.unit].append((turn.step, turn.last_fired, turn.alive))
        at += length
    for unit in range(3):
        assert got[unit] == by_hand(fired[:, unit].tolist(), seen.tolist())


def test_the_boundary_is_exact() -> None:
    """Source: DESIGN 3: 2,995 silent samples suffice, 2,994 do not."""
    lives = Lifetimes()
    lives.add_units(1)
    assert lives.update(np.array([0]), np.array([[False]]), np.array([[2994]])) == []
    (turn,) = lives.update(np.array([1]), np.array([[False]]), np.array([[1]]))
    assert (turn.step, turn.last_fired, turn.alive) == (1, NEVER, False)


def test_a_known_rate_asks_for_more() -> None:
    """Source: DESIGN 3: a unit of past rate r needs at least ln(alpha) / ln(1 - r / 10)."""
    lives = Lifetimes()
    lives.add_units(3)
    lives.expect(np.array([1e-3, 0.5, np.nan]))
    assert lives.need.tolist() == [math.ceil(math.log(0.05) / math.log(1 - 1e-4)), NEED, NEED]


def test_lives_are_resumed() -> None:
    """A resumed run confirms at the sample at which an uninterrupted one does."""
    first, second = Lifetimes(), Lifetimes()
    for lives in (first, second):
        lives.add_units(2)
    first.update(np.array([0, 1]), np.array([[True, False], [False, True]]), np.full((2, 2), 2000))
    second.resume(slice(0, 2), first.state(slice(0, 2)))
    turns = [lives.update(np.array([2]), np.zeros((1, 2), bool), np.full((1, 2), 1500)) for lives in (first, second)]
    assert turns[0] == turns[1]
    assert [t.unit for t in turns[0]] == [0]

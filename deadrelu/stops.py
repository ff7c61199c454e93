"""Stops: when a training is to end, because too many of its units are dead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

Rule = float | Callable[[Any], object]
"""A dead fraction in 0..1 above which a training is to end, or a function of the monitor with which it is."""


class Watched(Protocol):
    """What a rule is about: a monitor."""

    @property
    def steps(self) -> int: ...

    @property
    def deaths(self) -> Sequence[object]: ...

    @property
    def dead_fraction(self) -> float | None: ...


def reason_to_stop(rule: Rule | None, monitor: Watched) -> str | None:
    """Return why the training is to end, None if it is not."""
    if rule is None:
        return None
    if callable(rule):
        told = bool(rule(monitor))
        return f"stop_when came true at step {monitor.steps}: {len(monitor.deaths)} deaths so far" if told else None
    fraction = monitor.dead_fraction
    if fraction is None or fraction <= rule:
        return None
    return f"{fraction:.1%} of the units are dead at step {monitor.steps}, more than stop_when={rule}"

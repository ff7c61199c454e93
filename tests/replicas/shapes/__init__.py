"""Shapes of the pre-activation: one short model per way in which the unit axis comes about or moves."""

from __future__ import annotations

from .arithmetic import MIXED, POOLS
from .case import Case
from .layers import NORMS, PLAIN
from .views import CUTS, INNER, VIEWS

CASES: tuple[Case, ...] = PLAIN + NORMS + MIXED + VIEWS + CUTS + POOLS

__all__ = ["CASES", "INNER", "Case"]

"""states: two states of one model compared, or a row of them, with or without data."""

from __future__ import annotations

from .comparison import compare, diff
from .looking import PROBE, Looking
from .order import Ordered, find_checkpoints, put_in_order
from .row import follow, timeline
from .state import Source, State, state_of

__all__ = [
    "PROBE",
    "Looking",
    "Ordered",
    "Source",
    "State",
    "compare",
    "diff",
    "find_checkpoints",
    "follow",
    "put_in_order",
    "state_of",
    "timeline",
]

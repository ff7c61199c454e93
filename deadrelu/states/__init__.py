"""states: two states of one model compared, or a row of them, with or without data."""

from __future__ import annotations

from .order import Ordered, find_checkpoints, put_in_order
from .pair import diff
from .row import timeline
from .state import Source, State, state_of

__all__ = ["Ordered", "Source", "State", "diff", "find_checkpoints", "put_in_order", "state_of", "timeline"]

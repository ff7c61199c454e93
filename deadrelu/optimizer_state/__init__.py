"""optimizer_state: what the optimizer state of a checkpoint says about the gradient of each unit, without data.

Everything here says "no gradient". A unit that fires while every unit that reads it is dead has no gradient either, and
so has a frozen one; nothing here says that a unit never fires.
"""

from __future__ import annotations

from .claims import MEANING, Declined, GradientClaim, LayerSilence, Reading
from .reading import read_gradients
from .remembered import Remembered

__all__ = [
    "MEANING",
    "Declined",
    "GradientClaim",
    "LayerSilence",
    "Reading",
    "Remembered",
    "read_gradients",
]

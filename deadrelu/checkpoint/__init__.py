"""Checkpoints, read without running any code from them: one file per format, and what was found in it."""

from __future__ import annotations

from .contents import Checkpoint
from .loading import load_state
from .matching import ParameterStates
from .opening import SUFFIXES, open_checkpoint, read_saved
from .optimizer import OptimizerState
from .prefixes import bare
from .tensors import Weights

__all__ = [
    "SUFFIXES",
    "Checkpoint",
    "OptimizerState",
    "ParameterStates",
    "Weights",
    "bare",
    "load_state",
    "open_checkpoint",
    "read_saved",
]

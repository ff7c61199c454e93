"""Taps: the cheapest look at every activation of a training step.

The first forward pass of each outermost module is traced, which tells what every activation call is. From then on the
cheapest tap that sees the same z hands it over: a pre-hook on an activation module, a hook on the layer whose output is
z itself, and for functional calls that have neither, a thin function mode. What no longer fits what was traced is
traced anew; the steps that are captured run under the mode, to see whether it still fits.
"""

from .table import Guard, Sink
from .taps import Taps

__all__ = ["Guard", "Sink", "Taps"]

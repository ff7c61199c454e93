"""Tracing: carries (units, samples, positions) and producers from tensor to tensor through a forward pass."""

from .layout import Layout, plan, refit
from .names import ParameterNames, module_paths, unwrapped
from .readout import maxout_pieces, site_layout, sliced, unmapped
from .recall import Recall
from .table import BLIND, canonical_name, propagate
from .trace import NOTHING, Trace, Tracer, Traces, input_trace, tensors_of

__all__ = [
    "BLIND",
    "NOTHING",
    "Layout",
    "ParameterNames",
    "Recall",
    "Trace",
    "Tracer",
    "Traces",
    "canonical_name",
    "input_trace",
    "maxout_pieces",
    "module_paths",
    "plan",
    "propagate",
    "refit",
    "site_layout",
    "sliced",
    "tensors_of",
    "unmapped",
    "unwrapped",
]

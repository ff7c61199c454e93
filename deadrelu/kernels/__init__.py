"""Kernels: reductions of one tensor of pre-activations to a few numbers per unit."""

from .plan import Plan
from .reference import engaged_count, magnitude, maximum, square_sum, top

__all__ = ["Plan", "engaged_count", "magnitude", "maximum", "square_sum", "top"]

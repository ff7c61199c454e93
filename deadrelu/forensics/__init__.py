"""Forensics: what the weights, norm statistics and optimizer state of a checkpoint say of each unit, without data.

`layers.py` reads from the names and shapes which tensors belong together, `evidence.py` asks what they say,
`examination.py` makes a report of it. There is no model, hence no activation is known: everything here is about the
output of a layer, and is about a rectifier as far as one follows directly.
"""

from __future__ import annotations

from .examination import examine
from .proven import proof_report

__all__ = ["examine", "proof_report"]

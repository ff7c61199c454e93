"""Proofs: which units are dead for every input of a declared domain, from weights alone or with the model.

With the model, an abstract interpretation: `prover.py` runs it as an audit does, `machine.py` follows every op below
it, `shadow.py` keeps bounds beside memory, `table.py` says which handler bounds which op, `rounding.py` what floats
add. `weights.py` needs no model.
"""

from .proof import Proof, SiteProof
from .proving import maximising_corner, prove
from .weights import (
    WeightClaim,
    batch_norm_certificates,
    batch_norm_heuristics,
    negative_rows,
    norm_bounds,
    norm_certificates,
    zero_rows,
)

__all__ = [
    "Proof",
    "SiteProof",
    "WeightClaim",
    "batch_norm_certificates",
    "batch_norm_heuristics",
    "maximising_corner",
    "negative_rows",
    "norm_bounds",
    "norm_certificates",
    "prove",
    "zero_rows",
]

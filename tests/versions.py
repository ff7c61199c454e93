"""What depends on the version of torch: the expected values of tests that have something written by the one at hand."""

from __future__ import annotations

import torch

WRITES_DECOUPLED = torch.__version__ >= (2, 7)
WRITES_WEIGHT_TABLES = torch.__version__ >= (2, 8)


def told(optimizer: str) -> str:
    """Return what the state of `optimizer` tells of its class: before torch 2.7, Adam and AdamW wrote the same keys."""
    return optimizer if WRITES_DECOUPLED or optimizer not in ("Adam", "AdamW") else "Adam or AdamW"

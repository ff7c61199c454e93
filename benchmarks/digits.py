"""Digits: the real data of the benchmarks, 1,797 images of 8 x 8 pixels."""

from __future__ import annotations

import functools

import torch
from sklearn.datasets import load_digits


@functools.cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the digits in [0, 1], shape (1797, 64), and their labels."""
    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)


def standardised(x: torch.Tensor) -> torch.Tensor:
    """Return the digits with mean 0 and variance 1 in every pixel that varies."""
    return (x - x.mean(0)) / x.std(0).clamp_min(0.05)

"""Demo digits: scikit-learn's 1,797 real handwritten digits, as features and as images, split in two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from .demo_models import FEATURES

_TRAINING = 1347


@dataclass(frozen=True, slots=True)
class Split:
    """Inputs and labels, rows `training` to learn from and the rest held out.

    Attributes:
        inputs: float32, shape (1797, ...), standardised with what the training rows show.
        labels: int64, shape (1797,).
        training: number of rows to learn from.
    """

    inputs: Tensor
    labels: Tensor
    training: int = _TRAINING

    @property
    def held_out(self) -> Tensor:
        """Inputs that training never sees."""
        return self.inputs[self.training :]


def features() -> Split:
    """Return the digits as a table: their 20 leading principal components, each of unit variance."""
    pixels, labels = _digits()
    mean = pixels[:_TRAINING].mean(axis=0)
    axes = np.linalg.svd(pixels[:_TRAINING] - mean, full_matrices=False)[2][:FEATURES]
    largest = np.abs(axes).argmax(axis=1)
    axes *= np.sign(axes[np.arange(FEATURES), largest])[:, None]  # else the sign is the linear algebra library's whim
    table = (pixels - mean) @ axes.T
    table /= table[:_TRAINING].std(axis=0)
    return Split(torch.tensor(table, dtype=torch.float32), torch.tensor(labels))


def images() -> Split:
    """Return the digits as images, shape (1797, 1, 8, 8), with mean 0 and variance 1 over all pixels."""
    pixels, labels = _digits()
    scaled = (pixels - pixels[:_TRAINING].mean()) / pixels[:_TRAINING].std()
    return Split(torch.tensor(scaled, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels))


def _digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(
            "the demo's real digits come with scikit-learn, which is not installed; pip install 'deadrelu[demo]'"
        ) from None
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))  # the file is sorted by writer
    return pixels[order], labels[order].astype(np.int64)

"""Intake: what the model itself is given, seen on the captured steps, to tell whether the raw data have moved.

Where layers stand between the model's input and its first activation (an embedding, an attention, a norm), what moves
the input of that activation may be the data or these layers; only the data themselves tell.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .batches import tensors_in

ROWS, FEATURES = 4096, 256
"""Rows and features of an input that are looked at."""
KEPT = 256
"""Captures that are remembered, as many as kicks are."""


@dataclass(frozen=True, slots=True)
class _Look:
    """An input at one step: which module got it, and the mean and deviation of each feature (the last axis)."""

    step: int
    module: int
    features: torch.Tensor


class Intake:
    """The inputs of the outermost module. Memory is O(1)."""

    def __init__(self) -> None:
        self._looks: deque[_Look] = deque(maxlen=KEPT)

    def take(self, step: int, module: object, inputs: Any) -> None:
        """Look at the first input that holds fractions; token ids and the like do not move, and are passed over."""
        x = next((t for t in tensors_in(inputs) if t.is_floating_point() and t.ndim and _plain(t)), None)
        if x is None or not x.numel():
            return
        with torch.no_grad(), torch._C.DisableTorchFunction():
            x = x.detach()
            if not x.is_contiguous():  # what is no view would be copied whole
                x = x[:: -(-x.numel() // (ROWS * x.shape[-1]))]
            rows = x.reshape(-1, x.shape[-1])
            rows = rows[:: -(-len(rows) // ROWS), :: -(-rows.shape[1] // FEATURES)].float()
            deviation, mean = torch.std_mean(rows, 0, correction=0)
            features = torch.stack((mean, deviation))
        self._looks.append(_Look(step, id(module), features))

    def moved(self, first: int, last: int) -> float:
        """Return how far the features moved from step `first` to `last`, at the median over them.

        In deviations, or in doublings or halvings of the deviation, whichever is more; 0 if it is not known.
        """
        looks = [look for look in self._looks if first <= look.step <= last]
        looks = [look for look in looks if look.module == looks[0].module]
        if len(looks) < 2 or looks[0].features.shape != looks[-1].features.shape:
            return 0.0
        before, now = (look.features.cpu().double().numpy() for look in (looks[0], looks[-1]))
        with np.errstate(all="ignore"):  # a feature that does not vary, and one that vanishes
            return max(_median(np.abs(now[0] - before[0]) / before[1]), _median(np.abs(np.log2(now[1] / before[1]))))


def _plain(tensor: torch.Tensor) -> bool:
    """True for a tensor of which numbers can be had, now and later."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided and not wrapped


def _median(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else 0.0
